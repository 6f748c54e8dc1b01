"""Encoders: pretrained from a hub, from a local folder, or made from scratch.

Stands between batches and heads, and joins an encoder and a head to the whole network. An
``EncoderSource`` is settled once, before any job starts (downloads and
tokenizer training happen here); jobs then load it without a network.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from competition.errors import EncoderError
from competition.files import sha256_of
from models.heads import HEADS, Positions
from models.roles import RoleEmbedding
from models.settings import ScratchSettings
from models.variant import SCRATCH, Variant, fingerprint

RESULT_VERSION = 1

UNKNOWN = "[UNK]"
SPECIAL_TOKENS = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
MARKER_SIGNS = "@#*^"
RESERVED_WEIGHT = 1000  # times that a reserved word counts as seen, so that it becomes one token
HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
IDENTITY_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
RECOMMENDED: dict[str, dict[str, Any]] = {
    SCRATCH: {"train.lr": 1e-3, "train.epochs": 5.0},
}


def recommended_settings(encoder: str) -> dict[str, Any]:
    """Return the settings that suit an encoder's kind where neither profile nor variant names any.

    Dotted keys of ``Variant``. An encoder trained from random weights needs a far higher rate.
    """
    return dict(RECOMMENDED.get(encoder, {}))


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """A settled encoder: a folder that every job can load, and what identifies its content."""

    name: str
    path: Path
    identity: str
    has_weights: bool


def settle_encoder(
    variant: Variant, *, sentences: Iterable[str], cache_dir: Path, reserved: Sequence[str] = ()
) -> EncoderSource:
    """Find, download or make the variant's encoder.

    Args:
        variant: names the encoder: ``scratch``, a local folder, or a hub name.
        sentences: training sentences; only ``scratch`` reads them, for its tokenizer.
        cache_dir: where a scratch tokenizer is kept, named by the hash of what made it.
        reserved: words that the scratch tokenizer must know whole, such as entity types.

    Raises:
        EncoderError: nothing usable under that name; says what to use instead.
    """
    if variant.encoder == SCRATCH:
        return _settle_scratch(variant.scratch, tuple(sentences), cache_dir, tuple(reserved))
    folder = Path(variant.encoder).expanduser()
    if folder.is_dir():
        return EncoderSource(folder.name, folder, _folder_identity(folder), has_weights=True)
    if folder.is_absolute() or variant.encoder.startswith((".", "~")):
        raise EncoderError(f"encoder folder {variant.encoder} does not exist")
    return _settle_hub(variant)


class RelationModel(nn.Module):
    """An encoder and a head: token ids in, logits out; ``roles`` is its entity embedding, if any.

    Every encoder adds positions to what it is handed and normalises after that, so that roles
    enter before the first layer norm.
    """

    def __init__(
        self, encoder: Any, head: nn.Module, labels: int, roles: RoleEmbedding | None = None
    ) -> None:
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.head = head
        self.roles = roles

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for token ids and mask, both (B, T)."""
        if self.roles is None:
            output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        else:
            embedded = self.roles(self.encoder.get_input_embeddings()(input_ids), positions)
            output = self.encoder(inputs_embeds=embedded, attention_mask=attention_mask)
        logits: Tensor = self.head(output.last_hidden_state, positions)
        return logits


