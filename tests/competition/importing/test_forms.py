"""Predictions in common formats: lists, arrays, other ids, other names, other orders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import UsageError
from competition.folds.kfold import Prepared
from competition.importing.cells import CellTable
from competition.importing.columns import ColumnError, find_columns
from competition.importing.importing import ImportOptions, ImportReport, run_import
from competition.importing.places import order_by_index
from competition.predictions.members import read_member
from competition.predictions.store import Store

SIGHT = 2.0


def draw(prepared: Prepared, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return oof (N, C), which sees the gold labels, and test (K, M, C)."""
    rng = np.random.default_rng(seed)
    n_labels = prepared.competition.profile.n_labels
    gold = prepared.corpus.train.gold
    logits = rng.normal(0, 1, (len(gold), n_labels))
    logits[np.arange(len(gold)), gold] += SIGHT
    test = rng.normal(0, 1.5, (prepared.folds.count, len(prepared.corpus.test), n_labels))
    return soften(logits), soften(test)


def soften(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits)
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


@pytest.fixture
def table(prepared: Prepared) -> pd.DataFrame:
    """Out-of-fold rows with their folds, and one average of the test rows."""
    oof, test = draw(prepared)
    labels = list(prepared.competition.profile.labels)
    train = pd.DataFrame(oof, columns=labels).assign(
        id=prepared.corpus.train.ids, split="oof", fold=prepared.folds.fold_of.astype(float)
    )
    average = pd.DataFrame(test.mean(axis=0), columns=labels)
    average = average.assign(id=prepared.corpus.test.ids, split="test", fold=np.nan)
    return pd.concat([train, average], ignore_index=True)


def take(prepared: Prepared, path: Path, **options: object) -> ImportReport:
    return run_import(prepared.competition, path, ImportOptions(run={}, **options))  # type: ignore[arg-type]


