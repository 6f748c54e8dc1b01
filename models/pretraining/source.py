"""The inputs of ``pretrain``: lines of text, and the initial encoder.

Texts are read without sentences that must not be seen (test rows, a left-out fold). The encoder is
resolved as for ``fold``, or created from scratch with a tokenizer trained on the texts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from competition.console import write_count
from competition.data.corpus import read_corpus
from competition.errors import UsageError
from competition.folds.kfold import read_prepared
from competition.profile import Competition
from models.network import scratch
from models.network.encoder_source import EncoderSource, resolve_encoder
from models.network.scratch import make_bare_encoder
from models.pretraining import corpora
from models.pretraining.corpora import Text, drop_repeated, read_lines, sample_lines
from models.pretraining.exposure import UNKNOWN, Exposure, read_exposure
from models.pretraining.request import SIZES, PretrainRequest, PretrainSettings
from models.settings import ScratchSettings
from models.variant import SCRATCH, Variant, fingerprint

TOKENIZER_CHARS = 20_000_000
TASK_TEXT = "task-sentences"


def read_corpus_texts(
    competition: Competition, request: PretrainRequest, say: Callable[[str], None]
) -> tuple[tuple[Text, ...], Exposure]:
    """Read the sentences of the competition and the corpus files, without forbidden sentences.

    Forbidden are the test sentences, unless requested, and those of a left-out fold: lines with
    the same letters and digits are removed from every text. All test sentences count, even if the
    competition is a sample (``--limit``).

    Returns:
        The texts, and the exposure of an encoder that is trained on them alone.

    Raises:
        UsageError: an unknown fold, no text, or test sentences requested with weight 0.
        PretrainingError: a file cannot be read.
    """
    weights = request.task_weights
    if request.test_sentences and not (weights.stable or weights.decay):
        raise UsageError("--test-sentences has no effect with --task-weight 0")
    sentences, forbidden, exposure = _split_sentences(competition, request)
    texts = []
    if weights.stable or weights.decay:
        texts.append(Text(TASK_TEXT, tuple(sentences), weights.stable, weights.decay))
    for path, own in request.corpora:
        name = re.sub(r"(\.txt)?(\.xz|\.zst)?$", "", path.name)
        texts.append(Text(name, tuple(read_lines(path)), own.stable, own.decay))
    names = [text.name for text in texts]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two texts have the same name ({', '.join(sorted(names))}); rename a file"
        )
    if not texts:
        raise UsageError("no text: use --corpus FILE, or a --task-weight above 0")
    kept, met = drop_repeated(texts, forbidden=forbidden)
    if met:
        say(f"{write_count(met, 'line')} left out: same words as a test or left-out sentence")
    return kept, exposure


def _split_sentences(
    competition: Competition, request: PretrainRequest
) -> tuple[list[str], list[str], Exposure]:
    """Return training sentences, forbidden sentences, and the exposure to the competition."""
    folds_hash = None
    if request.leave_out_fold is None:
        corpus = read_corpus(competition)
        left_out = np.zeros(len(corpus.train), bool)
    else:
        prepared = read_prepared(competition)
        corpus, folds = prepared.corpus, prepared.folds
        if not 0 <= request.leave_out_fold < folds.count:
            raise UsageError(
                f"--leave-out-fold {request.leave_out_fold}: the folds are 0 to {folds.count - 1}"
            )
        folds_hash, left_out = folds.hash, folds.fold_of == request.leave_out_fold
    train = corpus.train.text("sentence")
    lines = [_as_line(sentence) for sentence in train[~left_out]]
    forbidden = [_as_line(sentence) for sentence in train[left_out]]
    seen = [_as_line(text) for text in corpus.test.text("sentence")]
    if competition.limit is not None:
        corpus = read_corpus(replace(competition, limit=None))
    tests = [_as_line(text) for text in corpus.test.text("sentence")]
    exposure = Exposure(
        request.test_sentences, request.leave_out_fold, folds_hash, hash_sentences(tests)
    )
    if request.test_sentences:
        return lines + seen, forbidden, exposure
    return lines, forbidden + tests, exposure


def hash_sentences(sentences: Sequence[str]) -> str:
    """Return the hash of a set of sentences, whatever their order."""
    return hashlib.sha256("\n".join(sorted(set(sentences))).encode()).hexdigest()


def _as_line(sentence: str) -> str:
    return " ".join(sentence.split())


def resolve_source(
    competition: Competition,
    request: PretrainRequest,
    settings: PretrainSettings,
    texts: Sequence[Text],
    cache_dir: Path,
) -> EncoderSource:
    """Find the encoder to continue from, or create the tokenizer and configuration of a new one."""
    if request.encoder is None:
        shape = SIZES[request.size or ""].scratch
        return make_new_source(shape, texts, competition.profile.entity_types, cache_dir)
    if request.encoder == SCRATCH:
        raise UsageError("--encoder scratch: to train from scratch, use --scratch --size")
    variant = as_variant(request.encoder, settings)
    return resolve_encoder(variant, sentences=(), cache_dir=cache_dir)


def resolve_exposure(request: PretrainRequest, source: EncoderSource, own: Exposure) -> Exposure:
    """Return which rows of the competition the encoder will have seen, before and in this run.

    ``own`` is the exposure of this run alone.

    Raises:
        UsageError: the encoder was already pretrained on the fold to leave out.
    """
    fold = request.leave_out_fold
    if not source.has_weights:
        return own
    before = read_exposure(source.path)
    whole = own.after(before)
    is_known = before != UNKNOWN and not own.is_of_another(before)
    if fold is not None and is_known and whole.left_out_fold is None:
        raise UsageError(
            f"--leave-out-fold {fold}: {source.name} was already pretrained on these sentences;"
            " continue from an encoder that was not, or use --scratch"
        )
    return whole


def as_variant(encoder: str, settings: PretrainSettings) -> Variant:
    """Return a variant with an encoder and hardware settings, for functions that take a variant."""
    return Variant(
        name="pretrain",
        why="names the encoder to pretrain",
        encoder=encoder,
        format="concat",
        head="cls",
        run=settings.run,
    )


def make_new_source(
    shape: ScratchSettings, texts: Sequence[Text], reserved: Sequence[str], cache_dir: Path
) -> EncoderSource:
    """Train a tokenizer on the texts and write it with a configuration, once; without weights."""
    made_from = {
        "settings": shape.model_dump(),
        "texts": [[text.hash, text.weight] for text in texts],
        "reserved": list(reserved),
        "v": [corpora.RESULT_VERSION, scratch.RESULT_VERSION],
    }
    folder = cache_dir / f"pretrain-{fingerprint(made_from)[:16]}"
    lines = sample_lines(texts, TOKENIZER_CHARS)
    version = {"v": scratch.RESULT_VERSION}
    identity = make_bare_encoder(
        folder, shape, lines, reserved, identified_by=version, names_length=True
    )
    return EncoderSource(SCRATCH, folder, identity, has_weights=False)
