"""Corpora for pretraining: deduplicate, tokenise, pack into sequences, mix by weight.

Duplicate lines are removed across all files. A file is tokenised once and memory-mapped. A sequence
is ``[CLS]`` and the next T - 1 tokens of its file; lines end in ``[SEP]``. A few sequences are held
out for evaluation.
Legend: S files, L tokens of a file, n sequences, B of a step, T tokens of a sequence.
"""

from __future__ import annotations

import hashlib
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.arrays import Bools, Int64s
from competition.data.csv_records import FORM_NAMES, show
from competition.data.tables import TableReader
from competition.errors import Offence, PretrainingError
from competition.file_kind import WrongFileError, open_utf8, recognise
from competition.files import write_atomically
from models.variant import fingerprint

RESULT_VERSION = 1
VERSION_NAME = "models.corpora"

TEXT_KEYS = ("text", "sentence")
TOKENISE_CHUNK_LINES = 20_000
MAX_HELDOUT_FRAC = 0.02
MAX_HELDOUT_TOKENS = 100_000
CACHED_EPOCHS = 2


@dataclass(frozen=True)
class Text:
    """The lines of one file, in order, and its weights before the decay and in it."""

    name: str
    lines: tuple[str, ...]
    weight: float
    decay_weight: float

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the lines."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


@dataclass(frozen=True)
class PackedText:
    """A text as token ids: ``tokens`` (L,) unsigned, ``starts`` (L,) True where a word begins."""

    name: str
    tokens: npt.NDArray[Any]
    starts: Bools

    def count_sequences(self, length: int) -> int:
        """Return n, the number of full sequences of ``length`` tokens; the rest is not used."""
        return len(self.tokens) // (length - 1)


