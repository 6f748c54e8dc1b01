"""Every shipped variant, trained to the end on a tiny corpus: each does what its name says it does.

A variant is compared with its control, which is the same job without the variant's one idea: were
the idea lost on its way to the training loop, both would end in the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.store import Result, ResultKey, Store
from competition.profile import resolve_competition
from models.jobs.job import run_job
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest, resolve_all
from models.jobs.waves import include_bases, order_in_waves
from models.training.control import Watch
from models.training.hardware import fix_randomness_of_kernels
from models.variant import list_variants, own_encoder, resolve_variant
from tests.conftest import write_tiny
from tests.models.conftest import TINY_SCRATCH

Overrides = tuple[tuple[str, Any], ...]

TINY = (*TINY_SCRATCH, ("train.batch_rows", 16), ("run.state_every_s", 1000.0))
RARE = (
    "org:founded_by",
    "per:product",
    "org:political/religious_affiliation",
    "per:religion",
    "per:schools_attended",
    "org:dissolved",
    "org:number_of_employees/members",
    "per:place_of_death",
)
"""Labels that ``augment-hard`` names and the tiny corpus has no row of."""
RENAMED = {
    "per:birthplace": "per:place_of_birth",
    "per:employer": "per:employee_of",
    "per:sibling": "per:siblings",
}
NEEDS: dict[str, Overrides] = {
    "pseudo": (("pseudo.min_confidence", 0.05),),  # so small a model is never surer
    "augment-swap": (("augment.share", 0.5),),
    "ngram-distil": (("distil.members", ("tfidf-linear",)),),  # without a network
}
"""What a variant needs on this corpus to do anything; its control is given the same but this."""
PLAIN = "typed-punct"
WARM = (("train.epochs", 1), ("train.lr", 3e-4))
CONTROLS: dict[str, tuple[str, Overrides]] = {
    "distil": ("entity-start-end", ()),
    "ngram-mlp": ("tfidf-linear", ()),
    "ngram-distil": ("ngram-mlp", ()),
    "ema": (PLAIN, (("train.final_lr_frac", 0.2),)),
    "focal": (PLAIN, (("train.label_smoothing", 0.0),)),
    "multi-dropout": (PLAIN, (("train.head_dropout", 0.5),)),
    "r-drop": (PLAIN, (("train.head_dropout", 0.3),)),
    "type-restricted-train": ("type-restricted", ()),
    "short": ("short-cold", WARM),
    "medium": ("medium-cold", WARM),
    "long": ("long-cold", WARM),
}
"""Where it is not ``typed-punct``: what shares all of a variant but its idea."""
MIN_CHANGE = 1e-5
VARIANTS = [name for name in list_variants() if own_encoder(name) is None]
OTHERS = [name for name in VARIANTS if name != PLAIN]
each_variant = partial(pytest.mark.parametrize, "name", scope="module")
"""The tests of one variant follow each other, so that one process trains it for all of them."""


@dataclass
class Trained:
    """One fold of each requested variant and its bases, trained once."""

    prepared: Prepared
    fold: int
    watch: Watch
    results: dict[tuple[str, Overrides], Result] = field(default_factory=dict)

    def fold_of(self, name: str, overrides: Overrides = ()) -> Result:
        """Return a variant's result, trained as ``fold`` trains it if it is not there yet."""
        key = (name, overrides)
        if key not in self.results:
            self.results[key] = self._train(name, overrides, f"v{len(self.results)}")
        return self.results[key]

    def _train(self, name: str, overrides: Overrides, save_as: str) -> Result:
        is_network = resolve_variant(name, encoder="scratch").is_network
        request = FoldRequest(
            variants=(name,),
            folds=(self.fold,),
            encoder="scratch" if is_network else None,
            overrides=(*TINY, *overrides) if is_network else overrides,
            save_as=save_as,
        )
        competition = self.prepared.competition
        profile = competition.profile
        asked = resolve_all(profile, request)
        both = include_bases(self.prepared, request, asked, lambda text: None)
        for wave in order_in_waves(profile, request, both):
            planned = plan_jobs(self.prepared, request, lambda text: None, threads=1, variants=wave)
            for spec in planned.jobs:
                assert run_job(spec, self.watch).finished
        store = Store(competition.oof_dir, profile.labels)
        return store.read(ResultKey(save_as, 42, self.fold))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.set_num_threads(1)
    fix_randomness_of_kernels()
    home = tmp_path_factory.mktemp("home")
    write_tiny(home)
    _rename_labels(home)
    prepared = read_prepared(resolve_competition(str(home / "tiny.toml"), None, None, home=home))
    doubled = int(prepared.folds.fold_of[2])  # rows 2 and 13: one row twice, in two labels
    watch = Watch(report=lambda at: None, should_stop=lambda: False, log=lambda text: None)
    return Trained(prepared, (doubled + 1) % prepared.folds.count, watch)


