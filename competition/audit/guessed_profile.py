"""``run.py init``: guess a commented profile from the files of a competition.

Last step after ``peek`` and ``guess``. What is written is read back and the rows are read by it, so
that a person sees how many of them the guess fits.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from competition.audit.findings import Findings
from competition.audit.guess import guess_all
from competition.audit.peek import SUFFIXES, Peek, join_peeks, peek
from competition.console import Column, Table
from competition.data.corpus import read_rows
from competition.errors import UsageError
from competition.files import write_atomically
from competition.profile import NAME_CHARS, Profile, list_profiles, read_profile

PACKED = (".gz", ".bz2", ".xz", ".zst")
KINDS = (
    ("sample", re.compile(r"sample|submission", re.I)),
    ("solution", re.compile(r"solution|answer|gold", re.I)),
    ("train", re.compile(r"train", re.I)),
    ("test", re.compile(r"test", re.I)),
    ("beside", re.compile(r"dev|valid", re.I)),
)
MAX_SHARED = 0.1  # of a file's rows in another one: more, and it is a part of it
PARTS = ("word", "start", "end", "type", "open", "close")


@dataclass(frozen=True)
class Found:
    """The files of a competition by their role."""

    train: Path
    test: Path
    more_train: tuple[Path, ...] = ()
    sample: Path | None = None
    solution: Path | None = None
    left_out: tuple[Path, ...] = ()


def run_init(paths: Sequence[Path], out: Path | None, *, overwrite: bool = False) -> list[Table]:
    """Guess a profile, write it, and report the guesses.

    Args:
        paths: a folder, or the files themselves.
        out: where the profile goes; None: ``<folder>.toml`` where the command runs.

    Raises:
        UsageError: there are no such files, or what they hold is not recognised.
    """
    files = find_files(paths)
    test = peek(files.test)
    files, train = _peek_train(files)
    sample = None if files.sample is None else peek(files.sample)
    found = guess_all(train, test, sample)
    _check_whole(found, train)
    name = re.sub(r"[^a-z0-9._-]+", "-", files.train.absolute().parent.name.lower())
    name = name[:NAME_CHARS].strip("-._")
    name = f"{name}-own" if name in list_profiles() else name or "competition"
    target = out or Path(f"{name}.toml")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already; name another with --out, or say --overwrite")
    write_atomically(target, write_profile(name, files, (train, test), found))
    return build_init_tables(target, files, found)


def _peek_train(files: Found) -> tuple[Found, Peek]:
    """Read the train files; one with other columns, or with rows of an earlier one, is left out."""
    first = peek(files.train)
    fits, left_out, rows = [first], list(files.left_out), _list_rows(first)
    for path in files.more_train:
        other = peek(path)
        own = _list_rows(other) if [*other.columns] == [*first.columns] else set()
        if not own or len(own & rows) > MAX_SHARED * len(own):
            left_out.append(path)
        else:
            fits.append(other)
            rows |= own
    more = tuple(each.path for each in fits[1:])
    return replace(files, more_train=more, left_out=tuple(left_out)), join_peeks(fits)


def _list_rows(peeked: Peek) -> set[tuple[str, ...]]:
    return set(zip(*(map(str, values) for values in peeked.columns.values()), strict=True))


def find_files(paths: Sequence[Path]) -> Found:
    """Assign roles to files by their names.

    Raises:
        UsageError: no train or test file can be recognised.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(each for each in path.rglob("*") if each.is_file() and _is_table(each))
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder")
    by_kind: dict[str, list[Path]] = {kind: [] for kind, _ in KINDS}
    left_out = []
    for path in files:
        kind = next((kind for kind, pattern in KINDS if pattern.search(path.name)), None)
        if kind is None:
            left_out.append(path)
        else:
            by_kind[kind].append(path)
    by_kind["test"].sort(key=lambda path: len(path.name))  # before predictions, test-NAME.csv
    if not by_kind["test"] and by_kind["beside"]:
        by_kind["test"] = by_kind.pop("beside")
    if len(files) == 2 and not (by_kind["train"] and by_kind["test"]):
        by_kind["train"], by_kind["test"], left_out = [files[0]], [files[1]], []
    for kind in ("train", "test"):
        if not by_kind[kind]:
            names = ", ".join(path.name for path in files[:10]) or "nothing"
            raise UsageError(
                f"no {kind} file among {names}; name the train and the test file in this order: "
                "python run.py init TRAIN TEST"
            )
    firsts = {kind: paths[0] for kind, paths in by_kind.items() if paths}
    more = [path for kind, paths in by_kind.items() if kind != "train" for path in paths[1:]]
    beside = [firsts["beside"]] if "beside" in firsts else []
    return Found(
        firsts["train"],
        firsts["test"],
        tuple(by_kind["train"][1:]),
        firsts.get("sample"),
        firsts.get("solution"),
        (*more, *beside, *left_out),
    )


