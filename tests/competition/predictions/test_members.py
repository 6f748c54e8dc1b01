"""predictions: a round trip, and everything that does not belong together refused."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest

from competition import threads
from competition.errors import FoldsError, HarnessError, PredictionsError, UsageError
from competition.folds.kfold import Prepared
from competition.folds.length_routes import Routes, read_or_make_length_routes
from competition.importing.importing import ImportOptions, run_import
from competition.predictions import log_mean, members, variant_scores
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import (
    Member,
    find_missing_folds,
    find_specialists,
    read_member,
    read_members,
)
from competition.predictions.store import Result, ResultKey, Store
from competition.predictions.variant_scores import score_variants


@pytest.fixture
def routes(prepared: Prepared) -> Routes:
    def count_chars(rows: object) -> npt.NDArray[np.int64]:
        return np.array([len(row.sentence) for row in rows])  # type: ignore[attr-defined]

    return read_or_make_length_routes(prepared, count_chars, "chars")


def make_probs(n_rows: int, n_labels: int, seed: int) -> npt.NDArray[np.float32]:
    raw = np.random.default_rng(seed).dirichlet(np.ones(n_labels), size=n_rows)
    return raw.astype(np.float32)


def make_result(
    prepared: Prepared,
    key: ResultKey,
    *,
    recipe: str = "r",
    routes: Routes | None = None,
    part: str = "",
) -> Result:
    train, test = prepared.corpus.train, prepared.corpus.test
    held_out = prepared.folds.fold_of == key.fold
    test_mask = np.ones(len(test), dtype=bool)
    if routes is not None:
        held_out = held_out & (routes.train == part)
        test_mask = routes.test == part
    labels = prepared.competition.profile.labels
    seed = 1000 * key.seed + key.fold
    return Result(
        key=key,
        fingerprint=f"fingerprint {key.seed} {key.fold}",
        recipe=recipe,
        variant={"why": "the idea", "name": key.variant},
        labels=labels,
        data_hash=prepared.corpus.hash,
        folds_hash=prepared.folds.hash,
        route=f"length:{part}" if routes else None,
        routes_hash=routes.hash if routes else None,
        oof_ids=train.ids[held_out],
        oof_probs=make_probs(int(held_out.sum()), len(labels), seed),
        test_ids=test.ids[test_mask],
        test_probs=make_probs(int(test_mask.sum()), len(labels), seed + 500),
    )


def fill(
    store: Store, prepared: Prepared, variant: str, seeds: tuple[int, ...] = (1,), **how: object
) -> None:
    for seed in seeds:
        for fold in range(prepared.folds.count):
            key = ResultKey(variant, seed, fold)
            store.write(make_result(prepared, key, **how), {"time": "now"})  # type: ignore[arg-type]


def test_a_result_comes_back_as_it_was(store: Store, prepared: Prepared) -> None:
    result = make_result(prepared, ResultKey("v", 1, 0))
    path = store.write(result, {"host": "here", "micro_f1": float("nan")})
    back = store.read(result.key)
    for name in Result.__dataclass_fields__:
        assert np.array_equal(getattr(back, name), getattr(result, name)), name
    assert back.oof_probs.dtype == np.float32
    header = store.read_header(result.key)
    assert header is not None
    assert header.fingerprint == result.fingerprint
    assert store.read_run(result.key) == {"host": "here", "micro_f1": None}
    assert path == store.path(result.key)
    assert path.name == "s1-f0.parquet"
    assert store.run_path(result.key).name == "s1-f0.run.json"
    assert store.variants() == ["v"]
    assert store.keys("v") == [result.key]


def test_the_file_is_what_the_contract_says(store: Store, prepared: Prepared) -> None:
    path = store.write(make_result(prepared, ResultKey("v", 1, 2)), {"host": "here"})
    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["id", "split", "fold", *store.labels]
    assert set(frame["split"]) == {"oof", "test"}
    assert (frame["fold"] == 2).all()
    assert (frame[list(store.labels)].dtypes == np.float32).all()
    metadata = json.loads(pq.read_metadata(path).metadata[b"predictions"])
    assert set(metadata) == {
        "schema_version", "key", "fingerprint", "recipe", "variant",
        "labels", "data_hash", "folds_hash", "route", "routes_hash",
    }  # fmt: skip


def test_the_same_result_gives_the_same_bytes(store: Store, prepared: Prepared) -> None:
    result = make_result(prepared, ResultKey("v", 1, 0))
    path = store.write(result, {"time": 1})
    before = path.read_bytes()
    store.write(result, {"time": 2})
    assert path.read_bytes() == before


def test_labels_named_like_columns_are_kept_separate(tmp_path: Path, prepared: Prepared) -> None:
    labels = ("id", "fold", "a.b", "split")
    store = Store(tmp_path, labels)
    result = replace(make_result(prepared, ResultKey("v", 1, 0)), labels=labels)
    store.write(result, {})
    assert np.array_equal(store.read(result.key).oof_probs, result.oof_probs)


def test_nothing_is_there_yet(store: Store, prepared: Prepared) -> None:
    assert store.variants() == []
    assert store.keys("v") == []
    assert store.read_header(ResultKey("v", 1, 0)) is None
    assert store.read_run(ResultKey("v", 1, 0)) == {}
    with pytest.raises(PredictionsError, match=r"run: python run\.py fold v$"):
        store.read(ResultKey("v", 1, 0))
    with pytest.raises(PredictionsError, match="no results"):
        read_member(store, "v", prepared)
    assert read_members(store, (), prepared) == ([], [])


def test_names_stay_in_the_store(store: Store) -> None:
    for name in ("../x", "routes"):
        with pytest.raises(UsageError):
            store.path(ResultKey(name, 1, 0))
    (store.directory / "a copy of v").mkdir(parents=True)
    (store.directory / "a copy of v" / "s1-f0.parquet").touch()
    assert store.variants() == []


def test_a_failed_write_leaves_no_parquet(
    store: Store, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make_result(prepared, ResultKey("v", 1, 0))

    def fail(path: Path, data: bytes | str) -> None:
        if path.suffix == ".parquet":
            raise KeyboardInterrupt
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(data), "utf-8")

    monkeypatch.setattr("competition.predictions.store.write_atomically", fail)
    with pytest.raises(KeyboardInterrupt):
        store.write(result, {})
    assert store.keys("v") == []


BREAKS: dict[str, tuple[Callable[[Result], Result], str]] = {
    "nan": (lambda r: _with_first(r, np.nan), "NaN or infinity"),
    "infinite": (lambda r: _with_first(r, np.inf), "NaN or infinity"),
    "sum": (lambda r: replace(r, test_probs=r.test_probs * np.float32(1.01)), "not probabilities"),
    "negative": (lambda r: _with_first(r, -0.5), "not probabilities"),
    "repeated id": (lambda r: replace(r, test_ids=r.test_ids[[0, *range(19)]]), "more than once"),
    "shape": (lambda r: replace(r, oof_probs=r.oof_probs[:, :2]), "shape"),
    "fewer ids": (lambda r: replace(r, oof_ids=r.oof_ids[1:]), "shape"),
    "label order": (lambda r: replace(r, labels=r.labels[::-1]), "in another order"),
    "labels": (lambda r: replace(r, labels=("x", *r.labels[1:])), "with other labels"),
}  # fmt: skip


def _with_first(result: Result, value: float) -> Result:
    probs = result.oof_probs.copy()
    probs[0, 0] = value
    return replace(result, oof_probs=probs)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_result_is_neither_written_nor_read(
    store: Store, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    change, message = BREAKS[name]
    broken = change(make_result(prepared, ResultKey("v", 1, 0)))
    with pytest.raises(PredictionsError, match=message) as caught:
        store.write(broken, {})
    assert str(store.path(broken.key)) in str(caught.value)
    assert store.keys("v") == []
    if name in ("shape", "fewer ids"):
        return  # cannot be put into a file
    other = Store(store.directory, broken.labels)
    with monkeypatch.context() as patched:
        patched.setattr("competition.predictions.store._check_result", lambda *_: None)
        other.write(broken, {})
    with pytest.raises(PredictionsError, match=message):
        store.read(broken.key)


def test_a_damaged_file_is_never_read_as_something_else(store: Store, prepared: Prepared) -> None:
    result = make_result(prepared, ResultKey("v", 1, 0))
    path = store.write(result, {})
    whole = path.read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(PredictionsError, match=r"damaged|not a result"):
            store.read(result.key)
        with pytest.raises(PredictionsError, match=r"damaged|not a result"):
            store.read_header(result.key)
    messages = []
    for place in range(0, len(whole), 29):
        flipped = bytearray(whole)
        flipped[place] ^= 0x20
        path.write_bytes(bytes(flipped))
        try:
            back = store.read(result.key)
        except PredictionsError as error:
            messages.append(str(error))
            continue
        assert np.array_equal(back.oof_probs, result.oof_probs)
        assert np.array_equal(back.test_probs, result.test_probs)
        assert back.fingerprint == result.fingerprint
    assert len(messages) > 10
    assert all(str(path) in message for message in messages)


def test_foreign_parquet_and_renamed_files_are_refused(store: Store, prepared: Prepared) -> None:
    result = make_result(prepared, ResultKey("v", 1, 0))
    path = store.write(result, {})
    path.rename(path.with_name("s2-f1.parquet"))
    with pytest.raises(PredictionsError, match="renamed"):
        store.read_header(ResultKey("v", 2, 1))
    with pytest.raises(PredictionsError, match="renamed"):
        store.read(ResultKey("v", 2, 1))
    buffer = io.BytesIO()
    pd.DataFrame({"id": ["1"], "p": [0.5]}).to_parquet(buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(PredictionsError, match="not a result"):
        store.read(result.key)


def test_a_damaged_run_file_is_named(store: Store) -> None:
    path = store.run_path(ResultKey("v", 1, 0))
    path.parent.mkdir(parents=True)
    for text in ("{", "[1]", '{"threads": "x"}', '{"rows_per_s": []}', "[" * 100_000):
        path.write_text(text, "utf-8")
        with pytest.raises(PredictionsError, match="not a valid provenance"):
            store.read_run(ResultKey("v", 1, 0))


def forge(path: Path, fields: dict[str, Any]) -> None:
    """Give a result file another header, signed as one is."""
    table, metadata = pq.read_table(path), pq.read_metadata(path).metadata
    text = json.dumps({**json.loads(metadata[b"predictions"]), **fields}).encode()
    digest = hashlib.sha256(text).hexdigest().encode()
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"predictions": text, b"predictions.sha256": digest})


ODD_HEADERS: dict[str, dict[str, Any]] = {
    "a seed that leaves the store": {
        "key": {"variant": "v", "seed": "x/../../../../out/NAME", "fold": 0}
    },
    "a name that leaves the store": {"key": {"variant": "../../v", "seed": 1, "fold": 0}},
    "the routes": {"key": {"variant": "routes", "seed": 1, "fold": 0}},
    "a seed as text": {"key": {"variant": "v", "seed": "1", "fold": 0}},
    "a truth value": {"key": {"variant": "v", "seed": True, "fold": 0}},
    "below 0": {"key": {"variant": "v", "seed": -1, "fold": 0}},
    "another key": {"key": {"variant": "v", "seed": 1, "fold": 0, "x": 1}},
    "no key": {"key": None},
    "a list for the variant": {"variant": []},
    "why as a list": {"variant": {"why": ["x"]}},
    "tune as text": {"variant": {"tune": "x"}},
    "tuned on text": {"variant": {"tune": {"folds": "012"}}},
    "tuned on a mapping": {"variant": {"tune": {"folds": [{"a": 1}]}}},
    "imported as true": {"variant": {"imported": True}},
    "labels as text": {"labels": "abcd"},
    "labels as numbers": {"labels": [1, 2, 3, 4]},
    "a hash as a number": {"data_hash": 5},
    "a fingerprint as null": {"fingerprint": None},
    "a recipe as a list": {"recipe": []},
    "a route as a list": {"route": ["length:short"]},
    "a route that leaves": {"route": "../x"},
    "a version as text": {"schema_version": "1"},
    "a further field": {"more": 1},
}


@pytest.mark.parametrize("odd", ODD_HEADERS)
def test_a_signed_header_that_is_not_typed_is_named_and_left_aside(
    store: Store, prepared: Prepared, odd: str
) -> None:
    fill(store, prepared, "good")
    fill(store, prepared, "v")
    key = store.keys("v")[0]
    forge(store.path(key), ODD_HEADERS[odd])
    with pytest.raises(PredictionsError, match=re.escape(str(store.path(key)))):
        store.read_header(key)
    members, left_out = read_members(store, (), prepared)
    assert [member.name for member in members] == ["good"]
    assert [each.name for each in left_out] == ["v"]
    scores = score_variants(prepared, store.variants())
    assert [each.assessment is not None for each in scores] == [True, False]
    before = sorted(prepared.competition.home.rglob("*"))
    outside = prepared.competition.home / "elsewhere"
    shutil.copytree(store.directory / "v", outside)
    with pytest.raises(HarnessError):
        run_import(prepared.competition, outside, ImportOptions(None, None, {}))
    shutil.rmtree(outside)
    assert sorted(prepared.competition.home.rglob("*")) == before


def test_a_member_has_every_row_in_the_order_of_the_corpus(
    store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "v")
    member = read_member(store, "v", prepared)
    assert member.oof.shape == (len(prepared.corpus.train), len(store.labels))
    assert member.test.shape == (3, len(prepared.corpus.test), len(store.labels))
    assert (member.covers_all, member.seeds, member.route, member.why) == (
        True,
        (1,),
        None,
        "the idea",
    )
    result = store.read(ResultKey("v", 1, 2))
    held_out = prepared.folds.fold_of == 2
    assert np.array_equal(member.oof[held_out], result.oof_probs)
    assert np.array_equal(member.test[2], result.test_probs)


def test_the_order_of_rows_in_a_file_does_not_matter(store: Store, prepared: Prepared) -> None:
    fill(store, prepared, "v")
    before = read_member(store, "v", prepared)
    result = store.read(ResultKey("v", 1, 0))
    turned = replace(
        result,
        oof_ids=result.oof_ids[::-1], oof_probs=result.oof_probs[::-1],
        test_ids=result.test_ids[::-1], test_probs=result.test_probs[::-1],
    )  # fmt: skip
    store.write(turned, {})
    after = read_member(store, "v", prepared)
    assert np.array_equal(after.oof, before.oof)
    assert np.array_equal(after.test, before.test)


def test_seeds_are_averaged_in_log_space_and_only_whole_ones(
    store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "v", seeds=(1, 2, 3))
    store.path(ResultKey("v", 3, 1)).unlink()
    member = read_member(store, "v", prepared)
    assert member.seeds == (1, 2)
    assert find_missing_folds(store, "v", 3) == {1: [], 2: [], 3: [1]}
    parts = [
        read_member(store, "v", prepared, seeds=[seed]).oof.astype(np.float64) for seed in (1, 2)
    ]
    expected = np.sqrt(np.maximum(parts[0], 1e-6) * np.maximum(parts[1], 1e-6))
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.allclose(member.oof, expected, atol=1e-6)


def test_an_average_keeps_nan_and_floors_zero() -> None:
    one = np.array([[1.0, 0.0], [np.nan, np.nan]], dtype=np.float32)
    assert average_in_log_space([one]) is one
    both = average_in_log_space([one, one[:, ::-1]])
    assert np.allclose(both[0], 0.5)
    assert np.isnan(both[1]).all()


def test_members_are_averaged_without_holding_every_seed(
    store: Store, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, prepared, "v", seeds=(1, 2, 3, 4))
    whole = read_member(store, "v", prepared)
    monkeypatch.setattr(log_mean, "CHUNK_ROWS", 7)
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    read_seed = members._read_seed

    def watch(*given: Any) -> tuple[np.ndarray, np.ndarray]:
        nonlocal most
        oof, test = read_seed(*given)
        alive.append(weakref.ref(oof))
        most = max(most, sum(each() is not None for each in alive))
        return oof, test

    monkeypatch.setattr(members, "_read_seed", watch)
    again = read_member(store, "v", prepared)
    assert most <= 2  # that of the seed before, and the new one
    assert np.array_equal(again.oof, whole.oof)
    assert np.array_equal(again.test, whole.test)


def test_members_beyond_the_bound_are_read_again(
    store: Store, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"v{place}" for place in range(6)]
    for name in names:
        fill(store, prepared, name)
    scores = score_variants(prepared, names)
    kept = read_member(store, "v0", prepared).n_bytes
    monkeypatch.setattr(variant_scores, "MAX_KEPT_BYTES", kept)
    monkeypatch.setattr(threads, "MAX_WORKERS", 1)
    alive: weakref.WeakSet[Member] = weakref.WeakSet()
    most = 0

    def watch(*given: Any) -> Member:
        nonlocal most
        member = read_member(*given)
        alive.add(member)
        most = max(most, len(alive))
        return member

    monkeypatch.setattr(variant_scores, "read_member", watch)
    again = score_variants(prepared, names)
    assert most <= 3  # the one that is kept, the one before, and the new one
    for one, other in zip(scores, again, strict=True):
        assert one.assessment is not None
        assert other.assessment is not None
        assert one.assessment.primary == other.assessment.primary
        assert (one.on_test is None) == (other.on_test is None)
        if one.on_test is not None and other.on_test is not None:
            assert one.on_test.expected == other.on_test.expected


def _drop_fold(store: Store, prepared: Prepared) -> None:
    store.path(ResultKey("v", 1, 1)).unlink()


def _change(change: Callable[[Result], Result], fold: int = 1) -> Callable[[Store, Prepared], None]:
    def apply(store: Store, prepared: Prepared) -> None:
        store.write(change(store.read(ResultKey("v", 1, fold))), {})

    return apply


def _foreign_row(result: Result) -> Result:
    ids = result.oof_ids.copy()
    ids[0] = "no such id"
    return replace(result, oof_ids=ids)


REFUSED: dict[str, tuple[Callable[[Store, Prepared], None], str]] = {
    "fold missing": (_drop_fold, "seed 1 lacks folds 1"),
    "other folds": (_change(lambda r: replace(r, folds_hash="other")), "other folds"),
    "other data": (_change(lambda r: replace(r, data_hash="other")), "other data"),
    "fold too high": (_change(lambda r: replace(r, key=ResultKey("v", 1, 3))), "other folds"),
    "other recipe": (_change(lambda r: replace(r, recipe="other")), "another recipe"),
    "row missing": (
        _change(lambda r: replace(r, oof_ids=r.oof_ids[1:], oof_probs=r.oof_probs[1:])),
        "1 of [0-9]+ rows are missing",
    ),
    "test row missing": (
        _change(lambda r: replace(r, test_ids=r.test_ids[1:], test_probs=r.test_probs[1:])),
        "test rows: 1 of 20 rows are missing",
    ),
    "unknown row": (_change(_foreign_row), "no such id does not belong"),
    "no rows": (
        _change(lambda r: replace(r, oof_ids=r.oof_ids[:0], oof_probs=r.oof_probs[:0])),
        "rows are missing",
    ),
    "route": (
        _change(lambda r: replace(r, route="length:short", routes_hash="x")),
        "another recipe",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_together_is_refused(
    store: Store, prepared: Prepared, name: str
) -> None:
    damage, message = REFUSED[name]
    fill(store, prepared, "v")
    fill(store, prepared, "good")
    damage(store, prepared)
    with pytest.raises(PredictionsError, match=message):
        read_member(store, "v", prepared)
    with pytest.raises(PredictionsError, match=message):
        read_members(store, ["v"], prepared)
    members, left_out = read_members(store, (), prepared)
    assert [member.name for member in members] == ["good"]
    assert [each.name for each in left_out] == ["v"]


def test_files_rewritten_while_they_are_read_are_not_mixed(
    store: Store, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, prepared, "v")
    last = make_result(prepared, ResultKey("v", 1, 2), recipe="new")
    read = Store.read

    def read_while_fold_overwrites(self: Store, key: ResultKey) -> Result:
        if key.fold == 1:
            store.write(last, {})
        return read(self, key)

    monkeypatch.setattr(Store, "read", read_while_fold_overwrites)
    with pytest.raises(PredictionsError, match=r"s1-f2\.parquet was replaced"):
        read_member(store, "v", prepared)


@pytest.mark.parametrize("change", [{"data_hash": "x"}, {"folds_hash": "x"}])
def test_what_was_imported_is_to_be_imported_again(
    store: Store, prepared: Prepared, change: dict[str, str]
) -> None:
    variant = {"why": "imported from kim.csv", "imported": {"test": "per fold"}}
    made = replace(make_result(prepared, ResultKey("kim", 0, 0)), variant=variant)
    store.write(replace(made, **change), {})  # type: ignore[arg-type]
    with pytest.raises(PredictionsError, match=r"run\.py import FILE --as kim .*kim\.csv"):
        read_member(store, "kim", prepared)


def test_a_row_of_another_fold_is_refused(store: Store, prepared: Prepared) -> None:
    fill(store, prepared, "v")
    first, second = store.read(ResultKey("v", 1, 0)), store.read(ResultKey("v", 1, 1))
    ids = first.oof_ids.copy()
    ids[0] = second.oof_ids[0]
    store.write(replace(first, oof_ids=ids), {})
    with pytest.raises(PredictionsError, match="does not belong in this file"):
        read_member(store, "v", prepared)


def test_members_come_by_name_however_they_are_named(store: Store, prepared: Prepared) -> None:
    for name in ("b", "a"):
        fill(store, prepared, name)
    assert [m.name for m in read_members(store, ["b", "a"], prepared)[0]] == ["a", "b"]
    assert [m.name for m in read_members(store, (), prepared)[0]] == ["a", "b"]
    with pytest.raises(UsageError, match="twice"):
        read_members(store, ["a", "a"], prepared)


def fill_routes(store: Store, prepared: Prepared, routes: Routes) -> None:
    for part in routes.names:
        fill(store, prepared, part, routes=routes, part=part)


def test_specialists_become_one_member(store: Store, prepared: Prepared, routes: Routes) -> None:
    fill_routes(store, prepared, routes)
    alone = read_member(store, "short", prepared)
    assert not alone.covers_all
    assert np.array_equal(~np.isnan(alone.oof[:, 0]), routes.train == "short")
    members, left_out = read_members(store, (), prepared)
    assert left_out == []
    assert [(m.name, m.route, m.covers_all) for m in members] == [("route:length", "length", True)]
    assert (alone.parts, members[0].parts) == (("short",), ("long", "medium", "short"))
    assert np.isfinite(members[0].oof).all()
    assert np.isfinite(members[0].test).all()
    _assert_holds(members[0], alone)


def _assert_holds(joined: Member, part: Member) -> None:
    rows = ~np.isnan(part.oof[:, 0])
    assert np.array_equal(joined.oof[rows], part.oof[rows])
    rows = ~np.isnan(part.test[0, :, 0])
    assert np.array_equal(joined.test[:, rows], part.test[:, rows])


def test_specialists_share_their_seeds(store: Store, prepared: Prepared, routes: Routes) -> None:
    fill_routes(store, prepared, routes)
    fill(store, prepared, "long", seeds=(2,), routes=routes, part="long")
    (member,), _ = read_members(store, (), prepared)
    assert member.seeds == (1,)
    _assert_holds(member, read_member(store, "long", prepared, seeds=[1]))


def test_specialists_without_a_common_seed(
    store: Store, prepared: Prepared, routes: Routes
) -> None:
    for seed, part in enumerate(routes.names):
        fill(store, prepared, part, seeds=(seed,), routes=routes, part=part)
    _, left_out = read_members(store, (), prepared)
    assert all("no seed in common" in each.reason for each in left_out)
    assert len(left_out) == 3


def test_partial_members_alone_are_left_out(
    store: Store, prepared: Prepared, routes: Routes
) -> None:
    fill_routes(store, prepared, routes)
    with pytest.raises(PredictionsError, match="rows without a prediction"):
        read_members(store, ["short", "long"], prepared)
    fill(store, prepared, "short2", routes=routes, part="short")
    with pytest.raises(PredictionsError, match="rows twice"):
        read_members(store, ["short", "short2", "medium", "long"], prepared)
    members, left_out = read_members(store, (), prepared)
    assert [member.parts for member in members] == [("long", "medium", "short")]
    assert [each.name for each in left_out] == ["short2"]
    assert "rows without a prediction" in left_out[0].reason


def test_sets_of_specialists_are_distinguished_by_their_names(
    store: Store, prepared: Prepared, routes: Routes
) -> None:
    for end in ("", "-warm", "@ko-mini"):
        for part in routes.names:
            fill(store, prepared, f"{part}{end}", routes=routes, part=part)
    fill(store, prepared, "long-cold", routes=routes, part="long")
    members, left_out = read_members(store, (), prepared)
    assert {member.name: set(member.parts) for member in members} == {
        f"route:length{end}": {f"{part}{end}" for part in routes.names}
        for end in ("", "-warm", "@ko-mini")
    }
    assert all(member.covers_all for member in members)
    assert [each.name for each in left_out] == ["long-cold"]
    for member in members:
        assert find_specialists(store, member.name) == member.parts
    named = ("short", "medium-warm", "long@ko-mini")
    (mixed,), _ = read_members(store, named, prepared)
    assert (mixed.name, mixed.parts) == ("route:length", tuple(sorted(named)))
    store.path(ResultKey("short", 1, 0)).unlink()
    members, left_out = read_members(store, (), prepared)
    assert [member.name for member in members] == ["route:length-warm", "route:length@ko-mini"]
    assert {each.name for each in left_out} == {"long", "medium", "short", "long-cold"}


def test_one_specialist_for_each_part_is_a_member_whatever_the_names(
    store: Store, prepared: Prepared, routes: Routes
) -> None:
    for name, part in (("brief", "short"), ("medium-warm", "medium"), ("long", "long")):
        fill(store, prepared, name, routes=routes, part=part)
    (member,), left_out = read_members(store, (), prepared)
    assert (member.name, left_out) == ("route:length", [])
    assert find_specialists(store, "route:length") == member.parts
    assert find_specialists(store, "route:length-warm") == ()


def test_other_routes_are_refused(store: Store, prepared: Prepared, routes: Routes) -> None:
    fill(store, prepared, "short", routes=replace(routes, hash="other"), part="short")
    with pytest.raises(PredictionsError, match="other length routes"):
        read_member(store, "short", prepared)
    (prepared.competition.oof_dir / "routes" / "length.csv").unlink()
    with pytest.raises(FoldsError):
        read_member(store, "short", prepared)
    assert len(read_members(store, (), prepared)[1]) == 1


def test_an_unknown_route_is_refused(store: Store, prepared: Prepared, routes: Routes) -> None:
    for fold in range(3):
        result = make_result(prepared, ResultKey("v", 1, fold))
        store.write(replace(result, route="topic:sports", routes_hash="x"), {})
    with pytest.raises(PredictionsError, match="unknown"):
        read_member(store, "v", prepared)


def test_a_file_of_another_form_is_no_result(store: Store, prepared: Prepared) -> None:
    fill(store, prepared, "v")
    path = store.path(ResultKey("v", 1, 0))
    for name in ("s042-f0.parquet", "s1-f00.parquet", "s１-f0.parquet"):
        path.with_name(name).write_bytes(path.read_bytes())
    assert {key.seed for key in store.keys("v")} == {1}
    assert len(store.keys("v")) == prepared.folds.count
