"""Final picks: public luck is discounted, diversity breaks ties, draws are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from competition.board.final_picks import (
    DISAGREEMENT_VARIANCE,
    TRANSFER_SD,
    Candidate,
    _draw,
    forecast_private,
    pick_final,
)
from tests.competition.klue_scores import KINDS

T, KIND = 1000, KINDS[0]


def labels(differs: float, start: int = 0) -> np.ndarray:
    """Return labels that differ from the plain ones in a share of the rows, from a row on."""
    made = np.full(T, "a", dtype=object)
    made[start : start + round(differs * T)] = f"b{start}"
    return made


def candidate(
    name: str,
    nested: float | None,
    public: float | None,
    differs: float = 0.0,
    start: int = 0,
) -> Candidate:
    return Candidate(name, nested, public, labels(differs, start))


def test_nothing_to_judge_by() -> None:
    assert pick_final([], 2, KIND) == ([], None)
    assert pick_final([candidate("a", None, None)], 2, KIND) == ([], None)


def test_by_nested_alone_before_anything_is_scored() -> None:
    known = [candidate("a", 0.70, None), candidate("b", 0.72, None, 0.1)]
    picks, forecast = pick_final(known, 2, KIND)
    assert [each.name for each in picks] == ["b", "a"]
    assert forecast is not None
    assert forecast.gap is None
    assert "nested 72.00" in picks[0].reason


def test_the_common_gap_is_taken_off_and_both_scores_are_weighed() -> None:
    known = [candidate("a", 0.72, 0.62), candidate("b", 0.70, 0.60, 0.2)]
    forecast = forecast_private(known, DISAGREEMENT_VARIANCE)
    assert forecast.gap == pytest.approx(-0.10)
    assert forecast.expected == pytest.approx([0.62, 0.60])
    public_variance = DISAGREEMENT_VARIANCE * 0.2 / 4
    expected = 1 / (1 / TRANSFER_SD**2 + 1 / public_variance)
    assert forecast.variance == pytest.approx([expected, expected])


def test_the_forecast_errs_by_as_much_as_it_says() -> None:
    """Truths, nested and public scores drawn by the law that is supposed; errors counted."""
    rng = np.random.default_rng(5)
    half_variance, differs, size = 4e-3, 0.2, 3
    half_sd = np.sqrt(half_variance * differs / 4)  # of one submission on one half
    made = [labels(differs / 2, 200 * place) for place in range(size)]  # any two part by `differs`
    squares, said = [], []
    for _ in range(400):
        truth = rng.normal(0.6, 0.02, size)
        nested = truth + rng.normal(0, TRANSFER_SD, size)
        public = truth + rng.normal(0, half_sd, size)
        known = [
            Candidate(str(place), float(nested[place]), float(public[place]), made[place])
            for place in range(size)  # too few to measure the transfer error from
        ]
        forecast = forecast_private(known, half_variance)
        # what is common to all does not order them
        error = forecast.expected - truth
        squares.append(np.var(error, ddof=1))
        said.append(forecast.variance.mean())
    assert np.mean(squares) == pytest.approx(np.mean(said), rel=0.1)


def test_a_lucky_public_score_is_discounted() -> None:
    """Three that agree with their nested score, and one that leads by less than the noise."""
    known = [
        candidate("best", 0.72, 0.620),
        candidate("second", 0.715, 0.615, 0.3, 100),
        candidate("third", 0.71, 0.610, 0.3, 400),
        candidate("lucky", 0.69, 0.625, 0.3, 700),
    ]
    picks, forecast = pick_final(known, 2, KIND, half_variance=4e-3)
    assert picks[0].name == "best"
    assert forecast is not None
    assert forecast.margin(0, 3) > 0.005
    assert pick_final(known, 1, KIND, half_variance=1e-6)[0][0].name == "lucky"


def test_of_equals_the_one_that_differs_is_the_second() -> None:
    known = [
        candidate("first", 0.720, 0.620),
        candidate("twin", 0.719, 0.619, 0.01),
        candidate("other", 0.719, 0.619, 0.3, 500),
    ]
    picks, _ = pick_final(known, 2, KIND)
    assert [each.name for each in picks] == ["first", "other"]
    assert "30.0% of its labels differ" in picks[1].reason


def test_what_differs_but_is_far_worse_is_not_taken() -> None:
    known = [
        candidate("first", 0.72, 0.62),
        candidate("near", 0.719, 0.619, 0.05),
        candidate("bad", 0.50, 0.40, 0.5, 300),
    ]
    assert [each.name for each in pick_final(known, 2, KIND)[0]] == ["first", "near"]
    assert [each.name for each in pick_final(known, 5, KIND)[0]] == ["first", "near", "bad"]


def test_nested_scores_without_a_gap_are_not_laid_beside_public_ones() -> None:
    known = [candidate("only-nested", 0.72, None), candidate("only-public", None, 0.62, 0.1)]
    assert [each.name for each in pick_final(known, 2, KIND)[0]] == ["only-public"]


def test_the_transfer_error_is_measured_once_enough_is_scored() -> None:
    rng = np.random.default_rng(0)
    known = [
        candidate(f"c{i}", 0.7, 0.6 + float(off), 0.02, 20 * i)
        for i, off in enumerate(rng.normal(0, 0.03, 8))
    ]
    few = forecast_private(known[:3], DISAGREEMENT_VARIANCE)
    many = forecast_private(known, DISAGREEMENT_VARIANCE)
    weight_of_nested = [f.variance[0] / TRANSFER_SD**2 for f in (few, many)]
    assert weight_of_nested[1] < 1
    assert many.variance[0] > few.variance[0]


def test_drawn_scores_part_as_far_as_the_rows_that_differ() -> None:
    known = [
        candidate("a", 0.7, None),
        candidate("b", 0.7, None, 0.1),
        candidate("c", 0.7, None, 0.4, 400),
    ]
    forecast = forecast_private(known, 4e-3)
    draws = _draw(forecast)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        chance = 4e-3 / 2 * forecast.disagreement[first, second]
        expected = chance + forecast.variance[first] + forecast.variance[second]
        assert np.var(draws[:, first] - draws[:, second]) == pytest.approx(expected, rel=0.1)


def test_files_that_cannot_be_compared_are_not_said_to_differ() -> None:
    short = Candidate("short", 0.71, 0.61, labels(0.1)[:-5])
    gone = Candidate("gone", 0.70, 0.60, None)
    known = [candidate("first", 0.72, 0.62), short, gone]
    picks, forecast = pick_final(known, 3, KIND)
    assert forecast is not None
    assert forecast.compared.sum() == 3  # each with itself
    for pick in picks[1:]:
        assert "labels differ" not in pick.reason
        assert "cannot be compared" in pick.reason
