"""Versions side by side: columns that answer at once, each with its own badge, error and differences."""

import inspect
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from gradio.context import LocalContext
from gradio_client import Client

from errors import AdapterError
from plugins._discovery import discover
from settings import REPOSITORY, Settings
from tests.helpers.answers import Store
from tests.helpers.ui_site import CHAT, serve
from tests.helpers.waiting import until
from training.runs.runs import Runs
from ui.context import Context
from ui.html.format import MOST_PIECES, marked
from ui.tab.answer import plain_answer
from ui.tab.compare import Asked, compare, resolve

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
PARROT = """
import time
import gradio as gr
from plugins import Columns, TaskPlugin

class Parrot(TaskPlugin):
    name, title = "parrot", "Parrot"
    model, task = "org/base", "causal-lm"
    columns = Columns(text="text", target="said")
    met, ended = [], []

    def inputs(self): return [gr.Textbox(label="Text", lines=2)]
    def options(self): return [gr.Slider(1, 900, 3, step=1, label="Times")]
    def outputs(self): return [gr.Textbox(label="Said")]
    def predict(self, lm, text, times=3):
        self.met.append(lm.version)
        try:
            for i in range(int(times)):
                yield f"{text} {lm.version} {i}"
                if lm.version == text:
                    raise ValueError("a secret")
                time.sleep(0.01)
        finally:
            self.ended.append(lm.version)
"""
LABELS = """
import gradio as gr
from plugins import Columns, TaskPlugin

class Labels(TaskPlugin):
    name, title = "labels", "Labels"
    model, task = "org/base", "text-classification"
    columns = Columns(text="text", target="label")

    def inputs(self): return [gr.Textbox(label="Text", lines=2)]
    def outputs(self): return [gr.Label(label="Labels")]
    def predict(self, lm, text):
        return {"bug": 0.9, "praise": 0.1} if lm.version == "base" else {"bug": 0.3, "praise": 0.7}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("site")
    (tmp / "plugins").mkdir()
    for name, text in (("chat", CHAT), ("labels", LABELS), ("parrot", PARROT)):
        (tmp / "plugins" / f"{name}.py").write_text(text, encoding="utf-8")
    with serve(tmp) as found:
        for plugin in ("parrot", "labels", "chat"):
            found.publish(f"{plugin}s", plugin)
            found.publish(f"{plugin}s", plugin)
            found.context.adapters.promote(plugin, f"{plugin}s@2")
        yield found


@pytest.fixture
def parrot(site):
    found = site.context.plugin("parrot")
    found.met.clear()
    found.ended.clear()
    return found


@pytest.fixture(scope="module")
def client(site):
    return Client(site.url, verbose=False)


def test_every_tab_with_versions_has_an_endpoint_for_comparing(client) -> None:
    api = client.view_api(return_format="dict")["named_endpoints"]
    assert {name for name in api if name.endswith("_compare")} == {
        f"/{name}_compare" for name in ("chat", "echo", "labels", "parrot", "stream")
    }
    given = [p["parameter_name"] for p in api["/parrot_compare"]["parameters"]]
    assert given == ["text", "times", "first", "second", "third"]
    assert [r["label"] for r in api["/parrot_compare"]["returns"]] == ["Said", "answer"] * 3


def test_base_live_and_newest_answer_one_input(client, parrot) -> None:
    base, first, live, second, newest, third = client.predict("hi", api_name="/parrot_compare")
    assert (base, live, newest) == ("hi base 2", "hi parrots@2 2", "hi parrots@1 2")
    assert [badge["version"] for badge in (first, second, third)] == ["base", "parrots@2", "parrots@1"]
    assert sorted(parrot.met) == ["base", "parrots@1", "parrots@2"]
    assert "differs" not in first and second["than"] == third["than"] == "base"
    assert ["gone", "base"] in second["differs"] and ["kept", "hi "] in second["differs"]
    same = client.predict("hi", 3, "base", "base", "parrots@1", api_name="/parrot_compare")
    assert same[3]["differs"] == [] and ["come", "parrots@1"] in same[5]["differs"]


def test_labels_that_differ_are_told(client) -> None:
    answer = client.predict("x", api_name="/labels_compare")
    assert answer[3]["differs"] == [["gone", "bug"], ["come", "praise"]]


def test_a_base_without_labels_is_asked_those_of_a_version_beside_it(bert, tmp_path) -> None:
    """Real models: what the tab's own columns say of one text when no labels were typed, and when some were."""
    store = Store(bert, tmp_path)
    tab = next(tab for tab in discover(REPOSITORY / "plugins") if tab.name == "classification")
    settings = Settings(home=tmp_path, models={"classification": bert.spec.model})
    context = Context(settings, [tab], store.pool, store.adapters, Runs(settings))
    parameters = list(inspect.signature(tab.plugin.predict).parameters.values())[1:]
    ask = compare(context, "classification", Asked([], parameters, None), 1)

    def columns(labels: str, *chosen: str) -> list[tuple[dict[str, float], dict]]:
        *_, told = ask("a text", labels, *chosen)
        return list(zip(told[::2], told[1::2], strict=True))

    (base, badge), (_, known), (_, other) = columns("", "base", "one@1", "two@1")
    assert set(base) == {"0", "1"} and badge["version"] == "base" and "differs" in known
    assert badge["notes"] == ["The base has no labels of its own: it was asked those of one@1."]
    assert known["notes"] == other["notes"] == [] and "error" not in badge
    [(scores, typed), *_] = columns("praise, delay", "base", "one@1", "two@1")
    assert set(scores) == {"praise", "delay"} and typed["notes"] == []
    store.adapters.promote("classification", "two@1")
    assert "those of two@1" in columns("", "base", "base", "base")[0][1]["notes"][0], "where no version is beside it"
    request = LocalContext.request.set(SimpleNamespace(headers={"accept-language": "zh"}))
    try:
        assert columns("", "base", "base", "base")[0][1]["notes"] == ["基础模型没有自己的标签：使用了 two@1 的标签。"]
    finally:
        LocalContext.request.reset(request)


