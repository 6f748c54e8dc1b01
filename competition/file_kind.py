"""Detect the format of a file from its bytes, for every reader of a user's files.

A file's name says little: ``train.csv`` may be a Git LFS pointer, a web page saved by mistake, an
Excel workbook, or CP949 as Excel writes it in Korea. ``open_utf8`` gives a stream of UTF-8 bytes
whatever the encoding or compression was, and says what it undid; what is no text is refused by
name, with what to do.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

START_BYTES = 4096
_CHUNK_BYTES = 1 << 20
MAX_INFLATION, MIN_BOUND_BYTES = 500, 256 << 20  # of what is unpacked; text shrinks 3 to 50 times
MAX_ROWS_PER_BYTE, MIN_BOUND_ROWS = 16, 1_000_000  # of Parquet; each row has an id of its own
_NULS = 0.25  # of one half of the bytes: the header of a table in UTF-16 is mostly ASCII
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/")
_LFS_SIZE = re.compile(rb"^size (\d+)", re.MULTILINE)
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)[\s>]", re.I | re.S)
_JSON_LIST = re.compile(rb"\s*\[\s*\{")
_JSON_OBJECT = re.compile(rb'\s*\{\s*("|\})')
_JSON_LINE = re.compile(rb'\s*\{\s*".*\}\s*$')

Form = Literal["text", "json", "json-lines", "parquet"]
Compression = Literal["gzip", "bzip2", "xz", "zstd"]


class WrongFileError(Exception):
    """A file of an unexpected kind; the reader turns it into its own error."""

    def __init__(self, found: str, remedy: str) -> None:
        """Store what was found and what to do."""
        super().__init__(f"{found}; {remedy}")
        self.found = found
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a readable file is: its form, the encoding of a text, and how it is compressed.

    ``is_clean``: all of it is UTF-8, and it holds no NUL and no carriage return.
    """

    form: Form
    encoding: str = "utf-8"
    has_mark: bool = False  # a byte order mark
    compression: Compression | None = None
    is_clean: bool = False

    @property
    def oddities(self) -> tuple[tuple[str, str], ...]:
        """Return (found, done) for every irregularity that ``open_utf8`` handles."""
        odd = []
        if self.compression is not None:
            odd.append((f"is compressed ({self.compression})", "it was unpacked while reading"))
        if self.encoding != "utf-8":
            name = _ENCODING_NAMES.get(self.encoding, self.encoding.upper())
            odd.append((f"the file is {name}, not UTF-8", "it was decoded while reading"))
        elif self.has_mark:
            odd.append(("begins with a byte order mark", "it was left out"))
        return tuple(odd)


_ENCODING_NAMES = {
    "cp949": "CP949 (as Excel saves CSV in Korea)",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32": "UTF-32",
}
_NPY = b"\x93NUMPY"
_PLAIN = "give the file itself, as UTF-8 text"
_SAVE = "save the table as CSV (UTF-8) and name that file"
_PICKLE = "save the table as CSV or Parquet; pickles are never opened"
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file", _SAVE),
    (b"%PDF-", "a PDF document", _PLAIN),
    (_NPY, "a NumPy array (.npy)", _PLAIN),
    (b"\x89PNG", "a picture (PNG)", _PLAIN),
    (b"SQLite format 3\0", "an SQLite database", "export its table as CSV (UTF-8)"),
    (b"ARROW1", "an Arrow (Feather) file", "save the table as Parquet or CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name the file inside"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it and name the file inside"),
    (b"/annex/objects/", "a git-annex pointer, not the file", "run: git annex get FILE"),
    *((bytes((0x80, version)), "a Python pickle", _PICKLE) for version in (2, 3, 4, 5)),
)
_COMPRESSED: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh91AY", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)


def find_array_form(path: Path) -> Literal["npy", "npz"] | None:
    """Return which file of NumPy arrays this is, for the readers that take arrays; else None."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        start = stream.read(len(_NPY))
    if start == _NPY:
        return "npy"
    is_npz = path.suffix.lower() == ".npz" and zipfile.is_zipfile(path)
    return "npz" if is_npz else None


def recognise(path: Path) -> FileKind:
    """Detect the kind of a file.

    Raises:
        WrongFileError: it is nothing that any reader takes: an archive, a web page, a Git LFS
            pointer and the like, or it is damaged.
        OSError: it cannot be opened.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise WrongFileError("it is a device or a pipe", "save it as a file and name that")
    with path.open("rb") as stream:
        start = stream.read(START_BYTES)
    compression = next((name for magic, name in _COMPRESSED if start.startswith(magic)), None)
    if compression is None:
        if path.suffix.lower() in _PACKED_SUFFIXES:
            found = f"the name ends in {path.suffix} and the file is not compressed"
            raise WrongFileError(found, "copy it again, or give it its right name")
        return _recognise_plain(start, path, lambda: path.open("rb"))
    with _name_damage(path, compression):
        with _unpack(path, compression) as stream:
            start = stream.read(START_BYTES)
        kind = _recognise_plain(start, path, lambda: _unpack(path, compression))  # reads it all
    if kind.form == "parquet":
        raise WrongFileError(f"a Parquet file inside {compression}", "unpack it and name that file")
    return replace(kind, compression=compression)


