from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from competition.errors import PretrainingError, UsageError
from competition.folds.kfold import read_prepared
from competition.profile import Competition
from competition.progress import ProgressBoard
from models.network.encoder_source import BUNDLED_DIR, EncoderSource
from models.pretraining.corpora import Text
from models.pretraining.exposure import UNKNOWN, Exposure, explain_left_out, read_exposure
from models.pretraining.pretrain import run_pretrain
from models.pretraining.request import PretrainRequest, TextWeights
from models.pretraining.source import TASK_TEXT, read_corpus_texts, resolve_exposure


def sentences_in(texts: tuple[Text, ...], split: list[str]) -> set[str]:
    seen = {line for text in texts for line in text.lines}
    return {sentence for sentence in split if " ".join(sentence.split()) in seen}


def test_test_sentences_are_read_only_if_requested(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    prepared = read_prepared(tiny_competition)
    train = prepared.corpus.train.text("sentence").tolist()
    test = prepared.corpus.test.text("sentence").tolist()
    (tmp_path / "corpus.txt").write_text("\n".join([*test, "다른 글"]), encoding="utf-8")
    request = PretrainRequest(size="mini", corpora=((tmp_path / "corpus.txt", TextWeights(1, 1)),))
    said: list[str] = []
    texts, _ = read_corpus_texts(tiny_competition, request, said.append)
    assert sentences_in(texts, train) == set(train)
    assert sentences_in(texts, test) == set()
    assert texts[1].lines == ("다른 글",)
    assert "same words as a test or left-out sentence" in said[0]
    asked, _ = read_corpus_texts(
        tiny_competition, replace(request, test_sentences=True), said.append
    )
    assert sentences_in(asked, test) == set(test)


def test_a_fold_can_be_left_out(tiny_competition: Competition) -> None:
    prepared = read_prepared(tiny_competition)
    sentences = prepared.corpus.train.text("sentence")
    left_out = set(sentences[prepared.folds.fold_of == 1])
    request = PretrainRequest(size="mini", leave_out_fold=1)
    (text,), exposure = read_corpus_texts(tiny_competition, request, lambda line: None)
    assert exposure.folds_hash == prepared.folds.hash
    assert text.name == TASK_TEXT
    assert set(text.lines) == set(sentences) - left_out
    with pytest.raises(UsageError, match="0 to 2"):
        read_corpus_texts(tiny_competition, replace(request, leave_out_fold=3), lambda line: None)
    with pytest.raises(UsageError, match="no text"):
        read_corpus_texts(tiny_competition, replace(request, task_weights=TextWeights(0, 0)), print)


def test_a_forbidden_sentence_is_matched_by_its_words(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    sentence = read_prepared(tiny_competition).corpus.test.text("sentence")[0]
    written = [
        sentence, sentence.replace(" ", "  "), sentence.replace(" ", "\u00a0"), f"{sentence} .",
        sentence.replace(" ", ""), unicodedata.normalize("NFD", sentence), "다른 글", "...", "!",
    ]  # fmt: skip
    (tmp_path / "corpus.txt").write_text("\n".join(written), encoding="utf-8-sig")
    request = PretrainRequest(size="mini", corpora=((tmp_path / "corpus.txt", TextWeights(1, 1)),))
    said: list[str] = []
    texts, _ = read_corpus_texts(tiny_competition, request, said.append)
    assert texts[1].lines == ("다른 글", "...", "!")
    assert said[0].startswith("6 lines left out")


def test_a_sample_excludes_the_sentences_of_the_whole_test_file(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    test = read_prepared(tiny_competition).corpus.test.text("sentence").tolist()
    (tmp_path / "corpus.txt").write_text("\n".join([*test, "다른 글"]), encoding="utf-8")
    request = PretrainRequest(size="mini", corpora=((tmp_path / "corpus.txt", TextWeights(1, 1)),))
    sample = replace(tiny_competition, limit=20)
    assert len(read_prepared(sample).corpus.test) < len(test)
    texts, of_sample = read_corpus_texts(sample, request, lambda line: None)
    assert texts[1].lines == ("다른 글",)
    of_whole = read_corpus_texts(tiny_competition, request, lambda line: None)[1]
    assert of_sample.test_hash == of_whole.test_hash is not None


def test_test_sentences_with_weight_zero_are_refused(tiny_competition: Competition) -> None:
    request = PretrainRequest(size="mini", test_sentences=True, task_weights=TextWeights(0, 0))
    with pytest.raises(UsageError, match="--task-weight 0"):
        read_corpus_texts(tiny_competition, request, lambda line: None)


def test_exposure_is_combined_with_that_of_the_initial_encoder() -> None:
    left_out, plain, tests = Exposure(False, 1, "folds"), Exposure(False), Exposure(True)
    assert left_out.after(left_out) == left_out
    assert left_out.after(plain) == plain.after(left_out) == plain
    assert left_out.after(replace(left_out, folds_hash="others")) == plain
    assert plain.after(tests) == tests.after(plain) == tests.after(UNKNOWN) == tests
    assert plain.after(UNKNOWN) == UNKNOWN
    assert "not known" in UNKNOWN.describe()
    assert "no sentence of fold 1" in left_out.describe()
    assert replace(read_exposure(BUNDLED_DIR / "ko-mini"), test_hash=None) == plain


def test_an_exposure_to_other_test_sentences_says_nothing_of_these() -> None:
    demo = Exposure(False, test_hash="demo")
    klue = Exposure(False, 0, "folds", test_hash="klue")
    assert demo.after(replace(demo, test_sentences=True)).test_sentences is True
    assert demo.after(demo) == demo
    for before in (replace(demo, test_sentences=True), replace(demo, test_hash=None)):
        assert klue.after(before) == Exposure(None, test_hash="klue")
    # an earlier version did not record whose test sentences; the same folds are of the same data
    assert klue.after(replace(klue, test_hash=None)) == klue


def test_a_fold_that_an_encoder_has_seen_cannot_be_left_out(tmp_path: Path) -> None:
    known = EncoderSource("ko-mini", BUNDLED_DIR / "ko-mini", "i", has_weights=True)
    request = PretrainRequest(encoder="ko-mini", leave_out_fold=1)
    own = Exposure(False, 1, "folds", read_exposure(known.path).test_hash)
    with pytest.raises(UsageError, match="ko-mini was already pretrained on these sentences"):
        resolve_exposure(request, known, own)
    new = replace(known, has_weights=False)
    assert resolve_exposure(request, new, own) == own
    unknown = replace(UNKNOWN, test_hash=own.test_hash)
    assert resolve_exposure(request, replace(known, path=tmp_path), own) == unknown
    assert resolve_exposure(request, known, replace(own, test_hash="demo")).test_sentences is None


def test_a_notice_names_the_fold_that_pretraining_left_out() -> None:
    assert explain_left_out("mine", Exposure(False), "folds") is None
    ours = explain_left_out("mine", Exposure(False, 1, "folds"), "folds")
    assert ours is not None
    assert "--folds 1" in ours
    others = explain_left_out("mine", Exposure(False, 1, "others"), "folds")
    assert others is not None
    assert "other folds than these" in others


def test_texts_with_the_same_name_and_encoder_scratch_are_refused(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text("글", encoding="utf-8")
    corpora = tuple((tmp_path / folder / "same.txt", TextWeights(1, 1)) for folder in ("a", "b"))
    with pytest.raises(UsageError, match="the same name"):
        read_corpus_texts(tiny_competition, PretrainRequest(size="mini", corpora=corpora), print)
    with ProgressBoard(live=False) as board, pytest.raises(UsageError, match="--scratch"):
        run_pretrain(tiny_competition, PretrainRequest(encoder="scratch"), board)


def test_a_torch_without_muon_is_reported_before_any_text_is_read(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    request = PretrainRequest(encoder="scratch", overrides=(("optimizer", "muon"),))
    with (
        ProgressBoard(live=False) as board,
        pytest.raises(PretrainingError, match=r"optimizer=muon needs torch 2\.9"),
    ):
        run_pretrain(tiny_competition, request, board)
