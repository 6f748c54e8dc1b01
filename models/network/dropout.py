"""The dropout rates of a backbone: under which names its configuration has them, and setting them.

Between the configuration of a backbone and its weights: networks read the rates when they are
built.
"""

from __future__ import annotations

from typing import Any

RESULT_VERSION = 1
VERSION_NAME = "models.dropout"
FIRST_RATES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "embedding_dropout",
    "mlp_dropout",
    "attention_dropout",
)
"""Names of rates that the first results were made with; they need no version of this module."""
LATER_RATES = (
    "dropout_rate",
    "dropout",
    "activation_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "resid_dropout",
    "embed_dropout",
)
"""Names of rates in T5, in BART, and in decoders such as Phi and GPT-2."""


def list_rates(config: Any) -> list[str]:
    """Return the names of all dropout rates between the tokens and the states of a backbone."""
    return [name for name in (*FIRST_RATES, *LATER_RATES) if hasattr(config, name)]


def set_dropout(config: Any, rate: float | None) -> None:
    """Set all dropout rates of a backbone; None keeps those of its configuration."""
    for name in list_rates(config) if rate is not None else ():
        setattr(config, name, rate)


def needs_version(config: Any) -> bool:
    """Return whether a backbone has rates that the first results left as they were."""
    return any(name in LATER_RATES for name in list_rates(config))