def as_lists(frame: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Write the form that blend writes: pred_label, and probs as the text of a list."""
    probs = [str(row) for row in frame[labels].to_numpy().tolist()]
    pred = frame[labels].to_numpy().argmax(axis=1)
    return frame.drop(columns=labels).assign(probs=probs, pred_label=[labels[i] for i in pred])


FORMS: dict[str, Callable[[pd.DataFrame, list[str]], pd.DataFrame]] = {
    "lists": as_lists,
    "lists as numpy prints them": lambda f, names: f.drop(columns=names).assign(
        probabilities=[str(np.array(row)).replace("\n", "") for row in f[names].to_numpy()]
    ),
    "objects by label": lambda f, names: f.drop(columns=names).assign(
        probs=[json.dumps(row) for row in f[names[::-1]].to_dict("records")]
    ),
    "float ids": lambda f, _: f.assign(id=f["id"].astype(float)),
    "ids with zeros in front": lambda f, _: f.assign(id=f["id"].str.zfill(8)),
    "train for oof": lambda f, _: f.assign(split=f["split"].replace("oof", "train")),
    "other names": lambda f, _: f.rename(
        columns={"id": "ID", "split": "Dataset", "fold": "kfold"}
    ).assign(Dataset=lambda g: g["Dataset"].replace({"oof": "Valid", "test": "TEST"})),
    "a flag for test": lambda f, _: f.assign(is_test=(f["split"] == "test").astype(int)).drop(
        columns="split"
    ),
    "prefixed": lambda f, names: f.rename(columns={name: f"prob_{name}" for name in names}),
    "mangled": lambda f, names: f.rename(
        columns={name: f"{name.replace(':', '.')}_proba" for name in names}
    ),
    "numbered": lambda f, names: f.rename(columns={n: f"p{i}" for i, n in enumerate(names)}),
    "no split, other number of rows": lambda f, _: f.drop(columns="split"),
    "three digits": lambda f, names: f.assign(**f[names].round(3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_usual_form_is_taken(
    prepared: Prepared, store: Store, table: pd.DataFrame, tmp_path: Path, form: str
) -> None:
    labels = list(prepared.competition.profile.labels)
    FORMS[form](table, labels).to_csv(tmp_path / "kim.csv", index=False)
    report = take(prepared, tmp_path / "kim.csv")
    assert report.offences == ()
    member = read_member(store, "kim", prepared)
    oof, test = draw(prepared)
    np.testing.assert_allclose(member.oof, oof, atol=2e-3)
    np.testing.assert_allclose(member.test[1], test.mean(axis=0), atol=2e-3)
    (scored,) = report.scores.values()
    f1, area = scored.values()
    assert 0.6 < f1 < 1
    assert 0.6 < area < 1


@pytest.mark.parametrize("name", ["kim.jsonl", "kim.json", "KIM.CSV", "kim.tsv", "kim.csv.gz"])
def test_a_table_is_read_whatever_its_file_is(
    prepared: Prepared, store: Store, table: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if "json" in name:
        probs = table[list(store.labels)].to_numpy().tolist()
        told = table[["id", "split", "fold"]].assign(probs=probs)
        told.to_json(path, orient="records", lines=name.endswith("l"))
    else:
        table.to_csv(path, index=False, sep="\t" if name.endswith("tsv") else ",")
    assert take(prepared, path, save_as="kim").offences == ()
    np.testing.assert_allclose(
        read_member(store, "kim", prepared).oof, draw(prepared)[0], atol=1e-6
    )


@pytest.mark.parametrize("by_fold", [False, True])
def test_arrays_are_taken_in_the_order_of_the_files(
    prepared: Prepared, store: Store, tmp_path: Path, by_fold: bool
) -> None:
    oof, test = draw(prepared)
    np.save(tmp_path / "oof.npy", oof.astype(np.float32))
    np.save(tmp_path / "test.npy", test if by_fold else test.mean(axis=0))
    shown = {"folds_hash": prepared.folds.hash[:10], "save_as": "kim"}
    report = take(prepared, tmp_path / "oof.npy", test=tmp_path / "test.npy", **shown)
    assert report.offences == ()
    assert any("in the order of train.csv" in note for note in report.notes)
    member = read_member(store, "kim", prepared)
    np.testing.assert_allclose(member.oof, oof, atol=1e-6)
    assert member.test_is_average is not by_fold
    np.savez(tmp_path / "both.npz", oof=oof, test=test if by_fold else test.mean(axis=0))
    again = take(prepared, tmp_path / "both.npz", folds_hash=shown["folds_hash"])
    assert again.offences == ()


def test_an_array_without_folds_is_answered_with_what_to_write(
    prepared: Prepared, store: Store, tmp_path: Path
) -> None:
    oof, test = draw(prepared)
    np.save(tmp_path / "oof.npy", oof)
    np.save(tmp_path / "test.npy", test)
    both = {"test": tmp_path / "test.npy", "save_as": "kim"}
    (offence,) = take(prepared, tmp_path / "oof.npy", **both).offences
    assert "--folds-hash" in offence.remedy
    snippet = offence.remedy.partition("save a table: ")[2].replace("'oof.csv'", "path")
    known = {"pd": pd, "oof": oof, "labels": prepared.competition.profile.labels}
    known |= {"train_ids": prepared.corpus.train.ids, "folds": prepared.folds.fold_of}
    exec(snippet, known | {"path": tmp_path / "oof.csv"})
    assert take(prepared, tmp_path / "oof.csv", **both).offences == ()
    np.testing.assert_allclose(read_member(store, "kim", prepared).oof, oof, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        (lambda a: a.T, "an array (4, 64)", "transpose it"),
        (lambda a: a[1:], "an array (63, 4)", "of every row"),
        (lambda a: a.argmax(axis=1), "an array (64,)", "these are labels"),
        (lambda a: a.astype(object), "Python objects", "save numbers"),
    ],
)
def test_an_array_that_does_not_fit_is_said_once(
    prepared: Prepared,
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    said: str,
    remedy: str,
) -> None:
    np.save(tmp_path / "oof.npy", change(draw(prepared)[0]), allow_pickle=True)
    (offence,) = take(prepared, tmp_path / "oof.npy").offences
    assert said in offence.found
    assert remedy in offence.remedy


def test_one_split_alone_is_said_with_its_score_and_completed_by_another_file(
    prepared: Prepared, table: pd.DataFrame, tmp_path: Path
) -> None:
    for split in ("oof", "test"):
        table[table["split"] == split].to_csv(tmp_path / f"{split}.csv", index=False)
    report = take(prepared, tmp_path / "oof.csv")
    (offence,) = report.offences
    assert "no test rows" in offence.found
    assert any("out-of-fold rows that could be read: micro-F1" in note for note in report.notes)
    (offence,) = take(prepared, tmp_path / "test.csv").offences
    assert "no out-of-fold rows" in offence.found
    whole = take(prepared, tmp_path / "oof.csv", test=tmp_path / "test.csv", save_as="kim")
    assert whole.offences == ()
    (offence,) = take(prepared, tmp_path / "test.csv", test=tmp_path / "oof.csv").offences[:1]
    assert "where oof rows belong" in offence.found


def test_other_ids_are_one_offence_and_not_one_for_each_row(
    prepared: Prepared, table: pd.DataFrame, tmp_path: Path
) -> None:
    table.assign(id=[f"r{i}" for i in range(len(table))]).to_csv(tmp_path / "kim.csv", index=False)
    offences = take(prepared, tmp_path / "kim.csv").offences
    assert len(offences) == 2  # of either split
    assert "64 of 64 oof rows have ids that the data does not have (first: r0" in offences[0].found
    assert "remove the row" not in offences[0].remedy


def test_rows_that_a_model_was_trained_on_are_not_taken_for_out_of_fold_rows(
    prepared: Prepared, table: pd.DataFrame, tmp_path: Path
) -> None:
    table.loc[:30, "split"] = "train"
    table["split"] = table["split"].replace("oof", "valid")
    table.to_csv(tmp_path / "kim.csv", index=False)
    (offence,) = take(prepared, tmp_path / "kim.csv").offences
    assert "the column has both 'train' and 'valid'" in offence.found


def test_columns_without_names_may_be_in_alphabetical_order(
    prepared: Prepared, store: Store, tmp_path: Path
) -> None:
    labels = prepared.competition.profile.labels
    by_name = sorted(range(len(labels)), key=lambda i: labels[i])
    assert by_name != list(range(len(labels)))
    oof, test = draw(prepared)
    np.savez(tmp_path / "kim.npz", oof=oof[:, by_name], test=test[:, :, by_name])
    shown = prepared.folds.hash[:10]
    report = take(prepared, tmp_path / "kim.npz", folds_hash=shown)
    assert any("another order of the labels (alphabetical): read so" in n for n in report.notes)
    np.testing.assert_allclose(read_member(store, "kim", prepared).oof, oof, atol=1e-6)
    odd = [2, 0, 3, 1]
    np.savez(tmp_path / "odd.npz", oof=oof[:, odd], test=test[:, :, odd])
    (offence,) = take(prepared, tmp_path / "odd.npz", folds_hash=shown).offences
    assert "the columns are in another order than the profile's labels" in offence.found
    order = tmp_path / "order.json"
    for content in (
        json.dumps([labels[i] for i in odd]),
        json.dumps({labels[i]: at for at, i in enumerate(odd)}),
        json.dumps({"relations": [labels[i] for i in odd]}),
        "\n".join(labels[i] for i in odd),
    ):
        order.write_text(content, "utf-8")
        options = {"folds_hash": shown, "label_order": str(order)}
        assert take(prepared, tmp_path / "odd.npz", **options).offences == ()
    np.testing.assert_allclose(read_member(store, "odd", prepared).oof, oof, atol=1e-6)
    order.write_text("no_relation\nper:cousin", "utf-8")
    with pytest.raises(UsageError, match="other labels than the profile"):
        take(prepared, tmp_path / "odd.npz", **options)


def test_a_named_order_is_not_applied_to_a_file_in_another_order(
    prepared: Prepared, store: Store, tmp_path: Path
) -> None:
    labels, odd = prepared.competition.profile.labels, [2, 0, 3, 1]
    oof, test = draw(prepared)
    train = pd.DataFrame(oof[:, odd]).assign(id=prepared.corpus.train.ids)
    train.to_csv(tmp_path / "oof.csv", index=False)
    order = tmp_path / "order.txt"
    order.write_text("\n".join(labels[i] for i in odd), "utf-8")
    options = {
        "folds_hash": prepared.folds.hash[:10],
        "label_order": str(order),
        "test": tmp_path / "test.csv",
    }
    average = pd.DataFrame(test.mean(axis=0)[:, odd]).assign(id=prepared.corpus.test.ids)
    average[[1, 0, 3, 2, "id"]].to_csv(tmp_path / "test.csv", index=False)
    (offence,) = take(prepared, tmp_path / "oof.csv", **options).offences
    assert "the columns are in another order than those of oof.csv" in offence.found
    for columns in (average, average.set_axis([*(labels[i] for i in odd), "id"], axis=1)):
        columns.to_csv(tmp_path / "test.csv", index=False)
        assert take(prepared, tmp_path / "oof.csv", **options).offences == ()
        member = read_member(store, "oof", prepared)
        np.testing.assert_allclose(member.oof, oof, atol=1e-6)
        np.testing.assert_allclose(member.test[0], test.mean(axis=0), atol=1e-6)
        shutil.rmtree(prepared.competition.oof_dir / "oof")


def test_an_order_that_is_found_moves_no_columns_with_names(
    prepared: Prepared, store: Store, tmp_path: Path
) -> None:
    labels = prepared.competition.profile.labels
    by_name = sorted(range(len(labels)), key=lambda i: labels[i])
    oof, test = draw(prepared)
    np.save(tmp_path / "oof.npy", oof[:, by_name])
    average = pd.DataFrame(test.mean(axis=0), columns=list(labels))
    average.assign(id=prepared.corpus.test.ids).to_csv(tmp_path / "test.csv", index=False)
    hash_, path = prepared.folds.hash[:10], tmp_path / "test.csv"
    report = take(prepared, tmp_path / "oof.npy", folds_hash=hash_, test=path)
    assert any("(alphabetical): read so" in note for note in report.notes)
    member = read_member(store, "oof", prepared)
    np.testing.assert_allclose(member.oof, oof, atol=1e-6)
    np.testing.assert_allclose(member.test[0], test.mean(axis=0), atol=1e-6)


def test_columns_whose_names_and_numbers_contradict_each_other_are_refused(
    prepared: Prepared, table: pd.DataFrame, tmp_path: Path
) -> None:
    labels = list(prepared.competition.profile.labels)
    turned = table.assign(**{label: table[labels[i - 1]] for i, label in enumerate(labels)})
    turned.to_csv(tmp_path / "kim.csv", index=False)
    report = take(prepared, tmp_path / "kim.csv")
    (offence,) = report.offences
    assert "the columns hold other labels than their names say" in offence.found
    assert "permuted micro-F1" in offence.found
    order = tmp_path / "order.txt"
    order.write_text("\n".join(labels[i - 1] for i in range(len(labels))), "utf-8")
    assert take(prepared, tmp_path / "kim.csv", label_order=str(order)).offences == ()


def test_a_label_may_be_named_as_a_split_usually_is(prepared: Prepared) -> None:
    profile = prepared.competition.profile.model_copy(update={"labels": ("none", "part", "index")})
    names = ("id", "set", "cv", "none", "part", "index")
    cells = CellTable("t.csv", {name: np.zeros(1) for name in names}, [2])
    found = find_columns(cells, profile)
    assert (found.id, found.split, found.fold) == ("id", "set", "cv")
    assert found.labels == profile.labels
    prefixed = ("index", "p_none", "p_part", "p_index", "part")
    found = find_columns(CellTable("t.csv", {n: np.zeros(1) for n in prefixed}, [2]), profile)
    assert (found.id, found.split, found.labels) == ("index", "part", prefixed[1:4])
    lacking = {name: np.zeros(1) for name in ("id", "fold", "none", "part")}
    with pytest.raises(ColumnError) as caught:
        find_columns(CellTable("t.csv", lacking, [2]), profile)
    assert [column for column, _, _ in caught.value.faults] == ["index"]


def test_the_index_of_a_data_frame_says_which_row_each_line_is(
    prepared: Prepared, table: pd.DataFrame, store: Store, tmp_path: Path
) -> None:
    oof, test = draw(prepared)
    parts = {}
    for split in ("oof", "test"):
        part = table[table["split"] == split].drop(columns=["id", "split"])
        parts[split] = part if split == "oof" else part.drop(columns="fold")
    for name, change in (
        ("shuffled", lambda frame: frame.sample(frac=1, random_state=1)),
        ("ordered", lambda frame: frame.set_axis(range(7, 7 + len(frame)))),
    ):
        for split, part in parts.items():
            change(part).to_csv(tmp_path / f"{name}-{split}.csv")
        paths = [tmp_path / f"{name}-{split}.csv" for split in parts]
        report = take(prepared, paths[0], test=paths[1], save_as=name)
        assert report.offences == ()
        assert any("data frame's index" in note for note in report.notes) == (name == "shuffled")
        member = read_member(store, name, prepared)
        np.testing.assert_allclose(member.oof, oof, atol=1e-6)
        np.testing.assert_allclose(member.test[1], test.mean(axis=0), atol=1e-6)
    again = parts["oof"].set_axis([i // 2 for i in range(len(parts["oof"]))])
    again.to_csv(tmp_path / "again.csv")
    (offence,) = take(prepared, tmp_path / "again.csv", test=tmp_path / "ordered-test.csv").offences
    assert "does not say which" in offence.found


def test_an_index_that_may_be_ids_or_places_is_not_guessed() -> None:
    known = np.array(["1", "0", "2"], dtype=object)
    for index, wanted in ((["0", "1", "2"], ["1", "0", "2"]), (["0", "2", "1"], None)):
        found = order_by_index(np.array(index, dtype=object), known)
        assert (None if found is None else found.tolist()) == wanted
