"""The connection to a Ray cluster, and what the cluster has."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from competition.errors import UsageError

CONNECT_S = 10.0
ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "relation-extraction-harness"


def connect(address: str | None) -> None:
    """Connect this process to a Ray cluster, or start one of this machine if there is none.

    Raises:
        UsageError: no cluster answers, or it runs another Python or Ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        check_reachable(address)
    code = [str(ROOT / name) for name in ("competition", "models")]
    excludes = ["**/encoders/*/", "**/demo/data/", "**/__pycache__/"]
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            runtime_env={"py_modules": code, "excludes": excludes},
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False,
        )
    except AuthenticationError:
        raise UsageError(
            f"the Ray cluster {address or ''} asks for a token: set RAY_AUTH_MODE=token, here and "
            "on every node, with ~/.ray/auth_token of its head on all of them"
        ) from None
    except Exception as error:  # Ray raises a bare one if its daemons do not start in time
        reason = str(error).strip().partition("\n")[0]
        which = f"cluster {address}" if address else "cluster of this machine"
        raise UsageError(f"cannot use the Ray {which}: {reason}") from None


def check_reachable(address: str) -> None:
    """Raise if nothing listens at an address of the form HOST:PORT.

    Raises:
        UsageError: says how a cluster is started.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            pass
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with "
            "`ray start --head` and give the address that it prints, HOST:PORT"
        ) from None


def count_resources() -> tuple[float, float]:
    """Return how many CPUs and GPUs the cluster has."""
    resources = ray.cluster_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def name_node(identifier: str) -> str:
    """Return the name that a node was started with, else its host and part of its identifier."""
    known: dict[str, dict[str, Any]] = {each["NodeID"]: each for each in ray.nodes()}
    node = known.get(identifier, {})
    name: str = node.get("NodeName", "")
    if name and name != node.get("NodeManagerAddress"):
        return name
    return f"{node.get('NodeManagerHostname', 'unknown')} ({identifier[:6]})"


def explain_lost(error: Exception) -> UsageError:
    """Return the error to raise where the connection to the cluster was lost."""
    return UsageError(
        f"the connection to the Ray cluster was lost ({type(error).__name__}); run the same "
        "command again to continue"
    )
