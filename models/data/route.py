"""The rows of a length specialist (short, medium or long), measured in tokens.

The route file is made once per competition (``competition.folds.length_routes``) and fixed like
the folds; this module supplies the lengths when the file is first needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.arrays import Bools
from competition.data.rows import Rows
from competition.folds.kfold import Prepared
from competition.folds.length_routes import read_or_make_length_routes
from models.variant import fingerprint


@dataclass(frozen=True)
class Route:
    """The rows of one specialist: masks over train (N,) and test (M,), and the file's hash."""

    train: Bools
    test: Bools
    hash: str


def read_route(name: str, prepared: Prepared, tokenizer: Any) -> Route:
    """Return the rows of a route such as ``length:short``; make the route file if it is missing.

    Without a tokenizer, lengths cannot be measured and the file must already exist.
    """
    if tokenizer is None:
        routes = read_or_make_length_routes(prepared, None, unit="")
    else:
        measure = partial(count_tokens, tokenizer=tokenizer)
        routes = read_or_make_length_routes(prepared, measure, unit=name_unit(tokenizer))
    part = name.partition(":")[2]
    return Route(routes.train == part, routes.test == part, routes.hash)


def name_unit(tokenizer: Any) -> str:
    """Return the unit of lengths; it identifies the vocabulary, without tokens a format added."""
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    return f"tokens of the vocabulary {fingerprint(vocabulary)[:12]}"


def count_tokens(rows: Rows, tokenizer: Any) -> npt.NDArray[np.int64]:
    """Count the tokens of each row's sentence, (N,), without markers or special tokens."""
    encoded = tokenizer(
        list(rows.text("sentence")),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