def _rename_labels(home: Path) -> None:
    for path in (home / "tiny.toml", home / "data" / "train.csv", home / "data" / "solution.csv"):
        text = path.read_text(encoding="utf-8")
        for old, new in RENAMED.items():
            text = text.replace(old, new)
        more = "".join(f', "{label}"' for label in RARE)
        text = text.replace('"per:siblings"]', f'"per:siblings"{more}]')
        path.write_text(text, encoding="utf-8", newline="")


def rows_shared(one: Result, other: Result) -> tuple[Any, Any]:
    """Return the probabilities of two results for the rows that both predict."""
    ours, theirs = (
        dict(zip([*r.oof_ids, *r.test_ids], [*r.oof_probs, *r.test_probs], strict=True))
        for r in (one, other)
    )
    shared = [row for row in ours if row in theirs]
    assert len(shared) > 2
    return np.array([ours[row] for row in shared]), np.array([theirs[row] for row in shared])


def test_only_variants_with_a_fixed_encoder_are_left_out() -> None:
    left_out = set(list_variants()) - set(VARIANTS)
    assert left_out == {
        "exaone-lora",
        "gemma-lora",
        "klue-bert-base",
        "koelectra",
        "qwen3-label-words",
        "qwen3-lora",
        "xlm-roberta-large",
    }
    assert CONTROLS.keys() | NEEDS.keys() <= set(VARIANTS)


@each_variant([*OTHERS, PLAIN])
def test_a_shipped_variant_trains_to_the_end(name: str, trained: Trained) -> None:
    prepared, fold = trained.prepared, trained.fold
    result = trained.fold_of(name, NEEDS.get(name, ()))
    heldout = prepared.corpus.train.ids[prepared.folds.fold_of == fold].tolist()
    answered, tested = result.oof_ids.tolist(), result.test_ids.tolist()
    if result.route is None:
        assert answered == heldout
        assert tested == prepared.corpus.test.ids.tolist()
    else:
        assert set(answered) < set(heldout)
        assert set(tested) <= set(prepared.corpus.test.ids)
    probs = np.concatenate([result.oof_probs, result.test_probs])
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(probs, axis=0).max() > 0.001  # rows are told apart


@each_variant(OTHERS)
def test_a_shipped_variant_changes_the_predictions(name: str, trained: Trained) -> None:
    control = trained.fold_of(*CONTROLS.get(name, (PLAIN, ())))
    own, others = rows_shared(trained.fold_of(name, NEEDS.get(name, ())), control)
    assert np.abs(own - others).max() > MIN_CHANGE


@pytest.mark.parametrize("ending", ["", "-cold"])
def test_specialists_predict_every_row_once(ending: str, trained: Trained) -> None:
    parts = [trained.fold_of(f"{part}{ending}") for part in ("short", "medium", "long")]
    whole = trained.fold_of(PLAIN)
    for field_ in ("oof_ids", "test_ids"):
        answered = [row for part in parts for row in getattr(part, field_).tolist()]
        assert sorted(answered) == sorted(getattr(whole, field_).tolist())


def test_the_same_job_twice_gives_the_same_predictions(trained: Trained) -> None:
    """Otherwise noise could pass for an effect of the variant."""
    again = trained.fold_of(PLAIN, (("train.label_smoothing", 0.1),))  # its default, said
    own, others = rows_shared(trained.fold_of(PLAIN), again)
    assert own.tobytes() == others.tobytes()
