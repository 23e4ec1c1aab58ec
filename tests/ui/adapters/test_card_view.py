"""card_view.py, card_rows.py and versions_view.py: the HTML of a card, of its rows, and of the history."""

from __future__ import annotations

import csv
import io
import json
import re
from html import escape, unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import REPOSITORY
from tests.helpers.cards import label_card, text_card
from training.publish import gate
from ui.adapters import card_rows, card_view, versions_view
from ui.adapters.card_rows import FORMULA, as_csv, as_jsonl, differences, harmless, select
from ui.i18n import CHINESE, Words

EN = Words()


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html))).strip()


def test_a_card_shows_the_difference_its_certainty_and_the_decision_of_the_gate() -> None:
    html = card_view.summary(EN, label_card())
    for text in (
        "Accuracy 70.0 % → 86.7 %: +16.7 points (95 %: +0.0 to +33.3)",
        "Not certain: the difference may be chance.",
        "With 30 rows, a difference below 20.0 points is not certain.",
        "The gate lets it through. Its rule: not worse than before.",
        "old@1, live before, knows other labels",
        "nearest in meaning",
        "6 fixed",
        "1 broken",
    ):
        assert text in plain(html)
    bars = html[: html.index("g-classes")]
    assert bars.count("g-range") == 4 == len(re.findall(r'<b style="left:[\d.]+%;width:[\d.]+%">', bars))
    assert '<b style="left:73.0%;width:24.0%">' in bars and "73.0 % – 97.0 %" in bars, "each bar has its interval"
    waits = text_card(gate={"pass": False, "rule": "better", "why": "loss"})
    shown = plain(card_view.summary(EN, waits))
    assert "It waits for a person. The gate's rule: surely better than before." in shown
    assert "Loss 2.30 → 2.10: −0.20 (95 %: −1.00 to +1.50)" in shown
    assert "规则：确定比之前好" in plain(card_view.summary(Words(CHINESE), waits))


@pytest.mark.parametrize(
    ("sure", "now", "verdict"),
    [(True, 0.9, "Surely better"), (True, 0.5, "Surely worse"), (False, 0.9, "Not certain")],
)
def test_the_verdict_follows_the_direction_of_the_metric(sure: bool, now: float, verdict: str) -> None:
    for metric, value in (("accuracy", now), ("loss", 1 - now)):
        card = label_card() if metric == "accuracy" else text_card(live=None, live_ref=None)
        card["base"], card["new"] = {metric: 0.7 if metric == "accuracy" else 0.3}, {metric: value}
        card["certainty"]["sure"] = sure
        assert verdict in plain(card_view.summary(EN, card))


def test_a_card_of_an_earlier_release_is_shown() -> None:
    measured = {"base": {"accuracy": 0.646}, "live": None, "new": {"accuracy": 0.859}, "fixed": 412, "broken": 93}
    old = {"metric": "accuracy", "held_out": 1500, "live_ref": None, **measured, "gate": {"pass": True}, "rows": []}
    shown = plain(card_view.summary(EN, old))
    assert "Accuracy 64.6 % → 85.9 %" in shown and "412 fixed" in shown and "chance" not in shown
    assert card_view.summary(EN, {}) == ""


def test_confusion_matrices_stand_side_by_side_and_the_worst_label_comes_first() -> None:
    html = card_view.classes(EN, label_card())
    assert html is not None and html.count('class="g-map"') == 2
    assert html.index("<td>0 %</td>") < html.index("<td>87 %</td>")
    assert re.findall(r'class="g-(hit|miss|none)"', html) == ["none", "none", "miss", "hit"] * 2
    assert card_view.classes(EN, text_card()) is None
    without = label_card()
    without["classes"]["confusion"] = None
    assert "g-map" not in str(card_view.classes(EN, without)) and "Precision" in str(card_view.classes(EN, without))


def test_of_many_labels_those_with_the_most_errors_are_shown() -> None:
    matrix = [[10 if i == j else int(i == 30 and j == 7) for j in range(40)] for i in range(40)]
    chosen = card_view.most_confused(matrix)
    assert {7, 30} <= set(chosen) and len(chosen) == card_view.MOST and chosen == sorted(chosen)


def test_rows_name_the_versions_whose_answers_they_show() -> None:
    card = label_card()
    shown = card_rows.rows_table(EN, card, card["rows"] * 3)
    assert "<th>base</th>" in shown and "40 more rows" in plain(shown)
    assert plain(card_rows.rows_table(EN, card, [])) == "No row matches."
    shown = card_rows.rows_table(EN, card | {"live_ref": "mine@3"}, [{**card["rows"][0], "live": "of live"}])
    assert "<th>mine@3</th>" in shown and "of live" in shown and "base" not in shown


