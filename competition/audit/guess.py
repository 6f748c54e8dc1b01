"""Guess the settings of a profile from columns and values, each with a confidence.

Second step of ``init``, after ``peek``; ``guessed_profile`` writes what is found here. A guess goes
by names first and is checked against the values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from competition.audit.findings import ROLE_NAMES, Findings, Sure
from competition.audit.guess_entities import guess_entities, list_entity_columns
from competition.audit.peek import SAMPLE, Peek
from competition.data.csv_records import match_ids
from competition.profile import list_profiles, read_bundled

Values = Sequence[Any]
ID_NAMES = ("id", "guid", "uid", "idx", "index", "row_id", "example_id", "번호", "no")
SENTENCE_NAMES = ("sentence", "text", "sent", "content", "context", "token", "tokens", "문장")
LABEL_NAMES = ("label", "relation", "rel", "class", "target", "category", "관계", "y")
LABEL_COLUMNS = (*LABEL_NAMES, "pred_label", "prediction", "pred")
SOURCE_NAMES = ("source", "domain", "genre", "출처")
NEGATIVE_NAMES = re.compile(
    r"no[_ -]?rel(ation)?|none|null|na|n/a|others?|negative|unrelated|no[_ -]?label"
    r"|무관|관계[_ ]?없음",
    re.I,
)
MAX_LABELS = 500


def guess_all(train: Peek, test: Peek, sample: Peek | None) -> Findings:
    """Guess the content of a competition's files."""
    found = Findings()
    sentence, sure, length = _find_sentence(train)
    _guess_id(found, train, test, sentence)
    if sentence is not None:
        found.columns["sentence"] = sentence
        found.add("columns.sentence", sentence, sure, f"{length:.0f} characters on average")
    guess_entities(found, train)
    _guess_label(found, train, test)
    _guess_source(found, train, test)
    _guess_types(found, train, test)
    _guess_language(found, train)
    if sample is not None:
        _guess_submission(found, sample, test)
    return found


def _named(peek: Peek, names: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in peek.columns}
    return next((by_name[name] for name in names if name in by_name), None)


def _is_unique(values: Values) -> bool:
    return len(values) > 0 and len({str(value) for value in values}) == len(values)


def _guess_id(found: Findings, train: Peek, test: Peek, sentence: str | None) -> None:
    for name in (_named(train, ID_NAMES) or "", next(iter(train.columns), "")):
        if name not in train.columns or name not in test.columns or name == sentence:
            continue
        values = train.columns[name]
        if _is_unique(values) and all(len(str(value)) <= 100 for value in values[:SAMPLE]):
            is_named = name.lower() in ID_NAMES
            short = all(
                len(str(value)) <= 24 and " " not in str(value) for value in values[:SAMPLE]
            )
            if is_named or short:
                found.columns["id"] = name
                found.add("columns.id", name, "sure" if is_named else "likely", "no value twice")
                return
    found.add("columns.id", None, "likely", "no column has a different value in every row")


def _find_sentence(train: Peek) -> tuple[str | None, Sure, float]:
    """Return the column of sentences, how sure that is, and their mean length in characters."""
    lengths = {}
    for name, values in train.columns.items():
        sample = values[:SAMPLE]
        if sample and all(isinstance(value, str | list) for value in sample):
            texts = [" ".join(map(str, v)) if isinstance(v, list) else v for v in sample]
            if not all(text[:1] in ("{", "[") for text in texts) or "token" in name.lower():
                lengths[name] = sum(map(len, texts)) / len(texts)
    named = _named(train, SENTENCE_NAMES)
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    chosen = named if named in lengths else longest
    if chosen is None:
        return None, "a guess", 0.0
    return chosen, "sure" if named == longest else "likely", lengths[chosen]


