"""A fitted MLP as a file of arrays, which predicts the same bytes without being fitted again.

``fold`` keeps no MLP, since it can fit it again from the training rows; a bundle for a machine
without those rows holds it: about 0.6 kB a feature.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save

from competition.files import write_atomically
from models.data.ngrams import FeatureReader
from models.settings import MlpSettings
from models.training.linear_file import reading_model
from models.training.mlp import MlpModel, WideAndDeep

READER, NETWORK = "reader.", "network."


def write_mlp(path: Path, model: MlpModel, facts: dict[str, Any]) -> None:
    """Write a fitted MLP, with ``facts`` (JSON-serialisable) beside it in the header."""
    network = model.network
    arrays = {f"{NETWORK}{name}": value for name, value in network.state_dict().items()}
    for name, array in model.reader.dump().items():
        arrays[f"{READER}{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    header = {
        "settings": model.reader.settings.model_dump(mode="json"),
        "n_labels": network.wide.embedding_dim,
        **facts,
    }
    write_atomically(path, save(arrays, metadata={"facts": json.dumps(header)}))


def read_mlp(path: Path) -> MlpModel:
    """Read a fitted MLP.

    Raises:
        TrainingError: the file is damaged.
    """
    with reading_model(path), safe_open(path, "pt") as stored:
        header = _Header.model_validate_json(stored.metadata()["facts"])
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        return _build(header, arrays)


class _Header(BaseModel):
    """What is stored with a model, as far as it is read again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    settings: MlpSettings
    n_labels: int


def _build(header: _Header, arrays: dict[str, Any]) -> MlpModel:
    settings = header.settings
    reader = FeatureReader(settings)
    reader.load(
        {n.removeprefix(READER): a.numpy() for n, a in arrays.items() if n.startswith(READER)}
    )
    weights = {n.removeprefix(NETWORK): a for n, a in arrays.items() if n.startswith(NETWORK)}
    network = WideAndDeep(len(weights["wide.weight"]), header.n_labels, settings)
    network.load_state_dict(weights)
    return MlpModel(reader, network.eval())
