from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.heads import HEADS, BiLstmHead, ClsHead, EntityStartHead, Positions, pick

HIDDEN, LABELS = 8, 5


def positions(lengths: list[int], subject: list[int], obj: list[int]) -> Positions:
    def column(values: list[int]) -> Tensor:
        return torch.tensor(values)

    ends = [at + 1 for at in subject], [at + 1 for at in obj]
    return Positions(
        lengths=column(lengths),
        subject_mark=column(subject),
        object_mark=column(obj),
        subject_start=column(subject),
        subject_end=column(ends[0]),
        object_start=column(obj),
        object_end=column(ends[1]),
    )


@pytest.fixture
def states() -> Tensor:
    return torch.randn(2, 6, HIDDEN, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", HEADS)
def test_logits_do_not_depend_on_padding(name: str, states: Tensor) -> None:
    torch.manual_seed(0)
    head = HEADS[name](HIDDEN, LABELS, 0.5).eval()
    where = positions([4, 6], [1, 5], [3, 2])
    logits = head(states, where)
    assert logits.shape == (2, LABELS)
    noisy = states.clone()
    noisy[0, 4:] = 99.0
    torch.testing.assert_close(head(noisy, where), logits)
    wider = torch.cat([states, torch.full((2, 3, HIDDEN), 7.0)], dim=1)
    torch.testing.assert_close(head(wider, where), logits)


def test_states_are_picked_by_position(states: Tensor) -> None:
    picked = pick(states, torch.tensor([3, 0]))
    assert torch.equal(picked[0], states[0, 3])
    assert torch.equal(picked[1], states[1, 0])


def test_entity_start_reads_both_marks_and_tells_them_apart(states: Tensor) -> None:
    torch.manual_seed(0)
    head = EntityStartHead(HIDDEN, LABELS, 0.0).eval()
    here = head(states, positions([6, 6], [1, 1], [3, 3]))
    swapped = head(states, positions([6, 6], [3, 3], [1, 1]))
    assert not torch.allclose(here, swapped)
    touched = states.clone()
    touched[:, [0, 2, 4, 5]] += 1
    torch.testing.assert_close(head(touched, positions([6, 6], [1, 1], [3, 3])), here)


def test_cls_reads_the_first_state_only(states: Tensor) -> None:
    torch.manual_seed(0)
    head = ClsHead(HIDDEN, LABELS, 0.0).eval()
    touched = states.clone()
    touched[:, 1:] += 1
    where = positions([6, 6], [1, 1], [3, 3])
    assert torch.equal(head(touched, where), head(states, where))


def test_bilstm_reads_its_last_layer_which_therefore_learns(states: Tensor) -> None:
    torch.manual_seed(0)
    head = BiLstmHead(HIDDEN, LABELS, 0.0)
    head(states, positions([4, 6], [1, 1], [3, 3])).sum().backward()
    of_last_layer = {n: p for n, p in head.lstm.named_parameters() if "_l1" in n}
    assert len(of_last_layer) == 8
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in of_last_layer.values())


def test_bilstm_ends_where_the_row_ends(states: Tensor) -> None:
    torch.manual_seed(0)
    head = BiLstmHead(HIDDEN, LABELS, 0.0).eval()
    short = positions([4, 4], [1, 1], [3, 3])
    alone = head(states[:1, :4], positions([4], [1], [3]))
    torch.testing.assert_close(head(states, short)[:1], alone)
    by_hand, (final, _) = head.lstm(states[:1, :4])
    torch.testing.assert_close(final[-2], by_hand[:, -1, :HIDDEN])
    torch.testing.assert_close(final[-1], by_hand[:, 0, HIDDEN:])
