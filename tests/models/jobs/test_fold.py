"""What ``fold`` says below its table: what blend takes as it is, and which command comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from competition.errors import UsageError, VariantError
from competition.files import dump_json
from competition.folds.kfold import Prepared
from competition.predictions.store import ResultKey, Store
from competition.predictions.variant_scores import score_variants
from competition.progress import ProgressBoard
from models.jobs.fold import build_summary, run_fold
from models.jobs.request import FoldRequest, resolve_all
from models.jobs.workers import FoldRun
from models.network.encoder_source import PRETRAINING_FILE
from models.pretraining.exposure import Exposure
from tests.competition.predictions.test_members import fill, make_result

TYPED = "fold tfidf-linear --set 'linear.regularisation=0.3' --as=mine --folds 0"


@pytest.fixture
def store(prepared: Prepared) -> Store:
    return Store(prepared.competition.oof_dir, prepared.competition.profile.labels)


def put(prepared: Prepared, store: Store, variant: str, *jobs: tuple[int, int]) -> None:
    for seed, fold in jobs:
        store.write(make_result(prepared, ResultKey(variant, seed, fold)), {})


def notes_of(prepared: Prepared, names: tuple[str, ...], **asked: Any) -> list[str]:
    """Return the notes that follow those on missing results, after a run without jobs."""
    request = FoldRequest(variants=names, **asked)
    variants = resolve_all(prepared.competition.profile, request)
    scores = score_variants(prepared, [variant.name for variant in variants])
    run = FoldRun((), (), ())
    notes = build_summary(prepared, request, variants, run, scores).notes
    return [note for note in notes if note.startswith(("blend", "Next", "The encoder"))]


def test_with_all_results_blend_is_suggested(prepared: Prepared, store: Store) -> None:
    fill(store, prepared, "tfidf-linear", seeds=(42,))
    assert notes_of(prepared, ("tfidf-linear",)) == ["Next: python run.py blend"]


def test_for_missing_folds_the_command_without_folds_is_suggested(
    prepared: Prepared, store: Store
) -> None:
    put(prepared, store, "tfidf-linear", (42, 0))
    left_out = "blend uses complete seeds only: tfidf-linear is left out."
    again = "Next: python run.py fold tfidf-linear"
    assert notes_of(prepared, ("tfidf-linear",), folds=(0,)) == [left_out, again]
    put(prepared, store, "mine", (42, 0))
    asked: dict[str, Any] = {"folds": (0,), "save_as": "mine", "command": TYPED}
    assert notes_of(prepared, ("tfidf-linear",), **asked) == [
        "blend uses complete seeds only: mine is left out.",
        "Next: python run.py fold tfidf-linear --set linear.regularisation=0.3 --as=mine",
    ]


def test_an_encoder_that_left_out_a_fold_is_compared_on_that_fold(
    prepared: Prepared, store: Store, tmp_path: Path
) -> None:
    put(prepared, store, "without", (42, 1))
    asked: dict[str, Any] = {"folds": (1,), "save_as": "without", "encoder": str(tmp_path)}
    asked["command"] = "fold typed-punct --encoder there --folds 1 --as without"
    left_out = "blend uses complete seeds only: without is left out."
    go_on = "Next: python run.py fold typed-punct --encoder there --as without"

    def notes(folds_hash: str) -> list[str]:
        exposure = Exposure(False, left_out_fold=1, folds_hash=folds_hash)
        (tmp_path / PRETRAINING_FILE).write_text(dump_json(exposure.as_facts()))
        return notes_of(prepared, ("typed-punct",), **asked)

    assert notes("of other folds") == [left_out, go_on]
    assert notes(prepared.folds.hash) == [
        left_out,
        "The encoder of without was not pretrained on fold 1, so compare it on that fold:"
        " python run.py compare without OTHER --folds 1",
    ]
    assert notes_of(prepared, ("tapt",), **asked) == [left_out, go_on]  # it reads all folds


def test_only_the_incomplete_seed_of_a_variant_is_left_out(
    prepared: Prepared, store: Store
) -> None:
    fill(store, prepared, "tfidf-linear", seeds=(42,))
    put(prepared, store, "tfidf-linear", (43, 0))
    without = "blend uses complete seeds only: tfidf-linear without seed 43."
    seeds = "Next: python run.py fold tfidf-linear --seeds 43"
    typed = "fold tfidf-linear --folds 0 --seeds 43"
    asked: dict[str, Any] = {"folds": (0,), "seeds": (43,)}
    assert notes_of(prepared, ("tfidf-linear",), **asked) == [without, seeds]
    assert notes_of(prepared, ("tfidf-linear",), **asked, command=typed) == [without, seeds]
    # seed 43 was started by another command, so running this one again would not finish it
    typed = "fold tfidf-linear --threads 1 --seeds=42"
    assert notes_of(prepared, ("tfidf-linear",), seeds=(42,), command=typed) == [
        without,
        "Next: python run.py fold tfidf-linear --threads 1 --seeds 43",
    ]


def test_notes_say_what_each_variant_lacks(prepared: Prepared, store: Store) -> None:
    fill(store, prepared, "tfidf-linear", seeds=(42,))
    store.write(make_result(prepared, ResultKey("tfidf-linear", 42, 2), recipe="other"), {})
    put(prepared, store, "typed-punct", (42, 0), (42, 1))
    fixed = "blend leaves out tfidf-linear until that is fixed."
    assert notes_of(prepared, ("tfidf-linear",)) == [fixed]
    assert notes_of(prepared, ("typed-punct", "tfidf-linear")) == [
        "blend uses complete seeds only: typed-punct is left out.",
        fixed,
        "Next: python run.py fold typed-punct",
    ]


def test_the_name_of_a_file_of_the_store_is_refused_before_training(prepared: Prepared) -> None:
    request = FoldRequest(("tfidf-linear",), save_as="folds.csv")
    with (
        ProgressBoard(live=False) as board,
        pytest.raises(UsageError, match=r"'folds\.csv' cannot be the name of a variant: .* a file"),
    ):
        run_fold(prepared.competition, request, board)


def test_the_name_of_a_blend_is_refused_before_training(prepared: Prepared) -> None:
    submissions = prepared.competition.submissions_dir
    submissions.mkdir(parents=True)
    (submissions / "best.json").write_text("{}")
    with (
        ProgressBoard(live=False) as board,
        pytest.raises(UsageError, match="best is the name of a blend"),
    ):
        run_fold(prepared.competition, FoldRequest(("tfidf-linear",), save_as="best"), board)


def test_fold_gives_the_command_that_made_a_stored_name(prepared: Prepared, store: Store) -> None:
    store.write(make_result(prepared, ResultKey("mine", 42, 0)), {"command": TYPED})
    with (
        ProgressBoard(live=False) as board,
        pytest.raises(VariantError, match=r"; mine was made by: python run\.py fold tfidf-l"),
    ):
        run_fold(prepared.competition, FoldRequest(("mine",)), board)
