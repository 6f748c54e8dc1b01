"""A blend's JSON is read completely or refused with a reason; other tools' files are no blend."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from competition.submission.record import (
    ScoreEstimate,
    list_blends,
    read_record,
    read_rule,
    read_submission,
    when_written,
)

MEMBER = {"name": "a", "parts": ["a"], "weight": 0.5, "recipe": "r", "seeds": [42]}
WHOLE: dict[str, Any] = {
    "kind": "blend",
    "trials": 3,
    "seed": 0,
    "objective": "both",
    "reweight": None,
    "shrink": False,
    "threshold": 0.3,
    "temperature": 2.0,
    "members": [MEMBER],
    "nested": {"not": "read here"},
}


def put(folder: Path, name: str, found: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found), "utf-8")
    return path


def test_a_whole_one_is_read(tmp_path: Path) -> None:
    path = put(tmp_path, "one", WHOLE)
    record, rule = read_record(path, 3), read_rule(path, 3)
    assert record is not None
    assert rule is not None
    assert (record.threshold, record.temperature) == (rule.threshold, rule.temperature) == (0.3, 2)
    assert record.members[0].seeds == (42,)
    assert (record.trials, record.objective, record.shrink) == (3, "both", False)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("members", [], "members"),
        ("members", [{**MEMBER, "parts": []}], r"members\.0\.parts"),
        ("members", [{**MEMBER, "weight": float("nan")}], r"members\.0\.weight"),
        ("trials", "many", "trials"),
        ("temperature", 0, "temperature"),
        ("threshold", float("inf"), "threshold"),
        ("objective", 7, "objective"),
    ],
)
def test_what_is_damaged_is_refused_with_its_place(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^{reason}: "):
        read_record(put(tmp_path, "one", {**WHOLE, key: value}), 3)
    rest = {name: each for name, each in WHOLE.items() if name != key}
    with pytest.raises(ValueError, match=f"^{key}: Field required"):
        read_record(put(tmp_path, "one", rest), 3)


def test_what_a_submission_scored_is_read_as_far_as_it_is_said(tmp_path: Path) -> None:
    bare = read_submission(put(tmp_path, "bare", {"csv_sha256": "c"}))
    assert (bare.csv_sha256, bare.members, bare.nested, bare.noise) == ("c", None, {}, ())
    said: dict[str, Any] = {
        "csv_sha256": "c",
        "members": [MEMBER],
        "nested": {
            "blend": {
                "f1": {"value": 0.7, "low": 0.6, "high": 0.8},
                "expected": {"f1": {"value": 0.5, "low": 0.4, "high": 0.6}, "auprc": 0.4},
            },
            "best single": {"f1": {"value": 0.6}},
        },
        "noise": [{"pair": ["blend", "best single"], "agreement": 0.9, "f1_sd": 0.01}],
        "alarms": [{"kind": "leak", "text": "a knows its rows"}],
    }
    record = read_submission(put(tmp_path, "full", said))
    blend, single = record.nested["blend"], record.nested["best single"]
    f1, single_f1, expected = blend.scores["f1"], single.scores["f1"], blend.expect("f1")
    assert f1 is not None
    assert single_f1 is not None
    assert expected is not None
    assert (f1.interval, single_f1.interval) == ((0.6, 0.8), None)
    assert (blend.scores.get("auprc"), expected.value, single.expect("f1")) == (None, 0.5, None)
    assert blend.expect("auprc") == ScoreEstimate(value=0.4)
    assert (record.noise[0].agreement, record.alarms[0].text) == (0.9, "a knows its rows")
    for key, value, where in (
        ("nested", {"blend": {"f1": 0.7}}, "nested.blend.f1"),
        ("noise", [{"agreement": 0.9, "f1_sd": "much"}], "noise.0.sds.f1"),
        ("csv_sha256", None, "csv_sha256"),
    ):
        with pytest.raises(ValueError, match=f"^{where}: "):
            read_submission(put(tmp_path, "full", said | {key: value}))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00"])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = put(tmp_path, "one", text)
    for read in (lambda: read_record(path, 3), lambda: read_rule(path, 3)):
        with pytest.raises(ValueError, match=r"."):
            read()
    with pytest.raises(ValueError, match=r"."):
        read_submission(path)


def test_factors_are_as_many_as_labels(tmp_path: Path) -> None:
    path = put(tmp_path, "one", {**WHOLE, "label_factors": [1.0, 2.0, 0.5]})
    assert read_rule(path, 3) is not None
    for read in (read_record, read_rule):
        with pytest.raises(ValueError, match=r"^label_factors: 3 numbers for 30 labels"):
            read(path, 30)


@pytest.mark.parametrize(
    "changed",
    [{"weight": None}, {"weight": "much"}, {"weight": [1]}, {"weight_by_fold": [0.1, None]},
     {"parts": 3}, {"name": None}],
)  # fmt: skip
def test_members_that_cannot_be_shown_are_named(tmp_path: Path, changed: dict[str, Any]) -> None:
    said = {"csv_sha256": "c", "members": [MEMBER, {**MEMBER, **changed}, "of another tool"]}
    members, faults = read_submission(put(tmp_path, "one", said)).list_weights()
    assert [(each.name, each.weight, each.parts) for each in members] == [("a", 0.5, ("a",))]
    assert len(faults) == 1
    assert faults[0].startswith(f"members.1.{next(iter(changed))}")


def test_anothers_file_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "absent.json", 3) is None
    for found in ([], 3, {"kind": "another tool"}, {"members": []}):
        assert read_record(put(tmp_path, "one", found), 3) is None


def test_the_newest_blend_is_the_last_by_its_own_files(tmp_path: Path) -> None:
    assert list_blends(tmp_path / "absent") == []
    for name, time in (("b-new", "2026-11-03T00:00:00+00:00"), ("c-old", "2026-11-01T00:00:00")):
        put(tmp_path, name, WHOLE)
        put(tmp_path, f"{name}.run", {"kind": "blend", "time": time})
    no_time = put(tmp_path, "a-middle", {**WHOLE, "members": "damaged"})
    os.utime(no_time, (1793577600, 1793577600))  # 2026-11-02
    put(tmp_path, "broken", "{")
    put(tmp_path, "other", {"kind": "another tool"})
    assert list_blends(tmp_path) == ["c-old", "a-middle", "b-new"]
    assert when_written(tmp_path / "b-new.csv")[1] == "b-new.csv"
