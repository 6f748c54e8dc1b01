"""Load the tokenizer of a backbone, and check it on the sentences of the competition.

With a tokenizer that cannot read the sentences, training would succeed but predict a single label,
so it is refused before training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from competition.errors import EncoderError
from models.network.config import Kind, first_line, name_kind, quiet, read_config
from models.network.encoder_source import EncoderSource
from models.parts.formats import EXAMPLE_ROW, Format
from models.parts.markers import Span
from models.settings import FormatSettings

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "*.model",  # SentencePiece, under several names
    "*.tiktoken",
    "tekken.json",
)
SAMPLE_SENTENCES = 400
MAX_LOST = 0.3
"""Maximum share of characters that become [UNK]; most do with a vocabulary of another language."""
NOTED_LOST = 0.05
NOTED_TOKENS_PER_CHAR = 1.2
"""Tokenizers for the language of the sentences need about half a token per character."""


def load_tokenizer(source: EncoderSource, new_tokens: Sequence[str] = ()) -> Any:
    """Load the fast tokenizer of an encoder, and add the new tokens of a format.

    What it has as ``cls_token``, ``sep_token`` and ``bos_token`` afterwards says how segments are
    joined (``models.data.batches``): T5 ends each with its end-of-text token, a decoder joins them
    with a line break. A decoder without a padding token pads with its end-of-text token, which the
    attention mask hides.

    Raises:
        EncoderError: no tokenizer that reports character offsets, or tokens it lacks.
    """
    from transformers import AutoTokenizer

    _check_files(source)
    config = read_config(source)
    kind = name_kind(config)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source.path, config=config, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # converters of the older formats raise whatever they meet
        remedy = "" if source.has_weights else "; delete that folder, it will be created again"
        raise EncoderError(
            f"{source.name}: the tokenizer in {source.path} cannot be loaded: "
            f"{first_line(error)}{remedy}"
        ) from error
    if not tokenizer.is_fast:
        raise EncoderError(f"{source.name}: it has no fast tokenizer (tokenizer.json)")
    _settle_special_tokens(tokenizer, kind)
    missing = [name for name in _needed(kind) if getattr(tokenizer, name) is None]
    if missing:
        raise EncoderError(f"{source.name}: its tokenizer has no {', '.join(missing)}")
    if new_tokens:
        tokenizer.add_special_tokens({"extra_special_tokens": list(new_tokens)})
    return tokenizer


def find_padding_ids(source: EncoderSource, tokenizer: Any, new_tokens: Sequence[str]) -> list[int]:
    """Return the ids of new tokens whose embeddings exist already, as padding of the table.

    Args:
        source: of a backbone, whose table may have more rows than its tokenizer has tokens.
        tokenizer: of ``load_tokenizer``, with the new tokens.
        new_tokens: of a format; those that the tokenizer has without it are left out.
    """
    rows = getattr(read_config(source).get_text_config(), "vocab_size", None) or 0
    inside = [token for token in new_tokens if tokenizer.convert_tokens_to_ids(token) < rows]
    if not inside or not source.has_weights:
        return []
    known = load_tokenizer(source).get_vocab()
    return [tokenizer.convert_tokens_to_ids(token) for token in inside if token not in known]


def _check_files(source: EncoderSource) -> None:
    """Refuse a folder without tokenizer files: transformers would silently create a tokenizer."""
    if not any(path for glob in TOKENIZER_FILES for path in source.path.glob(glob)):
        raise EncoderError(
            f"{source.name}: {source.path} holds no tokenizer files (tokenizer.json and the like); "
            "save its tokenizer there too: tokenizer.save_pretrained(FOLDER)"
        )


def _settle_special_tokens(tokenizer: Any, kind: Kind) -> None:
    if kind == "decoder":
        tokenizer.cls_token = tokenizer.sep_token = None
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
    elif kind == "encoder-decoder" and tokenizer.sep_token is None:
        tokenizer.sep_token = tokenizer.eos_token


def _needed(kind: Kind) -> tuple[str, ...]:
    """Return the special tokens that are needed to assemble rows."""
    if kind == "decoder":
        return ("pad_token_id",)
    if kind == "encoder-decoder":
        return ("sep_token_id", "pad_token_id")
    return ("cls_token_id", "sep_token_id", "pad_token_id")


def list_markers(
    form: Format, settings: FormatSettings, entity_types: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the markers of a format around subject and object, for each entity type.

    >>> from models.parts.formats import FORMATS
    >>> list_markers(FORMATS["typed-punct"], FormatSettings(), ["PER"])
    [('@ * PER *  @', '# ^ PER ^  #')]
    """
    pairs = []
    for kind in entity_types or (None,):
        row = replace(
            EXAMPLE_ROW,
            subject=replace(EXAMPLE_ROW.subject, type=kind),
            object=replace(EXAMPLE_ROW.object, type=kind),
        )
        written = form.build(row, settings)
        text = written.segments[written.body]

        def around(word: Span, mark: Span, text: str = text) -> str:
            return text[mark[0] : word[0]] + text[word[1] : mark[1]]

        pairs.append(
            (
                around(written.subject, written.subject_mark),
                around(written.object, written.object_mark),
            )
        )
    return pairs


