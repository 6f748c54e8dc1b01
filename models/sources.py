"""Where encoders come from: a hub, a local folder, the box, or random weights.

First of the encoder's rooms: a source is settled once, before any job starts (downloads and
tokenizer training happen here); ``models.encoder`` then loads it without a network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from competition.errors import EncoderError
from competition.files import sha256_of
from models.scratch import make_scratch
from models.variant import SCRATCH, Variant, fingerprint

HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
IDENTITY_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
PRETRAINING_FILE = "pretraining.json"  # what ``pretrain`` leaves beside the weights
BUNDLED_DIR = Path(__file__).parent / "encoders"
MINI, PRETRAINED = "mini", "pretrained"
RECOMMENDED: dict[str, dict[str, Any]] = {
    SCRATCH: {"train.lr": 1e-3, "train.epochs": 5.0},
    MINI: {"train.lr": 1e-3, "train.epochs": 2.0, "train.batch_rows": 16},
}
"""By kind of encoder; measured in docs/experiments.md."""


def list_bundled() -> list[str]:
    """Return the names of the encoders that come with this package, each a folder."""
    return sorted(path.parent.name for path in BUNDLED_DIR.glob("*/config.json"))


def recommended_settings(encoder: str) -> dict[str, Any]:
    """Return the settings that suit an encoder's kind where neither profile nor variant names any.

    Dotted keys of ``Variant``. Small encoders, and those trained from random weights, need a far
    higher rate than what hubs offer.
    """
    return dict(RECOMMENDED.get(find_kind(encoder), {}))


def find_kind(encoder: str) -> str:
    """Say which settings suit an encoder: ``scratch``, ``mini``, or ``pretrained`` as hubs' are.

    The size of one that ``pretrain`` left stands in its folder.
    """
    if encoder == SCRATCH:
        return SCRATCH
    facts_path = _find_folder(encoder) / PRETRAINING_FILE
    if not facts_path.is_file():
        return PRETRAINED
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    began_with = facts.get("size") or facts.get("from")
    if began_with in list_bundled():
        return find_kind(began_with)
    return began_with if began_with in RECOMMENDED else PRETRAINED


def _find_folder(encoder: str) -> Path:
    """Return the folder that a name means if it means one: a bundled encoder's, or its own."""
    return BUNDLED_DIR / encoder if encoder in list_bundled() else Path(encoder).expanduser()


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
        variant: names the encoder: ``scratch``, a bundled one, a local folder, or a hub name.
        sentences: training sentences; only ``scratch`` reads them, for its tokenizer.
        cache_dir: where a scratch tokenizer is kept, named by the hash of what made it.
        reserved: words that the scratch tokenizer must know whole, such as entity types.

    Raises:
        EncoderError: nothing usable under that name; says what to use instead.
    """
    if variant.encoder == SCRATCH:
        made = make_scratch(variant.scratch, tuple(sentences), cache_dir, tuple(reserved))
        return EncoderSource(SCRATCH, *made, has_weights=False)
    folder = _find_folder(variant.encoder)
    if folder.is_dir():
        return EncoderSource(folder.name, folder, _folder_identity(folder), has_weights=True)
    if folder.is_absolute() or variant.encoder.startswith((".", "~")):
        raise EncoderError(f"encoder folder {variant.encoder} does not exist")
    return _settle_hub(variant)


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
            f"({type(error).__name__}); use --encoder FOLDER with a downloaded copy, --encoder "
            f"{' or '.join(list_bundled())}, which is in the box, or --encoder {SCRATCH}"
        ) from None
    if not any(folder.glob("*.safetensors")) and not variant.run.bin_weights:
        raise EncoderError(
            f"encoder {name!r} offers only pickled weights (.bin), which can run code when "
            "loaded; if you trust it, add --set run.bin_weights=true"
        )
    return EncoderSource(name, folder, f"{name}@{folder.name}", has_weights=True)
