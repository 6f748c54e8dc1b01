"""Audit the data files, errors first: the entry point of ``run.py data``.

Reads like ``corpus`` but stops at nothing: files that cannot be trained on are reported with all
their offences. Writes nothing, so that looking never freezes folds.

Legend: N train rows, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from competition.audit.counts import (
    count_duplicates,
    count_positions,
    count_type_pairs,
    list_ambiguous_words,
    list_conflicts,
    list_odd_types,
    measure_lengths,
    measure_shift,
)
from competition.console import Column, Table, build_offences_table
from competition.data.corpus import (
    Corpus,
    Reading,
    build_corpus,
    compare_quoting,
    read_rows,
    read_train,
)
from competition.data.groups import Int32s, build_groups, build_keys
from competition.data.rows import Rows
from competition.errors import OFFENCES_SHOWN, HarnessError, Offence
from competition.folds.assignment import build_folds
from competition.folds.largest_group import check_largest_group
from competition.profile import Competition, Profile
from competition.profile_language import FIRST_LANGUAGE

KEY_NAMES = {"sentence": "sentence", "entity_pair": "pair of entities"}
MOSTLY = 0.5
LANGUAGE_ROWS = 1_000
FOLLOWING: tuple[str, ...] = ("Next: python run.py fold",)


@dataclass(frozen=True)
class Audit:
    """Result of an audit: the rows read, and whether they can be trained on.

    Attributes:
        corpus: all rows; None if there are offences.
        groups: (N,) groups of the train rows; None without a corpus.
        problem: why folds cannot be built, if so.
    """

    competition: Competition
    train: Reading
    test: Reading
    corpus: Corpus | None = None
    groups: Int32s | None = None
    problem: str | None = None

    @property
    def offences(self) -> tuple[Offence, ...]:
        """Return everything that must be corrected, train file first."""
        return (*self.train.offences, *self.test.offences)

    @property
    def ok(self) -> bool:
        """Return whether the data can be trained on."""
        return not self.offences and self.problem is None


def run_audit(competition: Competition) -> Audit:
    """Read and check both files, and try to build folds."""
    profile = competition.profile
    train = read_train(competition)
    test = read_rows(competition.test_path, profile, is_train=False)
    if train.offences or test.offences:
        return Audit(competition, train, test)
    try:
        corpus = build_corpus(competition, train, test)
    except HarnessError as error:
        return Audit(competition, train, test, problem=str(error))
    groups = build_groups(corpus.train, profile.folds.group_by)
    problem = _find_fold_problem(competition, corpus, groups)
    return Audit(competition, train, test, corpus, groups, problem)


def _find_fold_problem(competition: Competition, corpus: Corpus, groups: Int32s) -> str | None:
    """Return why folds cannot be built; a user's own and frozen folds are not checked here."""
    rules = competition.profile.folds
    if rules.file is not None or (competition.oof_dir / "folds.csv").exists():
        return None
    try:
        check_largest_group(corpus.train, groups, rules)
        build_folds(corpus.train.gold, groups, count=rules.count, seed=rules.seed)
    except HarnessError as error:
        return str(error)
    return None


def build_audit_tables(
    audit: Audit,
    beyond: Sequence[Table] = (),
    *,
    is_whole: bool = False,
    following: Sequence[str] = FOLLOWING,
) -> list[Table]:
    """Build the tables to print: what is wrong first, then what to know, and what comes next.

    Args:
        beyond: tables of what else is known of the data, shown before the next step.
        is_whole: list every offence, not the first of each file.
        following: what to do next, where the data can be trained on.
    """
    tables = [_build_files(audit)]
    if audit.offences:
        files = (audit.train.offences, audit.test.offences)
        tables.append(_build_offences(files, None if is_whole else OFFENCES_SHOWN))
    quoting = compare_quoting(audit.train, audit.test)
    if notices := (*audit.train.notices, *audit.test.notices, *quoting):
        title, remedy = "Unusual but accepted", "what was done"
        tables.append(
            build_offences_table("notices", title, notices, remedy=remedy, with_file=True)
        )
    corpus, profile = audit.corpus, audit.competition.profile
    if corpus is None:
        return tables
    tables += [_build_labels(audit, corpus), count_duplicates(corpus, profile)]
    conflicts = list_conflicts(corpus, profile)
    tables += [conflicts] if conflicts.rows else []
    if profile.entity.is_typed:
        tables += [
            count_type_pairs(corpus, profile),
            list_odd_types(corpus, profile),
            list_ambiguous_words(corpus),
        ]
    tables += [count_positions(corpus), measure_lengths(corpus)]
    if audit.groups is not None:
        tables.append(_build_groups(audit, corpus, audit.groups))
    tables[0] = replace(tables[0], notes=[*tables[0].notes, *_remark_language(corpus, profile)])
    shift = measure_shift(corpus, profile)
    tables += [*([shift] if shift.rows else []), *beyond]
    if audit.ok:
        tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, *following))
    return tables


