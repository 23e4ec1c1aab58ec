"""The page's handlers and endpoints, in a real Gradio server with a pool that has no models."""

import re
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from errors import GraftError
from settings import Settings
from tests.helpers.run_helpers import STAND_IN, plain
from tests.helpers.ui_site import ECHO, OWN, PASSWORD, make
from training.runs.runs import Runs
from ui import context, shell
from ui.adapters import card_rows, card_view, versions_view
from ui.html.plot import Curve, plot
from ui.html.tags import Html, failure, table, tag
from ui.i18n import Words
from ui.pulse import PagePoll, look
from ui.shell import Reloader
from ui.train.run_panel import RunPanel
from ui.web.access import User

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Gradio's and httpx's own
NASTY = "<img src=x onerror=alert(1)>\"'`${alert(1)}{{x}}"


@pytest.fixture(scope="module")
def client(site):
    return Client(site.url, verbose=False)


def test_api_names_are_the_arguments_of_predict(client) -> None:
    api = client.view_api(return_format="dict")["named_endpoints"]
    assert set(api) == {"/echo", "/echo_compare", "/stream", "/stream_compare", "/own"}
    parameters = api["/echo"]["parameters"]
    assert [p["parameter_name"] for p in parameters] == ["text", "times", "adapter"]
    assert all(p["parameter_has_default"] for p in parameters)
    assert api["/echo"]["returns"][-1]["label"] == "answer"


def test_an_answer_names_its_version_and_base(site, client) -> None:
    said, answer = client.predict("ab", api_name="/echo")
    assert said == "abab"
    assert answer["version"] == "base" and answer["base"] == "org/base" and answer["notes"] == ["a <b>note"]
    assert isinstance(answer["ms"], int)
    ref = site.publish("mine")
    assert client.predict("ab", 3, ref, api_name="/echo")[1]["version"] == ref
    assert client.predict(text="ab", times=1, adapter="base", api_name="/echo")[0] == "ab"
    *values, answer = client.predict("abc", api_name="/own")
    assert values == ["ABC", 3] and answer["version"] == "own" and answer["base"] == "Own"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"text": ""}, "There is no text. The input is empty &amp; blank. Type one."),
        ({"text": "x", "adapter": "nope@1"}, "There is no version 'nope@1'"),
        ({"text": "x", "adapter": "../../etc"}, "There is no version"),
        ({"text": "x", "adapter": "foreign"}, "is not a version of echo"),
        ({"text": "boom"}, "Something went wrong in Graft itself"),
    ],
)
def test_r46_errors_are_sentences(site, client, arguments, sentence) -> None:
    site.publish("foreign", plugin="stream")
    with pytest.raises(AppError) as caught:
        client.predict(**arguments, api_name="/echo")
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value) and "Traceback" not in str(caught.value)


def loaded_with(demo: gr.Blocks) -> list[str]:
    """Return the names of the handlers that run when the page is opened."""
    return [fn.name for fn in demo.fns.values() if (demo._id, "load") in fn.targets]


def test_a_page_without_training_calls_no_handler_of_it_when_it_opens(tmp_path) -> None:
    own, _, _ = make(tmp_path / "own")
    assert set(loaded_with(shell.build(own))) == {"_reset", "_poll"}
    own.tabs = [tab for tab in own.tabs if tab.name == "own"]
    assert loaded_with(shell.build(own)) == ["_poll"]
    assert loaded_with(shell.build(make(tmp_path / "space", space=True)[0])) == ["_poll"]


def test_visitors_see_no_runs(tmp_path) -> None:
    for space in (False, True):
        context, _, _ = make(tmp_path / str(space), password="" if space else PASSWORD, space=space)
        home = context.settings.home
        run = Runs(Settings(home=home), STAND_IN).submit(replace(plain(home, "mine"), data="/secret.csv"))
        context.runs.cancel(run.id)
        with gr.Blocks():
            poll = PagePoll(context.access, lambda: None)
            RunPanel(context, poll)
        assert len(poll.views) == 5
        for owner in (True, False):
            user, values = User("", owner), [[run.id], "", ""]
            shown = str([look(view, user, Words(), values[: len(view.inputs)], None) for view in poll.views])
            assert (run.id in shown) is owner and ("secret.csv" in shown) is owner
        assert ("g-runs" in str(shell.build(context).get_config_file())) is not space


