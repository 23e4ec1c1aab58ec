"""ui/train/run_panel.py, run_list.py and run_view.py: the runs on a page, in a real server and in Chromium."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from playwright import sync_api

from errors import GraftError
from settings import REPOSITORY
from tests.helpers.run_helpers import STAND_IN, begun, end_all, plain, wait
from tests.helpers.ui_site import make, serve
from tests.ui.test_page_browser import CHROMIUM, FLAGS
from training.config import TrainConfig
from training.events import CONFIG, EVENTS
from training.runs.runs import LOCK, Runs
from ui.i18n import CHINESE, Words
from ui.train import run_view, train_page
from ui.train.run_panel import RunPanel

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


@pytest.fixture
def context(tmp_path):
    found, _, _ = make(tmp_path)
    found.runs = Runs(found.settings, STAND_IN)
    yield found
    end_all(found.runs)


@pytest.fixture
def panel(context):
    with gr.Blocks():
        return RunPanel(context, SimpleNamespace(add=lambda follower: follower))


def home_of(context) -> Path:
    context.settings.home.mkdir(exist_ok=True)
    return context.settings.home


def verbs(panel, chosen) -> set[str]:
    """The buttons that are shown."""
    shown = panel._show_verbs(Words(), chosen, "")
    return {verb for verb, update in zip(panel._verbs, shown, strict=False) if update["visible"]}


def test_buttons_are_there_where_they_are_possible(context, panel) -> None:
    run, home = begun(context.runs, home_of(context)), home_of(context)
    waits = context.runs.submit(plain(home, "waits"))
    assert verbs(panel, [run.id]) == {"pause", "cancel"}
    assert verbs(panel, [waits.id]) == {"cancel", "delete"}
    assert verbs(panel, [run.id, waits.id]) == set(), "of several, which?"
    assert "Number 1 in the queue" in panel._show_run(Words(), [waits.id])[-1]
    context.runs.pause(panel.one([run.id]).id)
    wait(lambda: context.runs.get(run.id).state == "paused")
    assert verbs(panel, [run.id]) == {"resume", "cancel", "delete"}
    assert "Paused at step" in panel._show_run(Words(), [run.id])[-1]
    context.runs.cancel(panel.one([waits.id]).id)
    assert verbs(panel, [waits.id]) == {"delete"}
    assert not panel._show_verbs(Words(), [waits.id], "")[-1]["visible"], "who deletes is asked once more"
    assert panel._show_verbs(Words(), [waits.id], waits.id)[-1]["visible"]
    assert not panel._show_verbs(Words(), [run.id], waits.id)[-1]["visible"], "and only about that one"
    context.runs.delete(panel.one([waits.id]).id)
    with pytest.raises(GraftError, match="There is no run"):
        context.runs.get(waits.id)


def test_clicks_choose_one_and_boxes_several(context, panel) -> None:
    home = home_of(context)
    a, b = begun(context.runs, home, "a"), context.runs.submit(plain(home, "b"))

    def click(id, several, chosen):
        return panel._choose(SimpleNamespace(run=id, several=several), chosen)

    assert [run.id for run in panel._picked([])] == [a.id], "the one that goes on"
    assert click(b.id, False, []) == [b.id]
    assert set(click(a.id, True, [b.id])) == {a.id, b.id}
    assert click(a.id, True, [a.id, b.id]) == [b.id]
    assert [run.id for run in panel._picked(["gone"])] == [a.id]
    table = run_view.table(Words(CHINESE), context.runs.list(), {a.id})
    assert table.index(b.id) < table.index(a.id), "newest first"
    assert table.count('aria-checked="true"') == 1 and "排队中 1" in table and "进行中" in table


def test_a_run_names_its_tab_as_the_page_does(context, panel) -> None:
    run = begun(context.runs, home_of(context))
    plugin = next(plugin for plugin in context.plugins() if plugin.name == "echo")
    plugin.words = {CHINESE: {"Echo": "回声"}}
    for say, title in ((Words(), "Echo"), (Words(CHINESE), "回声")):
        assert context.title(say, "echo") == title and context.title(say, "gone") == "gone"
        listed = run_view.table(say, context.runs.list(), {run.id}, lambda name, title=title: f"{name}: {title}")
        assert f"<td>{run.plugin}: {title}</td>" in listed
        assert f"{title} · {run.data}" in run_view.run(say, run, title)
    assert run.plugin in str(panel._show_list(Words(), [])[1]), "a tab that is gone keeps its name"


def test_the_page_moves_only_when_there_is_something_to_show(context, panel) -> None:
    home = home_of(context)
    run = begun(context.runs, home)
    (run.folder / "finish").touch()
    context.runs.wait(run.id)
    for mark in (panel._mark_list, panel._mark_run, panel._mark_log):
        assert str(mark(Words(), [])) == str(mark(Words(), []))
    before = [str(mark(Words(), [])) for mark in (panel._mark_list, panel._mark_run)]
    context.runs.submit(plain(home, "next"))
    assert [str(mark(Words(), [])) for mark in (panel._mark_list, panel._mark_run)] != before


def test_runs_that_cannot_be_read_are_told_on_the_page(context, panel) -> None:
    (home_of(context) / LOCK).unlink(missing_ok=True)
    (home_of(context) / LOCK).mkdir()
    shown = panel._show_list(Words(), [])
    assert "cannot be looked after" in shown[1] and shown[0]["visible"]
    assert "cannot be looked after" in str(panel._mark_list(Words(), []))
    (home_of(context) / LOCK).rmdir()


def test_events_that_are_not_known_here_do_no_harm(context) -> None:
    run = begun(context.runs, home_of(context))
    with (run.folder / EVENTS).open("a") as file:
        file.write(json.dumps({"kind": "phase", "phase": "<b>polish", "at": 1}) + "\n")
        file.write(json.dumps({"kind": "step", "step": 10**7, "steps": 10**7, "at": 1, "<b>": 3}) + "\n")
    shown = run_view.run(Words(), context.runs.get(run.id))
    assert "<b>polish" not in shown and '"<b>"' not in shown


def used(context, panel, form, id):
    """Return the values of the form after it was filled with the settings of a run."""
    updates = train_page._use(context, panel, form)([id])
    values = {name: updates[component] for name, component in form.inputs.items()}
    return {name: value.get("value") if isinstance(value, dict) else value for name, value in values.items()}


def test_the_settings_of_a_run_fill_the_form(context, panel, tmp_path) -> None:
    """Every field that the form has, the rows among them; as if they had been chosen by hand."""
    home = home_of(context)
    rows = tmp_path / "my rows.csv"
    rows.write_text("body,kind\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)))
    mapping = {"text": "body", "target": "kind"}
    made = replace(plain(home, "first"), plugin="echo", data=str(rows), mapping=mapping, rank=3, promote=True)
    run = context.runs.submit(made)
    rows.unlink()
    with gr.Blocks():
        form, *_ = train_page._form(context)
    again = train_page._config(context, used(context, panel, form, run.id))
    told = ("name", "plugin", "task", "columns", "mapping", "promote", *form.fields)
    spec = context.spec("echo")
    assert [getattr(again, key) for key in told if key not in ("task", "columns")] == [
        getattr(made, key) for key in told if key not in ("task", "columns")
    ]
    assert again.task == spec.task and Path(again.data).read_text().startswith("body,kind\nrow 0,a")
    assert not Path(again.data).is_relative_to(home), "a copy that the page may serve"


def test_an_example_is_recognized_and_lost_rows_are_told(context, panel) -> None:
    home = home_of(context)
    data = REPOSITORY / "examples" / "tickets.csv"
    run = context.runs.submit(replace(plain(home), plugin="echo", data=str(data)))
    with gr.Blocks():
        form, *_ = train_page._form(context)
    values = used(context, panel, form, run.id)
    assert [values[name] for name in ("tab", "kind", "example", "upload")] == ["echo", "example", "tickets.csv", None]
    Path(TrainConfig.from_json((run.folder / CONFIG).read_text()).data).unlink()
    with pytest.raises(GraftError, match=r"tickets.csv cannot be read"):
        train_page._use(context, panel, form)([run.id])


@pytest.fixture
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(chromium, site):
    page = chromium.new_context(locale="en", viewport={"width": 1280, "height": 1000}).new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(site.url)
    page.get_by_role("tab", name="Train", exact=True).click()
    page.wait_for_selector("[data-run]")
    return page


@contextmanager
def ended(site):
    """Whatever happens, no run of the site goes on."""
    try:
        yield
    finally:
        end_all(site.context.runs)


def test_a_queue_of_two_its_curves_and_a_reload(chromium, tmp_path) -> None:
    expect = sync_api.expect
    with serve(tmp_path) as site, ended(site):
        runs = site.context.runs = Runs(site.context.settings, STAND_IN)
        home = home_of(site.context)
        first, second = begun(runs, home, "first"), runs.submit(plain(home, "second"))
        page, other = opened(chromium, site), opened(chromium, site)
        for seen in (page, other):
            expect(seen.locator(".g-runlist tr[data-run]")).to_have_count(2)
            expect(seen.locator(f"[data-run='{first.id}'] .g-state")).to_have_text("running")
            expect(seen.locator(f"[data-run='{second.id}'] .g-state")).to_have_text("queued 1")
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
        expect(page.locator(".g-legend").first).to_contain_text("second")
        expect(page.locator(".g-legend").first).to_contain_text("first")
        expect(page.get_by_role("button", name="Cancel").locator("visible=true")).to_have_count(0)

        page.locator(f"[data-run='{second.id}'] .g-pick").click()
        page.locator(".g-runs button", has_text="Log").first.click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download the log").click()
        assert download.value.suggested_filename == f"second-{second.id}.log"
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete it for good").click()
        expect(other.locator(".g-runlist tr[data-run]")).to_have_count(1)
        assert page.problems == other.problems == [] and not second.folder.exists()
