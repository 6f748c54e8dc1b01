from __future__ import annotations

import errno
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

try:
    import httpx2 as client  # of huggingface_hub from 2.0 on
except ModuleNotFoundError:
    import httpx as client  # type: ignore[no-redef]
import pytest
import torch
from huggingface_hub import errors

from competition.errors import EncoderError
from models.network.encoder_source import (
    PRETRAINING_FILE,
    EncoderSource,
    locate_folder,
    recommended_settings,
    resolve_encoder,
)
from models.pretraining.exposure import read_exposure
from models.variant import resolve_variant
from tests.models.conftest import make_encoder

HUB_NAME = "somebody/encoder"


class Hub:
    """A fake hub with one encoder, with the files in ``content``."""

    def __init__(self, content: Path, cache: Path) -> None:
        self.content, self.cache = content, cache
        self.commit = "0" * 40
        self.asked: list[tuple[str, str | None]] = []

    def download(
        self, name: str, *, revision: str | None, allow_patterns: list[str], **options: Any
    ) -> str:
        self.asked.append((name, revision))
        folder = self.cache / self.commit
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.content.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, folder)
        return str(folder)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    return make_encoder("bert", tmp_path / "content")


@pytest.fixture
def hub(content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(content, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.download)
    return hub


def settle(encoder: str, *, bin_weights: bool = False) -> EncoderSource:
    variant = resolve_variant(
        "typed-punct",
        encoder="none",
        encoder_override=encoder,
        overrides=(("run.bin_weights", bin_weights),),
    )
    return resolve_encoder(variant, sentences=(), cache_dir=Path("unused"))


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def test_a_hub_encoder_is_identified_by_its_loaded_files(hub: Hub, content: Path) -> None:
    first = settle(HUB_NAME)
    hub.commit = "1" * 40
    (content / "README.md").write_text("a new card")
    (content / "pytorch_model.bin").write_bytes(b"not loaded, as there are safetensors")
    edited = settle(HUB_NAME)
    assert edited.path != first.path
    assert edited.identity == first.identity == settle(HUB_NAME, bin_weights=True).identity
    hub.commit = "2" * 40
    (content / "config.json").write_text((content / "config.json").read_text() + "\n")
    assert settle(HUB_NAME).identity != first.identity


def test_a_copy_of_a_downloaded_encoder_has_the_same_identity(hub: Hub) -> None:
    there = settle(HUB_NAME)
    assert settle(str(there.path)).identity == there.identity


def test_a_revision_can_be_named(hub: Hub) -> None:
    assert settle(f"{HUB_NAME}@v1.0").name == f"{HUB_NAME}@v1.0"
    settle(HUB_NAME)
    assert hub.asked == [(HUB_NAME, "v1.0"), (HUB_NAME, None)]
    for revision in ("", "refs/pr/1", "-x"):
        with pytest.raises(EncoderError, match="a commit, a tag or a branch"):
            settle(f"{HUB_NAME}@{revision}")
    named = resolve_variant("typed-punct", encoder="none", encoder_override=f"{HUB_NAME}@v1.0")
    assert named.name == "typed-punct@encoder@v1.0"


def test_pickled_weights_are_loaded_only_if_trusted(hub: Hub, content: Path) -> None:
    pickle_weights(content)
    for name in (HUB_NAME, str(content)):
        with pytest.raises(EncoderError, match=r"only pickled .*--set run\.bin_weights=true"):
            settle(name)
    from_hub, from_folder = (settle(n, bin_weights=True) for n in (HUB_NAME, str(content)))
    assert from_hub.identity == from_folder.identity
    hub.commit = "1" * 40
    (content / "pytorch_model.bin").write_bytes(b"other weights")
    assert settle(HUB_NAME, bin_weights=True).identity != from_hub.identity
    hub.commit = "2" * 40
    (content / "pytorch_model.bin").unlink()
    with pytest.raises(EncoderError, match="has no weights"):
        settle(HUB_NAME, bin_weights=True)


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def refused(kind: type[errors.HfHubHTTPError]) -> Exception:
    request = client.Request("GET", "http://localhost/encoder")
    return kind("no access", response=client.Response(403, request=request))


FULL = os.strerror(errno.ENOSPC)
RESUME = "run the same command again to resume it"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (client.RemoteProtocolError("peer closed connection\nlater"), f"peer closed.*{RESUME}"),
        (client.ReadTimeout("timed out"), rf"was interrupted \(ReadTimeout: timed out\); {RESUME}"),
        (RuntimeError("Data processing error: CAS service error"), RESUME),
        (errors.IncompleteSnapshotError("3 files are missing", snapshot_path="x"), RESUME),
        (errors.LocalEntryNotFoundError("none"), "neither a folder nor reachable .*ko-mini"),
        (refused(errors.GatedRepoError), "is gated: accept its conditions .* hf auth login"),
        (refused(errors.RepositoryNotFoundError), "neither a folder nor reachable"),
        (errors.HFValidationError("no name"), "neither a folder nor reachable"),
        (OSError(errno.ENOSPC, FULL, "/cache/blob"), f"(?=.*/cache/blob).*{FULL}.*HF_HOME"),
        (RuntimeError(f"IO Error: {FULL} (os error 28)"), f"not downloaded: {FULL};.*HF_HOME"),
        (chained(RuntimeError("x"), OSError(errno.ENOSPC, FULL)), f"not downloaded: {FULL}"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/cache"),
            "(?=.*/cache).*Permission denied",
        ),
    ],
)
def test_a_failed_download_gives_a_one_line_message(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*arguments: Any, **options: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(EncoderError, match=said) as caught:
        settle(HUB_NAME)
    assert "\n" not in str(caught.value)


def test_an_interrupted_download_is_not_reported_as_a_wrong_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*arguments: Any, **options: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(KeyboardInterrupt):
        settle(HUB_NAME)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"size": 5}', '{"from": ["ko-mini"]}', '{"exposure": {"x": 1}}', "[" * 99_999],
)
def test_damaged_facts_of_pretraining_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / PRETRAINING_FILE).write_text(text, "utf-8")
    for read in (read_exposure, lambda folder: recommended_settings(str(folder))):
        with pytest.raises(EncoderError, match=r"pretraining\.json is damaged"):
            read(tmp_path)


def test_a_local_folder_is_located_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "ko-mini").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_folder("enc") == str(tmp_path / "enc")
    assert [locate_folder(name) for name in ("ko-mini", "gone", "scratch", "a/b")] == [None] * 4