def test_a_base_that_failed_is_tried_again_after_a_pause(tmp_path, monkeypatch) -> None:
    found, pool, _ = make(tmp_path)
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(context, "time", SimpleNamespace(monotonic=lambda: clock.now))
    found.load_models()
    pool.failed.add("org/base")
    for seconds, failed in ((0, True), (29, True), (2, False)):
        clock.now += seconds
        found.load_models()
        assert ("org/base" in pool.failed) is failed
    pool.failed.add("org/base")
    found.load_models()
    assert "org/base" in pool.failed  # the next failure waits as long


def save(site, file: str, text: str) -> None:
    (site.folder / file).write_text(text, encoding="utf-8")


def endpoint_names(site) -> set[str]:
    return set(Client(site.url, verbose=False).view_api(return_format="dict")["named_endpoints"])


def test_saving_a_plugin_reloads_that_tab_alone(site) -> None:
    reload, client = Reloader(site.context, site.demo), Client(site.url, verbose=False)
    before, untouched, names = site.demo.app_id, site.context.plugin("own"), endpoint_names(site)
    stream = client.submit("s", api_name="/stream")

    save(site, "echo.py", ECHO.format(mark="!"))
    reload()
    assert client.predict("a", api_name="/echo")[0] == "aa!"
    assert site.demo.app_id == before and site.context.plugin("own") is untouched

    save(site, "echo.py", "raise ValueError('half written')")
    reload()
    assert client.predict("a", api_name="/echo")[0] == "aa!"
    assert "half written" in str(site.context.notices["echo"])

    save(site, "echo.py", ECHO.format(mark="?").replace("times=2", "often=2").replace("int(times)", "int(often)"))
    reload()
    assert site.demo.app_id != before and "echo" not in site.context.notices, "another argument is another page"

    save(site, "fresh.py", ECHO.format(mark="new").replace('"echo"', '"fresh"'))
    reload()
    assert client.predict("abc", api_name="/own")[0] == "ABC", "a page that was open, by the ids it knows"
    later = Client(site.url, verbose=False)
    assert later.predict("a", often=3, api_name="/echo")[0] == "aaa?"
    assert later.predict("a", api_name="/fresh")[0] == "aanew"
    assert stream.result()[0] == "s" * 60, "it ran through all of this"

    (site.folder / "fresh.py").unlink()
    save(site, "echo.py", ECHO.format(mark=""))
    reload()
    assert endpoint_names(site) == names


def test_saving_a_plugin_loads_its_own_module_again(site, client) -> None:
    reload = Reloader(site.context, site.demo)
    for source, answer in (("raise ValueError", "ABC"), (OWN.replace("str.upper", "str.lower"), "abc"), (OWN, "ABC")):
        save(site, "own.py", source)
        reload()
        assert client.predict("aBc", api_name="/own")[0] == answer


def test_r30_texts_are_escaped_wherever_they_are_shown() -> None:
    card = {
        "new": {"accuracy": 0.5}, "base": {"accuracy": 0.4}, "live": None, "held_out": 4, "fixed": 1, "broken": 0,
        "rows": [{"text": NASTY, "target": NASTY, "base": NASTY, "live": "", "new": NASTY, "change": "fixed"}],
        "no_live": {"ref": NASTY, "why": "refused", "detail": NASTY}, "base_by": "meaning",
        "classes": {"labels": [NASTY], "confusion": {"base": [[4]], "new": [[4]]},
                    "per_class": {key: [{"label": NASTY, "precision": 1, "recall": 1, "f1": 1, "support": 4}]
                                  for key in ("base", "new")}},
    }  # fmt: skip
    texts = {"new": {"loss": 0.5}, "base": {"loss": 0.4}, "rows": card["rows"]}
    history = [{"version": NASTY, "who": NASTY, "why": NASTY, "at": 0}]
    shown = [
        tag("p", NASTY, class_=NASTY), table([NASTY], [[NASTY]]), failure(GraftError(NASTY, NASTY, NASTY)),
        card_view.summary(Words(), card), card_view.summary(Words(), texts),
        *(card_rows.rows_table(Words(), facts, card["rows"]) for facts in (card, texts)),
        versions_view.timeline(Words(), history),
        plot(NASTY, [Curve(NASTY, [(0, 1.0), (1, 0.5)])] * 2),
    ]  # fmt: skip
    for html in shown:
        assert isinstance(html, Html)
        assert not re.search(r"<img|onerror=alert\(1\)>", html)
        assert html.count('"') % 2 == 0
