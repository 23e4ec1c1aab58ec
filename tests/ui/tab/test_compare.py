"""ui/tab/compare.py: columns that answer at the same time, each with its own badge, error and differences."""

import sys
import threading
from contextlib import contextmanager

import pytest
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
from ui.i18n import CHINESE, Words
from ui.tab.answer import plain_answer
from ui.tab.compare import compare, resolve
from ui.tab.task_tab import make_parts

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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("site"), plugins={"chat": CHAT, "parrot": PARROT}) as found:
        for plugin in ("parrot", "parrot", "chat"):
            found.publish(f"{plugin}s", plugin)
        found.context.adapters.promote("parrot", "parrots@2")
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


def test_every_tab_with_versions_has_an_endpoint_that_compares(client) -> None:
    api = client.view_api(return_format="dict")["named_endpoints"]
    assert {name for name in api if name.endswith("_compare")} == {
        f"/{name}_compare" for name in ("chat", "echo", "parrot", "stream")
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


def test_a_base_without_labels_is_asked_the_labels_of_a_version_beside_it(bert, tmp_path, monkeypatch) -> None:
    """With a tiny real base; labels that were typed come before those of a version."""
    store = Store(bert, tmp_path)
    tab = next(tab for tab in discover(REPOSITORY / "plugins") if tab.name == "classification")
    settings = Settings(home=tmp_path, models={"classification": bert.spec.model})
    context = Context(settings, [tab], store.pool, store.adapters, Runs(settings))
    ask = compare(context, "classification", make_parts(tab.plugin))

    def columns(labels: str, *chosen: str) -> list[tuple[dict[str, float], dict]]:
        *_, last = ask("a text", labels, *chosen)
        return list(zip(last[::2], last[1::2], strict=True))

    (base, badge), (_, known), (_, other) = columns("", "base", "one@1", "two@1")
    assert set(base) == {"0", "1"} and badge["version"] == "base" and "differs" in known
    assert badge["notes"] == ["The base has no labels of its own: it was asked those of one@1."]
    assert known["notes"] == other["notes"] == [] and "error" not in badge
    [(scores, typed), *_] = columns("praise, delay", "base", "one@1", "two@1")
    assert set(scores) == {"praise", "delay"} and typed["notes"] == []
    store.adapters.promote("classification", "two@1")
    monkeypatch.setattr("ui.tab.answer.request_words", lambda: Words(CHINESE))
    alone = columns("", "base", "base", "base")
    assert alone[0][1]["notes"] == ["基础模型没有自己的标签：使用了 two@1 的标签。"], "the live version's"


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


def test_an_error_is_shown_in_its_column_alone(client, parrot) -> None:
    answer = client.predict("hi", 3, "base", "parrots@1", "nope@9", api_name="/parrot_compare")
    assert answer[2] == "hi parrots@1 2" and "error" not in answer[3]
    assert "There is no version 'nope@9'" in answer[5]["error"] and "differs" not in answer[5]
    half = client.predict("parrots@1", 3, "base", "parrots@1", "chats@1", api_name="/parrot_compare")
    assert half[2] == "parrots@1 parrots@1 0" and "Something went wrong" in half[3]["error"]
    assert "secret" not in str(half) and "differs" not in half[3]
    assert "is not a version of parrot" in half[5]["error"]
    answer = client.predict("hi", 3, "nope@9", "base", "live", api_name="/parrot_compare")
    assert "error" in answer[1] and "differs" not in answer[3], "the others are compared with each other"
    assert answer[5]["than"] == "base" and ["gone", "base"] in answer[5]["differs"]


def test_errors_are_in_the_language_of_the_request(site) -> None:
    chinese = Client(site.url, verbose=False, headers={"Accept-Language": "zh-CN"})
    answer = chinese.predict("hi", 3, "base", "parrots@1", "nope@9", api_name="/parrot_compare")
    assert answer[5]["error"].startswith("没有版本 'nope@9'。现有：")
    with pytest.raises(Exception, match="没有文本"):
        chinese.predict("", api_name="/echo")


def test_stopping_stops_every_column(client, parrot) -> None:
    job = client.submit("gone", 900, api_name="/parrot_compare")
    until(lambda: len(parrot.met) == 3 and len(job.outputs()) > 1)
    job.cancel()
    until(lambda: len(parrot.ended) == 3)
    assert sorted(parrot.ended) == ["base", "parrots@1", "parrots@2"]
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("graft-answer")])


def test_a_conversation_is_asked_its_last_question_again_where_nothing_was_typed(client) -> None:
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("user", "why?"), ("assistant", "because"))
    ]
    answer = client.predict("", turns, api_name="/chat_compare")
    asked = sys.modules["graft_plugin_chat"].Chat.asked
    assert asked[-3:] == [("why?", 0)] * 3
    assert [len(answer[column]) for column in (0, 2, 4)] == [2, 2, 2]


def test_newest_is_the_newest_that_is_not_live(site) -> None:
    assert resolve(site.context, "parrot", "newest") == "parrots@1"
    assert resolve(site.context, "parrot", "parrots@2") == "parrots@2"
    with pytest.raises(AdapterError, match="There is no version to compare with"):
        resolve(site.context, "stream", "newest")
    site.context.adapters.promote("chat", "chats@1")
    assert resolve(site.context, "chat", "newest") == "chats@1", "the only one, though it is live"


def test_differences_of_two_texts() -> None:
    assert marked("the same", "the same") == []
    assert marked("the red fox", "the quick red fox") == [("kept", "the"), ("come", " quick"), ("kept", " red fox")]
    assert marked("天气好", "天气坏") == [("kept", "天气"), ("gone", "好"), ("come", "坏")]
    assert marked("a " * MOST_PIECES, "b") == [("come", "b")]


def test_an_answer_as_one_text() -> None:
    assert plain_answer([{"a": 0.1, "b": 0.9}]) == "b" and plain_answer(["text", 3]) == "text"
    assert plain_answer([[{"role": "user", "content": "q"}]]) == "q"
    assert plain_answer([]) is plain_answer([3]) is plain_answer([{}]) is None
