"""Count duplicates, types, positions, lengths and covariate shift in clean rows.

Called by ``audit``; no function changes a row. Each returns one short table, with notes on what to
do about it.

Legend: N train rows, M test rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from competition.console import Column, Table
from competition.data.corpus import Corpus
from competition.data.csv_records import show
from competition.data.rows import ROW_KEY, Rows
from competition.profile import Profile

_KEY = list(ROW_KEY)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
EXAMPLES = 5
SHOWN = 10
RARE_SHARE = 0.02

Frame = pd.DataFrame


def _labelled(corpus: Corpus, profile: Profile) -> Frame:
    """Return the train rows with their label as text."""
    labels = np.asarray(profile.labels, dtype=object)[corpus.train.gold]
    return corpus.train.frame.assign(label=labels)


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0


def count_duplicates(corpus: Corpus, profile: Profile) -> Table:
    """Count duplicate rows, and those with different labels."""
    frame = _labelled(corpus, profile)
    twice = frame[frame.duplicated(_KEY, keep=False)]
    labels = twice.groupby(_KEY, sort=False)["label"]
    clashing = twice[labels.transform("nunique") > 1]
    test = corpus.test.frame
    in_train = pd.MultiIndex.from_frame(test[_KEY]).isin(pd.MultiIndex.from_frame(frame[_KEY]))
    counts = [
        ("train: same sentence, subject and object", labels.ngroups, len(twice)),
        ("… with different labels", clashing.groupby(_KEY).ngroups, len(clashing)),
        ("test rows that occur in train", int(in_train.sum()), int(in_train.sum())),
    ]
    columns = (Column("what", "Duplicates"), Column("keys", "keys", "count"))
    rows = [{"what": what, "keys": keys, "rows": count} for what, keys, count in counts]
    notes = [] if clashing.empty else ["At least one label of each is wrong; inspect them first."]
    return Table(
        "duplicates", "Duplicates", (*columns, Column("rows", "rows", "count")), rows, notes
    )


def list_conflicts(corpus: Corpus, profile: Profile) -> Table:
    """List the first duplicates with different labels."""
    frame = _labelled(corpus, profile)
    twice = frame[frame.duplicated(_KEY, keep=False)]
    rows: list[dict[str, Any]] = []
    for _, rows_of_key in twice.groupby(_KEY, sort=False):
        if rows_of_key["label"].nunique() > 1 and len(rows) < EXAMPLES:
            first = rows_of_key.iloc[0]
            rows.append(
                {
                    "ids": ", ".join(rows_of_key["id"]),
                    "entities": f"{first['subject_word']} → {first['object_word']}",
                    "labels": " / ".join(rows_of_key["label"]),
                }
            )
    columns = (Column("ids", "ids"), Column("entities", "subject → object"))
    title = f"Conflicting duplicates (the first {len(rows)})"
    return Table("conflicts", title, (*columns, Column("labels", "labels")), rows)


def count_type_pairs(corpus: Corpus, profile: Profile) -> Table:
    """Count rows by subject and object type, in train and test."""
    train, test = _pairs(corpus.train), _pairs(corpus.test)
    columns = [
        Column("pair", "subject → object"),
        Column("train", "train", "count"),
        Column("train_share", "train", "share"),
        Column("test_share", "test", "share"),
    ]
    is_negative = pd.Series(np.zeros(len(train), dtype=bool))
    if profile.negative_ids:
        is_negative = pd.Series(np.isin(corpus.train.gold, profile.negative_ids))
        columns.append(Column("negative_share", profile.negative_name or "", "share"))
    rows = []
    pairs = pd.concat([train, test]).value_counts().index
    for pair in pairs:
        mask = train == pair
        in_test = int((test == pair).sum())
        rows.append(
            {
                "pair": pair,
                "train": int(mask.sum()),
                "train_share": _share(mask.sum(), len(train)),
                "test": in_test,
                "test_share": _share(in_test, len(test)),
                "negative_share": float(is_negative[mask].mean()) if mask.any() else None,
            }
        )
    unseen = [row["pair"] for row in rows if not row["train"]]
    notes = [f"Only in test: {', '.join(unseen)}. Models never see these."] if unseen else []
    return Table("type_pairs", "Type pairs", columns, rows, notes, "rows")


def _pairs(rows: Rows) -> pd.Series[Any]:
    return rows.frame["subject_type"] + " → " + rows.frame["object_type"]


def list_odd_types(corpus: Corpus, profile: Profile) -> Table:
    """List combinations of label and type pair that are rare: types that are likely wrong."""
    frame = _labelled(corpus, profile).assign(pair=_pairs(corpus.train))
    if profile.negative_labels:
        frame = frame[~frame["label"].isin(profile.negative_labels)]
    counts = frame.groupby(["label", "pair"], sort=True).agg(
        rows=("id", "size"), example=("id", "first")
    )
    counts["share"] = counts["rows"] / counts.groupby("label")["rows"].transform("sum")
    odd = counts[counts["share"] < RARE_SHARE].sort_values("share", kind="stable").reset_index()
    columns = (
        Column("label", "label"),
        Column("pair", "subject → object"),
        Column("rows", "rows", "count"),
        Column("share", "of the label", "share"),
        Column("example", "example id"),
    )
    shown = zip(*(odd[column.key].head(SHOWN).tolist() for column in columns), strict=True)
    keys = [column.key for column in columns]
    rows = [dict(zip(keys, values, strict=True)) for values in shown]
    notes = []
    if rows:
        total = int(odd["rows"].sum())
        share = _share(total, len(corpus.train))
        notes = [
            f"{total:,} rows ({share:.1%}) have a type pair that less than "
            f"{RARE_SHARE:.0%} of their label's rows have ({len(odd)} combinations): check their "
            "types before you restrict labels by type pair."
        ]
    notes += _count_foreign_prefixes(frame, profile)
    return Table("odd_types", "Labels with odd types", columns, rows, notes, "rows")


def _count_foreign_prefixes(frame: Frame, profile: Profile) -> list[str]:
    """Describe how many rows have a label like ``per:title`` but another subject type than PER."""
    prefix = frame["label"].map(lambda label: str(label).partition(":")[0].upper())
    wrong = frame[prefix.isin(profile.entity_types) & (prefix != frame["subject_type"])]
    if wrong.empty:
        return []
    ids = ", ".join(wrong["id"].head(EXAMPLES))
    return [f"Labels for another subject type: {len(wrong):,} rows, for example id {ids}."]


def list_ambiguous_words(corpus: Corpus) -> Table:
    """List words with several entity types, most frequent first."""
    frames = [rows.frame for rows in (corpus.train, corpus.test)]
    words = pd.concat(
        [
            frame[[f"{role}_word", f"{role}_type"]].set_axis(["word", "type"], axis=1)
            for frame in frames
            for role in ("subject", "object")
        ]
    )
    counts = words.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    by_word = counts.groupby(level="word", sort=False)
    total, minority = by_word.sum(), by_word.sum() - by_word.max()
    several = minority[minority > 0].sort_values(ascending=False, kind="stable")
    rows = [
        {
            "word": show(word)[1:-1],
            "types": ", ".join(f"{type_} {count:,}" for type_, count in counts[word].items()),
            "odd": int(several[word]),
        }
        for word in several.index[:EXAMPLES]
    ]
    columns = (Column("word", "word"), Column("types", "types"), Column("odd", "odd", "count"))
    share = _share(total[several.index].sum(), len(words))
    title = f"Words with several types: {len(several):,} words, {share:.1%} of the entities"
    notes = ["Types come from a tagger and are less reliable than words."] if rows else []
    return Table("ambiguous_words", title, columns, rows, notes, "table")


def count_positions(corpus: Corpus) -> Table:
    """Count rows where text search, or assuming that the subject comes first, would fail."""
    columns = (Column("what", "Positions"), *_train_test_columns())
    parts = {"train": _position_shares(corpus.train), "test": _position_shares(corpus.test)}
    rows = [
        {"what": what, **{split: shares[what] for split, shares in parts.items()}}
        for what in parts["train"]
    ]
    return Table(
        "positions",
        "Positions of the entities",
        columns,
        rows,
        ["Mark entities by their offsets only."],
        "table",
    )


def _train_test_columns() -> tuple[Column, Column]:
    return Column("train", "train", "share"), Column("test", "test", "share")


def _position_shares(rows: Rows) -> dict[str, float]:
    sentences = rows.text("sentence").tolist()
    is_repeated = np.zeros(len(rows), dtype=bool)
    is_elsewhere = np.zeros(len(rows), dtype=bool)
    for role in ("subject", "object"):
        words, starts = rows.text(f"{role}_word").tolist(), rows.frame[f"{role}_start"].tolist()
        for i, (sentence, word, start) in enumerate(zip(sentences, words, starts, strict=True)):
            first = sentence.find(word)
            is_elsewhere[i] |= first != start
            is_repeated[i] |= sentence.find(word, first + 1) >= 0
    is_after = rows.frame["subject_start"] > rows.frame["object_start"]
    return {
        "an entity's text occurs more than once": float(is_repeated.mean()),
        "… and text search would mark another position": float(is_elsewhere.mean()),
        "subject after object": float(is_after.mean()),
    }


def measure_lengths(corpus: Corpus) -> Table:
    """Compare sentence lengths in characters between train and test."""
    columns = [Column("split", "Characters")]
    rows: list[dict[str, Any]] = []
    for quantile in QUANTILES:
        name = "longest" if quantile == 1 else f"{quantile:.0%}"
        columns.append(Column(name, name, "count"))
    for split, part in (("train", corpus.train), ("test", corpus.test)):
        lengths = part.frame["sentence"].str.len().to_numpy(dtype=np.int64)
        values = np.quantile(lengths, QUANTILES, method="inverted_cdf").tolist()
        names = (column.key for column in columns[1:])
        rows.append({"split": split, **dict(zip(names, map(int, values), strict=True))})
    return Table("lengths", "Sentence length (quantiles)", columns, rows, detail="table")


def measure_shift(corpus: Corpus, profile: Profile) -> Table:
    """Compare the distributions of source and entity types between train and test."""
    seen = {"source": profile.columns.source}
    if profile.entity.is_typed:
        seen |= {"subject_type": "subject type", "object_type": "object type"}
    rows: list[dict[str, Any]] = []
    notes = []
    for column, name in seen.items():
        if name is None:
            continue
        train = corpus.train.frame[column].value_counts(normalize=True)
        test = corpus.test.frame[column].value_counts(normalize=True)
        both = pd.DataFrame({"train": train, "test": test}).fillna(0.0)
        notes.append((name, float((both["test"] - both["train"]).abs().sum() / 2)))
        both = both.sort_values("train", ascending=False, kind="stable").head(SHOWN)
        for value, before, after in zip(both.index, both["train"], both["test"], strict=True):
            shares = {"train": before, "test": after, "difference": after - before}
            rows.append({"what": name, "value": show(value)[1:-1], **shares})
    moved = [f"{name} {distance:.0%}" for name, distance in notes]
    columns = (Column("what", "Shift"), Column("value", "value"), *_train_test_columns())
    shown = [f"Total variation distance between train and test: {', '.join(moved)}."]
    shown.append(
        "Out-of-fold scores rank variants; under a large shift they do not predict the board."
    )
    return Table(
        "shift",
        "Train against test",
        (*columns, Column("difference", "difference", "difference")),
        rows,
        shown if moved else [],
        "rows",
    )
