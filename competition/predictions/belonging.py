"""Check that a stored result matches the current data, folds, length routes and recipe.

Used by ``members`` for ``blend``, ``contenders`` for ``compare`` and ``importing`` for ``import``,
so that all commands reject the same results.

Legend: N train rows, M test rows, n rows of one file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.arrays import Bools
from competition.errors import PredictionsError
from competition.folds.kfold import Prepared
from competition.folds.length_routes import read_or_make_length_routes
from competition.predictions.rerun import advise_training
from competition.predictions.store import Header, Ids, check_labels


@dataclass(frozen=True, eq=False)
class AnsweredRows:
    """The rows that a variant predicts: train (N,) and test (M,), both bool."""

    train: Bools
    test: Bools


def check_belongs(
    found: Sequence[tuple[Path, Header]], prepared: Prepared, *, remedy: str | None = None
) -> AnsweredRows:
    """Check that results were made from the current data, folds and routes.

    Args:
        found: the files of one variant with their headers, at least one.
        remedy: advice for a file that does not match; None explains how to train it again.

    Returns:
        The rows that all folds of this variant together predict.

    Raises:
        PredictionsError: a file has other labels, data, folds or length routes, or another recipe
            than the first.
        FoldsError: the length routes cannot be read.
    """
    first_path, first = found[0]
    oof_dir = prepared.competition.oof_dir
    for path, header in found:
        redo = remedy or advise_redo(header, path.parent)
        check_labels(header, prepared.competition.profile.labels, path, remedy)
        if header.data_hash != prepared.corpus.hash:
            raise PredictionsError(
                f"{path} was made from other data than {prepared.competition.data_dir} contains"
                " now;"
                f" {remedy or advise_after_new_data(header, path.parent)}"
            )
        if header.folds_hash != prepared.folds.hash or header.key.fold >= prepared.folds.count:
            raise PredictionsError(
                f"{path} was made with other folds than those in {oof_dir / 'folds.csv'}, which"
                " would"
                f" leak labels; {redo}"
            )
        if get_recipe(header) != get_recipe(first):
            raise PredictionsError(
                f"{path} was made by another recipe than {first_path.name} (the variant or the"
                f" data changed); {redo}"
            )
    redo = remedy or advise_redo(first, first_path.parent)
    return _find_answered_rows(first, prepared, first_path, redo)


def get_recipe(header: Header) -> tuple[str | None, ...]:
    """Return what all files of one variant share: recipe, route, and hash of the routes."""
    return header.recipe, header.route, header.routes_hash


def is_of_these_rows(header: Header, prepared: Prepared) -> bool:
    """Return whether a result was made from the current data and folds."""
    here = prepared.corpus.hash, prepared.folds.hash
    return (header.data_hash, header.folds_hash) == here


def _find_answered_rows(header: Header, prepared: Prepared, path: Path, redo: str) -> AnsweredRows:
    """Return the rows of a result's route; check the hash of the routes first."""
    train, test = prepared.corpus.train, prepared.corpus.test
    if header.route is None:
        return AnsweredRows(np.ones(len(train), dtype=bool), np.ones(len(test), dtype=bool))
    route, _, part = header.route.partition(":")
    if route != "length":
        raise PredictionsError(f"{path} belongs to the unknown route {header.route!r}")
    routes = read_or_make_length_routes(prepared, None, "")
    if header.routes_hash != routes.hash:
        raise PredictionsError(
            f"{path} was made with other length routes than those in"
            f" {prepared.competition.oof_dir / 'routes'}; {redo}"
        )
    return AnsweredRows(routes.train == part, routes.test == part)


def place_rows(
    ids: Ids, row_of: Mapping[str, int], expected: Bools, where: str
) -> npt.NDArray[np.intp]:
    """Return the corpus row of each id; the rows must be exactly the expected ones.

    Args:
        expected: (N,) or (M,), the rows that the file must contain.

    Raises:
        PredictionsError: an id is unexpected or missing.
    """
    rows = np.fromiter((row_of.get(row_id, -1) for row_id in ids), dtype=np.intp, count=len(ids))
    foreign = (rows < 0) | ~expected[rows]
    if foreign.any():
        raise PredictionsError(
            f"{where}: id {ids[foreign.argmax()]} does not belong in this file"
            f" ({foreign.sum()} such rows); train this fold again with --overwrite"
        )
    if len(rows) != expected.sum():
        raise PredictionsError(
            f"{where}: {expected.sum() - len(rows)} of {expected.sum()} rows are missing; train"
            " this fold again with --overwrite"
        )
    return rows


def advise_redo(header: Header, folder: Path) -> str:
    """Return advice for results that no longer match: train or import them again.

    ``folder`` is the folder of the variant.
    """
    name = header.key.variant
    if header.variant.get("imported"):
        return f"run: python run.py import FILE --as {name} (it was {header.variant.get('why')})"
    return advise_training(folder, "--overwrite")


def advise_after_new_data(header: Header, folder: Path) -> str:
    """Return advice for a result of other data; a new test file needs no training."""
    redo = advise_redo(header, folder)
    if header.variant.get("imported"):
        return redo
    return (
        f"{redo}; or restore the old test file and predict the new rows with: python run.py"
        " predict NEW.csv"
    )