def _guess_label(found: Findings, train: Peek, test: Peek) -> None:
    taken = {*found.columns.values(), *list_entity_columns(found)}
    roots = {name.partition(".")[0] for name in taken}
    fits = {}
    for name, values in train.columns.items():
        if name in taken or name.partition(".")[0] in roots:
            continue
        kinds = {str(value) for value in values if value != ""}
        if 2 <= len(kinds) <= min(MAX_LABELS, max(2, len(values) // 2)):
            in_test = {str(value) for value in test.columns.get(name, ())}
            fits[name] = (name not in test.columns or len(in_test) == 1, len(kinds))
    named = _named(train, LABEL_NAMES)
    hidden = [name for name, (is_hidden, _) in fits.items() if is_hidden]
    chosen = named if named in fits else next(iter(hidden or fits), None)
    if chosen is None:
        found.add("columns.label", None, "a guess", "no column has a few values in many rows")
        return
    found.columns["label"] = chosen
    sure: Sure = "sure" if chosen == named and chosen in hidden else "likely"
    found.add("columns.label", chosen, sure, f"{fits[chosen][1]} values")
    _guess_labels(found, Counter(str(value) for value in train.columns[chosen] if value != ""))
    in_test = {str(value) for value in test.columns.get(chosen, ())}
    if len(in_test) == 1 and not in_test & set(found.labels):
        found.unknown = in_test.pop()
        found.add("unknown_label", found.unknown, "sure", "it occurs in every row of the test file")


def _guess_labels(found: Findings, counts: Counter[str]) -> None:
    negatives = [label for label in counts if NEGATIVE_NAMES.fullmatch(label)]
    negatives.sort(key=lambda label: -counts[label])
    found.negative = negatives[0] if negatives else None
    if all(label.isdecimal() for label in counts):
        found.labels = sorted(counts, key=int)
    else:
        found.labels = sorted(counts, key=lambda label: (label != found.negative, label))
    why = "their order counts only where a submission holds probabilities: take the leaderboard's"
    for name in list_profiles():
        profile = read_bundled(name)
        if {*profile.labels} == {*counts}:
            found.labels, why = list(profile.labels), f"those of {name}, in its order"
    sure: Sure = "likely"
    alike = _find_alike(found.labels)
    if alike is not None:
        sure, why = "a guess", f"{alike[0]!r} and {alike[1]!r} may be the same: correct the file"
    found.add("labels", f"{len(counts)} labels", sure, why)
    if len(negatives) > 1:
        others = ", ".join(negatives[1:])
        why = f"by its name; others are named like one, too ({others}): it may be a list of labels"
        found.add("negative_label", found.negative, "a guess", why)
    elif found.negative is not None:
        found.add("negative_label", found.negative, "likely", "by its name")
    else:
        found.add("negative_label", None, "likely", "no label is named like one")


def _find_alike(labels: Sequence[str]) -> tuple[str, str] | None:
    """Return two labels that differ only in case and spaces, None if there are none."""
    known: dict[str, str] = {}
    for label in labels:
        first = known.setdefault("".join(label.lower().split()), label)
        if first != label:
            return first, label
    return None


def _guess_source(found: Findings, train: Peek, test: Peek) -> None:
    name = _named(train, SOURCE_NAMES)
    if name is not None and name in test.columns and name not in found.columns.values():
        found.columns["source"] = name
        found.add("columns.source", name, "likely", "by its name")


def _guess_types(found: Findings, train: Peek, test: Peek) -> None:
    counts: Counter[str] = Counter()
    for role in ROLE_NAMES:
        name = _type_column(found, role)
        for peek in (train, test):
            counts.update(str(value) for value in peek.columns.get(name or "", ()))
    found.types = [kind for kind, _ in counts.most_common() if kind]
    if not found.types and found.entity:
        found.add("entity_types", None, "sure", "no types were found; formats leave them out")
    elif found.types:
        found.add("entity_types", ", ".join(found.types), "sure", "all that occur in both files")


def _type_column(found: Findings, role: str) -> str | None:
    if found.entity.get("given_as") == "cell":
        key = found.entity.get("type")
        return None if key is None else f"{found.columns[role]}.{key}"
    column: str | None = found.entity.get(role, {}).get("type")
    return column


def _guess_language(found: Findings, train: Peek) -> None:
    if "sentence" not in found.columns:
        return
    texts = train.columns[found.columns["sentence"]][:SAMPLE]
    letters = [char for text in texts for char in str(text) if char.isalpha()]
    share = sum("가" <= char <= "힣" for char in letters) / max(len(letters), 1)
    found.is_korean = share > 0.3
    name = "korean" if found.is_korean else "english"
    found.add("language", name, "likely", f"{share:.0%} of the letters are Hangul")


def _guess_submission(found: Findings, sample: Peek, test: Peek) -> None:
    """Guess the columns and the layout of the sample submission."""
    ids = {str(value) for value in test.columns.get(found.columns.get("id", ""), ())}
    has_header = sample.has_header and not _begins_with_id(sample, ids)
    columns: dict[str, Values] = dict(sample.columns)
    if sample.has_header and not has_header:  # its first line is a row
        columns = {
            f"c{i}": [name, *values] for i, (name, values) in enumerate(sample.columns.items())
        }
    for name, values in columns.items():
        texts = [str(value) for value in values[:SAMPLE]]
        if "id_column" not in found.submission and _is_sample_id(name, values, test, ids):
            found.submission["id_column"] = name
        elif texts and all(re.match(r"\s*\[", text) for text in texts):
            found.submission["probs_column"] = name
        elif texts and set(texts) <= set(found.labels):
            found.submission["label_column"] = name
        elif texts and name == _named(sample, LABEL_COLUMNS) and _are_places(texts, found.labels):
            found.submission |= {"label_column": name, "label_as": "number"}
    template = _find_template(list(columns), found.labels)
    if template is not None:
        found.submission["probs_columns"] = template
        if found.submission.get("label_column") in _name_columns(template, found.labels):
            del found.submission["label_column"]  # probabilities of 0 or 1, not labels
            found.submission.pop("label_as", None)
    for key, name in found.submission.items():
        found.add(f"submission.{key}", name, "sure", f"by the values in {sample.path.name}")
    if not {"label_column", "probs_column", "probs_columns"} & found.submission.keys():
        _guess_answer_column(found, sample, list(columns))
    _hold_against_test(found, sample, columns, test)
    if sample.separator is not None:
        found.submission["separator"] = sample.separator
    if not has_header:
        found.submission["header"] = False


def _guess_answer_column(found: Findings, sample: Peek, columns: Sequence[str]) -> None:
    """Guess which column is for labels where none holds any, but stands empty, for example.

    It is one named like labels, or the only one beside the ids.
    """
    others = [name for name in columns if name != found.submission.get("id_column")]
    known = (found.columns.get("label"), *LABEL_COLUMNS)
    named = [name for name in others if name in known or name.lower() in known]
    answer = named[0] if named else others[0] if len(others) == 1 else None
    if answer is None:
        found.submission.clear()
        why = f"no column of {sample.path.name} holds labels or probabilities; name its columns"
        found.add("submission", None, "a guess", why)
        return
    found.submission["label_column"] = answer
    why = f"no column of {sample.path.name} holds labels; this one could"
    found.add("submission.label_column", answer, "a guess", why)


def _begins_with_id(sample: Peek, ids: set[str]) -> bool:
    """Return whether the name of a column is an id, as the values below it are.

    A column for label 1 may have the name of an id, too, but not ids below it.
    """
    return any(
        name in ids
        and (not values or (_is_unique(values) and {str(each) for each in values[:SAMPLE]} <= ids))
        for name, values in sample.columns.items()
    )


def _is_sample_id(name: str, values: Values, test: Peek, ids: set[str]) -> bool:
    """Return whether a column of the sample submission says which test row a line is for."""
    texts = [str(value) for value in values]
    if ids:
        shown = texts[:SAMPLE]
        is_plain = len(set(texts)) == len(texts) and set(match_ids(shown, ids)) <= ids
        return set(shown) <= ids or is_plain
    is_tests_own = texts == [str(value) for value in test.columns.get(name, ())]
    return is_tests_own or len(set(texts)) == len(test)


def _hold_against_test(
    found: Findings, sample: Peek, columns: Mapping[str, Values], test: Peek
) -> None:
    """Say whether the sample submission has the rows of the test, or shows the columns only."""
    written = [str(value) for value in columns.get(found.submission.get("id_column", "id"), ())]
    ids = [str(value) for value in test.columns.get(found.columns.get("id", ""), ())]
    n_rows = max((len(values) for values in columns.values()), default=0)
    is_whole = set(match_ids(written, ids)) == set(ids) if ids and written else True
    found.has_whole_sample = is_whole and n_rows == len(test) and sample.is_text
    if not found.has_whole_sample:
        why = f"{sample.path.name} shows the columns; its {n_rows:,} rows are not those of the test"
        if is_whole and n_rows == len(test):
            why = f"{sample.path.name} shows the columns; it is no CSV, and submissions are"
        found.add("files.sample_submission", None, "sure", why)


def _are_places(texts: Sequence[str], labels: Sequence[str]) -> bool:
    """Return whether texts are numbers below the number of labels, which are no numbers."""
    are_numbers = all(text.isdecimal() and int(text) < len(labels) for text in texts)
    return are_numbers and not all(label.isdecimal() for label in labels)


def _find_template(columns: Sequence[str], labels: Sequence[str]) -> str | None:
    """Return how columns are named after labels, None where not every label has a column.

    >>> _find_template(["id", "p_a", "p_b"], ["a", "b"]), _find_template(["id", "a"], ["a", "b"])
    ('p_{label}', None)
    """
    if not labels:
        return None
    for name in columns:
        before, named, after = name.partition(labels[0])
        template = f"{before}{{label}}{after}"
        if named and _name_columns(template, labels) <= set(columns):
            return template
    return None


def _name_columns(template: str, labels: Sequence[str]) -> set[str]:
    return {template.replace("{label}", label) for label in labels}
