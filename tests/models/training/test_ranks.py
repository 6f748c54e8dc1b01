from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from competition.errors import TrainingError, VariantError
from models.settings import AdaptSettings
from models.training.control import step_seed
from models.training.predictor import FILLER, put_in_order
from models.training.ranks import Ranks, deal, rank_seed
from models.training.sharding import check_shardable, find_blocks
from models.training.step import StepPart
from tests.models.training.test_step import CUTS, gradients_of, make_model, make_parts, settings_of

LENGTHS = np.random.default_rng(0).integers(3, 60, 100)


@pytest.mark.parametrize("rows", [1, 2, 5, 32])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_ranks_share_all_rows_of_a_step_in_equally_many_micro_batches(rows: int, size: int) -> None:
    places = np.random.default_rng(rows).permutation(100)[:rows]
    hands = [deal(places, LENGTHS, 120, Ranks(rank, size)) for rank in range(size)]
    assert len({len(hand) for hand in hands}) == 1
    counted = [part.rows for hand in hands for part in hand if not part.is_filler]
    assert sorted(np.concatenate(counted)) == sorted(places)
    for part in (part for hand in hands for part in hand):
        assert len(part.rows) == 1 or LENGTHS[part.rows].max() * len(part.rows) <= 120
        assert not part.is_filler or part.rows.tolist() == [places[LENGTHS[places].argmin()]]


def test_no_rows_are_no_micro_batches() -> None:
    assert deal(np.arange(0), LENGTHS, 100, Ranks(1, 2)) == []


def test_each_rank_draws_its_own_numbers_and_the_main_one_those_of_a_process_alone() -> None:
    seeds = [rank_seed(42, 1, 7, Ranks(rank, 8)) for rank in range(8)]
    assert seeds[0] == step_seed(42, 1, 7)
    assert len(set(seeds)) == 8


def test_the_gradients_of_ranks_average_to_those_of_one_process() -> None:
    """Two ranks with unequal shares and a filler, computed one after the other."""
    parts = make_parts(CUTS)
    filler = StepPart(parts[1].batch, parts[1].label_ids, is_filler=True)
    alone = gradients_of(make_model(), settings_of(), parts=parts)
    shares = [[parts[0], filler], parts[1:]]
    found = []
    for share in shares:
        model = make_model()
        found.append(gradients_of(model, settings_of(), parts=share, rows=CUTS[-1][1], ranks=2))
    for name, gradient in alone.items():
        torch.testing.assert_close((found[0][name] + found[1][name]) / 2, gradient)


def test_only_whole_blocks_of_the_encoder_are_sharded_on_their_own() -> None:
    def modules(**parts: nn.Module) -> nn.Module:
        whole = nn.Module()
        for name, part in parts.items():
            setattr(whole, name, part)
        return whole

    inner = nn.ModuleList([nn.Linear(1, 1)])
    blocks = nn.ModuleList([modules(layer=inner), modules(layer=inner)])
    model = modules(encoder=modules(block=blocks, norm=nn.LayerNorm(1)), head=modules(layers=inner))
    assert find_blocks(model) == ["encoder.block.0", "encoder.block.1"]


def test_what_cannot_be_sharded_is_refused() -> None:
    with pytest.raises(VariantError, match="there is one; start them with torchrun"):
        check_shardable(None, 1)
    with pytest.raises(VariantError, match="a base in nf4 cannot be sharded"):
        check_shardable(AdaptSettings(quantise="nf4"), 2)
    check_shardable(AdaptSettings(), 2)


def test_predictions_of_ranks_cover_every_row_once() -> None:
    probs = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert put_in_order(np.array([2, FILLER, 0, 1]), probs, 3).tolist() == [[4, 5], [6, 7], [0, 1]]
    with pytest.raises(TrainingError, match="1 of 3 rows have no prediction, 1 have several"):
        put_in_order(np.array([2, FILLER, 0, 0]), probs, 3)
