from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from models.parts.losses import (
    LOSSES,
    Objective,
    build_objective,
    compute_class_weights,
    cross_entropy,
    symmetric_divergence,
)
from models.settings import LossSettings
from models.variant import resolve_variant

LABELS = 4
GOLD = torch.tensor([0, 1, 3, 3, 2])
ALLOWED = torch.tensor(
    [
        [True, True, False, False],
        [True, True, True, False],
        [False, True, False, True],
        [True, False, False, False],  # its gold label, 3, is forbidden
        [True, True, True, True],
    ]
)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0])


def draw_logits(rows: int = 5) -> Tensor:
    return 3 * torch.randn(rows, LABELS, generator=torch.Generator().manual_seed(0))


def every_objective() -> list[Objective]:
    return [
        Objective(name, smoothing, LossSettings(focal_gamma=gamma), weights)
        for name in LOSSES
        for smoothing in (0.0, 0.1)
        for gamma in (0.0, 0.5, 2.0)
        for weights in (None, WEIGHTS)
    ]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_plain_cross_entropy_equals_torch_bit_for_bit(smoothing: float) -> None:
    random = torch.Generator().manual_seed(0)
    gold = torch.randint(30, (300,), generator=random)
    logits = (3 * torch.randn(300, 30, generator=random)).requires_grad_()
    expected = F.cross_entropy(logits, gold, reduction="sum", label_smoothing=smoothing)
    (slope,) = torch.autograd.grad(expected, logits)
    for loss in (
        Objective("cross-entropy", smoothing).sum(logits, gold),
        cross_entropy(logits, gold, smoothing),
    ):
        assert torch.equal(loss, expected)
        assert torch.equal(torch.autograd.grad(loss, logits)[0], slope)


def test_a_full_mask_and_equal_weights_change_nothing() -> None:
    logits = draw_logits()
    plain = Objective("cross-entropy", 0.1).sum(logits, GOLD)
    everything = torch.ones(5, LABELS, dtype=torch.bool)
    for objective in (
        Objective("cross-entropy", 0.1, class_weights=torch.ones(LABELS)),
        Objective("focal", 0.1, LossSettings(focal_gamma=0.0)),
    ):
        torch.testing.assert_close(objective.sum(logits, GOLD), plain)
        torch.testing.assert_close(objective.sum(logits, GOLD, everything), plain)


def test_focal_loss_by_hand() -> None:
    logits = draw_logits()
    p = logits.softmax(dim=1)[torch.arange(5), GOLD]
    by_hand = (-((1 - p) ** 2) * p.log()).sum()
    objective = Objective("focal", 0.0, LossSettings(focal_gamma=2.0))
    torch.testing.assert_close(objective.sum(logits, GOLD), by_hand)


def test_a_loss_uses_existing_options() -> None:
    assert {option for loss in LOSSES.values() for option in loss.reads} <= set(
        LossSettings.model_fields
    )


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.smooths])
def test_a_loss_that_supports_label_smoothing_uses_it(name: str) -> None:
    plain, smoothed = (
        Objective(name, smoothing, class_weights=torch.ones(LABELS)).sum(draw_logits(), GOLD)
        for smoothing in (0.0, 0.1)
    )
    assert not torch.equal(plain, smoothed)


