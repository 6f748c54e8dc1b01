"""``doctor``: can this machine do the default run, and what must be fixed first.

Looks at libraries, device, data, encoders, upload settings, disk and memory. Nothing is trained and
nothing is sent; a hub is asked for an encoder only where no copy of it is here. Keys are looked for
and never read out.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from competition.console import Column, Table
from competition.errors import HarnessError
from competition.profile import Competition
from competition.upload.send import TARGETS
from competition.upload.target import TargetOptions
from models.jobs.encoder_size import count_bytes, measure_encoder
from models.jobs.estimate import LIBRARIES_BYTES, find_existing, find_free_memory, write_bytes
from models.jobs.request import FoldRequest, resolve_all
from models.network.encoder_source import find_copy, is_on_hub
from models.training.hardware import (
    choose_precision,
    describe_device,
    find_device,
    list_gpu_notices,
    threads_per_job,
)
from models.variant import SCRATCH, Variant

State = Literal["ok", "note", "fix"]

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s#]+)")
KEY_VARIABLES = {"aistages": "AISTAGES_KEY", "evalai": "EVALAI_TOKEN"}
KAGGLE_LOGINS = (("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: the thing.
        found: how it is here.
        state: ``fix`` where the default run or an upload would fail.
        remedy: what to do, "" where there is nothing to do.
    """

    what: str
    found: str
    state: State = "ok"
    remedy: str = ""


def run_doctor(competition: Competition) -> tuple[Table, bool]:
    """Check everything; return the table and whether nothing must be fixed."""
    variants, problem = _resolve_variants(competition)
    findings = [
        *check_libraries(),
        *check_device(),
        *check_data(competition),
        *problem,
        *check_encoders(variants),
        *check_uploads(competition),
        check_store(competition),
        *check_room(competition, variants),
    ]
    return build_doctor_table(findings), all(each.state != "fix" for each in findings)


def build_doctor_table(findings: list[Finding]) -> Table:
    """Show the findings, and below them what to do, the necessary things first."""
    columns = [Column("what", "what"), Column("found", "found"), Column("state", "state")]
    rows = [
        {"what": e.what, "found": e.found, "state": e.state, "remedy": e.remedy} for e in findings
    ]
    ordered = sorted(findings, key=lambda each: each.state != "fix")
    notes = [
        f"{'Fix' if each.state == 'fix' else 'Consider'}: {each.what}: {each.remedy}"
        for each in ordered
        if each.remedy
    ]
    return Table("doctor", "Doctor", columns, rows, notes or ["Nothing to fix."])


def check_libraries(requirements: Path = REQUIREMENTS) -> Iterator[Finding]:
    """Compare the installed libraries with the pinned versions."""
    yield Finding("python", platform.python_version())
    if not requirements.is_file():
        return  # installed as a package: its metadata held the versions when it was installed
    for line in requirements.read_text("utf-8").splitlines():
        pin = PIN.match(line)
        if pin is None:
            continue
        name, wanted = pin.groups()
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            remedy = f"python -m pip install {name}=={wanted}"
            yield Finding(name, "not installed", "fix", remedy)
            continue
        if found.partition("+")[0] == wanted:
            yield Finding(name, found)
        else:
            remedy = f"pinned is {wanted}: python -m pip install -r requirements.txt"
            yield Finding(name, found, "note", remedy)


def check_device() -> Iterator[Finding]:
    """Report torch's device and precision, and GPUs that it does not see."""
    import torch

    device = find_device()
    found = describe_device()
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        found += f", {write_bytes(free)} of {write_bytes(total)} free, CUDA {torch.version.cuda}"
    yield Finding("device", found)
    notices = list_gpu_notices()
    for notice in notices:
        said = notice.removeprefix("notice: ")
        yield Finding("GPU", "seen by nvidia-smi, not by torch", "fix", said)
    yield Finding("precision", choose_precision("auto"))
    yield Finding("threads", f"{threads_per_job(None, 1)} for one job at a time")


def check_data(competition: Competition) -> Iterator[Finding]:
    """Report whether the files exist."""
    train = [("train file", path) for path in competition.train_paths]
    for what, path in (*train, ("test file", competition.test_path)):
        if path.is_file():
            yield Finding(what, f"{path}, {write_bytes(path.stat().st_size)}")
        else:
            remedy = f"put it there, or name its folder: --data DIR ({path} is looked for)"
            yield Finding(what, "missing", "fix", remedy)


