"""The page under load: quick requests stay quick, the queue empties, and the server asks no other machine."""

import json
import select
import socket
import sys
from collections.abc import Iterator

import gradio as gr
import httpx
import pytest

from tests.helpers.endpoints import by_queue, by_run, endpoints
from tests.helpers.ui_site import Site, serve
from tests.helpers.waiting import until
from ui.tab import chat
from ui.web import server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
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
    with serve(tmp_path_factory.mktemp("site"), plugins={"block": BLOCK}) as found:
        found.publish("mine")
        yield found


def poll(site: Site, session: str = "look") -> httpx.Response:
    """Send what an open page sends every second."""
    number, function = next((n, f) for n, (name, f) in endpoints(site.demo).items() if name == "pulse.PagePoll._poll")
    body = {"data": [None] * len(function.inputs), "fn_index": number, "session_hash": session}
    return httpx.post(f"{site.url}/gradio_api/run/any", json=body, timeout=20)


def begin(site: Site, endpoint: str, data: list) -> str:
    answer = httpx.post(f"{site.url}/gradio_api/call/{endpoint}", json={"data": data}, timeout=20)
    assert answer.status_code == 200
    return answer.json()["event_id"]


def result(site: Site, endpoint: str, id: str) -> str:
    return httpx.get(f"{site.url}/gradio_api/call/{endpoint}/{id}", timeout=60).text


def test_r26_quick_requests_stay_quick_while_answers_wait_and_the_queue_empties(site: Site) -> None:
    plugin = sys.modules["graft_plugin_block"]
    texts = [*(f"text {i}" for i in range(ASKED - 3)), "raises", "ends", "gone"]
    ids = {text: begin(site, "block", [text, "live"]) for text in texts}
    until(lambda: len(plugin.waiting) == ASKED)
    assert poll(site).status_code == 200
    assert httpx.get(f"{site.url}/config", timeout=20).status_code == 200
    assert "abab" in by_echo(site)
    with httpx.stream("GET", f"{site.url}/gradio_api/call/block/{ids['gone']}", timeout=20):
        pass  # its reader goes away
    cancelled = {"session_hash": ids["text 0"], "fn_index": 0, "event_id": ids["text 0"]}
    assert httpx.post(f"{site.url}/gradio_api/cancel", json=cancelled, timeout=20).status_code == 200
    plugin.gate.set()
    for text in texts[1:-3]:
        assert text in result(site, "block", ids[text])
    assert "event: error" in result(site, "block", ids["raises"])
    queue = site.demo._queue
    until(lambda: len(queue) == 0 and not any(job for job in queue.active_jobs if job))
    assert "ab" in by_echo(site)


def by_echo(site: Site) -> str:
    return result(site, "echo", begin(site, "echo", ["ab", 2, "live"]))


def test_r26_a_full_queue_refuses_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(chat, "CONCURRENCY", 1)
    with serve(tmp_path, plugins={"full": BLOCK.replace('"block"', '"full"')}, queue=2) as found:
        plugin, asked = sys.modules["graft_plugin_full"], f"{found.url}/gradio_api/call/full"
        assert httpx.post(asked, json={"data": ["a", "live"]}, timeout=20).status_code == 200
        until(lambda: plugin.waiting == ["a"])
        statuses = [httpx.post(asked, json={"data": [text, "live"]}, timeout=20).status_code for text in "bcd"]
        plugin.gate.set()
        assert statuses == [200, 200, 503]
        until(lambda: len(found.demo._queue) == 0 and plugin.waiting == ["a", "b", "c"])


def test_r37_the_oldest_sessions_are_forgotten(site: Site) -> None:
    holder = site.demo.app.state_holder
    assert holder.capacity == server.options(site.context)["state_session_capacity"] <= 200
    holder.capacity = most = len(holder.session_data)
    for number in range(20):
        assert poll(site, f"session {number}").status_code == 200
    assert len(holder.session_data) <= most
    states = [block for block in site.demo.blocks.values() if isinstance(block, gr.State)]
    assert states and all(len(json.dumps(state.value)) < 100 for state in states), "ids, and nothing large"


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """Another machine, which nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
        assert not connected(listener)
        with socket.create_connection(listener.getsockname()):
            assert connected(listener)


def connected(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0)[0])


def test_r24_no_value_makes_the_server_ask_another_machine(site: Site, elsewhere: socket.socket) -> None:
    url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
    sys.modules["graft_plugin_block"].gate.set()
    offered = [
        f"{url}/text", {"path": f"{url}/path", "meta": {"_type": "gradio.FileData"}},
        {"path": "x.csv", "url": f"{url}/url", "orig_name": "x.csv", "meta": {"_type": "gradio.FileData"}},
    ]  # fmt: skip
    with httpx.Client(base_url=site.url, timeout=60) as client:
        for number, (name, function) in endpoints(site.demo).items():
            for value in offered if name != "hub_form.HubForm._download" else []:
                (by_queue if function.queue else by_run)(client, number, function, value)


def test_r24_r40_the_routes_of_files_serve_no_private_file_and_no_other_machine(
    site: Site, elsewhere: socket.socket
) -> None:
    home, host = site.context.settings.home, f"127.0.0.1:{elsewhere.getsockname()[1]}"
    home.mkdir(exist_ok=True)
    (home / "graft.db").touch()
    manifest = site.context.adapters.get("mine@1").path / "manifest.json"
    paths = [
        "/etc/passwd", "app.py", "settings.py", f"{home}/graft.db", manifest, "%2Fetc%2Fpasswd", "~/.bashrc",
        "..%2F..%2Fetc%2Fpasswd", "....//....//etc/passwd", "/proc/self/environ", f"http://{host}/x", f"//{host}/x",
    ]  # fmt: skip
    for path in paths:
        for route in ("file=", "proxy=", "file/"):
            answer = httpx.get(f"{site.url}/gradio_api/{route}{path}", follow_redirects=False)
            assert answer.status_code >= 400 or answer.headers.get("location", "").startswith("http"), (route, path)
            assert "root:" not in answer.text
    for path in ("/monitoring/summary", "/docs", "/openapi.json"):
        assert httpx.get(site.url + path).status_code in (403, 404), path
