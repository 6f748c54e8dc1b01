"""Setup of a variant: task-adaptive pretraining (TAPT) of its encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from competition.files import dump_json
from competition.folds.kfold import Prepared
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.network.encoder_source import PRETRAINED, PRETRAINING_FILE, EncoderSource
from models.network.scratch import make_bare_encoder
from models.network.tokenizer import load_tokenizer
from models.pretraining.exposure import Exposure
from models.pretraining.request import ADAPTING
from models.pretraining.source import TASK_TEXT
from models.settings import ScratchSettings

TINY_ADAPTING = {
    "lr": 5e-3,
    "warmup_steps": 4,
    "batch_sequences": 4,
    "sequence_tokens": 32,
}
SHAPE = ScratchSettings(layers=1, hidden=32, heads=1, feed_forward=32, vocabulary=400)
ASKED_EVERY = 6
"""One in so many tokens of a sentence is hidden."""


@pytest.fixture
def encoder(prepared: Prepared, tmp_path: Path) -> Path:
    """A tiny encoder with weights and a masked-language head, in a folder."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    folder = tmp_path / "encoder"
    sentences = prepared.corpus.train.text("sentence").tolist()
    make_bare_encoder(folder, SHAPE, sentences, ("PER", "ORG", "LOC"), identified_by={})
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def plan(
    prepared: Prepared, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[JobSpec, ...]]:
    monkeypatch.setitem(ADAPTING, PRETRAINED, TINY_ADAPTING)

    def make(variant: str, said: list[str]) -> tuple[JobSpec, ...]:
        wanted = FoldRequest(
            variants=(variant,),
            encoder=str(encoder),
            overrides=(("run.precision", "float32"), ("train.epochs", 1)),
            save_as=variant,
        )
        return plan_jobs(prepared, wanted, said.append, threads=1).jobs

    return make


def source_of(job: JobSpec) -> EncoderSource:
    assert job.network is not None
    return job.network.source


def test_tapt_pretrains_on_the_train_sentences(
    plan: Callable[..., tuple[JobSpec, ...]], prepared: Prepared, encoder: Path
) -> None:
    exposure = Exposure(False, left_out_fold=0, folds_hash=prepared.folds.hash)
    (encoder / PRETRAINING_FILE).write_text(dump_json(exposure.as_facts()), "utf-8")
    heard: list[str] = []
    said: list[str] = []
    plain, adapted = plan("typed-punct", heard), plan("tapt", said)
    assert [line for line in heard if "left out fold 0 only" in line]
    assert not [line for line in said if "left out fold" in line]  # TAPT read all of them
    assert {source_of(job).path for job in plain} == {encoder}
    assert len(plain) == len(adapted) == prepared.folds.count
    (folder,) = {source_of(job).path for job in adapted}
    assert folder != encoder
    assert not {job.fingerprint for job in plain} & {job.fingerprint for job in adapted}
    assert source_of(plain[0]).identity != source_of(adapted[0]).identity
    check_weights_differ(encoder, folder)
    check_text(folder, prepared)
    check_it_has_learned(encoder, folder, prepared)
    before = len(said)
    again = plan("tapt", said)
    assert [job.fingerprint for job in again] == [job.fingerprint for job in adapted]
    assert any("done before, kept" in line for line in said[before:])


def check_weights_differ(before: Path, after: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (before, after))
    matrices = {name for name, weight in first.items() if weight.ndim > 1 and name in second}
    assert len(matrices) > 4
    assert not any(torch.equal(first[name], second[name]) for name in matrices)


def check_text(folder: Path, prepared: Prepared) -> None:
    """Assert that pretraining read the train sentences, each once, and nothing else."""
    sentences = prepared.corpus.train.text("sentence").tolist()
    lines = list(dict.fromkeys(" ".join(sentence.split()) for sentence in sentences))
    facts = json.loads((folder / PRETRAINING_FILE).read_text(encoding="utf-8"))
    (text,) = facts["texts"]
    assert (text["name"], text["lines"]) == (TASK_TEXT, len(lines))
    assert text["sha256"] == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert not facts["exposure"]["test_sentences"]


def check_it_has_learned(before: Path, after: Path, prepared: Prepared) -> None:
    sentences = prepared.corpus.train.text("sentence").tolist()
    untouched, adapted = (measure_loss(folder, sentences) for folder in (before, after))
    assert adapted < untouched - 0.5


def measure_loss(folder: Path, sentences: list[str]) -> float:
    """Return the masked-language loss of an encoder, with the same masks each time."""
    from transformers import AutoModelForMaskedLM

    tokenizer: Any = load_tokenizer(EncoderSource(folder.name, folder, "", has_weights=True))
    model = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True).eval()
    losses = []
    for number, sentence in enumerate(sentences):
        ids = torch.tensor([tokenizer(sentence)["input_ids"]])
        places = torch.arange(1 + number % ASKED_EVERY, ids.shape[1] - 1, ASKED_EVERY)
        shown = ids.clone()
        shown[0, places] = tokenizer.mask_token_id
        with torch.inference_mode():
            logits = model(input_ids=shown).logits[0, places]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, places]).item())
    return sum(losses) / len(losses)
