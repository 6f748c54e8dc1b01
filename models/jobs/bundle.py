"""``bundle``: a blend as a folder for competitions that run code offline, such as Kaggle's.

The folder holds the code, the weights and tokenizers of the blend's members, the blend, metadata
for a Kaggle dataset, and a notebook that predicts a hidden test file without network
(``models.jobs.offline``). No row of the competition is in it.
Legend: K folds.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from competition.arrays import Say
from competition.console import Column, Table
from competition.errors import PredictionsError, UsageError
from competition.files import check_folder, dump_json, sha256_of, write_atomically
from competition.folds.kfold import Prepared, read_prepared
from competition.lease import hold
from competition.predictions.store import open_store
from competition.profile import Competition
from competition.submission.record import BlendRecord
from models.jobs.bundle_notebook import NOTEBOOK, build_kernel, build_notebook, name_dataset
from models.jobs.estimate import write_bytes
from models.jobs.ngram_job import refit
from models.jobs.offline import LINEAR_FILE, MANIFEST, MLP_FILE, Bundle, BundledJob, BundledRoutes
from models.jobs.predict import FoundMember, choose_threads, find_member, read_blend, read_borders
from models.jobs.spec import WEIGHTS_FILE, JobSpec, NetworkSpec, describe_model
from models.network.encoder_source import HUB_FILES, PICKLED_WEIGHTS, SAFE_WEIGHTS
from models.network.tokenizer import TOKENIZER_FILES
from models.training.linear_file import write_linear
from models.training.mlp import MlpModel
from models.training.mlp_file import write_mlp
from models.variant import Variant

ROOT = Path(__file__).resolve().parents[2]
CODE = ("competition", "models")
CODE_FILES = (".py", ".toml")
LIBRARIES = "wheels.txt"
OWNER = "YOUR-KAGGLE-NAME"
UNUSED_OFFLINE = ("optuna", "SQLAlchemy", "plotly", "tenacity", "httpx")
"""Dependencies that predicting never imports."""
ADAPTERS, FOUR_BITS = "peft", "bitsandbytes"
"""Libraries of adapters, and of a base in 4 bits."""
README = """\
# {name}: prediction without network

`notebook/predict.ipynb` predicts a test file with the blend `{name}` and writes `submission.csv`.
`bundle.json` lists the files; `wheels.txt` lists the libraries that it needs. Put wheel files
of those that the platform lacks into `wheels/` before uploading, for example:

    python -m pip download --no-deps --dest wheels hgtk

