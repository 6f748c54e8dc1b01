"""check and score: remarks on what a platform takes, and one offence for one cause."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import CorpusError
from competition.profile import Competition
from competition.scoring.criteria import describe_scoring
from competition.submission.check import check_submission
from competition.submission.form import read_test_ids
from competition.submission.score import build_score_tables, score_submission
from competition.submission.write import write_submission
from tests.competition.planted import softmax
from tests.competition.submission.test_check import _edit_row, _swap, write
from tests.conftest import write_csv


def smooth(n_rows: int) -> Any:
    """Return probabilities that are sure, and each row another."""
    spread = np.arange(n_rows)[:, None] * np.array([0, 0.1, 0.2, 0.3])
    return softmax(8 * np.eye(4)[np.arange(n_rows) % 4] + spread / n_rows)


TAKEN_BY_SOME: dict[str, tuple[Callable[[str], str], int, str]] = {
    "order": (_swap(4, 6), 5, "keep the order"),
    "BOM": (lambda t: f"\ufeff{t}", 1, "byte order mark"),
    "CRLF": (lambda t: t.replace("\n", "\r\n"), 1, "CR LF"),
    "empty line": (_edit_row(4, lambda row: f"{row}\n"), 5, "empty line"),
    "empty last line": (lambda t: f"{t}\n", 22, "empty line"),
}


@pytest.mark.parametrize("rule", TAKEN_BY_SOME)
def test_what_a_platform_takes_that_joins_by_id_is_a_remark_there(
    tiny_competition: Competition, rule: str
) -> None:
    change, line, message = TAKEN_BY_SOME[rule]
    path = write(tiny_competition)
    path.write_bytes(change(path.read_text("utf-8")).encode("utf-8"))
    for target, joined_by, is_ok in (
        (None, None, True),  # this profile's own target is the local leaderboard
        ("kaggle", None, True),
        ("aistages", None, False),
        ("aistages", "id", True),
        ("kaggle", "position", False),
    ):
        rules = tiny_competition.profile.submission.model_copy(update={"joined_by": joined_by})
        profile = tiny_competition.profile.model_copy(update={"submission": rules})
        report = check_submission(path, replace(tiny_competition, profile=profile), target=target)
        assert report.is_ok is is_ok
        where = report.remarks if is_ok else report.offences
        (found,) = [each for each in where if re.search(message, str(each))]
        assert found.line == line


@pytest.mark.parametrize(
    ("change", "message", "remedy"),
    [
        (
            lambda rows: [[f"{i}.0", *rest] for i, *rest in rows],
            "ids are written as 1000.0 in 20 of 20 rows",
            "write 1000,",
        ),
        (lambda rows: [[f"x{i}", *rest] for i, *rest in rows], "20 of 20 rows have ids", "1000"),
        (
            lambda rows: [[i, str(n % 4), rest] for n, (i, _, rest) in enumerate(rows)],
            "labels are numbers in 20 rows",
            "0 = per:birthplace, 1 = no_relation",
        ),
        (
            lambda rows: [[i, "per:mother", rest] for i, _, rest in rows],
            "20 of 20 rows",
            "did you mean",
        ),
    ],
)
def test_one_cause_is_one_offence(
    tiny_competition: Competition, change: Callable[[Any], Any], message: str, remedy: str
) -> None:
    path = write(tiny_competition)
    header, *rows = csv.reader(path.read_text("utf-8").splitlines())
    write_csv(path, tuple(header), [tuple(row) for row in change(rows)])
    (offence,) = check_submission(path, tiny_competition).offences
    assert message in offence.found
    assert remedy in offence.remedy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: np.eye(4)[np.arange(n) % 4], "every row holds one 1"),
        (lambda n: 0.9 * np.eye(4)[np.arange(n) % 4] + 0.025, "different values in all rows"),
        (lambda n: softmax(smooth(n)), "softmax was applied twice"),
        (lambda n: np.full((n, 4), 0.1), "all rows hold the same probabilities"),
    ],
)
def test_what_throws_points_away_is_remarked(
    tiny_competition: Competition, make: Callable[[int], Any], message: str
) -> None:
    path = write(tiny_competition)
    ids = read_test_ids(tiny_competition)
    probs = np.asarray(make(len(ids)), dtype=float)
    labels = tiny_competition.profile.labels
    records = [
        (i, labels[row.argmax()], str(row.tolist())) for i, row in zip(ids, probs, strict=True)
    ]
    write_csv(path, ("id", "pred_label", "probs"), records)
    report = check_submission(path, tiny_competition)
    assert report.is_ok
    assert any(message in each.found for each in report.remarks), report.remarks
    is_one = "same probabilities" in message
    assert any("all rows have the label" in each.found for each in report.remarks) is is_one


def test_labels_alone_are_scored_by_what_needs_no_probabilities(
    tiny_competition: Competition,
) -> None:
    path, solution = write(tiny_competition), tiny_competition.solution_path
    assert solution is not None
    whole = score_submission(path, solution, tiny_competition.profile)
    header, *rows = csv.reader(path.read_text("utf-8").splitlines())
    write_csv(path, ("id", "pred_label"), [(row_id, label) for row_id, label, _ in rows])
    alone = score_submission(path, solution, tiny_competition.profile)
    assert alone.values["micro_f1"] == whole.values["micro_f1"]
    assert alone.values["auprc"] is None
    table = build_score_tables(alone)[0]
    assert "no column of this file holds" in table.notes[0]
    assert not check_submission(path, tiny_competition).is_ok  # the platform wants both
    numbered = [(n, *row) for n, row in enumerate(rows)]
    write_csv(path, ("", *header), numbered)
    assert score_submission(path, solution, tiny_competition.profile) == whole
    frame = pd.read_csv(path).drop(columns="Unnamed: 0")
    other = path.with_suffix(".parquet")
    frame.assign(probs=frame["probs"].map(json.loads)).to_parquet(other)
    assert score_submission(other, solution, tiny_competition.profile) == whole


def test_a_solution_of_a_data_frame_is_one_too(tiny_competition: Competition) -> None:
    path, solution = write(tiny_competition), tiny_competition.solution_path
    assert solution is not None
    whole = score_submission(path, solution, tiny_competition.profile)
    frame = pd.read_csv(solution)
    other = solution.with_name("other.csv")
    frame.assign(id=frame["id"].astype(float)).to_csv(other, index=False)
    assert score_submission(path, other, tiny_competition.profile) == whole
    places = tiny_competition.profile.label_ids
    frame.assign(label=frame["label"].map(places)).to_csv(other, index=False)
    with pytest.raises(CorpusError, match="cannot be used as a solution") as caught:
        score_submission(path, other, tiny_competition.profile)
    (offence,) = caught.value.offences
    assert "0 is per:birthplace" in offence.remedy
    assert "20 of 20 rows" in offence.found


def test_labels_of_a_blend_under_other_negative_labels_are_not_judged(
    tiny_competition: Competition,
) -> None:
    path = write(tiny_competition)
    probs, pred = np.full((20, 4), 0.2), np.full(20, 0)
    probs[:, 3] = 0.4  # more probable than what is predicted
    ids = read_test_ids(tiny_competition)
    spec = {"kind": "blend", "threshold": 0.5, "temperature": 1.0}
    for negative, n_remarks in (("per:spouse", 1), ("no_relation", 2)):
        made = spec | {"negative_label": negative}
        path = write_submission(tiny_competition, "blend", ids, probs, pred, made, {})
        said = [each.found for each in check_submission(path, tiny_competition).remarks]
        said = [each for each in said if not each.startswith("all rows")]
        is_other = "blend.json was made with other metrics or negative labels" in said
        assert (is_other, len(said)) == (negative != "no_relation", n_remarks), said


def test_numbers_in_an_order_of_labels_that_the_profile_no_longer_has_are_an_offence(
    tiny_competition: Competition,
) -> None:
    probs, ids = smooth(20), read_test_ids(tiny_competition)
    profile = tiny_competition.profile
    made = {
        "kind": "blend",
        "threshold": None,
        "temperature": 1.0,
        "scored_by": describe_scoring(profile),
        "labels": list(profile.labels),
    }
    path = write_submission(tiny_competition, "b", ids, probs, probs.argmax(axis=1), made, {})
    assert check_submission(path, tiny_competition).is_ok
    for names, is_ok in (({}, False), ({"probs_column": None}, True)):
        rules = profile.submission.model_copy(update=names)
        turned = profile.model_copy(update={"labels": profile.labels[::-1], "submission": rules})
        turned_competition = replace(tiny_competition, profile=turned)
        if is_ok:  # a file of label names is right in any order
            path = write_submission(
                turned_competition, "b", ids, probs, probs.argmax(axis=1), made, {}
            )
        report = check_submission(path, turned_competition)
        assert report.is_ok == is_ok
        assert any("another order" in each.found for each in report.offences) != is_ok
        assert not any("other metrics" in each.found for each in report.remarks)
