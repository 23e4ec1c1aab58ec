"""training/publish/metrics.py: metrics against scikit-learn, and intervals against simulated samples."""

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


@given(pairs=PAIRS)
def test_label_metrics_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    targets, answers = np.array(pairs).T
    ours = {"accuracy": metrics.mean(targets == answers), "f1": metrics.macro_f1(targets, answers, LABELS)}
    expected = sorted(set(targets))
    f1 = sklearn_metrics.f1_score(targets, answers, labels=expected, average="macro", zero_division=0)
    theirs = {"accuracy": sklearn_metrics.accuracy_score(targets, answers), "f1": f1}
    assert metrics.measure(ours, len(pairs)) == pytest.approx(theirs)
    matrix = metrics.confusion(targets, answers, LABELS)
    assert np.array_equal(matrix, sklearn_metrics.confusion_matrix(targets, answers, labels=range(LABELS)))
    rows = metrics.per_class(matrix, list("abcd"))
    columns = sklearn_metrics.precision_recall_fscore_support(targets, answers, labels=range(LABELS), zero_division=0)
    found = np.array([[row[key] for row in rows] for key in ("precision", "recall", "f1", "support")])
    assert found == pytest.approx(np.array(columns)) and [row["label"] for row in rows] == list("abcd")


def test_metrics_of_a_resample_weigh_its_rows() -> None:
    both_first_second = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    macro_f1 = metrics.macro_f1(np.array([0, 1]), np.array([0, 0]), 2)
    assert macro_f1(both_first_second) == pytest.approx([(2 / 3) / 2, 1, 0]), "over the labels that are expected"
    loss = metrics.ratio(np.array([2.0, 30.0]), np.array([1.0, 10.0]))
    assert loss(both_first_second) == pytest.approx([32 / 11, 2, 3]), "by their tokens"
    assert metrics.ratio(np.zeros(1), np.zeros(1))(np.ones((1, 1))) == [0]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """300 samples of 100 rows each: 95 % intervals of accuracies 0.8 and 0.7, and of their paired difference."""
    random, truth, held = np.random.default_rng(0), {"base": 0.7, "new": 0.8, "difference": 0.1}, dict[str, int]()
    for trial in range(300):
        draw = random.random(100)
        # The same rows are hard for both, so that the difference varies less than two samples would.
        models = {name: metrics.mean(draw < truth[name]) for name in ("base", "new")}
        found = metrics.bootstrap(models, "base", 100, trial)
        for name, value in truth.items():
            held[name] = held.get(name, 0) + (found[name][0] <= value <= found[name][1])
    assert all(0.90 <= count / 300 <= 0.99 for count in held.values()), held


def test_the_interval_of_a_paired_difference_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    correct = np.arange(200) % 4 > 0
    models = {"base": metrics.mean(correct), "new": metrics.mean(correct | (np.arange(200) % 40 == 0))}
    found = metrics.bootstrap(models, "base", 200)
    width = {name: high - low for name, (low, high) in found.items()}
    assert width["difference"] < width["base"] / 2 and found["difference"][0] > 0
    assert found == metrics.bootstrap(models, "base", 200) != metrics.bootstrap(models, "base", 200, seed=1)
    monkeypatch.setattr(metrics, "DRAWN_AT_ONCE", 300)
    drawn = list(metrics._draws(200, 0))
    assert {weights.shape for weights in drawn} == {(1, 200)} and len(drawn) == metrics.RESAMPLES
    assert all(weights.sum() == 200 for weights in drawn)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (6, 0), (3, 9), (12, 2), (40, 40), (1500, 1400)])
def test_the_sign_test_is_exact(gained: int, lost: int) -> None:
    changed = gained + lost
    as_rare = [k for k in range(changed + 1) if comb(changed, k) <= comb(changed, gained)]
    assert metrics.sign_test(gained, lost) == pytest.approx(sum(comb(changed, k) for k in as_rare) / 2**changed)
    least = metrics.LEAST_SIGNIFICANT
    assert metrics.sign_test(least, 0) < 1 - metrics.LEVEL < metrics.sign_test(least - 1, 0)


def test_labels_that_are_confused_stand_side_by_side() -> None:
    matrix = np.diag([9] * 5)
    matrix[0, 3], matrix[3, 0], matrix[4, 1] = 5, 2, 4
    order = metrics.confused_order(matrix)
    assert sorted(order) == list(range(5))
    assert abs(order.index(0) - order.index(3)) == abs(order.index(1) - order.index(4)) == 1
    assert metrics.confused_order(np.zeros((0, 0), np.int64)) == []