def test_rows_are_filtered_by_change_and_text() -> None:
    rows = label_card()["rows"]
    assert [len(select(rows, kind, "")) for kind in ("all", "gained", "lost", "")] == [30, 6, 1, 30]
    assert [row["text"] for row in select(rows, "gained", " PARCEL 21 ")] == ["parcel 21"]
    assert select(rows, "lost", "nothing like it") == []
    texts = text_card()["rows"]
    assert [row["change"] for row in select(texts, "lost", "")] == ["worse"]
    assert [row["target"] for row in select(texts, "all", "天气坏")] == ["天气好"], "answers are searched, too"


def test_differences_of_texts_are_marked() -> None:
    gone, come = differences("Ana said slow.", "Piotr said fixed.")
    assert re.findall(r"<del>(.*?)</del>", gone) == ["Ana", "slow"] and plain(gone) == "Ana said slow ."
    assert re.findall(r"<ins>(.*?)</ins>", come) == ["Piotr", "fixed"]
    assert differences("天气好", "天气坏")[1].endswith("天气<ins>坏</ins></span>")
    assert "<ins>" not in "".join(differences("same text", "same text"))
    shown = card_rows.rows_table(EN, text_card(), text_card()["rows"])
    assert "Loss 3.00 → 2.00" in plain(shown) and shown.count("g-pair") == 5, "no answers where none was written"


@given(was=st.text(max_size=40), now=st.text(max_size=40))
def test_no_text_becomes_markup_or_is_lost_in_a_comparison(was: str, now: str) -> None:
    for html, text in zip(differences(was, now), (was, now), strict=True):
        bare = re.sub(r"</?(?:span|del|ins)(?: class=\"g-source\")?>", "", html)
        assert "<" not in bare and ">" not in bare
        assert not set(re.findall("&[^;]*;", bare)) - set(map(escape, "<>&\"'")), "what was escaped is markup's own"
        assert text == re.sub("&(?:lt|gt|amp|quot|#x27);", lambda found: unescape(found[0]), bare)


@given(start=st.sampled_from([*FORMULA, " =", "\u00a0@"]), rest=st.text(max_size=20))
def test_r43_no_exported_cell_begins_a_formula(start: str, rest: str) -> None:
    text = start + rest
    row = {"text": text, "target": "x", "base": "", "live": "", "new": text, "change": ""}
    (read,) = csv.DictReader(io.StringIO(as_csv([row]).decode("utf-8-sig"), newline=""))
    for cell in (read["text"], read["new"]):
        assert cell == (text if card_rows.NUMBER.fullmatch(text) else f"'{text}")


def test_files_hold_every_part_of_a_row() -> None:
    rows = text_card()["rows"]
    assert [json.loads(line) for line in as_jsonl(rows).decode().splitlines()] == rows
    read = list(csv.DictReader(io.StringIO(as_csv(rows).decode("utf-8-sig"), newline="")))
    assert list(read[0]) == ["text", "target", "base", "live", "new", "change", "loss_base", "loss_live", "loss_new"]
    assert read[1]["new"] == "天气坏" and read[1]["loss_new"] == "2.5"
    plain = ["-5", "+3.14", "-1,000.50", "12", "plain", "a=b", "", 0.25, -3, None]
    assert [harmless(value) for value in plain] == plain, "neither numbers nor plain texts are changed"


def test_the_history_tells_what_when_who_and_why() -> None:
    history = [
        {"version": "mine@1"},
        {"version": "mine@2", "at": 1_700_000_000, "who": "gate of run 7", "why": "accuracy 0.700 -> 0.867"},
        {"version": "base", "at": 1_700_000_100, "who": "page", "why": "rude", "back": True},
    ]
    shown = plain(versions_view.timeline(EN, history))
    assert re.search(r"Rolled back to base .* · on the page rude mine@2 made live .* · gate of run 7 accuracy", shown)
    assert shown.endswith("mine@1 made live") and versions_view.timeline(EN, []) == ""
    many = versions_view.timeline(EN, [dict(entry) for entry in history * 4])
    assert "7 earlier changes" in many and many.count("<li") == 12 and many.count("g-now") == 1


@pytest.mark.parametrize(
    ("say", "reason", "shipped"),
    [
        (EN, "Accuracy 76.0 % (base) → 88.0 %; the gate's rule: not worse than before", "ships with Graft"),
        (Words(CHINESE), "准确率 76.0 %（基础模型）→ 88.0 %；门控规则：不比之前差", "随 Graft 提供"),
    ],
)
def test_reasons_of_the_gate_and_of_shipped_versions_are_translated(say: Words, reason: str, shipped: str) -> None:
    why = gate.decide("not-worse", "accuracy", {"accuracy": 0.76}, {"accuracy": 0.88}, "base")["why"]
    with_graft = json.loads((REPOSITORY / "adapters" / "live" / "classification.json").read_text())[0]
    by_gate = {"version": "mine@2", "who": "gate of run 7", "why": why}
    history = [by_gate, with_graft, {"version": "mine@1", "why": "as she asked"}]
    shown = plain(versions_view.timeline(say, history))
    assert reason in shown and shipped in shown and "as she asked" in shown
