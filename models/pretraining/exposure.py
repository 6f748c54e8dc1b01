"""Exposure: which sentences of a competition an encoder was pretrained on.

``pretrain`` records it in ``pretraining.json``, including that of the encoder it continued from,
and ``fold`` reports it. If pretraining left out one fold, only the score of that fold is free of
contamination by pretraining.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from models.network.encoder_source import read_pretraining


@dataclass(frozen=True, slots=True)
class Exposure:
    """Whether test sentences were seen (None if unknown), and which fold was left out.

    ``left_out_fold`` refers to the folds with ``folds_hash``; None if no fold was left out, or it
    is unknown.
    """

    test_sentences: bool | None
    left_out_fold: int | None = None
    folds_hash: str | None = None

    def after(self, before: Exposure) -> Exposure:
        """Return the combined exposure of a run and of what came before it.

        >>> Exposure(False, 1, "f").after(Exposure(None))
        Exposure(test_sentences=None, left_out_fold=None, folds_hash=None)
        """
        test = True if self.test_sentences else before.test_sentences
        if (self.left_out_fold, self.folds_hash) != (before.left_out_fold, before.folds_hash):
            return Exposure(test)
        return replace(self, test_sentences=test)

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
    if facts.get("exposure"):
        return Exposure(**facts["exposure"])
    # a folder of an earlier version: complete only if the encoder was trained from scratch
    return Exposure(bool(facts.get("test_sentences"))) if facts.get("size") else UNKNOWN


def explain_left_out(name: str, exposure: Exposure, folds_hash: str) -> str | None:
    """Return a notice if pretraining left out a fold, saying which scores are comparable."""
    if exposure.left_out_fold is None:
        return None
    if exposure.folds_hash != folds_hash:
        return (
            f"notice: pretraining of {name} left out fold {exposure.left_out_fold} of other folds"
            " than these, so it has seen sentences of every fold here"
        )
    return (
        f"notice: pretraining of {name} left out fold {exposure.left_out_fold} only: compare its"
        f" scores on that fold (--folds {exposure.left_out_fold})"
    )
