from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import run as commands
from competition.errors import (
    EncoderError,
    PretrainingError,
    StoppedError,
    TrainingError,
)
from competition.folds.kfold import read_prepared
from competition.lease import hold
from competition.profile import Competition
from models.network.encoder_source import EncoderSource, find_kind, resolve_encoder
from models.network.network import build_model
from models.network.tokenizer import load_tokenizer
from models.pretraining.corpora import Text
from models.pretraining.export import read_done
from models.pretraining.exposure import Exposure
from models.pretraining.masked_model import MaskedModel, build_masked_model
from models.pretraining.pretrain import (
    PretrainHooks,
    PretrainJob,
    make_adapted_encoder,
    run_pretraining,
)
from models.pretraining.request import (
    PretrainRequest,
    PretrainSettings,
    resolve_settings,
)
from models.pretraining.source import as_variant, make_new_source
from models.settings import RunSettings, ScratchSettings
from models.training.ahead import AHEAD
from models.training.checkpoints import read_facts
from tests.models.conftest import ARCHITECTURES, make_encoder

TINY_SHAPE = ScratchSettings(
    layers=2, hidden=32, heads=1, feed_forward=32, vocabulary=200, dropout=0.1
)
RUN = RunSettings()
FOR_JOBS = RunSettings(attention="varlen", shard=True)
TINY = PretrainSettings(
    batch_sequences=4,
    sequence_tokens=16,
    warmup_steps=3,
    decay_frac=0.4,
    heldout_every_steps=6,
    lr=5e-3,
    run=RunSettings(precision="float32"),
)
STEP_TOKENS = 4 * 16
FOLDER_FILES = {
    "README.md",
    "RUN.md",
    "config.json",
    "model.safetensors",
    "pretraining.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


WORDS = ("가마", "나비", "다리", "라면", "마음", "바다", "사람", "아이")


def pattern_lines(count: int = 600) -> tuple[str, ...]:
    """Return lines in which each word depends on the one before."""
    starts = np.random.default_rng(0).integers(0, len(WORDS), count)
    lines = (" ".join(WORDS[(start + i) % 8] for i in range(12)) for start in starts)
    return tuple(f"{number % 97} {line}" for number, line in enumerate(lines))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_job(tmp_path: Path, cache_dir: Path) -> Callable[..., PretrainJob]:
    texts = (
        Text("pattern", pattern_lines(), 1.0, 0.5),
        Text("more", ("하나 둘 셋",) * 40, 0.5, 2.0),
    )
    source = make_new_source(TINY_SHAPE, texts, ("PER", "ORG"), cache_dir)

    def make(out: str = "out", steps: int = 20, **settings: Any) -> PretrainJob:
        request = PretrainRequest(size="mini", tokens=steps * STEP_TOKENS, seed=1, threads=1)
        own = TINY.model_copy(update=settings)
        folder = tmp_path / out
        return PretrainJob(
            request, own, texts, source, Exposure(False), folder, cache_dir, "the command"
        )

    return make


def hooks(
    stops: Callable[[], bool] = lambda: False, said: list[str] | None = None
) -> PretrainHooks:
    heard: list[str] = [] if said is None else said
    return PretrainHooks(heard.append, lambda frac, text: None, stops)


def after(steps: int) -> Callable[[], bool]:
    """Request a stop after some steps of this process."""
    count: Iterator[int] = iter(range(1, 10_000))
    return lambda: next(count) >= steps


def left_by(job: PretrainJob) -> dict[str, bytes]:
    """Return all files that must not depend on time, nor on the name of the folder."""
    files = (path for path in job.out.iterdir() if path.is_file() and path.name != "RUN.md")
    own = f"# {job.out.name}\n".encode()
    return {path.name: path.read_bytes().removeprefix(own) for path in files}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_stopped_anywhere_ends_in_the_same_bytes(
    make_job: Callable[..., PretrainJob], optimizer: str
) -> None:
    whole, pieces = make_job("whole", optimizer=optimizer), make_job("pieces", optimizer=optimizer)
    facts, finished = run_pretraining(whole, hooks())
    assert finished
    for stop in (4, 6, 5):  # before, at and in the decay, which begins at step 12
        stopped, finished = run_pretraining(pieces, hooks(after(stop)))
        assert not finished
        assert not (pieces.out / "model.safetensors").exists()
    assert stopped["stopped_at"] == 15
    run_pretraining(pieces, hooks())
    assert left_by(pieces) == left_by(whole)
    assert [look["step"] for look in facts["history"]] == [6, 12, 18, 20]
    assert facts["tokens"] == facts["history"][-1]["tokens"] == 20 * STEP_TOKENS
    assert {path.name for path in whole.out.iterdir()} == FOLDER_FILES | {"training"}
    assert not (whole.out / "training" / "state.safetensors").exists()


def test_a_run_that_masks_ahead_ends_in_the_same_bytes(
    make_job: Callable[..., PretrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, in a thread of its own, which ends with the run."""
    plain, ahead = make_job("plain"), make_job("ahead")
    assert run_pretraining(plain, hooks())[1]
    monkeypatch.setitem(AHEAD, "cpu", 2)
    before = threading.active_count()
    assert not run_pretraining(ahead, hooks(stops=after(7)))[1]
    assert run_pretraining(ahead, hooks())[1]
    assert threading.active_count() == before
    assert left_by(ahead) == left_by(plain)


def test_a_killed_run_resumes_from_its_last_checkpoint(
    make_job: Callable[..., PretrainJob],
) -> None:
    whole, killed = make_job("whole"), make_job("killed", run=RunSettings(precision="float32"))
    run_pretraining(whole, hooks())
    calls = iter(range(100))

    def kill() -> bool:
        if next(calls) == 8:
            raise KeyboardInterrupt
        return False

    run_pretraining(killed, hooks(after(5)))
    with pytest.raises(KeyboardInterrupt):
        run_pretraining(killed, hooks(kill))
    run_pretraining(killed, hooks())
    assert left_by(killed) == left_by(whole)


def test_a_failed_checkpoint_does_not_end_a_continuing_run(
    make_job: Callable[..., PretrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*arguments: Any, **options: Any) -> None:
        raise OSError("No space left on device")

    whole = make_job("whole")
    run_pretraining(whole, hooks())
    full = make_job("full", run=RunSettings(precision="float32", state_every_s=1e-9))
    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr("models.pretraining.pretrain.export_encoder", lambda *args, **options: None)
        patched.setattr("models.training.checkpoints.save_file", save)
        assert run_pretraining(full, hooks(said=said))[1]
        assert any(
            text.startswith("training continues without a new checkpoint: ") for text in said
        )
        with pytest.raises(TrainingError, match="is the disk full"):
            run_pretraining(full, hooks(after(3)))
    run_pretraining(full, hooks())
    assert left_by(full) == left_by(whole)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_longer_run_resumes_from_before_the_decay(
    make_job: Callable[..., PretrainJob], optimizer: str
) -> None:
    whole = make_job("whole", steps=30, optimizer=optimizer)
    run_pretraining(whole, hooks())
    said: list[str] = []
    run_pretraining(make_job("grown", steps=20, optimizer=optimizer), hooks())
    grown = make_job("grown", steps=30, optimizer=optimizer)
    run_pretraining(grown, hooks(said=said))
    assert "resumed at step 12" in said
    assert left_by(grown) == left_by(whole)


def test_a_run_can_be_made_shorter_before_its_decay(make_job: Callable[..., PretrainJob]) -> None:
    whole = make_job("whole", steps=10)
    run_pretraining(whole, hooks())
    run_pretraining(make_job("cut", steps=100), hooks(after(5)))
    said: list[str] = []
    cut = make_job("cut", steps=10)
    run_pretraining(cut, hooks(said=said))
    assert "resumed at step 5" in said
    assert left_by(cut) == left_by(whole)


def test_a_run_without_decay_can_grow(make_job: Callable[..., PretrainJob]) -> None:
    whole = make_job("whole", steps=20, decay_frac=0.0)
    run_pretraining(whole, hooks())
    for length in (10, 12):  # it is looked at held-out text every six steps
        name = f"grown-{length}"
        run_pretraining(make_job(name, steps=length, decay_frac=0.0), hooks())
        grown, said = make_job(name, steps=20, decay_frac=0.0), []
        run_pretraining(grown, hooks(said=said))
        assert f"resumed at step {length}" in said
        assert left_by(grown) == left_by(whole)


def test_a_folder_of_another_run_is_not_overwritten(make_job: Callable[..., PretrainJob]) -> None:
    run_pretraining(make_job(steps=20), hooks(after(5)))
    with pytest.raises(PretrainingError, match="stopped run with other text or settings"):
        run_pretraining(make_job(steps=20, lr=1e-3), hooks())
    done = make_job(steps=20)
    run_pretraining(done, hooks())
    before = left_by(done)
    for other in ({"lr": 1e-3}, {"steps": 12}, {"steps": 30, "final_mask_rate": 0.5}):
        with pytest.raises(PretrainingError, match="holds another encoder"):
            run_pretraining(make_job(**{"steps": 20, **other}), hooks())
    heavier = replace(done.texts[0], decay_weight=3.0)
    longer = make_job(steps=30)
    with pytest.raises(PretrainingError, match="holds another encoder"):
        run_pretraining(replace(longer, texts=(heavier, *longer.texts[1:])), hooks())
    with pytest.raises(PretrainingError, match="holds another encoder"):  # nor over its own source
        run_pretraining(replace(done, source=settled(done.out)), hooks())
    assert left_by(done) == before


def test_an_interrupted_export_is_repeated_by_the_same_command(
    make_job: Callable[..., PretrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise TrainingError("disk full")

    whole, broken = make_job("whole"), make_job("broken")
    run_pretraining(whole, hooks())
    for part in ("write_weights", "build_card"):
        with monkeypatch.context() as patched:
            patched.setattr(f"models.pretraining.export.{part}", fail)
            with pytest.raises(TrainingError, match="disk full"):
                run_pretraining(broken, hooks())
    run_pretraining(broken, hooks())
    assert left_by(broken) == left_by(whole)


def test_the_weights_before_the_decay_can_be_exported(
    make_job: Callable[..., PretrainJob],
) -> None:
    decayed = make_job("decayed", steps=20)  # its decay begins at step 12
    run_pretraining(decayed, hooks())
    bare, said = make_job("bare", steps=12, decay_frac=0.0), []
    shutil.copytree(decayed.out / "training", bare.out / "training")
    facts, finished = run_pretraining(bare, hooks(said=said))
    assert finished
    assert "resumed at step 12" in said
    assert facts["history"][-1]["step"] == 12


def test_the_latest_checkpoint_is_used(make_job: Callable[..., PretrainJob]) -> None:
    job = make_job()
    run_pretraining(job, hooks(after(5)))
    early = (job.out / "training" / "state.safetensors").read_bytes()
    run_pretraining(job, hooks(after(9)))  # past step 12, where the stable state is kept
    (job.out / "training" / "state.safetensors").write_bytes(early)
    said: list[str] = []
    run_pretraining(job, hooks(said=said))
    assert "resumed at step 12" in said


def test_a_finished_run_is_kept_and_reproducible(
    make_job: Callable[..., PretrainJob],
) -> None:
    first, second = make_job("first"), make_job("second")
    run_pretraining(first, hooks())
    run_pretraining(second, hooks())
    assert left_by(first) == left_by(second)
    said: list[str] = []
    facts, finished = run_pretraining(first, hooks(said=said))
    assert finished
    assert any("done before" in line for line in said)
    assert read_done(first.out, facts["fingerprint"]) == json.loads(
        (first.out / "pretraining.json").read_text()
    )
    for key, value in (("seed", 2), ("leave_out_fold", 1)):
        other = replace(first, request=replace(first.request, **{key: value}))
        again, _ = run_pretraining(replace(other, out=first.out.with_name(key)), hooks())
        assert again["fingerprint"] != facts["fingerprint"]


def test_the_model_learns_the_text(make_job: Callable[..., PretrainJob]) -> None:
    facts, _ = run_pretraining(make_job(steps=150, heldout_every_steps=50), hooks())
    first, last = facts["history"][0], facts["history"][-1]
    assert last["heldout_loss"] < first["heldout_loss"] - 0.5
    assert last["heldout_accuracy"] > first["heldout_accuracy"] + 0.2


def test_micro_batches_do_not_change_a_step(
    make_job: Callable[..., PretrainJob], cache_dir: Path
) -> None:
    losses = []
    calm = make_new_source(
        TINY_SHAPE.model_copy(update={"dropout": 0.0}), make_job().texts, (), cache_dir
    )
    for name, micro_tokens in (("one", 64), ("four", 16)):
        own = RunSettings(precision="float32", micro_tokens=micro_tokens)
        job = replace(make_job(name, steps=8, run=own), source=calm)
        facts, _ = run_pretraining(job, hooks())
        losses.append([look["heldout_loss"] for look in facts["history"]])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_at_masked_places_are_those_of_the_whole_model(
    tmp_path: Path, architecture: str
) -> None:
    source = settled(make_encoder(architecture, tmp_path / architecture))
    said: list[str] = []
    model = build_masked_model(
        source, TINY, vocabulary=20, attention="eager", say=said.append
    ).eval()
    ids = torch.randint(5, 20, (3, 12), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([1, 5, 17, 35])
    with torch.inference_mode():
        found = model(ids, places)
        whole = model.whole(input_ids=ids).logits.flatten(0, 1)[places]
    assert torch.allclose(found, whole, atol=1e-6)
    assert any("initialised randomly" in line for line in said)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapted_encoder_of_every_architecture_loads(
    tmp_path: Path, cache_dir: Path, architecture: str
) -> None:
    source = settled(make_encoder(architecture, tmp_path / architecture))
    job = PretrainJob(
        PretrainRequest(encoder=str(source.path), tokens=4 * STEP_TOKENS, threads=1),
        TINY,
        (Text("pattern", pattern_lines(100), 1.0, 1.0),),
        source,
        Exposure(False),
        tmp_path / "adapted",
        cache_dir,
        "the command",
    )
    run_pretraining(job, hooks())
    adapted = settled(job.out)
    before, after_ = (
        build_model(as_variant(str(s.path), TINY), s, labels=3, vocabulary=20, device_type="cpu")
        for s in (source, adapted)
    )
    names = dict(before.encoder.named_parameters()).keys()
    assert names == dict(after_.encoder.named_parameters()).keys()
    changed = [
        not torch.equal(a, b)
        for a, b in zip(before.encoder.parameters(), after_.encoder.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2
    said: list[str] = []
    again = build_masked_model(adapted, TINY, vocabulary=20, attention="eager", say=said.append)
    assert said == []
    assert again.whole.get_output_embeddings().weight is again.whole.get_input_embeddings().weight


def settled(folder: Path) -> EncoderSource:
    return resolve_encoder(as_variant(str(folder), TINY), sentences=(), cache_dir=folder)


def test_a_scratch_encoder_serves_fold_and_another_run(
    make_job: Callable[..., PretrainJob],
) -> None:
    job = make_job(steps=6)
    run_pretraining(job, hooks())
    source = settled(job.out)
    assert source.has_weights
    tokenizer = load_tokenizer(source)
    assert tokenizer.tokenize("PER ORG") == ["PER", "ORG"]
    assert tokenizer.mask_token_id == 4
    card = (job.out / "README.md").read_text(encoding="utf-8")
    assert "the command" in card
    assert "| pattern |" in card
    again = replace(job, source=source, out=job.out.with_name("again"))
    said: list[str] = []
    run_pretraining(again, hooks(said=said))
    assert not any("initialised randomly" in line for line in said)


def test_an_unsupported_encoder_is_refused(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertForMaskedLM

    config = AlbertConfig(hidden_size=16, num_attention_heads=1, intermediate_size=16, vocab_size=9)
    with pytest.raises(EncoderError, match="albert"):
        MaskedModel(AlbertForMaskedLM(config))
    source = settled(make_encoder("roberta", tmp_path / "roberta"))
    with pytest.raises(EncoderError, match="500 tokens"):
        build_masked_model(source, TINY, vocabulary=500, attention="eager", say=print)
    long = TINY.model_copy(update={"sequence_tokens": 512})
    with pytest.raises(EncoderError, match="sequence_tokens=511"):
        build_masked_model(source, long, vocabulary=20, attention="eager", say=print)


def test_a_loss_that_is_not_finite_stops_the_run(make_job: Callable[..., PretrainJob]) -> None:
    job = make_job(lr=1e30, warmup_steps=0, clip_norm=1e30)
    with pytest.raises(PretrainingError, match="Lower lr"):
        run_pretraining(job, hooks())
    assert not list((job.out / "training").glob("*.safetensors"))  # nothing to resume from


def test_a_folder_in_use_or_of_another_encoder_is_refused(
    make_job: Callable[..., PretrainJob],
) -> None:
    job = make_job()
    (job.out / "training").mkdir(parents=True)
    with (
        hold(job.out / "training" / "run"),
        pytest.raises(PretrainingError, match=f"process {os.getpid()} of .* is pretraining into"),
    ):
        run_pretraining(job, hooks())
    (job.out / "model.safetensors").write_bytes(b"somebody's")
    with pytest.raises(PretrainingError, match="another encoder"):
        run_pretraining(job, hooks())


def test_tapt_runs_once_per_encoder(
    tiny_competition: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.pretraining.pretrain.resolve_settings", lambda request: TINY)
    source = settled(make_encoder("bert", tmp_path / "bert"))
    said: list[str] = []
    with pytest.raises(StoppedError, match="stopped at step 1;"):
        make_adapted_encoder(
            source, tiny_competition, run=FOR_JOBS, say=said.append, deadline=0.0, threads=1
        )
    adapted = make_adapted_encoder(
        source, tiny_competition, run=FOR_JOBS, say=said.append, threads=1
    )
    assert adapted.has_weights
    assert adapted.name == f"{source.name}+tapt"
    assert adapted.identity != source.identity
    assert sum("run.attention and run.shard will apply to the jobs" in line for line in said) == 2
    facts = json.loads((adapted.path / "pretraining.json").read_text())
    (text,) = facts["texts"]
    assert facts["tokens"] == pytest.approx(10 * text["tokens"], abs=STEP_TOKENS)
    assert facts["exposure"] == {
        "test_sentences": None, "left_out_fold": None, "folds_hash": None,
    }  # fmt: skip
    assert not list((adapted.path / "training").glob("*.safetensors"))
    assert (
        make_adapted_encoder(source, tiny_competition, run=FOR_JOBS, say=said.append, threads=1)
        == adapted
    )
    assert "done before" in said[-1]
    assert sum("will apply to the jobs" in line for line in said) == 2

    def interrupt(text: str) -> None:
        if "done before" in text:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError, match=r"stopped after pretraining .*, which is done"):
        make_adapted_encoder(source, tiny_competition, run=RUN, say=interrupt, threads=1)


def test_tapt_works_on_a_scratch_encoder(tiny_competition: Competition, tmp_path: Path) -> None:
    variant = as_variant("scratch", TINY).model_copy(update={"scratch": TINY_SHAPE})
    sentences = read_prepared(tiny_competition).corpus.train.text("sentence")
    foreign = resolve_encoder(variant, sentences=pattern_lines(50), cache_dir=tmp_path)
    with pytest.raises(PretrainingError, match="knows none"):
        make_adapted_encoder(foreign, tiny_competition, run=RUN, say=lambda line: None, threads=1)
    source = resolve_encoder(variant, sentences=sentences, cache_dir=tmp_path)
    adapted = make_adapted_encoder(
        source, tiny_competition, run=FOR_JOBS, say=lambda line: None, threads=1
    )
    assert adapted.has_weights
    build_model(as_variant("x", TINY), adapted, labels=3, vocabulary=20, device_type="cpu")


def test_the_command_writes_an_encoder_and_reports_an_unfinished_run(
    tiny_competition: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPETITION_HOME", str(tmp_path))
    (tmp_path / "more.txt").write_text("\n".join(pattern_lines()), encoding="utf-8")
    arguments = [
        *("pretrain", "--competition", str(tmp_path / "tiny.toml"), "--scratch", "--size", "mini"),
        *("--corpus", f"{tmp_path / 'more.txt'}=2:1", "--tokens", "256", "--threads", "1"),
        *("--set", "sequence_tokens=16", "--set", "batch_sequences=2", "--json"),
    ]
    runner = CliRunner()
    stopped = runner.invoke(commands.app, [*arguments, "--stop-after", "0s"])
    assert stopped.exit_code == commands.INCOMPLETE_EXIT
    done = runner.invoke(commands.app, arguments)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["pretrain"]["rows"]
    out = tmp_path / "checkpoints" / "tiny" / "encoders" / "scratch-mini-s42"
    assert (row["folder"], row["tokens"], row["steps"]) == (str(out), 256, 8)
    assert {path.name for path in out.iterdir()} == FOLDER_FILES | {"training"}
    assert (out / "model.safetensors").stat().st_size < 32e6
    stable = read_facts(out / "training" / "stable.safetensors")
    assert stable is not None
    assert stable["step"] == 6
    (note,) = json.loads(done.stdout)["pretrain"]["notes"]
    assert note.startswith("Next: python run.py fold ")
    assert note.endswith(f"--encoder {out}")
    without = runner.invoke(commands.app, [*arguments, "--leave-out-fold", "1"])
    (note,) = json.loads(without.stdout)["pretrain"]["notes"]
    assert note.endswith("scratch-mini-without-f1-s42 --folds 1")
    wrong = runner.invoke(commands.app, ["pretrain", "--size", "mini", "--encoder", "x"])
    assert wrong.exit_code == 2


def test_tapt_settings_depend_on_the_kind_of_encoder(
    tiny_competition: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my-mini"
    variant = as_variant("scratch", TINY).model_copy(update={"scratch": TINY_SHAPE})
    sentences = read_prepared(tiny_competition).corpus.train.text("sentence")
    bare = resolve_encoder(variant, sentences=sentences, cache_dir=tmp_path)
    shutil.copytree(make_adapted_encoder(
        bare, tiny_competition, run=TINY.run, say=lambda line: None, threads=1
    ).path, folder)  # fmt: skip
    assert find_kind(str(folder)) == "scratch"
    facts = json.loads((folder / "pretraining.json").read_text())
    (folder / "pretraining.json").write_text(json.dumps({**facts, "kind": "mini"}))
    settings: list[PretrainSettings] = []

    def resolve(request: PretrainRequest) -> PretrainSettings:
        settings.append(resolve_settings(request))
        return TINY

    monkeypatch.setattr("models.pretraining.pretrain.resolve_settings", resolve)
    adapted = make_adapted_encoder(
        settled(folder), tiny_competition, run=TINY.run, say=lambda line: None, threads=1
    )
    assert settings[0].lr == 5e-4  # as for any of that size, where a hub's have 5e-5
    assert find_kind(str(adapted.path)) == "mini"


def test_a_long_warm_up_gives_a_notice(make_job: Callable[..., PretrainJob]) -> None:
    said: list[str] = []
    run_pretraining(make_job(warmup_steps=15), hooks(said=said))
    assert any("warm-up takes 15 steps (warmup_steps), most of the 20" in s for s in said)


def test_waiting_for_another_process_can_be_stopped(make_job: Callable[..., PretrainJob]) -> None:
    job = make_job()
    (job.out / "training").mkdir(parents=True)
    path = job.out / "training" / "run"
    held, done = threading.Event(), threading.Event()

    def keep() -> None:
        with hold(path):
            held.set()
            done.wait(60)

    other = threading.Thread(target=keep)
    other.start()
    assert held.wait(60)
    said: list[str] = []
    with pytest.raises(StoppedError, match="stopped while waiting for another process"):
        run_pretraining(job, hooks(after(2), said), wait=True)
    assert "waiting for it" in said[-1]
    done.set()
    other.join()
    assert run_pretraining(job, hooks(), wait=True)[1]
