"""docs/architecture.md: the files that it lists for each flow are those whose functions run in it, and they are few."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client

from plugins._discovery import discover
from serving.pool import Pool
from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from store.watch import Watch
from tasks import Columns, TabSpec
from tests.conftest import Trained
from tests.docs.documents import PAGES, marked
from tests.helpers.flow import Recorder, interpreter, profiled
from training.config import TrainConfig
from training.data.inspect.inspect_client import Inspection
from training.runs.runs import Runs
from ui import shell
from ui.context import Context
from ui.web import server

MOST = {"classify": 14, "chat": 18, "csv": 30, "promote": 12}
pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own


class Site:
    """A page with tiny bases, whose threads are recorded."""

    def __init__(self, client: Client, context: Context, recorder: Recorder) -> None:
        self.client, self.context, self.recorder = client, context, recorder


@pytest.fixture
def site(bert: Trained, llama: Trained) -> Iterator[Site]:
    models = {"classification": bert.spec.model, "generation": llama.spec.model, "summarization": llama.spec.model}
    env = {f"GRAFT_MODEL_{name.upper()}": model for name, model in models.items()}
    settings = Settings.from_env({"GRAFT_HOME": str(bert.home), "HF_HUB_OFFLINE": "1", "GRAFT_QUANTIZE": "none", **env})
    adapters = AdapterStore(settings.home, settings.home / "none")
    with profiled() as recorder:
        context = Context(
            settings, discover(settings.plugins), Pool(settings, bert.models, adapters), adapters, Runs(settings)
        )
        demo = shell.build(context)
        _, url, _ = demo.launch(**server.options(context) | {"server_port": None}, prevent_thread_lock=True)
        Watch(adapters.watched, context.versions_changed).start()
        yield Site(Client(url, verbose=False), context, recorder)
        demo.close(verbose=False)


def listed(flow: str) -> set[str]:
    (text,) = marked(f"flow: {flow}", PAGES["docs/architecture.md"])
    return set(text.split())


def test_a_classify_request_passes_the_files_that_are_listed(site: Site, bert: Trained) -> None:
    ask = dict(adapter=bert.first.ref, api_name="/classification")
    site.client.predict("warm", **ask)
    site.recorder.on = True
    site.client.predict("a text", **ask)
    print(len(site.recorder.modules), sorted(site.recorder.modules))


def test_a_chat_token_passes_the_files_that_are_listed(site: Site, llama: Trained) -> None:
    ask = dict(api_name="/generation", max_new_tokens=8)
    site.client.predict("warm", **ask)
    site.recorder.on = True
    site.client.predict("hello", **ask)
    print(len(site.recorder.modules), sorted(site.recorder.modules))


def test_a_promotion_passes_the_files_that_are_listed(site: Site, bert: Trained) -> None:
    site.client.predict("warm", api_name="/classification")
    site.recorder.on = True
    print(len(site.recorder.modules), sorted(site.recorder.modules))


def test_a_csv_becomes_a_version_in_the_files_that_are_listed(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, out = interpreter(tmp_path)
    monkeypatch.setattr(sys, "executable", python)
    settings = Settings.from_env({"GRAFT_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"})
    data = REPOSITORY / "examples" / "tickets.csv"
    spec = TabSpec("classification", bert.spec.model, "text-classification", Columns("text", "label"))
    with profiled() as recorder:
        recorder.on = True
        runs = Runs(settings)
        print(len(list(Inspection(data, spec).reports(settings.home))))
        run = runs.wait(runs.submit(TrainConfig.for_tab(spec, data, "tickets", max_steps=4)).id)
        recorder.on = False
    assert run.state == "done", run.result
    found = recorder.modules | set(out.read_text().split())
    print(len(found), sorted(found))
