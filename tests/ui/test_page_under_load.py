"""The page while many ask: what is quick stays quick, nothing is left waiting, and nobody is led to another machine."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gradio as gr
import httpx
import pytest

from tests.helpers.run_helpers import wait
from tests.helpers.ui_site import Site, serve
from tests.ui.web.test_access import by_queue, by_run, endpoints
from ui.shell import Reloader
from ui.tab import chat
from ui.web import server

pytestmark = pytest.mark.filterwarnings("ignore")
BLOCK = """
import threading
import gradio as gr
from plugins import TaskPlugin

gate, waiting = threading.Event(), []

class Block(TaskPlugin):
    name, title = "block", "Block"
    model, task = "org/base", "causal-lm"

    def inputs(self): return [gr.Textbox(label="Text", lines=2)]
    def outputs(self): return [gr.Textbox(label="Said")]
    def predict(self, lm, text):
        waiting.append(text)
        gate.wait(60)
        if text == "raises":
            raise ValueError("a secret")
        if text == "ends":
            raise SystemExit
        return text
"""
ASKED = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve(tmp_path_factory.mktemp("site")) as found:
        reload = Reloader(found.context, found.demo)
        (found.folder / "block.py").write_text(BLOCK, encoding="utf-8")
        reload()
        found.publish("mine")
        yield found


def beat(site: Site, session: str = "look") -> httpx.Response:
    """What an open page asks every second."""
    number, function = next((n, f) for n, (name, f) in endpoints(site.demo).items() if name == "pulse.PagePoll._beat")
    body = {"data": [None] * len(function.inputs), "fn_index": number, "session_hash": session}
    return httpx.post(f"{site.url}/gradio_api/run/any", json=body, timeout=20)


def test_r26_what_is_quick_stays_quick_while_answers_wait_and_the_queue_empties(site: Site) -> None:
    plugin = sys.modules["graft_plugin_block"]
    texts = [*(f"text {i}" for i in range(ASKED - 3)), "raises", "ends", "gone"]
    ids = {}
    for text in texts:
        answer = httpx.post(f"{site.url}/gradio_api/call/block", json={"data": [text, "live"]}, timeout=20)
        assert answer.status_code == 200
        ids[text] = answer.json()["event_id"]
    wait(lambda: len(plugin.waiting) == ASKED)
    assert beat(site).status_code == 200
    assert httpx.get(f"{site.url}/config", timeout=20).status_code == 200
    assert "abab" in by_echo(site)
    with httpx.stream("GET", f"{site.url}/gradio_api/call/block/{ids['gone']}", timeout=20):
        pass  # its reader goes away
    cancelled = {"session_hash": ids["text 0"], "fn_index": 0, "event_id": ids["text 0"]}
    assert httpx.post(f"{site.url}/gradio_api/cancel", json=cancelled, timeout=20).status_code == 200
    plugin.gate.set()
    for text in texts[1:-3]:
        assert text in httpx.get(f"{site.url}/gradio_api/call/block/{ids[text]}", timeout=60).text
    assert "event: error" in httpx.get(f"{site.url}/gradio_api/call/block/{ids['raises']}", timeout=60).text
    queue = site.demo._queue
    wait(lambda: len(queue) == 0 and not any(job for job in queue.active_jobs if job))
    assert "ab" in by_echo(site)


def by_echo(site: Site) -> str:
    joined = httpx.post(f"{site.url}/gradio_api/call/echo", json={"data": ["ab", 2, "live"]}, timeout=20)
    return httpx.get(f"{site.url}/gradio_api/call/echo/{joined.json()['event_id']}", timeout=60).text


def test_r26_a_queue_that_is_full_says_so_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(chat, "CONCURRENCY", 1)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "full.py").write_text(BLOCK.replace('"block"', '"full"'), encoding="utf-8")
    with serve(tmp_path, queue=2) as found:
        plugin, asked = sys.modules["graft_plugin_full"], f"{found.url}/gradio_api/call/full"
        assert httpx.post(asked, json={"data": ["a", "live"]}, timeout=20).status_code == 200
        wait(lambda: plugin.waiting == ["a"])
        told = [httpx.post(asked, json={"data": [text, "live"]}, timeout=20).status_code for text in "bcd"]
        plugin.gate.set()
        assert told == [200, 200, 503]
        wait(lambda: len(found.demo._queue) == 0 and plugin.waiting == ["a", "b", "c"])


def test_r37_sessions_that_nobody_holds_are_forgotten(site: Site) -> None:
    holder = site.demo.app.state_holder
    assert holder.capacity == server.options(site.context)["state_session_capacity"] <= 200
    holder.capacity = most = len(holder.session_data)
    for number in range(20):
        assert beat(site, f"session {number}").status_code == 200
    assert len(holder.session_data) <= most
    states = [block for block in site.demo.blocks.values() if isinstance(block, gr.State)]
    assert states and all(len(json.dumps(state.value)) < 100 for state in states), "ids, and nothing large"


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another machine, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}", asked
    found.shutdown()
    found.server_close()
    thread.join()


def test_r24_no_text_and_no_file_makes_the_server_ask_another_machine(site: Site, elsewhere) -> None:
    url, asked = elsewhere
    assert httpx.get(f"{url}/hello").status_code == 200 and asked == ["/hello"]
    sys.modules["graft_plugin_block"].gate.set()
    offered = [
        f"{url}/text", {"path": f"{url}/path", "meta": {"_type": "gradio.FileData"}},
        {"path": "x.csv", "url": f"{url}/url", "orig_name": "x.csv", "meta": {"_type": "gradio.FileData"}},
    ]  # fmt: skip
    with httpx.Client(base_url=site.url, timeout=60) as client:
        for number, (name, function) in endpoints(site.demo).items():
            if name == "hub_form._fetch.fetch":
                continue
            for value in offered:
                way = by_queue if function.queue else by_run
                way(client, number, function, value)
    assert asked == ["/hello"]


def test_r24_r40_the_routes_of_files_give_nothing_of_elsewhere(site: Site, elsewhere) -> None:
    url, asked = elsewhere
    home = site.context.settings.home
    home.mkdir(exist_ok=True)
    (home / "graft.db").touch()
    paths = [
        "/etc/passwd", "app.py", "settings.py", str(home / "graft.db"), "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd",
        "....//....//etc/passwd", "/proc/self/environ", f"{url}/x", f"//{url[7:]}/x", "~/.bashrc",
    ]  # fmt: skip
    for path in paths:
        for route in ("file=", "proxy=", "file/"):
            answer = httpx.get(f"{site.url}/gradio_api/{route}{path}", follow_redirects=False)
            assert answer.status_code >= 400 or answer.headers.get("location", "").startswith("http"), (route, path)
            assert "root:" not in answer.text
    assert asked == []
