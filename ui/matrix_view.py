"""What was taken for what: confusion matrices as heat maps, and the figures of each label, the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ui.render import Html, bar, div, folded, span, table, tag
from ui.strings import Words
from ui.views import short

MOST = 12
"""Labels that a matrix shows; of more, those with the most errors."""
LABEL = 24
"""Characters of a label."""
DEEPEST = 85
"""Percent of the colour where all rows of a label are: words on it must stay readable."""

Matrix = Sequence[Sequence[int]]


def classes(say: Words, facts: Mapping[str, Any]) -> Html | None:
    """The matrices, before and after side by side, and the table of labels; None for cards without labels."""
    found = facts.get("classes")
    if not found:
        return None
    was = "live" if facts.get("live") else "base"
    names = {was: facts.get("live_ref") or say("task.base"), "new": say("card.new")}
    each = _labels(say, found["per_class"][was], found["per_class"]["new"])
    if not found["confusion"]:
        return div("g-classes", each)
    labels, chosen = found["labels"], most_confused(found["confusion"]["new"])
    maps = [_map(say, name, labels, found["confusion"][key], chosen) for key, name in names.items()]
    some = tag("p", say("card.some_labels", n=len(chosen), all=len(labels)), class_="g-dim")
    note = some if len(chosen) < len(labels) else None
    return div("g-classes", tag("h4", say("card.confusion")), div("g-maps", *maps), note, each)


def most_confused(matrix: Matrix) -> list[int]:
    """The places, in their order, of the labels with the most errors, given or received."""
    size = range(len(matrix))
    errors = [sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * matrix[i][i] for i in size]
    return sorted(sorted(size, key=lambda i: -errors[i])[:MOST])


def _map(say: Words, name: str, labels: Sequence[str], matrix: Matrix, chosen: Sequence[int]) -> Html:
    head = tag("tr", tag("th"), *(tag("th", short(labels[i], LABEL), title=labels[i], scope="col") for i in chosen))
    body = [
        tag("tr", tag("th", short(labels[i], LABEL), title=labels[i], scope="row"),
            *(_cell(matrix[i][j], sum(matrix[i]), i == j) for j in chosen))
        for i in chosen
    ]  # fmt: skip
    return div(
        "g-map",
        tag("h5", name, " ", span("g-dim", say("card.axes"))),
        div("g-heat", tag("table", tag("thead", head), tag("tbody", *body))),
    )


def _cell(count: int, of: int, right: bool) -> Html:
    """A count, the deeper the larger its share of the label's rows; green where right, red where not."""
    depth = DEEPEST * count / of if of else 0
    style = f"--depth:{max(depth, 12):.0f}%" if count else None
    return tag("td", count or "·", class_=("g-hit" if right else "g-miss") if count else "g-none", style=style)


def _labels(say: Words, was: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Html:
    earlier = {row["label"]: row for row in was}
    keys = ("card.label", "card.precision", "card.recall", "card.f1", "card.f1_before", "card.support")
    label, precision, recall, f1, f1_before, support = (say(key) for key in keys)
    head = (label, precision, recall, f1, "", f1_before, support)
    rows = [
        [short(row["label"], 40), _percent(row["precision"]), _percent(row["recall"]), _percent(row["f1"]),
         bar(row["f1"], "g-new"), span("g-dim", _percent(earlier[row["label"]]["f1"])), row["support"]]
        for row in sorted(now, key=lambda row: (row["f1"], -row["support"]))
    ]  # fmt: skip
    return folded(say("card.labels", n=len(rows)), table(head, rows, "g-labels"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
