"""ui/web/gradio_private.py: the undocumented interfaces of Gradio still do what the product needs."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from gradio.context import LocalContext
from gradio_client import Client

from settings import REPOSITORY
from ui.i18n import CHINESE, request_words
from ui.web.gradio_private import (
    begin_ids,
    cache_file,
    cache_folder,
    current_request,
    describe,
    describe_api,
    exchange,
    layout,
)

pytestmark = pytest.mark.filterwarnings("ignore")
PRIVATE = {"gradio.context", "gradio.i18n", "gradio.processing_utils", "gradio.routes", "gradio.utils"}
EXCEPTIONS = {"plugins/__init__.py"}
"""The contract of plugins stands below `ui`, and needs the type of a label."""


def page(text: str, label: str = "Text") -> gr.Blocks:
    """Return a page with one endpoint, which puts `text` before its input."""
    begin_ids(0)
    with gr.Blocks(analytics_enabled=False) as demo:
        begin_ids(1000, demo, 100)
        box, out = gr.Textbox(label=label), gr.Textbox()
        describe(box, {"type": "string", "additional_description": "ours"})
        gr.Button().click(lambda value: text + value, box, out, api_name="say")
    return demo


@pytest.fixture(scope="module")
def served() -> Iterator[SimpleNamespace]:
    demo = page("one ")
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    yield SimpleNamespace(demo=demo, url=url)
    demo.close(verbose=False)


def test_no_other_module_imports_private_modules_of_gradio() -> None:
    found = set()
    for path in [*REPOSITORY.glob("ui/**/*.py"), *REPOSITORY.glob("plugins/*.py"), REPOSITORY / "app.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in PRIVATE:
                found.add(str(path.relative_to(REPOSITORY)))
    assert found - EXCEPTIONS == {"ui/web/gradio_private.py"}


def test_the_current_request_is_that_of_the_context() -> None:
    assert current_request() is None
    request = gr.Request(headers={"accept-language": "zh-CN"})
    before = LocalContext.request.set(request)
    try:
        assert current_request() is request and request_words().language == CHINESE
    finally:
        LocalContext.request.reset(before)


def test_ids_begin_at_given_numbers_and_the_api_has_our_descriptions() -> None:
    demo = page("")
    config = demo.get_config_file()
    assert min(c["id"] for c in config["components"]) == 1000
    assert [d["id"] for d in config["dependencies"]] == [100]
    describe_api(demo, lambda api: {"api": api})
    (endpoint,) = demo.get_api_info()["api"]["named_endpoints"].values()
    assert endpoint["parameters"][0]["python_type"]["description"] == "ours"


def test_the_layout_is_the_same_for_the_same_components_and_arguments() -> None:
    assert layout(page("one")) == layout(page("two")) != layout(page("one", "Other"))
    demo = page("one")
    next(iter(demo.fns.values())).fn.predicts = ["text"]
    assert layout(demo) != layout(page("one"))


def test_the_content_of_a_served_page_is_replaced(served: SimpleNamespace) -> None:
    client = Client(served.url, verbose=False)
    assert client.predict("a", api_name="/say") == "one a"
    fresh, before = page("two ", "Other"), served.demo.app_id
    exchange(served.demo, fresh, gr.I18n())
    assert client.predict("a", api_name="/say") == "two a", "a page that was open, by the ids it knows"
    later = httpx.get(f"{served.url}config").json()
    assert "Other" in {c["props"].get("label") for c in later["components"]} and served.demo.app_id != before


def test_a_file_of_the_cache_is_served(served: SimpleNamespace) -> None:
    path = Path(cache_file(b"rows", "rows.csv"))
    assert path.is_relative_to(cache_folder()) and path.name == "rows.csv"
    assert httpx.get(f"{served.url}gradio_api/file={path}").content == b"rows"
