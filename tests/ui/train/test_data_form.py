"""data_form.py: where rows come from, and the report on them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from playwright import sync_api

from errors import GraftError
from serving.pool import Status
from tests.helpers.browser import opened
from tests.helpers.row_files import REPORT
from tests.helpers.ui_site import serve
from training.data.inspect.report import LATER
from ui.train.data_form import chosen_file

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
REQUEST = SimpleNamespace(headers={})


@pytest.fixture
def report(page):
    """Return the last updates of a report: of its HTML, of the columns by their part, of the name, of the button."""

    def report(handler, **values):
        shown = page._report
        *_, updates = getattr(shown, handler)(REQUEST, "echo", **values)
        columns = {part: updates.get(menu) for part, menu in page.form.rows.columns.items()}
        return updates[shown.html], columns, updates.get(page.form.fields["name"]), updates[shown.bad]

    return report


def test_a_report_of_an_example_fills_the_form(report) -> None:
    shown, columns, name, _ = report("guess", kind="example", example="tickets.csv")
    assert "240" in shown and "feature request" in shown and name == "tickets"
    assert (columns["text"]["value"], columns["target"]["value"]) == ("text", "label")
    assert not columns["messages"]["visible"]


def test_columns_that_cannot_be_guessed_can_be_chosen(report, tmp_path) -> None:
    path = tmp_path / "My rows.csv"
    path.write_text("body,kind\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)), encoding="utf-8")
    place = {"kind": "upload", "upload": str(path)}
    shown, columns, name, bad = report("guess", **place, column_text="text", column_target="label")
    assert "has no column" in shown and name == "my-rows" and not bad["visible"]
    assert columns["text"]["choices"] in ([("body", "body"), ("kind", "kind")], ["body", "kind"])
    assert columns["text"]["value"] is columns["target"]["value"] is None
    assert columns["text"]["visible"] and not columns["messages"]["visible"]
    shown, columns, *_ = report("look", **place, column_text="body", column_target="kind")
    assert columns["text"]["value"] == "body" and "20" in shown


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        *(("example", name, "There is no example") for name in ("../app.py", "/etc/passwd", "README.md")),
        ("upload", __file__, "not a table"),
        *(("hub_id", id, "is not a") for id in ("../rows", "/etc/passwd", "examples/tickets.csv@/etc", "x")),
    ],
)
def test_only_examples_uploads_and_ids_of_the_hub_name_rows(context, kind, value, why) -> None:
    with pytest.raises(GraftError, match=why):
        chosen_file(context, {"kind": kind.removesuffix("_id"), kind: value})
    assert chosen_file(context, {"kind": "hub", "example": "tickets.csv", "upload": __file__}) is None


def test_the_report_is_made_again_when_its_base_has_arrived(chromium, tmp_path, monkeypatch) -> None:
    phase, asked = ["download"], []

    def look(inspection):
        asked.append(phase[0])
        yield replace(REPORT, untokenized=LATER if phase[0] == "download" else "It is here now.")

    with serve(tmp_path) as site:
        monkeypatch.setattr(site.context.runs, "look", look)
        monkeypatch.setattr(site.pool, "status", lambda: [Status("org/base", phase[0], 0.5)])
        page = opened(chromium, site, viewport={"width": 1280, "height": 900})
        page.get_by_role("tab", name="Train", exact=True).click()
        report = page.locator(".g-report")
        sync_api.expect(report).to_contain_text("follow as soon as the base is on this computer")
        page.wait_for_timeout(2500)
        assert "ready" not in asked
        page.get_by_role("tab", name="Echo", exact=True).click()  # it need not be looked at
        phase[0] = "ready"
        page.wait_for_timeout(2500)
        page.get_by_role("tab", name="Train", exact=True).click()
        sync_api.expect(report).to_contain_text("It is here now.")
        page.wait_for_timeout(2500)
        assert asked.count("ready") == 1, "once, and not with every poll"
        assert page.problems == []
