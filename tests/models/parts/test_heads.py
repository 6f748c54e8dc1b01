from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from competition.errors import VariantError
from models.parts.formats import FORMATS
from models.parts.heads import (
    HEADS,
    READS_PROMPT,
    BiLstmHead,
    ClsHead,
    EntityStartEndHead,
    EntityStartHead,
    MaskHead,
    Positions,
    RBertHead,
    check_head_fits,
    drop_out,
    mean_over_span,
    pick,
)

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
        prompt_mask=column(subject),
        subject_close=column(subject),
        object_close=column(obj),
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


def test_states_are_selected_by_position(states: Tensor) -> None:
    picked = pick(states, torch.tensor([3, 0]))
    assert torch.equal(picked[0], states[0, 3])
    assert torch.equal(picked[1], states[1, 0])


def test_entity_start_distinguishes_both_markers(states: Tensor) -> None:
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


def packed_twin(head: BiLstmHead) -> nn.LSTM:
    """Return torch's bidirectional LSTM with the weights of the head, for packed sequences."""
    twin = nn.LSTM(HIDDEN, HIDDEN // 2, bidirectional=True, batch_first=True)
    own = head.state_dict()
    for name in twin.state_dict():
        kind, back = re.fullmatch(r"(\w+_l0)(_reverse)?", name).groups()  # type: ignore[union-attr]
        way = "backwards" if back else "forwards"
        twin.state_dict()[name].copy_(own[f"{way}.{kind}"])
    return twin


def test_bilstm_equals_packed_sequences(states: Tensor) -> None:
    torch.manual_seed(0)
    head = BiLstmHead(HIDDEN, LABELS, 0.0).eval()
    twin, lengths = packed_twin(head), torch.tensor([3, 6])
    packed = nn.utils.rnn.pack_padded_sequence(
        states, lengths, batch_first=True, enforce_sorted=False
    )
    context, _ = nn.utils.rnn.pad_packed_sequence(twin(packed)[0], batch_first=True)
    where = positions([3, 6], [1, 1], [2, 3])
    read = [pick(states + context, at) for at in (where.subject_mark, where.object_mark)]
    wanted = head.out(torch.relu(head.mix(torch.cat(read, dim=-1))))
    torch.testing.assert_close(head(states, where), wanted)
    touched = states.clone()
    touched[0, 3:] = 99.0
    torch.testing.assert_close(head(touched, where), wanted)
    other = states.clone()
    other[1, 5] += 1.0  # no marker: only the LSTM reads it
    assert not torch.allclose(head(other, where)[1], wanted[1])


def test_bilstm_learns_in_all_its_parts(states: Tensor) -> None:
    torch.manual_seed(0)
    head = BiLstmHead(HIDDEN, LABELS, 0.0)
    head(states, positions([4, 6], [1, 1], [3, 3])).sum().backward()
    assert len(list(head.parameters())) == 12
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def spread_positions() -> Positions:
    """Two rows with six different positions: markers, multi-token entities, a prompt's mask."""
    names = ("lengths", "subject_mark", "object_mark", "subject_start", "subject_end")
    names += ("object_start", "object_end", "prompt_mask", "subject_close", "object_close")
    words = ([2, 8], [5, 10], [7, 3], [9, 6])
    values = ([12, 11], [1, 7], [6, 2], *words, [10, 11], [5, 9], [9, 6])
    return Positions(**{n: torch.tensor(v) for n, v in zip(names, values, strict=True)})


READ_BY = {
    "entity-close-last": [[5, 9, 11], [6, 9, 10]],
    "entity-start-end": [[1, 4, 6, 8], [2, 5, 7, 9]],
    "mask": [[10], [11]],
    "rbert": [[0, 2, 3, 4, 7, 8], [0, 3, 4, 5, 8, 9]],
}


@pytest.mark.parametrize("name", READ_BY)
def test_a_head_reads_only_its_own_positions(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](HIDDEN, LABELS, 0.0).eval()
    states = torch.randn(2, 12, HIDDEN, requires_grad=True)
    head(states, spread_positions()).square().sum().backward()
    assert states.grad is not None
    read = [row.abs().sum(dim=1).nonzero().flatten().tolist() for row in states.grad]
    assert read == READ_BY[name]


def test_the_mean_over_a_span_is_over_its_own_tokens(states: Tensor) -> None:
    mean = mean_over_span(states, torch.tensor([1, 5]), torch.tensor([4, 6]))
    torch.testing.assert_close(mean[0], states[0, 1:4].mean(dim=0))
    torch.testing.assert_close(mean[1], states[1, 5])
    half = mean_over_span(states.bfloat16(), torch.tensor([1, 5]), torch.tensor([4, 6]))
    torch.testing.assert_close(half.float(), mean, atol=0.02, rtol=0.02)


def test_rbert_shares_one_layer_between_the_entities() -> None:
    torch.manual_seed(0)
    head = RBertHead(HIDDEN, LABELS, 0.0).eval()
    states, where = torch.randn(2, 12, HIDDEN), spread_positions()
    by_hand = [
        head.read_cls(torch.tanh(states[0, 0])),
        head.read_entity(torch.tanh(states[0, 2:5].mean(dim=0))),
        head.read_entity(torch.tanh(states[0, 7:9].mean(dim=0))),
    ]
    torch.testing.assert_close(head(states, where)[0], head.out(torch.cat(by_hand)))


def test_entity_start_end_distinguishes_its_four_positions() -> None:
    torch.manual_seed(0)
    head = EntityStartEndHead(HIDDEN, LABELS, 0.0).eval()
    states = torch.randn(2, 12, HIDDEN)
    joined = torch.cat([states[1, at] for at in (7, 9, 2, 5)])  # the subject first
    by_hand = head.out(torch.relu(head.mix(joined)))
    torch.testing.assert_close(head(states, spread_positions())[1], by_hand)


def test_mask_normalises_its_state() -> None:
    torch.manual_seed(0)
    head = MaskHead(HIDDEN, LABELS, 0.0).eval()
    states, where = torch.randn(2, 12, HIDDEN), spread_positions()
    seen: list[Tensor] = []
    head.out.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    head(states, where)
    torch.testing.assert_close(seen[0].mean(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].var(dim=1, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_one_dropout_sample_is_plain_dropout(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](HIDDEN, LABELS, 0.5)
    states, where = torch.randn(2, 12, HIDDEN), spread_positions()
    seen: list[tuple[Tensor, Tensor]] = []
    head.dropout.register_forward_hook(  # type: ignore[union-attr]
        lambda module, given, out: seen.append((given[0], out))
    )
    torch.manual_seed(1)
    logits = head(states, where)
    features, dropped = seen[-1]
    assert torch.equal(logits, head.out(dropped))  # type: ignore[operator]
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * features[kept])


@pytest.mark.parametrize("name", HEADS)
def test_several_dropout_samples_give_the_mean_of_their_logits(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](HIDDEN, LABELS, 0.5, 5)
    states, where = torch.randn(2, 12, HIDDEN), spread_positions()
    seen: list[Tensor] = []
    head.dropout.register_forward_hook(  # type: ignore[union-attr]
        lambda module, given, out: seen.append(out)
    )
    logits = head(states, where)
    samples = torch.stack([head.out(dropped) for dropped in seen[-5:]])  # type: ignore[operator]
    assert not torch.equal(samples[0], samples[1])
    torch.testing.assert_close(logits, samples.mean(dim=0), atol=1e-5, rtol=1e-4)
    twin = HEADS[name](HIDDEN, LABELS, 0.5)
    twin.load_state_dict(head.state_dict())
    assert torch.equal(head.eval()(states, where), twin.eval()(states, where))


def test_more_samples_give_less_noise() -> None:
    torch.manual_seed(0)
    dropout, features = nn.Dropout(0.5), torch.ones(1, 1000)
    spread = [drop_out(dropout, features, samples).std().item() for samples in (1, 4, 16)]
    assert spread[0] > 1.8 * spread[1] > 3 * spread[2]


def test_the_first_heads_keep_the_names_of_their_weights() -> None:
    """Stored weights have these names."""
    names = {name: set(HEADS[name](HIDDEN, LABELS, 0.1).state_dict()) for name in HEADS}
    assert names["cls"] == {"out.weight", "out.bias"}
    assert names["entity-start"] == names["cls"] | {"mix.weight", "mix.bias"}
    lstms = tuple(f"{way}." for way in ("forwards", "backwards"))
    others = {name for name in names["bilstm"] if not name.startswith(lstms)}
    assert others == names["entity-start"]


def test_a_head_that_reads_a_mask_needs_a_format_with_one() -> None:
    with pytest.raises(VariantError, match=r"format 'typed-punct' has none; .*'mask-prompt'"):
        check_head_fits("mask", "typed-punct")
    check_head_fits("mask", "mask-prompt")
    for head in set(HEADS) - READS_PROMPT:
        for form in FORMATS:
            check_head_fits(head, form)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_reads_the_mask_exactly_if_declared(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](HIDDEN, LABELS, 0.0).eval()
    states, where = torch.randn(2, 12, HIDDEN), spread_positions()
    elsewhere = replace(where, prompt_mask=where.prompt_mask - 6)
    same = torch.equal(head(states, where), head(states, elsewhere))
    assert same == (name not in READS_PROMPT)


def test_the_forget_gates_of_the_lstm_are_initialised_open() -> None:
    head = BiLstmHead(HIDDEN, LABELS, 0.0)
    for name, weight in head.named_parameters():
        if "bias" in name and name.startswith("layers."):
            of_gates = weight.detach().reshape(4, -1)
            assert (of_gates[1] == (1.0 if "_ih_" in name else 0.0)).all()
            assert of_gates[0].std() > 0
