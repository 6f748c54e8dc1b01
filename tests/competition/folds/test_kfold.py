"""Folds: a fair partition that tears no group, made once and never changed in silence."""

from __future__ import annotations

import errno
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.data.corpus import read_corpus
from competition.data.groups import build_groups, sample_rows, share_out
from competition.data.rows import COLUMNS, OFFSET_COLUMNS, Rows, build_frame
from competition.errors import FoldsError, ProfileError, UsageError
from competition.folds.assignment import build_folds, count_leaking
from competition.folds.kfold import read_or_make_folds, read_prepared
from competition.folds.largest_group import check_largest_group
from competition.lease import Leases
from competition.profile import Competition, FoldRules, resolve_competition
from tests.conftest import N_TRAIN, TINY_PROFILE, leave_lease, write_foreign, write_tiny


def make_pairs(*triples: tuple[str, str, str]) -> Rows:
    """Rows of (sentence, subject, object); offsets do not matter here."""
    columns: dict[str, list[object]] = {name: [] for name in COLUMNS}
    for i, (sentence, subject, object_) in enumerate(triples):
        values = {"id": str(i), "sentence": sentence, "subject_word": subject}
        values["object_word"] = object_
        for name in COLUMNS:
            columns[name].append(values.get(name, 0 if name in OFFSET_COLUMNS else None))
    return Rows(build_frame(columns), np.zeros(len(triples), dtype=np.int16))


def with_profile(tmp_path: Path, old: str, new: str, limit: int | None = None) -> Competition:
    """The tiny competition under changed rules, its artefacts kept."""
    path = write_tiny(tmp_path)
    assert TINY_PROFILE.count(old) == 1
    path.write_text(TINY_PROFILE.replace(old, new), encoding="utf-8")
    return resolve_competition(str(path), None, limit, home=tmp_path)


def own_file(competition: Competition, fold_of: Callable[[int], int]) -> Path:
    path = competition.oof_dir / "folds.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["id,fold", *(f"{i},{fold_of(i)}" for i in reversed(range(N_TRAIN)))]
    path.write_text("\r\n".join(lines), encoding="utf-8")
    return path


# --- groups


def test_rows_are_linked_through_sentences_and_pairs_in_either_order() -> None:
    rows = make_pairs(
        ("s1", "a", "b"),
        ("s2", "b", "a"),  # the pair of row 0
        ("s2", "c", "d"),  # the sentence of row 1
        ("s3", "a", "c"),  # words of others, but a pair of its own
        ("s4", "d", "c"),  # the pair of row 2
        ("a", "s1", "b"),  # a word that is another row's sentence
    )
    assert build_groups(rows, ("sentence", "entity_pair")).tolist() == [0, 0, 0, 1, 0, 2]
    assert build_groups(rows, ("entity_pair",)).tolist() == [0, 0, 1, 2, 1, 3]
    assert build_groups(rows, ("sentence",)).tolist() == [0, 1, 1, 2, 3, 4]
    assert build_groups(rows, ()).tolist() == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.tuples(*[st.sampled_from("abcd")] * 3), min_size=1, max_size=12))
def test_groups_are_the_connected_components(triples: list[tuple[str, str, str]]) -> None:
    rows = make_pairs(*triples)
    groups = build_groups(rows, ("sentence", "entity_pair"))
    wanted = list(range(len(triples)))
    for _ in triples:  # spread the smallest number until nothing changes
        for i, (s, a, b) in enumerate(triples):
            for j, (t, c, d) in enumerate(triples):
                if s == t or {a, b} == {c, d}:
                    wanted[i] = wanted[j] = min(wanted[i], wanted[j])
    assert groups.tolist() == pd.factorize(np.array(wanted))[0].tolist()


# --- dealing


