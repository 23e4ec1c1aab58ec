"""Metrics over held-out rows, and their intervals of confidence, in numpy.

Each metric is a function of sums over the rows. A resample of the bootstrap (Efron, 1979) is a vector of the number of
times that each row was drawn, so thousands of them are a few products of matrices. Contenders are measured on the same
draws, because they answered the same rows, which makes the interval of their difference a paired one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp, lgamma, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Metric = Callable[[Floats], Floats]
"""Maps weights of the rows, of shape (resamples, rows), to values of shape (resamples,)."""

RESAMPLES = 2000
LEVEL = 0.95
DRAWN_AT_ONCE = 4_000_000
"""Weights in memory at a time: 32 MB."""
LEAST_CHANGED = 6
"""Rows that must change, all in one direction, for a sign test below 0.05: 2 * 0.5 ** 6."""


def accuracy(right: NDArray[np.bool_]) -> Metric:
    """Return the share of correct rows, from (rows,)."""
    return mean(right.astype(np.float64))


def mean(values: Floats) -> Metric:
    """Return the mean over the rows of `values`, of shape (rows,)."""
    return ratio(values, np.ones_like(values))


def ratio(above: Floats, below: Floats) -> Metric:
    """Return a sum over the rows divided by another, such as loss over tokens; both of shape (rows,)."""
    return lambda weights: _divide(weights @ above, weights @ below)


def macro_f1(targets: NDArray[np.int64], answers: NDArray[np.int64], labels: int) -> Metric:
    """Return F1 averaged over the labels that are expected in a resample, with equal weight."""
    wanted, given = _one_hot(targets, labels), _one_hot(answers, labels)
    hits = wanted * given

    def metric(weights: Floats) -> Floats:
        expected = weights @ wanted
        f1 = _divide(2 * (weights @ hits), expected + weights @ given)
        return _divide(np.where(expected > 0, f1, 0).sum(axis=1), (expected > 0).sum(axis=1).astype(np.float64))

    return metric


def measure(metric: Metric, rows: int) -> float:
    """Return a metric over all the rows, each once."""
    return float(metric(np.ones((1, rows)))[0])


def measure_all(metrics: Mapping[str, Metric], rows: int) -> dict[str, float]:
    """Return each metric over all the rows, by name."""
    return {name: measure(metric, rows) for name, metric in metrics.items()}


def bootstrap(contenders: Mapping[str, Metric], before: str, rows: int, seed: int = 0) -> dict[str, list[float]]:
    """Return the 95 % interval of one metric for each contender, and of new - `before` under the key `difference`.

    Percentiles of the resamples. The same seed and rows give the same draws.
    """
    found: dict[str, list[Floats]] = {name: [] for name in contenders}
    for weights in _draws(rows, seed):
        for name, metric in contenders.items():
            found[name].append(metric(weights))
    resampled = {name: np.concatenate(parts) for name, parts in found.items()}
    resampled["difference"] = resampled["new"] - resampled[before]
    return {name: _interval(values) for name, values in resampled.items()}


def sign_test(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of as many better rows as worse ones; for labels McNemar's test (1947)."""
    changed = gained + lost
    # In logarithms: thousands of rows may change.
    half = [lgamma(changed + 1) - lgamma(k + 1) - lgamma(changed - k + 1) for k in range(min(gained, lost) + 1)]
    return min(1.0, 2 * sum(exp(term - changed * log(2)) for term in half))


def confusion(targets: NDArray[np.int64], answers: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """Return the counts (labels, labels) of each expected label (row) answered with each (column)."""
    counts = np.bincount(targets * labels + answers, minlength=labels * labels)
    return counts.reshape(labels, labels).astype(np.int64)


def per_class(matrix: NDArray[np.int64], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each label, from a confusion matrix (labels, labels)."""
    hits, wanted, given = np.diag(matrix).astype(float), matrix.sum(axis=1), matrix.sum(axis=0)
    values = (_divide(hits, given), _divide(hits, wanted), _divide(2 * hits, wanted + given), wanted)
    keys = ("precision", "recall", "f1", "support")
    rows = zip(*(value.tolist() for value in values), strict=True)
    return [{"label": label, **dict(zip(keys, row, strict=True))} for label, row in zip(labels, rows, strict=True)]


def confused_order(matrix: NDArray[np.int64]) -> list[int]:
    """Return an order of the labels in which those that are confused with each other stand side by side.

    A chain: it begins with the pair confused most often and grows, at either end, by the label most confused with it.
    """
    errors = (matrix + matrix.T) * (1 - np.eye(len(matrix), dtype=np.int64))
    chain = [int(errors.sum(axis=1).argmax())] if len(matrix) else []
    rest = [i for i in range(len(matrix)) if i not in chain]
    while rest:
        ends = [(int(errors[end, i]), side, i) for side, end in ((0, chain[-1]), (1, chain[0])) for i in rest]
        _, side, nearest = max(ends, key=lambda found: (found[0], -found[1], -found[2]))
        chain.insert(0 if side else len(chain), nearest)
        rest.remove(nearest)
    return chain


def _one_hot(values: NDArray[np.int64], labels: int) -> Floats:
    found: Floats = np.eye(labels)[values]
    return found


def _divide(above: Any, below: Any) -> Floats:  # noqa: ANN401 - arrays of any kind of number
    """Divide elementwise, with 0 where the divisor is 0."""
    below = np.asarray(below, dtype=np.float64)
    found: Floats = np.divide(above, below, out=np.zeros_like(below), where=below != 0)
    return found


def _draws(rows: int, seed: int) -> Iterator[Floats]:
    """Yield the number of times that each row is in each resample, a few resamples at a time: (some, rows)."""
    random, left = np.random.default_rng(seed), RESAMPLES
    while left:
        some = min(left, max(1, DRAWN_AT_ONCE // rows))
        drawn = random.integers(0, rows, (some, rows)) + rows * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows).astype(np.float64)
        left -= some


def _interval(values: Floats) -> list[float]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail])
    return [float(low), float(high)]
