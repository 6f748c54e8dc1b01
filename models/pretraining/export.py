"""What a pretraining run leaves: an encoder folder that ``fold`` takes, with facts and a card.

Last of the pretraining rooms. ``pretraining.json`` holds what determined the run and how it went,
and counts for the folder's identity as every JSON file does; times and machine stand in a file of
their own, so that the same run leaves the same bytes, interrupted or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from competition.console import write_count
from competition.errors import PretrainingError
from competition.files import dump_json, write_atomically
from models.network.encoder_source import PRETRAINING_FILE, read_pretraining
from models.network.scratch import save_settings
from models.pretraining.exposure import Exposure
from models.pretraining.task import PretrainTask
from models.training.checkpoints import distinct_weights, read_facts, round_tensors, write_weights

WEIGHTS_FILE = "model.safetensors"
RUN_CARD = "RUN.md"  # no JSON and no text, which would count for the identity
CURVE_ROWS = 30
TEXT_HEADER = ("text", "lines", "tokens", "weight", "in the decay", "sha256")
LOOK_HEADER = ("step", "tokens", "loss", "held-out loss", "held-out accuracy")


def read_done(out: Path, wanted: str) -> dict[str, Any] | None:
    """Return the facts of a finished run if the folder holds that run."""
    facts = read_pretraining(out) if (out / WEIGHTS_FILE).is_file() else None
    return facts if facts is not None and facts.get("fingerprint") == wanted else None


def check_free(out: Path, task: PretrainTask) -> None:
    """Refuse a folder with an encoder or states that this run would replace and not go on from.

    Raises:
        PretrainingError: it holds some.
    """
    found = [read_facts(path) for path in (task.state_path, task.stable_path)]
    prints = {facts["fingerprint"] for facts in found if facts is not None}
    if prints & {task.stable_print, task.whole_print}:
        return
    if (out / WEIGHTS_FILE).is_file():
        raise PretrainingError(
            f"{out} holds another encoder; name a new folder with --out, or remove that one"
        )
    if prints:
        raise PretrainingError(
            f"{out} holds a stopped run of other text or settings; name a new folder with --out,"
            " or remove that one"
        )


def export_encoder(
    model: Any,
    tokenizer: Any,
    out: Path,
    *,
    facts: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    """Write weights in 16 bits with their masked-language head, configuration, tokenizer, card.

    ``pretraining.json`` comes last, so that a folder with it is complete; weights come just before,
    so that a folder without them is free for the same command.

    Args:
        model: the whole masked-language model.
        tokenizer: its tokenizer.
        out: the folder.
        facts: what determined the run, and its history.
        run: times, machine, command and licence, for the card.

    Raises:
        TrainingError: a weight has no 16-bit value (training diverged).
    """
    # tied weights go by their name in the encoder, which loads alone too
    weights = round_tensors(distinct_weights(model, f"{model.base_model_prefix}."))
    out.mkdir(parents=True, exist_ok=True)
    (out / PRETRAINING_FILE).unlink(missing_ok=True)
    config = type(model.config).from_dict(model.config.to_dict())
    config.architectures = [type(model).__name__]
    config.dtype = "float16"
    save_settings(out, config, tokenizer)
    write_atomically(out / "README.md", build_card(out, facts, run))
    write_atomically(out / RUN_CARD, build_run_card(run))
    write_weights(out / WEIGHTS_FILE, weights, {"kind": "masked-language model"})
    write_atomically(out / PRETRAINING_FILE, dump_json(facts))


def build_card(out: Path, facts: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Write the model card: what it is, what it saw, how it went, how to make it again."""
    kind = f"random weights, size {facts['size']}" if facts["size"] else facts["from"]
    licence = run["licence"] or "not stated; the texts below carry their own"
    settings = {**facts["settings"], "seed": facts["seed"]}
    looks = thin(facts["history"], CURVE_ROWS)
    by_text = looks[-1]["heldout_by_text"].items()
    seen = Exposure(**facts["exposure"]).describe()
    return f"""# {out.name}

A masked-language model made from {kind}: {facts["tokens"]:,} tokens seen in {facts["steps"]:,}
steps. Of the competition's rows: {seen}. Weights are kept in 16 bits.

Licence: {licence}.

## Text
{_table(TEXT_HEADER, [_text_row(text) for text in facts["texts"]])}
A text of weight 2 is shown twice as often as one of weight 1. {facts["heldout_sequences"]}
sequences were held out and never trained on.

## Course
{_table(LOOK_HEADER, [_look_row(look) for look in looks])}
Held-out loss at the end, by text: {", ".join(f"{name} {value:.3f}" for name, value in by_text)}.

## Settings
{_table(("setting", "value"), [(key, str(value)) for key, value in settings.items()])}
## To make it again
```
{run["command"]}
```
When and where it was made stands in {RUN_CARD}. The same bytes come out on one CPU model with the
same libraries, precision and threads, interrupted or not.
"""


def build_run_card(run: Mapping[str, Any]) -> str:
    """Write what of a run differs from one time to the next: when, where, how fast."""
    machine = run["machine"]
    return f"""# The run

Made {run["started"]} at {run["tokens_per_s"]:,} tokens/s ({run["precision"]},
{write_count(run["threads"], "thread")}, {machine["cpu"]} / {machine["device"]},
torch {machine["torch"]}, transformers {machine["transformers"]}).
"""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text_row(text: Mapping[str, Any]) -> Sequence[str]:
    sizes = (f"{text['lines']:,}", f"{text['tokens']:,}")
    weights = (f"{text['weight']:g}", f"{text['decay_weight']:g}")
    return (text["name"], *sizes, *weights, text["sha256"][:16])


def _look_row(look: Mapping[str, Any]) -> Sequence[str]:
    losses = (f"{look['loss']:.4f}", f"{look['heldout_loss']:.4f}")
    return (
        f"{look['step']:,}",
        f"{look['tokens']:,}",
        *losses,
        f"{100 * look['heldout_accuracy']:.2f}%",
    )


def thin(entries: Sequence[Any], most: int) -> list[Any]:
    """Keep at most so many entries, evenly, the last one always.

    >>> thin([1, 2, 3, 4, 5], 2)
    [2, 5]
    """
    step = -(-len(entries) // most)
    return list(entries[::-1][::step][::-1])
