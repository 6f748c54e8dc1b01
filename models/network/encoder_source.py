"""Resolve encoders: from a hub, a local folder, the bundled ones, or from scratch.

An encoder is resolved once, before any job starts (downloads and tokenizer training happen here);
``models.network.network`` then loads it without internet access.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from competition.errors import EncoderError, explain_os_error
from competition.files import first_problem, parse_json, sha256_of
from models.network.scratch import make_scratch
from models.variant import SCRATCH, Variant, fingerprint

SAFE_WEIGHTS, PICKLED_WEIGHTS = "*.safetensors", "*.bin"
HUB_FILES = ("*.json", "*.txt", "*.model", SAFE_WEIGHTS)
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # also valid in the name of a variant
PRETRAINING_FILE = "pretraining.json"  # written by ``pretrain`` next to the weights
HUB_TIMEOUT_S = 5.0  # of the question whether it has an encoder
BUNDLED_DIR = Path(__file__).parent.parent / "encoders"
MINI, PRETRAINED = "mini", "pretrained"
RECOMMENDED: dict[str, dict[str, Any]] = {
    SCRATCH: {"train.lr": 1e-3, "train.epochs": 5.0},
    MINI: {"train.lr": 1e-3, "train.epochs": 2.0, "train.batch_rows": 16},
}
"""Recommended hyperparameters by kind of encoder, from docs/experiments.md."""


def list_bundled() -> list[str]:
    """Return the names of the bundled encoders."""
    return sorted(path.parent.name for path in BUNDLED_DIR.glob("*/config.json"))


def recommended_settings(encoder: str) -> dict[str, Any]:
    """Return the recommended hyperparameters for the kind of an encoder, as dotted keys.

    The profile and the variant override them. Small encoders, and those trained from scratch, need
    a much higher learning rate than pretrained ones from a hub.
    """
    return dict(RECOMMENDED.get(find_kind(encoder), {}))


def find_kind(encoder: str) -> str:
    """Return the kind of an encoder: ``scratch``, ``mini``, or ``pretrained`` for hubs.

    For an encoder written by ``pretrain``, it is recorded in its folder.
    """
    if encoder == SCRATCH:
        return SCRATCH
    facts = read_pretraining(_find_folder(encoder))
    if facts is None:
        return PRETRAINED
    origin = facts.get("kind") or facts.get("size") or facts.get("from")
    if origin in list_bundled():
        return find_kind(origin)
    return origin if origin in RECOMMENDED else PRETRAINED


class _Exposure(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    test_sentences: bool | None
    left_out_fold: int | None = None
    folds_hash: str | None = None


class _Pretraining(BaseModel):
    """The keys read from ``pretraining.json``; all of it is part of the folder's identity."""

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
        facts: dict[str, Any] = parse_json(text)
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"{path} is damaged ({first_problem(error)}): restore it from a copy, or pretrain again"
        ) from None
    return facts


def _find_folder(encoder: str) -> Path:
    """Return the folder of a bundled encoder, or the name as a path."""
    return BUNDLED_DIR / encoder if encoder in list_bundled() else Path(encoder).expanduser()


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """A resolved encoder: a local folder, and the hash of its content."""

    name: str
    path: Path
    identity: str
    has_weights: bool


def resolve_encoder(
    variant: Variant, *, sentences: Iterable[str], cache_dir: Path, reserved: Sequence[str] = ()
) -> EncoderSource:
    """Find, download or create the encoder of a variant.

    Args:
        variant: its encoder is ``scratch``, a bundled one, a local folder, or a name on the hub,
            optionally followed by ``@`` and a revision.
        sentences: training sentences, used only to train the tokenizer of ``scratch``.
        cache_dir: folder for the scratch tokenizer, named by the hash of its inputs.
        reserved: words that the scratch tokenizer must keep whole, such as entity types.

    Raises:
        EncoderError: no usable encoder of that name; says what to use instead.
    """
    if variant.encoder == SCRATCH:
        made = make_scratch(variant.scratch, tuple(sentences), cache_dir, tuple(reserved))
        return EncoderSource(SCRATCH, *made, has_weights=False)
    folder = _find_folder(variant.encoder)
    if folder.is_dir():
        _check_weights(variant, folder, is_whole=True)
        identity = identify_folder(variant.encoder)
        assert identity is not None
        return EncoderSource(folder.name, folder, identity, has_weights=True)
    if folder.is_absolute() or variant.encoder.startswith((".", "~")):
        raise EncoderError(f"encoder folder {variant.encoder} does not exist")
    return _resolve_hub(variant)


def identify_folder(encoder: str) -> str | None:
    """Return the identity of a bundled encoder or a local folder; None of any other."""
    folder = _find_folder(encoder)
    return _identify(folder, (*HUB_FILES, PICKLED_WEIGHTS)) if folder.is_dir() else None


