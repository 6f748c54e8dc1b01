"""Make the input of the next steps in a thread of its own while a GPU computes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")

AHEAD = {"cuda": 2}
"""How many steps are made ahead, by the kind of device; a CPU has no time to spare for it."""


class Ahead(Generic[Key, Made]):
    """Hands out what a function makes of keys; the next ones are made meanwhile, in their order.

    The function may not draw from the random numbers of the loop. Use it as a context manager:
    leaving it ends the thread.
    """

    def __init__(self, make: Callable[[Key], Made], device: torch.device) -> None:
        self._make = make
        self.steps = AHEAD.get(device.type, 0)
        self._thread = ThreadPoolExecutor(1, "ahead") if self.steps else None
        self._waiting: dict[Key, Future[Made]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def take(self, keys: Sequence[Key]) -> Made:
        """Return what is made of the first key, and begin with the others.

        What was begun for other keys than these is dropped.
        """
        if self._thread is None:
            return self._make(keys[0])
        self._waiting = {key: self._waiting[key] for key in keys if key in self._waiting}
        for key in keys:
            if key not in self._waiting:
                self._waiting[key] = self._thread.submit(self._make, key)
        return self._waiting.pop(keys[0]).result()
