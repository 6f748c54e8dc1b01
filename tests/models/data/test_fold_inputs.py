"""What training sees, epoch by epoch: changed rows arrive as tokens that say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from competition.data.rows import Row
from competition.folds.kfold import Prepared, read_prepared
from competition.profile import resolve_competition
from models.data.augmentation import Augmented, Scheme, augment
from models.data.batches import POSITION_NAMES, TokenizedRows
from models.data.fold_inputs import EpochRows, FoldInputs
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.network.tokenizer import load_tokenizer
from models.parts.formats import FORMATS
from tests.conftest import write_tiny
from tests.models.conftest import TINY_SCRATCH, inputs_of

FOLD = 1
HALF = ("augment.share", 0.5)
IN_TRAINING, WHEN_PREDICTING = ("restrict.when", "train"), ("restrict.when", "predict")
CHANGED = {
    "swap": ("augment-swap", (HALF,)),
    "swap-restricted": ("augment-swap", (HALF, IN_TRAINING)),
    "mask": ("augment-mask", (HALF,)),
    "mask-restricted": ("augment-mask", (HALF, WHEN_PREDICTING)),
    "both": ("augment-mask", (HALF, IN_TRAINING, ("augment.ways", ["swap", "entity-mask"]))),
    "marks": ("augment-aeda", (HALF,)),
    "deletion": ("augment-delete", (HALF, IN_TRAINING)),
}
"""By name, a variant and its overrides."""
RENAMED = {
    "per:sibling": "per:parents",
    "per:birthplace": "per:children",  # the other one's opposite
    "per:employer": "org:dissolved",  # so that an organisation can be a subject
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The tiny competition with labels that have inverses."""
    home = tmp_path_factory.mktemp("family")
    write_tiny(home)
    for path in (home / "tiny.toml", home / "data" / "train.csv", home / "data" / "solution.csv"):
        text = path.read_text(encoding="utf-8")
        for old, new in RENAMED.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8", newline="")
    return read_prepared(resolve_competition(str(home / "tiny.toml"), None, None, home=home))


@dataclass(frozen=True)
class Opened:
    """A job with its inputs, and the expected rows of its epochs, computed independently."""

    prepared: Prepared
    spec: JobSpec
    inputs: FoldInputs
    tokenizer: Any

    def expected(self, epoch: int) -> Augmented:
        settings = self.spec.variant.augment
        assert settings is not None
        train, profile = self.prepared.corpus.train, self.prepared.competition.profile
        return augment(
            list(train.take(self.spec.rows.train_rows)),
            train.gold[self.spec.rows.train_rows].astype(np.int64),
            settings,
            scheme=Scheme(profile.labels, profile.negative_ids, tuple(profile.entity_types)),
            key=(self.spec.key.seed, FOLD, epoch),
        )

    def word_at(self, rows: TokenizedRows, row: int, role: str) -> str:
        """Spell the tokens that the positions of a row say are a role's word."""
        positions = dict(zip(POSITION_NAMES, rows.positions[row].tolist(), strict=True))
        span = slice(positions[f"{role}_start"], positions[f"{role}_end"])
        spelt: str = self.tokenizer.decode(rows.row_tokens(row)[span])
        return "".join(spelt.split())

    def pair_of(self, row: Row) -> int:
        types = list(self.prepared.competition.profile.entity_types)
        assert row.subject.type is not None
        assert row.object.type is not None
        return types.index(row.subject.type) * len(types) + types.index(row.object.type)


def plan_one(prepared: Prepared, variant: str, overrides: tuple[Any, ...]) -> JobSpec:
    wanted = FoldRequest(
        variants=(variant,),
        encoder="scratch",
        overrides=(*TINY_SCRATCH, *overrides),
        folds=(FOLD,),
        save_as="tiny",
    )
    return plan_jobs(prepared, wanted, lambda text: None, threads=1).jobs[0]


@pytest.fixture(scope="module", params=CHANGED)
def opened(request: pytest.FixtureRequest, family: Prepared) -> Opened:
    spec = plan_one(family, *CHANGED[request.param])
    assert spec.network is not None
    tokenizer = load_tokenizer(spec.network.source, spec.network.new_tokens)
    return Opened(family, spec, inputs_of(spec), tokenizer)


