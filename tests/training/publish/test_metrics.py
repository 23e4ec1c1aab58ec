"""training/publish/metrics.py: metrics against scikit-learn, and intervals that hold what they promise."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from training.publish import metrics

LABELS = 4
PAIRS = st.lists(st.tuples(st.integers(0, LABELS - 1), st.integers(0, LABELS - 1)), min_size=1, max_size=30)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([t for t, _ in pairs]), np.array([a for _, a in pairs])


@given(pairs=PAIRS)
def test_label_metrics_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    targets, answers = columns(pairs)
    right = metrics.measure(metrics.accuracy(targets == answers), len(pairs))
    assert right == pytest.approx(sklearn_metrics.accuracy_score(targets, answers))
    f1 = metrics.measure(metrics.macro_f1(targets, answers, LABELS), len(pairs))
    theirs = sklearn_metrics.f1_score(targets, answers, labels=sorted(set(targets)), average="macro", zero_division=0)
    assert f1 == pytest.approx(theirs)


@given(pairs=PAIRS)
def test_metrics_of_each_label_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    targets, answers = columns(pairs)
    matrix = metrics.confusion(targets, answers, LABELS)
    assert np.array_equal(matrix, sklearn_metrics.confusion_matrix(targets, answers, labels=range(LABELS)))
    ours = metrics.per_class(matrix, list("abcd"))
    theirs = sklearn_metrics.precision_recall_fscore_support(targets, answers, labels=range(LABELS), zero_division=0)
    found = np.array([[row[key] for row in ours] for key in ("precision", "recall", "f1", "support")])
    assert found == pytest.approx(np.array(theirs))
    assert [row["label"] for row in ours] == list("abcd")


def test_macro_f1_of_a_resample_is_over_the_labels_that_it_expects() -> None:
    macro_f1 = metrics.macro_f1(np.array([0, 1]), np.array([0, 0]), 2)
    # both rows; the first alone, drawn twice; the second alone
    assert macro_f1(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])) == pytest.approx([(2 / 3) / 2, 1, 0])


def test_a_ratio_weighs_rows_by_their_tokens() -> None:
    loss = metrics.ratio(np.array([2.0, 30.0]), np.array([1.0, 10.0]))
    assert metrics.measure(loss, 2) == pytest.approx(32 / 11)
    assert loss(np.array([[2.0, 0.0], [0.0, 2.0]])) == pytest.approx([2, 3])
    assert metrics.ratio(np.zeros(1), np.zeros(1))(np.ones((1, 1))) == [0]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """300 samples of 100 rows each: 95 % intervals of accuracies 0.8 and 0.7, and of their paired difference."""
    random, truth, held = np.random.default_rng(0), {"base": 0.7, "new": 0.8, "difference": 0.1}, dict[str, int]()
    for trial in range(300):
        draw = random.random(100)
        # The same rows are hard for both, so that the difference varies less than two samples would.
        found = metrics.bootstrap(
            {name: metrics.accuracy(draw < truth[name]) for name in ("base", "new")}, "base", 100, trial
        )
        for name, value in truth.items():
            held[name] = held.get(name, 0) + (found[name][0] <= value <= found[name][1])
    assert all(0.90 <= count / 300 <= 0.99 for count in held.values()), held


def test_a_paired_difference_is_narrower_than_two_samples_apart() -> None:
    right = np.arange(200) % 4 > 0
    better = right | (np.arange(200) % 40 == 0)
    of = {"base": metrics.accuracy(right), "new": metrics.accuracy(better)}
    found = metrics.bootstrap(of, "base", 200)
    width = {name: high - low for name, (low, high) in found.items()}
    assert width["difference"] < width["base"] / 2
    assert found["difference"][0] > 0 and metrics.measure(of["new"], 200) == pytest.approx(0.775)
    assert found == metrics.bootstrap(of, "base", 200), "the same draws"
    assert found != metrics.bootstrap(of, "base", 200, seed=1)


def test_many_rows_are_drawn_a_few_resamples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DRAWN_AT_ONCE", 70)
    drawn = list(metrics._draws(50, 0))
    assert {weights.shape for weights in drawn} == {(1, 50)} and len(drawn) == metrics.RESAMPLES
    assert all(weights.sum() == 50 for weights in drawn)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (6, 0), (3, 9), (12, 2), (40, 40), (1500, 1400)])
def test_the_sign_test_is_exact(gained: int, lost: int) -> None:
    changed = gained + lost
    as_rare = [k for k in range(changed + 1) if comb(changed, k) <= comb(changed, gained)]
    assert metrics.sign_test(gained, lost) == pytest.approx(sum(comb(changed, k) for k in as_rare) / 2**changed)


def test_as_many_rows_as_are_called_least_are_needed() -> None:
    least = metrics.LEAST_CHANGED
    assert metrics.sign_test(least, 0) < 1 - metrics.LEVEL < metrics.sign_test(least - 1, 0)


def test_labels_that_are_confused_stand_side_by_side() -> None:
    matrix = np.diag([9] * 5)
    matrix[0, 3], matrix[3, 0], matrix[4, 1] = 5, 2, 4
    order = metrics.confused_order(matrix)
    assert sorted(order) == list(range(5))
    assert abs(order.index(0) - order.index(3)) == abs(order.index(1) - order.index(4)) == 1
    assert metrics.confused_order(np.zeros((3, 3), np.int64)) in ([0, 1, 2], [2, 1, 0])
    assert metrics.confused_order(np.zeros((0, 0), np.int64)) == []
