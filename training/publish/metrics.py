"""Metrics over held-out rows, and their confidence intervals, in numpy.

Each metric is a function of weighted sums over the rows. A resample of the bootstrap (Efron, 1979) weighs each row by
the number of times it was drawn, so thousands of resamples are a few matrix products. All models are measured on the
same draws, because they answered the same rows, which makes the interval of their difference a paired one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp, lgamma, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Metric = Callable[[Floats], Floats]
"""Maps weights of the rows, of shape (resamples, rows), to values of shape (resamples,)."""

RESAMPLES = 2000
LEVEL = 0.95
DRAWN_AT_ONCE = 4_000_000
"""Row weights of all the resamples that are in memory at a time: 32 MB."""
LEAST_SIGNIFICANT = 6
"""Rows that must change, all in one direction, for a sign test below 0.05: 2 * 0.5 ** 6."""


def mean(values: NDArray[Any]) -> Metric:
    """Return the mean over the rows of `values`, of shape (rows,); of booleans, the share that is true."""
    return ratio(values.astype(np.float64), np.ones(len(values)))


def ratio(numerators: Floats, denominators: Floats) -> Metric:
    """Return a sum over the rows divided by another, such as loss over tokens; both of shape (rows,)."""
    return lambda weights: _divide(weights @ numerators, weights @ denominators)


def macro_f1(targets: Indices, answers: Indices, labels: int) -> Metric:
    """Return the unweighted mean of F1 over the labels that are expected in a resample."""
    wanted, given = np.eye(labels)[targets], np.eye(labels)[answers]
    hits = wanted * given

    def metric(weights: Floats) -> Floats:
        expected = weights @ wanted
        f1 = _divide(2 * (weights @ hits), expected + weights @ given)
        return _divide(np.where(expected > 0, f1, 0).sum(axis=1), (expected > 0).sum(axis=1).astype(np.float64))

    return metric


def measure(metrics: Mapping[str, Metric], rows: int) -> dict[str, float]:
    """Return each metric over all the rows, by name."""
    return {name: float(metric(np.ones((1, rows)))[0]) for name, metric in metrics.items()}


def bootstrap(models: Mapping[str, Metric], before: str, rows: int, seed: int = 0) -> dict[str, list[float]]:
    """Return the 95 % interval of one metric for each model, and of new - `before` under the key `difference`.

    The bounds are percentiles of the resamples. The same seed and number of rows give the same draws.
    """
    draws = [[metric(weights) for metric in models.values()] for weights in _draws(rows, seed)]
    resampled = dict(zip(models, np.concatenate(draws, axis=1), strict=True))
    resampled["difference"] = resampled["new"] - resampled[before]
    bounds = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    return {name: np.percentile(values, bounds).tolist() for name, values in resampled.items()}


def sign_test(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of `gained` better and `lost` worse rows; for labels McNemar's test (1947)."""
    changed = gained + lost
    # In logarithms: thousands of rows may change.
    half = [lgamma(changed + 1) - lgamma(k + 1) - lgamma(changed - k + 1) for k in range(min(gained, lost) + 1)]
    return min(1.0, 2 * sum(exp(term - changed * log(2)) for term in half))


def confusion(targets: Indices, answers: Indices, labels: int) -> Indices:
    """Return the counts (labels, labels) of each expected label (row) answered with each (column)."""
    return np.bincount(targets * labels + answers, minlength=labels * labels).reshape(labels, labels)


def per_class(matrix: Indices, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each label, from a confusion matrix (labels, labels)."""
    hits, wanted, given = np.diag(matrix).astype(float), matrix.sum(axis=1), matrix.sum(axis=0)
    columns = {
        "precision": _divide(hits, given),
        "recall": _divide(hits, wanted),
        "f1": _divide(2 * hits, wanted + given),
        "support": wanted,
    }
    return [
        {"label": label} | {key: column[i].item() for key, column in columns.items()} for i, label in enumerate(labels)
    ]


def confused_order(matrix: Indices) -> list[int]:
    """Return an order of the labels in which those that are confused with each other stand side by side.

    It begins with the label confused most often and grows, at either end, by the label most confused with that end.
    """
    errors = (matrix + matrix.T) * (1 - np.eye(len(matrix), dtype=np.int64))
    rest = list(range(len(matrix)))
    order = [rest.pop(int(errors.sum(axis=1).argmax()))] if rest else []
    while rest:
        first, last = errors[order[0], rest], errors[order[-1], rest]
        if first.max() > last.max():
            order.insert(0, rest.pop(int(first.argmax())))
        else:
            order.append(rest.pop(int(last.argmax())))
    return order


def _divide(numerators: Any, denominators: Any) -> Floats:  # noqa: ANN401 - arrays of any kind of number
    """Divide elementwise, with 0 where the denominator is 0."""
    below = np.asarray(denominators, dtype=np.float64)
    found: Floats = np.divide(numerators, below, out=np.zeros_like(below), where=below != 0)
    return found


def _draws(rows: int, seed: int) -> Iterator[Floats]:
    """Yield the number of times that each row is in each resample, a few resamples at a time: (some, rows)."""
    random, left = np.random.default_rng(seed), RESAMPLES
    while left:
        some = min(left, max(1, DRAWN_AT_ONCE // rows))
        drawn = random.integers(0, rows, (some, rows)) + rows * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows).astype(np.float64)
        left -= some
