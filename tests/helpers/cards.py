"""Cards as runs write them, for tests of the page."""

from __future__ import annotations

from typing import Any


def label_card(**changes: Any) -> dict[str, Any]:
    """Return the card of two labels and 30 rows: 20 stay right, 6 were fixed, 1 broken, 3 stay wrong."""
    kinds = [("", "a", "a")] * 20 + [("fixed", "b", "a")] * 6 + [("broken", "a", "b")] + [("", "b", "b")] * 3
    rows = [
        {"text": f"parcel {i}", "target": "a", "base": was, "live": "", "new": now, "change": change,
         "loss": {"base": 0.7, "new": 0.3}}
        for i, (change, was, now) in enumerate(kinds)
    ]  # fmt: skip
    per_class = [
        {"label": "a", "precision": 1.0, "recall": 26 / 30, "f1": 0.93, "support": 30},
        {"label": "b", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    ]
    return {
        "metric": "accuracy", "held_out": 30, "live_ref": None, "base_by": "meaning",
        "no_live": {"ref": "old@1", "why": "labels", "detail": ""},
        "base": {"accuracy": 0.7, "macro_f1": 0.82}, "live": None, "new": {"accuracy": 0.867, "macro_f1": 0.93},
        "certainty": {
            "level": 0.95, "resamples": 2000, "least": 0.2, "sure": False, "p": 0.125,
            "intervals": {
                "accuracy": {"base": [0.53, 0.87], "new": [0.73, 0.97], "difference": [0.0, 0.333]},
                "macro_f1": {"base": [0.7, 0.93], "new": [0.84, 0.98], "difference": [0.0, 0.25]},
            },
        },
        "classes": {
            "labels": ["b", "a"], "confusion": {"base": [[0, 0], [9, 21]], "new": [[0, 0], [4, 26]]},
            "per_class": {"base": per_class, "new": per_class},
        },
        "fixed": 6, "broken": 1, "better": 0, "worse": 0,
        "gate": {"pass": True, "rule": "not-worse", "why": "accuracy 0.700 (base) -> 0.867; gate: not-worse"},
        "rows": rows, **changes,
    }  # fmt: skip


def text_card(**changes: Any) -> dict[str, Any]:
    """Return the card of three texts, two of them answered, compared with a live version."""
    rows = [
        {"text": "Ana: slow. Piotr: fixed.", "target": "Piotr fixed it.", "base": "Ana", "live": "Ana said slow.",
         "new": "Piotr said fixed.", "change": "better", "loss": {"base": 4.0, "live": 3.0, "new": 2.0}},
        {"text": "今天天气很好", "target": "天气好", "base": "天", "live": "天气好", "new": "天气坏",
         "change": "worse", "loss": {"base": 4.0, "live": 1.0, "new": 2.5}},
        {"text": "third", "target": "c", "base": "", "live": "", "new": "", "change": "better",
         "loss": {"base": 4.0, "live": 3.0, "new": 2.0}},
    ]  # fmt: skip
    figures = {"base": 4.0, "live": 2.3, "new": 2.1}
    intervals = {"base": [4.0, 4.0], "live": [1.0, 3.0], "new": [2.0, 2.5], "difference": [-1.0, 1.5]}
    return {
        "metric": "loss", "held_out": 3, "live_ref": "old@1", "no_live": None, "base_by": "writing", "classes": None,
        **{key: {"loss": value} for key, value in figures.items()},
        "certainty": {"level": 0.95, "resamples": 2000, "least": 1.25, "sure": False, "p": 1,
                      "intervals": {"loss": intervals}},
        "fixed": 0, "broken": 0, "better": 2, "worse": 1,
        "gate": {"pass": True, "rule": "better", "why": "loss 2.300 (old@1) -> 2.100; gate: better"},
        "rows": rows, **changes,
    }  # fmt: skip
