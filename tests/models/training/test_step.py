from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.data.batches import Batch
from models.network.entity_embedding import RoleEmbedding
from models.network.network import RelationModel
from models.parts.heads import EntityStartHead, Positions
from models.parts.losses import LOSSES, Objective, cross_entropy
from models.settings import RegulariseSettings
from models.training.hardware import build_accelerator
from models.training.step import (
    Step,
    StepPart,
    StepSettings,
    Target,
    count_passes,
    plan_perturbations,
    take_step,
)

TOKENS, HIDDEN, LABELS, WIDTH = 20, 8, 4, 6
CUTS = [(0, 3), (3, 4), (4, 9)]  # micro-batches of three sizes
FGM = RegulariseSettings(adversarial="fgm", adversarial_size=0.3)
AWP = RegulariseSettings(adversarial="awp", adversarial_size=0.05)
Regularise = RegulariseSettings


class TinyEncoder(nn.Module):
    """Token embeddings, their running mean, dropout and a layer: all that a step needs."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(TOKENS, HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(HIDDEN, HIDDEN)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(
        self,
        attention_mask: Tensor,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Any:
        words = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        seen = (words * attention_mask[:, :, None]).cumsum(dim=1)
        return SimpleNamespace(last_hidden_state=torch.tanh(self.layer(self.dropout(seen))))


def make_model(dropout: float = 0.0, *, roles: bool = False) -> RelationModel:
    torch.manual_seed(0)
    encoder = TinyEncoder(dropout)
    head = EntityStartHead(HIDDEN, LABELS, dropout)
    return RelationModel(encoder, head, LABELS, RoleEmbedding(encoder.words) if roles else None)


def make_parts(cuts: list[tuple[int, int]], *, restricted: bool = False) -> list[StepPart]:
    random = torch.Generator().manual_seed(1)
    rows = cuts[-1][1]
    ids = torch.randint(TOKENS, (rows, WIDTH), generator=random)
    label_ids = torch.randint(LABELS, (rows,), generator=random)
    starts = torch.stack([torch.randperm(4, generator=random)[:2] + 1 for _ in range(rows)])
    allowed = torch.rand(rows, LABELS, generator=random) < 0.6
    allowed[torch.arange(rows), label_ids] = True

    def part(start: int, end: int) -> StepPart:
        at = slice(start, end)
        subject, obj = starts[at, 0], starts[at, 1]
        width = torch.full_like(subject, WIDTH)
        where = Positions(
            width, subject, obj, subject, subject + 1, obj, obj + 1, subject, subject + 1, obj
        )
        batch = Batch(ids[at], torch.ones_like(ids[at]), where)
        return StepPart(batch, label_ids[at], allowed[at] if restricted else None)

    return [part(*cut) for cut in cuts]


def settings_of(
    regularise: RegulariseSettings | None = None, objective: Objective | None = None
) -> StepSettings:
    return StepSettings(
        objective=objective or Objective("cross-entropy", 0.1),
        clip_norm=1.0,
        regularise=regularise or Regularise(),
    )


def step(
    model: RelationModel,
    settings: StepSettings,
    *,
    parts: list[StepPart] | None = None,
    optimizer: Any = None,
    accelerator: Any = None,
    progress: float = 0.5,
    seed: int = 7,
    rows: int | None = None,
    ranks: int = 1,
) -> Tensor:
    torch.manual_seed(seed)
    parts = make_parts(CUTS) if parts is None else parts
    accelerator = accelerator or PlainAccelerator()
    accelerator.num_processes = ranks
    return take_step(
        model,
        Step(parts, rows or sum(len(part.label_ids) for part in parts), progress),
        settings,
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=1.0),
        accelerator=accelerator,
    )


class PlainAccelerator:
    """The part of accelerate that a step uses, with a gradient scaler on the CPU if asked.

    ``shared`` holds, for each backward pass, whether processes would have exchanged gradients.
    """

    device = torch.device("cpu")
    num_processes = 1

    def __init__(self, scaler: Any = None) -> None:
        self.scaler = scaler
        self.shared: list[bool] = []
        self._is_sharing = True

    def unwrap_model(self, model: Any) -> Any:
        return model

    @contextmanager
    def no_sync(self, model: Any) -> Iterator[None]:
        self._is_sharing = False
        yield
        self._is_sharing = True

    def backward(self, loss: Tensor) -> None:
        self.shared.append(self._is_sharing)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip_grad_norm_(self, parameters: Any, most: float) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(parameters, most)

    def prepare(self, optimizer: torch.optim.Optimizer) -> Any:
        self.optimizer = optimizer

        def apply() -> None:
            self.scaler.step(optimizer)
            self.scaler.update()

        return SimpleNamespace(step=apply, zero_grad=optimizer.zero_grad)


class Recorder:
    """An optimiser that changes nothing and keeps the gradients it was given."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.gradients: dict[str, Tensor] = {}

    def step(self) -> None:
        named = self.model.named_parameters()
        self.gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}

    def zero_grad(self) -> None:
        self.model.zero_grad()


