"""Profiles: the description of a competition, resolved by every command first.

A profile is a TOML file checked key by key: files, columns, labels, folds, metrics, rules of the
leaderboard. ``resolve_competition`` turns what was typed into one ``Competition``, a profile with
the folders its data and its artefacts live in. Nothing here reads a row.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from competition.errors import ProfileError, UsageError
from competition.file_kind import WrongFileError, read_toml_text
from competition.files import check_utf8, parse_toml
from competition.options import MAX_SEED
from competition.profile_language import (
    Language,
    Relations,
    check_label_words,
    read_first_relations,
    read_language,
)
from competition.profile_rows import (
    Benchmark,
    Columns,
    EntityRules,
    Files,
    Section,
    Text,
    Texts,
    check_unique,
    substitute_files,
)
from competition.profile_scoring import MetricRules, SubmissionRules
from competition.upload_rules import SLUG, UploadRules

NAME_CHARS = 64  # of a name, which folders are named after
DEFAULT_PROFILE = "klue-re"
DEMO_PROFILE = "demo"
JOINED_BY_ID = ("kaggle", "local", "folder")
STUDY_JOURNAL = "journal.log"  # of a study, in its folder
HOME_VARIABLE = "COMPETITION_HOME"
_PACKAGE = Path(__file__).resolve().parent
_PROFILES = _PACKAGE / "profiles"


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested settings by dotted keys, as ``--set`` does.

    >>> flatten_settings({"encoder": "ko-mini", "train": {"lr": 1e-3}})
    {'encoder': 'ko-mini', 'train.lr': 0.001}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _flatten_overrides(found: Any) -> Any:
    """Flatten tables of unquoted dotted keys, such as ``train.epochs``."""
    return flatten_settings(found) if isinstance(found, Mapping) else found


Positive = Annotated[int, Field(ge=1)]


class FoldRules(Section):
    """How rows are split; rows that share a ``group_by`` value stay in one fold.

    Rows are grouped by ``sentence``, ``entity_pair``, ``subject``, ``object``, ``source`` or any
    column of the train file.
    """

    count: Annotated[int, Field(ge=2, le=100)] = 5
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 42
    group_by: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(check_unique)] = (
        "sentence",
        "entity_pair",
    )
    file: Text | None = None


class LengthBorders(Section):
    """Longest short and longest medium row, in tokens; unset: terciles of the train rows."""

    short_max_tokens: Positive | None = None
    medium_max_tokens: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> LengthBorders:
        short, medium = self.short_max_tokens, self.medium_max_tokens
        if (short is None) != (medium is None):
            raise ValueError("set both short_max_tokens and medium_max_tokens, or neither")
        if short is not None and medium is not None and short >= medium:
            raise ValueError(f"short_max_tokens {short} must be below medium_max_tokens {medium}")
        return self


class RouteRules(Section):
    """Which rows a specialist answers for."""

    length: LengthBorders = LengthBorders()


class Defaults(Section):
    """What ``fold`` trains when nothing is named; ``overrides`` are settings for that encoder."""

    encoder: Text = "scratch"
    variants: Texts = ()
    overrides: Annotated[dict[str, Any], BeforeValidator(_flatten_overrides)] = Field(
        default_factory=dict
    )


class Profile(Section):
    """A competition as its TOML file describes it."""

    name: Annotated[str, Field(pattern=SLUG, max_length=NAME_CHARS)]
    title: Text
    labels: Annotated[Texts, Field(min_length=2, max_length=32_767)]
    negative_label: Text | Texts | None = None
    entity_types: Texts = ()
    unknown_label: str | None = None
    files: Files
    columns: Columns
    entity: EntityRules
    benchmark: Benchmark | None = None
    language: Language = Field(default_factory=read_language)
    relations: Relations | None = None
    folds: FoldRules = FoldRules()
    routes: RouteRules = RouteRules()
    metrics: MetricRules = MetricRules()
    submission: SubmissionRules = SubmissionRules()
    defaults: Defaults = Defaults()
    upload: UploadRules = UploadRules()

    @property
    def n_labels(self) -> int:
        """Return C."""
        return len(self.labels)

    @property
    def label_ids(self) -> dict[str, int]:
        """Return each label's place in the label order."""
        return {label: i for i, label in enumerate(self.labels)}

    @property
    def negative_labels(self) -> tuple[str, ...]:
        """Return the negative labels: none, one or several."""
        named = self.negative_label
        return (named,) if isinstance(named, str) else named or ()

    @property
    def negative_name(self) -> str | None:
        """Return the negative labels as text, None if there are none."""
        return ", ".join(self.negative_labels) or None

    @property
    def negative_ids(self) -> tuple[int, ...]:
        """Return the places of the negative labels, ascending."""
        return tuple(sorted(map(self.labels.index, self.negative_labels)))

    def joins_by_id(self, target: str | None = None) -> bool:
        """Return whether a target, by default the profile's own, joins rows by id."""
        if self.submission.joined_by is not None:
            return self.submission.joined_by == "id"
        return (target or self.upload.default) in JOINED_BY_ID

    @property
    def exchange_rules(self) -> Relations:
        """Return its rules of exchanged labels; klue-re's, for labels of those names, if none."""
        return read_first_relations() if self.relations is None else self.relations

    @model_validator(mode="before")
    @classmethod
    def _check_own_words(cls, values: Any) -> Any:
        check_label_words(values)
        return values

    @model_validator(mode="after")
    def _agree(self) -> Profile:
        rules = Relations() if self.relations is None else self.relations
        unknown = {*rules.exchanged, *rules.exchanged.values()} - {*self.labels}
        if unknown:
            raise ValueError(f"relations names {sorted(unknown)[0]!r}, which is not one of labels")
        for label in self.negative_labels:
            if label not in self.labels:
                raise ValueError(f"negative_label {label!r} is not one of labels")
        if len(self.negative_labels) == len(self.labels):
            raise ValueError("negative_label names every label, so nothing would count")
        if self.unknown_label in self.labels:
            raise ValueError(f"unknown_label {self.unknown_label!r} is also one of labels")
        if bool(self.entity_types) != self.entity.is_typed:
            raise ValueError("set both entity_types and entity.type, or neither (untyped entities)")
        is_cell, columns = self.entity.given_as == "cell", self.columns
        if is_cell and (columns.subject is None or columns.object is None):
            raise ValueError(
                'columns.subject and columns.object are missing; a "cell" of each entity is read'
            )
        if not is_cell and (columns.subject is not None or columns.object is not None):
            raise ValueError(
                'columns.subject and columns.object need entity.given_as = "cell"; with '
                f"{self.entity.given_as!r} [entity.subject] and [entity.object] say where they are"
            )
        if self.benchmark is not None and {*self.benchmark.labels} != {*self.labels}:
            raise ValueError("benchmark.labels are not the labels, in another order")
        if "source" in self.folds.group_by and self.columns.source is None:
            raise ValueError("folds.group_by names source, and columns.source is not set")
        if self.metrics.shifted_negative_share is not None and not self.negative_labels:
            raise ValueError("metrics.shifted_negative_share needs a negative_label")
        self.metrics.check_labels(self.labels, self.negative_labels)
        columns_of_labels = self.submission.probs_columns
        if isinstance(columns_of_labels, tuple) and len(columns_of_labels) != self.n_labels:
            raise ValueError(
                f"submission.probs_columns names {len(columns_of_labels)} columns for"
                f" {self.n_labels} labels"
            )
        return self


