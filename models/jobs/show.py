"""The ``show`` command: print the model input of some rows: text, tokens and entity positions.

Uses the same functions as ``fold``, so it shows exactly what a variant is trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from competition.arrays import Say
from competition.console import escape, print_json
from competition.data.corpus import read_corpus
from competition.data.rows import Rows
from competition.errors import UsageError
from competition.predictions.store import open_store
from competition.profile import Competition
from models.data.batches import POSITION_NAMES, tokenize_rows
from models.data.pool import correct_rows
from models.jobs.request import check_variant, resolve_requested
from models.jobs.setup import load_checked, resolve_base_encoder
from models.jobs.suitability import check_suits
from models.parts.formats import Format, choose_format
from models.variant import Variant

SUBJECT_STYLE, OBJECT_STYLE, MARK_STYLE = "bold black on cyan", "bold black on yellow", "reverse"
PROMPT_MASK_STYLE = "bold black on magenta"


@dataclass(frozen=True)
class ShowRequest:
    """Options of ``show``."""

    variant: str
    split: str = "train"
    rows: int = 3
    ids: tuple[str, ...] = ()
    encoder: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class ShownRow:
    """One row as the model sees it; positions are in tokens, spans half-open.

    ``positions`` has no ``prompt_mask`` if the format has no mask token; ``is_cut`` is True if the
    row was truncated around its entities.
    """

    id: str
    label: str | None
    text: tuple[str, ...]
    tokens: tuple[str, ...]
    positions: dict[str, int]
    is_cut: bool


def _say_aside(text: str) -> None:
    print(escape(text), file=sys.stderr)


def show_rows(
    competition: Competition, request: ShowRequest, say: Say = _say_aside
) -> list[ShownRow]:
    """Format and tokenise some rows of a split with a variant.

    ``say`` gets warnings about what the encoder reads poorly.

    Raises:
        UsageError: an unknown split or row id, or a variant without tokens (linear).
        FormatError: the format needs something that the competition does not have.
    """
    if request.split not in {"train", "test"}:
        raise UsageError(f"--split {request.split!r}: choose train or test")
    profile = competition.profile
    check_variant(open_store(competition), request.variant)
    variant = resolve_requested(
        profile, request.variant, encoder_override=request.encoder, overrides=request.overrides
    )
    if not variant.is_network:
        raise UsageError(f"{variant.name} is a model of character n-grams: no tokens to show")
    check_suits(variant, profile)
    corpus = read_corpus(competition)
    train, test, _ = correct_rows(competition, corpus, variant)
    rows = train if request.split == "train" else test
    form = choose_format(variant.format, profile.language)
    source = resolve_base_encoder(variant, competition, corpus)
    tokenizer = load_checked(variant, source, profile, corpus, say)
    chosen = rows.take(_pick(rows.ids, request))
    return _shown(chosen, variant, form, tokenizer, profile.labels)


def _shown(
    rows: Rows, variant: Variant, form: Format, tokenizer: Any, labels: Sequence[str]
) -> list[ShownRow]:
    formatting = variant.formatting
    tokenized = tokenize_rows(rows, form, tokenizer, variant.max_tokens, formatting=formatting)
    shown = []
    for i, row in enumerate(rows):
        formatted = form.build(row, formatting)
        positions = dict(zip(POSITION_NAMES, tokenized.positions[i].tolist(), strict=True))
        if formatted.prompt_mask is None:
            del positions["prompt_mask"]
        shown.append(
            ShownRow(
                id=row.id,
                label=None if rows.label_ids is None else labels[rows.label_ids[i]],
                text=formatted.segments,
                tokens=tuple(tokenizer.convert_ids_to_tokens(tokenized.row_tokens(i).tolist())),
                positions=positions,
                is_cut=bool(tokenized.is_cut[i]),
            )
        )
    return shown


def print_shown(shown: Sequence[ShownRow], *, as_json: bool) -> None:
    """Print rows with coloured entities, markers and mask, or as JSON."""
    if as_json:
        print_json([asdict(row) for row in shown])
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for row in shown:
        label = f", label {row.label}" if row.label is not None else ""
        console.print(Text(escape(f"row {row.id}{label}"), style="bold"))
        console.print(Text(escape("text:   " + " [SEP] ".join(row.text))))
        line = Text("tokens: ")
        for i, token in enumerate(row.tokens):
            line.append(escape(token), style=_style(i, row.positions))
            line.append(" ")
        console.print(line)
        spans = ", ".join(
            f"{role} {row.positions[role + '_start']}–{row.positions[role + '_end']}"
            f" (marker at {row.positions[role + '_mark']})"
            for role in ("subject", "object")
        )
        asked = (
            f"; mask at {row.positions['prompt_mask']}" if "prompt_mask" in row.positions else ""
        )
        cut = " (truncated to max_tokens)" if row.is_cut else ""
        console.print(Text(f"{len(row.tokens)} tokens{cut}; {spans}{asked}\n", style="dim"))


def _pick(ids: Any, request: ShowRequest) -> Any:
    if not request.ids:
        return np.arange(min(request.rows, len(ids)))
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    unknown = [row_id for row_id in request.ids if row_id not in row_of]
    if unknown:
        raise UsageError(f"--ids {unknown[0]}: no such row in {request.split}")
    return np.array([row_of[row_id] for row_id in request.ids])


def _style(index: int, positions: dict[str, int]) -> str:
    if positions["subject_start"] <= index < positions["subject_end"]:
        return SUBJECT_STYLE
    if positions["object_start"] <= index < positions["object_end"]:
        return OBJECT_STYLE
    if index == positions.get("prompt_mask"):
        return PROMPT_MASK_STYLE
    return MARK_STYLE if index in (positions["subject_mark"], positions["object_mark"]) else ""
