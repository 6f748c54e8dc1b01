"""Estimate the time, disk and memory of a ``fold`` run, before anything is downloaded or trained.

The time is that of the matrix products of every job at the rate that this machine shows in a short
trial, divided by what training reaches of it. The estimate is rough: it distinguishes an evening
from a month. It is that of an idle machine: beside other work, training takes longer.

Legend: N train rows, K folds, T tokens of a row.
"""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from competition.errors import HarnessError, UsageError
from competition.folds.kfold import Prepared
from competition.predictions.rerun import write_command
from competition.predictions.store import open_store
from competition.progress import format_seconds
from models.jobs.encoder_size import EncoderKey, EncoderSize, count_bytes, measure_encoder
from models.jobs.request import FoldRequest, list_missing, resolve_all
from models.pretraining.request import DEFAULT_EPOCHS
from models.training.hardware import (
    choose_precision,
    describe_device,
    find_device,
    threads_per_job,
)
from models.variant import LINEAR, MLP, SCRATCH, Variant

BUNDLED = "ko-mini"
LIBRARIES_BYTES = 1 << 30  # of a job's process, before it has a model
MAX_HOURS = 240.0  # that fold begins without --yes: an estimate may be several times too long
SMALL_WORK = 1e12  # operations: minutes on any machine, too few for a trial
REACHED = 0.4  # share of the matrix products' rate that a step reaches; docs/experiments.md
TOKENS_PER_CHAR = {"latin": 0.25, "other": 0.6}
MARKER_TOKENS = 12
SAMPLED_ROWS = 500
ROUTE_SHARE = 1 / 3  # of the rows, in one of three parts
NGRAM_S_PER_ROW = {LINEAR: 1 / 800, MLP: 1 / 500}  # N rows of one job, 2 epochs
JOB_S = 3.0  # of a job beside its steps
TRIAL_S, TRIAL_ROWS = 0.2, 1024
MAX_TRIAL = 2048  # hidden size: products of larger matrices are no faster
THREADS_GAIN = 0.8  # n threads multiply n ** THREADS_GAIN times as fast as one


@dataclass(frozen=True, slots=True)
class Group:
    """Files in which Linux names the memory of a control group, seen from inside a container."""

    folder: Path
    limit: str
    used: str
    cache: str