def test_class_weights_multiply_rows_by_their_gold_label() -> None:
    logits = draw_logits()
    rows = F.cross_entropy(logits, GOLD, reduction="none", label_smoothing=0.1)
    objective = Objective("cross-entropy", 0.1, class_weights=WEIGHTS)
    torch.testing.assert_close(objective.sum(logits, GOLD), (rows * WEIGHTS[GOLD]).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_masked_label_is_excluded_from_softmax_and_smoothing(smoothing: float) -> None:
    logits = draw_logits().requires_grad_()
    loss = Objective("cross-entropy", smoothing).sum(logits, GOLD, ALLOWED)
    expected = torch.zeros(())
    for row, gold, allowed in zip(logits, GOLD, ALLOWED, strict=True):
        kept = allowed if allowed[gold] else torch.ones_like(allowed)
        gold_among_kept = kept[:gold].sum()
        expected = expected + F.cross_entropy(row[kept], gold_among_kept, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    counted = ALLOWED | ~ALLOWED.gather(1, GOLD[:, None])
    assert torch.equal(gradient != 0, counted)


def test_a_row_with_a_masked_gold_label_is_not_masked() -> None:
    logits, one = draw_logits()[3:4], slice(3, 4)
    objective = Objective("cross-entropy", 0.1)
    masked = objective.sum(logits, GOLD[one], ALLOWED[one])
    torch.testing.assert_close(masked, objective.sum(logits, GOLD[one]))


@pytest.mark.parametrize("objective", every_objective())
def test_the_loss_is_a_sum_over_rows(objective: Objective) -> None:
    logits = draw_logits()
    whole = objective.sum(logits, GOLD, ALLOWED)
    cuts = [slice(0, 2), slice(2, 5)]
    parts = [objective.sum(logits[at], GOLD[at], ALLOWED[at]) for at in cuts]
    torch.testing.assert_close(sum(parts, torch.zeros(())), whole)


@pytest.mark.parametrize("objective", every_objective())
@pytest.mark.parametrize("allowed", [None, ALLOWED])
@pytest.mark.parametrize("size", [0.0, 1.0, 200.0, 6e4])
def test_loss_and_gradient_are_finite_for_any_logits(
    objective: Objective, allowed: Tensor | None, size: float
) -> None:
    for sure in (True, False):  # of the gold label, or of another one
        favourite = GOLD if sure else (GOLD + 1) % LABELS
        logits = torch.full((5, LABELS), -size, dtype=torch.float16)
        logits[torch.arange(5), favourite] = size
        logits.requires_grad_()
        loss = objective.sum(logits, GOLD, allowed)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@given(
    st.lists(st.integers(0, LABELS - 1), min_size=1, max_size=60),
    st.sampled_from(["inverse-sqrt", "effective"]),
)
def test_class_weights_have_mean_one_and_favour_rare_labels(gold: list[int], way: Any) -> None:
    label_ids = np.array(gold)
    weights = compute_class_weights(label_ids, LABELS, LossSettings(class_weight=way))
    assert weights is not None
    assert weights.isfinite().all()
    assert weights[label_ids].mean().item() == pytest.approx(1, abs=1e-5)
    counts = np.bincount(label_ids, minlength=LABELS)
    by_count = weights.numpy()[np.argsort(-counts, kind="stable")]
    assert (np.diff(by_count) >= -1e-6).all()


def test_effective_weights_by_hand() -> None:
    options = LossSettings(class_weight="effective", effective_beta=0.9)
    weights = compute_class_weights(np.array([0] * 9 + [1]), 2, options)
    assert weights is not None
    assert (weights[1] / weights[0]).item() == pytest.approx((1 - 0.9**9) / (1 - 0.9))


def test_an_objective_follows_the_variant() -> None:
    def objective(*overrides: tuple[str, Any]) -> Objective:
        variant = resolve_variant("typed-punct", encoder="scratch", overrides=overrides)
        return build_objective(variant, np.array([0, 0, 1]), LABELS)

    assert objective() == Objective("cross-entropy", 0.1, LossSettings(), None)
    hard = ("train.label_smoothing", 0.0)
    focal = objective(("loss", "focal"), ("loss_options.focal_gamma", 1.5), hard)
    assert focal == Objective("focal", 0.0, LossSettings(focal_gamma=1.5))
    weighted = objective(("loss_options.class_weight", "inverse-sqrt"))
    assert weighted.class_weights is not None
    assert weighted.class_weights[1] > weighted.class_weights[0]


def test_divergence_is_symmetric_and_zero_between_equals() -> None:
    log_p, log_q = draw_logits(10).log_softmax(dim=1).split(5)
    one_way = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    other_way = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
    torch.testing.assert_close(symmetric_divergence(log_p, log_q), (one_way + other_way) / 2)
    assert symmetric_divergence(log_p, log_p) == 0


def test_divergence_excludes_masked_labels() -> None:
    objective = Objective("cross-entropy", 0.1)
    logits, other = draw_logits(10).split(5)
    logits.requires_grad_()
    apart = symmetric_divergence(
        objective.log_probs(logits, GOLD, ALLOWED), objective.log_probs(other, GOLD, ALLOWED)
    )
    (gradient,) = torch.autograd.grad(apart, logits)
    counted = ALLOWED | ~ALLOWED.gather(1, GOLD[:, None])
    assert apart.isfinite()
    assert torch.equal(gradient.abs() > 1e-9, counted)


def test_soft_labels_replace_the_gold_label_and_nothing_else() -> None:
    """A one-hot soft label is the plain cross-entropy; labelled rows keep their own loss."""
    soft = torch.zeros(5, LABELS)
    soft[1], soft[4] = torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    logits = draw_logits()
    log_probs = F.log_softmax(logits, dim=-1)
    for objective in every_objective():
        weighed = replace(objective, soft_weight=0.5)
        labelled = torch.tensor([0, 2, 3])
        expected = (
            objective.sum(logits[labelled], GOLD[labelled])
            - 0.5 * log_probs[1, 1]
            - 0.5 * (soft[4] * log_probs[4]).sum()
        )
        assert torch.allclose(weighed.sum(logits, GOLD, None, soft), expected)
        assert torch.allclose(
            weighed.sum(logits, GOLD, None, torch.zeros(5, LABELS)), objective.sum(logits, GOLD)
        )
