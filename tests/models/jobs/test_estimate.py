"""estimate: what a run will take, said before it begins, and a hopeless one refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from competition.errors import UsageError
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.store import Store
from competition.profile import Competition
from models.jobs import estimate
from models.jobs.encoder_size import EncoderSize, count_bytes, guess_size, measure_encoder
from models.jobs.estimate import (
    check_feasible,
    describe_estimate,
    estimate_run,
    estimate_smaller,
    find_free_memory,
    measure_rate,
)
from models.jobs.request import FoldRequest, resolve_all
from models.network.encoder_source import BUNDLED_DIR
from models.variant import Variant
from tests.competition.predictions.test_members import fill
from tests.conftest import RunCommand, write_tiny
from tests.models.conftest import ONE_THREAD

LARGE = FoldRequest(("concat-cls",), encoder="klue/roberta-large", engine=ONE_THREAD)


@pytest.fixture
def prepared(tiny_competition: Competition) -> Prepared:
    return read_prepared(tiny_competition)


def slow(hidden: int, threads: int) -> float:
    return 1e5


def test_a_bundled_encoder_is_counted_and_a_hubs_guessed(prepared: Prepared) -> None:
    profile = prepared.competition.profile
    (mini,) = resolve_all(profile, replace(LARGE, encoder="ko-mini"))
    size = measure_encoder(mini)
    path = BUNDLED_DIR / "ko-mini" / "model.safetensors"
    assert size.weights == pytest.approx(path.stat().st_size / 2, rel=0.01)  # in 16 bits
    assert size.hidden == 256
    assert 6 * (4 * 256**2) < size.multiplied < 6 * (4 * 256**2 + 4 * 256 * 512)
    (large,) = resolve_all(profile, LARGE)
    guess = measure_encoder(large)
    assert (guess.weights, guess.hidden, guess.is_guess) == (337e6, 1024, True)


def test_what_is_stored_is_not_counted(prepared: Prepared) -> None:
    competition = prepared.competition
    variants = resolve_all(competition.profile, LARGE)
    whole = estimate_run(prepared, LARGE, variants, slow)
    assert (whole.n_jobs, whole.n_done) == (3, 0)
    one = estimate_run(prepared, replace(LARGE, folds=(1,)), variants, slow)
    assert one.seconds == pytest.approx(whole.seconds / 3)
    assert one.kept_bytes == pytest.approx(2 * 337e6)
    light = replace(LARGE, keep_checkpoints=False)
    assert estimate_run(prepared, light, variants, slow).kept_bytes == 0
    store = Store(competition.oof_dir, competition.profile.labels)
    fill(store, prepared, variants[0].name, seeds=(42,))
    done = estimate_run(prepared, LARGE, variants, slow)
    assert (done.n_jobs, done.n_done, done.seconds) == (0, 3, 0)
    assert describe_estimate(done, competition.home) == []
    again = estimate_run(prepared, replace(LARGE, overwrite=True), variants, slow)
    assert again == whole


def test_encoders_of_other_sizes_and_pretraining_add_up(prepared: Prepared) -> None:
    profile = prepared.competition.profile

    def estimate_of(*variants: Variant) -> float:
        return estimate_run(prepared, LARGE, variants, slow).seconds

    asked = replace(LARGE, encoder="scratch")
    (small,) = resolve_all(profile, replace(asked, overrides=(("scratch.hidden", 64),)))
    (wide,) = resolve_all(profile, replace(asked, overrides=(("scratch.hidden", 768),)))
    both = estimate_of(small, wide)
    assert estimate_of(wide) < both < 1.1 * estimate_of(wide)
    assert estimate_of(wide, small) == pytest.approx(both)
    plain, tapt = resolve_all(profile, replace(LARGE, variants=("typed-punct", "tapt")))
    other = tapt.model_copy(update={"name": "other"})
    assert estimate_of(tapt) > 1.5 * estimate_of(plain)
    assert estimate_of(tapt, other) == pytest.approx(estimate_of(tapt) + estimate_of(plain))


@pytest.mark.parametrize(
    ("name", "weights", "hidden"),
    [
        ("Qwen/Qwen3-8B-Base", 8e9, (3584, 4608)),
        ("LGAI-EXAONE/EXAONE-4.0-1.2B", 1.2e9, (1280, 2048)),
        ("google/gemma-2-9b", 9e9, (3584, 4608)),
        ("mistralai/Mistral-7B-v0.1", 7e9, (3584, 4608)),
        ("google/gemma-3-270m", 270e6, (576, 832)),
        ("BAAI/bge-m3", 111e6, (768, 768)),
        ("monologg/koelectra-base-v3-discriminator", 111e6, (768, 768)),
        ("klue/roberta-large", 337e6, (1024, 1024)),
    ],
)
def test_an_encoder_is_guessed_by_the_number_in_its_name(
    name: str, weights: float, hidden: tuple[int, int]
) -> None:
    size = guess_size(name)
    assert size.weights == weights
    assert hidden[0] <= size.hidden <= hidden[1]


def test_adapters_take_the_base_in_memory_and_little_else(prepared: Prepared) -> None:
    profile = prepared.competition.profile
    whole = replace(LARGE, variants=("typed-punct",), encoder="someone/decoder-8b")
    lora = replace(whole, overrides=(("adapt.rank", 16), ("run.precision", "bf16")))
    told = replace(lora, overrides=(*lora.overrides, ("formatting.instruction", "가" * 200)))
    (full,), (adapted,), (instructed,) = (
        resolve_all(profile, each) for each in (whole, lora, told)
    )
    size = EncoderSize(8e9, 7e9, 4096)
    takes = count_bytes(adapted, size)
    assert count_bytes(full, size).state == 12 * 8e9
    assert takes.state < 0.01 * 12 * 8e9
    assert 2 * 8e9 < takes.memory < 2.2 * 8e9
    assert takes.kept < 0.01 * 2 * 8e9
    plain, small, long = (
        estimate_run(prepared, whole, [each], slow) for each in (full, adapted, instructed)
    )
    assert small.seconds < 0.8 * plain.seconds
    assert long.seconds > 2 * small.seconds
    assert small.memory_bytes < plain.memory_bytes / 4


def test_a_hopeless_run_is_refused_with_what_to_type_instead(prepared: Prepared) -> None:
    profile = prepared.competition.profile
    hopeless = estimate_run(prepared, LARGE, resolve_all(profile, LARGE), slow)
    mini = replace(LARGE, encoder="ko-mini")
    smaller = estimate_smaller(prepared, LARGE, resolve_all(profile, LARGE), slow)
    assert smaller == estimate_run(prepared, mini, resolve_all(profile, mini), slow)
    assert smaller.seconds < hopeless.seconds / 10
    asked = replace(LARGE, command="fold concat-cls --encoder klue/roberta-large --threads 1")
    with pytest.raises(UsageError) as refused:
        check_feasible(hopeless, asked, smaller)
    said = str(refused.value)
    assert "python run.py fold concat-cls --threads 1 --encoder ko-mini" in said
    assert "--encoder klue/roberta-large --threads 1 --yes" in said
    check_feasible(hopeless, replace(asked, yes=True), smaller)
    check_feasible(smaller, asked, None)
    lines = describe_estimate(hopeless, prepared.competition.home)
    assert "3 jobs" in lines[0]
    assert "klue/roberta-large (337 M weights, guessed)" in lines[0]
    assert "1.9 GiB kept" in lines[1]


def test_a_decoders_variant_is_not_advised_for_the_small_encoder(prepared: Prepared) -> None:
    """Its instruction alone has more tokens there than rows may have."""
    decoder = replace(LARGE, variants=("qwen3-lora",), encoder=None)
    variants = resolve_all(prepared.competition.profile, decoder)
    assert estimate_smaller(prepared, decoder, variants, slow) is None
    mini = replace(LARGE, encoder="ko-mini")
    assert estimate_smaller(prepared, mini, resolve_all(prepared.competition.profile, mini)) is None


def test_a_small_run_needs_no_trial(prepared: Prepared) -> None:
    asked = replace(LARGE, encoder="scratch")

    def refuse(hidden: int, threads: int) -> float:
        raise AssertionError("a trial for minutes of work")

    found = estimate_run(prepared, asked, resolve_all(prepared.competition.profile, asked), refuse)
    assert 0 < found.seconds < 60


@pytest.mark.parametrize("group", estimate.GROUPS)
def test_a_containers_limit_counts(
    group: estimate.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(group, folder=tmp_path)
    monkeypatch.setattr(estimate, "GROUPS", (here,))
    machine = find_free_memory()
    files = {group.limit: "3000", group.used: "2500", "memory.stat": f"x 1\n{group.cache} 400\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert find_free_memory() == 900
    (tmp_path / group.limit).write_text("max")
    unlimited = find_free_memory()
    assert (machine is None) == (unlimited is None)
    assert unlimited != 900


def test_the_rate_is_this_machines() -> None:
    assert measure_rate(64, 1) > 1e7


def test_fold_stops_before_anything_is_loaded(
    tmp_path: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ["--competition", str(write_tiny(tmp_path)), "--threads", "1"]
    monkeypatch.setattr(estimate, "MAX_HOURS", 0.0)
    said = run_command("fold", "concat-cls", *tiny, exits=2)
    assert "plan: 3 jobs on" in said
    assert "type instead:" in said
    assert not (tmp_path / "oof" / "tiny" / "concat-cls").exists()
    assert not (tmp_path / "checkpoints").exists()
    going = run_command("fold", "concat-cls", *tiny, "--yes", "--stop-after", "0s", exits=3)
    assert "3 jobs not done" in going
