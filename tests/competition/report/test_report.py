"""report: one self-contained page that runs no code from the data and makes no requests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score, roc_auc_score

from competition.blend.blend import run_blend
from competition.console import Column, Table
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.learning_curves import CURVE_FILE
from competition.predictions.store import ResultKey, Store
from competition.predictions.variant_scores import VariantScore, score_variants
from competition.profile import STUDY_JOURNAL, Competition
from competition.report.curves import (
    correlate,
    measure_calibration,
    measure_calibration_error,
    measure_confusion,
    measure_disagreement,
    trace_precision_recall,
    trace_roc,
)
from competition.report.next_steps import Standing, describe_standing, propose_commands
from competition.report.page import Page
from competition.report.report import write_report
from competition.submission.record import SubmissionRecord
from competition.upload.send import SubmitOptions, submit
from tests.competition.blend.test_blend import RUN, few_draws, write_variant
from tests.competition.klue_scores import decide
from tests.conftest import make_rows

__all__ = ["few_draws"]  # a fixture: few bootstrap draws

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ATTACK = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
CHECK = """<script>
window.addEventListener('load', () => setTimeout(() => {
  const box = document.querySelector('input.filter');
  const rows = [...document.getElementById(box.dataset.table).tBodies[0].rows];
  box.value = rows[3].textContent.slice(0, 12);
  box.dispatchEvent(new Event('input'));
  document.title = JSON.stringify({
    hacked: typeof window.hacked,
    plots: document.querySelectorAll('.plot').length,
    drawn: document.querySelectorAll('.plot svg.main-svg').length > 0
      && [...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg.main-svg')),
    filtered: rows.some((row) => row.hidden) && !rows[3].hidden,
    asked: performance.getEntriesByType('resource').map((entry) => entry.name)
      .filter((name) => !/^(data|blob):/.test(name)),
    tooWide: document.documentElement.scrollWidth - window.innerWidth,
  });
}, 1500));
</script>"""


@pytest.fixture
def page(tiny_competition: Competition, request: pytest.FixtureRequest) -> Path:
    """The page of a store with three variants, a blend that was sent, and an attack in a row."""
    edit_train = request.getfixturevalue("edit_train")
    sentence = make_rows(64)[0].sentence
    edit_train(sentence, sentence + ATTACK)
    prepared = read_prepared(tiny_competition)
    for name in ("first", "second", "useless"):
        write_variant(prepared, name)
    run_blend(tiny_competition, ("first", "second"), trials=3, seed=0, name="both", run=RUN)
    submit(tiny_competition, None, SubmitOptions("local"), clock=lambda: NOON)
    return write_report(tiny_competition, now=NOON, in_context=lambda text: text)


def test_the_page_holds_everything_and_loads_nothing(page: Path) -> None:
    text = page.read_text("utf-8")
    titles = [unescape(each) for each in re.findall(r"<h2[^>]*>([^<]*)</h2>", text)]
    assert titles == [
        "Now", "Board", "Errors", "Curves", "Train against test",
        "Members against each other", "Jobs", "Blend both", "Scores over time",
    ]  # fmt: skip
    assert text.count("plotly.js v") <= 2, "the plotting script stands there once"
    body = text[: text.index("<script>/**")] if "<script>/**" in text else text
    assert "<script>window" not in body
    assert "<img" not in body
    assert "&lt;script&gt;window.hacked=1" in body
    assert not re.search(r'(?:src|href)="(?!#|data:)', body)
    assert len(re.findall('class="plot"', body)) == len(re.findall("The same as a table", body))
    assert len(text) < 10_000_000


@pytest.mark.slow
def test_a_browser_draws_it_without_errors_or_requests(page: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    shown = tmp_path / "shown.html"
    shown.write_text(page.read_text("utf-8").replace("</body>", f"{CHECK}</body>"), "utf-8")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'browser'}",
            "--enable-logging=stderr", "--window-size=600,900", "--virtual-time-budget=6000",
            "--dump-dom", shown.as_uri(),
        ],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title
    found = json.loads(unescape(title[1]))
    assert found["hacked"] == "undefined"
    assert found["plots"] >= 7
    assert found["drawn"]
    assert found["filtered"]
    assert found["tooWide"] <= 0, "nothing makes a phone scroll sideways"
    assert "CONSOLE" not in done.stderr, done.stderr
    assert found["asked"] == []


def test_every_text_is_escaped() -> None:
    page = Page(ATTACK, lambda text: text.replace("run.py x", "run.py x --competition 'a&b'"))
    page.add_section(ATTACK)
    page.add_paragraph(ATTACK)
    page.add_commands([("python run.py x", ATTACK)])
    table = Table("t", ATTACK, [Column("x", ATTACK)], [{"x": ATTACK}], [ATTACK])
    page.add_table(table)
    page.add_figure({"data": [{"name": "</script>" + ATTACK}], "layout": {}}, table)
    text = page.build("")
    assert "<img" not in text
    assert "<script>window" not in text
    assert "--competition &#x27;a&amp;b&#x27;" in text
    figure = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert figure
    assert json.loads(figure[1])["data"][0]["name"] == "</script>" + ATTACK


def test_damaged_files_are_left_aside_and_named(
    tiny_competition: Competition, prepared: Prepared, store: Store
) -> None:
    for name in ("first", "second", "useless"):
        write_variant(prepared, name)
    blend = run_blend(tiny_competition, ("first", "second"), trials=1, seed=0, name="both", run=RUN)
    header, run = store.path(ResultKey("useless", 1, 0)), store.run_path(ResultKey("first", 1, 1))
    header.write_bytes(header.read_bytes()[:-9])
    run.write_bytes(b"\xff")
    curve = tiny_competition.checkpoints_dir / "first" / "s1-f0" / CURVE_FILE
    journal = tiny_competition.tune_dir / "search" / STUDY_JOURNAL
    for path in (curve, journal):
        path.parent.mkdir(parents=True)
        path.write_text("{}\n{", encoding="utf-8")
    spec = blend.path.with_suffix(".json")
    record = json.loads(spec.read_text("utf-8"))
    record["members"][0]["weight"] = None
    spec.write_text(json.dumps(record), encoding="utf-8")
    (tiny_competition.submissions_dir / "folder.csv").mkdir()
    text = unescape(write_report(tiny_competition, now=NOON).read_text("utf-8"))
    aside = text[text.rindex("Left aside</h2>") :]
    for path in (header, run, curve, journal, spec):
        assert str(path) in aside
    assert "members.0.weight" in aside
    assert "The errors of both are not shown" in aside
    assert "folder: it cannot be read (Is a directory)" in text


def test_an_empty_competition_says_what_to_run(tiny_competition: Competition) -> None:
    text = unescape(write_report(tiny_competition, now=NOON).read_text("utf-8"))
    assert "No variant has out-of-fold scores yet." in text
    assert "python run.py fold concat-cls" in text


def test_a_point_of_the_curve_is_the_score_at_its_threshold() -> None:
    rng = np.random.default_rng(0)
    probs, gold = rng.dirichlet(np.ones(4), 300).astype(np.float32), rng.integers(0, 4, 300)
    recall, precision, thresholds = trace_precision_recall(gold, probs, (1,))
    for place in (3, 70, 149):
        pred = decide(probs, 1, float(thresholds[place]))
        how = {"labels": [0, 2, 3], "average": "micro", "zero_division": 0}
        assert recall[place] == pytest.approx(recall_score(gold, pred, **how))
        assert precision[place] == pytest.approx(precision_score(gold, pred, **how))


def test_calibration_counts_every_row() -> None:
    probs = np.array([[0.95, 0.05], [0.93, 0.07], [0.4, 0.6], [1.0, 0.0]])
    bins = measure_calibration(np.array([0, 1, 1, 0]), probs)
    assert [count for _, _, count in bins] == [1, 3]
    assert bins[1][:2] == pytest.approx((0.96, 2 / 3))
    expected = (0.4 + 3 * (0.96 - 2 / 3)) / 4
    assert measure_calibration_error(bins) == pytest.approx(expected)


def test_members_are_held_against_each_other() -> None:
    gold = np.array([0, 0, 1, 1])
    agreement, correlation = correlate([gold, 1 - gold, np.array([0, 1, 1, 0])], gold)
    assert agreement[0].tolist() == [1.0, 0.0, 0.5]
    assert correlation[0].tolist() == [0, 0, 0], "one that is never wrong correlates with none"
    assert correlation[2, 2] == pytest.approx(1.0)
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])
    apart = measure_disagreement([sure, np.array([[1.0, 0.0], [0.0, 1.0]])])
    assert apart == pytest.approx([0.0, np.log(2)])


def test_the_next_commands_follow_what_is_there(prepared: Prepared) -> None:
    competition = prepared.competition

    def propose(variants: list[VariantScore], *blends: object) -> list[str]:
        n_rows = len(prepared.corpus.train)
        standing = Standing(competition, n_rows, variants, blends, [], 3)  # type: ignore[arg-type]
        assert len(describe_standing(standing)) == 3
        assert all(reason for _, reason in propose_commands(standing))
        return [command for command, _ in propose_commands(standing)]

    assert propose([]) == ["python run.py fold concat-cls"]
    write_variant(prepared, "first", n_folds=1)
    assert propose(score_variants(prepared, ["first"])) == ["python run.py fold first"]
    for name in ("first", "second"):
        write_variant(prepared, name, save_as="concat-cls" if name == "first" else None)
    scores = score_variants(prepared, ["concat-cls", "second"])
    assert propose(scores)[0] == "python run.py blend"
    on_a_part = [replace(each, n_rows=each.n_rows - 1) for each in scores]
    assert "python run.py blend" not in propose(on_a_part), "specialists alone cannot be blended"
    standing = Standing(competition, len(prepared.corpus.train), on_a_part, [], [])
    said = "No variant has out-of-fold scores on all rows yet, 2 on a part."
    assert describe_standing(standing)[0] == said

    def describe(*parts: str) -> SubmissionRecord:
        members = tuple({"name": part, "parts": [part], "weight": 0.5} for part in parts)
        return SubmissionRecord(csv_sha256="x", members=members)

    blend = SimpleNamespace(
        name="b", path=Path("b.csv"), sha256="x", get_nested=lambda _kind: None,
        get_nested_single=lambda _kind: None, record=describe("concat-cls"),
        get_expected=lambda _kind: None,
    )  # fmt: skip
    assert propose(scores, blend)[0] == "python run.py blend", "one is not in the blend"
    blend.record = describe("concat-cls", "second")
    commands = propose(scores, blend)
    assert commands[0] == "python run.py submit b.csv"
    assert commands[1].startswith("python run.py compare ")
    assert len(commands) == 3
    alone = SimpleNamespace(**{**vars(blend), "name": "a", "path": Path("a.csv")})
    alone.get_nested, alone.record = (lambda _kind: 0.5), describe("concat-cls")
    best = "the best blend by its nested score, though the newest has all variants"
    assert propose(scores, blend, alone)[0] == "python run.py submit a.csv", best
    other = SimpleNamespace(**{**vars(alone), "name": "o", "path": Path("o.csv")})
    other.get_nested, other.get_expected = (lambda _kind: 0.4), (lambda _kind: 0.3)
    best = "the board ranks by the expected score"
    assert propose(scores, blend, alone, other)[0] == "python run.py submit o.csv", best
    standing = Standing(competition, len(prepared.corpus.train), scores, [other], [])  # type: ignore[list-item]
    said = "The best blend, o, is expected to have micro-F1 30.00 on the test; its nested micro-F1"
    assert describe_standing(standing)[1] == f"{said} is 40.00."
    assert propose(score_variants(prepared, ["second"]))[1] == "python run.py fold concat-cls"


def test_the_roc_curve_and_the_confusions_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.ones(4), size=400)
    gold = np.array([rng.choice(4, p=row) for row in probs])
    false_rate, true_rate, area = trace_roc(gold, probs)
    assert area == pytest.approx(roc_auc_score(np.eye(4)[gold].ravel(), probs.ravel()))
    assert (false_rate[0], true_rate[-1]) == (0.0, 1.0)
    assert (np.diff(true_rate) >= 0).all()
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(area, abs=0.02)
    pred = probs.argmax(axis=1)
    expected = confusion_matrix(gold, pred, normalize="true")
    assert np.allclose(measure_confusion(gold, pred, [2, 0]), expected[np.ix_([2, 0], [2, 0])])