def locate_folder(encoder: str) -> str | None:
    """Return the absolute path of a local folder; None of a bundled encoder or any other."""
    folder = Path(encoder).expanduser()
    is_local = encoder not in list_bundled() and folder.is_dir()
    return str(folder.absolute()) if is_local else None


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
    """Return whether the hub answers within a few seconds and has an encoder."""
    from huggingface_hub import HfApi

    name, _, revision = encoder.partition("@")
    try:
        HfApi().model_info(name, revision=revision or None, timeout=HUB_TIMEOUT_S)
    except Exception:  # the hub's client and its two transports raise many kinds
        return False
    return True


def _check_weights(variant: Variant, folder: Path, *, is_whole: bool) -> None:
    """Check that a folder has weights, and not only pickled ones unless they are trusted.

    A folder that is not whole was downloaded without pickled weights.
    """
    name, trusted = variant.encoder, variant.run.bin_weights
    if not (folder / "config.json").is_file():
        raise EncoderError(f"encoder folder {folder} has no config.json")
    if any(folder.glob(SAFE_WEIGHTS)):
        return
    has_pickled = any(folder.glob(PICKLED_WEIGHTS))
    if not has_pickled and (is_whole or trusted):
        raise EncoderError(f"encoder folder {folder} has no weights (model.safetensors)")
    if not trusted:
        raise EncoderError(
            f"encoder {name!r} has only pickled weights (.bin), which can execute code when "
            "loaded; if you trust it, add --set run.bin_weights=true"
        )


def _identify(folder: Path, patterns: Sequence[str]) -> str:
    """Return the hash of the names and contents of the files that match some patterns."""
    files = sorted({path for glob in patterns for path in folder.glob(glob)})
    facts = [(path, path.stat()) for path in files]
    return fingerprint({p.name: _hash_once(p, s.st_size, s.st_mtime_ns) for p, s in facts})


@cache
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once per process: several variants share an encoder of gigabytes."""
    del size, mtime_ns
    return sha256_of(path)


def _resolve_hub(variant: Variant) -> EncoderSource:
    """Download an encoder, or use the cached copy; its identity is the hash of the loaded files.

    So editing a model card on the hub keeps results valid, and so does using a local copy.
    """
    pickled = [PICKLED_WEIGHTS] if variant.run.bin_weights else []
    folder = _download(variant.encoder, [*HUB_FILES, *pickled])
    _check_weights(variant, folder, is_whole=False)
    loads_pickled = not any(folder.glob(SAFE_WEIGHTS))
    identity = _identify(folder, [*HUB_FILES, *(pickled if loads_pickled else [])])
    return EncoderSource(variant.encoder, folder, identity, has_weights=True)


def _download(encoder: str, patterns: Sequence[str]) -> Path:
    """Download an encoder from the hub, ``NAME`` or ``NAME@REVISION``; return its folder."""
    from huggingface_hub import snapshot_download

    name, at, revision = encoder.partition("@")
    if at and not REVISION.fullmatch(revision):
        raise EncoderError(f"encoder {encoder!r}: after @, use a commit, a tag or a branch")
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # the client of the hub raises many kinds of exceptions
        raise EncoderError(_explain_download(encoder, error)) from None
    return Path(folder)


def _explain_download(encoder: str, error: Exception) -> str:
    """Return a one-line message: why an encoder was not downloaded, and what to do."""
    from huggingface_hub import errors

    kind = type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return (
            f"encoder {encoder!r} is gated: accept its conditions on its page of the hub, then log "
            "in here with that account: hf auth login (or set HF_TOKEN to one of its tokens)"
        )
    absent = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
        errors.LocalEntryNotFoundError,
    )
    if isinstance(error, absent) and not isinstance(error, errors.IncompleteSnapshotError):
        return (
            f"encoder {encoder!r} is neither a folder nor reachable on the hub "
            f"({kind}); use --encoder FOLDER with a downloaded copy, the bundled --encoder "
            f"{' or '.join(list_bundled())}, or --encoder {SCRATCH}"
        )
    known = _explain_disk(error)
    if known is not None:
        return f"encoder {encoder!r} was not downloaded: {known}; or set HF_HOME to another folder"
    reason = next(iter(str(error).strip().splitlines()), "")
    return (
        f"the download of encoder {encoder!r} was interrupted ({kind}: {reason}); run the same "
        "command again to resume it"
    )


def _explain_disk(error: BaseException | None) -> str | None:
    """Return a message if a disk error caused an exception, else None."""
    while error is not None:
        known = explain_os_error(error) if isinstance(error, OSError) else None
        if known is None and os.strerror(errno.ENOSPC) in str(error):
            known = f"{os.strerror(errno.ENOSPC)}; free some space, then run the same command again"
        if known is not None:
            return known
        error = error.__cause__ or error.__context__
    return None