def _is_table(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    hidden = any(part.startswith(".") for part in path.parts[-2:])
    return bool(suffixes) and suffixes[-1] in SUFFIXES and not hidden


def _check_whole(found: Findings, train: Peek) -> None:
    missing = [what for what in ("sentence", "label") if what not in found.columns]
    missing += [] if found.entity else ["subject and object"]
    if missing:
        raise UsageError(
            f"{train.path.name}: {' and '.join(missing)} cannot be guessed from its columns "
            f"({', '.join(train.columns)}). Copy competition/profiles/klue-re.toml, which explains "
            "every key, and say there what each column is"
        )


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_profile(name: str, files: Found, peeked: tuple[Peek, Peek], found: Findings) -> str:
    """Write the profile with comments on the confidence of each guess."""
    notes = {guess.what: f" # {guess.sure}: {guess.why}" for guess in found.guesses}
    lines = [
        f"# Guessed by `python run.py init` from {files.train.name} and {files.test.name}; look at",
        "# every line that is not sure. competition/profiles/klue-re.toml explains every key.",
        f"name = {_quote(name)}",
        f"title = {_quote(name)}",
        "",
        f"#{notes.get('labels', '').removeprefix(' #')}",
        "labels = [",
        *(f"    {_quote(label)}," for label in found.labels),
        "]",
    ]
    if found.negative is not None:
        lines.append(f"negative_label = {_quote(found.negative)}{notes['negative_label']}")
    if found.types:
        lines.append(f"entity_types = {_quote(found.types)}{notes['entity_types']}")
    if found.unknown is not None:
        lines.append(f"unknown_label = {_quote(found.unknown)}{notes['unknown_label']}")
    shown = files if found.has_whole_sample else replace(files, sample=None)
    lines += ["", "[files]", *_write_files(shown, peeked)]
    lines += ["", "[columns]"]
    if "id" not in found.columns:
        lines.append(f"# no id: rows are numbered from 0{notes.get('columns.id', '')}")
    lines += [
        f"{key} = {_quote(column)}{notes.get(f'columns.{key}', '')}"
        for key, column in found.columns.items()
    ]
    lines += ["", "[entity]", *_write_entity(found, notes)]
    lines += ["", "[language]", f"name = {_quote('korean' if found.is_korean else 'english')}"]
    lines += ["", *_write_rest(found)]
    return "\n".join(lines) + "\n"


def _write_files(files: Found, peeked: tuple[Peek, Peek]) -> list[str]:
    folder = files.train.absolute().parent
    lines = [f"directory = {_quote(str(folder))}"]
    for key, path in (
        ("train", files.train),
        ("test", files.test),
        ("solution", files.solution),
        ("sample_submission", files.sample),
    ):
        if path is not None:
            lines.append(f"{key} = {_quote(_name_near(path, folder))}")
        if key == "train" and files.more_train:
            more = [_name_near(each, folder) for each in files.more_train]
            lines.append(f"more_train = {_quote(more)} # likely: their columns are the same")
    train, test = peeked
    if train.separator is not None:
        lines.append(f"separator = {_quote(train.separator)}")
    if {True, False} == {train.quoting, test.quoting}:
        lines.append("quotes = false # likely: in one file, they do not enclose fields")
    for key, peek_ in (("header", train), ("test_header", test)):
        if not peek_.has_header and peek_.columns:
            names = [name for name in peek_.columns if re.fullmatch(r"c\d+", name)]
            lines.append(f"{key} = {_quote(names)} # no line names the columns")
    return lines


def _name_near(path: Path, folder: Path) -> str:
    """Return a path relative to a folder if it lies there, else the whole path."""
    within = path.absolute()
    return str(within.relative_to(folder) if within.is_relative_to(folder) else within)


def _write_entity(found: Findings, notes: dict[str, str]) -> list[str]:
    lines = []
    for key, value in found.entity.items():
        note = notes.get(f"entity.{key}", "")
        if isinstance(value, dict):
            parts = ", ".join(f"{part} = {_quote(value[part])}" for part in PARTS if part in value)
            lines.append(f"{key} = {{ {parts} }}{notes.get(key, '')}")
        elif value not in (False, "characters") or note:
            lines.append(f"{key} = {_quote(value)}{note}")
    return lines


def _write_rest(found: Findings) -> list[str]:
    lines = ["[folds]", "count = 5"]
    if found.submission:
        lines += ["", "[submission]"]
        lines += [f"{key} = {_quote(value)}" for key, value in found.submission.items()]
    has_probs = not found.submission or any("probs" in key for key in found.submission)
    primary = "micro-f1" if found.negative is not None else "accuracy"
    lines += [
        "",
        "[metrics] # look up what the leaderboard computes; docs/profiles.md has them all",
    ]
    lines.append(f"primary = {_quote(primary)} # a guess")
    if has_probs:
        lines.append('secondary = "auprc" # leave out if there is no second score')
    encoder = "ko-mini" if found.is_korean else "scratch"
    larger = "klue/roberta-large" if found.is_korean else "FacebookAI/roberta-large"
    return [
        *lines,
        "",
        "[defaults]",
        f"encoder = {_quote(encoder)} # to begin with, without a GPU; then {larger}",
        'variants = ["tfidf-linear", "typed-punct"]',
    ]


def build_init_tables(target: Path, files: Found, found: Findings) -> list[Table]:
    """Build the tables of guesses and of the number of rows that match."""
    profile = read_profile(target)
    columns = (
        Column("what", "What"),
        Column("value", "guess"),
        Column("sure", "how sure"),
        Column("why", "why"),
    )
    rows = [
        {
            "what": g.what,
            "value": "–" if g.value is None else str(g.value),
            "sure": g.sure,
            "why": g.why,
        }
        for g in found.guesses
    ]
    notes = [f"Written to {target}."]
    if files.left_out:
        names = ", ".join(path.name for path in files.left_out[:5])
        notes.append(f"Left out: {names}.")
    guessed = Table("guesses", "Guessed", columns, rows, notes)
    return [guessed, _count_rows(target, files, profile)]


def _count_rows(target: Path, files: Found, profile: Profile) -> Table:
    rows = []
    train = ((path, True) for path in (files.train, *files.more_train))
    for path, is_train in (*train, (files.test, False)):
        reading = read_rows(path, profile, is_train=is_train)
        first = str(reading.offences[0]) if reading.offences else "–"
        rows.append({"file": path.name, "rows": len(reading.rows), "first": first})
    columns = (
        Column("file", "File"),
        Column("rows", "rows read by it", "count"),
        Column("first", "first offence"),
    )
    is_clean = all(row["first"] == "–" for row in rows)
    after = "fold" if is_clean else "data"
    notes = [f"Next: python run.py {after} --competition {shlex.quote(str(target))}"]
    return Table("fit", "How it fits", columns, rows, notes)
