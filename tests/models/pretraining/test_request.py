from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from competition.errors import UsageError
from models.pretraining.request import (
    PretrainRequest,
    PretrainSettings,
    TextWeights,
    build_schedule,
    describe_command,
    parse_corpus,
    parse_count,
    parse_weights,
    resolve_settings,
)


def test_settings_are_resolved_and_checked() -> None:
    mini = PretrainRequest(size="mini", overrides=(("lr", 1e-3), ("run.precision", "bf16")))
    settings = resolve_settings(mini)
    assert (settings.lr, settings.run.precision, settings.mask_rate) == (1e-3, "bf16", 0.25)
    rates = {"x": 5e-5, "ko-mini": 5e-4, "scratch": 1e-3}
    for encoder, rate in rates.items():
        assert resolve_settings(PretrainRequest(encoder=encoder)).lr == rate
    for wrong, match in (
        (PretrainRequest(), "--encoder"),
        (PretrainRequest(size="mini", encoder="x"), "--encoder"),
        (PretrainRequest(size="huge"), "mini, small, base"),
        (PretrainRequest(size="mini", overrides=(("rate", 1),)), "choose one of .*mask_rate"),
        (PretrainRequest(size="mini", overrides=(("run.lr", 1),)), "choose one of .*precision"),
        (PretrainRequest(size="mini", overrides=(("lr", "fast"),)), "--set lr"),
        (PretrainRequest(size="mini", overrides=(("lr", 1.0), ("lr.x", 1))), "single value"),
        *(
            (PretrainRequest(size="mini", overrides=(setting,)), f"{setting[0]} has no effect on p")
            for setting in (("run.compile", True), ("run.shard", True), ("run.attention", "varlen"))
        ),
        (
            PretrainRequest(size="mini", overrides=(("muon_lr", 1e-3),)),
            "--set muon_lr has no effect",
        ),
        (
            PretrainRequest(size="mini", overrides=(("decay_frac", 0), ("decay_shape", "sqrt"))),
            "--set decay_shape has no effect without decay_frac",
        ),
    ):
        with pytest.raises(UsageError, match=match):
            resolve_settings(wrong)


def test_the_schedule_warms_up_stays_and_decays_to_zero() -> None:
    settings = PretrainSettings(warmup_steps=10, decay_frac=0.2)
    schedule = build_schedule(settings, 100 * 16 * 128)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx([1 - step / 20 for step in range(20)])
    root = build_schedule(settings.model_copy(update={"decay_shape": "sqrt"}), 100 * 16 * 128)
    assert root.rate(85) == pytest.approx(0.5)
    longer = build_schedule(settings, 300 * 16 * 128)
    assert [longer.rate(step) for step in range(80)] == rates[:80]


def test_arguments_are_parsed_or_refused() -> None:
    assert parse_corpus("a.txt=0.5:2")[1] == TextWeights(0.5, 2.0)
    for wrong in ("2:", "-1", "a", "1:2:3", ""):
        with pytest.raises(UsageError):
            parse_weights(wrong, "--task-weight")
    for wrong in ("0", "-3", "3T", "many", "0.1"):
        with pytest.raises(UsageError, match="30M"):
            parse_count(wrong)


def test_the_command_on_the_model_card_reproduces_the_encoder() -> None:
    request = PretrainRequest(
        size="mini",
        corpora=((Path("my text.txt"), TextWeights(2, 1)),),
        leave_out_fold=1,
        tokens=256,
        licence="CC BY 4.0",
        context=("--competition", "tiny.toml", "--limit", "400"),
    )
    words = shlex.split(describe_command(request, Path("my encoder")).replace("\\\n", ""))
    for option, value in (
        ("--corpus", "my text.txt=2:1"), ("--leave-out-fold", "1"), ("--tokens", "256"),
        ("--licence", "CC BY 4.0"), ("--competition", "tiny.toml"), ("--limit", "400"),
        ("--out", "my encoder"),
    ):  # fmt: skip
        assert words[words.index(option) + 1] == value


def test_encoders_pretrained_on_other_rows_have_other_names() -> None:
    plain = PretrainRequest(encoder="hub/name")
    names = {
        request.default_name
        for request in (
            plain,
            PretrainRequest(encoder="hub/name", leave_out_fold=0),
            PretrainRequest(encoder="hub/name", leave_out_fold=1),
            PretrainRequest(encoder="hub/name", test_sentences=True),
        )
    }
    assert plain.default_name == "name-adapted-s42"
    assert len(names) == 4
