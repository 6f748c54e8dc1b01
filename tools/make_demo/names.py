"""Invented names of the demo competition: persons, organisations, works, dates, numbers.

Used by `grammar`. Every name is composed from the short lists below (only cities, countries and
religions are real names), so that there are enough unseen entity pairs even for a million rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SURNAMES = tuple("김이박최정강조윤장임한오서신권황안송류홍전고문양손배백허유남심노하곽성차주우구")
RARE_SURNAMES = ("남궁", "황보", "제갈", "선우")
# Most names consist of common parts, so that a name identifies a row less than its words do; the
# others are composed of syllables.
COMMON_FRAC = 0.85
GIVEN_COMMON = _words(
    "도현 서윤 민재 지우 하린 예준 주원 은서 시우 준호 태민 수빈 우진 나연 성훈 보람 승아 채원 "
    "재희 소율 정우 유나 경민 다온 진솔 선호 세인 아름 연우 혜린 미소 영재 동건 상현 가은 라희 "
    "규민 한결 새봄 현서"
)
GIVEN_FIRST = tuple("도서민지하예주은시준태현우성승재윤수나다가라보채소유정경진선세아연혜미영동상")
GIVEN_SECOND = tuple("현준우진호윤민서연아원영희숙철수빈린율솔람결찬혁훈석섭규환태경은정미나라온비")
FOREIGN_FIRST = _words(
    "레온 마르코 엘리자 토마 빅토르 안나 카렐 미라 유리 한스 로자 다니엘 소피 브루노 니나 오스카 "
    "줄리아 파벨 아델 콘라트 이네스 루카 마야 에밀 클라라 시몬 베라 알마"
)
FOREIGN_LAST = _words(
    "벨모어 카르니 두발 하르트만 오리온 페트란 산도르 로웰 빈터 몬테로 그린필드 야노프 카스트로바 "
    "린드홀름 데마르 호프너 브란코 세라노 위클리프 올센 타르코 모라비 켈러만"
)
LATIN_PERSONS = ("Mira", "Leon", "Juno", "Karel", "Nova", "Theo", "Alma", "Iris", "Hugo", "Vera")
LATIN_LASTS = ("Bellmore", "Hart", "Sol", "Winter", "Lindholm", "Orion", "Petran", "Lowell")

STEM_COMMON = _words(
    "가람 한빛 새결 온누리 푸름 대원 동해솔 서림 남강 미르 해찬 별터 솔샘 늘봄 참빛 큰들 다온 바름 "
    "나래 마루 하늘 청명 금성 태광 세진 유림 선화 우리 보명 산울"
)
STEM_FIRST = tuple("가한새온푸대동서남미해별솔늘참큰다바나라마하청금은태세유선우보산")
STEM_SECOND = tuple("람빛결울마름성림원진해솔온샘강들찬별터광양명화신보길루나")
COMPANY_ENDS = _words(
    "전자 제약 건설 식품 재단 연구소 병원 엔터테인먼트 신문 은행 물산 화학 통신 항공 출판사 "
    "자동차 해운 방송 증권 게임즈 소프트 바이오 호텔 극단 오케스트라 상사 복지관 유통"
)
LATIN_COMPANIES = ("NOVA", "KTX", "SOL", "MG", "ARIA", "BLU", "DN", "ZEN", "HANA", "VEGA", "LUX")
GROUP_ENDS = _words(
    "협회 연맹 연합회 그룹 조합 위원회 협의체 총연합 리그 네트워크 연합 공동체 포럼 평의회"
)
GROUP_FIELDS = _words(
    "과학 문화 체육 무역 언론 의료 교육 환경 금융 예술 농업 해양 청년 여성 노동 출판 축구 관광"
)
PARTY_ENDS = ("당", "연대", "민주당", "국민당", "시민회", "운동본부", "동맹", "개혁당")
SCHOOL_ENDS = ("대학교", "고등학교", "여자고등학교", "중학교", "예술대학", "공업고등학교", "대학원")

CITIES = _words(
    "서울 부산 대구 인천 광주 대전 울산 수원 성남 전주 청주 춘천 강릉 원주 제주 포항 경주 안동 "
    "목포 여수 순천 군산 익산 천안 아산 공주 충주 제천 김해 창원 진주 통영 거제 속초 동해 삼척 "
    "파주 김포 이천 용인 도쿄 오사카 베이징 상하이 파리 런던 베를린 뉴욕 시카고 로마 하노이"
)
DISTRICTS = (
    "북구",
    "남구",
    "중구",
    "동구",
    "서구",
    "한빛동",
    "솔내읍",
    "달빛면",
    "새터동",
    "강변구",
)
COUNTRIES = _words(
    "대한민국 미국 일본 중국 프랑스 독일 영국 이탈리아 스페인 러시아 베트남 태국 인도 호주 캐나다 "
    "브라질 멕시코 스웨덴 노르웨이 폴란드 체코 터키 이집트 네덜란드"
)
FAITHS = _words(
    "불교 개신교 천주교 원불교 이슬람교 성공회 장로교 감리교 대종교 힌두교 정교회 천도교"
)
CREEDS = _words(
    "보수주의 자유주의 사회주의 진보주의 민족주의 생태주의 무정부주의 공산주의 중도주의 불교 "
    "개신교 천주교 이슬람교 원불교"
)
TITLES = _words(
    "배우 가수 변호사 기자 교수 의원 감독 시인 소설가 대표 회장 사장 이사장 총장 부장 연구원 장관 "
    "시장 작곡가 화가 아나운서 건축가 피아니스트 무용가 선수 코치 의사 판사 외교관 사진작가 "
    "프로듀서 성우 평론가 만화가 지휘자 위원장 비서관 국회의원 방송인 경제학자"
)
WORK_FIRST = (
    *_words(
        "하얀 푸른 마지막 오래된 숨은 겨울 봄날의 바람의 달빛 붉은 조용한 낯선 잃어버린 느린 먼"
    ),
    "두 번째",
)
WORK_SECOND = _words(
    "강 정원 편지 노래 골목 섬 약속 계절 창문 기차 바다 지도 시간 여행 숲 사람들 밤 거울 항구 일기"
)
PRODUCT_FIRST = _words("누리 별빛 모아 하루 온새 이음 두루 라온 마루 아토 시나 루미 나래 솔로 테라")
PRODUCT_SECOND = _words(
    "폰 노트 카드 라면 톡 패드 워치 비타민 페이 북 차 크림 TV 뱅크 주스 드론 로봇 보드 빔"
)
PEN_NAMES = _words(
    "나비 해솔 달무리 청운 송암 백하 루미 제로 은하 호수 벽산 도담 별하 무진 석촌 하람 월계 소나기"
)
HANJA = tuple("金李朴崔鄭姜趙尹張林道賢智秀民俊英浩真善美雲海松月光文")


@dataclass(frozen=True, slots=True)
class Name:
    """An entity before it is used in a sentence: its text, published type and kind of slot."""

    word: str
    type: str
    kind: str


def _person(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.09:
        return f"{rng.choice(FOREIGN_FIRST)} {rng.choice(FOREIGN_LAST)}"
    if draw < 0.11:
        return f"{rng.choice(LATIN_PERSONS)} {rng.choice(LATIN_LASTS)}"
    surname = rng.choice(RARE_SURNAMES) if draw < 0.13 else rng.choice(SURNAMES)
    if draw > 0.96:
        return surname + rng.choice(GIVEN_SECOND)
    if rng.random() < COMMON_FRAC:
        return surname + rng.choice(GIVEN_COMMON)
    return surname + rng.choice(GIVEN_FIRST) + rng.choice(GIVEN_SECOND)


def _stem(rng: Random) -> str:
    if rng.random() < COMMON_FRAC:
        return rng.choice(STEM_COMMON)
    return rng.choice(STEM_FIRST) + rng.choice(STEM_SECOND)


def _company(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.07:
        return rng.choice(LATIN_COMPANIES) + rng.choice(COMPANY_ENDS)
    if draw < 0.10:
        return f"{_stem(rng)} {rng.choice(('FC', 'SC', 'TV', 'C&C', '21', '365'))}"
    return _stem(rng) + rng.choice(COMPANY_ENDS)


def _group(rng: Random) -> str:
    head = rng.choice(("전국", "한국", "세계", "아시아", "동북아", _stem(rng), _stem(rng)))
    return head + rng.choice(GROUP_FIELDS) + rng.choice(GROUP_ENDS)


def _party(rng: Random) -> str:
    return _stem(rng) + rng.choice(PARTY_ENDS)


def _school(rng: Random) -> str:
    return rng.choice((_stem(rng), rng.choice(CITIES))) + rng.choice(SCHOOL_ENDS)


def _place(rng: Random) -> str:
    city = rng.choice(CITIES)
    return f"{city} {rng.choice(DISTRICTS)}" if rng.random() < 0.3 else city


def _date(rng: Random) -> str:
    year, month, day = rng.randrange(1880, 2023), rng.randrange(1, 13), rng.randrange(1, 29)
    draw = rng.random()
    if draw < 0.50:
        return f"{year}년 {month}월 {day}일"
    if draw < 0.80:
        return f"{year}년"
    if draw < 0.92:
        return f"{year}년 {month}월"
    return f"{year}.{month:02d}.{day:02d}"


def _number(rng: Random) -> str:
    count = rng.randrange(2, 99)
    return rng.choice((f"{count}0명", f"{count}명", f"{count},{count}0여 명", f"{count}만 명"))


def _work(rng: Random) -> str:
    return f"{rng.choice(WORK_FIRST)} {rng.choice(WORK_SECOND)}"


def _product(rng: Random) -> str:
    name = rng.choice(PRODUCT_FIRST) + rng.choice(PRODUCT_SECOND)
    return f"{name} {rng.randrange(2, 30)}" if rng.random() < 0.3 else name


def _pen_name(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.2:
        return f"DJ {rng.choice(PRODUCT_FIRST)}"
    return (
        rng.choice(GIVEN_FIRST) + rng.choice(GIVEN_SECOND) if draw < 0.6 else rng.choice(PEN_NAMES)
    )


def _short_name(rng: Random) -> str:
    letters = "".join(rng.choice("ABCDGHKMNPST") for _ in range(3))
    return letters if rng.random() < 0.4 else _stem(rng)


def build_short_name(rng: Random, organisation: str) -> str:
    """Return a short form of an organisation: its stem (nested in it) or a few Latin letters."""
    stems = [stem for stem in STEM_COMMON if organisation.startswith(stem)]
    stem = stems[0] if stems else organisation[:2]
    return stem if rng.random() < 0.5 and stem != organisation else _short_name(rng)


# Letter of a slot -> (kind, published type, maker). Two letters of one kind are two entities.
SLOTS: dict[str, tuple[str, str, Callable[[Random], str]]] = {
    "P": ("person", "PER", _person),
    "Q": ("person", "PER", _person),
    "R": ("person", "PER", _person),
    "C": ("company", "ORG", _company),
    "B": ("company", "ORG", _company),
    "Y": ("company", "ORG", _company),
    "G": ("group", "ORG", _group),
    "A": ("party", "ORG", _party),
    "O": ("any", "", _stem),
    "S": ("school", "ORG", _school),
    "F": ("faith", "ORG", lambda rng: rng.choice(FAITHS)),
    "H": ("creed", "POH", lambda rng: rng.choice(CREEDS)),
    "L": ("place", "LOC", _place),
    "Z": ("place", "LOC", _place),
    "N": ("country", "LOC", lambda rng: rng.choice(COUNTRIES)),
    "D": ("date", "DAT", _date),
    "E": ("date", "DAT", _date),
    "M": ("number", "NOH", _number),
    "T": ("title", "POH", lambda rng: rng.choice(TITLES)),
    "W": ("work", "POH", _work),
    "V": ("product", "POH", _product),
    "K": ("pen name", "PER", _pen_name),
    "X": ("short name", "ORG", _short_name),
}


# Families of kinds that can be repeated, nested or replaced by a pronoun in the same words.
FAMILIES = {
    "person": "person",
    "company": "organisation",
    "group": "organisation",
    "party": "organisation",
    "school": "organisation",
    "place": "place",
    "country": "place",
}


def build_name(rng: Random, slot: str) -> Name:
    """Return a new name for a slot letter.

    Args:
        rng: the source of randomness.
        slot: a key of `SLOTS`.
    """
    kind, type_, make = SLOTS[slot]
    if kind == "pen name" and rng.random() < 0.4:
        type_ = "POH"
    return Name(make(rng), type_, kind)


def build_hanja(rng: Random) -> str:
    """Return three Chinese characters, as written in brackets after a person's name."""
    return "".join(rng.choice(HANJA) for _ in range(3))