def _resolve_variants(competition: Competition) -> tuple[tuple[Variant, ...], list[Finding]]:
    try:
        return resolve_all(competition.profile, FoldRequest()), []
    except HarnessError as error:
        return (), [Finding("default variants", "cannot be used", "fix", str(error))]


def check_encoders(
    variants: tuple[Variant, ...], ask: Callable[[str], bool] = is_on_hub
) -> Iterator[Finding]:
    """Report whether each encoder is on this machine, or else on a reachable hub."""
    names = {variant.encoder for variant in variants if variant.is_network}
    for name in sorted(names):
        what = f"encoder {name}"
        if name == SCRATCH:
            yield Finding(what, "random weights, made when it trains")
            continue
        copy = find_copy(name)
        if copy is not None:
            yield Finding(what, f"here: {copy}")
        elif ask(name):
            yield Finding(what, "not here; the hub has it, fold downloads it")
        else:
            remedy = "download it elsewhere and give its folder: --encoder FOLDER; or --encoder"
            yield Finding(what, "neither here nor reachable", "fix", f"{remedy} ko-mini")


def check_uploads(competition: Competition) -> Iterator[Finding]:
    """Report for each target whether it is configured and a key is set; no key is shown."""
    default = competition.profile.upload.default
    for name, build in TARGETS.items():
        what = f"upload to {name}"
        try:
            destination = build(TargetOptions()).destination(competition)
        except HarnessError as error:
            if name == default:
                yield Finding(what, "not configured", "fix", str(error))
            continue
        missing = _find_missing_key(name, competition)
        if missing is None:
            yield Finding(what, destination)
        else:
            state: State = "fix" if name == default else "note"
            yield Finding(what, f"{destination}; no key", state, f"set {missing}")


def _find_missing_key(name: str, competition: Competition) -> str | None:
    """Name the environment variables of a target's key where none is set."""
    if name == "kaggle":
        home = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
        is_logged_in = any(all(map(os.environ.get, login)) for login in KAGGLE_LOGINS)
        has_file = home.is_dir() and any(home.iterdir())
        return None if is_logged_in or has_file else "KAGGLE_API_TOKEN, or run: kaggle auth login"
    variable = KEY_VARIABLES.get(name)
    if name == "http":
        variable = competition.profile.upload.http.key_variable
    return None if variable is None or os.environ.get(variable, "").strip() else variable


def check_store(competition: Competition) -> Finding:
    """Report whether results, checkpoints and submissions can be written."""
    wanted = (competition.oof_dir, competition.checkpoints_dir, competition.submissions_dir)
    refused = [folder for path in wanted if not os.access(folder := find_existing(path), os.W_OK)]
    if not refused:
        return Finding("store", f"{competition.home}, writable")
    remedy = "let your user write there, or set COMPETITION_HOME to another folder"
    return Finding("store", f"{refused[0]} is not writable", "fix", remedy)


def check_room(competition: Competition, variants: tuple[Variant, ...]) -> Iterator[Finding]:
    """Compare free disk and memory with what the default run takes."""
    networks = [variant for variant in variants if variant.is_network]
    sizes = [measure_encoder(variant) for variant in networks]
    takes = [count_bytes(variant, size) for variant, size in zip(networks, sizes, strict=True)]
    guess = ", the encoder's size guessed by its name" if any(e.is_guess for e in sizes) else ""
    counts = [len(variant.seeds) * competition.profile.folds.count for variant in networks]
    n_jobs = sum(counts)
    free = shutil.disk_usage(find_existing(competition.home)).free
    kept = sum(count * each.kept for count, each in zip(counts, takes, strict=True))
    kept += 2 * max((each.state for each in takes), default=0.0)
    yield _judge_room(
        "disk", free, kept, f"{n_jobs} jobs{guess}",
        "make room, set COMPETITION_HOME to a larger disk, or fold --no-checkpoints",
    )  # fmt: skip
    memory = find_free_memory()
    if memory is not None:
        held = max((each.memory for each in takes), default=0.0)
        yield _judge_room(
            "memory", memory, held + LIBRARIES_BYTES, "one job at a time",
            "end other programs, or take a smaller encoder: --encoder ko-mini",
        )  # fmt: skip


def _judge_room(what: str, free: int, needed: float, of: str, remedy: str) -> Finding:
    found = f"{write_bytes(free)} free; the default run takes about {write_bytes(needed)} ({of})"
    return Finding(what, found) if free >= needed else Finding(what, found, "fix", remedy)
