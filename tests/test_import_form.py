"""ui/import_form.py: an adapter made elsewhere is taken in on the page by a process of its own."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from plugins._discovery import discover
from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from tests import tiny
from tests.test_importing import LABELS, made_elsewhere
from tests.ui_site import Pool
from training.runs import Runs
from ui import import_form, versions_view
from ui.access import Action
from ui.context import Context
from ui.pulse import Pulse
from ui.strings import Words

pytestmark = pytest.mark.filterwarnings("ignore")
REQUEST = SimpleNamespace(headers={})


def context_of(home: Path, **changes: object) -> Context:
    settings = Settings(home=home, shipped=home / "none", plugins=REPOSITORY / "plugins", **changes)  # type: ignore[arg-type]
    adapters = AdapterStore(settings.home)
    return Context(settings, discover(settings.plugins), Pool(adapters), adapters, Runs(settings))  # type: ignore[arg-type]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    base = tiny.make("bert", tmp_path / "bert")
    monkeypatch.setenv("GRAFT_MODEL_CLASSIFICATION", str(base))
    monkeypatch.setenv("GRAFT_QUANTIZE", "none")
    made_elsewhere("bert", base, tmp_path / "theirs")
    return shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "theirs")


def test_a_zip_becomes_a_version_that_waits_for_a_person(archive: str, tmp_path: Path) -> None:
    context = context_of(tmp_path / "home")
    handler = partial(context.allow(Action.KEEP, import_form.take_in(context)), REQUEST)
    *_, failed = handler(REQUEST, archive, "classification", "theirs", "")
    assert "g-bad" in failed and "a head of 3 labels" in failed and context.changes == 0
    *steps, done = handler(REQUEST, archive, "classification", " theirs ", ", ".join(LABELS))
    said = "".join(steps)
    assert "Unpacking" in said and "Checking it against its base" in said and "theirs@1 is here" in done
    assert context.changes == 1 and context.adapters.live("classification") is None
    listed = versions_view.versions(Words(), context.adapters.versions("classification"), "")
    assert "made elsewhere" in listed and context.adapters.get("theirs@1").labels == LABELS


@pytest.mark.parametrize(
    ("given", "why"),
    [((None, "classification", "mine", ""), "Nothing was chosen"), (("a.zip", "nope", "mine", ""), "There is no tab"),
     (("a.zip", "classification", "--base=x", ""), "cannot name an adapter")],
)  # fmt: skip
def test_what_is_missing_is_said_before_anything_begins(given, why: str, tmp_path: Path) -> None:
    context = context_of(tmp_path)
    handler = partial(context.allow(Action.KEEP, import_form.take_in(context)), REQUEST)
    with pytest.raises(gr.Error, match=why):
        list(handler(REQUEST, *given))


def test_nobody_takes_anything_in_where_the_page_may_not_train(tmp_path: Path) -> None:
    context = context_of(tmp_path, space=True)
    handler = partial(context.allow(Action.KEEP, import_form.take_in(context)), REQUEST)
    with pytest.raises(gr.Error, match="not for visitors"):
        list(handler(REQUEST, "a.zip", "classification", "mine", ""))
    for found, functions in ((context, 0), (context_of(tmp_path), 2)):
        with gr.Blocks() as page:
            import_form.build(found, Pulse(found.access, lambda: None))
        assert len(page.fns) == functions
