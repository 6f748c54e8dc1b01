"""Where encoders come from: a hub, a local folder, the box, or random weights.

First of the encoder's rooms: a source is settled once, before any job starts (downloads and
tokenizer training happen here); ``models.network.network`` then loads it without a network.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from competition.errors import EncoderError, explain_os_error
from competition.files import sha256_of, tell_first
from models.network.scratch import make_scratch
from models.variant import SCRATCH, Variant, fingerprint

SAFE_WEIGHTS, PICKLED_WEIGHTS = "*.safetensors", "*.bin"
HUB_FILES = ("*.json", "*.txt", "*.model", SAFE_WEIGHTS)
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # also good in the name of a variant
PRETRAINING_FILE = "pretraining.json"  # what ``pretrain`` leaves beside the weights
HUB_TIMEOUT_S = 5.0  # of the question whether it has an encoder
BUNDLED_DIR = Path(__file__).parent.parent / "encoders"
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

    That of one which ``pretrain`` left stands in its folder.
    """
    if encoder == SCRATCH:
        return SCRATCH
    facts = read_pretraining(_find_folder(encoder))
    if facts is None:
        return PRETRAINED
    began_with = facts.get("kind") or facts.get("size") or facts.get("from")
    if began_with in list_bundled():
        return find_kind(began_with)
    return began_with if began_with in RECOMMENDED else PRETRAINED