def read_lines(path: Path) -> Iterator[str]:
    """Read the non-empty lines of a text, NFC-normalised.

    Reads all formats of ``file_kind``, compressed or in another encoding; in JSON, JSON Lines and
    Parquet the text is the field ``text``, or else ``sentence``.

    Raises:
        PretrainingError: the file is missing, no text, damaged, or holds none.
    """
    is_empty = True
    try:
        for line in _read_raw_lines(path):
            text = unicodedata.normalize("NFC", line).strip()
            if text:
                is_empty = False
                yield text
    except WrongFileError as wrong:
        raise PretrainingError(f"--corpus {path}: {wrong}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PretrainingError(f"--corpus {path}: cannot be read as text: {error}") from error
    if is_empty:
        raise PretrainingError(f"--corpus {path}: holds no text; leave it out")


def _read_raw_lines(path: Path) -> Iterator[str]:
    kind = recognise(path)
    if kind.form == "text":
        stream, _ = open_utf8(path, kind)
        with stream, io.TextIOWrapper(stream, encoding="utf-8") as lines:
            yield from lines
        return
    reader = TableReader(path, {TEXT_KEYS[0]: TEXT_KEYS[0]}, _refuse)
    name = next((name for name in TEXT_KEYS if name in reader.read_names()), None)
    if name is None:
        found = f"{FORM_NAMES[kind.form]} with {show(', '.join(reader.names))}"
        raise WrongFileError(found, f"name its text {' or '.join(map(repr, TEXT_KEYS))}")
    for _, (text,) in TableReader(path, {name: name}, _refuse).read():
        if isinstance(text, list | dict):
            found = f"a row whose {name!r} is {'a list' if isinstance(text, list) else 'an object'}"
            raise WrongFileError(found, "give each row one text")
        yield from str(text).splitlines()


def _refuse(offence: Offence) -> None:
    raise WrongFileError(offence.found, offence.remedy)


def drop_repeated(
    texts: Sequence[Text], *, forbidden: Iterable[str] = ()
) -> tuple[tuple[Text, ...], int]:
    """Remove duplicate lines across all texts, and forbidden lines.

    Forbidden lines are matched by letters and digits only, ignoring case.

    Returns:
        The texts, and the number of forbidden lines removed.
    """
    banned = {letters_of(line) for line in forbidden} - {""}
    seen: set[str] = set()
    met = 0
    kept_texts = []
    for text in texts:
        kept = []
        for line in text.lines:
            if letters_of(line) in banned:
                met += 1
            elif line not in seen:
                seen.add(line)
                kept.append(line)
        kept_texts.append(Text(text.name, tuple(kept), text.weight, text.decay_weight))
    return tuple(kept_texts), met


def letters_of(line: str) -> str:
    """Return the letters and digits of a line, casefolded, to compare lines.

    >>> letters_of("고구려 군과 (AD 645)") == letters_of("고구려군과  ad 645.")
    True
    """
    return "".join(filter(str.isalnum, unicodedata.normalize("NFC", line))).casefold()


def sample_lines(texts: Sequence[Text], most_chars: int) -> Iterator[str]:
    """Yield lines evenly spaced from each text, by weight, up to about ``most_chars`` characters.

    They train the tokenizer: frequent text should be split into fewer tokens.
    """
    chars = [text.weight * sum(map(len, text.lines)) for text in texts]
    scale = min(1.0, most_chars / max(1.0, sum(chars)))
    for text in texts:
        copies = text.weight * scale
        count = int(copies * len(text.lines))
        for at in range(count):
            yield text.lines[int(at / copies) % len(text.lines)]


def read_or_pack(folder: Path, text: Text, tokenizer: Any, tokenizer_hash: str) -> PackedText:
    """Read a packed text from the cache in ``folder``, or tokenise it and write it there."""
    made_from = {"text": text.hash, "tokenizer": tokenizer_hash, "v": RESULT_VERSION}
    own = folder / f"text-{fingerprint(made_from)[:16]}"
    if not (own / "text.json").is_file():
        tokens, starts = pack_lines(text.lines, tokenizer)
        for name, array in (("tokens", tokens), ("starts", starts)):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            write_atomically(own / f"{name}.npy", buffer.getvalue())
        write_atomically(own / "text.json", json.dumps({"name": text.name, "tokens": len(tokens)}))
    arrays = [np.load(own / f"{n}.npy", mmap_mode="r") for n in ("tokens", "starts")]
    return PackedText(text.name, arrays[0], arrays[1])


def pack_lines(lines: Sequence[str], tokenizer: Any) -> tuple[npt.NDArray[Any], Bools]:
    """Tokenise lines into one array of ids, with a separator after each line.

    Returns:
        (L,) uint16 or int32 ids and (L,) bool, True where a word begins.
    """
    width = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    raw = tokenizer.backend_tokenizer
    raw.no_truncation()
    raw.no_padding()
    ids: list[npt.NDArray[Any]] = []
    starts: list[Bools] = []
    for begin in range(0, len(lines), TOKENISE_CHUNK_LINES):
        chunk = list(lines[begin : begin + TOKENISE_CHUNK_LINES])
        for encoded in raw.encode_batch(chunk, add_special_tokens=False):
            ids.append(np.asarray([*encoded.ids, tokenizer.sep_token_id], width))
            words = np.asarray([-1, *(-1 if w is None else w for w in encoded.word_ids), -2])
            starts.append(words[1:] != words[:-1])
    if not ids:
        return np.zeros(0, width), np.zeros(0, bool)
    return np.concatenate(ids), np.concatenate(starts)


@dataclass(frozen=True)
class Library:
    """All packed texts as sequences of ``length`` tokens, numbered text by text.

    ``firsts`` (S + 1,) is the first number of each text; ``heldout`` (n,) marks sequences that are
    never trained on.
    """

    texts: tuple[PackedText, ...]
    length: int
    cls_id: int
    firsts: Int64s
    heldout: Bools

    def read(self, numbers: Int64s) -> tuple[Int64s, Bools]:
        """Return (B, T) int64 ids and (B, T) bool (True where a word begins) of some sequences."""
        body = self.length - 1
        ids = np.full((len(numbers), self.length), self.cls_id, np.int64)
        starts = np.ones((len(numbers), self.length), bool)
        for place, number in enumerate(numbers):
            text = int(np.searchsorted(self.firsts, number, side="right")) - 1
            at = int(number - self.firsts[text]) * body
            ids[place, 1:] = self.texts[text].tokens[at : at + body]
            starts[place, 1:] = self.texts[text].starts[at : at + body]
        return ids, starts

    def numbers_of(self, text: int, *, heldout: bool) -> Int64s:
        """Return the numbers of the held-out or of the training sequences of a text."""
        numbers = np.arange(self.firsts[text], self.firsts[text + 1])
        chosen: Int64s = numbers[self.heldout[numbers] == heldout]
        return chosen


def build_library(texts: Sequence[PackedText], length: int, cls_id: int) -> Library:
    """Number the sequences of all texts, and hold out a few, chosen by the hash of their tokens.

    Raises:
        PretrainingError: fewer than two sequences.
    """
    counts = [text.count_sequences(length) for text in texts]
    firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(firsts[-1])
    if total < 2:
        raise PretrainingError(
            f"the text is too short: {sum(len(t.tokens) for t in texts)} tokens do not fill two "
            f"sequences of {length}; add text, or lower sequence_tokens"
        )
    keys = np.concatenate(
        [_hash_sequences(text, length - 1, n) for text, n in zip(texts, counts, strict=True)]
    )
    size = max(1, min(int(MAX_HELDOUT_FRAC * total), MAX_HELDOUT_TOKENS // length))
    heldout = np.zeros(total, bool)
    heldout[np.argsort(keys, kind="stable")[:size]] = True
    return Library(tuple(texts), length, cls_id, firsts, heldout)


def _hash_sequences(text: PackedText, body: int, count: int) -> npt.NDArray[np.uint64]:
    keys = np.zeros(count, np.uint64)
    for number in range(count):
        content = np.ascontiguousarray(text.tokens[number * body : (number + 1) * body], "<i4")
        digest = hashlib.blake2b(content.tobytes(), digest_size=8).digest()
        keys[number] = int.from_bytes(digest, "little")
    return keys


class Mixture:
    """An endless order of sequences, with texts in proportion to their weights.

    Each text is an endless stream of its sequences, reshuffled on every pass; an epoch takes
    ``weight`` times the size of the text from each stream and shuffles them. The order depends
    only on the seed, not on how much of it is read.
    """

    def __init__(
        self, members: Sequence[Int64s], weights: Sequence[float], *, seed: Sequence[int]
    ) -> None:
        self._members = list(members)
        self._weights = list(weights)
        self._seed = list(seed)
        if self._drawn_before(1) == 0:
            raise PretrainingError("every text has weight 0, or no text has a sequence to train on")
        self._epoch = lru_cache(maxsize=CACHED_EPOCHS)(self._build_epoch)
        self._round = lru_cache(maxsize=4 * len(self._members))(self._shuffle_round)

    @property
    def epoch_sequences(self) -> float:
        """The average number of sequences per epoch."""
        return sum(w * len(m) for w, m in zip(self._weights, self._members, strict=True))

    def take(self, first: int, count: int) -> Int64s:
        """Return the numbers of the sequences at places ``first`` to ``first + count``."""
        parts: list[Int64s] = []
        epoch = max(0, int(first / self.epoch_sequences) - 1)
        while count > 0:
            begin, end = self._drawn_before(epoch), self._drawn_before(epoch + 1)
            if first < end:
                part = self._epoch(epoch)[first - begin : first - begin + count]
                parts.append(part)
                first, count = first + len(part), count - len(part)
            epoch += 1
        return np.concatenate(parts)

    def _share_before(self, text: int, epoch: int) -> int:
        return int(epoch * self._weights[text] * len(self._members[text]))

    def _drawn_before(self, epoch: int) -> int:
        return sum(self._share_before(text, epoch) for text in range(len(self._members)))

    def _build_epoch(self, epoch: int) -> Int64s:
        parts = [
            self._draw(text, self._share_before(text, epoch), self._share_before(text, epoch + 1))
            for text in range(len(self._members))
        ]
        order: Int64s = np.random.default_rng([*self._seed, 0, epoch]).permutation(
            np.concatenate(parts)
        )
        return order

    def _draw(self, text: int, begin: int, end: int) -> Int64s:
        size = len(self._members[text])
        parts = [np.zeros(0, np.int64)]
        while begin < end:
            turn, at = divmod(begin, size)
            part = self._round(text, turn)[at : at + end - begin]
            parts.append(part)
            begin += len(part)
        return np.concatenate(parts)

    def _shuffle_round(self, text: int, turn: int) -> Int64s:
        shuffled: Int64s = np.random.default_rng([*self._seed, 1, text, turn]).permutation(
            self._members[text]
        )
        return shuffled


def pack_texts(
    texts: Sequence[Text],
    tokenizer: Any,
    tokenizer_hash: str,
    *,
    cache_dir: Path,
    say: Callable[[str], None],
) -> tuple[PackedText, ...]:
    """Tokenise texts into the cache, and report the size of each."""
    packed = []
    for text in texts:
        packed.append(read_or_pack(cache_dir, text, tokenizer, tokenizer_hash))
        chars = sum(map(len, text.lines))
        say(
            f"{text.name}: {len(text.lines):,} lines, {chars:,} characters, "
            f"{len(packed[-1].tokens):,} tokens, weight {text.weight:g}, "
            f"in the decay {text.decay_weight:g}"
        )
    return tuple(packed)
