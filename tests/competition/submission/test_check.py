"""submission: every rule broken once and caught; scores as the leaderboard computes them."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, f1_score, precision_recall_curve

from competition.console import print_tables
from competition.errors import CorpusError, SubmissionError, UsageError
from competition.files import sha256_of
from competition.profile import Competition, resolve_competition
from competition.scoring.decisions import ARGMAX, Rule, best_positive
from competition.submission.answers import Answers, read_answers
from competition.submission.check import build_check_tables, check_submission, follows_rule
from competition.submission.fields import parse_probs
from competition.submission.form import read_test_ids
from competition.submission.ledger import Outcome, open_ledger
from competition.submission.score import build_score_tables, score_submission
from competition.submission.write import write_submission
from tests.competition.klue_scores import decide

Answered = tuple[list[str], npt.NDArray[np.float32], npt.NDArray[np.int64]]


def make_answers(competition: Competition, seed: int = 0) -> Answered:
    ids = read_test_ids(competition)
    rng = np.random.default_rng(seed)
    n_labels = competition.profile.n_labels
    probs = rng.dirichlet(np.full(n_labels, 0.3), size=len(ids)).astype(np.float32)
    return ids, probs, probs.argmax(axis=1).astype(np.int64)


def write(competition: Competition, name: str = "blend", seed: int = 0) -> Path:
    ids, probs, pred = make_answers(competition, seed)
    run = {"time": "2026-11-22T12:00:00+00:00", "commit": "abc"}
    return write_submission(competition, name, ids, probs, pred, {"seed": seed}, run)


def test_a_written_submission_keeps_every_rule(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    assert path == tiny_competition.submissions_dir / "blend.csv"
    report = check_submission(path, tiny_competition)
    assert (report.is_ok, report.n_rows, report.remarks) == (True, 20, ())
    report.raise_offences()
    assert path.read_bytes().startswith(b"id,pred_label,probs\n1000,")
    spec = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert spec == {"seed": 0, "csv_sha256": report.sha256}
    assert json.loads((path.parent / "blend.run.json").read_text("utf-8"))["commit"] == "abc"
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "blend.csv", "blend.json", "blend.run.json",
    ]  # fmt: skip


def test_the_profile_names_the_columns(foreign_competition: Competition) -> None:
    path = write(foreign_competition)
    assert path.read_text("utf-8").startswith("row,relation,p\n")
    assert check_submission(path, foreign_competition).is_ok


def test_the_order_of_the_inputs_does_not_matter(tiny_competition: Competition) -> None:
    ids, probs, pred = make_answers(tiny_competition)
    before = write(tiny_competition).read_bytes()
    order = np.random.default_rng(1).permutation(len(ids))
    turned = np.array(ids, dtype=object)[order]
    path = write_submission(tiny_competition, "blend", turned, probs[order], pred[order], {}, {})
    assert path.read_bytes() == before


def test_probabilities_read_back_exactly_and_sum_to_one(tiny_competition: Competition) -> None:
    ids, probs, pred = make_answers(tiny_competition)
    path = write_submission(tiny_competition, "x", ids, 7.0 * probs, pred, {}, {})
    answers = read_answers(path, tiny_competition.profile, 20, pytest.fail)
    exact = probs.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    assert np.allclose(answers.probs.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(answers.probs, exact, atol=1e-7)
    again = write_submission(tiny_competition, "y", ids, answers.probs, pred, {}, {})
    back = read_answers(again, tiny_competition.profile, 20, pytest.fail)
    assert np.allclose(back.probs, answers.probs, atol=1e-7)


@pytest.mark.parametrize(
    "fault", ["rows", "ids", "shape", "nan", "negative", "zero", "label", "name"]
)
def test_unsound_answers_are_not_written(tiny_competition: Competition, fault: str) -> None:
    ids, probs, pred = make_answers(tiny_competition)
    name = "../x" if fault == "name" else "x"
    if fault == "rows":
        ids, probs, pred = ids[1:], probs[1:], pred[1:]
    elif fault == "ids":
        ids = [*ids[:-1], ids[0]]
    elif fault == "shape":
        probs = probs[:, 1:]
    elif fault == "label":
        pred[3] = 4
    elif fault != "name":
        probs[3] = {"nan": np.nan, "negative": -0.1, "zero": 0.0}[fault]
    with pytest.raises((SubmissionError, UsageError)):
        write_submission(tiny_competition, name, ids, probs, pred, {}, {})
    assert not tiny_competition.submissions_dir.exists()


def test_a_name_that_hides_a_run_file_is_refused(tiny_competition: Competition) -> None:
    ids, probs, pred = make_answers(tiny_competition)
    with pytest.raises(UsageError, match=r"\.run"):
        write_submission(tiny_competition, "x.run", ids, probs, pred, {}, {})


def _edit_row(line: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        lines = text.split("\n")
        lines[line - 1] = change(lines[line - 1])
        return "\n".join(lines)

    return apply


def _swap(first: int, second: int) -> Callable[[str], str]:
    def apply(text: str) -> str:
        lines = text.split("\n")
        lines[first - 1], lines[second - 1] = lines[second - 1], lines[first - 1]
        return "\n".join(lines)

    return apply


def _with_probs(probs: str) -> Callable[[str], str]:
    return _edit_row(4, lambda row: f'{row[: row.index(chr(34))]}"{probs}"')


def _with_label(label: str) -> Callable[[str], str]:
    return _edit_row(4, lambda row: ",".join([row.split(",", 1)[0], label, row.split(",", 2)[2]]))


def _drop(line: int) -> Callable[[str], str]:
    return lambda text: "\n".join(text.split("\n")[: line - 1] + text.split("\n")[line:])


RULES: dict[str, tuple[Callable[[str], str], int | None, str]] = {
    "header missing": (_drop(1), 1, "no such column"),
    "column renamed": (lambda t: t.replace("pred_label", "label", 1), 1, "no such column"),
    "columns in another order": (
        lambda t: t.replace("id,pred_label", "pred_label,id", 1), 1, "the header is"),
    "column too many": (
        lambda t: t.replace("probs\n", "probs,x\n", 1).replace(']"\n', ']",1\n'), 1, "header"),
    "row missing": (_drop(4), None, "no answer for this row"),
    "row count": (_drop(4), None, "19 rows where the test file has 20"),
    "row unknown": (lambda t: t.replace("\n1002,", "\n77,"), 4, "no such row"),
    "row repeated": (lambda t: t.replace("\n1002,", "\n1001,"), 4, "also occurs on line 3"),
    "label unknown": (_with_label("per:birthplaces"), 4, "did you mean 'per:birthplace'"),
    "label as a number": (_with_label("1"), 4, "is no label"),
    "label empty": (_with_label(""), 4, "is no label"),
    "no list": (_with_probs("0.25 0.25 0.25 0.25"), 4, "is not the text of a list"),
    "no commas": (_with_probs("[0.25 0.25 0.25 0.25]"), 4, "is not the text of a list"),
    "text in the list": (_with_probs("['0.25', 0.25, 0.25, 0.25]"), 4, "is not the text of a list"),
    "a call": (_with_probs("[__import__('os').getpid(), 1, 0, 0]"), 4, "is not the text of a list"),
    "nested": (_with_probs("[" * 2000 + "]" * 2000), 4, "is not the text of a list"),
    "true": (_with_probs("[True, 0, 0, 0]"), 4, "is not the text of a list"),
    "endless": (_with_probs("[" + "0.25, " * 5000 + "1]"), 4, "is not the text of a list"),
    "empty probs": (_with_probs(""), 4, "is not the text of a list"),
    "too short": (_with_probs("[0.5, 0.25, 0.25]"), 4, "3 numbers where there are 4"),
    "too long": (_with_probs("[0.5, 0.25, 0.25, 0, 0]"), 4, "5 numbers where there are 4"),
    "nan": (_with_probs("[NaN, 0.5, 0.25, 0.25]"), 4, r"number 1 \(per:birthplace\) is nan"),
    "infinite": (_with_probs("[0, 1e999, 0.25, 0.25]"), 4, "is inf"),
    "negative": (_with_probs("[0, -0.1, 0.6, 0.5]"), 4, "is -0.1"),
    "above one": (_with_probs("[0, 1.2, 0, 0]"), 4, "is 1.2"),
    "NUL": (_with_label("\0"), 4, "NUL"),
    "open quote": (_edit_row(4, lambda row: row[:-1]), 4, "quote"),
    "field missing": (_edit_row(4, lambda row: row.split(",", 1)[0]), 4, "1 fields where"),
    "empty": (lambda _: "", None, "empty"),
    "header only": (lambda t: t.split("\n", 1)[0] + "\n", None, "no row"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_broken_once_is_caught(tiny_competition: Competition, rule: str) -> None:
    change, line, message = RULES[rule]
    path = write(tiny_competition)
    text = path.read_text("utf-8")
    broken = change(text)
    assert broken != text
    path.write_bytes(broken.encode("utf-8"))
    report = check_submission(path, tiny_competition)
    with pytest.raises(SubmissionError, match="breaks the leaderboard's rules"):
        report.raise_offences()
    matching = [o for o in report.offences if re.search(message, str(o))]
    assert matching, [str(offence) for offence in report.offences]
    assert matching[0].line == line


def test_other_encodings_are_caught(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    text = path.read_text("utf-8").replace("\n1002,", "\n가,")
    path.write_bytes(text.encode("cp949"))
    assert any("not UTF-8" in str(o) for o in check_submission(path, tiny_competition).offences)
    path.write_bytes(text.encode("utf-16"))
    assert any("UTF-16" in str(o) for o in check_submission(path, tiny_competition).offences)


def test_every_offence_is_listed(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    rows = [f'{i},no_such_label,"[1, 2]"' for i in range(20)]
    path.write_text("\n".join(["id,pred_label,probs", *rows, ""]), "utf-8")
    report = check_submission(path, tiny_competition)
    found = [offence.found for offence in report.offences]
    assert sum("is no label; the same or similar in 20 of 20 rows" in each for each in found) == 1
    assert sum("numbers where" in each for each in found) == 1
    assert sum("20 of 20 rows have ids" in each for each in found) == 1
    tables = build_check_tables(report)
    assert len(tables[0].rows) == 3


def test_a_missing_and_a_gigantic_file(tiny_competition: Competition, tmp_path: Path) -> None:
    report = check_submission(tmp_path / "none.csv", tiny_competition)
    assert "cannot be opened" in report.offences[0].found
    big = tmp_path / "big.csv"
    with big.open("wb") as stream:
        stream.truncate(10_000_000_000)
    started = time.perf_counter()
    report = check_submission(big, tiny_competition)
    assert "never need more" in report.offences[0].found
    assert time.perf_counter() - started < 5  # it was not read


def test_a_file_of_nothing_but_offences_is_given_up(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,pred_label,probs\n" + "a,b\n" * 30_000, "utf-8")
    report = check_submission(path, tiny_competition)
    assert any("more than 1,200 offences" in offence.found for offence in report.offences)
    assert len(report.offences) < 1_300


def test_a_folder_and_a_device_are_no_submissions(tiny_competition: Competition) -> None:
    for path in (tiny_competition.home, Path("/dev/zero")):
        report = check_submission(path, tiny_competition)
        assert "folder or a device" in report.offences[0].found


def test_random_damage_is_an_offence_or_harmless(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    pieces = [b"\0", b'"', b"\xff", b"\n", b"\r", b",", b"[", b"nan", b"\xef\xbb\xbf", b"-", b"e9"]
    for _ in range(150):
        place, piece = rng.integers(len(whole)), pieces[rng.integers(len(pieces))]
        cut = rng.integers(3)
        path.write_bytes(whole[:place] + piece + whole[place + cut :])
        report = check_submission(path, tiny_competition)
        for offence in (*report.offences, *report.remarks):
            assert str(offence).isprintable()
        build_check_tables(report)


def test_a_huge_field_is_no_trouble(tiny_competition: Competition, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f'id,pred_label,probs\n1000,no_relation,"[{"1" * 150_000}"\n', "utf-8")
    report = check_submission(path, tiny_competition)
    assert max(len(str(offence)) for offence in report.offences) < 500


def test_sums_and_other_labels_are_remarks(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    ids = read_test_ids(tiny_competition)
    rows = [f'{i},per:sibling,"[0.9, 0.9, 0.9, 0.1]"' for i in ids]
    path.write_text("\n".join(["id,pred_label,probs", *rows, ""]), "utf-8")
    report = check_submission(path, tiny_competition)
    assert report.is_ok
    assert "sum to 2.8, not 1, in 20 rows" in report.remarks[0].found
    assert "per:sibling is predicted but per:birthplace" in report.remarks[1].found
    assert len(build_check_tables(report)) == 2


def test_a_negative_label_below_the_best_positive_is_no_remark(
    tiny_competition: Competition,
) -> None:
    ids, _, _ = make_answers(tiny_competition)
    probs = np.tile(np.array([0.4, 0.3, 0.2, 0.1]), (20, 1))
    path = write_submission(tiny_competition, "x", ids, probs, np.ones(20, np.int64), {}, {})
    remarks = check_submission(path, tiny_competition).remarks
    assert not any("more probable" in each.found for each in remarks)


def write_flattened(
    competition: Competition, temperature: float, threshold: float = 0.3
) -> tuple[Path, npt.NDArray[np.int64]]:
    """Decide labels in a pool, flatten it, and write both; return the labels too."""
    ids, pooled, _ = make_answers(competition)
    negative_id = competition.profile.negative_ids[0]
    pred = decide(pooled, negative_id, threshold)
    flat = pooled.astype(np.float64) ** (1 / temperature)
    flat /= flat.sum(axis=1, keepdims=True)
    spec = {"kind": "blend", "threshold": threshold, "temperature": temperature}
    path = write_submission(
        competition, "flat", ids, flat.astype(np.float32), pred, spec, {"time": "2026-11-22"}
    )
    return path, pred


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_labels_are_held_against_the_blends_rule_before_flattening(
    tiny_competition: Competition, temperature: float
) -> None:
    path, pred = write_flattened(tiny_competition, temperature)
    negative_id = tiny_competition.profile.negative_ids[0]
    assert check_submission(path, tiny_competition).remarks == ()
    if temperature == 2.0:  # in what is written, the threshold would give other labels
        offences: list[Any] = []
        answers = read_answers(path, tiny_competition.profile, 20, offences.append)
        assert (decide(answers.probs, negative_id, 0.3) != pred).any()
    row = int(np.flatnonzero(pred != negative_id)[3])
    lines = path.read_text("utf-8").splitlines(keepends=True)
    labels = tiny_competition.profile.labels
    lines[row + 1] = lines[row + 1].replace(labels[pred[row]], labels[negative_id], 1)
    path.write_text("".join(lines), "utf-8")
    report = check_submission(path, tiny_competition)
    assert report.is_ok
    remark, origin = report.remarks
    assert remark.line == row + 2
    assert "is not what the rule in flat.json gives, in 1 row (" in remark.found
    assert origin.found.startswith("flat.json belongs to another version")


def test_a_spec_that_says_no_rule_is_a_remark_and_anothers_is_none(
    tiny_competition: Competition,
) -> None:
    path, _ = write_flattened(tiny_competition, 2.0)
    spec = path.with_suffix(".json")
    for text in ("{", '{"kind": "blend"}', '{"kind": "blend", "threshold": 1, "temperature": 0}'):
        spec.write_text(text, "utf-8")
        (remark,) = check_submission(path, tiny_competition).remarks
        assert "flat.json does not say how labels were decided" in remark.found
    for text in ("[]", '{"kind": "another tool"}'):
        spec.write_text(text, "utf-8")
        assert check_submission(path, tiny_competition).remarks == ()
    spec.unlink()
    assert check_submission(path, tiny_competition).remarks == ()


def test_a_csv_that_its_json_was_not_written_for_is_remarked(
    tiny_competition: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a kill between blend's two writes leaves them."""
    path, _ = write_flattened(tiny_competition, 1.0)
    before = path.read_bytes()
    write_flattened(tiny_competition, 2.0)
    assert check_submission(path, tiny_competition).remarks == ()
    path.write_bytes(before)
    report = check_submission(path, tiny_competition)
    *_, remark = report.remarks
    assert report.is_ok
    assert "flat.json belongs to another version of this file" in remark.found
    assert "run blend again with that name" in remark.remedy
    print_tables(build_check_tables(report), as_json=False)
    assert "another version of this file" in " ".join(capsys.readouterr().out.split())
    assert build_check_tables(report)[-1].notes[-1] == f"Next: python run.py submit {path}"