def test_columns_answer_at_the_same_time(site, monkeypatch, client) -> None:
    meet = threading.Barrier(3, timeout=20)
    opened = type(site.pool).open

    @contextmanager
    def together(pool, spec, adapter="live", lender=None):
        with opened(pool, spec, adapter) as lm:
            meet.wait()
            yield lm

    monkeypatch.setattr(type(site.pool), "open", together)
    answer = client.predict("hi", api_name="/parrot_compare")
    assert all("error" not in badge for badge in answer[1::2])


def test_an_error_of_one_column_is_shown_there_alone(client, parrot) -> None:
    answer = client.predict("hi", 3, "base", "parrots@1", "nope@9", api_name="/parrot_compare")
    assert answer[2] == "hi parrots@1 2" and "error" not in answer[3]
    assert "There is no version 'nope@9'" in answer[5]["error"] and "differs" not in answer[5]
    half = client.predict("parrots@1", 3, "base", "parrots@1", "parrots@2", api_name="/parrot_compare")
    assert half[2] == "parrots@1 parrots@1 0" and "Something went wrong" in half[3]["error"]
    assert "secret" not in str(half) and half[4].endswith(" 2") and "differs" not in half[3]


def test_what_fails_is_said_in_the_language_of_who_asks(site) -> None:
    chinese = Client(site.url, verbose=False, headers={"Accept-Language": "zh-CN"})
    answer = chinese.predict("hi", 3, "base", "parrots@1", "nope@9", api_name="/parrot_compare")
    assert answer[5]["error"].startswith("没有版本 'nope@9'。现有：")
    with pytest.raises(Exception, match="没有文本"):
        chinese.predict("", api_name="/echo")


def test_where_the_first_column_fails_the_others_are_compared_with_each_other(client) -> None:
    answer = client.predict("hi", 3, "nope@9", "base", "live", api_name="/parrot_compare")
    assert "error" in answer[1] and "differs" not in answer[3]
    assert answer[5]["than"] == "base" and ["gone", "base"] in answer[5]["differs"]


def test_a_version_of_another_tab_is_refused_in_its_column(client) -> None:
    answer = client.predict("hi", 3, "base", "labelss@1", "live", api_name="/parrot_compare")
    assert "is not a version of parrot" in answer[3]["error"] and "error" not in answer[5]


def test_stopping_stops_every_column(client, parrot) -> None:
    job = client.submit("gone", 900, api_name="/parrot_compare")
    until(lambda: len(parrot.met) == 3 and len(job.outputs()) > 1)
    job.cancel()
    until(lambda: len(parrot.ended) == 3)
    assert sorted(parrot.ended) == ["base", "parrots@1", "parrots@2"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("graft-answer") and
                (thread.join(5) or thread.is_alive())]  # fmt: skip


def test_a_conversation_is_asked_its_last_question_again_where_nothing_was_typed(client) -> None:
    said = {"user": "why?", "assistant": "because"}
    turns = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said.items()]
    answer = client.predict("", turns, api_name="/chat_compare")
    asked = sys.modules["graft_plugin_chat"].Chat.asked
    assert asked[-3:] == [("why?", 0)] * 3
    assert [len(answer[column]) for column in (0, 2, 4)] == [2, 2, 2]


def test_newest_is_the_newest_that_is_not_live(site) -> None:
    context = site.context
    assert resolve(context, "parrot", "newest") == "parrots@1"
    assert resolve(context, "parrot", "parrots@2") == "parrots@2"
    with pytest.raises(AdapterError, match="There is no version to compare with"):
        resolve(context, "stream", "newest")
    alone = SimpleNamespace(adapters=SimpleNamespace(
        versions=lambda name: [SimpleNamespace(ref="a@1")], live=lambda name: SimpleNamespace(ref="a@1")
    ))  # fmt: skip
    assert resolve(alone, "parrot", "newest") == "a@1"


def test_what_differs() -> None:
    assert marked("the same", "the same") == []
    assert marked("the red fox", "the quick red fox") == [("kept", "the"), ("come", " quick"), ("kept", " red fox")]
    assert marked("天气好", "天气坏") == [("kept", "天气"), ("gone", "好"), ("come", "坏")]
    assert marked("a " * MOST_PIECES, "b") == [("come", "b")]


@pytest.mark.parametrize(
    ("outputs", "answer"),
    [([{"a": 0.1, "b": 0.9}], "b"), (["text", 3], "text"), ([[{"role": "user", "content": "q"}]], "q"),
     ([], None), ([3], None), ([{}], None)],
)  # fmt: skip
def test_an_answer_as_one_text(outputs, answer) -> None:
    assert plain_answer(outputs) == answer