@given(
    st.integers(2, 7),
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=14, max_size=80),
    st.integers(0, 3),
)
def test_folds_part_the_rows_and_tear_no_group(
    count: int, shapes: list[tuple[int, int]], seed: int
) -> None:
    groups = np.repeat(np.arange(len(shapes)), [size for size, _ in shapes]).astype(np.int32)
    sizes, offsets = zip(*shapes, strict=True)
    labels = ((groups * 7 + np.repeat(offsets, sizes)) % 4).astype(np.int16)
    if np.bincount(labels).max() < count:
        with pytest.raises(FoldsError, match=r"set a lower folds\.count"):
            build_folds(labels, groups, count=count, seed=seed)
        return
    fold_of = build_folds(labels, groups, count=count, seed=seed)
    assert set(fold_of.tolist()) == set(range(count))
    assert count_leaking(groups, fold_of) == 0


@pytest.mark.parametrize("count", [2, 5, 10])
def test_labels_are_spread_evenly(count: int) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.choice([1, 1, 1, 2, 3, 9], size=3_000)
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    labels = rng.choice(6, p=[0.5, 0.3, 0.1, 0.06, 0.03, 0.01], size=len(groups)).astype(np.int16)
    fold_of = build_folds(labels, groups, count=count, seed=1)
    table = np.zeros((count, 6), dtype=int)
    np.add.at(table, (fold_of, labels), 1)
    assert (table.max(axis=0) - table.min(axis=0)).max() <= 2
    assert count_leaking(groups, fold_of) == 0


def test_the_seed_alone_decides(tiny_competition: Competition) -> None:
    rows = read_corpus(tiny_competition).train
    groups = build_groups(rows, ("sentence", "entity_pair"))
    first = build_folds(rows.gold, groups, count=3, seed=1)
    assert (first == build_folds(rows.gold, groups, count=3, seed=1)).all()
    assert (first != build_folds(rows.gold, groups, count=3, seed=2)).any()


def test_the_seed_shuffles_equal_and_different_groups() -> None:
    alone = np.arange(500, dtype=np.int32)
    alike = np.zeros(500, dtype=np.int16)
    sizes = np.arange(1, 31)
    different = np.repeat(np.arange(30), sizes).astype(np.int32)
    for labels, groups in ((alike, alone), (np.zeros(sizes.sum(), dtype=np.int16), different)):
        one, two = (build_folds(labels, groups, count=5, seed=seed) for seed in (1, 2))
        assert (one != two).mean() > 0.5


def test_without_group_by_folds_are_plainly_stratified(tmp_path: Path) -> None:
    prepared = read_prepared(with_profile(tmp_path, "seed = 7", "seed = 7\ngroup_by = []"))
    table = np.zeros((3, 4), dtype=int)
    np.add.at(table, (prepared.folds.fold_of, prepared.corpus.train.gold), 1)
    assert (table.max(axis=0) - table.min(axis=0)).max() <= 1
    assert prepared.groups.tolist() == list(range(N_TRAIN))


def test_more_folds_than_the_data_carries_are_refused() -> None:
    labels = np.array([0, 1, 0, 1], dtype=np.int16)
    with pytest.raises(FoldsError, match="4 train rows in 2 groups cannot fill 3 folds"):
        build_folds(labels, np.array([0, 0, 1, 1], dtype=np.int32), count=3, seed=0)
    with pytest.raises(FoldsError, match=r"cannot fill 3 folds .* set a lower folds\.count"):
        build_folds(labels, np.arange(4, dtype=np.int32), count=3, seed=0)


def refuse_group(rows: Rows, count: int = 2) -> str:
    rules = FoldRules(count=count)
    groups = build_groups(rows, rules.group_by)
    with pytest.raises(FoldsError) as caught:
        check_largest_group(rows, groups, rules)
    return str(caught.value)


ALONE = [(f"sentence {i}", f"subject {i}", f"object {i}") for i in range(6)]


def test_a_giant_group_is_refused_naming_the_column_to_drop() -> None:
    by_pair = refuse_group(make_pairs(*ALONE, *[(f"s{i}", "a", "b") for i in range(4)]))
    assert "one group holds 4 of 10 train rows (40%); with 2 folds at most 25%" in by_pair
    assert "entity_pair: 4 of them share 'a / b'" in by_pair
    assert "sentence: 1" not in by_pair
    assert 'Set group_by = ["sentence"] in the profile' in by_pair
    assert re.search(r'group_by = \["sentence"\]: (no row|\d of 10 rows \(\d0.0%\)) would', by_pair)
    by_sentence = refuse_group(make_pairs(*ALONE, *[("s", f"a{i}", "b") for i in range(4)]))
    assert "sentence: 4 of them share 's'" in by_sentence
    assert 'Set group_by = ["entity_pair"] in the profile' in by_sentence


