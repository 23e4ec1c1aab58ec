"""continue_from.py: the form offers versions, and a version fills the form."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from errors import AdapterError
from store.adapters import AdapterStore
from tests.helpers.ui_site import make
from ui.context import Context
from ui.i18n import Words
from ui.train import continue_from, train_page

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make(tmp_path)[0]


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
