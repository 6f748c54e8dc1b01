"""Clauses and noun phrases of the demo competition that relate an organisation to something.

Written as in `phrases_person`, where the notation is explained.
"""

from __future__ import annotations

from tools.make_demo.phrase import Event

ORGANISATION_EVENTS = (
    Event(
        facts="C D org:founded",
        clauses="""
            {C:은} {D}에 설립되었
            {C:은} {D} 창립했
            {C:은} {D}에 문을 열었
            {C}의 창립일은 {D:이었}
            {C:은} {D} 공식 출범했
            {C:은} {D} 첫발을 내디뎠
        """,
        nouns="""
            {D}에 설립된 {*C}
            {*C}({D} 설립)
            {D} 창단한 {*C}
            {D}에 세워진 {*C}
        """,
    ),
    Event(
        facts="A D org:founded",
        clauses="""
            {A:은} {D} 창당했
            {A:은} {D}에 결성되었
            {A:은} {D} 닻을 올렸
        """,
        nouns="""
            {D} 창당한 {*A}
            {D}에 출범한 {*A}
        """,
    ),
    Event(
        facts="C D org:dissolved",
        clauses="""
            {C:은} {D} 해체되었
            {C:은} {D}에 폐업했
            {C:은} {D} 문을 닫았
            {C:은} {D} 파산 선고를 받았
            {C:은} {D}에 청산 절차를 끝냈
            {C:은} {D} 역사 속으로 사라졌
        """,
        nouns="""
            {D}에 해체된 {*C}
            {*C}({D} 폐업)
            {D} 문을 닫은 {*C}
        """,
    ),
    Event(
        facts="A D org:dissolved",
        clauses="""
            {A:은} {D} 해산했
            {A:은} {D}에 강제 해산되었
            {A:은} {D} 간판을 내렸
        """,
        nouns="""
            {D} 해산한 {*A}
            {D} 간판을 내린 {*A}
        """,
    ),
    Event(
        facts="C P org:founded_by",
        clauses="""
            {C:은} {P:이} 설립했
            {P:은} {C:을} 세웠
            {P:은} {D} {C:을} 창업했
            {C}의 설립자는 {P:이었}
            {C:은} {P}의 손으로 창단되었
            {P:은} 빈손으로 {C:을} 일으켰
        """,
        nouns="""
            {P:이} 세운 {*C}
            {P:이} 설립한 {*C}
            {C}의 창업자 {*P}
            {C} 설립자인 {*P}
            {C:을} 일으킨 {*P}
        """,
    ),
    Event(
        facts="A P org:founded_by",
        clauses="""
            {P:은} {A:을} 창당했
            {A:은} {P:이} 만들었
            {A}의 산파는 {P:이었}
        """,
        nouns="""
            {P:이} 만든 {*A}
            {A:을} 창당한 {*P}
        """,
    ),
    Event(
        facts="C L org:place_of_headquarters",
        clauses="""
            {C:은} {L}에 본사를 두었
            {C}의 본사는 {L}에 있었
            {C:은} 본점을 {L:으로} 옮겼
            {C:은} {L}에 자리 잡았
            {L:은} {C}의 연고지였
            {C:은} {L:을} 거점으로 삼았
            {C:은} {L}에 둥지를 틀었
        """,
        nouns="""
            {L}에 본사를 둔 {*C}
            {*C}({L} 소재)
            {L}에 위치한 {*C}
            {L} {*C}
            {L}에 둥지를 튼 {*C}
        """,
    ),
    Event(
        facts="C V org:product",
        clauses="""
            {C:은} 신제품 ‘{V:’을} 출시했
            {C:은} {V:을} 개발했
            {C:은} {V:을} 내놓았
            {V:은} {C}에서 만들었
            {C}의 대표 상품은 {V:이었}
            {C:은} 주력 모델 ‘{V:’을} 공개했
            {C:은} {V:을} 세상에 선보였
        """,
        nouns="""
            ‘{V:’을} 만든 {*C}
            {V:을} 판매하는 {*C}
            {*C}(주력 제품 {V})
            {V} 제조사 {*C}
        """,
    ),
    Event(
        facts="C W org:product",
        clauses="""
            {C:은} 프로그램 〈{W:〉을} 방영했
            {C:은} 《{W:》을} 펴냈
            《{W:》은} {C}에서 제작했
        """,
        nouns="""
            《{W:》을} 제작한 {*C}
            〈{W:〉을} 내보낸 {*C}
        """,
    ),
    Event(
        facts="C G org:member_of; G C org:members",
        clauses="""
            {C:은} {G}에 가입했
            {C:은} {G}의 회원사였
            {G:은} {C:을} 회원으로 받아들였
            {C:은} {G} 산하로 편입되었
            {G:은} 계열사 {C:을} 거느렸
            {G}에는 {C:도} 속했
            {C:은} {G} 소속이 되었
            {G:은} {C:을} 가맹 단체로 승인했
            {C:은} {G}의 우산 아래 들어갔
        """,
        nouns="""
            {G} 산하 {*C}
            {G} 소속 {*C}
            {G}의 계열사인 {*C}
            {C:을} 거느린 {*G}
            {*G}(회원사 {C})
            {G}에 몸담은 {*C}
        """,
    ),
    Event(
        facts="A G org:member_of; G A org:members",
        clauses="""
            {A:은} {G}에 합류했
            {G:은} {A:을} 구성원으로 두었
            {A:은} {G}의 한 축이었
            {G:은} {A:을} 품었
        """,
        nouns="""
            {G}에 참여한 {*A}
            {A:을} 품은 {*G}
        """,
    ),
    Event(
        facts="G N org:members",
        clauses="""
            {G:은} {N:을} 회원국으로 맞았
            {G}에는 {N:도} 가입했
            {N:은} {G}의 정회원이 되었
        """,
        nouns="""
            {N:이} 가입한 {*G}
            {N:을} 회원국으로 둔 {*G}
        """,
    ),
    Event(
        facts="C X org:alternate_names; X C org:alternate_names",
        clauses="""
            {C:은} {X:으로} 이름을 바꿨
            {C}의 옛 이름은 {X:이었}
            {C:은} 줄여서 {X:이라} 불렸
            {C:은} 사명을 {X:으로} 변경했
            {C}의 영문 약자는 {X:이었}
            {C:은} {X:이라}는 간판도 썼
        """,
        nouns="""
            {*C}({X})
            {*C}(약칭 {X})
            {*C}(이하 {X})
            {*C}(옛 {X})
            일명 {X}, {*C}
        """,
    ),
    Event(
        facts="C M org:number_of_employees/members",
        clauses="""
            {C}의 직원은 {M:이었}
            {C:은} {M}의 직원을 고용했
            {C}에서는 {M:이} 근무했
            {C:은} 임직원이 {M:으로} 늘었
            {C:은} 모두 {M}의 식구를 거느렸
        """,
        nouns="""
            {M:이} 근무하는 {*C}
            {*C}(직원 {M})
            직원 {M}의 {*C}
        """,
    ),
    Event(
        facts="A M org:number_of_employees/members",
        clauses="""
            {A}의 당원은 {M:이었}
            {A:은} 회원 {M:을} 두었
            {A:은} {M}의 동지를 모았
        """,
        nouns="""
            당원 {M}의 {*A}
            회원 {M:을} 둔 {*A}
        """,
    ),
    Event(
        facts="A H org:political/religious_affiliation",
        clauses="""
            {A:은} {H:을} 표방했
            {A:은} {H} 정당이었
            {A}의 이념은 {H:이었}
            {A:은} {H} 성향을 띠었
            {A:은} {H:을} 기치로 내걸었
        """,
        nouns="""
            {H} 정당 {*A}
            {H:을} 내세운 {*A}
            {*A}({H} 계열)
            {H} 노선의 {*A}
        """,
    ),
    Event(
        facts="C H org:political/religious_affiliation",
        clauses="""
            {C:은} {H} 정신으로 운영되었
            {C:은} {H} 계열이었
            {C:은} {H:을} 따랐
        """,
        nouns="""
            {H} 계열의 {*C}
            {H:을} 바탕으로 한 {*C}
        """,
    ),
)
