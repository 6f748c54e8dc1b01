"""What a variant builds on is resolved on the variant's own encoder, however that was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.profile import Profile, read_profile
from models.request import PSEUDO, FoldRequest, name_bases, resolve_all, resolve_bases

BUILDS_ON = 'why = "w"\nbase = "typed-punct"\nstart_from = "typed-punct"\n'


@pytest.fixture(scope="module")
def real() -> Profile:
    return read_profile(Path(__file__).parents[2] / "competition/profiles/klue-re.toml")


def put(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    return str(path)


def ask(real: Profile, request: FoldRequest) -> list[tuple[str, str, int]]:
    """Return name, encoder and width of what the one variant of a request builds on."""
    (variant,) = resolve_all(real, request)
    bases = resolve_bases(real, request, variant)
    assert tuple(name_bases(real, request, variant).values()) == tuple(base.name for base in bases)
    return [(base.name, base.encoder, base.scratch.hidden) for base in bases]


def test_by_the_profiles_encoder_and_by_the_requests(real: Profile) -> None:
    usual = real.defaults.encoder
    assert ask(real, FoldRequest(("short",))) == [("typed-punct", usual, 128)]
    wanted = FoldRequest(("short",), encoder="ko-mini")
    assert ask(real, wanted) == [("typed-punct@ko-mini", "ko-mini", 128)]


def test_by_an_encoder_that_the_variants_own_file_names(real: Profile, tmp_path: Path) -> None:
    own = put(tmp_path, "mine", BUILDS_ON + 'encoder = "ko-mini"\n')
    assert ask(real, FoldRequest((own,))) == [("typed-punct@ko-mini", "ko-mini", 128)]
    asked = FoldRequest((own,), encoder="klue/bert-base")
    assert ask(real, asked) == [("typed-punct@bert-base", "klue/bert-base", 128)]


def test_with_the_shape_of_scratch_from_file_or_command_line(real: Profile, tmp_path: Path) -> None:
    text = BUILDS_ON + 'encoder = "scratch"\n[scratch]\nhidden = 64\n'
    own = put(tmp_path, "mine", text)
    assert ask(real, FoldRequest((own,))) == [("typed-punct@scratch+hidden=64", "scratch", 64)]
    asked = FoldRequest((own,), overrides=(("scratch.hidden", 192),))
    assert ask(real, asked) == [("typed-punct@scratch+hidden=192", "scratch", 192)]


def test_a_base_has_the_name_that_the_same_request_gives_it(real: Profile) -> None:
    pairs = (("scratch.layers", 2), ("scratch.hidden", 64))
    for order in (pairs, pairs[::-1]):
        asked = FoldRequest(("typed-punct", "short"), encoder="scratch", overrides=order)
        plain, short = resolve_all(real, asked)
        assert [base.name for base in resolve_bases(real, asked, short)] == [plain.name]
    shaped = {**real.defaults.overrides, "scratch.layers": 1}
    defaults = real.defaults.model_copy(update={"encoder": "scratch", "overrides": shaped})
    profile = real.model_copy(update={"defaults": defaults})
    (short,) = resolve_all(profile, FoldRequest(("short",)))
    (base,) = resolve_bases(profile, FoldRequest(("short",)), short)
    assert (base.name, base.scratch.layers) == ("typed-punct", 1)


def test_a_teacher_of_pseudo_labels_keeps_the_encoder_of_its_own_file(
    real: Profile, tmp_path: Path
) -> None:
    text = (
        'why = "w"\nbase = "typed-punct"\nencoder = "ko-mini"\n'
        '[pseudo]\nvariant = "klue-bert-base"\nmin_confidence = 0.9\n'
    )
    request = FoldRequest((put(tmp_path, "mine", text),))
    assert ask(real, request) == [("klue-bert-base", "klue/bert-base", 128)]
    (variant,) = resolve_all(real, request)
    assert set(name_bases(real, request, variant)) == {PSEUDO}