def test_offences_are_counted_and_a_clean_check_is_not_called_so(
    tiny_competition: Competition,
) -> None:
    path = write(tiny_competition)
    (clean,) = build_check_tables(check_submission(path, tiny_competition))
    assert (clean.title, clean.notes[0]) == ("Check", "blend.csv (20 rows) follows all rules.")
    assert clean.notes[1:] == (f"Next: python run.py submit {path}",)
    path.write_text(path.read_text("utf-8").replace("\n1002,", "\n1002x,"), "utf-8")
    report = check_submission(path, tiny_competition)
    broken = build_check_tables(report)[0]
    assert broken.title == "Offences"
    assert not any("Next" in note for table in build_check_tables(report) for note in table.notes)
    assert broken.notes[0].endswith(f"breaks rules: {len(report.offences)} offences.")
    single = replace(report, offences=report.offences[:1])
    assert build_check_tables(single)[0].notes[0].endswith("breaks rules: 1 offence.")


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.4, 2.0])
def test_only_rows_within_rounding_of_the_rule_are_let_pass(temperature: float) -> None:
    """Thresholds and ties are exactly at rows of the pool; the written numbers are rounded."""
    rng = np.random.default_rng(0)
    pooled = rng.dirichlet(np.full(6, 0.2), 4000).astype(np.float32)
    pooled[::7, 2] = pooled[::7, 1]  # ties
    pooled /= pooled.sum(axis=1, keepdims=True)
    flat = pooled.astype(np.float64) ** (1 / temperature)
    flat = (flat / flat.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    flat = (flat / flat.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    _, best = best_positive(pooled, (0,))
    for threshold in map(float, best[:40]):
        rule = (Rule(threshold), temperature)
        pred = decide(pooled, 0, threshold)
        assert follows_rule(flat, pred, (0,), rule).all()
        near = np.abs(best / threshold - 1) < 2e-6
        other = np.where(pred == 0, best_positive(pooled, (0,))[0], 0)
        assert not follows_rule(flat[~near], other[~near], (0,), rule).any()
    second = np.argsort(pooled, axis=1)[:, -2]
    exact = np.sort(pooled, axis=1)
    apart = exact[:, -2] < exact[:, -1] * (1 - 2e-6)
    rule = (ARGMAX, temperature)
    assert follows_rule(flat, decide(pooled, None, None), (), rule).all()
    assert not follows_rule(flat[apart], second[apart], (), rule).any()


def test_terminals_are_safe_from_a_file(
    tiny_competition: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tiny_competition)
    text = path.read_text("utf-8").replace("\n1002,", "\n\x1b[31m[bold]x,")
    path.write_text(text, "utf-8")
    print_tables(build_check_tables(check_submission(path, tiny_competition)), as_json=False)
    assert "\x1b[31m" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[1, 2.5, .5, 1., 1e-3, -2E+2, +3]", [1, 2.5, 0.5, 1, 0.001, -200, 3]),
        (" [0.5,\n0.5 , ] ", [0.5, 0.5]),
        ("[]", None),
        ("[,]", None),
        ("[1,,2]", None),
        ("(1, 2)", None),
        ("[1_0]", None),
        ("[1j]", None),
        ("[--1]", None),
        ("[0x1]", None),
        ("[१]", None),
        ("[1][2]", None),
        ("[01]", None),  # no number in Python, and none in JSON
        ("[00, 0, 007.5, 01e1]", [0, 0, 7.5, 10]),
        ("[,", None),
        ("]", None),
        ("[1,]", [1]),
        *((f"[0.5,{space}0.5]", None) for space in "\u3000\u2028\u00a0\x1c\x0b\x0c\x85"),
        *((f"{space}[0.5]", None) for space in "\u3000\x1c\ufeff"),
        ("[\uff11]", None),
    ],
)
def test_lists_of_numbers(text: str, numbers: list[float] | None) -> None:
    assert parse_probs(text) == numbers


