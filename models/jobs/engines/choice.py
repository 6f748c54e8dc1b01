"""The engines by name; to add one, write its file and a line here."""

from __future__ import annotations

import os
from collections.abc import Callable

from competition.errors import UsageError
from models.jobs.engines.engine import LOCAL, Engine, EngineChoice
from models.jobs.engines.local import LocalEngine


def _open_local(choice: EngineChoice) -> Engine:
    if choice.address is not None or choice.gpus_per_job is not None:
        option = "--address" if choice.address is not None else "--gpus-per-job"
        raise UsageError(f"{option} is for --engine ray")
    return LocalEngine(choice.workers or 1, threads=choice.threads)


def _open_ray(choice: EngineChoice) -> Engine:
    # Ray prints what its daemons say of lost nodes to stdout, where tables and JSON go; it reads
    # this pattern of lines to leave out when it is imported
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        from models.jobs.engines.ray_engine import RayEngine
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "msgpack"):
            raise
        raise UsageError(
            "--engine ray needs Ray; run: python -m pip install -r requirements-ray.txt"
        ) from None
    return RayEngine(choice)


ENGINES: dict[str, Callable[[EngineChoice], Engine]] = {LOCAL: _open_local, "ray": _open_ray}


def open_engine(choice: EngineChoice) -> Engine:
    """Open an engine, to be closed by the caller.

    Raises:
        UsageError: there is no such engine, a library is missing, or it cannot be reached.
    """
    if choice.name not in ENGINES:
        raise UsageError(f"--engine {choice.name!r}: choose one of {', '.join(ENGINES)}")
    return ENGINES[choice.name](choice)
