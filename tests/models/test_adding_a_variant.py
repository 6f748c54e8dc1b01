"""Run the examples of docs/adding-a-variant.md as written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from competition.errors import HarnessError
from competition.folds.kfold import Prepared
from competition.predictions.store import Store
from models.jobs.job import run_job
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.parts import formats, heads, losses
from models.parts.formats import EXAMPLE_ROW, FORMATS, PLAIN
from models.parts.heads import HEADS
from models.parts.losses import LOSSES, Objective
from models.training.control import Watch
from models.variant import VARIANTS_DIR, resolve_variant
from tests.models.conftest import TINY_SCRATCH
from tests.models.parts import test_formats, test_heads, test_losses

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-variant.md"
BLOCK = re.compile(r"^```(\w+)\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = {path: text for _, path, text in BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))}


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """Follow the document: add its code to the modules, write a file; return its path."""
    for room, path, known in (
        (heads, "models/parts/heads.py", HEADS),
        (formats, "models/parts/formats.py", FORMATS),
        (losses, "models/parts/losses.py", LOSSES),
    ):
        for name in list(known):
            monkeypatch.setitem(known, name, known[name])  # type: ignore[arg-type]
        before = set(known)
        exec(BLOCKS[path], room.__dict__)
        for added in set(known) - before:
            monkeypatch.setitem(known, added, known.pop(added))  # type: ignore[arg-type]
    base = (VARIANTS_DIR / "typed-punct.toml").read_text(encoding="utf-8")
    (tmp_path / "typed-punct.toml").write_text(base, encoding="utf-8")

    def write(name: str) -> str:
        file = tmp_path / f"{name}.toml"
        file.write_text(BLOCKS[f"models/variants/{name}.toml"], encoding="utf-8")
        return str(file)

    return write


def test_the_document_has_its_examples() -> None:
    assert sorted(BLOCKS) == [
        "models/parts/formats.py",
        "models/parts/heads.py",
        "models/parts/losses.py",
        "models/variants/calm.toml",
        "models/variants/entity-mean.toml",
        "models/variants/generalised.toml",
        "models/variants/quoted.toml",
    ]


def test_the_first_example_resolves(follow: Callable[[str], str]) -> None:
    variant = resolve_variant(follow("calm"), encoder="klue/roberta-large")
    assert (variant.name, variant.train.lr, variant.train.epochs) == ("calm", 2e-5, 6)
    assert (variant.format, variant.head) == ("typed-punct", "entity-start")


@pytest.mark.parametrize("name", ["entity-mean", "generalised", "quoted"])
def test_a_documented_variant_trains_and_predicts(
    name: str, follow: Callable[[str], str], prepared: Prepared, quiet_watch: Watch
) -> None:
    request = FoldRequest(
        variants=(follow(name),),
        folds=(0,),
        encoder="scratch",
        overrides=TINY_SCRATCH,
        save_as=name,
    )
    spec = plan_jobs(prepared, request, lambda text: None, threads=1).jobs[0]
    outcome = run_job(spec, quiet_watch)
    assert outcome.finished
    result = Store(spec.store_dir, spec.labels).read(spec.key)
    assert len(result.oof_ids) == int((prepared.folds.fold_of == 0).sum())


def test_the_documented_format_keeps_its_doctest(follow: Callable[[str], str]) -> None:
    follow("quoted")
    shown = re.search(r"\[13:\]\n    '(.*)'", BLOCKS["models/parts/formats.py"])
    assert shown is not None
    assert FORMATS["quoted"].build(EXAMPLE_ROW, PLAIN).segments[0][13:] == shown[1]


def test_the_documented_parts_pass_the_tests_of_their_kind(
    follow: Callable[[str], str],
) -> None:
    follow("quoted")
    for row in test_formats.HAND_MADE:
        for options in test_formats.EVERY_OPTION:
            test_formats.check("quoted", row, options)
    test_formats.test_a_tokenizer_from_scratch_knows_the_markers("quoted")
    states = torch.randn(2, 6, test_heads.HIDDEN, generator=torch.Generator().manual_seed(0))
    test_heads.test_logits_do_not_depend_on_padding("entity-mean", states)
    test_heads.test_several_dropout_samples_give_the_mean_of_their_logits("entity-mean")
    for size in (1.0, 6e4):
        objective = Objective("generalised", 0.0)
        test_losses.test_loss_and_gradient_are_finite_for_any_logits(objective, None, size)


def test_a_format_that_does_not_list_its_words_is_detected(follow: Callable[[str], str]) -> None:
    follow("quoted")
    FORMATS["quoted"] = replace(FORMATS["quoted"], words=())  # the fixture takes it out again
    with pytest.raises(AssertionError):
        test_formats.test_a_tokenizer_from_scratch_knows_the_markers("quoted")


def test_the_documented_loss_is_between_cross_entropy_and_error_rate(
    follow: Callable[[str], str],
) -> None:
    follow("generalised")
    logits, gold = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])
    p = logits.softmax(dim=1)[[0, 1], gold]
    loss = Objective("generalised", 0.0).sum(logits, gold)
    torch.testing.assert_close(loss, ((1 - p**0.7) / 0.7).sum())
    assert (1 - p).sum() < loss < Objective("cross-entropy", 0.0).sum(logits, gold)
    smoothed = [("train.label_smoothing", 0.1)]
    with pytest.raises(HarnessError, match="'generalised' does not support label smoothing"):
        resolve_variant(follow("generalised"), encoder="scratch", overrides=smoothed)


def test_without_the_line_in_the_dict_the_choices_are_named(tmp_path: Path) -> None:
    file = tmp_path / "alone.toml"
    file.write_text('why = "a head that nobody wrote"\nhead = "entity-median"\n', encoding="utf-8")
    with pytest.raises(HarnessError, match=f"choose one of {', '.join(sorted(HEADS))}"):
        resolve_variant(str(file), encoder="scratch")
