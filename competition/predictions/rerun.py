"""How results come to be made again: the command to type, for whoever finds them missing or wrong.

Beside ``results`` on the way of a row; the command that asked for a result is kept beside it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

COMMAND = "command"  # the key in a result's provenance of the command that asked for it
CONTEXT_OPTIONS = ("--competition", "--data", "--limit")
"""What ``run.py`` adds to a command that it proposes, so that it means the same competition."""


def find_command(folder: Path) -> str | None:
    """Return the command that made a variant's newest result that tells one, as it was typed.

    Args:
        folder: the variant's, there or not.

    Returns:
        The words after ``python run.py``; None where no result in the folder tells any.
    """
    told: list[tuple[str, str]] = []
    for path in folder.glob("*.run.json"):
        try:
            run = json.loads(path.read_text("utf-8"))
            command = str(run.get(COMMAND, ""))
            words = shlex.split(command)
        except (OSError, ValueError, AttributeError):
            continue  # damaged provenance tells nothing
        if words[:1] == ["fold"]:
            told.append((str(run.get("finished", "")), command))
    return max(told)[1] if told else None


def write_command(command: str, *without: str) -> str:
    """Write a kept command for a person, without what ``run.py`` adds, and without some options.

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
    """Say how to make a variant's results, or how to make them again with an option.

    A name with ``@`` or ``+``, or one that ``--as`` gave, comes of options: the whole command that
    made the results is said. Any other is a variant file's, and ``fold`` takes it as it is; where
    there is no such file, ``fold`` itself answers with the names there are.

    Args:
        folder: the variant's in the store, there or not.
        options: further options to say, such as ``--overwrite``.

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
        return f"run what made it: {' '.join((made_by, *missing))}"
    if changes:
        more = f", and {' '.join(options)}" if options else ""
        return (
            f"run the command that trains it, python run.py fold {variant} with its --encoder or "
            f"--set{more}"
        )
    own_file = (word for word in words if Path(word).name == f"{name}.toml")
    return f"run: {shlex.join(('python', 'run.py', 'fold', next(own_file, name), *options))}"


def _read_option(words: Sequence[str], option: str) -> str | None:
    """Return the value of an option among the words of a command, None where it is not given.

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