def gradients_of(model: RelationModel, settings: StepSettings, **options: Any) -> dict[str, Tensor]:
    """Return the gradients of a step, unclipped."""
    recorder = Recorder(model)
    open_ = StepSettings(settings.objective, 1e9, settings.regularise)
    step(model, open_, optimizer=recorder, **options)
    return recorder.gradients


def mean_loss(model: RelationModel, part: StepPart, objective: Objective) -> Tensor:
    where = part.batch.positions
    logits = model(part.batch.input_ids, part.batch.attention_mask, where)
    return objective.sum(logits, part.label_ids, part.allowed) / len(part.label_ids)


def gradient_at(model: RelationModel, part: StepPart, objective: Objective) -> dict[str, Tensor]:
    model.zero_grad()
    mean_loss(model, part, objective).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def weights_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, gradient in a.items():
        torch.testing.assert_close(gradient, b[name], atol=1e-6, rtol=1e-4)


def reference_step(model: Any, parts: list[StepPart], optimizer: Any, accelerator: Any) -> Tensor:
    """A plain step, as the first version had it; stored results depend on its exact bytes."""
    rows = sum(len(part.label_ids) for part in parts)
    total = torch.zeros((), device=accelerator.device)
    for place, part in enumerate(parts):
        batch, is_last = part.batch, place == len(parts) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            logits = model(batch.input_ids, batch.attention_mask, batch.positions)
            loss = cross_entropy(logits, part.label_ids, 0.1) / rows
            accelerator.backward(loss)
        total += loss.detach()
    accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_plain_step_gives_the_same_bytes_as_the_reference(precision: Any) -> None:
    def run(take: Callable[[Any, Any, Any], Tensor]) -> tuple[list[float], list[Tensor]]:
        accelerator = build_accelerator(precision)
        model = make_model(dropout=0.3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        prepared, optimizer = accelerator.prepare(model, optimizer)
        losses = []
        for at in range(4):
            torch.manual_seed(at)
            losses.append(take(prepared, optimizer, accelerator).item())
        return losses, weights_of(model)

    def now(model: Any, optimizer: Any, accelerator: Any) -> Tensor:
        return take_step(
            model,
            Step(make_parts(CUTS), CUTS[-1][1], 0.5),
            settings_of(),
            optimizer=optimizer,
            accelerator=accelerator,
        )

    before = run(lambda m, o, a: reference_step(m, make_parts(CUTS), o, a))
    after = run(now)
    assert after[0] == before[0]
    assert same(after[1], before[1])


@pytest.mark.parametrize("regularise", [Regularise(), Regularise(r_drop=1.0), FGM, AWP])
@pytest.mark.parametrize("restricted", [False, True])
def test_unequal_micro_batches_add_up_to_one_step(
    regularise: RegulariseSettings, restricted: bool
) -> None:
    whole, cut = (
        make_parts([(0, 9)], restricted=restricted),
        make_parts(CUTS, restricted=restricted),
    )
    settings = settings_of(regularise)
    close(
        gradients_of(make_model(), settings, parts=cut),
        gradients_of(make_model(), settings, parts=whole),
    )


@pytest.mark.parametrize("restricted", [False, True])
def test_a_plain_step_minimises_the_mean_loss_of_its_rows(restricted: bool) -> None:
    (part,) = make_parts([(0, 9)], restricted=restricted)
    model, settings = make_model(), settings_of()
    loss = mean_loss(model, part, settings.objective).detach()
    torch.testing.assert_close(step(make_model(), settings, parts=[part]), loss)
    expected = gradient_at(model, part, settings.objective)
    close(gradients_of(make_model(), settings, parts=[part]), expected)


def test_fgm_adds_the_gradient_at_the_perturbed_embeddings() -> None:
    settings, (part,) = settings_of(FGM), make_parts([(0, 9)])
    model = make_model()
    here = gradient_at(model, part, settings.objective)
    words = here["encoder.words.weight"]
    with torch.no_grad():
        table = model.encoder.words.weight
        typical = table.square().sum(dim=1).mean().sqrt()
        table += FGM.adversarial_size * typical * words / words.norm()
    there = gradient_at(model, part, settings.objective)
    close(gradients_of(make_model(), settings), {name: here[name] + there[name] for name in here})


def test_awp_takes_the_gradient_at_perturbed_matrices_except_the_embeddings() -> None:
    settings, (part,) = settings_of(AWP), make_parts([(0, 9)])
    model = make_model()
    before, here = weights_of(model), gradient_at(model, part, settings.objective)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and name != "encoder.words.weight":
                share = AWP.adversarial_size * weight.norm() / here[name].norm()
                weight.add_(share * here[name])
    moved = [not torch.equal(a, b) for a, b in zip(before, weights_of(model), strict=True)]
    words = model.encoder.words.weight
    assert moved == [weight.ndim > 1 and weight is not words for weight in model.parameters()]
    close(gradients_of(make_model(), settings), gradient_at(model, part, settings.objective))


@pytest.mark.parametrize("regularise", [FGM, AWP])
def test_weights_are_restored_bit_for_bit(regularise: RegulariseSettings) -> None:
    model = make_model(dropout=0.3)
    before = weights_of(model)
    step(model, settings_of(regularise), optimizer=Recorder(model))
    assert same(before, weights_of(model))


@pytest.mark.parametrize("regularise", [FGM, AWP])
def test_weights_are_restored_when_the_perturbed_pass_fails(regularise: RegulariseSettings) -> None:
    class Failing(PlainAccelerator):
        def backward(self, loss: Tensor) -> None:
            if len(self.shared) == len(CUTS) + 1:
                raise KeyboardInterrupt
            super().backward(loss)

    model = make_model()
    before = weights_of(model)
    with pytest.raises(KeyboardInterrupt):
        step(model, settings_of(regularise), accelerator=Failing())
    assert same(before, weights_of(model))


@pytest.mark.parametrize("regularise", [FGM, AWP])
def test_the_attack_begins_after_its_share_of_the_steps(regularise: RegulariseSettings) -> None:
    late = settings_of(regularise.model_copy(update={"adversarial_from": 0.4}))
    plain, early, on_time = make_model(), make_model(), make_model()
    loss = step(plain, settings_of())
    assert torch.equal(step(early, late, progress=0.39), loss)
    assert same(weights_of(plain), weights_of(early))
    assert torch.equal(step(on_time, late, progress=0.4), loss)  # the loss before the attack
    assert not same(weights_of(plain), weights_of(on_time))


@pytest.mark.parametrize("regularise", [Regularise(r_drop=1.0), FGM, AWP])
def test_loss_scaling_changes_nothing(regularise: RegulariseSettings) -> None:
    plain, scaled = make_model(dropout=0.3), make_model(dropout=0.3)
    step(plain, settings_of(regularise))
    accelerator = PlainAccelerator(torch.amp.GradScaler("cpu", init_scale=2.0**12))
    optimizer = accelerator.prepare(torch.optim.SGD(scaled.parameters(), lr=1.0))
    step(scaled, settings_of(regularise), optimizer=optimizer, accelerator=accelerator)
    for a, b in zip(weights_of(plain), weights_of(scaled), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("regularise", [FGM, AWP])
def test_gradients_that_overflow_skip_the_attack_and_the_step(
    regularise: RegulariseSettings,
) -> None:
    model = make_model()
    before = weights_of(model)
    accelerator = PlainAccelerator(torch.amp.GradScaler("cpu", init_scale=2.0**127))
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=1.0))
    parts = make_parts(CUTS)
    settings = settings_of(
        regularise, Objective("cross-entropy", 0.1, class_weights=torch.full((4,), 1e4))
    )
    step(model, settings, parts=parts, optimizer=optimizer, accelerator=accelerator)
    assert len(accelerator.shared) == len(parts)  # one pass, no second one
    assert same(before, weights_of(model))
    assert accelerator.scaler.get_scale() < 2.0**127


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_gradient_that_is_not_finite_cancels_the_whole_attack(bad: float) -> None:
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    targets: list[Target] = [(weight, 1.0) for weight in weights]
    for weight in weights:
        weight.grad = torch.ones(2, 2)
    assert [factor.item() for _, factor in plan_perturbations(targets)] == [0.5, 0.5]
    weights[1].grad = torch.tensor([[1.0, bad], [0.0, 1.0]])
    assert plan_perturbations(targets) == []