def _remark_language(corpus: Corpus, profile: Profile) -> list[str]:
    """Return a note if prompts are Korean and no sentence is."""
    if profile.language.name != FIRST_LANGUAGE:
        return []
    text = "".join(corpus.train.frame["sentence"].head(LANGUAGE_ROWS))
    if any("가" <= char <= "힣" for char in text):
        return []
    return [
        "The sentences hold no Hangul, and prompts are Korean: set language.name in the profile, "
        "to english for instance."
    ]


def _build_files(audit: Audit) -> Table:
    columns = (
        Column("file", "File"),
        Column("rows", "usable rows", "count"),
        Column("offences", "offences", "count"),
        Column("notices", "notices", "count"),
    )
    names = (audit.competition.train_names, audit.competition.test_path.name)
    rows = [
        {
            "file": name,
            "rows": len(reading.rows),
            "offences": len(reading.offences),
            "notices": len(reading.notices),
        }
        for name, reading in zip(names, (audit.train, audit.test), strict=True)
    ]
    if audit.ok:
        verdict = "Verdict: these files can be trained on."
    elif audit.offences:
        verdict = "Verdict: training is not possible before every offence is corrected."
    else:
        verdict = f"Verdict: training is not possible: {audit.problem}"
    notes = [verdict]
    if audit.corpus is not None and audit.competition.limit is not None:
        chosen, test = len(audit.corpus.train), len(audit.corpus.test)
        notes.append(f"The tables below are of a sample: {chosen:,} train and {test:,} test rows.")
    return Table("files", "Files", columns, rows, notes)


def _build_offences(files: Sequence[Sequence[Offence]], most: int | None) -> Table:
    """List the offences of each file, up to ``most`` of it."""
    shown = [offence for offences in files for offence in offences[:most]]
    total = sum(map(len, files))
    more = total - len(shown)
    notes = [f"… and {more:,} more; --json lists all of them."] if more else []
    title = f"Offences ({total:,})"
    return build_offences_table("offences", title, shown, notes, with_file=True)


def _build_labels(audit: Audit, corpus: Corpus) -> Table:
    profile = audit.competition.profile
    counts = np.bincount(corpus.train.gold, minlength=profile.n_labels)
    rows = [
        {
            "label": profile.labels[i],
            "rows": int(counts[i]),
            "share": float(counts[i] / counts.sum()),
        }
        for i in np.argsort(-counts, kind="stable")
    ]
    count = profile.folds.count
    rare = [profile.labels[i] for i in np.flatnonzero(counts < count)]
    notes = []
    if rare:
        notes.append(f"Fewer than {count} rows, so missing from some folds: {', '.join(rare)}.")
    columns = (Column("label", "Label"), Column("rows", "rows", "count"))
    return Table("labels", "Labels", (*columns, Column("share", "share", "share")), rows, notes)


def _build_groups(audit: Audit, corpus: Corpus, groups: Int32s) -> Table:
    """Show how rows are linked into groups, and how many test values are new."""
    rules = audit.competition.profile.folds
    together = " or ".join(KEY_NAMES.get(name, name) for name in rules.group_by)
    together = together or "nothing (not grouped)"
    named = {
        **KEY_NAMES,
        **{key: f"value of {key}" for key in rules.group_by if key not in KEY_NAMES},
    }
    numberings = {f"a {said}": build_keys(corpus.train, key) for key, said in named.items()}
    numberings[f"folds by {together}"] = groups.astype(np.int64)
    columns = (
        Column("what", "Rows that share"),
        Column("groups", "groups", "count"),
        Column("largest", "largest", "count"),
        Column("largest_share", "of rows", "share"),
        Column("sharing_share", "rows sharing", "share"),
    )
    rows = []
    for what, values in numberings.items():
        sizes = np.bincount(values)
        rows.append(
            {
                "what": what,
                "groups": len(sizes),
                "largest": int(sizes.max()),
                "largest_share": float(sizes.max() / len(values)),
                "sharing_share": float(sizes[sizes > 1].sum() / len(values)),
            }
        )
    notes = [
        f"A group may hold at most {1 / (2 * rules.count):.0%} of the rows in {rules.count} folds.",
        *_compare_keys(corpus, rules.group_by, has_advice=audit.problem is None),
    ]
    return Table("groups", "Groups", columns, rows, notes)


def _compare_keys(corpus: Corpus, group_by: Sequence[str], *, has_advice: bool) -> list[str]:
    """Describe how many test rows have a new sentence or pair, with advice for group_by.

    There is no advice if folds cannot be built by the rules; that error names the remedies.
    """
    n_train = len(corpus.train)
    frame = pd.concat([corpus.train.frame, corpus.test.frame], ignore_index=True)
    both = Rows(frame, None)
    notes = []
    for key, said in KEY_NAMES.items():
        values = build_keys(both, key)
        new = float(1 - np.isin(values[n_train:], values[:n_train]).mean())
        advice = "keep it in folds.group_by" if key in group_by else "add it to folds.group_by"
        advice = advice if new > MOSTLY else "grouping by it may be too strict"
        advice = f": {advice}" if has_advice else ""
        notes.append(f"{new:.1%} of test rows have a {said} that is not in train{advice}.")
    return notes
