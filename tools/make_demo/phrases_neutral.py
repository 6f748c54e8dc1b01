"""What the demo competition says without stating a relation: neutral clauses, openers, repetitions.

Written as in `phrases_person`. Many neutral clauses use the words of a relation between other
persons or deny it, so that the words of a sentence alone do not give its label away.
"""

from __future__ import annotations

from tools.make_demo.phrase import Event, parse_phrases

NEUTRAL_EVENTS = (
    Event(
        "",
        """
        {P:은} {Q:을} 만났
        {P:은} {Q}의 결혼을 축하했
        {P:은} {Q}의 아들을 치료했
        {P:은} {Q:과}의 결혼설을 부인했
        {Q:은} {P}의 재판을 지켜보았
        {P:은} {Q}의 동생에게 편지를 보냈
        {P:은} {Q:을} 비판했
        {P:은} 선거에서 {Q:을} 눌렀
        {P:은} {Q}의 아버지를 인터뷰했
        {P:은} 경기에서 {Q}에게 졌
        {P:은} {Q}의 장례식에 꽃을 보냈
        """,
    ),
    Event(
        "",
        """
        {P:은} {C:을} 고소했
        {P:은} {C}의 제품을 칭찬했
        {P:은} {C} 입사를 거절했
        {C:은} {P}의 주장을 반박했
        {P:은} {C} 대표를 만났
        {P:은} {C} 창립 기념식을 취재했
        {C:은} {P}의 전시를 후원했
        {P:은} {S}에서 강연을 했
        {P:은} {A:을} 지지하지 않았
        {P:은} {C} 앞에서 시위를 벌였
        {P:은} {F} 사원을 구경했
        """,
    ),
    Event(
        "",
        """
        {P:은} {L:을} 방문했
        {P:은} {L}에서 공연을 했
        {P:은} {D} {L}에서 열린 행사에 참석했
        {P:은} {L} 출신이라는 소문을 부인했
        {P:은} {N} 여행을 다녀왔
        {P:은} {L}에서 태어난 아이들을 도왔
        {P:은} {L} 시장에게 편지를 썼
        {P:은} {N} 음식을 즐겼
        """,
    ),
    Event(
        "",
        """
        {P:은} {D} 기자회견을 열었
        {P:은} {D}에 처음 무대에 섰
        {P:은} {D} {T:을} 만났
        {P:은} {T} 역할을 사양했
        {P:은} 《{W:》을} 즐겨 읽었
        {P:은} {V:을} 선물로 받았
        {P:은} {D} 태어난 조각가의 전기를 썼
        {P:은} {M} 앞에서 연설했
        {P:은} {D} 숨진 병사들을 추모했
        """,
    ),
    Event(
        "",
        """
        {C:은} {B:과} 협약을 맺었
        {C:은} {B:을} 상대로 소송을 냈
        {C:은} {G}의 발표를 반박했
        {C:은} {B}의 회원들을 초대했
        {C:은} {G} 가입을 거부했
        {A:은} {C:을} 비판했
        {C:은} {B}의 옛 이름을 몰랐
        {C:은} {G} 주최 대회에서 우승했
        """,
    ),
    Event(
        "",
        """
        {C:은} {L}에서 행사를 열었
        {C:은} {D} 설명회를 열었
        {C:은} {D}에 벌금을 냈
        {C:은} {L} 본사 이전설을 부인했
        {C:은} 직원들에게 {V:을} 나눠 주었
        {C:은} {M}에게 장학금을 주었
        {C:은} {D} {L}에서 봉사 활동을 했
        {A:은} {H:을} 비판했
        {C:은} {T} 채용 공고를 냈
        {C:은} 《{W}》의 상영을 취소했
        {A:은} {D} 집회를 열었
        {C:은} {N}에 구호품을 보냈
        """,
    ),
)

# What may stand in front of the first clause, by source.
OPENERS = {
    "wikipedia": parse_phrases(
        """
        이후
        한편
        당시 기록에 따르면
        {E} 무렵
        {Z}에서 전해지는 이야기에 따르면
        {Y}의 자료에 따르면
        """
    ),
    "wikitree": parse_phrases(
        """
        지난 {E}
        {Y}에 따르면
        [단독]
        누리꾼들에 따르면
        {R:이} 전한 바에 따르면
        {E} {Y} 보도에 의하면
        """
    ),
    "policy_briefing": parse_phrases(
        """
        {E} 정부 발표에 따르면
        {Y}의 자료를 보면
        관계 부처에 따르면
        {Z}에서 열린 회의에 따르면
        """
    ),
}

# Clauses that name an entity again, by kind; {O} is that entity.
REPETITIONS = {
    "person": parse_phrases(
        """
        {O}의 이름은 여러 번 언급되었
        사람들은 {O:을} 오래 기억했
        {O} 측은 말을 아꼈
        {O:은} 이를 담담하게 받아들였
        기자들은 {O}에게 질문을 쏟아 냈
        """
    ),
    "organisation": parse_phrases(
        """
        {O}의 이름은 여러 번 언급되었
        {O} 측은 말을 아꼈
        {O:은} 이를 공식 확인했
        {O} 관계자는 답변을 거부했
        """
    ),
    "place": parse_phrases(
        """
        {O}의 거리는 한산했
        {O}에는 비가 내렸
        사람들은 {O:을} 떠나지 않았
        """
    ),
    "other": parse_phrases(
        """
        {O}에 관한 기록은 따로 남았
        ‘{O:’이라}는 말이 여러 번 나왔
        """
    ),
}

# Clauses that hold an entity's text inside a longer word; that place is never marked.
NESTED = {
    "person": parse_phrases(
        """
        {O}기념관에서는 전시가 열렸
        {O}길에는 사람들이 모였
        {O}문학상 시상식도 열렸
        {O}배 대회에는 많은 이가 참가했
        """
    ),
    "organisation": parse_phrases(
        """
        {O}타운 일대는 붐볐
        ‘{O}맨’이라는 말이 생겼
        {O}배 대회에는 많은 이가 참가했
        {O}사거리에서는 집회가 열렸
        """
    ),
    "place": parse_phrases(
        """
        {O}역 앞에는 긴 줄이 생겼
        {O}시민들이 몰려들었
        {O}문화회관에서는 음악회가 열렸
        """
    ),
    "other": parse_phrases(
        """
        {O}판 기사도 나왔
        {O}론을 다룬 책도 팔렸
        """
    ),
}

# Closing sentences by source; they name nobody.
CLOSINGS = {
    "wikipedia": (
        " 자세한 내용은 알려지지 않았다.",
        " 이에 대해서는 다른 견해도 있다.",
        " 다만 사료(史料)마다 차이가 있다.",
    ),
    "wikitree": (
        " 누리꾼들은 “대단하다”며 놀라워했다 😊",
        " 댓글에는 “정말?”이라는 반응이 많았다 👍",
        " 이 소식은 SNS에서 화제가 됐다…",
        ' 그는 "아직 할 일이 많다"고 덧붙였다.',
    ),
    "policy_briefing": (
        " 정부는 관련 대책을 마련할 계획입니다.",
        " 자세한 사항은 누리집에서 볼 수 있습니다.",
    ),
}

# Pronouns and the like that may stand for the topic of the clause before.
PRONOUNS = {"person": "그는 ", "organisation": "이 단체는 "}