def load_tokenizer(source: EncoderSource, new_tokens: Sequence[str] = ()) -> Any:
    """Load the source's fast tokenizer and register a format's new tokens in it.

    Raises:
        EncoderError: no tokenizer that reports character offsets, or tokens it lacks.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{source.name}: the tokenizer cannot be loaded: {error}") from error
    if not tokenizer.is_fast:
        raise EncoderError(f"{source.name}: its tokenizer has no fast form (tokenizer.json needed)")
    missing = [
        n for n in ("cls_token_id", "sep_token_id", "pad_token_id") if getattr(tokenizer, n) is None
    ]
    if missing:
        raise EncoderError(f"{source.name}: its tokenizer has no {', '.join(missing)}")
    if new_tokens:
        tokenizer.add_special_tokens({"extra_special_tokens": list(new_tokens)})
    return tokenizer


def build_model(
    variant: Variant, source: EncoderSource, *, labels: int, vocabulary: int, device_type: str
) -> RelationModel:
    """Build the network in float32; random parts draw from torch's global generator.

    Args:
        labels: number of labels C.
        vocabulary: tokens of the tokenizer, a format's new tokens included.
        device_type: ``cpu`` or ``cuda``, which decides the attention kernel.

    Raises:
        EncoderError: the weights cannot be loaded.
    """
    from transformers import AutoConfig, AutoModel

    attention = choose_attention(variant, device_type)
    options: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
    try:
        config = AutoConfig.from_pretrained(source.path, local_files_only=True)
        _check_length(variant, source, config)
        if source.has_weights:
            encoder = AutoModel.from_pretrained(
                source.path,
                config=config,
                local_files_only=True,
                use_safetensors=None if variant.run.bin_weights else True,
                **_without_pooler(config),
                **options,
            )
        else:
            encoder = AutoModel.from_config(config, **options)
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{source.name}: the weights cannot be loaded: {error}") from error
    if vocabulary > encoder.get_input_embeddings().num_embeddings:
        encoder.resize_token_embeddings(vocabulary)
    if variant.run.gradient_checkpointing:
        encoder.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    head = HEADS[variant.head](
        config.hidden_size, labels, variant.train.head_dropout, variant.regularise.dropout_samples
    )
    # drawn last: encoder and head begin as they do without it
    roles = RoleEmbedding(encoder.get_input_embeddings()) if variant.entity_embedding else None
    return RelationModel(encoder, head, labels, roles)


def choose_attention(variant: Variant, device_type: str) -> str:
    """Return the attention kernel: plain matrix products on a CPU, the fused kernel elsewhere.

    On a CPU the fused kernel's backward pass took a fifth of a whole training step at the lengths
    of single sentences; with plain products the step was 1.2 times as fast (docs/experiments.md).
    """
    if variant.run.attention != "auto":
        return variant.run.attention
    return "eager" if device_type == "cpu" else "sdpa"


def parameter_depth(name: str, layers: int) -> int:
    """Return how deep a parameter lies: 0 embeddings, 1 to ``layers`` the layers, then the head.

    >>> parameter_depth("encoder.embeddings.tok_embeddings.weight", 6)
    0
    >>> parameter_depth("encoder.encoder.layer.5.output.dense.weight", 6)
    6
    >>> parameter_depth("head.out.weight", 6), parameter_depth("encoder.final_norm.weight", 6)
    (7, 7)
    """
    inside = re.search(r"\.(?:layer|layers|h)\.(\d+)\.", name)
    if inside:
        return 1 + int(inside.group(1))
    return 0 if "embeddings" in name else layers + 1


def _check_length(variant: Variant, source: EncoderSource, config: Any) -> None:
    """Refuse more tokens than the encoder has positions for; RoBERTa's kind counts from its pad."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return
    if config.model_type in _POSITIONS_AFTER_PAD:
        positions -= config.pad_token_id + 1
    if variant.max_tokens > positions:
        raise EncoderError(
            f"{source.name} has positions for {positions} tokens and the variant asks for "
            f"{variant.max_tokens}; add --set max_tokens={positions}"
        )


def _without_pooler(config: Any) -> dict[str, bool]:
    """Leave out the pooling layer that BERT-like encoders carry and that no head reads."""
    return {"add_pooling_layer": False} if config.model_type in _POOLED else {}


_POOLED = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})
_POSITIONS_AFTER_PAD = frozenset({"roberta", "xlm-roberta", "camembert"})


def _settle_scratch(
    settings: ScratchSettings,
    sentences: tuple[str, ...],
    cache_dir: Path,
    reserved: tuple[str, ...],
) -> EncoderSource:
    text = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    made_from = fingerprint(
        {"settings": settings.model_dump(), "text": text, "reserved": reserved, "v": RESULT_VERSION}
    )
    folder = cache_dir / f"scratch-{made_from[:16]}"
    if not (folder / "identity.json").is_file():
        _make_scratch(folder, settings, sentences, reserved)
    identity = json.loads((folder / "identity.json").read_text())["identity"]
    return EncoderSource(SCRATCH, folder, identity, has_weights=False)


def _make_scratch(
    folder: Path, settings: ScratchSettings, sentences: tuple[str, ...], reserved: tuple[str, ...]
) -> None:
    from filelock import FileLock
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "making.lock"):
        if (folder / "identity.json").is_file():
            return
        raw = train_wordpiece(sentences, settings.vocabulary, reserved)
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        PreTrainedTokenizerFast(
            tokenizer_object=raw, **dict(zip(names, SPECIAL_TOKENS, strict=True))
        ).save_pretrained(folder)
        scratch_config(settings, raw.get_vocab_size()).save_pretrained(folder)
        identity = fingerprint(
            {"tokenizer": raw.to_str(), "config": settings.model_dump(), "v": RESULT_VERSION}
        )
        (folder / "identity.json").write_text(json.dumps({"identity": identity}))


