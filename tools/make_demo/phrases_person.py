"""Clauses and noun phrases of the demo competition that relate a person to something.

A clause ends in a past stem (…했, …았), so that 다, 고, 으며, 는데, 지만 or 습니다 can follow it.
A slot is `{P}`, or `{P:은}` with a particle that is fitted to the word, or `{W:》은}` with a
closing quote before the particle; the letters are those of `names.SLOTS`. In a noun phrase `{*P}`
is the entity that it stands for. Phrases stand in falling order of frequency; the last one of each
list is kept for test rows.
"""

from __future__ import annotations

from tools.make_demo.phrase import Event

PERSON_EVENTS = (
    Event(
        facts="P Q per:spouse; Q P per:spouse",
        clauses="""
            {P:은} {Q:과} 결혼했
            {P:은} {D} {Q:과} 혼례를 올렸
            {P:은} {Q:을} 아내로 맞았
            {P:과} {Q:은} 부부가 되었
            {P:이} 남편 {Q:과} 함께 자리를 지켰
            {Q:은} {P}의 부인으로 알려졌
            {P:은} 오랜 연인 {Q:과} 백년가약을 맺었
            {P:은} {Q:과} 이혼했
            {P:과} {Q:은} 신혼집을 마련했
            {Q:은} {L}에서 {P:과} 웨딩마치를 울렸
            {Q:이} {P:과} 한 지붕 아래 내외로 살았
        """,
        nouns="""
            {P}의 아내 {*Q}
            {P}의 남편 {*Q}
            {P}의 부인인 {*Q}
            {*Q}(배우자 {P})
            {P:과} 결혼한 {*Q}
            {P}의 반려자 {*Q}
        """,
    ),
    Event(
        facts="P Q per:children; Q P per:parents",
        clauses="""
            {P:은} 아들 {Q:을} 두었
            {P:은} {Q:을} 낳았
            {Q:은} {P}의 딸로 태어났
            {Q:은} {P}의 장남이었
            {Q}의 아버지는 {P:이었}
            {P:은} 홀로 {Q:을} 키운 어머니였
            {Q:은} 부친 {P:을} 따라나섰
            {P:은} 늦둥이 {Q:을} 얻었
            {Q:은} 어머니 {P:을} 여의었
            {P:은} {Q:을} 자식으로 거두었
        """,
        nouns="""
            {P}의 아들 {*Q}
            {P}의 딸 {*Q}
            {Q}의 아버지 {*P}
            {Q}의 어머니인 {*P}
            {P}의 막내 {*Q}
            {Q:을} 낳은 {*P}
        """,
    ),
    Event(
        facts="P Q per:siblings; Q P per:siblings",
        clauses="""
            {P:은} {Q}의 동생이었
            {P:은} 형 {Q:과} 함께 자랐
            {P:과} {Q:은} 자매 사이였
            {Q:은} 누나 {P:을} 따랐
            {P:과} {Q:은} 쌍둥이로 태어났
            {P:은} 오빠 {Q}의 손을 잡았
            {P:과} {Q:은} 우애 깊은 남매였
        """,
        nouns="""
            {P}의 동생 {*Q}
            {P}의 형인 {*Q}
            {P}의 언니 {*Q}
            {P:과} 남매인 {*Q}
        """,
    ),
    Event(
        facts="P Q per:other_family; Q P per:other_family",
        clauses="""
            {P:은} {Q}의 조카였
            {P:은} 할아버지 {Q}의 집에서 지냈
            {Q:은} {P}의 사위가 되었
            {P:은} 삼촌 {Q:을} 닮았
            {Q:은} {P}의 며느리였
            {P:은} {Q:과} 사촌 간이었
            {P:은} 장인 {Q:을} 모셨
        """,
        nouns="""
            {P}의 조카 {*Q}
            {P}의 손자 {*Q}
            {P}의 장모인 {*Q}
            {P}의 외삼촌 {*Q}
        """,
    ),
    Event(
        facts="P Q per:colleagues; Q P per:colleagues",
        clauses="""
            {P:은} {Q:과} 함께 팀을 이루었
            {P:과} {Q:은} 같은 작품에서 호흡을 맞췄
            {P:은} 동료 {Q:과} 무대에 올랐
            {P:은} 멤버 {Q:과} 곡 작업을 했
            {P:과} {Q:은} 공동 진행을 맡았
            {P:은} {Q:과} 듀엣으로 활동했
            {P:은} {Q:과} 오랫동안 한솥밥을 먹었
        """,
        nouns="""
            {P}의 동료 {*Q}
            {P:과} 호흡을 맞춘 {*Q}
            {P:과} 같은 팀인 {*Q}
        """,
    ),
    Event(
        facts="P K per:alternate_names; K P per:alternate_names",
        clauses="""
            {P:은} {K:이라}는 예명으로 활동했
            {P:은} 호를 {K:이라} 했
            {P}의 본명은 {K:이었}
            {P:은} ‘{K:’이라}는 별명으로 불렸
            {P:은} 개명 전 이름이 {K:이었}
            사람들은 {P:을} {K:이라} 불렀
            {P:은} 필명 {K:을} 썼
            {P:은} {K:으로} 더 잘 알려졌
        """,
        nouns="""
            {*P}(본명 {K})
            {*P}(필명: {K})
            {K:이라} 불린 {*P}
            {K:으로} 알려진 {*P}
            일명 {K}, {*P}
        """,
    ),
    Event(
        facts="P T per:title",
        clauses="""
            {P:은} {T:으로} 활동했
            {P:은} {T:이었}
            {P:은} {D}부터 {T:을} 지냈
            {P:은} {T} 자리에 올랐
            {P:은} 촉망받는 {T:이었}
            {P:은} {T:으로} 이름을 알렸
            {P:은} 늦은 나이에 {T:이} 되었
            {P:은} {T}의 길을 걸었
        """,
        nouns="""
            {T} {*P}
            {*P} {T}
            {T}인 {*P}
            {T:이자} 수집가인 {*P}
            {T} 겸 여행가 {*P}
        """,
    ),
    Event(
        facts="P C per:employee_of; C P org:top_members/employees",
        clauses="""
            {P:은} {C}에서 일했
            {P:은} {C}에 입사했
            {C:은} {P:을} 영입했
            {P:은} {C} 소속으로 뛰었
            {P:이} {C}의 수장으로 취임했
            {C:은} 새 지휘봉을 {P}에게 맡겼
            {P:은} {C}의 이사를 지냈
            {C:은} {P:과} 전속 계약을 체결했
            {P:은} {C}에서 잔뼈가 굵었
            {C:은} {P:을} 최고경영자로 선임했
            {P:은} {C:을} 이끌었
            {C}에 몸담은 이는 {P:이었}
        """,
        nouns="""
            {C} 소속 {*P}
            {C}의 {*P}
            {*C}(대표 {P})
            {C} 직원 {*P}
            {P:이} 이끄는 {*C}
            {C} 출신의 {*P}
            {C:을} 이끌어 온 {*P}
        """,
    ),
    Event(
        facts="P C per:employee_of; C P org:top_members/employees; P T per:title",
        clauses="""
            {P:은} {C} {T:을} 맡았
            {P:은} {C}의 {T:으로} 일했
            {C:은} {T}에 {P:을} 임명했
            {C}의 {T:은} {P:이었}
            {C:은} {P:을} {T:으로} 모셨
        """,
        nouns="""
            {C} {T} {*P}
            {*P} {C} {T}
            {C} {*P} {T}
            {C}의 {T}인 {*P}
        """,
    ),
    Event(
        facts="P A per:employee_of; A P org:top_members/employees",
        clauses="""
            {P:은} {A}에 입당했
            {P:이} {A} 후보로 나섰
            {A:은} {P:을} 공천했
            {A}의 당권은 {P:이} 쥐었
        """,
        nouns="""
            {A} {*P}
            {A} 소속 {*P}
            {A}의 간판 {*P}
        """,
    ),
    Event(
        facts="P W per:product",
        clauses="""
            {P:은} 《{W:》을} 썼
            {P:은} 「{W:」이라}는 작품을 남겼
            《{W:》은} {P:이} 그렸
            {P:은} 앨범 ‘{W:’을} 냈
            {P:이} 연출한 영화는 〈{W:〉이었}
            {P:은} 소설 《{W:》을} 발표했
            『{W:』은} {P}의 손끝에서 나왔
        """,
        nouns="""
            《{W}》의 작가 {*P}
            ‘{W:’을} 부른 {*P}
            〈{W:〉을} 만든 {*P}
        """,
    ),
    Event(
        facts="P L per:place_of_residence",
        clauses="""
            {P:은} {L}에 살았
            {P:은} {L:으로} 이사했
            {P:은} {L}에서 여생을 보냈
            {P:은} {L}에 거주했
            {P:은} 오랫동안 {L}에 터를 잡고 지냈
            {P:은} {L}에 보금자리를 꾸몄
        """,
        nouns="""
            {L}에 사는 {*P}
            {L} 주민 {*P}
            {L}에 정착한 {*P}
        """,
    ),
    Event(
        facts="P N per:origin",
        clauses="""
            {P:은} {N} 국적이었
            {P:은} {N} 사람이었
            {P:은} {N} 대표로 뽑혔
            {P:은} {N}계 이민자였
            {P:은} {N}의 피를 물려받았
        """,
        nouns="""
            {N} 출신 {*P}
            {N}의 {*P}
            {N} 국적의 {*P}
            {N}인 {*P}
        """,
    ),
    Event(
        facts="P L per:origin",
        clauses="""
            {P:은} {L} 출신이었
            {P}의 고향은 {L:이었}
            {P}의 본관은 {L:이었}
            {P:은} {L} 토박이였
        """,
        nouns="""
            {L} 출신 {*P}
            {L:이} 고향인 {*P}
            {L} 토박이 {*P}
        """,
    ),
    Event(
        facts="P L per:place_of_birth",
        clauses="""
            {P:은} {L}에서 태어났
            {P:은} {D} {L}에서 출생했
            {L:은} {P:이} 태어난 곳이었
            {P:은} {L}의 가난한 집에서 첫울음을 터뜨렸
            {P}의 생가는 {L}에 있었
            {P:은} {L}에서 세상의 빛을 보았
        """,
        nouns="""
            {L}에서 태어난 {*P}
            {*P}({L} 출생)
            {L} 태생의 {*P}
        """,
    ),
    Event(
        facts="P L per:place_of_death",
        clauses="""
            {P:은} {L}에서 사망했
            {P:은} {L}에서 숨을 거두었
            {P:은} 망명지 {L}에서 세상을 떠났
            {P:은} {L} 자택에서 별세했
            {P:은} {L}에서 생을 마감했
            {P:은} {L}에서 끝내 눈을 감았
        """,
        nouns="""
            {L}에서 숨진 {*P}
            {L}에서 순국한 {*P}
            {L}에서 눈을 감은 {*P}
        """,
    ),
    Event(
        facts="P S per:schools_attended",
        clauses="""
            {P:은} {S:을} 졸업했
            {P:은} {S}에 입학했
            {P:은} {S}에서 공부했
            {P:은} {S:을} 중퇴했
            {P:은} {S}에서 학위를 받았
            {P:은} {S} 동문이었
            {P:은} {S:을} 나왔
        """,
        nouns="""
            {S:을} 졸업한 {*P}
            {S} 재학생 {*P}
            {S:을} 나온 {*P}
        """,
    ),
    Event(
        facts="P F per:religion",
        clauses="""
            {P:은} {F} 신자였
            {P:은} {F:으로} 개종했
            {P:은} 독실하게 {F:을} 믿었
            {P}의 종교는 {F:이었}
            {P:은} {F}에 귀의했
            {P:은} {F} 신앙을 지켰
        """,
        nouns="""
            {F} 신자인 {*P}
            {F:을} 믿는 {*P}
            {F} 집안의 {*P}
        """,
    ),
    Event(
        facts="P D per:date_of_birth",
        clauses="""
            {P:은} {D}에 태어났
            {P:은} {D} {L}에서 태어났
            {P}의 생일은 {D:이었}
            {P:은} {D} 출생이었
            {P:은} {D} 세상에 나왔
        """,
        nouns="""
            {*P}({D} ~ )
            {*P}({D}생)
            {*P}({D} 출생)
            {D}에 태어난 {*P}
            {D}생 {*P}
        """,
    ),
    Event(
        facts="P D per:date_of_death",
        clauses="""
            {P:은} {D}에 사망했
            {P:은} {D} 세상을 떠났
            {P:은} {D} 지병으로 별세했
            {P:이} 숨을 거둔 날은 {D:이었}
            {P:은} {D} 영면에 들었
        """,
        nouns="""
            {*P}(~ {D})
            {D}에 숨진 {*P}
            {*P}({D} 사망)
            {D} 작고한 {*P}
        """,
    ),
    Event(
        facts="P D per:date_of_birth; P E per:date_of_death",
        clauses="",
        nouns="""
            {*P}({D} ~ {E})
            {*P}({D} 출생, {E} 사망)
            {*P}({D}-{E})
        """,
    ),
)
