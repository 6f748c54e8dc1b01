"""Figures of the report: measured on out-of-fold rows and described for plotly.

``report`` takes each figure with the table of the same numbers.

Legend: N rows, C labels, M members, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, roc_curve

from competition.arrays import Floats, Ints
from competition.scoring.decisions import Negatives, best_positive
from competition.scoring.metrics.micro_f1 import is_any_of

BINS = 10
CURVE_POINTS = 150
MAX_NUMBERED = 12  # members of a heat map with numbers in its cells

Figure = dict[str, Any]
"""``data`` and ``layout``, as plotly.js takes them."""


def measure_calibration(gold: Ints, probs: Floats) -> list[tuple[float, float, int]]:
    """Group rows by confidence, in ``BINS`` bins of equal width.

    Returns:
        For each bin with rows: mean confidence, share that is right, number of rows.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2 (reliability diagrams).
    """
    confidence = probs.max(axis=1).astype(np.float64)
    bin_of = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bin_of, minlength=BINS)
    sure = np.bincount(bin_of, confidence, BINS)
    right = np.bincount(bin_of, probs.argmax(axis=1) == gold, BINS)
    places = np.flatnonzero(counts)
    return [
        (float(sure[i] / counts[i]), float(right[i] / counts[i]), int(counts[i])) for i in places
    ]


def measure_calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    """Return the expected calibration error: the mean gap of the bins, weighted by rows."""
    total = sum(count for _, _, count in bins)
    return sum(count * abs(sure - right) for sure, right, count in bins) / total


def trace_precision_recall(
    gold: Ints, probs: Floats, negative_ids: Negatives
) -> tuple[Floats, Floats, Floats]:
    """Return micro precision and recall as the decision threshold falls, and the thresholds.

    Each row is answered with its best positive label where that reaches the threshold.

    Args:
        negative_ids: the negative labels; without one, all count.

    Returns:
        (P,) recall, precision and threshold.
    """
    if not negative_ids:
        label, score = probs.argmax(axis=1), probs.max(axis=1)
        wanted = len(gold)
    else:
        label, score = best_positive(probs, negative_ids)
        wanted = int(np.count_nonzero(~is_any_of(gold, negative_ids)))
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum((label == gold)[order])
    places = np.unique(np.linspace(0, len(gold) - 1, CURVE_POINTS).astype(np.int64))
    return hits[places] / max(1, wanted), hits[places] / (places + 1), score[order][places]


def trace_roc(gold: Ints, probs: Floats) -> tuple[Floats, Floats, float]:
    """Return the ROC curve of all labels together: one against the rest, micro-averaged.

    Returns:
        At most ``CURVE_POINTS`` false and true positive rates, and the area under the whole curve.
    """
    is_gold = np.zeros(probs.shape, dtype=bool)
    is_gold[np.arange(len(gold)), gold] = True
    false_rate, true_rate, _ = roc_curve(is_gold.ravel(), probs.ravel())
    area = float(auc(false_rate, true_rate))
    # denser on the left, where curves differ
    wanted = np.linspace(0, 1, CURVE_POINTS) ** 3
    places = np.unique(np.searchsorted(false_rate, wanted).clip(0, len(false_rate) - 1))
    return false_rate[places], true_rate[places], area


def measure_confusion(gold: Ints, pred: Ints, label_ids: Sequence[int]) -> NDArray[np.float64]:
    """Return the share of each label's rows that get each label, (L, L) for the L labels given.

    Shares are of all rows of a label, so that a line may sum to less than 1.
    """
    shares = np.zeros((len(label_ids), len(label_ids)))
    for line, label_id in enumerate(label_ids):
        answers = pred[gold == label_id]
        if len(answers):
            shares[line] = [float((answers == other).mean()) for other in label_ids]
    return shares


def correlate(
    predicted: Sequence[Ints], gold: Ints
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (M, M) shares of rows answered alike, and correlations of being wrong."""
    answers = np.stack(predicted)
    agreement = np.array([[np.mean(one == other) for other in answers] for one in answers])
    wrong = (answers != gold).astype(np.float64)
    centred = wrong - wrong.mean(axis=1, keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=1))
    scale = np.outer(norms, norms)
    correlation = np.divide(centred @ centred.T, scale, out=np.zeros_like(scale), where=scale > 0)
    return agreement, correlation


def measure_disagreement(probs: Sequence[Floats]) -> NDArray[np.float64]:
    """Return (N,) how much members disagree: the generalised Jensen–Shannon divergence, in nats.

    Args:
        probs: of each member, (N, C).

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", equation 5.1.
    """
    mean = np.asarray(np.mean(probs, axis=0, dtype=np.float64))
    own = np.mean([_measure_entropy(each) for each in probs], axis=0)
    return np.asarray(_measure_entropy(mean) - own)


def _measure_entropy(probs: Floats) -> NDArray[np.float64]:
    logs = np.log(np.maximum(probs, 1e-12), dtype=np.float64)
    return np.asarray(-(probs * logs).sum(axis=1))


def draw_lines(
    lines: Mapping[str, tuple[Sequence[Any], Sequence[Any]]],
    titles: tuple[str, str],
    *,
    diagonal: str = "",
    markers: bool = False,
) -> Figure:
    """Draw one line for each name, from its x and y values; ``diagonal`` names one from 0 to 1."""
    mode = "lines+markers" if markers else "lines"
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": mode, "name": name, "x": list(x), "y": list(y)}
        for name, (x, y) in lines.items()
    ]
    if diagonal:
        line = {"dash": "dot", "width": 1, "color": "#888"}
        ends = {"x": [0, 1], "y": [0, 1]}
        data.append({"type": "scatter", "mode": "lines", "name": diagonal, "line": line, **ends})
    return {"data": data, "layout": _lay_out(titles)}


def draw_heatmap(names: Sequence[str], values: NDArray[np.float64]) -> Figure:
    """Draw (M, M) values between members, or shares of labels; numbers where they fit.

    The page chooses the colours, which differ in light and dark.
    """
    data: dict[str, Any] = {
        "type": "heatmap",
        "x": list(names),
        "y": list(names),
        "z": np.round(values, 3).tolist(),
        "zmin": 0,
        "zmax": 1,
        **({"texttemplate": "%{z:.2f}"} if len(names) <= MAX_NUMBERED else {}),
    }
    layout = _lay_out(("", ""))
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True}
    layout["height"] = max(400, 22 * len(names) + 160)
    return {"data": [data], "layout": layout}


def draw_bars(
    groups: Mapping[str, tuple[Sequence[str], Sequence[float]]],
    title: str,
    spread: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Figure:
    """Draw horizontal bars: for each group names and values; ``spread`` how far below and above."""
    data: list[dict[str, Any]] = [
        {"type": "bar", "orientation": "h", "name": name, "y": list(y), "x": list(x)}
        for name, (y, x) in groups.items()
    ]
    if spread is not None:
        below, above = spread
        bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
        data[0]["error_x"] = bars
    layout = _lay_out((title, ""))
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True}
    layout["height"] = max(280, 22 * max(len(y) for y, _ in groups.values()) + 120)
    return {"data": data, "layout": layout}


def _lay_out(titles: tuple[str, str]) -> dict[str, Any]:
    x, y = titles
    return {
        "xaxis": {"title": {"text": x}, "automargin": True},
        "yaxis": {"title": {"text": y}, "automargin": True},
        "margin": {"l": 50, "r": 15, "t": 60, "b": 50},
        "height": 400,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
