"""run_panel.py and run_view.py: the runs on a page, with processes of a stand-in, and in Chromium."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from playwright import sync_api

from errors import GraftError
from settings import REPOSITORY
from store import files
from tests.helpers.browser import opened
from tests.helpers.run_helpers import STAND_IN, begun, end_all, plain
from tests.helpers.ui_site import Site, serve
from tests.helpers.waiting import until
from training.config import TrainConfig
from training.events import CONFIG, EVENTS, RESULT
from training.runs.runs import LOCK, Runs
from ui.i18n import CHINESE, Words
from ui.pulse import PagePoll
from ui.train import run_view
from ui.train.run_panel import RunPanel

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own
EN = Words()


@pytest.fixture
def poll(context):
    return PagePoll(context.access, lambda: None)


@pytest.fixture
def panel(context, poll):
    with gr.Blocks():
        return RunPanel(context, poll)


def buttons(panel, chosen, to_delete="") -> set[str]:
    """Return the visible buttons: the verbs, "use" and "sure"."""
    names = {panel.use: "use", panel._confirm: "sure", **{button: verb for verb, button in panel._verbs.items()}}
    return {names[button] for button, update in panel._show_buttons(EN, chosen, to_delete).items() if update["visible"]}


def shown(panel, run) -> str:
    return panel._show_run(EN, [run.id])[panel._html]


def test_buttons_are_there_where_they_are_possible(context, panel, home) -> None:
    run = begun(context.runs, home)
    waits = context.runs.submit(plain(home, "waits"))
    assert buttons(panel, [run.id]) == {"pause", "cancel", "use"}
    assert buttons(panel, [waits.id]) == {"cancel", "delete", "use"}
    assert buttons(panel, [run.id, waits.id]) == set(), "of several, which?"
    assert "Number 1 in the queue" in shown(panel, waits)
    context.runs.pause(panel.one([run.id]).id)
    until(lambda: context.runs.get(run.id).state == "paused")
    assert buttons(panel, [run.id]) == {"resume", "cancel", "delete", "use"}
    assert "Paused at step" in shown(panel, run)
    context.runs.cancel(panel.one([waits.id]).id)
    assert buttons(panel, [waits.id]) == {"delete", "use"}, "a deletion is confirmed first"
    assert "sure" in buttons(panel, [waits.id], waits.id) and "sure" not in buttons(panel, [run.id], waits.id)
    context.runs.delete(panel.one([waits.id]).id)
    with pytest.raises(GraftError, match="There is no run"):
        context.runs.get(waits.id)


def test_clicks_choose_one_and_boxes_several(context, panel, home) -> None:
    a, b = begun(context.runs, home, "a"), context.runs.submit(plain(home, "b"))

    def click(id, several, chosen):
        return panel._choose(SimpleNamespace(run=id, several=several), chosen)

    assert [run.id for run in panel._picked([])] == [a.id], "the one that goes on"
    assert click(b.id, False, []) == [b.id]
    assert set(click(a.id, True, [b.id])) == {a.id, b.id}
    assert click(a.id, True, [a.id, b.id]) == [b.id]
    assert [run.id for run in panel._picked(["gone"])] == [a.id]
    table = run_view.runs_table(Words(CHINESE), context.runs.list(), {a.id})
    assert table.index(b.id) < table.index(a.id), "newest first"
    assert table.count('aria-checked="true"') == 1 and "排队中 1" in table and "进行中" in table


def test_a_run_names_its_tab_as_the_page_does(context, panel, home) -> None:
    run = begun(context.runs, home)
    plugin = next(plugin for plugin in context.plugins() if plugin.name == "echo")
    plugin.words = {CHINESE: {"Echo": "回声"}}
    for say, title in ((EN, "Echo"), (Words(CHINESE), "回声")):
        assert context.title(say, "echo") == title and context.title(say, "gone") == "gone"
        listed = run_view.runs_table(say, context.runs.list(), {run.id}, lambda name, title=title: f"{name}: {title}")
        assert f"<td>{run.plugin}: {title}</td>" in listed
        assert f"{title} · {run.data}" in run_view.details(say, run, title)
    assert run.plugin in panel._show_list(EN, [])[panel._table], "a tab that is gone keeps its name"


def test_the_page_changes_only_when_there_is_something_to_show(context, panel, poll, home) -> None:
    def marks():
        return [str(view.mark(EN, *[""] * len(view.inputs))) for view in poll.views]

    run = begun(context.runs, home)
    (run.folder / "finish").touch()
    context.runs.wait(run.id)
    before = marks()
    assert before == marks()
    context.runs.submit(plain(home, "next"))
    assert [new != old for new, old in zip(marks(), before, strict=True)] == [True] * 5


def test_runs_that_cannot_be_read_are_reported_on_the_page(panel, poll, home) -> None:
    before = poll.views[0].mark(EN, [])
    (home / LOCK).unlink(missing_ok=True)
    (home / LOCK).mkdir()
    updates = panel._show_list(EN, [])
    assert "cannot be looked after" in updates[panel._table] and updates[panel._box]["visible"]
    assert poll.views[0].mark(EN, []) != before
    (home / LOCK).rmdir()


def test_unknown_events_do_no_harm(context, home) -> None:
    run = begun(context.runs, home)
    with (run.folder / EVENTS).open("a") as file:
        file.write(json.dumps({"kind": "phase", "phase": "<b>polish", "at": 1}) + "\n")
        file.write(json.dumps({"kind": "step", "step": 10**7, "steps": 10**7, "at": 1, "<b>": 3}) + "\n")
    html = run_view.details(EN, context.runs.get(run.id))
    assert "<b>polish" not in html and '"<b>"' not in html


def test_a_refused_resume_offers_a_new_run_from_its_adapter(context, panel, home) -> None:
    run = context.runs.submit(plain(home, "mine"))
    context.runs.cancel(run.id)
    assert panel._show_version(EN, [run.id])[panel.version] == "", "a cancelled run has nothing to continue from"
    facts = {"name": "mine", "plugin": "echo", "config": run.config, "result": {"what": run_view.REFUSED}}
    refused = SimpleNamespace(state="failed", **facts)
    assert panel._continues_from(refused) == "", "there is no version of it yet"
    Site(context, None, "", None, home).publish("mine")
    assert panel._continues_from(refused) == "mine@1"
    refused.plugin = "stream"
    assert panel._continues_from(refused) == ""


def test_the_rows_of_a_run_are_shown_with_its_card(context, panel, home) -> None:
    ref = Site(context, None, "", None, home).publish("mine")
    run = context.runs.submit(plain(home, "mine"))
    (run.folder / "finish").touch()
    run = context.runs.wait(run.id)
    result = files.read_json(run.folder / RESULT)
    row = {"text": "<b>where", "target": "a", "base": "b", "live": "", "new": "a", "change": "fixed"}
    files.write_json(run.folder / RESULT, {**result, "card": {**result["card"], "rows": [row]}})
    updates = panel._show_version(EN, [run.id])
    assert updates[panel.version] == ref and updates[panel.on]["visible"]
    box, _, html = panel._rows._show(SimpleNamespace(headers={}), [run.id], "all", "")
    assert box["visible"] and "&lt;b&gt;where" in html
    assert '<button type="button" class="g-link" data-open="mine@1"' in shown(panel, run)


def used(page, run):
    """Return the values of the form after the settings of a run filled it."""
    updates = page._use([run.id])
    values = {name: updates[component] for name, component in page.form.inputs.items()}
    return {name: value.get("value") if isinstance(value, dict) else value for name, value in values.items()}


def test_the_settings_of_a_run_fill_the_form(context, page, home, tmp_path) -> None:
    """Every field of the form, the rows among them, is as if it had been chosen by hand."""
    rows = tmp_path / "my rows.csv"
    rows.write_text("body,kind\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)))
    mapping = {"text": "body", "target": "kind"}
    made = replace(plain(home, "first"), plugin="echo", data=str(rows), mapping=mapping, rank=3, promote=True)
    run = context.runs.submit(made)
    rows.unlink()
    again = page._config(used(page, run))
    names = ("plugin", "mapping", *page.form.fields)
    assert [getattr(again, name) for name in names] == [getattr(made, name) for name in names]
    assert again.task == context.spec("echo").task and Path(again.data).read_text().startswith("body,kind\nrow 0,a")
    assert not Path(again.data).is_relative_to(home), "a copy that the page may serve"


def test_an_example_is_recognized_and_lost_rows_are_reported(context, page, home) -> None:
    data = REPOSITORY / "examples" / "tickets.csv"
    run = context.runs.submit(replace(plain(home), plugin="echo", data=str(data)))
    values = used(page, run)
    assert [values[name] for name in ("tab", "kind", "example", "upload")] == ["echo", "example", "tickets.csv", None]
    Path(TrainConfig.from_json((run.folder / CONFIG).read_text()).data).unlink()
    with pytest.raises(GraftError, match=r"tickets.csv cannot be read"):
        page._use([run.id])


def show_runs(page):
    page.wait_for_selector("button[role=tab] >> nth=2")
    page.wait_for_timeout(1000)  # the first poll
    page.get_by_role("tab", name="Train", exact=True).click()
    page.wait_for_selector("[data-run]")


def downloaded_log(page) -> str:
    page.locator(".g-runs button", has_text="Log").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the log").click()
    return download.value.suggested_filename


def test_a_queue_of_two_its_curves_and_a_reload(chromium, tmp_path) -> None:
    expect = sync_api.expect
    with serve(tmp_path) as site, ExitStack() as ends:
        runs = site.context.runs = Runs(site.context.settings, STAND_IN)
        ends.callback(end_all, runs)
        home = site.context.settings.home
        home.mkdir(exist_ok=True)
        first, second = begun(runs, home, "first"), runs.submit(plain(home, "second"))
        page = opened(chromium, site, viewport={"width": 1280, "height": 1000})
        (other := page.context.new_page()).goto(site.url)
        for seen in (page, other):
            show_runs(seen)
            expect(seen.locator(".g-runlist tr[data-run]")).to_have_count(2)
            for run, state in ((first, "running"), (second, "queued 1")):
                expect(seen.locator(f"[data-run='{run.id}'] .g-state")).to_have_text(state)
            expect(seen.locator(".g-run-head")).to_contain_text("first")
            expect(seen.locator(".g-plot").first).to_contain_text("Loss")
        line = page.locator(".g-plot .g-stroke").first
        before = line.get_attribute("d")
        expect(line).not_to_have_attribute("d", before or "")

        page.get_by_role("button", name="Pause").click()
        for seen in (page, other):
            expect(seen.locator(f"[data-run='{first.id}'] .g-state")).to_have_text("paused")
        runs.advance()
        expect(other.locator(f"[data-run='{second.id}'] .g-state")).to_have_text("running")
        page.locator(f"[data-run='{first.id}'] .g-pick").click()
        expect(page.locator(".g-run")).to_contain_text("Paused at step")
        page.get_by_role("button", name="Resume").click()
        expect(other.locator(f"[data-run='{first.id}'] .g-state")).to_have_text("queued 1")

        (second.folder / "finish").touch()
        runs.wait(second.id)
        runs.advance()
        site.context.runs = Runs(site.context.settings, STAND_IN)  # as after a restart
        page.reload()
        page.get_by_role("tab", name="Train", exact=True).click()
        expect(page.locator(f"[data-run='{second.id}']")).to_contain_text("75.0 %")
        expect(page.locator(f"[data-run='{first.id}'] .g-state")).to_have_text("running")
        page.locator(f"[data-run='{second.id}'] .g-box").click()
        for name in ("second", "first"):
            expect(page.locator(".g-legend").first).to_contain_text(name)
        expect(page.get_by_role("button", name="Cancel").filter(visible=True)).to_have_count(0)

        page.locator(f"[data-run='{second.id}'] .g-pick").click()
        assert downloaded_log(page) == f"second-{second.id}.log"
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete it for good").click()
        expect(other.locator(".g-runlist tr[data-run]")).to_have_count(1)
        assert page.problems == [] and not second.folder.exists()