@dataclass(frozen=True)
class Competition:
    """A profile with the folders of its data and its artefacts.

    ``expected_dir`` is where the default competition's data was not found;
    ``substitutes`` says which files are read in place of those that the profile names.
    """

    profile: Profile
    home: Path
    data_dir: Path
    limit: int | None = None
    is_demo_fallback: bool = False
    expected_dir: Path | None = None
    substitutes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the namespace of its artefacts: ``klue-re``, or ``klue-re@800`` when limited."""
        return self.profile.name if self.limit is None else f"{self.profile.name}@{self.limit}"

    @property
    def oof_dir(self) -> Path:
        """Return the folder of folds, routes and predictions."""
        return self.home / "oof" / self.name

    @property
    def submissions_dir(self) -> Path:
        """Return the folder of submissions and their ledger."""
        return self.home / "submissions" / self.name

    @property
    def reports_dir(self) -> Path:
        """Return the folder of the HTML report and of suspected wrong labels."""
        return self.home / "reports" / self.name

    @property
    def tune_dir(self) -> Path:
        """Return the folder of hyperparameter searches, one folder for each study."""
        return self.checkpoints_dir / "tune"

    @property
    def checkpoints_dir(self) -> Path:
        """Return the folder of trained weights."""
        return self.home / "checkpoints" / self.name

    @property
    def train_path(self) -> Path:
        """Return the file of labelled rows."""
        return self.data_dir / self.profile.files.train

    @property
    def train_paths(self) -> tuple[Path, ...]:
        """Return all files of labelled rows, in the order in which they are read."""
        more = (self.data_dir / name for name in self.profile.files.more_train)
        return (self.train_path, *more)

    @property
    def train_names(self) -> str:
        """Return the names of all files of labelled rows, as one text."""
        return " and ".join(path.name for path in self.train_paths)

    @property
    def test_path(self) -> Path:
        """Return the file of rows to answer."""
        return self.data_dir / self.profile.files.test

    @property
    def solution_path(self) -> Path | None:
        """Return the file of the test rows' labels, if the profile names one."""
        solution = self.profile.files.solution
        return None if solution is None else self.data_dir / solution

    @property
    def sample_path(self) -> Path | None:
        """Return the leaderboard's own sample file, if the profile names one."""
        sample = self.profile.files.sample_submission
        return None if sample is None else self.data_dir / sample

    @property
    def headline(self) -> str:
        """Return the line every command prints first: which competition, which data."""
        line = f"Competition {self.name} ({self.profile.title}), data in {self.data_dir}"
        if self.limit is not None:
            line += f"; limited to about {self.limit:,} train rows, for trying out only"
        if self.is_demo_fallback:
            line += f". This is the bundled demo, as the data of {DEFAULT_PROFILE} is not there"
            if self.expected_dir is not None:
                line += f": it is looked for in {self.expected_dir}"
        return "; ".join([line, *self.substitutes])