def test_columns_that_only_together_link_too_much_and_columns_that_each_do() -> None:
    chain = [(f"s{i // 2}", f"a{(i + 1) // 2}", "b") for i in range(4)]
    chained = refuse_group(make_pairs(*ALONE, *chain))
    assert 'group_by = ["sentence"]:' in chained
    assert 'group_by = ["entity_pair"]:' in chained
    both = refuse_group(make_pairs(*ALONE, *[("s", "a", "b")] * 4))
    assert "Set group_by = [] in the profile" in both


def test_fewer_folds_are_named_where_then_no_row_leaks() -> None:
    rows = make_pairs(*ALONE, *ALONE[:3], *[("s", "a", "b")] * 2)
    said = refuse_group(rows, count=5)
    assert "count = 2: no row would share" in said
    assert "Set count = 2 in the profile's [folds]: it leaks the fewest rows" in said
    assert FoldRules(count=5).group_by == ("sentence", "entity_pair")
    few = refuse_group(make_pairs(*[("s", "a", "b")] * 9, *ALONE[:1]))
    assert "Set group_by = []" in few


@pytest.mark.parametrize("column", ["subject", "object", "source", "sentence"])
def test_rows_are_grouped_by_any_column(tiny_competition: Competition, column: str) -> None:
    rows = read_corpus(tiny_competition).train
    name = {"subject": "subject_word", "object": "object_word"}.get(column, column)
    pairs = set(zip(build_groups(rows, [column]).tolist(), rows.text(name), strict=True))
    assert len(pairs) == len({group for group, _ in pairs}) == len({value for _, value in pairs})


def test_a_column_of_the_train_file_keeps_its_rows_together(tmp_path: Path) -> None:
    competition = with_profile(tmp_path, "seed = 7", 'seed = 7\ngroup_by = ["document"]')
    path = competition.train_path
    header, *lines = path.read_text("utf-8").splitlines()
    more = [f"{line},d{i // 4 if i % 9 else ''}" for i, line in enumerate(lines)]
    path.write_text("\n".join([f"{header},document", *more]) + "\n", encoding="utf-8")
    prepared = read_prepared(competition)
    folds = pd.Series(prepared.folds.fold_of)
    documents = pd.Series([line.rpartition(",")[2] for line in more])
    assert (folds.groupby(documents).nunique() == 1).drop("d").all()
    assert len(prepared.corpus.test) > 0  # whose file has no such column


def test_grouping_by_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    profile = write_foreign(tmp_path)
    text = profile.read_text("utf-8")
    profile.write_text(text.replace("count = 2", 'count = 2\ngroup_by = ["source"]'))
    with pytest.raises(ProfileError, match=r"columns\.source is not set"):
        resolve_competition(str(profile), None, None, home=tmp_path)


def test_a_group_at_the_limit_and_rows_alone_are_fair() -> None:
    rules = FoldRules(count=2)
    for rows in (make_pairs(*ALONE, ("s", "a", "b"), ("s", "a", "b")), make_pairs(*ALONE[:3])):
        check_largest_group(rows, build_groups(rows, rules.group_by), rules)


def test_a_refused_group_leaves_no_folds(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    header, first, *rest = path.read_text(encoding="utf-8").splitlines()
    crowd = [first.replace("0,", f"x{i},", 1) for i in range(30)]
    path.write_text("\n".join([header, first, *rest, *crowd]) + "\n", encoding="utf-8")
    with pytest.raises(FoldsError, match="Set group_by = "):
        read_prepared(tiny_competition)
    assert not (tiny_competition.oof_dir / "folds.csv").exists()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=20))
def test_leaking_rows_are_counted(rows: list[tuple[int, int]]) -> None:
    groups, folds = (np.array(part) for part in zip(*rows, strict=True))
    wanted = sum(any(g == h and f != e for h, e in rows) for g, f in rows)
    assert count_leaking(groups.astype(np.int32), folds.astype(np.int8)) == wanted


