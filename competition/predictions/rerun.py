"""How results come to be made again: the command to type, for whoever finds them missing or wrong.

Beside ``results`` on the way of a row; the command that asked for a result is kept beside it.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

COMMAND = "command"  # the key in a result's provenance of the command that asked for it
CONTEXT_OPTIONS = ("--competition", "--data", "--limit")
"""What ``run.py`` adds to a command that it proposes, so that it means the same competition."""
VARIANT_FILES = Path(__file__).resolve().parents[2] / "models" / "variants"


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
        except (OSError, ValueError, RecursionError, AttributeError):
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
    """Say how a variant's results come to be, or come to be again with an option.

    Of a name that no variant file has, the command is told that made what is left of it. Without
    one, ``@`` or ``+`` in a name say what the command line said; any other was given by ``--as``,
    by a file elsewhere, or is a mistake.

    Args:
        folder: the variant's in the store, there or not.
        options: to be said too, such as ``--overwrite``.

    >>> advise_training(Path("rbert"), "--overwrite")
    'run: python run.py fold rbert --overwrite'
    >>> advise_training(Path("rbert@ko-mini"))
    'run the command that trains it, python run.py fold rbert with its --encoder or --set'
    >>> advise_training(Path("rbert+epochs=1")) == advise_training(Path("rbert@scratch+epochs=1"))
    True
    >>> advise_training(Path("mine"))  # doctest: +ELLIPSIS
    'no variant file has that name: run the command that made it, python run.py fold with --as...
    """
    name = folder.name
    if (VARIANT_FILES / f"{name}.toml").is_file():
        return f"run: {' '.join(('python run.py fold', name, *options))}"
    command = find_command(folder)
    if command is not None:
        made_by = write_command(command, "--folds", "--stop-after")
        missing = [option for option in options if option not in shlex.split(command)]
        return f"run what made it: {' '.join((made_by, *missing))}"
    variant = re.split("[@+]", name, maxsplit=1)[0]
    if not (VARIANT_FILES / f"{variant}.toml").is_file():
        return (
            "no variant file has that name: run the command that made it, python run.py fold with"
            f" {' '.join(('--as', name, *options))} or with its .toml file, or import it"
        )
    more = f", and {' '.join(options)}" if options else ""
    return (
        f"run the command that trains it, python run.py fold {variant} with its --encoder or "
        f"--set{more}"
    )