def _describe(error: Mapping[str, Any]) -> str:
    """Write one pydantic error as ``folds.count: …``."""
    key = ".".join(str(part) for part in error["loc"] if part != "paths")  # a field of our own
    match error["type"]:
        case "missing":
            return f"{key}: is missing"
        case "extra_forbidden":
            return f"{key}: no such key; see competition/profiles/{DEFAULT_PROFILE}.toml for all"
        case "value_error":
            message = str(error["ctx"]["error"])
            return f"{key}: {message}" if key else message
        case "string_pattern_mismatch" if error["ctx"]["pattern"] == SLUG:
            said = "lower-case letters, digits, . _ - and no sign in front"
            return f"{key}: write {said}, not {reprlib.repr(error['input'])}"
        case _:
            message = error["msg"].replace("Input", "it").replace("String", "it")
            return f"{key}: {message}, not {reprlib.repr(error['input'])}"


def read_profile(path: Path) -> Profile:
    """Read a competition from its TOML file.

    Raises:
        ProfileError: the file is missing, not TOML, or a key is missing, unknown or wrong; every
            such key is named.
    """
    try:
        values = parse_toml(read_toml_text(path))
    except FileNotFoundError:
        raise ProfileError(f"{path}: no such competition file") from None
    except (ValueError, WrongFileError, OSError) as error:
        raise ProfileError(f"{path}: not a TOML file that can be read: {error}") from None
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        wrong = [f"  {_describe(item)}" for item in error.errors(include_url=False)]
        raise ProfileError("\n".join([f"{path}: not a competition:", *wrong])) from None


def list_profiles() -> list[str]:
    """Return the names of the bundled profiles, sorted."""
    return sorted(path.stem for path in _PROFILES.glob("*.toml"))


def read_bundled(name: str) -> Profile:
    """Read one of the profiles of ``list_profiles``."""
    return read_profile(_PROFILES / f"{name}.toml")


def _find_profile(competition: str) -> Path:
    if competition.endswith(".toml"):
        return Path(competition).expanduser()
    names = list_profiles()
    if competition not in names:
        near = difflib.get_close_matches(competition, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"--competition {competition!r}: {hint}known are {', '.join(names)}, "
            "or the path of a .toml file"
        )
    return _PROFILES / f"{competition}.toml"


def _default_data_dir(profile: Profile, home: Path) -> Path:
    base = _PACKAGE if profile.files.bundled else home
    return base / Path(profile.files.directory).expanduser()


def _substitute(competition: Competition) -> Competition:
    """Return a competition with the files that are there, where those of its profile are not."""
    profile = competition.profile
    files, said = substitute_files(profile.files, profile.benchmark, competition.data_dir)
    profile = profile.model_copy(update={"files": files})
    return replace(competition, profile=profile, substitutes=said) if said else competition


def resolve_competition(
    competition: str | None, data: Path | None, limit: int | None, *, home: Path | None = None
) -> Competition:
    """Decide which competition is meant; the one resolver of all commands.

    Only when neither ``competition`` nor ``data`` is given and the default profile's files are
    absent, it is the bundled demo.

    Args:
        competition: a bundled profile's name, or the path of a TOML file; None: the default.
        data: the folder of the CSV files; None: the one the profile names.
        limit: sample about that many train rows; None: all.
        home: the folder of ``oof/``, ``submissions/`` and ``checkpoints/``; None: the one that
            the environment variable COMPETITION_HOME names, else the repository.

    Raises:
        UsageError: no such profile or data folder, a limit below 1, or a home whose path is not
            UTF-8.
        ProfileError: the TOML file does not describe a competition.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: give the number of train rows to sample, at least 1")
    home = home or Path(os.environ.get(HOME_VARIABLE) or _PACKAGE.parent).expanduser()
    home = home.absolute()
    check_utf8(home, f"rename the folder, or set {HOME_VARIABLE} to another")
    profile = read_profile(_find_profile(DEFAULT_PROFILE if competition is None else competition))
    if data is not None:
        data_dir = data.expanduser().absolute()
        if not data_dir.is_dir():
            raise UsageError(f"--data {data}: no such folder")
        return _substitute(Competition(profile, home, data_dir, limit))
    resolved = _substitute(Competition(profile, home, _default_data_dir(profile, home), limit))
    is_absent = not (resolved.train_path.exists() or resolved.test_path.exists())
    if competition is None and is_absent:
        demo = read_profile(_find_profile(DEMO_PROFILE))
        return Competition(
            demo,
            home,
            _default_data_dir(demo, home),
            limit,
            is_demo_fallback=True,
            expected_dir=resolved.data_dir,
        )
    return resolved