def open_utf8(path: Path, kind: FileKind | None = None) -> tuple[BinaryIO, FileKind]:
    """Open a text, JSON or JSON Lines file as UTF-8 bytes without a byte order mark.

    What was recognised before is not looked at again. What is UTF-8 already is not held in memory;
    bytes that are no UTF-8 pass, for the reader to name them line by line.

    Raises:
        WrongFileError, OSError: as ``recognise``; a Parquet file too is no text.
    """
    kind = kind or recognise(path)
    if kind.form == "parquet":
        raise WrongFileError("the file is Parquet, not text", "save it as CSV (UTF-8)")
    stream = path.open("rb") if kind.compression is None else _unpack(path, kind.compression)
    if kind.encoding == "utf-8":
        if kind.has_mark:
            stream.read(len(codecs.BOM_UTF8))
        return stream, kind
    with stream:
        content = stream.read()
    try:
        text = content.decode(kind.encoding)
    except UnicodeDecodeError as error:
        name = _ENCODING_NAMES[kind.encoding]
        raise WrongFileError(
            f"the file begins as {name} and is damaged at byte {error.start + 1:,}",
            "save it again as UTF-8",
        ) from None
    return io.BytesIO(text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")), kind


def read_toml_text(path: Path) -> str:
    """Read the text of a TOML file, whatever its encoding.

    Raises:
        WrongFileError: as ``read_text``, or it is JSON.
        OSError: it cannot be opened.
    """
    form = recognise(path).form
    if form in ("json", "json-lines"):
        raise WrongFileError("the file is JSON, not TOML", "write key = value lines")
    return read_text(path)


def read_text(path: Path) -> str:
    """Read a text file that is small, whatever its encoding.

    Raises:
        WrongFileError: it is no text, or its bytes are no UTF-8.
        OSError: it cannot be opened.
    """
    stream, _ = open_utf8(path)
    with stream:
        content = stream.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{content[error.start]:02x} at byte {error.start + 1:,} is not UTF-8"
        raise WrongFileError(found, "save the file as UTF-8") from None


def _recognise_plain(start: bytes, path: Path, opener: Callable[[], BinaryIO]) -> FileKind:
    _refuse_foreign(start, path)
    if start.startswith(b"PAR1"):
        return FileKind("parquet")
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    has_mark = encoding is not None
    is_clean = False
    if encoding is None:
        encoding = _guess_utf16(start)
    if encoding is None:
        encoding, is_clean = _find_encoding(opener)
    text = start
    if encoding != "utf-8":
        text = start[: len(start) // 4 * 4].decode(encoding, "replace").encode("utf-8", "replace")
    text = text.removeprefix(codecs.BOM_UTF8)
    if _HTML.match(text):
        found = "a web page (HTML), not data"
        raise WrongFileError(found, "download the file itself; you may have to log in there first")
    return FileKind(_find_form(text, path), encoding, has_mark, is_clean=is_clean)


def _refuse_foreign(start: bytes, path: Path) -> None:
    if _LFS.match(start):
        size = _LFS_SIZE.search(start)
        of = f" of {int(size[1]):,} bytes" if size else ""
        found = f"a Git LFS pointer{of}, not the file itself"
        raise WrongFileError(found, "run: git lfs pull")
    if start.startswith(b"PK\x03\x04") or start.startswith(b"PK\x05\x06"):
        _refuse_zip(path)
    if start[257:262] == b"ustar":
        raise WrongFileError("a tar archive", "unpack it and name the file inside")
    for magic, found, remedy in _FOREIGN:
        if start.startswith(magic):
            raise WrongFileError(found, remedy)


def _refuse_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError):
        raise WrongFileError("a ZIP archive that is damaged", "download it again") from None
    if any(name.startswith("xl/") for name in names):
        raise WrongFileError("an Excel workbook (.xlsx)", _SAVE)
    shown = ", ".join(repr(name[:60]) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise WrongFileError(
        f"a ZIP archive with {shown or 'nothing'}{more}", "unpack it and name the file inside"
    )


def _find_form(start: bytes, path: Path) -> Form:
    """Distinguish JSON, JSON Lines and other text by the first lines, not by the name."""
    if _JSON_LIST.match(start):
        return "json"
    if not _JSON_OBJECT.match(start):
        return "text"
    first, _, rest = start.lstrip().partition(b"\n")
    is_named = any(suffix in {".jsonl", ".ndjson"} for suffix in map(str.lower, path.suffixes))
    if _JSON_LINE.match(first) and (is_named or rest.lstrip().startswith(b"{")):
        return "json-lines"
    is_one_long_line = not rest and len(start) >= START_BYTES - 8
    return "json-lines" if is_named and is_one_long_line else "json"


def _guess_utf16(start: bytes) -> str | None:
    """Recognise UTF-16 without a mark: every other byte of an ASCII header is NUL."""
    even, odd = start[0:200:2], start[1:200:2]
    if len(odd) < 4 or 0 not in start:
        return None
    low, high = even.count(0), odd.count(0)
    if high > _NULS * len(odd) and low < high / 4:
        return "utf-16-le"
    if low > _NULS * len(even) and high < low / 4:
        return "utf-16-be"
    return None


def _find_encoding(opener: Callable[[], BinaryIO]) -> tuple[str, bool]:
    """Return the encoding, and whether the file is clean (see ``FileKind``).

    It is CP949 when the whole file can be and most of its lines that are not ASCII are not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_clean = True
    try:
        with opener() as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                is_clean = is_clean and b"\r" not in chunk and b"\0" not in chunk
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return ("cp949" if _is_cp949(opener) else "utf-8"), False
    return "utf-8", is_clean


def _is_cp949(opener: Callable[[], BinaryIO]) -> bool:
    is_utf8 = is_other = 0
    with opener() as stream:
        for line in stream:
            if line.isascii():
                continue
            try:
                line.decode("cp949")
            except UnicodeDecodeError:
                return False
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                is_other += 1
            else:
                is_utf8 += 1
    return is_other > is_utf8 and _has_hangul(opener)


def _has_hangul(opener: Callable[[], BinaryIO]) -> bool:
    """Return whether most non-ASCII characters are Hangul or Han, as in a correct decoding."""
    with opener() as stream:
        text = stream.read(_CHUNK_BYTES).decode("cp949", "replace")
    beyond = [char for char in text if not char.isascii()]
    korean = sum(
        "가" <= char <= "힣" or "一" <= char <= "鿿" or char in "·‘’“”《》「」" for char in beyond
    )
    return bool(beyond) and korean > 0.6 * len(beyond)


def check_row_count(path: Path, n_rows: int) -> None:
    """Refuse a Parquet file that a few bytes make larger than any memory.

    Raises:
        WrongFileError: it says to hold more rows than it can have written.
    """
    if n_rows > MIN_BOUND_ROWS and n_rows > MAX_ROWS_PER_BYTE * path.stat().st_size:
        raise WrongFileError(
            f"a Parquet file of {path.stat().st_size:,} bytes that says to hold {n_rows:,} rows",
            "do not open it; ask who sent it",
        )


class _Bounded(io.RawIOBase):
    """What unpacking gives, up to a bound."""

    def __init__(self, packed: Any, path: Path) -> None:
        self._packed, self._size, self._read = packed, path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._packed.readinto(buffer)
        self._read += count
        if self._read > max(MIN_BOUND_BYTES, MAX_INFLATION * self._size):
            raise WrongFileError(
                f"a compressed file of {self._size:,} bytes that becomes more than"
                f" {self._read:,} bytes",
                "unpack it yourself and name that file, if you know who made it",
            )
        return count

    def close(self) -> None:
        self._packed.close()
        super().close()


def _unpack(path: Path, compression: Compression) -> BinaryIO:
    return io.BufferedReader(_Bounded(_open_packed(path, compression), path), _CHUNK_BYTES)


def _open_packed(path: Path, compression: Compression) -> Any:
    match compression:
        case "gzip":
            return gzip.open(path)
        case "bzip2":
            return bz2.open(path)
        case "xz":
            return lzma.open(path)
        case "zstd":
            import pyarrow as pa

            return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


def pack_as_named(path: Path, data: bytes) -> bytes:
    """Compress the content of a file if its name says that it is compressed."""
    match path.suffix.lower():
        case ".gz":
            return gzip.compress(data, mtime=0)
        case ".bz2":
            return bz2.compress(data)
        case ".xz":
            return lzma.compress(data)
        case ".zst":
            import pyarrow as pa

            sink = pa.BufferOutputStream()
            with pa.CompressedOutputStream(sink, "zstd") as stream:
                stream.write(data)
            return bytes(sink.getvalue())
    return data


@contextmanager
def _name_damage(path: Path, compression: Compression) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        found = f"compressed ({compression}) and damaged: {error}"
        raise WrongFileError(found, f"copy {path.name} again") from None
