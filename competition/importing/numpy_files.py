"""Read NumPy files of predictions as tables: ``.npy`` in file order, ``.npz`` with several arrays.

The most common out-of-fold artefact of a team is a pair of arrays in the order of the train and
the test file. Pickles inside are never opened.

Legend: N train rows, M test rows, C labels, K folds.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.errors import Offence
from competition.folds.kfold import Prepared
from competition.importing.cells import Report
from competition.importing.table import NO_FOLD, OOF, TEST, ForeignTable, read_split

SPARE_BYTES, SPARE_TIMES = 1 << 20, 4
ORDER = "the rows of {file} are taken in the order of {data}, its columns in that of the labels"


def read_arrays(
    path: Path, prepared: Prepared, expected: str | None, report: Report
) -> ForeignTable | None:
    """Read the arrays of a NumPy file as a table in file order.

    Args:
        expected: the split that the file holds; None infers it from the shape.

    Returns:
        None where an array does not fit, which was reported.
    """
    try:
        _check_size(path, prepared)
        arrays = _load(path)
    except Exception as error:  # NumPy and what unpacks its archives raise many kinds
        is_pickle = "pickle" in str(error).lower()
        found = "an array of Python objects" if is_pickle else f"damaged: {str(error)[:120]}"
        remedy = "save numbers: np.save(FILE, probs.astype(np.float32))"
        report(Offence(path.name, None, None, None, f"{found}, which is not opened", remedy))
        return None
    parts = []
    for name, array in arrays.items():
        split = read_split(name) if name else None
        part = _place(path, array, prepared, split or expected, report)
        if part is None:
            return None
        parts.append(part)
    return ForeignTable.join(parts)


def _check_size(path: Path, prepared: Prepared) -> None:
    """Reject files that would take far more memory than all predictions."""
    corpus, n_labels = prepared.corpus, prepared.competition.profile.n_labels
    n_rows = len(corpus.train) + prepared.folds.count * len(corpus.test)
    most = SPARE_BYTES + 8 * SPARE_TIMES * n_rows * n_labels
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
    if size > most:
        raise ValueError(f"it holds {size:,} bytes, and all predictions need {most:,} at most")


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name, ``""`` for the only one of ``.npy``."""
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return {"": found}
    with found:
        arrays = {name: found[name] for name in found.files if read_split(name) is not None}
        if not arrays and len(found.files) == 1:
            arrays = {"": found[found.files[0]]}
        if not arrays:
            names = ", ".join(found.files[:5])
            raise KeyError(f"its arrays are {names}; name them oof and test")
        return arrays


def _place(
    path: Path, array: NDArray[Any], prepared: Prepared, split: str | None, report: Report
) -> ForeignTable | None:
    """Assign each row of an array its split, id and fold."""
    corpus, n_labels = prepared.corpus, prepared.competition.profile.n_labels
    sizes = {OOF: len(corpus.train), TEST: len(corpus.test)}
    n_folds = prepared.folds.count
    fits: dict[str, list[tuple[int, ...]]] = {
        OOF: [(sizes[OOF], n_labels)],
        TEST: [(sizes[TEST], n_labels), (n_folds, sizes[TEST], n_labels)],
    }
    wanted: Sequence[str] = (split,) if split is not None else (OOF, TEST)
    here = next((each for each in wanted if array.shape in fits[each]), None)
    if here is None or array.dtype.kind not in "fiub":
        report(_explain(path, array, [shape for each in wanted for shape in fits[each]]))
        return None
    rows = corpus.train if here == OOF else corpus.test
    competition = prepared.competition
    file = competition.train_names if here == OOF else competition.test_path.name
    folds = np.full(sizes[here], NO_FOLD)
    ids = rows.ids
    if array.ndim == 3:
        folds = np.repeat(np.arange(n_folds), sizes[here])
        ids = np.tile(ids, n_folds)
    probs = array.reshape(-1, n_labels).astype(np.float64)
    return ForeignTable(
        files=[path.name] * len(ids),
        lines=[None] * len(ids),
        ids=ids,
        split=np.full(len(ids), here, dtype=object),
        fold=folds,
        has_folds=array.ndim == 3 and here == OOF,
        probs=probs,
        unread=set(),
        named=np.zeros(len(ids), dtype=bool),
        notices=[ORDER.format(file=path.name, data=file)],
    )


def _explain(path: Path, array: NDArray[Any], fits: Sequence[tuple[int, ...]]) -> Offence:
    """Explain which shapes are accepted."""
    shapes = " or ".join(map(str, fits))
    found = f"an array {array.shape} of {array.dtype}; expected is {shapes}"
    remedy = "save the probabilities of every row, a column for each label in the profile's order"
    if array.ndim == 2 and array.T.shape in fits:
        remedy = "transpose it: np.save(FILE, probs.T)"
    elif array.ndim == 1 and any(shape[0] == len(array) for shape in fits):
        remedy = "these are labels: save the probabilities that they were decided from"
    return Offence(path.name, None, None, None, found, remedy)
