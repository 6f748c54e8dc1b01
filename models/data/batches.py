"""Tokenise rows, truncate them around their entities, and collate micro-batches.

Tokenised rows are cached on disk as flat, memory-mapped arrays, shared by all jobs of a variant.
Legend: N rows, S tokens of all rows, B rows of a micro-batch, T tokens of its longest row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from competition.arrays import Int64s
from competition.data.rows import Row, Rows
from competition.errors import FormatError
from competition.files import write_atomically
from models.data.frame import Frame, frame_of
from models.data.packing import Packing, pack
from models.parts.formats import PLAIN, Format
from models.parts.heads import Positions
from models.parts.markers import Formatted, Span
from models.settings import FormatSettings

RESULT_VERSION = 1
VERSION_NAME = "models.batches"
LAYOUT = 3  # of the arrays on disk; results do not depend on it

POSITION_NAMES = tuple(name for name in Positions.names() if name != "lengths")
TOKENISE_CHUNK_ROWS = 10_000
_ARRAYS = ("tokens", "offsets", "positions", "ids", "is_cut")


@dataclass(frozen=True)
class TokenizedRows:
    """Rows as token ids.

    Attributes:
        tokens: (S,) int32, all rows concatenated.
        offsets: (N + 1,) int64 into ``tokens``.
        positions: (N, 9) int32, columns in the order of ``POSITION_NAMES``; ``prompt_mask`` is 0
            if the format has no mask token.
        ids: (N,) str.
        is_cut: (N,) bool, True for truncated rows.
    """

    tokens: npt.NDArray[np.int32]
    offsets: Int64s
    positions: npt.NDArray[np.int32]
    ids: npt.NDArray[np.str_]
    is_cut: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def cut(self) -> int:
        """Number of truncated rows."""
        return int(self.is_cut.sum())

    @property
    def lengths(self) -> Int64s:
        """Number of tokens of each row, (N,) int64."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: Sequence[int] | Int64s) -> Int64s:
        """Return the number of tokens of some rows, (n,) int64, without reading the others."""
        at = np.asarray(indices)
        lengths: Int64s = self.offsets[at + 1] - self.offsets[at]
        return lengths

    def row_tokens(self, index: int) -> npt.NDArray[np.int32]:
        """Return the token ids of one row."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Batch:
    """One micro-batch: ``input_ids`` and ``attention_mask`` (B, T) int64, and positions (B,).

    ``packing`` says where the tokens stand without padding; None where it is not asked for.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    positions: Positions
    packing: Packing | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; the copy of pinned memory need not be finished."""
        is_cuda = device.type == "cuda"  # elsewhere a copy may outlive what it reads
        return self.map(lambda values: values.to(device, non_blocking=is_cuda))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Return the batch with all its tensors changed, such as moved to a device."""
        changed = (change(getattr(self.positions, name)) for name in Positions.names())
        return Batch(
            change(self.input_ids),
            change(self.attention_mask),
            Positions(*changed),
            None if self.packing is None else self.packing.map(change),
        )

    def doubled(self) -> Batch:
        """Return the batch with all its rows repeated once."""
        twice = self.map(lambda values: torch.cat([values, values]))
        return replace(twice, packing=None if self.packing is None else self.packing.doubled())

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What a network reads of it; the packing where there is one."""
        packing = () if self.packing is None else (self.packing,)
        return self.input_ids, self.attention_mask, self.positions, *packing


def tokenize_rows(
    rows: Rows,
    form: Format,
    tokenizer: Any,
    max_tokens: int,
    *,
    formatting: FormatSettings = PLAIN,
) -> TokenizedRows:
    """Format and tokenise rows; rows over ``max_tokens`` are truncated around their entities.

    Only the sentence is truncated, never a prompt. The slot of a prompt becomes the tokenizer's
    mask token.

    Raises:
        FormatError: both entities of a row do not fit (the message names the row), or a prompt
            needs a mask token and the tokenizer has none.
    """
    tokens: list[npt.NDArray[np.int32]] = []
    positions = np.zeros((len(rows), len(POSITION_NAMES)), np.int32)
    is_cut = np.zeros(len(rows), bool)
    for start in range(0, len(rows), TOKENISE_CHUNK_ROWS):
        stop = min(start + TOKENISE_CHUNK_ROWS, len(rows))
        chunk = list(rows.take(np.arange(start, stop)))
        formatted = [form.build(row, formatting) for row in chunk]
        for at, encoded in enumerate(_encode_chunk(chunk, formatted, tokenizer, max_tokens)):
            tokens.append(encoded.tokens)
            positions[start + at] = encoded.positions
            is_cut[start + at] = encoded.is_cut
    offsets = _offsets_of(np.array([len(row) for row in tokens], np.int64))
    flat = np.concatenate(tokens) if tokens else np.zeros(0, np.int32)
    return TokenizedRows(flat, offsets, positions, rows.ids.astype(np.str_), is_cut)


def read_or_tokenize(
    folder: Path,
    rows: Rows,
    form: Format,
    tokenizer: Any,
    max_tokens: int,
    *,
    formatting: FormatSettings = PLAIN,
) -> TokenizedRows:
    """Read tokenised rows from the cache in ``folder``, or tokenise and write them there.

    The name of the folder must identify all inputs. A folder without ``rows.json`` is incomplete;
    it and a damaged one are written again.
    """
    if (folder / "rows.json").is_file():
        with suppress(OSError, ValueError, EOFError):
            return open_tokenized(folder)
    made = tokenize_rows(rows, form, tokenizer, max_tokens, formatting=formatting)
    for name in _ARRAYS:
        buffer = io.BytesIO()
        np.save(buffer, getattr(made, name), allow_pickle=False)
        write_atomically(folder / f"{name}.npy", buffer.getvalue())
    write_atomically(folder / "rows.json", json.dumps({"rows": len(made), "cut": made.cut}))
    return open_tokenized(folder)


def open_tokenized(folder: Path) -> TokenizedRows:
    """Memory-map tokenised rows from disk."""
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
    }
    return TokenizedRows(**arrays)


def stack_rows(parts: Sequence[TokenizedRows]) -> TokenizedRows:
    """Concatenate tokenised rows."""
    lengths = np.concatenate([part.lengths for part in parts])
    return TokenizedRows(
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=_offsets_of(lengths),
        positions=np.concatenate([part.positions for part in parts]),
        ids=np.concatenate([part.ids for part in parts]),
        is_cut=np.concatenate([part.is_cut for part in parts]),
    )


def take_rows(rows: TokenizedRows, indices: Sequence[int] | Int64s) -> TokenizedRows:
    """Return the rows at ``indices``, in that order; an index may be repeated."""
    at = np.asarray(indices, np.int64)
    lengths = rows.lengths_of(at)
    offsets = _offsets_of(lengths)
    shift = np.repeat(rows.offsets[at] - offsets[:-1], lengths)  # of a row's tokens to their source
    return TokenizedRows(
        tokens=rows.tokens[np.arange(offsets[-1]) + shift],
        offsets=offsets,
        positions=rows.positions[at],
        ids=rows.ids[at],
        is_cut=rows.is_cut[at],
    )


def _offsets_of(lengths: Int64s) -> Int64s:
    """Return the start of each row and the end of the last one: (N,) to (N + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def collate(
    rows: TokenizedRows, indices: Sequence[int] | Int64s, pad_id: int, *, packs: bool = False
) -> Batch:
    """Collate the rows at ``indices``, padded to the longest of them; ``packs`` adds the packing.

    Example: rows [2 7 3] and [2 3] with pad_id 0 become [[2 7 3] [2 3 0]], mask [[1 1 1] [1 1 0]].
    """
    lengths = rows.lengths_of(indices)
    input_ids = np.full((len(indices), int(lengths.max())), pad_id, np.int64)
    for place, index in enumerate(indices):
        input_ids[place, : lengths[place]] = rows.row_tokens(int(index))
    mask = np.arange(input_ids.shape[1]) < lengths[:, None]
    positions = rows.positions[indices].astype(np.int64)
    by_name: Mapping[str, Any] = dict(zip(POSITION_NAMES, positions.T, strict=True))
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(mask.astype(np.int64)),
        Positions(
            lengths=torch.from_numpy(lengths.copy()),
            **{name: torch.from_numpy(values.copy()) for name, values in by_name.items()},
        ),
        pack(lengths) if packs else None,
    )


