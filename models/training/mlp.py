"""The MLP learner: one hidden layer on TF-IDF features of character n-grams (torch, on the CPU).

Replaces the network when ``learner = "mlp"``. Each feature has a vector of hidden units and one of
labels; a row sums those of its features, as fastText does (Joulin et al. 2017, arXiv 1607.01759),
and adds a linear model to the nonlinear one, as wide & deep learning does (Cheng et al. 2016,
arXiv 1606.07792). Half of each row's features are dropped at random in every step, so that no
single n-gram decides.

It runs on one thread, so that the same rows, settings and seed give the same bytes.

Legend: n training rows, r rows to predict, b rows of a step, C labels, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.sparse import check_sparse_tensor_invariants

from competition.arrays import Int64s, Probs, Say
from competition.data.rows import Rows
from competition.errors import TrainingError
from models.data.ngrams import FeatureReader, Matrix
from models.settings import MlpSettings
from models.training.control import Pace, Progress

RESULT_VERSION = 1
VERSION_NAME = "models.mlp"

INITIAL_SPREAD = 0.3  # of a row's hidden units, before training
MIN_RATE = 0.02  # share of the learning rate that is left at the end
PREDICTED_ROWS = 512  # at a time


@dataclass(frozen=True)
class MlpTask:
    """What `fit_mlp` needs besides the rows.

    Attributes:
        settings: hyperparameters of the features, the network and its training.
        n_labels: C.
        seed: of the weights, the order of rows and what is dropped.
        soft_labels: (k, C) float32 of the last k training rows, in place of their labels.
        soft_weight: of such a row in the loss, relative to a labelled one.
        report: told of the progress about once a second, and of the last step.
        should_stop: asked before each step.
    """

    settings: MlpSettings
    n_labels: int
    seed: int
    soft_labels: Probs | None = None
    soft_weight: float = 1.0
    report: Callable[[Progress], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False


class WideAndDeep(nn.Module):
    """Sums of feature vectors: one for the hidden layer, one for the labels."""

    def __init__(self, n_features: int, n_labels: int, settings: MlpSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.deep = nn.EmbeddingBag(n_features, hidden, mode="sum", sparse=True)
        nn.init.normal_(self.deep.weight, std=INITIAL_SPREAD / hidden**0.5)
        self.wide = nn.EmbeddingBag(n_features, n_labels, mode="sum", sparse=True)
        nn.init.zeros_(self.wide.weight)
        self.head = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(hidden, n_labels),
        )

    def forward(self, indices: Tensor, starts: Tensor, values: Tensor) -> Tensor:
        """Return logits (b, C).

        Args:
            indices: features of all rows, one row after the other; int64.
            starts: (b,) place of each row's first feature.
            values: of the features, float32.
        """
        deep = self.deep(indices, starts, per_sample_weights=values)
        wide = self.wide(indices, starts, per_sample_weights=values)
        logits: Tensor = wide + self.head(deep)
        return logits


@dataclass(frozen=True)
class MlpModel:
    """A fitted MLP and the reader of its features."""

    reader: FeatureReader
    network: WideAndDeep

    def predict(self, rows: Rows) -> Probs:
        """Predict r rows: (r, C) float32; rows sum to 1."""
        found = self.reader.read(rows) if len(rows) else None
        parts = [np.empty((0, self.network.wide.embedding_dim), np.float32)]
        with torch.inference_mode(), one_thread():
            for start in range(0, len(rows), PREDICTED_ROWS):
                assert found is not None
                logits = self.network(*_bag(found[start : start + PREDICTED_ROWS]))
                parts.append(logits.double().softmax(-1).float().numpy())
        return np.concatenate(parts)


def fit_mlp(
    train: Rows, train_label_ids: Int64s, task: MlpTask, say: Say | None = None
) -> MlpModel | None:
    """Fit the MLP on training rows by Adagrad (its features) and AdamW (its output layer).

    Args:
        train: n rows; their own labels are ignored.
        train_label_ids: (n,) their labels.
        task: settings, number of labels and seed.
        say: called with progress messages.

    Returns:
        The model, or None if it was stopped.

    Raises:
        TrainingError: the loss is not finite.
    """
    settings = task.settings
    reader = FeatureReader(settings)
    features = reader.fit(train)
    if say is not None:
        say(f"mlp: {features.shape[0]:,} rows, {features.nnz // len(train):,} features each")
    with one_thread(), torch.random.fork_rng(devices=[]), _unchecked():
        torch.manual_seed(task.seed)
        network = WideAndDeep(features.shape[1], task.n_labels, settings)
        trainer = _Trainer(network, task, _build_targets(train_label_ids, task))
        for epoch in range(settings.epochs):
            loss = trainer.train_epoch(features)
            if loss is None:
                return None
            if say is not None:
                say(f"mlp: epoch {epoch + 1} of {settings.epochs}, loss {loss:.3f}")
    return MlpModel(reader, network.eval())


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: sums in another order would give other bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _unchecked() -> AbstractContextManager[None]:
    """Build sparse gradients without checking their indices, and without torch's warning."""
    return check_sparse_tensor_invariants(False)  # type: ignore[no-untyped-call]


