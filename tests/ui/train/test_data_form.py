"""data_form.py: where rows come from, and what is shown of them, in a real page with a pool that has no models."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
from playwright import sync_api

from errors import GraftError
from serving.pool import Status
from tests.helpers.browser import opened
from tests.helpers.row_files import REPORT
from tests.helpers.ui_site import serve
from training.data.inspect.report import LATER
from ui.train import data_form
from ui.train.data_form import ReportOutputs

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
REQUEST = SimpleNamespace(headers={})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="module")
def outputs(site):
    with gr.Blocks():
        rows = data_form.place_rows(site.context.plugin("echo"))
        return ReportOutputs(rows, gr.HTML(), gr.Textbox(), gr.Button(), gr.State(""))


def report(site, outputs, keep=False, **values):
    """Return the last updates of a report: of its HTML, of the columns by their part, of the name, of the button."""
    *_, updates = data_form.inspect(site.context, outputs, keep)(REQUEST, "echo", **values)
    columns = {part: updates.get(menu) for part, menu in outputs.rows.columns.items()}
    return updates[outputs.html], columns, updates.get(outputs.name), updates[outputs.bad]


def test_a_report_of_an_example_fills_the_form(site, outputs) -> None:
    shown, columns, name, _ = report(site, outputs, kind="example", example="tickets.csv")
    assert "240" in shown and "feature request" in shown and name == "tickets"
    assert (columns["text"]["value"], columns["target"]["value"]) == ("text", "label")
    assert not columns["messages"]["visible"]


def test_columns_that_cannot_be_guessed_can_be_chosen(site, outputs, tmp_path) -> None:
    path = tmp_path / "My rows.csv"
    path.write_text("body,kind\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)), encoding="utf-8")
    place = {"kind": "upload", "upload": str(path)}
    shown, columns, name, bad = report(site, outputs, **place, column_text="text", column_target="label")
    assert "has no column" in shown and name == "my-rows" and not bad["visible"]
    assert columns["text"]["choices"] in ([("body", "body"), ("kind", "kind")], ["body", "kind"])
    assert columns["text"]["value"] is columns["target"]["value"] is None
    assert columns["text"]["visible"] and not columns["messages"]["visible"]
    shown, columns, *_ = report(site, outputs, keep=True, **place, column_text="body", column_target="kind")
    assert columns["text"]["value"] == "body" and "20" in shown


def test_only_examples_by_name_are_read(site) -> None:
    for name in ("../app.py", "/etc/passwd", "README.md"):
        with pytest.raises(GraftError, match="There is no example"):
            data_form.chosen_file(site.context, {"kind": "example", "example": name})
    with pytest.raises(GraftError, match="not a table"):
        data_form.chosen_file(site.context, {"kind": "upload", "upload": __file__})
    assert data_form.chosen_file(site.context, {"kind": "hub", "example": "tickets.csv", "upload": __file__}) is None
    for id in ("../rows", "/etc/passwd", "examples/tickets.csv@/etc", "x"):
        with pytest.raises(GraftError, match="is not a"):
            data_form.chosen_file(site.context, {"kind": "hub", "hub_id": id})


def test_the_report_is_made_again_when_its_base_has_arrived(chromium, site, monkeypatch) -> None:
    phase, asked = ["download"], []

    def look(inspection):
        asked.append(phase[0])
        yield replace(REPORT, untokenized=LATER if phase[0] == "download" else "It is here now.")

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
    assert asked.count("ready") == 1, "once, and not with every beat"
    assert page.problems == []