def check_reading(
    source: EncoderSource,
    tokenizer: Any,
    sentences: Sequence[str],
    markers: Sequence[tuple[str, str]],
) -> list[str]:
    """Check that a tokenizer can read the sentences and the markers of a format.

    Args:
        source: where the tokenizer comes from; one made from these very sentences is not tried.
        markers: what a format puts around a subject and around an object, by entity type.

    Returns:
        Warnings for the user about a tokenizer that reads poorly.

    Raises:
        EncoderError: its vocabulary is larger than the weights', too much becomes [UNK], or
            subject and object are marked alike.
    """
    if not source.has_weights:
        return []
    _check_vocabulary(source, tokenizer)
    _check_markers(source, tokenizer, markers)
    step = max(1, len(sentences) // SAMPLE_SENTENCES)
    sample = list(sentences[::step])
    lost, tokens_per_char = _measure(tokenizer, sample)
    otherwise = _explain_other_reading(source, tokenizer, sample)
    if lost > MAX_LOST:
        reason = otherwise or (
            "it was made for another language, or is incomplete; choose an encoder of the "
            "sentences' language"
        )
        raise EncoderError(
            f"{source.name}: its tokenizer reads {lost:.0%} of the sentences' characters as "
            f"{tokenizer.unk_token}: {reason}"
        )
    notices = [] if otherwise is None else [f"notice: {source.name}: {otherwise}"]
    written = sorted({piece for pair in markers for side in pair for piece in side.split()})
    unknown = [piece for piece in written if _is_lost(tokenizer, piece)]
    if unknown:
        notices.append(
            f"notice: {source.name} reads {', '.join(unknown)} of the markers as "
            f"{tokenizer.unk_token}"
        )
    if lost > NOTED_LOST:
        notices.append(
            f"notice: {source.name} reads {lost:.1%} of the sentences' characters as "
            f"{tokenizer.unk_token}"
        )
    if tokens_per_char > NOTED_TOKENS_PER_CHAR:
        notices.append(
            f"notice: {source.name} needs {tokens_per_char:.1f} tokens for a character: it hardly "
            "knows the sentences' language"
        )
    return notices


def _check_markers(
    source: EncoderSource, tokenizer: Any, markers: Sequence[tuple[str, str]]
) -> None:
    """Refuse markers that are equal for subject and object because they become [UNK]."""
    for subject, obj in markers:
        ours, theirs = (
            tokenizer(side, add_special_tokens=False, verbose=False)["input_ids"]
            for side in (subject, obj)
        )
        if subject != obj and ours == theirs:
            raise EncoderError(
                f"{source.name}: its tokenizer knows neither {subject!r} nor {obj!r}, so that "
                "subject and object would be marked alike; use a format that registers its own "
                "tokens, such as entity-marker or typed-marker"
            )


def _check_vocabulary(source: EncoderSource, tokenizer: Any) -> None:
    """Refuse a tokenizer of another encoder, with ids beyond the embedding matrix.

    Tokens that were added to a vocabulary are left out; a few checkpoints lack vectors for those.
    """
    config = read_config(source)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    ids = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values()
    highest = max(ids, default=-1)
    if rows is not None and highest >= rows:
        raise EncoderError(
            f"{source.name}: its tokenizer has {highest + 1:,} tokens and its weights {rows:,}: "
            "they belong to different encoders"
        )


def _explain_other_reading(
    source: EncoderSource, tokenizer: Any, sample: Sequence[str]
) -> str | None:
    """Say that transformers reads sentences otherwise than the folder's tokenizer.json; else None.

    Its classes build how text is normalised and split without that file: that of BERT writes in
    lower case unless told otherwise in tokenizer_config.json, and that of Qwen2 splits as Qwen2.
    """
    path = source.path / "tokenizer.json"
    if not path.is_file():
        return None
    told = _read_tokenizer(path, source.identity).encode_batch_fast(
        list(sample), add_special_tokens=False
    )
    read = tokenizer(list(sample), add_special_tokens=False, verbose=False)["input_ids"]
    differing = sum(one.ids != ids for one, ids in zip(told, read, strict=True))
    if not differing:
        return None
    return (
        f"transformers reads {differing / len(sample):.0%} of the sentences otherwise than "
        f"tokenizer.json says, by its own {type(tokenizer).__name__} and tokenizer_config.json "
        '(for a cased BERT, write "do_lower_case": false there)'
    )


@cache
def _read_tokenizer(path: Path, identity: str) -> Any:
    """Read a tokenizer.json, once for each content."""
    from tokenizers import Tokenizer

    del identity
    raw = Tokenizer.from_file(str(path))
    raw.no_truncation()
    raw.no_padding()
    return raw


def _is_lost(tokenizer: Any, sign: str) -> bool:
    ids = tokenizer(sign, add_special_tokens=False, verbose=False)["input_ids"]
    return not ids or tokenizer.unk_token_id in ids


def _measure(tokenizer: Any, sentences: Sequence[str]) -> tuple[float, float]:
    """Return the share of characters that become [UNK], and the number of tokens per character.

    Blanks are not counted.
    """
    encoded = tokenizer(
        list(sentences), add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    characters = lost = tokens = 0
    rows = zip(sentences, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    for sentence, ids, spans in rows:
        tokens += len(ids)
        characters += _count_letters(sentence)
        unknown = [
            span for at, span in zip(ids, spans, strict=True) if at == tokenizer.unk_token_id
        ]
        lost += sum(_count_letters(sentence[start:end]) for start, end in unknown)
        lost += _count_letters(_dropped(sentence, spans))
    return lost / max(1, characters), tokens / max(1, characters)


def _dropped(sentence: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return the parts of a sentence that no token covers."""
    covered = sorted((start, end) for start, end in spans if end > start)
    borders = [(0, 0), *covered, (len(sentence), len(sentence))]
    return "".join(sentence[left[1] : right[0]] for left, right in pairwise(borders))


def _count_letters(text: str) -> int:
    return sum(not char.isspace() for char in text)