# --- frozen


def test_folds_are_made_once_and_read_ever_after(tiny_competition: Competition) -> None:
    first = read_prepared(tiny_competition)
    before = {path.name: path.read_bytes() for path in tiny_competition.oof_dir.iterdir()}
    second = read_prepared(tiny_competition)
    assert first.folds.hash == second.folds.hash
    assert (first.folds.fold_of == second.folds.fold_of).all()
    assert before == {path.name: path.read_bytes() for path in tiny_competition.oof_dir.iterdir()}
    assert count_leaking(first.groups, first.folds.fold_of) == 0
    assert (first.folds.count, first.folds.notices) == (3, ())
    origin = json.loads(before["folds.json"])
    assert origin == {
        "count": 3,
        "group_by": ["sentence", "entity_pair"],
        "hash": first.folds.hash,
        "seed": 7,
        "source": "made",
    }


def test_all_who_come_at_once_get_the_same_folds(tiny_competition: Competition) -> None:
    corpus = read_corpus(tiny_competition)
    groups = build_groups(corpus.train, ("sentence", "entity_pair"))
    hashes: list[str] = []

    def make() -> None:
        hashes.append(read_or_make_folds(tiny_competition, corpus, groups).hash)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashes) == 4
    assert len(set(hashes)) == 1


def test_line_ends_and_order_of_lines_do_not_matter(tiny_competition: Competition) -> None:
    made = read_prepared(tiny_competition)
    path = tiny_competition.oof_dir / "folds.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    path.write_bytes("\r\n".join([header, *reversed(lines)]).encode())
    assert read_prepared(tiny_competition).folds.hash == made.folds.hash


def test_a_changed_file_is_refused(tiny_competition: Competition) -> None:
    read_prepared(tiny_competition)
    path = tiny_competition.oof_dir / "folds.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = f"0,{(int(lines[1][-1]) + 1) % 3}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(FoldsError, match=r"was changed after it was built.*Restore it"):
        read_prepared(tiny_competition)
    # its advice works: without the JSON it is a file of one's own
    (tiny_competition.oof_dir / "folds.json").unlink()
    assert read_prepared(tiny_competition).folds.notices


def refuse_rows(competition: Competition) -> str:
    with pytest.raises(FoldsError) as caught:
        read_prepared(competition)
    return str(caught.value)


def test_other_train_rows_are_refused_once_and_no_line_is_to_be_changed(
    tiny_competition: Competition,
) -> None:
    made = read_prepared(tiny_competition)
    path = tiny_competition.train_path
    whole = path.read_text(encoding="utf-8")
    lines = whole.splitlines()
    path.write_text("\n".join([*lines[:-20], f"x{lines[-1]}"]) + "\n", encoding="utf-8")
    said = refuse_rows(tiny_competition)
    folds_csv = tiny_competition.oof_dir / "folds.csv"
    assert said.startswith(f"{folds_csv} was built for other train rows than those now in {path}")
    assert "(no longer there: 20; there without a fold: 1)" in said
    assert "Restore the data, or give the changed data its own profile with another `name`" in said
    assert "remove the line" not in said
    assert "itself was changed" not in said  # its hash shows that it was not
    path.write_text(whole, encoding="utf-8")
    assert read_prepared(tiny_competition).folds.hash == made.folds.hash


def test_lines_removed_from_frozen_folds_can_be_restored_as_the_error_says(
    tiny_competition: Competition,
) -> None:
    made = read_prepared(tiny_competition)
    path = tiny_competition.oof_dir / "folds.csv"
    whole = path.read_bytes()
    path.write_bytes(b"\n".join(whole.split(b"\n")[:-3]) + b"\n")
    said = refuse_rows(tiny_competition)
    assert "(no longer there: 0; there without a fold: 2)" in said
    assert "give every train row a fold" not in said
    assert "If folds.csv itself was changed, restore it from a backup; or delete" in said
    path.unlink()
    assert read_prepared(tiny_competition).folds.hash == made.folds.hash
    assert path.read_bytes() == whole


