"""Exposure: which sentences of a competition an encoder was pretrained on.

``pretrain`` records it in ``pretraining.json``, including that of the encoder it continued from,
and ``fold`` reports it. If pretraining left out one fold, only the score of that fold is free of
contamination by pretraining.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from models.network.encoder_source import read_pretraining

TEST_HASH = "test_sentences_hash"
"""Key of ``pretraining.json`` for the test sentences that its exposure is about."""
KNOWN_TESTS = {
    "a0133db43a259c2d4e9ce8e4fde93165f682742277c687615a9028b37dbc4522": (
        "4883905399cd545b1c667975fa107aceadfb6db7794e2eb804a1bd2a7079732e"
    )
}
"""Of the bundled encoder, by its fingerprint: it is of a version that did not record them."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """Whether test sentences were seen (None if unknown), and which fold was left out.

    ``left_out_fold`` refers to the folds with ``folds_hash``; None if no fold was left out, or it
    is unknown. ``test_hash`` is that of the test sentences of the competition; None if unknown.
    """

    test_sentences: bool | None
    left_out_fold: int | None = None
    folds_hash: str | None = None
    test_hash: str | None = None

    def after(self, before: Exposure) -> Exposure:
        """Return the combined exposure of a run and of what came before it.

        >>> Exposure(False, 1, "f").after(Exposure(None))
        Exposure(test_sentences=None, left_out_fold=None, folds_hash=None, test_hash=None)
        """
        if self.is_of_another(before):
            before = UNKNOWN
        has_same_folds = self._left_out == before._left_out
        test = True if self.test_sentences else before.test_sentences
        is_same = self.test_hash == before.test_hash or (has_same_folds and self.folds_hash)
        if test is False and not is_same:
            test = None  # of an earlier version, which did not record whose test sentences
        combined = replace(self, test_sentences=test)
        if has_same_folds:
            return combined
        return replace(combined, left_out_fold=None, folds_hash=None)

    @property
    def _left_out(self) -> tuple[int | None, str | None]:
        return self.left_out_fold, self.folds_hash

    def is_of_another(self, before: Exposure) -> bool:
        """Return whether what came before is about another competition."""
        return None not in (self.test_hash, before.test_hash) and self.test_hash != before.test_hash

    def as_facts(self) -> dict[str, Any]:
        """Return the entries of ``pretraining.json``."""
        facts = asdict(self)
        test_hash = facts.pop("test_hash")
        return {"exposure": facts, TEST_HASH: test_hash}

    def describe(self) -> str:
        """Describe the exposure for a model card."""
        tests = {
            True: "test sentences were seen",
            False: "no line with the words of a test sentence was seen",
            None: "whether the initial encoder had seen test sentences is not known",
        }[self.test_sentences]
        if self.left_out_fold is None:
            return tests
        return f"{tests}, no sentence of fold {self.left_out_fold} was seen"


UNKNOWN = Exposure(None)


def read_exposure(folder: Path) -> Exposure:
    """Return the exposure recorded in an encoder's folder; ``UNKNOWN`` if there is none."""
    facts = read_pretraining(folder)
    if facts is None:
        return UNKNOWN
    test_hash = facts.get(TEST_HASH) or KNOWN_TESTS.get(facts.get("fingerprint", ""))
    if facts.get("exposure"):
        return Exposure(**facts["exposure"], test_hash=test_hash)
    # a folder of an earlier version: complete only if the encoder was trained from scratch
    if not facts.get("size"):
        return UNKNOWN
    return Exposure(bool(facts.get("test_sentences")), test_hash=test_hash)


def explain_left_out(name: str, exposure: Exposure, folds_hash: str) -> str | None:
    """Return a notice if pretraining left out a fold, saying which scores are comparable."""
    if exposure.left_out_fold is None:
        return None
    if exposure.folds_hash != folds_hash:
        return (
            f"notice: pretraining of {name} left out fold {exposure.left_out_fold} of other folds"
            " than these, so it may have seen sentences of every fold here"
        )
    return (
        f"notice: pretraining of {name} left out fold {exposure.left_out_fold} only: compare its"
        f" scores on that fold (--folds {exposure.left_out_fold})"
    )
