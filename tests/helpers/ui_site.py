"""A whole page with plugins of its own and a pool without models, served in this process. For the tests of `ui`."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from errors import InputError
from plugins._discovery import discover
from serving.pool import Status
from settings import Settings
from store import files
from store.adapters import BASE, AdapterStore
from training.runs.runs import Runs
from ui import shell
from ui.context import Context
from ui.web import server

ECHO = """
import gradio as gr
from plugins import Columns, TaskPlugin

class Echo(TaskPlugin):
    name, title = "echo", "Echo"
    model, task = "org/base", "text-classification"
    columns = Columns(text="text", target="label")
    examples = (("one",), ("two",))

    def inputs(self): return [gr.Textbox(label="Text", lines=2)]
    def options(self): return [gr.Slider(1, 9, 2, step=1, label="Times")]
    def outputs(self): return [gr.Textbox(label="Said")]
    def predict(self, lm, text, times=2):
        if text == "boom":
            raise ValueError("a secret")
        return lm.say(text) * int(times) + "{mark}"
"""
STREAM = """
import time
import gradio as gr
from plugins import TaskPlugin

ended = []

class Stream(TaskPlugin):
    name, title = "stream", "Stream"
    model, task = "org/base", "causal-lm"

    def inputs(self): return [gr.Textbox(label="Text", lines=2)]
    def outputs(self): return [gr.Textbox(label="Said")]
    def predict(self, lm, text):
        try:
            for i in range(60):
                yield text * (i + 1)
                time.sleep(0.05)
        finally:
            ended.append(text)
"""
OWN = """
import gradio as gr
from plugins import TaskPlugin

class Own(TaskPlugin):
    name, title = "own", "Own"

    def load(self): return str.upper
    def inputs(self): return [gr.Textbox(label="Text", lines=1)]
    def outputs(self): return [gr.Textbox(label="Said"), gr.Number(label="Length")]
    def predict(self, lm, text): return lm.module(text), len(text)
"""
CHAT = """
import gradio as gr
from plugins import TaskPlugin

class Chat(TaskPlugin):
    name, title = "chat", "Chat"
    model, task = "org/base", "causal-lm"
    asked = []

    def inputs(self):
        self.page = gr.Chatbot(label="Conversation")
        return [gr.Textbox(label="Message", lines=1), self.page]
    def outputs(self): return [self.page]
    def predict(self, lm, message, history=None):
        if message == "boom":
            raise ValueError("a secret")
        self.asked.append((message, len(history or [])))
        turns = [*(history or []), {"role": "user", "content": message}]
        yield [*turns, {"role": "assistant", "content": f"answer {len(self.asked)}"}]
        if message == "half":
            raise ValueError("a secret")
"""
PASSWORD = "correct horse battery"  # noqa: S105 - of a page of these tests


class Pool:
    """A pool that answers without a model."""

    def __init__(self, adapters: AdapterStore) -> None:
        self.adapters, self.warmed, self.loads, self.failed = adapters, [], {}, set()

    def declare(self, key, load=None):
        self.loads[key] = load() if load else None
        self.failed.discard(key)

    def forget(self, key):
        self.loads.pop(key, None)

    def status(self):
        return [Status(key, "failed" if key in self.failed else "ready", 1.0) for key in self.loads]

    def own(self, key):
        return self.loads[key]

    def check(self, spec, adapter):
        self.adapters.get(adapter)

    def release(self, ref):
        self.warmed.append(f"released {ref}")

    def warm(self, spec):
        self.warmed.append(spec.name)

    @contextmanager
    def open(self, spec, adapter="live", lender=None):
        version = self.adapters.live(spec.name) if adapter in ("", "live") else None
        if adapter not in ("", "live", BASE):
            version = self.adapters.get(adapter)
        yield SimpleNamespace(version=version.ref if version else BASE, base=spec.model, notes=["a <b>note"], say=_say)


def _say(text):
    if not text:
        raise InputError("There is no text.", "The input is empty & blank.", "Type one.")
    return text


@dataclass
class Site:
    context: Context
    demo: gr.Blocks
    url: str
    pool: Pool
    folder: Path

    def publish(self, name: str, plugin: str = "echo", card: dict | None = None) -> str:
        with self.context.adapters.staging() as staging:
            (staging / "adapter_model.safetensors").write_bytes(b"x")
            if card:
                files.write_json(staging / "card.json", card)
            facts = {"plugin": plugin, "created": "2026-01-02T03:04:05Z", "base": {"id": "org/base"}}
            return self.context.adapters.publish(staging, name, facts).ref


def make(tmp: Path, plugins: Mapping[str, str] | None = None, **changes) -> tuple[Context, Pool, Path]:
    """Return the context of a page, its pool and its folder of plugins; `plugins` are further ones, source by name."""
    folder = tmp / "plugins"
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"echo": ECHO.format(mark=""), "stream": STREAM, "own": OWN, "bad": "raise ValueError"}
    for name, text in (sources | dict(plugins or {})).items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    settings = Settings(home=tmp / "home", shipped=tmp / "none", plugins=folder, port=0, **changes)
    adapters = AdapterStore(settings.home, settings.shipped)
    pool = Pool(adapters)
    return Context(settings, discover(folder), pool, adapters, Runs(settings)), pool, folder  # type: ignore[arg-type]


@contextmanager
def serve(tmp: Path, **changes):
    """Serve a page; arguments as for `make`."""
    context, pool, folder = make(tmp, **changes)
    demo = shell.build(context)
    options = server.options(context) | {"server_port": None}
    _, url, _ = demo.launch(**options, prevent_thread_lock=True)
    try:
        yield Site(context, demo, url.rstrip("/"), pool, folder)
    finally:
        demo.close(verbose=False)