def test_a_frozen_file_of_ones_own_is_not_made_again(tiny_competition: Competition) -> None:
    path = own_file(tiny_competition, lambda i: i % 2)
    read_prepared(tiny_competition)
    path.write_bytes(path.read_bytes() + b"\r\nx,0")
    said = refuse_rows(tiny_competition)
    assert "(no longer there: 1; there without a fold: 0)" in said
    assert said.endswith("If folds.csv itself was changed, restore it from a backup.")


def test_changed_text_that_makes_frozen_folds_leak_is_refused(
    tiny_competition: Competition, edit_train: Callable[[str, str], int]
) -> None:
    made = read_prepared(tiny_competition)
    sentence = made.corpus.train.row(0).sentence
    other = next(
        row
        for row, fold in zip(made.corpus.train, made.folds.fold_of, strict=True)
        if fold != made.folds.fold_of[0] and row.sentence.endswith("태어났다.")
    )
    text = tiny_competition.train_path.read_text(encoding="utf-8").splitlines()
    text[1] = text[int(other.id) + 1].replace(f"{other.id},", "0,", 1)
    tiny_competition.train_path.write_text("\n".join(text) + "\n", encoding="utf-8")
    assert sentence != other.sentence
    with pytest.raises(FoldsError, match="the train file was changed after the folds were built"):
        read_prepared(tiny_competition)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count = 3", "count = 4", "folds.count was 3 and is 4"),
        ("seed = 7", "seed = 8", "folds.seed was 7 and is 8"),
        ("seed = 7", 'seed = 7\ngroup_by = ["sentence"]', "folds.group_by was"),
    ],
)
def test_changed_rules_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    read_prepared(with_profile(tmp_path, "seed = 7", "seed = 7"))
    with pytest.raises(FoldsError, match="was built by other rules") as caught:
        read_prepared(with_profile(tmp_path, old, new))
    assert message in str(caught.value)


def test_a_lost_file_is_made_again_only_when_it_comes_out_the_same(
    tiny_competition: Competition,
) -> None:
    made = read_prepared(tiny_competition)
    path = tiny_competition.oof_dir / "folds.csv"
    before = path.read_bytes()
    path.unlink()
    assert read_prepared(tiny_competition).folds.hash == made.folds.hash
    assert path.read_bytes() == before
    path.unlink()
    origin = json.loads((tiny_competition.oof_dir / "folds.json").read_text(encoding="utf-8"))
    origin["hash"] = "0" * 64
    (tiny_competition.oof_dir / "folds.json").write_text(json.dumps(origin), encoding="utf-8")
    with pytest.raises(FoldsError, match="is missing"):
        read_prepared(tiny_competition)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"hash": 3}', "[" * 100_000])
def test_a_broken_json_is_refused(tiny_competition: Competition, content: str) -> None:
    read_prepared(tiny_competition)
    (tiny_competition.oof_dir / "folds.json").write_text(content, encoding="utf-8")
    with pytest.raises(FoldsError, match=r"folds\.json cannot be used \("):
        read_prepared(tiny_competition)


def test_a_folder_that_cannot_be_created_is_reported(tiny_competition: Competition) -> None:
    (tiny_competition.home / "oof").touch()
    with pytest.raises(FoldsError, match="cannot be created"):
        read_prepared(tiny_competition)


def test_what_is_frozen_is_read_without_a_lock_or_a_right_to_write(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Leases, path: Path) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    made = read_prepared(tiny_competition)
    leave_lease(tiny_competition.oof_dir / ".folds", born="before")  # of who was killed
    read_prepared(tiny_competition)
    monkeypatch.setattr(Leases, "acquire", refuse)
    again = read_prepared(tiny_competition)
    assert again.folds.hash == made.folds.hash
    assert not list(tiny_competition.oof_dir.glob(".*"))
    for name in ("folds.json", "folds.csv"):  # half of it is there: somebody may be making it
        (tiny_competition.oof_dir / name).rename(tiny_competition.home / name)
        with pytest.raises(PermissionError):
            read_prepared(tiny_competition)
        (tiny_competition.home / name).rename(tiny_competition.oof_dir / name)