def train_wordpiece(sentences: Iterable[str], vocabulary: int, reserved: Sequence[str]) -> Any:
    """Train a cased WordPiece tokenizer on sentences; Hangul stays composed (NFC).

    The library's trainer numbers the pieces inside words (``##x``) in the order of a hash table,
    another one each time, and breaks ties by these numbers. Handing it the alphabet beforehand, in
    order, makes training give the same tokenizer everywhere.

    Args:
        sentences: text to learn from.
        vocabulary: number of tokens at most.
        reserved: words kept whole, such as entity types.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    text = [unicodedata.normalize("NFC", sentence) for sentence in sentences]
    always = set("".join(reserved) + MARKER_SIGNS)
    alphabet = _choose_alphabet(text, always, most=max(100, vocabulary // 4))
    rare = {ord(char): " " for char in set().union(*text) - set(alphabet)}
    inside = [f"##{char}" for char in alphabet]

    def build(model: Any) -> Any:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer

    learner = build(models.WordPiece(unk_token=UNKNOWN))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *inside],
        show_progress=False,
    )
    kept_whole = [" ".join(reserved)] * RESERVED_WEIGHT
    learner.train_from_iterator([*(s.translate(rare) for s in text), *kept_whole], trainer)
    tokenizer = build(models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _choose_alphabet(texts: Iterable[str], always: set[str], most: int) -> list[str]:
    """Return the most frequent characters and some always, in order; ties go to the lower one."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    by_count = sorted(counts, key=lambda char: (-counts[char], char))
    return sorted(char for char in always.union(by_count[:most]) if not char.isspace())


def scratch_config(settings: ScratchSettings, vocabulary: int) -> Any:
    """Return the configuration of a small pre-norm encoder with rotary positions.

    Source: ModernBERT (Warner et al. 2024, arXiv 2412.13663) with full attention in every layer;
    its released sizes alternate local and full attention, which single sentences do not need.
    Weights begin at the scale of Glorot & Bengio 2010, not at the 0.02 that suits wide encoders:
    on the bundled demo that alone was worth 9 micro-F1 and 15 AUPRC.
    """
    from transformers import ModernBertConfig

    return ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.feed_forward,
        global_attn_every_n_layers=1,
        initializer_range=settings.hidden**-0.5,
        max_position_embeddings=1024,
        embedding_dropout=settings.dropout,
        mlp_dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0,
        cls_token_id=2,
        bos_token_id=2,
        sep_token_id=3,
        eos_token_id=3,
    )


def _folder_identity(folder: Path) -> str:
    files = sorted({path for glob in IDENTITY_FILES for path in folder.glob(glob)})
    if not any(path.name == "config.json" for path in files):
        raise EncoderError(f"encoder folder {folder} holds no config.json")
    if not any(path.suffix in {".safetensors", ".bin"} for path in files):
        raise EncoderError(f"encoder folder {folder} holds no weights (model.safetensors)")
    facts = [(path, path.stat()) for path in files]
    return fingerprint({p.name: _hash_once(p, s.st_size, s.st_mtime_ns) for p, s in facts})


@cache
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file's content once a process: several variants share an encoder of gigabytes."""
    del size, mtime_ns
    return sha256_of(path)


def _settle_hub(variant: Variant) -> EncoderSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = variant.encoder
    files = [*HUB_FILES, *(["*.bin"] if variant.run.bin_weights else [])]
    try:
        folder = Path(snapshot_download(name, allow_patterns=files, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(
            f"encoder {name!r} is neither a folder nor reachable on the hub "
            f"({type(error).__name__}); use --encoder FOLDER with a downloaded copy, "
            f"or --encoder {SCRATCH} to train one from random weights"
        ) from None
    if not any(folder.glob("*.safetensors")) and not variant.run.bin_weights:
        raise EncoderError(
            f"encoder {name!r} offers only pickled weights (.bin), which can run code when "
            "loaded; if you trust it, add --set run.bin_weights=true"
        )
    return EncoderSource(name, folder, f"{name}@{folder.name}", has_weights=True)
