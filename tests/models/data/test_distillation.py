from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from competition.errors import PredictionsError, VariantError
from models.data.distillation import TeacherProbs, build_soft_labels, soften
from models.settings import DistilSettings
from models.variant import resolve_variant

FIRST = TeacherProbs(
    "first", np.array(["a", "b", "c"], object), np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
)
SECOND = TeacherProbs(
    "second", np.array(["c", "a", "b"], object), np.array([[0.3, 0.7], [0.6, 0.4], [1.0, 0.0]])
)


def build(*ids: str, **settings: Any) -> Any:
    wanted = DistilSettings(members=("first", "second"), **settings)
    return build_soft_labels([FIRST, SECOND], np.array(ids, object), wanted)


def test_soft_labels_are_the_average_of_each_row_wherever_a_teacher_has_it() -> None:
    assert build("c", "a") == pytest.approx(np.array([[0.2, 0.8], [0.7, 0.3]]))
    assert build("b", shares=(3.0, 1.0)) == pytest.approx(np.array([[0.625, 0.375]]))
    assert build("b").dtype == np.float32


def test_temperature_softens_the_average_not_each_teacher() -> None:
    assert build("a", temperature=2.0) == pytest.approx(soften(np.array([[0.7, 0.3]]), 2.0))
    sharp = soften(np.array([[0.7, 0.3]]), 0.5)
    assert sharp == pytest.approx(np.array([[0.49, 0.09]]) / 0.58)
    assert soften(np.array([[1.0, 0.0]]), 3.0).tolist() == [[1.0, 0.0]]


def test_a_teacher_must_predict_every_row() -> None:
    with pytest.raises(PredictionsError, match="first has no prediction for 1 of 2 rows, such as"):
        build("a", "d")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"members": ()}, "at least 1 item"),
        ({"members": ("a", "a")}, "names a variant twice"),
        ({"members": ("a", "b"), "shares": (1.0,)}, "1 numbers for 2 members"),
        ({"members": ("a",), "shares": (0.0,)}, "shares are positive"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        DistilSettings(**settings)


def test_combinations_without_a_meaning_are_refused() -> None:
    def resolve(*overrides: Any) -> None:
        resolve_variant("distil", encoder="scratch", overrides=overrides)

    with pytest.raises(VariantError, match="distil and augment exclude each other"):
        resolve(("augment.ways", ["entity-mask"]))
    with pytest.raises(VariantError, match="needs restrict"):
        resolve(("restrict.when", "train"))
    with pytest.raises(VariantError, match="names the variant itself"):
        resolve_variant(
            "distil", encoder="scratch", overrides=[("distil.members", ["d"])], save_as="d"
        )