class _Trainer:
    """Trains a network step by step; both learning rates decrease linearly."""

    def __init__(self, network: WideAndDeep, task: MlpTask, targets: tuple[Tensor, Tensor]) -> None:
        settings = task.settings
        self.network, self.task = network, task
        self.targets, self.weights = targets
        self.generator = np.random.default_rng(task.seed)
        n_rows = len(self.targets)
        self.step, self.n_steps = 0, settings.epochs * -(-n_rows // settings.batch_rows)
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Adagrad([network.deep.weight, network.wide.weight], lr=settings.lr),
            torch.optim.AdamW(network.head.parameters(), lr=settings.head_lr),
        )
        self.rates = (settings.lr, settings.head_lr)
        self.pace, self.since_report = Pace(math.inf), (0.0, 0)

    def train_epoch(self, features: Matrix) -> float | None:
        """Train on all rows once, in random order; return the mean loss, None if stopped."""
        order, size = self.generator.permutation(len(self.targets)), self.task.settings.batch_rows
        total = 0.0
        for start in range(0, len(order), size):
            if self.task.should_stop():
                return None
            chosen = order[start : start + size]
            loss = len(chosen) * self._take_step(features[chosen], torch.from_numpy(chosen))
            total += loss
            self._report(loss, len(chosen))
        return total / len(order)

    def _report(self, loss: float, rows: int) -> None:
        """Report progress if it is due, with the mean loss of the rows since the last report."""
        total, count = self.since_report
        total, count = total + loss, count + rows
        self.since_report = total, count
        if not self.pace.is_report_due() and self.step < self.n_steps:
            return
        seconds = max(self.pace.seconds, 1e-9)
        done = self.step / self.n_steps
        rows_per_s = done * self.task.settings.epochs * len(self.targets) / seconds
        left = seconds / done - seconds
        self.task.report(Progress(self.step, self.n_steps, total / count, rows_per_s, left))
        self.pace.note_report()
        self.since_report = 0.0, 0

    def _take_step(self, features: Matrix, chosen: Tensor) -> float:
        left = max(MIN_RATE, 1 - self.step / self.n_steps)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * left
            optimizer.zero_grad()
        indices, starts, values = _bag(features)
        logits = self.network(indices, starts, self._drop(values))
        weights = self.weights[chosen]
        losses = functional.cross_entropy(logits, self.targets[chosen], reduction="none")
        loss = (weights * losses).sum() / weights.sum()
        found = float(loss.detach())
        if not np.isfinite(found):
            raise TrainingError(
                f"the loss is {found} at step {self.step}; choose a lower mlp.lr or mlp.head_lr"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return found

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.task.settings.feature_dropout)


def _build_targets(label_ids: Int64s, task: MlpTask) -> tuple[Tensor, Tensor]:
    """Return the probabilities that rows are trained on, (n, C), and their weights, (n,)."""
    targets = functional.one_hot(torch.from_numpy(label_ids), task.n_labels).float()
    weights = torch.ones(len(label_ids))
    if task.soft_labels is not None:
        n_soft = len(task.soft_labels)
        targets[len(targets) - n_soft :] = torch.from_numpy(task.soft_labels)
        weights[len(weights) - n_soft :] = task.soft_weight
    return targets, weights


def _bag(features: Matrix) -> tuple[Tensor, Tensor, Tensor]:
    """Return the features of CSR rows as the arguments of ``WideAndDeep``."""
    return (
        torch.from_numpy(features.indices.astype(np.int64)),
        torch.from_numpy(features.indptr[:-1].astype(np.int64)),
        torch.from_numpy(features.data.astype(np.float32)),
    )
