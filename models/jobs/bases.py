"""The stored results that jobs build on: a warm start, pseudo-labels, teachers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

from competition.errors import PredictionsError, UsageError
from competition.folds.kfold import Prepared
from competition.predictions.members import is_average
from competition.predictions.store import Header, ResultKey, Store, open_store
from models.jobs.request import START

MOST_BASES = 200  # combinations of seeds of what a job builds on that are tried


@dataclass(frozen=True)
class Bases:
    """What a variant builds on.

    Attributes:
        variant: name of the variant.
        names: by role, the names under which results are stored.
    """

    prepared: Prepared
    variant: str
    names: Mapping[str, str]

    @property
    def store(self) -> Store:
        """The store of results."""
        return open_store(self.prepared.competition)

    def find(self, key: ResultKey) -> Iterator[dict[str, Header]]:
        """Yield the results that a job may build on, by role, best first.

        First those with the job's seed, or else the lowest. Other seeds follow, if they can be
        built on: a stored result may have been, when one of them was the lowest.

        Raises:
            UsageError: one has no result for the job's fold.
            PredictionsError: none can be built on.
        """
        choices = [self._list_seeds(name, key) for name in self.names.values()]
        for place, seeds in enumerate(islice(product(*choices), MOST_BASES)):
            named = zip(self.names.items(), seeds, strict=True)
            try:
                found = {r: self._read(r, ResultKey(n, seed, key.fold)) for (r, n), seed in named}
            except PredictionsError:
                if place == 0:
                    raise
                continue
            yield found

    def _list_seeds(self, name: str, key: ResultKey) -> list[int]:
        """Return the stored seeds of what a job builds on, its own first."""
        seeds = [k.seed for k in self.store.keys(name) if k.fold == key.fold]
        if not seeds:
            raise UsageError(
                f"{self.variant} builds on {name}, which has no result for fold {key.fold} "
                "yet; train it first, by its file or with the command that used --as"
            )
        return sorted(seeds, key=lambda seed: (seed != key.seed, seed))

    def _read(self, role: str, key: ResultKey) -> Header:
        header = self.store.read_header(key)
        assert header is not None
        prepared, name = self.prepared, key.variant
        if (header.data_hash, header.folds_hash) != (prepared.corpus.hash, prepared.folds.hash):
            raise PredictionsError(f"{name} was trained on other data or folds; train it again")
        if role != START and is_average(header):
            raise PredictionsError(
                f"{name} was imported with test predictions averaged over its folds, which leak "
                "the labels of all held-out folds; pseudo-labelling and distillation need "
                "them per fold"
            )
        return header