The notebook says at its start what is missing.
"""


@dataclass(frozen=True)
class BundleRequest:
    """Options of ``bundle``; ``out`` defaults to a folder of the submissions."""

    blend: str
    out: Path | None = None
    owner: str | None = None
    overwrite: bool = False


def run_bundle(competition: Competition, request: BundleRequest, say: Say) -> Table:
    """Write a blend with all that predicting takes into one folder.

    Raises:
        PredictionsError: weights of members are not kept; names the commands that make them.
        UsageError: there is no such blend, the folder is something else, or another process
            writes a bundle into it.
    """
    name, record = read_blend(competition, request.blend)
    out = request.out or competition.submissions_dir / "bundles" / name
    check_folder(out, "--out")
    _check_replaceable(out, overwrite=request.overwrite)
    prepared = read_prepared(competition)
    found = _find_members(prepared, record, say)
    owner = request.owner or os.environ.get("KAGGLE_USERNAME")
    with hold(out / "bundle", on_wait=partial(_refuse_second, out)):
        _check_replaceable(out, overwrite=request.overwrite)  # another process may have been here
        _clear(out)
        libraries = list_libraries(spec.variant for spec in _list_jobs(found))
        write_atomically(out / LIBRARIES, "\n".join(libraries) + "\n")  # marks it as a bundle
        _copy_code(out / "code")
        jobs = {each.member.name: _write_jobs(prepared, each, out, say) for each in found}
        bundle = Bundle(
            name=name,
            profile=competition.profile,
            blend=record,
            folds=prepared.folds.count,
            jobs=jobs,
            routes=_find_routes(prepared, found, out),
            test_sha256=hash_test(competition),
        )
        _write_metadata(out, competition, name, owner)
        (out / "wheels").mkdir(exist_ok=True)
        write_atomically(out / MANIFEST, bundle.model_dump_json(indent=2) + "\n")
    return _build_table(out, name, has_owner=owner is not None)


def hash_test(competition: Competition) -> str:
    """Return the hash of the test file; "" of a sample, whose blend answers some rows only."""
    return "" if competition.limit is not None else sha256_of(competition.test_path)


def _list_jobs(found: Sequence[FoundMember]) -> list[JobSpec]:
    return [spec for each in found for some in each.jobs.values() for spec in some]


def _check_replaceable(out: Path, *, overwrite: bool) -> None:
    """Check that a folder is free, or a bundle that may be replaced."""
    if not out.exists() or all(path.suffix == ".lease" for path in out.iterdir()):
        return
    if not (out / LIBRARIES).is_file():
        raise UsageError(f"{out} holds other files; name an empty folder with --out")
    if not overwrite:
        held = "a bundle" if (out / MANIFEST).is_file() else "an unfinished bundle"
        raise UsageError(f"{out} holds {held}; replace it with --overwrite, or name --out DIR")


def _refuse_second(out: Path, owner: str) -> NoReturn:
    raise UsageError(f"{owner} is writing a bundle into {out}; wait for it, or name --out DIR")


def _clear(out: Path) -> None:
    """Remove a bundle: first what says that it is whole; its wheels and ``wheels.txt`` stay."""
    (out / MANIFEST).unlink(missing_ok=True)
    for name in ("code", "encoders", "models", "notebook"):
        shutil.rmtree(out / name, ignore_errors=True)


def _find_members(prepared: Prepared, record: BlendRecord, say: Say) -> list[FoundMember]:
    """Find every member with a weight, and the weights of its models."""
    found, missing = [], []
    for member in record.members:
        if member.weight > 0:
            try:
                found.append(find_member(prepared, member, say))
            except PredictionsError as error:
                missing.append(str(error))
    if missing:
        raise PredictionsError("\n".join(missing))
    return found


def _copy_code(folder: Path) -> None:
    """Copy the modules and profiles that predicting imports, without data and encoders."""
    for package in CODE:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in CODE_FILES and path.is_file():
                target = folder / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    if (ROOT / "LICENSE").is_file():
        shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")


def _write_jobs(
    prepared: Prepared, found: FoundMember, out: Path, say: Say
) -> tuple[BundledJob, ...]:
    """Write the models of a member, its encoders beside them."""
    competition = prepared.competition
    store = open_store(competition)
    specs = [spec for some in found.jobs.values() for spec in some]
    threads_of = choose_threads(store, specs, None, say)
    jobs = []
    for spec in specs:
        key = spec.key
        folder = f"models/{key.variant}/s{key.seed}-f{key.fold}"
        (out / folder).mkdir(parents=True, exist_ok=True)
        if spec.network is None:
            say(f"{key.variant} fold {key.fold}: fitted again, to keep the model")
            _write_refitted(spec, out / folder)
        else:
            shutil.copyfile(spec.job_dir / WEIGHTS_FILE, out / folder / WEIGHTS_FILE)
        jobs.append(
            BundledJob(
                part=key.variant,
                route=spec.variant.route,
                fold=key.fold,
                seed=key.seed,
                folder=folder,
                encoder=None if spec.network is None else _copy_encoder(spec, spec.network, out),
                encoder_has_weights=_needs_base(spec),
                threads=None if spec.network is None else threads_of[key],
            )
        )
    return tuple(jobs)


def _write_refitted(spec: JobSpec, folder: Path) -> None:
    model = refit(spec)
    if isinstance(model, MlpModel):
        write_mlp(folder / MLP_FILE, model, describe_model(spec))
    else:
        write_linear(folder / LINEAR_FILE, model, describe_model(spec))


def _needs_base(spec: JobSpec) -> bool:
    """Return whether weights of the encoder were not trained, so that they are read from it."""
    return spec.variant.adapt is not None


def _copy_encoder(spec: JobSpec, network: NetworkSpec, out: Path) -> str:
    """Copy an encoder's configuration and tokenizer, and its weights where they are needed."""
    source, with_base = network.source, _needs_base(spec)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name)
    folder = f"encoders/{plain}-{source.identity[:8]}{'-base' if with_base else ''}"
    if (out / folder).is_dir():
        return folder
    weights = {p for glob in (SAFE_WEIGHTS, PICKLED_WEIGHTS) for p in source.path.glob(glob)}
    wanted = {p for glob in (*HUB_FILES, *TOKENIZER_FILES) for p in source.path.glob(glob)}
    (out / folder).mkdir(parents=True)
    for path in sorted(wanted | weights if with_base else wanted - weights):
        shutil.copyfile(path, out / folder / path.name)
    return folder