def plan_epoch(
    lengths: Int64s, batch_rows: int, bucket_steps: int, generator: np.random.Generator
) -> list[Int64s]:
    """Split one epoch into optimiser steps of ``batch_rows`` rows of similar length.

    Rows are shuffled, pooled by ``bucket_steps`` steps, sorted by length within a pool and split;
    then the steps are shuffled (length grouping). The last step may be smaller. With one step per
    pool, the rows of a step are a plain random sample.

    Returns:
        Arrays of row indices that partition ``range(N)``.
    """
    order = generator.permutation(len(lengths))
    pool = batch_rows * bucket_steps
    steps: list[Int64s] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        steps += [rows[at : at + batch_rows] for at in range(0, len(rows), batch_rows)]
    return [steps[i] for i in generator.permutation(len(steps))]


def split_by_tokens(rows: Int64s, lengths: Int64s, max_tokens: int) -> Iterator[Int64s]:
    """Split rows into micro-batches of at most ``max_tokens`` padded tokens, longest first.

    A longer row is a separate micro-batch. The micro-batches of an optimiser step are summed by
    gradient accumulation.
    """
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    start = 0
    while start < len(rows):
        fit = max(1, max_tokens // int(lengths[rows[start]]))
        yield rows[start : start + fit]
        start += fit


@dataclass(frozen=True, slots=True)
class _Encoded:
    tokens: npt.NDArray[np.int32]
    positions: tuple[int, ...]
    is_cut: bool


def _encode_chunk(
    chunk: Sequence[Row], formatted: Sequence[Formatted], tokenizer: Any, max_tokens: int
) -> Iterator[_Encoded]:
    """Tokenise all segments of a chunk in one call, then assemble each row."""
    frame = frame_of(tokenizer)
    formatted = [_fill_slot(each, tokenizer) for each in formatted]
    segments = [segment for each in formatted for segment in each.segments]
    encoded = tokenizer(
        segments,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    at = 0
    for row, each in zip(chunk, formatted, strict=True):
        stop = at + len(each.segments)
        ids, spans = encoded["input_ids"][at:stop], encoded["offset_mapping"][at:stop]
        yield _assemble(row, each, ids, spans, frame, max_tokens)
        at = stop


def _fill_slot(formatted: Formatted, tokenizer: Any) -> Formatted:
    """Put the tokenizer's mask token into the slot of the prompt, if it has one."""
    if formatted.prompt_mask is None:
        return formatted
    if tokenizer.mask_token is None:
        raise FormatError(
            "the format needs a mask token and the encoder's tokenizer has none; "
            "use another format, or an encoder trained with a mask token"
        )
    place, (start, end) = formatted.prompt_mask
    segments, mask = list(formatted.segments), str(tokenizer.mask_token)
    segments[place] = segments[place][:start] + mask + segments[place][end:]
    filled = (place, (start, start + len(mask)))
    return replace(formatted, segments=tuple(segments), prompt_mask=filled)


def _assemble(
    row: Row,
    formatted: Formatted,
    segment_ids: Sequence[Sequence[int]],
    segment_spans: Sequence[Sequence[Span]],
    frame: Frame,
    max_tokens: int,
) -> _Encoded:
    """Join segments with special tokens, the sentence truncated to fit ``max_tokens``."""
    body = formatted.body
    subject, obj, *marks = _find_parts(row, formatted, segment_spans[body])
    others = sum(len(ids) for i, ids in enumerate(segment_ids) if i != body)
    budget = max_tokens - others - frame.length(len(segment_ids))
    pieces = choose_window(len(segment_ids[body]), marks[0], marks[1], budget)
    if pieces is None:
        raise FormatError(
            f"row {row.id}: its entities do not fit {max_tokens} tokens; raise max_tokens "
            "(--set max_tokens=…)"
        )
    tokens = list(frame.first)
    moved: dict[int, int] = {}
    asked = 0
    for i, ids in enumerate(segment_ids):
        if formatted.prompt_mask is not None and formatted.prompt_mask[0] == i:
            asked = len(tokens) + _token_span(segment_spans[i], formatted.prompt_mask[1])[0]
        for start, end in pieces if i == body else [(0, len(ids))]:
            if i == body:
                moved.update((at, len(tokens) + at - start) for at in range(start, end))
            tokens += ids[start:end]
        tokens += frame.last if i == len(segment_ids) - 1 else frame.between
    found = (
        moved[marks[0][0]],
        moved[marks[1][0]],
        moved[subject[0]],
        moved[subject[1] - 1] + 1,
        moved[obj[0]],
        moved[obj[1] - 1] + 1,
        asked,
        moved[marks[0][1] - 1],
        moved[marks[1][1] - 1],
    )
    is_cut = sum(end - start for start, end in pieces) < len(segment_ids[body])
    return _Encoded(np.array(tokens, np.int32), found, is_cut)


def _find_parts(row: Row, formatted: Formatted, token_spans: Sequence[Span]) -> list[Span]:
    """Return the token spans of both entities and of both marked spans, subject first."""
    shown = (formatted.subject, formatted.object, formatted.subject_mark, formatted.object_mark)
    found = [_token_span(token_spans, span) for span in shown]
    if any(start >= end for start, end in found):
        raise FormatError(
            f"row {row.id}: the tokenizer produces no token for an entity "
            f"({row.subject.word!r}, {row.object.word!r})"
        )
    return found


def choose_window(length: int, first: Span, second: Span, budget: int) -> list[Span] | None:
    """Choose which tokens to keep so that both spans are kept whole.

    One window around both spans, with equal context on each side; if they are too far from each
    other, one window around each span, without the text between; ``None`` if even the two spans
    do not fit.

    >>> choose_window(10, (1, 2), (4, 6), 20), choose_window(100, (40, 42), (50, 52), 20)
    ([(0, 10)], [(36, 56)])
    >>> choose_window(100, (10, 12), (80, 82), 20), choose_window(100, (0, 9), (20, 29), 10)
    ([(6, 16), (76, 86)], None)
    """
    if length <= budget:
        return [(0, length)]
    low, high = min(first[0], second[0]), max(first[1], second[1])
    if high - low <= budget:
        return [_widen(low, high, budget, length)]
    spans = sorted([first, second])
    free = budget - sum(end - start for start, end in spans)
    if free < 0:
        return None
    shares = (free // 2, free - free // 2)
    windows = [
        _widen(start, end, end - start + share, length)
        for (start, end), share in zip(spans, shares, strict=True)
    ]
    touching = all(left[1] >= right[0] for left, right in pairwise(windows))
    return [(windows[0][0], max(windows[0][1], windows[1][1]))] if touching else windows


def _widen(start: int, end: int, size: int, length: int) -> Span:
    """Widen a span evenly to ``size``, staying inside ``[0, length)``."""
    left = max(0, min(start - (size - (end - start)) // 2, length - size))
    return left, min(length, left + size)


def _token_span(token_spans: Sequence[Span], span: Span) -> Span:
    """Return the half-open token span that covers a character span, found by position."""
    start = next((i for i, (_, end) in enumerate(token_spans) if end > span[0]), len(token_spans))
    stop = start
    while stop < len(token_spans) and token_spans[stop][0] < span[1]:
        stop += 1
    return start, stop
