"""Cross-fitting on more folds: groups stay whole, each row is predicted without its own label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from competition.errors import UsageError
from competition.folds.kfold import Prepared
from models.training import cross_fit
from models.training.cross_fit import cross_fit_linear


def test_a_label_has_no_influence_on_its_own_row(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_fit, "build_folds", lambda gold, groups, **how: groups % 4)
    said: list[str] = []
    probs = cross_fit_linear(prepared, 4, said.append)
    train = prepared.corpus.train
    assert probs.shape == (len(train), len(prepared.competition.profile.labels))
    assert probs.sum(axis=1) == pytest.approx(np.ones(len(train)), abs=1e-5)
    assert len(said) == 4
    cross_fit_linear(prepared, 4, said.append)
    assert len(said) == 4, "the second time it is read"
    first = prepared.groups == prepared.groups[0]
    label_ids = np.where(first, (train.gold + 1) % probs.shape[1], train.gold).astype(np.int16)
    corpus = replace(prepared.corpus, train=replace(train, label_ids=label_ids), hash="other")
    changed = cross_fit_linear(replace(prepared, corpus=corpus), 4, said.append)
    assert len(said) == 8
    assert (changed[first] == probs[first]).all()
    assert not (changed == probs).all()


def test_more_folds_than_groups_are_refused(prepared: Prepared) -> None:
    with pytest.raises(UsageError, match="--cross-fit 99: there are"):
        cross_fit_linear(prepared, 99, print)


def test_a_damaged_cache_costs_only_time(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_fit, "build_folds", lambda gold, groups, **how: groups % 2)
    said: list[str] = []
    probs = cross_fit_linear(prepared, 2, said.append)
    (path,) = (prepared.competition.checkpoints_dir / "cache").glob("cross-fit-*")
    path.write_bytes(path.read_bytes()[:50])
    assert cross_fit_linear(prepared, 2, said.append).tobytes() == probs.tobytes()
    assert len(said) == 4
