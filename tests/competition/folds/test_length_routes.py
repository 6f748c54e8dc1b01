"""Length routes: every row has one, they are frozen, and none is empty in a fold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.data.rows import Rows
from competition.errors import FoldsError
from competition.folds.kfold import Prepared, read_prepared
from competition.folds.length_routes import (
    LENGTH_ROUTES,
    build_borders,
    read_or_make_length_routes,
    route_lengths,
)
from competition.profile import resolve_competition
from tests.conftest import N_TEST, N_TRAIN, TINY_PROFILE, write_tiny

UNIT = "characters"


def measure(rows: Rows) -> npt.NDArray[np.int64]:
    """Lengths 10, 11, 12 … by id, so that folds do not follow them."""
    return np.array([10 + int(id_) % 1000 for id_ in rows.ids])


def with_borders(tmp_path: Path, short: int, medium: int) -> Prepared:
    path = write_tiny(tmp_path)
    rules = f"[routes.length]\nshort_max_tokens = {short}\nmedium_max_tokens = {medium}\n[metrics]"
    path.write_text(TINY_PROFILE.replace("[metrics]", rules), encoding="utf-8")
    return read_prepared(resolve_competition(str(path), None, None, home=tmp_path))


def test_terciles_part_the_train_rows(prepared: Prepared) -> None:
    routes = read_or_make_length_routes(prepared, measure, UNIT)
    assert routes.names == LENGTH_ROUTES
    assert routes.borders == (31, 52)
    lengths = measure(prepared.corpus.train)
    for name, low, high in (("short", 0, 31), ("medium", 32, 52), ("long", 53, 999)):
        assert (routes.train == name).tolist() == ((low <= lengths) & (lengths <= high)).tolist()
    assert [(routes.train == name).sum() for name in routes.names] == [22, 21, 21]
    assert set(routes.test) == {"short"}  # lengths 10 to 29, by the borders of the train rows
    assert (len(routes.train), len(routes.test)) == (N_TRAIN, N_TEST)


def test_borders_of_the_profile_come_first(tmp_path: Path) -> None:
    routes = read_or_make_length_routes(with_borders(tmp_path, 20, 60), measure, UNIT)
    assert routes.borders == (20, 60)
    assert [(routes.train == name).sum() for name in routes.names] == [11, 40, 13]


def test_routes_are_measured_once(prepared: Prepared) -> None:
    first = read_or_make_length_routes(prepared, measure, UNIT)

    def measure_again(rows: Rows) -> npt.NDArray[np.int64]:
        raise AssertionError("measured twice")

    second = read_or_make_length_routes(prepared, measure_again, "other")
    third = read_or_make_length_routes(prepared, None, "other")
    for other in (second, third):
        assert (other.hash, other.borders, other.unit) == (first.hash, first.borders, UNIT)
        assert (other.train == first.train).all()
        assert (other.test == first.test).all()
    text = (prepared.competition.oof_dir / "routes" / "length.csv").read_text(encoding="utf-8")
    assert text.startswith("id,split,route\n0,train,short\n")
    assert text.count("\n") == 1 + N_TRAIN + N_TEST


def test_without_routes_and_measure_it_says_what_to_do(prepared: Prepared) -> None:
    with pytest.raises(FoldsError, match=r"does not exist yet.*Train one"):
        read_or_make_length_routes(prepared, None, UNIT)


def test_a_changed_file_is_refused_and_may_become_ones_own(prepared: Prepared) -> None:
    made = read_or_make_length_routes(prepared, measure, UNIT)
    path = prepared.competition.oof_dir / "routes" / "length.csv"
    text = path.read_text(encoding="utf-8").replace("0,train,short", "0,train,long", 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FoldsError, match="was changed after it was built"):
        read_or_make_length_routes(prepared, measure, UNIT)
    path.with_suffix(".json").unlink()
    own = read_or_make_length_routes(prepared, None, UNIT)
    assert (own.train[0], own.borders, own.unit) == ("long", None, "own file")
    assert own.hash != made.hash
    assert json.loads(path.with_suffix(".json").read_text())["source"] == "own file"


def test_routes_of_another_test_file_are_refused_once(prepared: Prepared) -> None:
    read_or_make_length_routes(prepared, measure, UNIT)
    competition = prepared.competition
    lines = competition.test_path.read_text(encoding="utf-8").splitlines()
    competition.test_path.write_text("\n".join(lines[:-3]) + "\n", encoding="utf-8")
    with pytest.raises(FoldsError) as caught:
        read_or_make_length_routes(read_prepared(competition), measure, UNIT)
    said = str(caught.value)
    assert "length.csv was built for other rows than those now in" in said
    assert "(no longer there: 3; there without a route: 0)" in said
    assert "remove the line" not in said
    assert "itself was changed" not in said


def test_other_borders_than_the_frozen_ones_are_refused(tmp_path: Path) -> None:
    read_or_make_length_routes(with_borders(tmp_path, 20, 60), measure, UNIT)
    with pytest.raises(FoldsError, match=r"with the borders \[20, 60\].*says \[21, 60\]"):
        read_or_make_length_routes(with_borders(tmp_path, 21, 60), measure, UNIT)


def test_a_lost_file_is_made_again_only_when_it_comes_out_the_same(prepared: Prepared) -> None:
    made = read_or_make_length_routes(prepared, measure, UNIT)
    (prepared.competition.oof_dir / "routes" / "length.csv").unlink()
    assert read_or_make_length_routes(prepared, measure, UNIT).hash == made.hash
    (prepared.competition.oof_dir / "routes" / "length.csv").unlink()
    with pytest.raises(FoldsError, match="is missing"):
        read_or_make_length_routes(prepared, lambda rows: measure(rows) // 2 * 3, UNIT)


def test_routes_that_are_empty_in_a_fold_are_refused(prepared: Prepared) -> None:
    def all_alike(rows: Rows) -> npt.NDArray[np.int64]:
        return np.full(len(rows), 7)

    with pytest.raises(FoldsError, match=r"medium \(in no fold\); long \(in no fold\)"):
        read_or_make_length_routes(prepared, all_alike, UNIT)

    def by_fold(rows: Rows) -> npt.NDArray[np.int64]:
        if len(rows) == N_TEST:
            return measure(rows)
        return np.where(prepared.folds.fold_of == 1, measure(rows) % 30, measure(rows))

    with pytest.raises(FoldsError, match=r"long \(not in fold 1\)"):
        read_or_make_length_routes(prepared, by_fold, UNIT)
    assert not (prepared.competition.oof_dir / "routes" / "length.csv").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0,train,short", "0,dev,short", "id 0: split 'dev'"),
        ("0,train,short", "x,train,short", "id x: no train row has this id"),
        ("0,train,short", "1000,train,short", "id 1000: no train row has this id"),
        ("0,train,short", "1,train,short", "id 1: this train row is listed twice"),
        ("0,train,short", "0,train,tiny", "id 0: route 'tiny'"),
        ("\n0,train,short", "", "id 0: this train row has no route"),
        ("\n1000,test,short", "", "id 1000: this test row has no route"),
        ("id,split,route", "id,split,way", "column 'route': no such column"),
    ],
)
def test_a_wrong_file_of_ones_own_is_refused(
    prepared: Prepared, old: str, new: str, message: str
) -> None:
    read_or_make_length_routes(prepared, measure, UNIT)
    path = prepared.competition.oof_dir / "routes" / "length.csv"
    path.with_suffix(".json").unlink()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(FoldsError) as caught:
        read_or_make_length_routes(prepared, None, UNIT)
    assert message in str(caught.value)


def test_a_measure_of_another_shape_is_our_own_defect(prepared: Prepared) -> None:
    with pytest.raises(ValueError, match="measured as an array of shape"):
        read_or_make_length_routes(prepared, lambda rows: measure(rows)[:3], UNIT)


@given(st.lists(st.integers(0, 400), min_size=9, max_size=200, unique=True))
def test_terciles_hold_a_third_each(lengths: list[int]) -> None:
    values = np.array(lengths)
    routes = route_lengths(values, build_borders(values))
    counts = [(routes == name).sum() for name in LENGTH_ROUTES]
    assert max(counts) - min(counts) <= 1
    assert values[routes == "short"].max() < values[routes == "medium"].min()
    assert values[routes == "medium"].max() < values[routes == "long"].min()
