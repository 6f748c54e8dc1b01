"""What an encoder has read of a competition's sentences, handed on from encoder to encoder.

``pretrain`` writes it into ``pretraining.json``, where ``fold`` looks: of an encoder that has not
read one fold's sentences, that fold's score alone is free of having read them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from models.network.encoder_source import read_pretraining


@dataclass(frozen=True, slots=True)
class Exposure:
    """Whether test sentences were read, None where nobody knows, and the fold that was left out.

    ``left_out_fold`` is one of the folds with ``folds_hash``; None: none is known to be left out.
    """

    test_sentences: bool | None
    left_out_fold: int | None = None
    folds_hash: str | None = None

    def after(self, before: Exposure) -> Exposure:
        """Return what is read when this is read after something else.

        >>> Exposure(False, 1, "f").after(Exposure(None))
        Exposure(test_sentences=None, left_out_fold=None, folds_hash=None)
        """
        test = True if self.test_sentences else before.test_sentences
        if (self.left_out_fold, self.folds_hash) != (before.left_out_fold, before.folds_hash):
            return Exposure(test)
        return replace(self, test_sentences=test)

    def describe(self) -> str:
        """Write for a model card what was read of the competition's rows."""
        tests = {
            True: "test sentences were seen",
            False: "no line of a test sentence's words was seen",
            None: "whether the encoder that it began with had seen test sentences is not known",
        }[self.test_sentences]
        if self.left_out_fold is None:
            return tests
        return f"{tests}, no sentence of fold {self.left_out_fold} was seen"


UNKNOWN = Exposure(None)


def read_exposure(folder: Path) -> Exposure:
    """Return what an encoder's folder says that it has read; ``UNKNOWN`` where it does not say."""
    facts = read_pretraining(folder)
    if facts is None:
        return UNKNOWN
    if facts.get("exposure"):
        return Exposure(**facts["exposure"])
    # written before exposure was: one made from random weights had read what it says, no more
    return Exposure(bool(facts.get("test_sentences"))) if facts.get("size") else UNKNOWN


def explain_left_out(name: str, exposure: Exposure, folds_hash: str) -> str | None:
    """Say for which fold's score it matters that an encoder has not read its sentences."""
    if exposure.left_out_fold is None:
        return None
    if exposure.folds_hash != folds_hash:
        return (
            f"notice: {name} has not read the sentences of fold {exposure.left_out_fold} of other"
            " folds than these; of these it has read some of every fold"
        )
    return (
        f"notice: {name} has not read the sentences of fold {exposure.left_out_fold} but those of"
        f" all others: compare that fold alone (--folds {exposure.left_out_fold})"
    )
