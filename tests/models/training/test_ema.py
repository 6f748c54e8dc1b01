from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.training.checkpoints import read_state, write_state
from models.training.ema import build_average, take_average, warm_decay
from models.training.hardware import build_accelerator

DECAY = 0.9


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def train(model: nn.Module, steps: range) -> list[Tensor]:
    """Set the weights to a known value per step, and return those values."""
    trail = []
    for at in steps:
        with torch.no_grad():
            model[0].weight.fill_(float(at**2))  # type: ignore[index,union-attr,operator]
        trail.append(model[0].weight.detach().clone())  # type: ignore[index,union-attr,operator]
    return trail


def test_the_average_follows_its_own_formula() -> None:
    model = make_model()
    average = build_average(model, DECAY)
    expected = 0.0
    for at in range(1, 60):
        (weight,) = train(model, range(at, at + 1))
        average.update_parameters(model)
        now = weight[0, 0].item()
        keep = warm_decay(DECAY, at - 1) if at > 1 else 0.0
        expected = keep * expected + (1 - keep) * now
        assert average.module[0].weight[0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_initial_weights_do_not_enter_the_average() -> None:
    model = make_model()
    average = build_average(model, 0.999)
    train(model, range(5, 6))
    average.update_parameters(model)
    assert torch.equal(average.module[0].weight, torch.full((4, 3), 25.0))


def test_the_decay_rises_to_the_requested_value() -> None:
    decays = [warm_decay(0.999, updates) for updates in range(1, 20_000, 50)]
    assert decays == sorted(decays)
    assert decays[0] < 0.2
    assert decays[-1] == 0.999


def test_it_lags_less_than_a_plain_average_would() -> None:
    model = make_model()
    average = build_average(model, 0.999)
    for at in range(1, 101):
        train(model, range(at, at + 1))
        average.update_parameters(model)
    plain = 1.0
    for at in range(2, 101):
        plain = 0.999 * plain + 0.001 * at**2
    assert average.module[0].weight[0, 0].item() > 0.6 * 100**2 > 5 * plain


def test_building_and_updating_do_not_change_the_model() -> None:
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = build_average(model, DECAY)
    average.update_parameters(model)
    with torch.no_grad():
        average.module[0].weight.fill_(7.0)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_taking_the_average_gives_its_weights_and_the_newest_buffers() -> None:
    model = make_model()
    average = build_average(model, DECAY)
    for at in range(1, 4):
        train(model, range(at, at + 1))
        model[1].num_batches_tracked += 1  # type: ignore[index,operator]
        average.update_parameters(model)
    take_average(average, model)
    assert torch.equal(model[0].weight, average.module[0].weight)  # type: ignore[index]
    assert 1.0 < model[0].weight[0, 0].item() < 9.0  # type: ignore[index]
    assert model[1].num_batches_tracked == 3  # type: ignore[index]


def test_it_resumes_from_a_training_state(tmp_path: Path) -> None:
    def update(model: nn.Module, average: Any, steps: range) -> None:
        for at in steps:
            train(model, range(at, at + 1))
            average.update_parameters(model)

    def make() -> tuple[nn.Module, Any, nn.Module, torch.optim.Optimizer]:
        model = make_model()
        average = build_average(model, DECAY)
        kept = nn.ModuleDict({"model": model, "average": average})
        return model, average, kept, torch.optim.SGD(model.parameters(), lr=0.1)

    straight, straight_average, _, _ = make()
    update(straight, straight_average, range(1, 9))
    model, average, kept, optimizer = make()
    update(model, average, range(1, 4))
    path = tmp_path / "state.safetensors"
    write_state(path, kept, optimizer, {"fingerprint": "f"})
    model, average, kept, optimizer = make()
    assert read_state(path, kept, optimizer, "f") is not None
    update(model, average, range(4, 9))
    for name, tensor in straight_average.state_dict().items():
        assert torch.equal(average.state_dict()[name], tensor), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_prepared_model_can_be_averaged(precision: Any) -> None:
    accelerator = build_accelerator(precision)
    bare = accelerator.unwrap_model(accelerator.prepare(make_model()))
    average = build_average(bare, DECAY)
    average.update_parameters(bare)
    take_average(average, bare)
    assert bare(torch.ones(2, 3)).shape == (2, 4)
