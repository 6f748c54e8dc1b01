"""Build the command that makes a result again, for messages about missing or unusable results.

The command that made a result is stored in its provenance.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from competition.files import parse_json

COMMAND = "command"  # the key of the command in a result's provenance
CONTEXT_OPTIONS = ("--competition", "--data", "--limit")
"""Options that ``run.py`` adds to proposed commands, so that they use the same competition."""


def find_command(folder: Path) -> str | None:
    """Return the command of a variant's newest result that records one.

    Returns:
        The words after ``python run.py``, as typed; None if no result records a command.
    """
    commands: list[tuple[str, str]] = []
    for path in folder.glob("*.run.json"):
        try:
            run = parse_json(path.read_text("utf-8"))
            command = str(run.get(COMMAND, ""))
            words = shlex.split(command)
        except (OSError, ValueError, AttributeError):
            continue  # damaged provenance
        if words[:1] == ["fold"]:
            commands.append((str(run.get("finished", "")), command))
    return max(commands)[1] if commands else None


def write_command(command: str, *without: str) -> str:
    """Format a stored command without the options that ``run.py`` adds, and without others.

    >>> write_command("fold rbert --limit 300 --folds=0,1 --as 'my r'", "--folds")
    "python run.py fold rbert --as 'my r'"
    """
    dropped, words, rest = (*CONTEXT_OPTIONS, *without), [], shlex.split(command)
    while rest:
        word = rest.pop(0)
        if word in dropped:
            del rest[:1]  # its value
        elif word.partition("=")[0] not in dropped:
            words.append(word)
    return shlex.join(("python", "run.py", *words))


def advise_training(folder: Path, *options: str) -> str:
    """Return advice on how to train a variant, or to train it again with an option.

    A name with ``@`` or ``+``, or one given by ``--as``, depends on options, so the advice is the
    whole stored command. Any other name is that of a variant file, which ``fold`` accepts.

    >>> advise_training(Path("rbert"), "--overwrite")
    'run: python run.py fold rbert --overwrite'
    >>> advise_training(Path("rbert@ko-mini"))
    'run the command that trains it, python run.py fold rbert with its --encoder or --set'
    >>> advise_training(Path("rbert+epochs=1")) == advise_training(Path("rbert@scratch+epochs=1"))
    True
    """
    name, command = folder.name, find_command(folder)
    words = [] if command is None else shlex.split(command)
    variant, *changes = re.split("[@+]", name, maxsplit=1)
    if command is not None and (changes or _read_option(words, "--as") == name):
        made_by = write_command(command, "--folds", "--stop-after")
        missing = [option for option in options if option not in words]
        return f"run the command that made it: {' '.join((made_by, *missing))}"
    if changes:
        more = f", and {' '.join(options)}" if options else ""
        return (
            f"run the command that trains it, python run.py fold {variant} with its --encoder or "
            f"--set{more}"
        )
    own_file = (word for word in words if Path(word).name == f"{name}.toml")
    return f"run: {shlex.join(('python', 'run.py', 'fold', next(own_file, name), *options))}"


def _read_option(words: Sequence[str], option: str) -> str | None:
    """Return the value of an option in a command, None if it is not given.

    >>> _read_option(["fold", "rbert", "--as", "mine"], "--as")
    'mine'
    >>> _read_option(["fold", "rbert", "--as=mine"], "--as")
    'mine'
    """
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key == option:
            return value if equals else " ".join(words[place + 1 : place + 2])
    return None
