"""Encoders made on the spot, of the architectures that people use, in a size for tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from competition.folds.kfold import Prepared, read_prepared
from competition.profile import Competition, resolve_competition
from models.data.fold_inputs import FoldInputs
from models.jobs.network_job import open_inputs
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.network.network import load_tokenizer
from models.network.scratch import train_wordpiece
from models.training.control import Watch
from tests.conftest import write_tiny

TINY_SCRATCH = (
    ("scratch.layers", 1),
    ("scratch.hidden", 32),
    ("scratch.heads", 1),
    ("scratch.feed_forward", 32),
    ("scratch.vocabulary", 400),
    ("train.batch_rows", 8),
    ("train.epochs", 2),
    ("run.precision", "float32"),
)
SENTENCES = (
    "비틀즈의 조지 해리슨이 1969년에 노래를 썼다.",
    "서울에서 태어난 김하나는 한빛사에 들어갔다.",
    "박두리와 이세진은 남매이다. PER ORG LOC @ # * ^",
)
ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "electra", "modernbert")


@pytest.fixture(scope="session")
def planned_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where jobs of ``typed-punct`` have been planned; only to be copied from.

    It holds the frozen folds, the scratch encoder's tokenizer and the rows that it tokenised.
    """
    home = tmp_path_factory.mktemp("planned")
    prepared = read_prepared(
        resolve_competition(str(write_tiny(home)), None, None, home=home),
    )
    plan_tiny(prepared, "typed-punct")
    return home


@pytest.fixture
def prepared(tiny_competition: Competition, planned_home: Path) -> Prepared:
    """The tiny competition, its folds and what its encoder needs copied from the planned home."""
    for name in ("oof", "checkpoints"):
        shutil.copytree(planned_home / name, tiny_competition.home / name)
    return read_prepared(tiny_competition)


def plan_tiny(
    prepared: Prepared, variant: str, *overrides: tuple[str, Any], **request: Any
) -> list[JobSpec]:
    """Plan tiny scratch jobs; overrides are added to the tiny settings."""
    wanted = FoldRequest(
        variants=(variant,),
        encoder="scratch",
        overrides=(*TINY_SCRATCH, *overrides),
        save_as=request.pop("save_as", "tiny"),
        **request,
    )
    return list(plan_jobs(prepared, wanted, lambda text: None, threads=1).jobs)


@pytest.fixture
def make_specs(prepared: Prepared) -> Callable[..., list[JobSpec]]:
    def make(variant: str = "typed-punct", *overrides: tuple[str, Any], **request: Any) -> Any:
        return plan_tiny(prepared, variant, *overrides, **request)

    return make


@pytest.fixture
def quiet_watch() -> Watch:
    return Watch(report=lambda at: None, should_stop=lambda: False, log=lambda text: None)


def inputs_of(spec: JobSpec) -> FoldInputs:
    """Open what training sees of a job, as the job itself does."""
    assert spec.network is not None
    return open_inputs(spec, load_tokenizer(spec.network.source, spec.network.new_tokens))


def make_encoder(architecture: str, folder: Path) -> Path:
    """Save a tiny encoder of an architecture with a tokenizer of its usual kind."""
    import transformers
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    special |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    raw = _sentencepiece() if architecture == "xlm-roberta" else train_wordpiece(SENTENCES, 300, ())
    PreTrainedTokenizerFast(tokenizer_object=raw, **special).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "vocab_size": raw.get_vocab_size()}
    prefix = {
        "bert": "Bert",
        "roberta": "Roberta",
        "xlm-roberta": "XLMRoberta",
        "electra": "Electra",
        "modernbert": "ModernBert",
    }[architecture]
    config = getattr(transformers, f"{prefix}Config")(**sizes, pad_token_id=0)
    torch.manual_seed(0)
    getattr(transformers, f"{prefix}Model")(config).save_pretrained(folder)
    return folder


def _sentencepiece() -> Any:
    """Train a tokenizer of XLM-R's kind: pieces with ▁ for the space before them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        unk_token="[UNK]",
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer
