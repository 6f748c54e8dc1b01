"""Work spread over threads, for functions that mostly run outside Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MAX_WORKERS = 4  # each needs memory for several N × C arrays

Item = TypeVar("Item")
Found = TypeVar("Found")


def map_in_threads(function: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Apply a function to items in parallel threads; results are in the order of the items."""
    with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as workers:
        return list(workers.map(function, items))