@pytest.mark.parametrize("number", [0, 1])
def test_positions_point_at_the_changed_rows_own_words(number: int, opened: Opened) -> None:
    epoch, made = opened.inputs.epoch(number), opened.expected(number)
    assert len(made.rows) >= 3
    for place, row in zip(made.places.tolist(), made.rows, strict=True):
        at = int(epoch.rows[place])
        for role, entity in (("subject", row.subject), ("object", row.object)):
            assert opened.word_at(epoch.tokens, at, role) == "".join(entity.word.split())
        (segment,) = FORMATS[opened.spec.variant.format].build(row).segments
        wanted = opened.tokenizer(segment, add_special_tokens=False)["input_ids"]
        assert epoch.tokens.row_tokens(at)[1:-1].tolist() == wanted


@pytest.mark.parametrize("number", [0, 1])
def test_labels_pairs_and_ids_are_those_of_the_changed_rows(number: int, opened: Opened) -> None:
    inputs, made = opened.inputs, opened.expected(number)
    epoch, train = inputs.epoch(number), opened.prepared.corpus.train
    rows = {place: train.row(int(at)) for place, at in enumerate(inputs.train_rows)}
    labels = train.gold[inputs.train_rows].astype(np.int64)
    rows.update(zip(made.places.tolist(), made.rows, strict=True))
    labels[made.places] = made.label_ids
    assert epoch.label_ids.tolist() == labels.tolist()
    assert epoch.tokens.ids[epoch.rows].tolist() == [rows[at].id for at in range(len(rows))]
    if opened.spec.variant.restrict is None:
        assert epoch.pair_ids is None
    else:
        assert epoch.pair_ids is not None
        assert epoch.pair_ids.tolist() == [opened.pair_of(rows[at]) for at in range(len(rows))]


def test_swapping_changes_some_labels_and_pairs_and_leaves_others(family: Prepared) -> None:
    """Otherwise the test above would compare things that never change."""
    inputs = inputs_of(plan_one(family, *CHANGED["swap-restricted"]))
    epoch, plain = inputs.epoch(0), inputs.plain
    turned = epoch.label_ids != plain.label_ids
    assert 1 < turned.sum() < len(turned) - 1
    opposites = {0: 3, 3: 0}  # per:children and per:parents
    now, then = epoch.label_ids[turned].tolist(), plain.label_ids[turned].tolist()
    assert [opposites[label] for label in then] == now
    assert epoch.pair_ids is not None
    assert plain.pair_ids is not None
    assert 1 < (epoch.pair_ids != plain.pair_ids).sum() < len(turned) - 1


def test_each_epoch_is_augmented_differently_but_reproducibly(opened: Opened) -> None:
    def shown(epoch: EpochRows) -> list[bytes]:
        return [epoch.tokens.row_tokens(int(row)).tobytes() for row in epoch.rows]

    first, second = (shown(opened.inputs.epoch(number)) for number in (0, 1))
    assert first != second
    assert shown(opened.inputs.epoch(0)) == first
    plain = shown(opened.inputs.plain)
    for number, epoch in enumerate((first, second)):
        changed = np.flatnonzero([a != b for a, b in zip(epoch, plain, strict=True)])
        assert changed.tolist() == opened.expected(number).places.tolist()


def test_held_out_and_test_rows_are_as_without_augmentation(opened: Opened) -> None:
    inputs = opened.inputs
    bare = inputs_of(plan_one(opened.prepared, "typed-punct", ()))
    for number in (0, 1):
        epoch = inputs.epoch(number)
        held = set(inputs.pool.ids[inputs.heldout_rows].tolist())
        assert not held & set(epoch.tokens.ids[epoch.rows].tolist())
    for mine, theirs, rows in (
        (inputs.pool, bare.pool, bare.heldout_rows),
        (inputs.test, bare.test, bare.test_rows),
    ):
        for row in rows.tolist():
            assert mine.row_tokens(row).tobytes() == theirs.row_tokens(row).tobytes()
            assert mine.positions[row].tobytes() == theirs.positions[row].tobytes()
    assert inputs.heldout_rows.tolist() == bare.heldout_rows.tolist()
    assert inputs.test_rows.tolist() == bare.test_rows.tolist()
