"""Names become variants; what one builds on is resolved on its own encoder, however named."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.errors import VariantError
from competition.files import dump_json
from competition.predictions.rerun import COMMAND, find_command
from competition.predictions.store import ResultKey, Store
from competition.profile import Profile, read_profile
from models.jobs.request import (
    PSEUDO,
    FoldRequest,
    check_variant,
    name_bases,
    resolve_all,
    resolve_bases,
)

BUILDS_ON = 'why = "w"\nbase = "typed-punct"\nstart_from = "typed-punct"\n'


@pytest.fixture(scope="module")
def real() -> Profile:
    return read_profile(Path(__file__).parents[3] / "competition/profiles/klue-re.toml")


def put(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    return str(path)


def ask(real: Profile, request: FoldRequest) -> list[tuple[str, str, int]]:
    """Return name, encoder and width of the base of a request's only variant."""
    (variant,) = resolve_all(real, request)
    bases = resolve_bases(real, request, variant)
    assert tuple(name_bases(real, request, variant).values()) == tuple(base.name for base in bases)
    return [(base.name, base.encoder, base.scratch.hidden) for base in bases]


def test_a_base_uses_the_encoder_of_the_profile_or_the_request(real: Profile) -> None:
    usual = real.defaults.encoder
    assert ask(real, FoldRequest(("short",))) == [("typed-punct", usual, 128)]
    wanted = FoldRequest(("short",), encoder="ko-mini")
    assert ask(real, wanted) == [("typed-punct@ko-mini", "ko-mini", 128)]


def test_a_base_uses_the_encoder_of_the_variant_file(real: Profile, tmp_path: Path) -> None:
    own = put(tmp_path, "mine", BUILDS_ON + 'encoder = "ko-mini"\n')
    assert ask(real, FoldRequest((own,))) == [("typed-punct@ko-mini", "ko-mini", 128)]
    asked = FoldRequest((own,), encoder="klue/bert-base")
    assert ask(real, asked) == [("typed-punct@bert-base", "klue/bert-base", 128)]


def test_a_base_uses_the_scratch_size_from_file_or_command_line(
    real: Profile, tmp_path: Path
) -> None:
    text = BUILDS_ON + 'encoder = "scratch"\n[scratch]\nhidden = 64\n'
    own = put(tmp_path, "mine", text)
    assert ask(real, FoldRequest((own,))) == [("typed-punct@scratch+hidden=64", "scratch", 64)]
    asked = FoldRequest((own,), overrides=(("scratch.hidden", 192),))
    assert ask(real, asked) == [("typed-punct@scratch+hidden=192", "scratch", 192)]


def test_a_base_has_the_same_name_as_in_a_request(real: Profile) -> None:
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


def test_a_pseudo_labelling_base_keeps_the_encoder_of_its_file(
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


def leave(store: Store, name: str, fold: int, run: dict[str, object] | None) -> Path:
    """Write a placeholder of a result and its provenance, if any; return the provenance's path."""
    key = ResultKey(name, 42, fold)
    store.path(key).parent.mkdir(parents=True, exist_ok=True)
    store.path(key).touch()
    if run is not None:
        store.run_path(key).write_text(dump_json(run), "utf-8")
    return store.run_path(key)


def refusal_of(store: Store, name: str) -> str:
    with pytest.raises(VariantError) as refused:
        check_variant(store, name)
    return str(refused.value)


def test_an_unknown_name_is_reported_with_the_command_that_made_it(tmp_path: Path) -> None:
    store = Store(tmp_path, ("a", "b"))
    unknown = "no variant 'tp2'; choose one of "
    assert refusal_of(store, "tp2").startswith(unknown)
    leave(store, "tp2", 0, None)
    leave(store, "tp2", 1, {"finished": "2026-01-04"})
    assert "was made by" not in refusal_of(store, "tp2")
    new = "fold typed-punct --data 'my data' --set train.epochs=2 --as tp2"
    leave(store, "tp2", 2, {"finished": "2026-01-02", COMMAND: new})
    leave(store, "tp2", 3, {"finished": "2026-01-01", COMMAND: "fold short --as tp2"})
    said = refusal_of(store, "tp2")
    made = "; tp2 was made by: python run.py fold typed-punct --set train.epochs=2 --as tp2"
    assert said.startswith(unknown)
    assert said.endswith(made)
    assert find_command(tmp_path / "tp2") == new
    assert "was made by" not in refusal_of(store, "../tp2")


def test_damaged_provenance_hides_no_message(tmp_path: Path) -> None:
    store = Store(tmp_path, ("a", "b"))
    leave(store, "tp2", 0, {COMMAND: 7})
    leave(store, "tp2", 1, {COMMAND: "fold 'torn"})
    leave(store, "tp2", 2, {}).write_text("no JSON")
    assert "was made by" not in refusal_of(store, "tp2")
    leave(store, "tp2", 3, {COMMAND: "fold short --as tp2"})
    assert refusal_of(store, "tp2").endswith("; tp2 was made by: python run.py fold short --as tp2")


def test_a_shipped_variant_and_a_file_are_not_refused(tmp_path: Path) -> None:
    for name in ("typed-punct", str(tmp_path / "mine.toml")):
        check_variant(Store(tmp_path, ("a", "b")), name)
