"""Export a pretrained encoder: a folder for ``fold --encoder``, with a model card.

``pretraining.json`` holds the inputs and the history of the run and, like every JSON file, is part
of the folder's identity. Times and machine are in a separate file (``RUN.md``), so the same run
gives the same bytes, interrupted or not.
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
from models.pretraining.request import DECAY_SETTINGS
from models.pretraining.task import PretrainTask
from models.training.checkpoints import distinct_weights, read_facts, round_tensors, write_weights

WEIGHTS_FILE = "model.safetensors"
RUN_CARD = "RUN.md"  # neither JSON nor text, which would be part of the folder's identity
MAX_HISTORY_ROWS = 30
TEXT_HEADER = ("text", "lines", "tokens", "weight", "in the decay", "sha256")
HISTORY_HEADER = ("step", "tokens", "training loss", "held-out loss", "held-out accuracy")


def read_done(out: Path, wanted: str) -> dict[str, Any] | None:
    """Return the facts of a finished run if the folder holds it, else None."""
    facts = read_pretraining(out) if (out / WEIGHTS_FILE).is_file() else None
    return facts if facts is not None and facts.get("fingerprint") == wanted else None


def check_free(out: Path, task: PretrainTask, facts: Mapping[str, Any]) -> None:
    """Check that this run replaces no other encoder, and no checkpoints of another run.

    A finished encoder is replaced only to extend it: by the same run with more steps, which resumes
    from the checkpoint at the start of its decay.

    Raises:
        PretrainingError: it does.
    """
    found = [read_facts(path) for path in (task.state_path, task.stable_path)]
    prints = {str(each.get("fingerprint")) for each in found if each is not None}
    is_known = bool(prints & {task.stable_print, task.whole_print})
    if (out / WEIGHTS_FILE).is_file():
        before = read_pretraining(out)
        # without its facts, it is left by an interrupted export, which the same run repeats
        if is_known and (before is None or _extends(task, before, facts)):
            return
        raise PretrainingError(
            f"{out} holds another encoder, which this run would replace; choose a new folder with"
            " --out, or delete that one. Only the same command with a larger --tokens extends it"
        )
    if prints and not is_known:
        raise PretrainingError(
            f"{out} holds a stopped run with other text or settings; choose a new folder with"
            " --out, or delete that one"
        )


def _extends(task: PretrainTask, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a run extends a finished one: more steps, and the same decay."""
    kept = read_facts(task.stable_path) or {}
    step = kept.get("step")
    return (
        kept.get("fingerprint") == task.stable_print
        and isinstance(step, int)
        and step <= task.schedule.decay_start
        and before.get("steps", 0) < task.schedule.steps
        and _decay_of(before) == _decay_of(now)
    )


def _decay_of(facts: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return what the facts of a run say about its decay, apart from its length."""
    settings = facts.get("settings", {})
    weights = [text.get("decay_weight") for text in facts.get("texts", ())]
    return [settings.get(key) for key in DECAY_SETTINGS], weights


def export_encoder(
    model: Any,
    tokenizer: Any,
    out: Path,
    *,
    facts: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    """Write 16-bit weights (with the masked-language head), configuration, tokenizer, model card.

    ``pretraining.json`` is written last, so a folder with it is complete; weights are written just
    before, so a folder without them can be reused by the same command.

    Raises:
        TrainingError: a weight exceeds the range of float16 (training diverged).
    """
    # tied weights get their name in the encoder, which can also be loaded alone
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
    """Return the model card: texts, training history, settings, and how to reproduce it."""
    kind = f"random weights, size {facts['size']}" if facts["size"] else facts["from"]
    licence = run["licence"] or "not stated; the texts below carry their own"
    settings = {**facts["settings"], "seed": facts["seed"]}
    history = thin(facts["history"], MAX_HISTORY_ROWS)
    by_text = history[-1]["heldout_by_text"].items()
    seen = Exposure(**facts["exposure"]).describe()
    return f"""# {out.name}

A masked-language model, initialised from {kind} and trained on {facts["tokens"]:,} tokens in
{facts["steps"]:,} steps. Sentences of the competition: {seen}. Weights are 16-bit.

Licence: {licence}.

## Text
{_table(TEXT_HEADER, [_text_row(text) for text in facts["texts"]])}
A text of weight 2 is used twice as often as one of weight 1. {facts["heldout_sequences"]}
sequences were held out and never trained on.

## Training history
{_table(HISTORY_HEADER, [_history_row(entry) for entry in history])}
Final held-out loss, by text: {", ".join(f"{name} {value:.3f}" for name, value in by_text)}.

## Settings
{_table(("setting", "value"), [(key, str(value)) for key, value in settings.items()])}
## Reproduce it
```
{run["command"]}
```
For time, machine and speed see {RUN_CARD}. The same CPU model, libraries, precision and number of
threads give the same bytes, interrupted or not.
"""


def build_run_card(run: Mapping[str, Any]) -> str:
    """Return the facts that differ between identical runs: time, machine and speed."""
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


def _history_row(entry: Mapping[str, Any]) -> Sequence[str]:
    losses = (f"{entry['loss']:.4f}", f"{entry['heldout_loss']:.4f}")
    return (
        f"{entry['step']:,}",
        f"{entry['tokens']:,}",
        *losses,
        f"{100 * entry['heldout_accuracy']:.2f}%",
    )


def thin(entries: Sequence[Any], most: int) -> list[Any]:
    """Keep at most ``most`` entries, evenly spaced, always including the last.

    >>> thin([1, 2, 3, 4, 5], 2)
    [2, 5]
    """
    step = -(-len(entries) // most)
    return list(entries[::-1][::step][::-1])