# --- a person's own


def test_a_file_of_ones_own_is_taken_and_said_to_leak(tiny_competition: Competition) -> None:
    own_file(tiny_competition, lambda i: i % 2)
    for _ in range(2):  # said again when it is read again
        prepared = read_prepared(tiny_competition)
        assert prepared.folds.count == 2
        assert prepared.folds.fold_of.tolist() == [i % 2 for i in range(N_TRAIN)]
        leaking = count_leaking(prepared.groups, prepared.folds.fold_of)
        assert leaking > 0
        (notice,) = prepared.folds.notices
        assert f"{leaking} of {N_TRAIN} rows" in notice.found


def test_a_file_of_ones_own_stays_as_it_is(tiny_competition: Competition) -> None:
    path = own_file(tiny_competition, lambda i: i % 2)
    content = "fold,note,id\r\n" + "".join(f"{i % 2},mine,{i}\r\n" for i in range(N_TRAIN))
    path.write_bytes(content.encode())
    assert read_prepared(tiny_competition).folds.count == 2
    assert path.read_bytes() == content.encode()


def test_a_users_own_file_without_leakage(tiny_competition: Competition) -> None:
    groups = build_groups(read_corpus(tiny_competition).train, ("sentence", "entity_pair"))
    own_file(tiny_competition, lambda i: int(groups[i]) % 4)
    folds = read_prepared(tiny_competition).folds
    assert folds.count == 4
    assert folds.notices[0].remedy == "no leakage"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "id 0: has no fold"),
        (lambda lines: [*lines, "64,0"], "id 64: no train row has this id"),
        (lambda lines: [*lines, "3,0"], "id 3: also on line 62"),
        (lambda lines: [*lines[:-1], "0,-1"], "fold '-1'"),
        (lambda lines: [*lines[:-1], "0,one"], "fold 'one'"),
        (lambda lines: [*lines[:-1], "0,100"], "fold '100'"),
        (lambda lines: [*lines[:-1], "0,0000000005000"], "fold '0000000005000'"),
        (lambda lines: [*lines[:-1], "0,3"], "no row is in fold 2"),
        (lambda lines: [lines[0], *(f"{i},0" for i in range(N_TRAIN))], "no row is in fold 1"),
        (lambda lines: ["id,part", *lines[1:]], "column 'fold': no such column"),
        (lambda lines: [*lines[:-1], "0"], "1 fields where the header has 2"),
        (lambda lines: [], "the file is empty"),
    ],
)
def test_a_wrong_file_of_ones_own_is_refused(
    tiny_competition: Competition, change: Callable[[list[str]], list[str]], message: str
) -> None:
    path = own_file(tiny_competition, lambda i: i % 2)
    path.write_text("\n".join(change(path.read_text().splitlines())), encoding="utf-8")
    with pytest.raises(FoldsError) as caught:
        read_prepared(tiny_competition)
    assert message in str(caught.value)
    assert not (tiny_competition.oof_dir / "folds.json").exists()


def test_the_profile_may_name_a_file(tmp_path: Path) -> None:
    lines = ["id,fold", *(f"{i},{i % 4}" for i in range(N_TRAIN))]
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join(lines), encoding="utf-8")
    competition = with_profile(tmp_path, "seed = 7", 'seed = 7\nfile = "mine.csv"')
    prepared = read_prepared(competition)
    assert (prepared.folds.count, len(prepared.folds.notices)) == (4, 1)
    assert read_prepared(competition).folds.hash == prepared.folds.hash
    for content, message in (
        (
            [*lines, "64,0"],
            "mine.csv, line 66, column 'id', id 64: no train row has this id; rem",
        ),
        (lines[:-1], "mine.csv, column 'id', id 63: has no fold; give every train row a fold"),
    ):
        mine.write_text("\n".join(content), encoding="utf-8")
        assert message in refuse_rows(competition)
    mine.write_text("\n".join([*lines[:-1], "63,0"]), encoding="utf-8")
    with pytest.raises(FoldsError, match=r"differs from the frozen"):
        read_prepared(competition)
    limited = with_profile(tmp_path, "seed = 7", 'seed = 7\nfile = "mine.csv"', limit=32)
    assert len(read_prepared(limited).folds.fold_of) == 32


