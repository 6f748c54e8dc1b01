"""Fixtures: tiny encoders of common architectures, planned jobs, and their inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from competition.blend.blend import run_blend
from competition.folds.kfold import Prepared, read_prepared
from competition.profile import Competition, resolve_competition
from models.data.fold_inputs import FoldInputs
from models.jobs.engines.engine import EngineChoice
from models.jobs.job import run_job
from models.jobs.network_job import open_inputs
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.network.scratch import train_wordpiece
from models.network.tokenizer import load_tokenizer
from models.training.control import Watch
from tests.conftest import write_tiny

ONE_THREAD = EngineChoice(threads=1)
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
    """The tiny competition, with folds and tokenizer copied from the planned home."""
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


def request_for(
    *names: str, overrides: tuple[tuple[str, Any], ...] = (), **more: Any
) -> FoldRequest:
    return FoldRequest(
        variants=names,
        encoder="scratch",
        overrides=(*TINY_SCRATCH, ("train.epochs", 1), *overrides),
        engine=ONE_THREAD,
        **more,
    )


@pytest.fixture(scope="session")
def blended_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks and a linear model, trained and blended; only to be copied from."""
    home = tmp_path_factory.mktemp("blended")
    prepared = read_home(home, write_tiny(home))
    watch = Watch(report=lambda at: None, should_stop=lambda: False, log=lambda text: None)
    linear = FoldRequest(variants=("tfidf-linear",), engine=ONE_THREAD)
    networks = [
        request_for(name, save_as=save_as)
        for name, save_as in (("typed-punct", "net"), ("type-restricted", "held"))
    ]
    for wanted in (*networks, linear):
        for spec in plan_jobs(prepared, wanted, print, threads=1).jobs:
            assert run_job(spec, watch).finished
    for name, members in (("all", ()), ("networks", ("net", "held"))):
        run = {"time": "2026-01-01"}
        run_blend(prepared.competition, members, trials=5, seed=0, name=name, run=run)
    return home


def read_home(home: Path, profile: Path) -> Prepared:
    return read_prepared(resolve_competition(str(profile), None, None, home=home))


@pytest.fixture
def quiet_watch() -> Watch:
    return Watch(report=lambda at: None, should_stop=lambda: False, log=lambda text: None)


def inputs_of(spec: JobSpec) -> FoldInputs:
    """Open the training inputs of a job, as the job itself does."""
    assert spec.network is not None
    return open_inputs(spec, load_tokenizer(spec.network.source, spec.network.new_tokens))


@dataclass(frozen=True)
class Backbone:
    """A tiny network of an architecture, and the kind of tokenizer that it comes with."""

    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = "wordpiece"
    special: Mapping[str, str] = field(default_factory=lambda: SPECIAL)
    network: str = ""


SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
KLUE_SPECIAL = {name: SPECIAL[name] for name in ("cls_token", "pad_token", "sep_token")} | SPECIAL
"""In this order klue's RoBERTa numbers them: [PAD] is 1."""
ROBERTA_SPECIAL = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
V3 = {**DISENTANGLED, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}
GROUPED = {"num_key_value_heads": 1, "head_dim": 16}
WINDOWED = {**GROUPED, "sliding_window": 8}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
END = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
BEGIN = {"bos_token": "<bos>", **END}
ENCODERS: dict[str, Backbone] = {
    "bert": Backbone("Bert"),
    "roberta": Backbone("Roberta"),
    "xlm-roberta": Backbone("XLMRoberta", tokenizer="unigram"),
    "electra": Backbone("Electra"),
    "modernbert": Backbone("ModernBert"),
    "klue-roberta": Backbone(
        "Roberta", {"pad_token_id": 1, "type_vocab_size": 1}, special=KLUE_SPECIAL
    ),
    "xlm-roberta-xl": Backbone("XLMRobertaXL", {"pad_token_id": 1}, "unigram", ROBERTA_SPECIAL),
    "deberta-v2": Backbone("DebertaV2", DISENTANGLED),
    "deberta-v3": Backbone("DebertaV2", V3, "unigram"),
    "t5": Backbone("T5", T5, "unigram", END),
    "bart": Backbone("Bart", {**BART, "pad_token_id": 1}, "bytes", ROBERTA_SPECIAL),
}
DECODERS: dict[str, Backbone] = {
    "qwen2": Backbone("Qwen2", GROUPED, "bytes", {"eos_token": "<end>"}),
    "qwen3": Backbone("Qwen3", GROUPED, "bytes", {"pad_token": "<pad>", "eos_token": "<end>"}),
    "llama": Backbone("Llama", GROUPED, "bytes", {"bos_token": "<bos>", "eos_token": "<end>"}),
    "gemma2": Backbone("Gemma2", WINDOWED, "unigram", BEGIN),
    "gemma3": Backbone("Gemma3Text", WINDOWED, "unigram", BEGIN, "Gemma3TextModel"),
    "mistral": Backbone("Mistral", WINDOWED, "unigram", BEGIN),
    "phi": Backbone("Phi", {}, "bytes", {"bos_token": "<end>", "eos_token": "<end>"}),
    "exaone4": Backbone("Exaone4", GROUPED, "bytes", BEGIN),
}
BACKBONES = ENCODERS | DECODERS


def make_encoder(architecture: str, folder: Path, sentences: Sequence[str] = SENTENCES) -> Path:
    """Save a tiny network of an architecture with a tokenizer of its usual kind."""
    import transformers
    from transformers import PreTrainedTokenizerFast

    made = BACKBONES[architecture]
    raw = _TOKENIZERS[made.tokenizer](sentences, list(made.special.values()))
    PreTrainedTokenizerFast(tokenizer_object=raw, **made.special).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "vocab_size": raw.get_vocab_size(), "pad_token_id": 0}
    if made.config in {"T5", "Bart"}:
        sizes = {"vocab_size": raw.get_vocab_size(), "pad_token_id": 0}
    config = getattr(transformers, f"{made.config}Config")(**{**sizes, **made.settings})
    torch.manual_seed(0)
    name = made.network or f"{made.config}Model"
    getattr(transformers, name)(config).save_pretrained(folder)
    return folder


def _wordpiece(sentences: Sequence[str], special: Sequence[str]) -> Any:
    raw = train_wordpiece(sentences, 300, ())
    if list(special) == list(SPECIAL.values()):
        return raw
    from tokenizers import Tokenizer

    told = json.loads(raw.to_str())  # the same pieces, the special ones numbered in another order
    pieces = [piece for piece in told["model"]["vocab"] if piece not in special]
    told["model"]["vocab"] = {piece: at for at, piece in enumerate([*special, *pieces])}
    told["added_tokens"] = [
        {**each, "id": told["model"]["vocab"][each["content"]]} for each in told["added_tokens"]
    ]
    return Tokenizer.from_str(json.dumps(told))


def _unigram(sentences: Sequence[str], special: Sequence[str]) -> Any:
    """Train a tokenizer like that of XLM-R: pieces with ▁ for the space before them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = next(token for token in special if "unk" in token.lower())
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def _bytes(sentences: Sequence[str], special: Sequence[str]) -> Any:
    """Train a tokenizer of Qwen's and Llama 3's kind: pairs of bytes; nothing is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(dict.fromkeys(special)),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


_TOKENIZERS = {"wordpiece": _wordpiece, "unigram": _unigram, "bytes": _bytes}