@pytest.mark.parametrize(
    "cell", ["[" + "1" * 60_000, "[" + "1," * 30_000, "[" + " " * 60_000 + "x"]
)
def test_a_long_cell_is_read_in_one_pass(cell: str) -> None:
    began = time.process_time()
    assert parse_probs(cell) is None
    assert parse_probs(cell + "!]") is None
    assert time.process_time() - began < 1


@given(st.lists(st.floats(0, 1), min_size=1), st.sampled_from([", ", ",", " ,\n"]))
def test_what_python_and_json_write_is_read(numbers: list[float], comma: str) -> None:
    assert parse_probs(f"[{comma.join(map(repr, numbers))}]") == numbers


@given(st.text(alphabet="[]0123456789.,eE+-_ \t\n\r\x0b\u3000\u0661x", max_size=12))
def test_what_is_read_is_a_literal(text: str) -> None:
    numbers = parse_probs(text)
    if numbers is not None:
        assert ast.literal_eval(text.strip(" \t\r\n")) == numbers


def test_a_limited_competition_answers_its_sample(tiny_competition: Competition) -> None:
    limited = resolve_competition(
        str(tiny_competition.home / "tiny.toml"), None, 40, home=tiny_competition.home
    )
    ids = read_test_ids(limited)
    assert 0 < len(ids) < 20
    path = write(limited)
    report = check_submission(path, limited)
    assert report.is_ok
    assert not any("submit" in note for table in build_check_tables(report) for note in table.notes)
    assert not check_submission(path, tiny_competition).is_ok


