"""continue_from.py: a version fills the form, the form offers versions, and a refused resume offers its adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from errors import AdapterError
from store import files
from store.adapters import AdapterStore
from tests.helpers.run_helpers import STAND_IN, end_all, plain
from tests.helpers.ui_site import make
from training.events import RESULT
from training.runs.runs import Runs
from ui.context import Context
from ui.i18n import Words
from ui.train import continue_from, run_view, train_page
from ui.train.run_panel import RunPanel

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    yield make(tmp_path)[0]


def publish(store: AdapterStore, name: str, **facts: object) -> str:
    with store.staging() as staging:
        (staging / "adapter_model.safetensors").write_bytes(b"x")
        base = {"id": "org/base", "source": "hub", "revision": "main"}
        return store.publish(staging, name, {"plugin": "echo", "base": base, "labels": [], **facts}).ref


def test_the_form_offers_the_versions_of_its_tab(context: Context) -> None:
    publish(context.adapters, "mine")
    publish(context.adapters, "far", base={"id": "org/other"})
    publish(context.adapters, "foreign", plugin="stream")
    found = dict(continue_from.choices(context, Words(), "echo"))
    assert found == {"a fresh adapter": "", "mine@1": "mine@1", "far@1 · other": "far@1"}
    assert continue_from.choices(context, Words(), "gone") == [("a fresh adapter", "")]


def test_a_version_fills_the_form_with_how_it_was_made(context: Context) -> None:
    publish(context.adapters, "mine", config={"rank": 3, "start_from": "old@1", "unknown": 1})
    publish(context.adapters, "far", base={"id": "org/other", "source": "hub", "revision": ""})
    with gr.Blocks():
        form, *_ = train_page._form(context)
    filled = values(context, form, "mine@1")
    assert (filled["tab"], filled["name"], filled["rank"]) == ("echo", "mine", 3)
    assert filled["start_from"]["value"] == "mine@1" and filled["model"] == "org/base"
    filled = values(context, form, "far@1")
    assert filled["model"] == "org/other", "it goes on on the base that it was made for"
    publish(context.adapters, "lost", base={"id": "elsewhere", "source": "folder"})
    with pytest.raises(AdapterError, match="nobody has said where it lies"):
        values(context, form, "lost@1")


def values(context: Context, form: train_page.Form, ref: str) -> dict[str, object]:
    updates = continue_from.values(context, context.adapters.get(ref), form)
    return {"tab": updates[form.tab], **{name: updates[component] for name, component in form.fields.items()}}


def test_a_refused_resume_offers_a_new_run_from_its_adapter(context: Context) -> None:
    context.runs = Runs(context.settings, STAND_IN)
    context.settings.home.mkdir(exist_ok=True)
    try:
        with gr.Blocks():
            panel = RunPanel(context, SimpleNamespace(add=lambda follower: follower))  # type: ignore[arg-type]
        run = context.runs.submit(plain(context.settings.home, "mine"))
        context.runs.cancel(run.id)
        assert panel._show_rows(Words(), [run.id])[1] == "", "one that was cancelled has nothing to go on from"
        refused = SimpleNamespace(state="failed", name="mine", plugin="echo", version=None, config=run.config,
                                  result={"what": run_view.REFUSED})  # fmt: skip
        assert panel._goes_on_from(refused) == "", "there is no version of it yet"  # type: ignore[arg-type]
        publish(context.adapters, "mine")
        assert panel._goes_on_from(refused) == "mine@1"  # type: ignore[arg-type]
        refused.plugin = "stream"
        assert panel._goes_on_from(refused) == ""  # type: ignore[arg-type]
    finally:
        end_all(context.runs)


def test_the_rows_of_a_run_are_shown_with_its_card(context: Context) -> None:
    context.runs = Runs(context.settings, STAND_IN)
    context.settings.home.mkdir(exist_ok=True)
    try:
        with gr.Blocks():
            panel = RunPanel(context, SimpleNamespace(add=lambda follower: follower))  # type: ignore[arg-type]
        ref = publish(context.adapters, "mine")
        run = context.runs.submit(plain(context.settings.home, "mine"))
        (run.folder / "finish").touch()
        run = context.runs.wait(run.id)
        result = files.read_json(run.folder / RESULT)
        row = {"text": "<b>where", "target": "a", "base": "b", "live": "", "new": "a", "change": "fixed"}
        files.write_json(run.folder / RESULT, {**result, "card": {**result["card"], "rows": [row]}})
        id, version, on, box, _, html = panel._show_rows(Words(), [run.id], "all", "")
        assert (id, version) == (run.id, ref) and on["visible"] and box["visible"]
        assert (
            "&lt;b&gt;where" in html
            and '<p><button type="button" class="g-link" data-open="mine@1"' in panel._show_run(Words(), [run.id])[-1]
        )
        assert panel._show_rows(Words(), [run.id, run.id], "all", "nowhere")[-1].count("where") == 0
    finally:
        end_all(context.runs)