def _find_routes(
    prepared: Prepared, found: Sequence[FoundMember], out: Path
) -> BundledRoutes | None:
    """Return by which lengths rows go to specialists; None where there are none."""
    specialist = next((spec for spec in _list_jobs(found) if spec.variant.route is not None), None)
    if specialist is None:
        return None
    borders, _ = read_borders(prepared, specialist)
    assert specialist.network is not None
    return BundledRoutes(
        borders=borders,
        encoder=_copy_encoder(specialist, specialist.network, out),
        new_tokens=specialist.network.new_tokens,
    )


def _write_metadata(out: Path, competition: Competition, name: str, owner: str | None) -> None:
    """Write what Kaggle reads: of the dataset and of the notebook; and the list of libraries."""
    who = owner or OWNER
    slug = name_dataset(f"{competition.profile.name}-{name}")
    dataset = {"title": slug, "id": f"{who}/{slug}", "licenses": [{"name": "other"}]}
    write_atomically(out / "dataset-metadata.json", dump_json(dataset))
    kernel = build_kernel(who, slug, competition.profile.upload.kaggle.competition)
    folder = out / "notebook"
    write_atomically(folder / "kernel-metadata.json", dump_json(kernel))
    write_atomically(folder / NOTEBOOK, build_notebook(name, competition.profile.files.test))
    write_atomically(out / "README.md", README.format(name=name))


def list_libraries(variants: Iterable[Variant] = ()) -> list[str]:
    """Return what predicting with variants needs, as ``pyproject.toml`` names it."""
    path = ROOT / "pyproject.toml"
    if path.is_file():
        named = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:  # installed as a package
        from importlib import metadata

        from competition.provenance import PROJECT

        named = [line for line in metadata.requires(PROJECT) or () if ";" not in line]
    adapters = [each.adapt for each in variants if each.adapt is not None]
    idle = UNUSED_OFFLINE if adapters else (*UNUSED_OFFLINE, ADAPTERS)
    unused = re.compile(rf"({'|'.join(idle)})\b")
    libraries = [line for line in named if not unused.match(line)]
    is_quantised = any(each.quantise != "none" for each in adapters)
    return [*libraries, FOUR_BITS] if is_quantised else libraries


def _build_table(out: Path, name: str, *, has_owner: bool) -> Table:
    rows = [
        {"what": what, "files": len(files), "size": write_bytes(sum(map(_size, files)))}
        for what in ("code", "models", "encoders", "notebook")
        if (files := [path for path in (out / what).rglob("*") if path.is_file()])
    ]
    columns = [Column("what", "what"), Column("files", "files", "count"), Column("size", "size")]
    notes = [f"Written: {out}"]
    if not has_owner:
        notes.append(f"Replace {OWNER} in its two -metadata.json files, or use --owner NAME.")
    notes += [
        f"Next: kaggle datasets create --path {shlex.quote(str(out))} --dir-mode zip",
        f"Next: kaggle kernels push --path {shlex.quote(str(out / 'notebook'))}",
    ]
    return Table("bundle", f"Bundle of {name}", columns, rows, notes)


def _size(path: Path) -> int:
    return path.stat().st_size