def test_scores_are_the_leaderboards(tiny_competition: Competition) -> None:
    solution = tiny_competition.solution_path
    assert solution is not None
    ids, probs, pred = make_answers(tiny_competition, seed=3)
    path = write_submission(tiny_competition, "x", ids, probs, pred, {}, {})
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], *reversed(lines[1:]), ""]), "utf-8")  # joined by id
    profile = tiny_competition.profile
    scores = score_submission(path, solution, profile)
    gold = np.array(
        [
            profile.label_ids[row.split(",")[1]]
            for row in solution.read_text("utf-8").splitlines()[1:]
        ]
    )
    positives = [i for i in range(4) if i != profile.negative_ids[0]]
    expected = f1_score(gold, pred, labels=positives, average="micro")
    assert scores.values["micro_f1"] == pytest.approx(expected)
    areas = []
    for label in range(4):
        precision, recall, _ = precision_recall_curve(gold == label, probs[:, label])
        areas.append(auc(recall, precision))
    assert scores.values["auprc"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert scores.n_rows == 20
    assert [label.label for label in scores.labels] == list(profile.labels)
    assert sum(label.gold for label in scores.labels) == 20
    assert scores.labels[0].area == pytest.approx(areas[0], abs=1e-6)
    assert len(build_score_tables(scores)) == 2


def test_probabilities_are_scored_as_written(tiny_competition: Competition) -> None:
    solution = tiny_competition.solution_path
    assert solution is not None
    path = write(tiny_competition)
    before = score_submission(path, solution, tiny_competition.profile)
    ids = read_test_ids(tiny_competition)
    rng = np.random.default_rng(5)
    raw = rng.random((20, 4))  # rows sum to what they like; normalising would change the ranking
    rows = [f'{i},no_relation,"{list(row)}"' for i, row in zip(ids, raw.tolist(), strict=True)]
    path.write_text("\n".join(["id,pred_label,probs", *rows, ""]), "utf-8")
    after = score_submission(path, solution, tiny_competition.profile)
    gold = [row.split(",")[1] for row in solution.read_text("utf-8").splitlines()[1:]]
    areas = []
    for label, name in enumerate(tiny_competition.profile.labels):
        precision, recall, _ = precision_recall_curve(np.array(gold) == name, raw[:, label])
        areas.append(auc(recall, precision))
    assert after.values["auprc"] == pytest.approx(np.mean(areas))
    assert after.values["auprc"] != before.values["auprc"]


def test_a_perfect_submission_scores_one(tiny_competition: Competition) -> None:
    solution = tiny_competition.solution_path
    assert solution is not None
    profile = tiny_competition.profile
    gold = [row.split(",")[1] for row in solution.read_text("utf-8").splitlines()[1:]]
    pred = np.array([profile.label_ids[label] for label in gold])
    ids = read_test_ids(tiny_competition)
    path = write_submission(tiny_competition, "x", ids, np.eye(4)[pred], pred, {}, {})
    scores = score_submission(path, solution, profile)
    assert scores.values == {"micro_f1": 1, "auprc": 1}


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: "\n".join([*change(text.splitlines()), ""])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lines(lambda lines: lines[:-1]), "no such row"),
        (_lines(lambda lines: [*lines, "9999,no_relation"]), "no answer"),
        (_lines(lambda lines: [*lines, lines[-1]]), "twice"),
        (_lines(lambda lines: [*lines[:-1], "1019,nothing"]), "is not a label"),
        (_lines(lambda lines: ["id,gold", *lines[1:]]), "no such column"),
    ],
)
def test_other_rows_are_not_scored(
    tiny_competition: Competition, change: Callable[[str], str], message: str
) -> None:
    path, solution = write(tiny_competition), tiny_competition.solution_path
    assert solution is not None
    solution.write_text(change(solution.read_text("utf-8")), "utf-8")
    with pytest.raises((SubmissionError, CorpusError), match=message):
        score_submission(path, solution, tiny_competition.profile)


def test_labels_without_gold_rows_are_named(tiny_competition: Competition) -> None:
    path, solution = write(tiny_competition), tiny_competition.solution_path
    assert solution is not None
    text = solution.read_text("utf-8").replace("per:sibling", "no_relation")
    solution.write_text(text, "utf-8")
    scores = score_submission(path, solution, tiny_competition.profile)
    assert scores.labels[3].area is None
    assert "per:sibling" in build_score_tables(scores)[1].notes[0]


def test_the_real_sample_file_passes_quickly(klue_re_dir: Path, tmp_path: Path) -> None:
    competition = resolve_competition("klue-re", klue_re_dir, None, home=tmp_path)
    started = time.perf_counter()
    report = check_submission(klue_re_dir / "sample_submission.csv", competition)
    assert time.perf_counter() - started < 5  # 0.2 s on an idle core
    assert report.is_ok
    assert "sum to 3" in report.remarks[0].found
    assert report.n_rows == 7_765
    assert check_submission(write(competition), competition).is_ok


@pytest.mark.parametrize(
    ("outcome", "target"),
    [("sent", "kaggle"), ("unknown", "kaggle"), ("failed", "kaggle"), ("sent", "local")],
)
def test_a_submission_that_was_sent_is_not_overwritten(
    tiny_competition: Competition, outcome: Outcome, target: str
) -> None:
    path = write(tiny_competition)
    before = {each: each.read_bytes() for each in path.parent.glob("blend.*")}
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    fields = {"target": target, "destination": "there", "name": "blend", "bytes": 1}
    ledger = open_ledger(tiny_competition)
    intent = ledger.append_intent(now, {**fields, "sha256": sha256_of(path)})
    ledger.append_receipt(intent, now, outcome, ref=None, message="")
    write(tiny_competition)  # the same bytes may be written again
    if outcome == "failed" or target == "local":
        write(tiny_competition, seed=1)
        return
    with pytest.raises(UsageError, match=r"sent to kaggle.* choose another --name"):
        write(tiny_competition, seed=1)
    assert {each: each.read_bytes() for each in path.parent.glob("blend.*")} == before
    write(tiny_competition, "other", seed=1)
    write(tiny_competition, "other", seed=2)  # that one was never sent


def test_a_file_that_changes_while_it_is_read_is_not_vouched_for(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tiny_competition)

    def read_then_change(*given: Any, **how: Any) -> Answers:
        answers = read_answers(*given, **how)
        path.write_bytes(path.read_bytes().replace(b"1000,", b"9999,"))
        return answers

    monkeypatch.setattr("competition.submission.check.read_answers", read_then_change)
    with pytest.raises(SubmissionError, match="changed while it was"):
        check_submission(path, tiny_competition)
