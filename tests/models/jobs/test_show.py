from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from competition.errors import FormatError, UsageError
from competition.profile import Competition
from models.jobs.show import (
    OBJECT_STYLE,
    PROMPT_MASK_STYLE,
    SUBJECT_STYLE,
    ShowRequest,
    print_shown,
    show_rows,
)
from tests.conftest import N_TRAIN, make_rows

SCRATCH = (("scratch.hidden", 32), ("scratch.heads", 1), ("scratch.vocabulary", 400))


def request(variant: str, *overrides: tuple[str, Any], **options: Any) -> ShowRequest:
    return ShowRequest(variant, encoder="scratch", overrides=(*SCRATCH, *overrides), **options)


def test_every_part_of_an_input_is_shown_in_its_colour(
    tiny_competition: Competition,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    options = [("formatting.mask_entities", True), ("formatting.show_source", True)]
    shown = show_rows(tiny_competition, request("mask-prompt", *options, rows=1))
    print_shown(shown, as_json=False)
    printed = capsys.readouterr().out
    cells = dict(re.findall(r"\x1b\[([\d;]+)m(\[[\w-]+\])\x1b", printed))
    style = {"cyan": "1;30;46", "yellow": "1;30;43", "magenta": "1;30;45"}
    assert cells[style[SUBJECT_STYLE.split()[-1]]] == "[SUBJ-PER]"
    assert cells[style[OBJECT_STYLE.split()[-1]]] == "[OBJ-LOC]"
    assert cells[style[PROMPT_MASK_STYLE.split()[-1]]] == "[MASK]"
    (row,) = shown
    assert row.text[0] == "wiki"
    assert row.text[2] == "[SUBJ-PER]의 [OBJ-LOC]는 [MASK] 이다."
    assert f"mask at {row.positions['prompt_mask']}" in printed
    assert row.tokens[row.positions["prompt_mask"]] == "[MASK]"


@pytest.mark.parametrize("variant", ["source", "typed-punct-ko", "declarative"])
def test_a_tokenizer_from_scratch_knows_the_words_that_a_format_adds(
    tiny_competition: Competition, variant: str
) -> None:
    shown = show_rows(tiny_competition, request(variant, rows=12))
    added = {"source": {"news", "wiki"}}.get(variant, {"사람", "장소", "단체"})
    found = {token for row in shown for token in row.tokens} & added
    assert found == added
    assert {row.tokens[1] for row in shown} == added or variant != "source"


def test_a_format_without_a_mask_shows_none(
    tiny_competition: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = show_rows(tiny_competition, request("query", ids=("3",), split="train"))
    print_shown(shown, as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["text"][0].endswith("의 관계")
    assert "prompt_mask" not in row["positions"]
    assert row["label"] == "per:sibling"
    print_shown(shown, as_json=False)
    assert "mask at" not in capsys.readouterr().out


def test_a_truncated_row_is_marked(
    tiny_competition: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = show_rows(tiny_competition, request("concat-cls", rows=1))
    size = len(whole[0].tokens)
    cut = show_rows(tiny_competition, request("concat-cls", ("max_tokens", size - 2), rows=1))
    assert (whole[0].is_cut, cut[0].is_cut) == (False, True)
    print_shown(cut, as_json=False)
    assert f"{size - 2} tokens (truncated to max_tokens)" in capsys.readouterr().out
    print_shown(whole, as_json=False)
    assert "cut" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variant", "format_name", "said"),
    [
        ("entity-mask", "entity-marker", "mask_entities needs entity types"),
        ("source", "entity-marker", "needs a source column"),
    ],
)
def test_a_format_that_does_not_fit_the_competition_is_refused(
    foreign_competition: Competition, variant: str, format_name: str, said: str
) -> None:
    with pytest.raises(FormatError, match=said):
        show_rows(foreign_competition, request(variant, ("format", format_name)))


def test_without_types_the_markers_alone_are_shown(foreign_competition: Competition) -> None:
    (row,) = show_rows(foreign_competition, request("typed-punct", rows=1))
    first = make_rows(N_TRAIN)[0]
    assert f"@ {first.subject[0]} @" in row.text[0]
    assert f"# {first.object[0]} #" in row.text[0]


def test_an_unknown_row_or_split_is_refused(tiny_competition: Competition) -> None:
    wanted = request("query", ids=("999",))
    with pytest.raises(UsageError, match="--ids 999"):
        show_rows(tiny_competition, wanted)
    with pytest.raises(UsageError, match="choose train or test"):
        show_rows(tiny_competition, replace(wanted, split="dev"))


def test_a_linear_variant_is_refused(tiny_competition: Competition) -> None:
    with pytest.raises(UsageError, match="no tokens to show"):
        show_rows(tiny_competition, ShowRequest("tfidf-linear"))


@pytest.mark.parametrize("as_json", [False, True])
def test_what_would_steer_a_terminal_is_escaped(
    tiny_competition: Competition, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    (row,) = show_rows(tiny_competition, request("typed-punct", rows=1))
    odd = replace(row, text=("\x1b[31m가\u202e나",), tokens=("\x1b]0;t\x07", *row.tokens[1:]))
    print_shown([odd], as_json=as_json)
    printed = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\x07"} & {*printed}
    assert "202e" in printed
