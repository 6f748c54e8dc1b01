"""run.compile: one graph for all shapes, the same results; one line where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from competition.errors import DeviceError, VariantError
from competition.predictions.store import Store
from models.jobs.job import run_job
from models.jobs.spec import JobSpec
from models.settings import RunSettings
from models.training import compiling
from models.training.compiling import check_compile
from models.training.control import Watch
from models.training.hardware import explain_gpu_error


@pytest.fixture
def counters() -> Iterator[Any]:
    """Count graphs of a compiler that only traces: the real one takes a minute."""
    import torch._dynamo.utils as dynamo

    torch._dynamo.reset()
    dynamo.counters.clear()
    yield dynamo.counters
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_encoder_has_one_graph_for_all_lengths(
    counters: Any,
    make_specs: Callable[..., list[JobSpec]],
    quiet_watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    found, prints = [], []
    for compiles in (False, True):
        overrides = (("run.compile", compiles), ("train.epochs", 1), ("regularise.ema_decay", 0.9))
        name = f"compiles{compiles}"
        (spec,) = make_specs("typed-punct", *overrides, folds=(0,), save_as=name)
        assert run_job(spec, quiet_watch).finished
        found.append(Store(spec.store_dir, spec.labels).read(spec.key).oof_probs)
        prints.append(spec.fingerprint)
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    assert prints[0] == prints[1]
    assert 1 <= counters["stats"]["unique_graphs"] <= 4  # training and prediction, one row and more
    assert not counters["graph_break"]


@pytest.mark.parametrize(
    ("run", "device", "error", "said"),
    [
        ({"shard": True}, "cuda", VariantError, r"not go together with run\.shard"),
        ({"attention": "varlen"}, "cuda", VariantError, r"together with run\.attention = 'varlen'"),
        ({}, "cpu", DeviceError, "needs a C\\+\\+ compiler here"),
        ({}, "cuda", DeviceError, "needs triton on a GPU"),
        ({}, "mps", DeviceError, "not available on mps"),
    ],
)
def test_where_it_cannot_compile_it_says_so(
    run: Any,
    device: str,
    error: type[Exception],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    check_compile(RunSettings(**run), device)
    with pytest.raises(error, match=said) as caught:
        check_compile(RunSettings(compile=True, **run), device)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_fails_later_is_one_line_too() -> None:
    from torch._inductor.exc import InvalidCxxCompiler

    said = explain_gpu_error(InvalidCxxCompiler())
    assert said is not None
    assert "torch cannot compile this encoder here (No working C++ compiler" in said
    assert "\n" not in said
