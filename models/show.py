"""``show``: what a variant is fed, row by row: text, tokens, and where the parts stand.

Uses the very functions that ``fold`` uses, so that what is shown is what is trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from competition.corpus import read_corpus
from competition.errors import UsageError
from competition.profile import Competition
from models.batches import POSITION_NAMES, tokenize_rows
from models.encoder import load_tokenizer, settle_encoder
from models.formats import FORMATS
from models.jobs import resolve_requested

SUBJECT_STYLE, OBJECT_STYLE, MARK_STYLE = "bold black on cyan", "bold black on yellow", "reverse"


@dataclass(frozen=True)
class ShowRequest:
    """What a person asks of ``show``."""

    variant: str
    split: str = "train"
    rows: int = 3
    ids: tuple[str, ...] = ()
    encoder: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class ShownRow:
    """One row as the model meets it; positions are in tokens, spans half-open."""

    id: str
    label: str | None
    text: tuple[str, ...]
    tokens: tuple[str, ...]
    positions: dict[str, int]


def show_rows(competition: Competition, request: ShowRequest) -> list[ShownRow]:
    """Format and tokenise some rows of a split with a variant.

    Raises:
        UsageError: no such split or row id.
    """
    corpus = read_corpus(competition)
    if request.split not in {"train", "test"}:
        raise UsageError(f"--split {request.split!r}: choose train or test")
    rows = corpus.train if request.split == "train" else corpus.test
    profile = competition.profile
    variant = resolve_requested(
        profile, request.variant, encoder_override=request.encoder, overrides=request.overrides
    )
    source = settle_encoder(
        variant,
        sentences=corpus.train.text("sentence"),
        cache_dir=competition.checkpoints_dir / "cache",
        reserved=profile.entity_types,
    )
    form = FORMATS[variant.format]
    tokenizer = load_tokenizer(source, form.new_tokens(profile.entity_types))
    picked = rows.take(_pick(rows.ids, request))
    tokenized = tokenize_rows(picked, form, tokenizer, variant.max_tokens)
    shown = []
    for i, row in enumerate(picked):
        label_ids = picked.label_ids
        shown.append(
            ShownRow(
                id=row.id,
                label=None if label_ids is None else profile.labels[label_ids[i]],
                text=form.build(row).segments,
                tokens=tuple(tokenizer.convert_ids_to_tokens(tokenized.row_tokens(i).tolist())),
                positions=dict(zip(POSITION_NAMES, tokenized.positions[i].tolist(), strict=True)),
            )
        )
    return shown


def print_shown(shown: Sequence[ShownRow], *, as_json: bool) -> None:
    """Print rows with both entities coloured, or as JSON."""
    if as_json:
        print(json.dumps([asdict(row) for row in shown], ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for row in shown:
        label = f", label {row.label}" if row.label is not None else ""
        console.print(Text(f"row {row.id}{label}", style="bold"))
        console.print(Text("text:   " + " [SEP] ".join(row.text)))
        line = Text("tokens: ")
        for i, token in enumerate(row.tokens):
            line.append(token, style=_style(i, row.positions))
            line.append(" ")
        console.print(line)
        spans = ", ".join(
            f"{role} {row.positions[role + '_start']}–{row.positions[role + '_end']}"
            f" (marker at {row.positions[role + '_mark']})"
            for role in ("subject", "object")
        )
        console.print(Text(f"{len(row.tokens)} tokens; {spans}\n", style="dim"))


def _pick(ids: Any, request: ShowRequest) -> Any:
    if not request.ids:
        return np.arange(min(request.rows, len(ids)))
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    unknown = [row_id for row_id in request.ids if row_id not in row_of]
    if unknown:
        raise UsageError(f"--ids {unknown[0]}: there is no such row in {request.split}")
    return np.array([row_of[row_id] for row_id in request.ids])


def _style(index: int, positions: dict[str, int]) -> str:
    if positions["subject_start"] <= index < positions["subject_end"]:
        return SUBJECT_STYLE
    if positions["object_start"] <= index < positions["object_end"]:
        return OBJECT_STYLE
    return MARK_STYLE if index in (positions["subject_mark"], positions["object_mark"]) else ""