# --- a sample


def test_a_sample_holds_whole_groups_and_labels_in_proportion() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.choice([1, 1, 2, 3, 40], p=[0.4, 0.3, 0.2, 0.09, 0.01], size=2_000)
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    labels = rng.choice(4, p=[0.6, 0.25, 0.1, 0.05], size=len(groups)).astype(np.int16)
    for size in (50, 200, 1_000):
        chosen = sample_rows(labels, groups, size, seed=5, fold_count=5)
        assert size - 2 <= len(chosen) <= size
        assert (np.diff(chosen) > 0).all()
        taken = np.bincount(groups[chosen], minlength=len(sizes))
        assert (taken[taken > 0] == sizes[taken > 0]).all()
        assert taken.max() <= max(1, size // 10)
        shares = np.bincount(labels[chosen], minlength=4) / len(chosen)
        assert np.abs(shares - np.bincount(labels) / len(labels)).max() < 0.03
        assert (chosen == sample_rows(labels, groups, size, seed=5, fold_count=5)).all()
        assert (
            len(chosen) != len(sample_rows(labels, groups, size, seed=6, fold_count=5))
            or (chosen != sample_rows(labels, groups, size, seed=6, fold_count=5)).any()
        )


def test_a_label_met_in_giant_groups_only_leaves_its_place_to_others() -> None:
    groups = np.concatenate([np.zeros(60), np.arange(1, 141)]).astype(np.int32)
    labels = np.concatenate([np.ones(60), np.zeros(140)]).astype(np.int16)
    chosen = sample_rows(labels, groups, 50, seed=0, fold_count=5)
    assert len(chosen) == 50
    assert (labels[chosen] == 0).all()


def test_a_sample_of_nothing_but_giant_groups_is_refused() -> None:
    groups = np.repeat(np.arange(4), 25).astype(np.int32)
    labels = np.zeros(100, dtype=np.int16)
    with pytest.raises(UsageError, match="--limit 50 leaves fewer than 5 groups"):
        sample_rows(labels, groups, 50, seed=0, fold_count=5)


@given(st.integers(0, 500), st.lists(st.integers(0, 50), min_size=1, max_size=9))
def test_shares_sum_to_the_total(total: int, weights: list[int]) -> None:
    shares = share_out(total, np.array(weights))
    if sum(weights):
        assert shares.sum() == total
        assert np.abs(shares - total * np.array(weights) / sum(weights)).max() < 1


def test_folds_of_a_sample_are_separate(tmp_path: Path) -> None:
    whole = read_prepared(with_profile(tmp_path, "seed = 7", "seed = 7"))
    part = read_prepared(with_profile(tmp_path, "seed = 7", "seed = 7", limit=30))
    assert part.competition.oof_dir != whole.competition.oof_dir
    assert (part.competition.oof_dir / "folds.csv").exists()
    assert len(part.folds.fold_of) == len(part.corpus.train) == 30


# --- the real data


def test_the_real_folds(klue_re_dir: Path, tmp_path: Path) -> None:
    prepared = read_prepared(resolve_competition("klue-re", klue_re_dir, None, home=tmp_path))
    groups, fold_of = prepared.groups, prepared.folds.fold_of
    sizes = np.bincount(groups)
    assert (len(sizes), sizes.max()) == (14_595, 1_253)
    assert build_groups(prepared.corpus.train, ("entity_pair",)).max() + 1 == 17_136
    assert build_groups(prepared.corpus.train, ("sentence",)).max() + 1 == 28_803
    assert count_leaking(groups, fold_of) == 0
    table = np.zeros((5, 30), dtype=int)
    np.add.at(table, (fold_of, prepared.corpus.train.gold), 1)
    assert (table.max(axis=0) - table.min(axis=0)).max() <= 1
    sentences = pd.DataFrame({"s": prepared.corpus.train.text("sentence"), "f": fold_of})
    assert sentences.groupby("s")["f"].nunique().max() == 1
