"""file_kind: the format of a file, whatever its name; unusable files get a one-line message."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from competition import file_kind as room
from competition.data.corpus import read_corpus
from competition.errors import CorpusError, FoldsError, ProfileError
from competition.file_kind import WrongFileError, open_utf8, read_text, recognise
from competition.folds.kfold import read_fold_file
from competition.profile import Competition, read_profile

TEXT = "id,sentence,문장\n1,가나다 라마,a\n2,한글,b\n"


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


READABLE = {
    "plain": (TEXT.encode(), ()),
    "mark": (b"\xef\xbb\xbf" + TEXT.encode(), ("byte order mark",)),
    "utf-16 with a mark": (TEXT.encode("utf-16"), ("UTF-16",)),
    "utf-16 without": (TEXT.encode("utf-16-le"), ("UTF-16",)),
    "utf-16, the other end first": (TEXT.encode("utf-16-be"), ("UTF-16",)),
    "utf-32": (TEXT.encode("utf-32"), ("UTF-32",)),
    "cp949": (TEXT.encode("cp949"), ("CP949",)),
    "gzip": (gzip.compress(TEXT.encode()), ("gzip",)),
    "bzip2": (bz2.compress(TEXT.encode()), ("bzip2",)),
    "xz": (lzma.compress(TEXT.encode()), ("xz",)),
    "zstd": (zstd(TEXT.encode()), ("zstd",)),
    "cp949 in gzip": (gzip.compress(TEXT.encode("cp949")), ("gzip", "CP949")),
}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 13349218\n"
FOREIGN = {
    "lfs": (LFS, "a Git LFS pointer of 13,349,218 bytes, not the file itself; run: git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s9--x.csv\n", "git-annex"),
    "page": (b"\n<!DOCTYPE html>\n<html><title>Sign in</title>", "a web page (HTML)"),
    "page with a mark": (b"\xef\xbb\xbf<html lang=ko>", "a web page (HTML)"),
    "zip": (zipped(**{"train.csv": TEXT}), "a ZIP archive with 'train.csv'; unpack it"),
    "excel": (zipped(xl__workbook="x"), "an Excel workbook (.xlsx)"),
    "old excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old Excel"),
    "pickle": (b"\x80\x04\x95", "a Python pickle"),
    "numpy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    "pdf": (b"%PDF-1.7\n", "a PDF"),
    "half a gzip": (gzip.compress(TEXT.encode() * 99)[:-20], "compressed (gzip) and damaged"),
    "half a zip": (zipped(**{"a.csv": TEXT})[:40], "a ZIP archive that is damaged"),
}


@pytest.mark.parametrize("case", READABLE)
def test_a_text_is_read_whatever_it_was_written_as(tmp_path: Path, case: str) -> None:
    content, odd = READABLE[case]
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    stream, kind = open_utf8(path)
    with stream:
        assert stream.read().decode() == TEXT
    assert read_text(path) == TEXT
    assert len(kind.oddities) == len(odd)
    for told, (found, _) in zip(odd, kind.oddities, strict=True):
        assert told in found


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_text_is_named_with_what_to_do(tmp_path: Path, case: str) -> None:
    content, told = FOREIGN[case]
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(WrongFileError) as caught:
        recognise(path)
    assert told in str(caught.value)
    assert caught.value.remedy


def test_what_a_few_bytes_make_huge_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MIN_BOUND_BYTES", 1 << 20)
    for name, pack in (("a.gz", gzip.compress), ("a.xz", lzma.compress), ("a.bz2", bz2.compress)):
        path = tmp_path / name
        path.write_bytes(pack(b"0" * (3 << 20)))
        with pytest.raises(WrongFileError, match="that becomes more than"):
            recognise(path)
        path.write_bytes(pack(b"0" * (1 << 20)))
        assert recognise(path).compression is not None
    marked = tmp_path / "b.gz"  # nothing is read to recognise it
    marked.write_bytes(gzip.compress(b"\xff\xfe" + b"0\0" * (3 << 19)))
    with pytest.raises(WrongFileError, match="that becomes more than"):
        open_utf8(marked)
    with pytest.raises(WrongFileError, match="that says to hold 9,000,000 rows"):
        room.check_row_count(marked, 9_000_000)
    room.check_row_count(marked, 1_000_000)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b'[\n  {"id": 1}]', "json"),
        (b'{"data": [\n{"id": 1}]}', "json"),
        (b'{"id": 1}\n{"id": 2}\n', "json-lines"),
        (b'{"id": 1}\n', "json"),
        (b"[files]\nname = 1\n", "text"),
        (b"[[part]]\n", "text"),
        (b"{brackets} in a corpus\n", "text"),
    ],
)
def test_json_is_distinguished_from_json_lines_and_from_text(
    tmp_path: Path, content: bytes, form: str
) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    assert recognise(path).form == form


def test_a_name_decides_only_what_the_content_cannot(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id": 1}\n')
    assert recognise(path).form == "json-lines"
    pq.write_table(pa.table({"id": [1]}), path)
    assert recognise(path).form == "parquet"


def test_a_few_odd_lines_make_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    lines = [f"{i},가나다라" for i in range(9)]
    path.write_bytes("\n".join(lines).encode() + "\n9,가나다라\n".encode("cp949"))
    assert recognise(path).encoding == "utf-8"
    path.write_bytes("naïve café, déjà vu\n".encode("latin-1") * 9)
    assert recognise(path).encoding == "utf-8"


@pytest.mark.parametrize("case", FOREIGN)
def test_every_reader_says_it_once(tiny_competition: Competition, case: str) -> None:
    content, told = FOREIGN[case]
    tiny_competition.train_path.write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        read_corpus(tiny_competition)
    (offence,) = caught.value.offences
    assert told in f"{offence.found}; {offence.remedy}"
    path = tiny_competition.home / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ProfileError) as refused:
        read_profile(path)
    assert told in str(refused.value)
    with pytest.raises(FoldsError) as kept:
        read_fold_file(path, np.array(["0", "1"], dtype=object))
    assert told in str(kept.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp949"])
def test_a_profile_is_read_whatever_an_editor_made_of_it(
    tiny_competition: Competition, encoding: str
) -> None:
    path = tiny_competition.home / "tiny.toml"
    text = path.read_text("utf-8").replace("a tiny competition", "작은 대회")
    path.write_bytes(text.encode(encoding))
    assert read_profile(path).title == "작은 대회"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp949"])
def test_rows_are_read_whatever_the_encoding_and_it_is_said(
    tiny_competition: Competition, encoding: str
) -> None:
    before = read_corpus(tiny_competition)
    path = tiny_competition.train_path
    path.write_bytes(path.read_text("utf-8").encode(encoding))
    after = read_corpus(tiny_competition)
    assert after.hash == before.hash
    (notice,) = after.notices
    assert notice.file == "train.csv"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "pipe"])
def test_a_device_is_not_read(device: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(WrongFileError, match="device or a pipe"):
        recognise(path if device == "pipe" else Path(device))


def test_a_profile_in_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('{"name": "x"}', "utf-8")
    with pytest.raises(ProfileError, match="the file is JSON, not TOML"):
        read_profile(tmp_path / "p.toml")