class _Exposure(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    test_sentences: bool | None
    left_out_fold: int | None = None
    folds_hash: str | None = None


class _Pretraining(BaseModel):
    """What is read of ``pretraining.json``; all of it counts for the folder's identity."""

    model_config = ConfigDict(strict=True, extra="ignore")

    kind: str | None = None
    size: str | None = None
    from_: str | None = Field(None, alias="from")
    fingerprint: str = ""
    test_sentences: bool = False
    exposure: _Exposure | None = None


def read_pretraining(folder: Path) -> dict[str, Any] | None:
    """Read what ``pretrain`` left beside an encoder's weights; None where it left nothing.

    Raises:
        EncoderError: it is damaged.
    """
    path = folder / PRETRAINING_FILE
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        _Pretraining.model_validate_json(text)
        facts: dict[str, Any] = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(
            f"{path} is damaged ({tell_first(error)}): restore it from a copy, or pretrain again"
        ) from None
    return facts


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
        variant: names the encoder: ``scratch``, a bundled one, a local folder, or a hub name, with
            ``@`` and a revision behind it or without.
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
        _check_weights(variant, folder, is_whole=True)
        identity = _identify(folder, (*HUB_FILES, PICKLED_WEIGHTS))
        return EncoderSource(folder.name, folder, identity, has_weights=True)
    if folder.is_absolute() or variant.encoder.startswith((".", "~")):
        raise EncoderError(f"encoder folder {variant.encoder} does not exist")
    return _settle_hub(variant)


def find_copy(encoder: str) -> Path | None:
    """Return the folder of an encoder that is on this machine, without asking a hub.

    A bundled one, a local folder, or a hub's whose weights were downloaded before; else None.
    """
    from huggingface_hub import snapshot_download

    folder = _find_folder(encoder)
    if not folder.is_dir():
        name, _, revision = encoder.partition("@")
        try:
            folder = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
        except Exception:  # the hub's client raises many kinds; all mean that there is none
            return None
    has_weights = any(folder.glob(SAFE_WEIGHTS)) or any(folder.glob(PICKLED_WEIGHTS))
    return folder if has_weights else None


def is_on_hub(encoder: str) -> bool:
    """Say whether the hub answers within a few seconds and has an encoder."""
    from huggingface_hub import HfApi

    name, _, revision = encoder.partition("@")
    try:
        HfApi().model_info(name, revision=revision or None, timeout=HUB_TIMEOUT_S)
    except Exception:  # the hub's client and its two transports raise many kinds
        return False
    return True


def _check_weights(variant: Variant, folder: Path, *, is_whole: bool) -> None:
    """Refuse a folder without weights, or with pickled ones alone unless they are trusted.

    One that is not whole lacks the pickled weights that were not asked for.
    """
    name, trusted = variant.encoder, variant.run.bin_weights
    if not (folder / "config.json").is_file():
        raise EncoderError(f"encoder folder {folder} holds no config.json")
    if any(folder.glob(SAFE_WEIGHTS)):
        return
    has_pickled = any(folder.glob(PICKLED_WEIGHTS))
    if not has_pickled and (is_whole or trusted):
        raise EncoderError(f"encoder folder {folder} holds no weights (model.safetensors)")
    if not trusted:
        raise EncoderError(
            f"encoder {name!r} offers only pickled weights (.bin), which can run code when "
            "loaded; if you trust it, add --set run.bin_weights=true"
        )


def _identify(folder: Path, patterns: Sequence[str]) -> str:
    """Return the hash of the names and the content of a folder's files of some patterns."""
    files = sorted({path for glob in patterns for path in folder.glob(glob)})
    facts = [(path, path.stat()) for path in files]
    return fingerprint({p.name: _hash_once(p, s.st_size, s.st_mtime_ns) for p, s in facts})


@cache
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file's content once a process: several variants share an encoder of gigabytes."""
    del size, mtime_ns
    return sha256_of(path)


def _settle_hub(variant: Variant) -> EncoderSource:
    """Download an encoder, or take the copy of before; what identifies it is what is loaded.

    So a card that its makers edit on the hub leaves results valid, and a local copy has them too.
    """
    pickled = [PICKLED_WEIGHTS] if variant.run.bin_weights else []
    folder = _download(variant.encoder, [*HUB_FILES, *pickled])
    _check_weights(variant, folder, is_whole=False)
    loads_pickled = not any(folder.glob(SAFE_WEIGHTS))
    identity = _identify(folder, [*HUB_FILES, *(pickled if loads_pickled else [])])
    return EncoderSource(variant.encoder, folder, identity, has_weights=True)


def _download(encoder: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a hub's encoder, ``NAME`` or ``NAME@REVISION``.

    Raises:
        EncoderError: there is none, or it cannot be had now.
    """
    from huggingface_hub import snapshot_download

    name, at, revision = encoder.partition("@")
    if at and not REVISION.fullmatch(revision):
        raise EncoderError(f"encoder {encoder!r}: after @ stands a commit, a tag or a branch")
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # the hub's client and its two transports raise many kinds
        raise EncoderError(_explain_download(encoder, error)) from None
    return Path(folder)


def _explain_download(encoder: str, error: Exception) -> str:
    """Say in one line why an encoder was not downloaded, and what to do."""
    from huggingface_hub import errors

    kind = type(error).__name__
    absent = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
        errors.LocalEntryNotFoundError,
    )
    if isinstance(error, absent) and not isinstance(error, errors.IncompleteSnapshotError):
        return (
            f"encoder {encoder!r} is neither a folder nor reachable on the hub "
            f"({kind}); use --encoder FOLDER with a downloaded copy, --encoder "
            f"{' or '.join(list_bundled())}, which is in the box, or --encoder {SCRATCH}"
        )
    known = _explain_disk(error)
    if known is not None:
        return f"encoder {encoder!r} was not downloaded: {known}; HF_HOME names another place"
    reason = next(iter(str(error).strip().splitlines()), "")
    return (
        f"the download of encoder {encoder!r} broke off ({kind}: {reason}); "
        "the same command goes on with it"
    )


def _explain_disk(error: BaseException | None) -> str | None:
    """Say what the disk refused, if that is behind an error; one transport says it in words."""
    while error is not None:
        known = explain_os_error(error) if isinstance(error, OSError) else None
        if known is None and os.strerror(errno.ENOSPC) in str(error):
            known = f"{os.strerror(errno.ENOSPC)}; make room, then run the same command again"
        if known is not None:
            return known
        error = error.__cause__ or error.__context__
    return None
