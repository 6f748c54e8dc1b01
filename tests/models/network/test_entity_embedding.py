from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.data.batches import Batch
from models.network.encoder_source import EncoderSource
from models.network.entity_embedding import role_ids
from models.network.network import RelationModel, build_model, parameter_depth
from models.parts.heads import Positions
from models.variant import resolve_variant
from tests.models.conftest import ARCHITECTURES, make_encoder

VOCABULARY = 60
PAD = 0


def build(folder: Path, *overrides: tuple[str, Any]) -> RelationModel:
    variant = resolve_variant(
        "typed-punct",
        encoder="none",
        encoder_override=str(folder),
        overrides=overrides,
        save_as="v",
    )
    source = EncoderSource("tiny", folder, "identity", has_weights=True)
    torch.manual_seed(3)
    return build_model(variant, source, labels=4, vocabulary=VOCABULARY, device_type="cpu").eval()


def make_batch() -> Batch:
    """Two rows, the second one padded; entities of two tokens and of one."""
    ids = torch.randint(5, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 6])
    mask = torch.arange(9) < lengths[:, None]
    subject, obj = torch.tensor([1, 4]), torch.tensor([5, 1])
    where = Positions(
        lengths, subject, obj, subject, subject + 2, obj, obj + 1, subject, subject + 2, obj + 1
    )
    return Batch(ids.masked_fill(~mask, PAD), mask.long(), where)


def logits_of(model: RelationModel, batch: Batch) -> torch.Tensor:
    logits: torch.Tensor = model(batch.input_ids, batch.attention_mask, batch.positions)
    return logits


@pytest.fixture(params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_encoder(request.param, tmp_path / request.param)


def test_roles_are_added_before_the_first_layer_norm(folder: Path) -> None:
    batch = make_batch()
    plain, roles = build(folder), build(folder, ("entity_embedding", True))
    assert roles.roles is not None
    with torch.no_grad():
        torch.testing.assert_close(logits_of(roles, batch), logits_of(plain, batch))
        roles.roles.vectors.weight[1:].normal_()
        changed = logits_of(roles, batch)
        assert (changed - logits_of(plain, batch)).abs().max() > 1e-4
        words = roles.encoder.get_input_embeddings()
        which = role_ids(batch.positions, 9)
        added = roles.roles(words(batch.input_ids), batch.positions)
        torch.testing.assert_close(
            added - words(batch.input_ids), roles.roles.vectors.weight[which]
        )


def test_other_weights_are_initialised_as_without_roles(folder: Path) -> None:
    plain, roles = build(folder), build(folder, ("entity_embedding", True))
    with_roles = roles.state_dict()
    vectors = with_roles.pop("roles.vectors.weight")
    assert with_roles.keys() == plain.state_dict().keys()
    assert all(torch.equal(with_roles[name], t) for name, t in plain.state_dict().items())
    words = plain.encoder.get_input_embeddings().weight
    assert torch.equal(vectors, torch.zeros(3, words.shape[1]))


def test_subject_and_object_learn_and_the_outside_does_not(folder: Path) -> None:
    model = build(folder, ("entity_embedding", True))
    assert model.roles is not None
    logits_of(model, make_batch()).square().sum().backward()
    gradient = model.roles.vectors.weight.grad
    assert gradient is not None
    assert (gradient[0] == 0).all()
    assert (gradient[1:].abs().sum(dim=1) > 0).all()
    words = model.encoder.get_input_embeddings().weight.grad
    assert words is not None
    assert words.abs().sum() > 0
    assert parameter_depth("roles.vectors.weight", 2) == parameter_depth("head.out.weight", 2)


def test_padding_does_not_change_logits(folder: Path) -> None:
    batch = make_batch()
    model = build(folder, ("entity_embedding", True))
    alone = Batch(
        batch.input_ids[1:, :6],
        batch.attention_mask[1:, :6],
        Positions(*(getattr(batch.positions, name)[1:] for name in Positions.names())),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            logits_of(model, alone)[0], logits_of(model, batch)[1], atol=1e-5, rtol=1e-4
        )
