"""The script for a GPU, on a CPU: every check runs or says what it lacks, and all is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import main


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, run the script")
def test_the_script_runs_small_without_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--quick", "--rows", "32", "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    by_name = {row["check"]: row for row in told["checks"]}
    assert not [row for row in told["checks"] if row["status"] == "FAILED"]
    for name in (
        "roberta, float32",
        "qwen3, bf16 lora",
        "gemma3, bf16 lora",
        "roberta, bf16 without padding",
        "rows without padding",
        "resume after a kill",
    ):
        assert by_name[name]["status"] == "ok"
    assert "needs a GPU" in by_name["roberta, fp16"]["detail"]
    arms = {row["arm"]: row for row in told["speed"]["table"]}
    assert {"this harness, LoRA", "the same, without padding", "Trainer padded to 256"} < set(arms)
    assert set(told["speed"]["facts"]["lacking"]) >= {"this harness, compiled"}
    assert all(row["rows_per_s"] > 0 and 0 < row["matrix_share"] < 1 for row in arms.values())
    assert arms["this harness"]["harness_times"] == 1