GROUPS = (
    Group(Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    Group(
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)

MeasureRate = Callable[[int, int], float]
"""From the hidden size and the threads of a job to operations a second."""


@dataclass(frozen=True)
class Estimate:
    """The estimate of a run; ``seconds`` and bytes are rough."""

    n_jobs: int
    n_done: int
    seconds: float
    sizes: Mapping[EncoderKey, EncoderSize]
    state_bytes: float
    kept_bytes: float
    memory_bytes: float


def measure_rate(hidden: int, threads: int) -> float:
    """Multiply matrices of an encoder's size briefly; return operations per second.

    On the device and in the number format that jobs take. On a CPU one thread is measured, by its
    own time on the processor: the rate of an idle machine, whatever else runs.
    """
    import torch

    hidden = min(hidden, MAX_TRIAL)
    device, precision = find_device(), choose_precision("auto")
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    clock = time.perf_counter if device == "cuda" else time.process_time
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        left = torch.ones(TRIAL_ROWS, hidden, dtype=dtype, device=device)
        right = torch.ones(hidden, 4 * hidden, dtype=dtype, device=device)
        for _ in range(2):  # the first product of a shape is slower
            (left @ right)[0, 0].item()
        began, best = clock(), math.inf
        while clock() - began < TRIAL_S:
            before_one = clock()
            (left @ right)[0, 0].item()
            best = min(best, clock() - before_one)
    finally:
        torch.set_num_threads(before)
    gain = 1.0 if device == "cuda" else threads**THREADS_GAIN
    return gain * 2.0 * TRIAL_ROWS * hidden * 4 * hidden / max(best, 1e-9)


def estimate_tokens(sentences: Sequence[str]) -> float:
    """Return roughly how many tokens a row has, by the letters of some of them.

    >>> round(estimate_tokens(["가나다라마"] * 3)), round(estimate_tokens(["abcdefgh"] * 3))
    (15, 14)
    """
    step = max(1, len(sentences) // SAMPLED_ROWS)
    sample = sentences[::step]
    chars = sum(map(len, sample))
    latin = sum(each.isascii() for sentence in sample for each in sentence)
    per_char = TOKENS_PER_CHAR
    tokens = latin * per_char["latin"] + (chars - latin) * per_char["other"]
    return MARKER_TOKENS + tokens / max(1, len(sample))


def estimate_run(
    prepared: Prepared,
    request: FoldRequest,
    variants: Sequence[Variant],
    measure: MeasureRate = measure_rate,
) -> Estimate:
    """Estimate what the missing results of resolved variants will take.

    Args:
        measure: see ``measure_rate``.
    """
    competition = prepared.competition
    store = open_store(competition)
    n_folds = len(set(request.folds)) or prepared.folds.count
    workers = request.engine.jobs_here
    threads = threads_per_job(request.engine.threads, workers)
    tokens = estimate_tokens(prepared.corpus.train.text("sentence").tolist())
    sizes: dict[EncoderKey, EncoderSize] = {}
    adapted: set[EncoderKey] = set()
    work: dict[int, float] = {}  # operations by hidden size
    n_done, n_jobs, seconds, kept = 0, 0, 0.0, 0.0
    state_bytes, memory_bytes = 0.0, 0.0
    for variant in variants:
        missing = len(list_missing(store, request, variant, prepared.folds.count))
        done = len(set(variant.seeds)) * n_folds - missing
        n_done += done
        n_jobs += missing
        if not missing:
            continue
        if not variant.is_network:
            per_row = NGRAM_S_PER_ROW[variant.learner]
            seconds += missing * len(prepared.corpus.train) * per_row
            continue
        key = (variant.encoder, variant.scratch if variant.encoder == SCRATCH else None)
        if key not in sizes:
            sizes[key] = measure_encoder(variant)
        size = sizes[key]
        in_row = tokens + estimate_tokens([variant.formatting.instruction]) - MARKER_TOKENS
        per_job = _count_operations(prepared, variant, size, min(in_row, variant.max_tokens))
        work[size.hidden] = work.get(size.hidden, 0.0) + missing * per_job
        if variant.pretrain == "tapt" and not done and key not in adapted:
            adapted.add(key)  # once for all that share it
            n_tokens = len(prepared.corpus.train) * (tokens - MARKER_TOKENS)
            work[size.hidden] += 6.0 * size.multiplied * n_tokens * DEFAULT_EPOCHS
        seconds += missing * JOB_S
        takes = count_bytes(variant, size)
        kept += missing * takes.kept
        state_bytes, memory_bytes = max(state_bytes, takes.state), max(memory_bytes, takes.memory)
    if sum(work.values()) > SMALL_WORK:
        seconds += sum(each / measure(hidden, threads) for hidden, each in work.items()) / REACHED
    else:
        seconds += sum(work.values()) / 1e10
    at_once = min(workers, max(1, n_jobs))
    return Estimate(
        n_jobs=n_jobs,
        n_done=n_done,
        seconds=seconds / _count_beside(workers, threads),
        sizes=sizes,
        state_bytes=2 * state_bytes * at_once,  # a new one is written beside the old
        kept_bytes=kept if request.keep_checkpoints else 0.0,
        memory_bytes=(memory_bytes + LIBRARIES_BYTES) * at_once,
    )


def _count_operations(
    prepared: Prepared, variant: Variant, size: EncoderSize, tokens: float
) -> float:
    """Count the operations of one job: forward and backward in training, forward in predicting."""
    count = prepared.folds.count
    share = 1.0 if variant.route is None else ROUTE_SHARE
    n_train, n_test = len(prepared.corpus.train) * share, len(prepared.corpus.test) * share
    trained = n_train * (count - 1) / count * variant.train.epochs
    steps = variant.regularise
    passes = 2 if steps.r_drop > 0 or steps.adversarial != "none" else 1
    # a frozen weight has no gradient, but what was multiplied with it has
    each = 3 if variant.adapt is None else 2
    rows = each * passes * trained + n_train / count + n_test
    return 2.0 * size.multiplied * tokens * rows


def _count_beside(workers: int, threads: int) -> int:
    """Return how many jobs go on at full pace beside each other."""
    if find_device() == "cuda":
        import torch

        return min(workers, torch.cuda.device_count())
    return max(1, min(workers, threads_per_job(None, 1) // threads))


def describe_estimate(estimate: Estimate, home: Path) -> list[str]:
    """Write the plan in a few lines; none where nothing is missing."""
    if not estimate.n_jobs:
        return []
    sizes = [
        f"{name} ({size.weights / 1e6:.0f} M weights{', guessed' if size.is_guess else ''})"
        for (name, _), size in estimate.sizes.items()
    ]
    what = f", {', '.join(sizes)}" if sizes else ""
    lines = [
        f"plan: {estimate.n_jobs} jobs on {describe_device()}{what}:"
        f" about {write_duration(estimate.seconds)} in all"
    ]
    if estimate.sizes:
        free = shutil.disk_usage(find_existing(home)).free
        kept = f", {write_bytes(estimate.kept_bytes)} kept" if estimate.kept_bytes else ""
        disk = f"disk: {write_bytes(estimate.state_bytes)} for states{kept}"
        held = find_free_memory()
        here = "" if held is None else f" of {write_bytes(held)} free"
        lines.append(
            f"plan: {disk}, {write_bytes(free)} free;"
            f" memory: {write_bytes(estimate.memory_bytes)}{here}"
        )
    return lines


def is_hopeless(estimate: Estimate, request: FoldRequest) -> bool:
    """Return whether a run would take unreasonably long, without ``--yes``."""
    return not request.yes and estimate.seconds > 3600 * MAX_HOURS


def estimate_smaller(
    prepared: Prepared,
    request: FoldRequest,
    variants: Sequence[Variant],
    measure: MeasureRate = measure_rate,
) -> Estimate | None:
    """Estimate the same run on the bundled encoder; None if some variant does not go with it.

    Adapters and instructions are made for large decoders.
    """
    if request.encoder == BUNDLED or any(
        variant.adapt is not None or variant.formatting.instruction for variant in variants
    ):
        return None
    light = replace(request, encoder=BUNDLED)
    with suppress(HarnessError):
        profile = prepared.competition.profile
        return estimate_run(prepared, light, resolve_all(profile, light), measure)
    return None


def check_feasible(estimate: Estimate, request: FoldRequest, smaller: Estimate | None) -> None:
    """Refuse a run that would take unreasonably long, unless the request has ``--yes``.

    Raises:
        UsageError: says what to type instead.
    """
    if not is_hopeless(estimate, request):
        return
    named = " ".join(["fold", *request.variants])
    again = request.command or named
    cures = []
    if smaller is not None and not is_hopeless(smaller, request):
        command = write_command(again, "--encoder")
        took = write_duration(smaller.seconds)
        cures.append(f"  {command} --encoder {BUNDLED}   # about {took}, a small Korean encoder")
    cures += [
        "  python run.py fold tfidf-linear   # minutes, without any network",
        f"  {write_command(again)} --limit 2000   # to try it out",
        f"  {write_command(again)} --yes   # go on all the same; on a GPU it is far shorter",
    ]
    raise UsageError(
        f"this would take about {write_duration(estimate.seconds)} on {describe_device()};"
        " type instead:\n" + "\n".join(cures)
    )


def write_duration(seconds: float) -> str:
    """Write a rough duration.

    >>> write_duration(5), write_duration(200), write_duration(5400), write_duration(864000)
    ('a minute', '3 min', '1 h 30 min', '10 days')
    """
    if seconds < 90:
        return "a minute"
    minutes, days = round(seconds / 60), seconds / 86_400
    if minutes < 60:
        return f"{minutes} min"
    return format_seconds(60 * minutes) if days < 3 else f"{days:,.0f} days"


def find_free_memory() -> int | None:
    """Return the bytes of memory that a new process can have, None where the system hides it."""
    try:
        text = Path("/proc/meminfo").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    free = [_free_in_group(group) for group in GROUPS]
    if found is not None:
        free.append(1024 * int(found[1]))
    return min((each for each in free if each is not None), default=None)


def _free_in_group(group: Group) -> int | None:
    """Return the bytes that a control group, such as a container, has left; None without one.

    File cache that was not used of late is counted as left: the kernel gives it up first.
    """
    try:
        limit = int((group.folder / group.limit).read_text("ascii"))
        used = int((group.folder / group.used).read_text("ascii"))
        stat = (group.folder / "memory.stat").read_text("ascii")
    except (OSError, ValueError):  # "max": no limit
        return None
    cache = re.search(rf"^{group.cache} (\d+)$", stat, re.MULTILINE)
    return max(0, limit - used + (0 if cache is None else int(cache[1])))


def find_existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def write_bytes(count: float) -> str:
    """Write a number of bytes for a person.

    >>> write_bytes(1536), write_bytes(3 << 30)
    ('1.5 KiB', '3.0 GiB')
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