@pytest.mark.parametrize("regularise", [FGM, AWP])
def test_weights_without_a_gradient_are_not_perturbed(regularise: RegulariseSettings) -> None:
    model = make_model()
    with torch.no_grad():
        model.head.out.weight.zero_()  # type: ignore[union-attr,operator]
    step(model, settings_of(regularise))  # nothing below the last layer has a direction to go
    assert all(weight.isfinite().all() for weight in weights_of(model))
    model.encoder.words.weight.requires_grad_(requires_grad=False)
    before = model.encoder.words.weight.clone()
    step(model, settings_of(regularise))
    assert torch.equal(before, model.encoder.words.weight)


@pytest.mark.parametrize(
    ("regularise", "passes"), [(Regularise(), 1), (Regularise(r_drop=1.0), 1), (FGM, 2), (AWP, 2)]
)
def test_processes_synchronise_gradients_once_per_pass(
    regularise: RegulariseSettings, passes: int
) -> None:
    accelerator = PlainAccelerator()
    step(make_model(), settings_of(regularise), accelerator=accelerator)
    assert accelerator.shared == [False, False, True] * passes


def test_r_drop_without_dropout_is_a_plain_step() -> None:
    plain, dropped = make_model(), make_model()
    loss = step(plain, settings_of())
    torch.testing.assert_close(step(dropped, settings_of(Regularise(r_drop=3.0))), loss)
    for a, b in zip(weights_of(plain), weights_of(dropped), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("restricted", [False, True])
def test_r_drop_by_hand(restricted: bool) -> None:
    (part,) = make_parts([(0, 9)], restricted=restricted)
    settings = settings_of(Regularise(r_drop=2.0), Objective("cross-entropy", 0.0))
    model = make_model(dropout=0.4)
    torch.manual_seed(7)
    where = part.batch.positions
    twice = Positions(*(torch.cat([v, v]) for v in (getattr(where, n) for n in Positions.names())))
    ids = torch.cat([part.batch.input_ids] * 2)
    logits = model(ids, torch.ones_like(ids), twice)
    if part.allowed is not None:
        logits = logits.masked_fill(~torch.cat([part.allowed] * 2), -1e9)
    p, q = logits.softmax(dim=1).chunk(2)
    assert not torch.allclose(p, q)  # each pass has dropout masks of its own
    at = (torch.arange(9), part.label_ids)
    likelihood = -(p[at].log() + q[at].log()).mean() / 2
    log_ratio = torch.where(p > 0, p, 1).log() - torch.where(q > 0, q, 1).log()
    divergence = ((p - q) * log_ratio).sum(dim=1).mean() / 2
    assert divergence > 0
    loss = step(model, settings, parts=[part])
    torch.testing.assert_close(loss, likelihood + 2.0 * divergence)


def test_r_drop_makes_dropout_matter_less() -> None:
    (part,) = make_parts([(0, 9)])
    batch = part.batch

    def spread(weight: float) -> float:
        """Return the standard deviation of probabilities over dropout draws."""
        model = make_model(dropout=0.3)
        for at in range(40):
            step(model, settings_of(Regularise(r_drop=weight)), parts=[part], seed=at)
        torch.manual_seed(0)
        with torch.no_grad():
            drawn = [
                model(batch.input_ids, batch.attention_mask, batch.positions).softmax(dim=1)
                for _ in range(50)
            ]
        return torch.stack(drawn).std(dim=0).mean().item()

    assert spread(5.0) < 0.8 * spread(0.0)


def test_r_drop_holds_every_row_twice() -> None:
    assert count_passes(Regularise(r_drop=1.0)) == 2
    assert count_passes(FGM) == count_passes(AWP) == count_passes(Regularise()) == 1


@pytest.mark.parametrize("loss", LOSSES)
def test_a_network_overfits_a_few_rows_under_attack(loss: str) -> None:
    model, parts = make_model(), make_parts([(0, 9)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    objective = Objective(loss, 0.0)
    for at in range(60):
        hardened = (Regularise(r_drop=1.0), FGM, AWP)[at % 3]
        last = step(model, settings_of(hardened, objective), parts=parts, optimizer=optimizer)
    assert last < 0.1


@pytest.mark.parametrize("regularise", [Regularise(), FGM, AWP])
def test_the_outside_role_stays_zero(regularise: RegulariseSettings) -> None:
    model = make_model(roles=True)
    assert model.roles is not None
    before = deepcopy(model.roles.vectors.weight.detach())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(3):
        step(model, settings_of(regularise), optimizer=optimizer)
    after = model.roles.vectors.weight
    assert (after[0] == 0).all()
    assert (after[1:] != before[1:]).all()
