"""What tests of this floor begin with: the tiny competition read, and its empty store."""

from __future__ import annotations

import pytest

from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.store import Store
from competition.profile import Competition


@pytest.fixture
def prepared(tiny_competition: Competition) -> Prepared:
    return read_prepared(tiny_competition)


@pytest.fixture
def store(tiny_competition: Competition) -> Store:
    return Store(tiny_competition.oof_dir, tiny_competition.profile.labels)
