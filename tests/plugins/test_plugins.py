"""plugins/: each file is one tab or one error tab with the reason, and affects no other; facts as JSON lines."""

import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from errors import PluginError
from plugins import TaskPlugin
from plugins._discovery import discover, load
from settings import REPOSITORY

WHOLE = """
import gradio as gr
from plugins import TaskPlugin

class Echo(TaskPlugin):
    name, title = "echo", "Echo"
    model, task = "org/base", "causal-lm"

    def inputs(self): return [gr.Textbox(label="Text", lines=1)]
    def outputs(self): return [gr.Textbox(label="Said")]
    def predict(self, lm, text): return "1" + text
"""


def write(folder: Path, file: str, text: str) -> Path:
    path = folder / file
    path.write_text(text, encoding="utf-8")
    return path


def test_the_built_in_tabs() -> None:
    tabs = discover(REPOSITORY / "plugins")
    assert [tab.name for tab in tabs] == ["classification", "generation", "summarization"]
    assert all(tab.plugin and tab.error is None for tab in tabs)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nowhere_at_all\n", "Line 1: ModuleNotFoundError.*nowhere_at_all"),
        ("x = 1\n\nraise SystemExit(3)\n", "Line 3: SystemExit: 3"),
        ("def broken(:\n", "Line 1: SyntaxError"),
        ("x = 1\n", "must define one TaskPlugin class.*none"),
        (WHOLE + WHOLE.replace("Echo(", "Other("), "Echo, Other"),
        (WHOLE.replace('"echo"', '""'), "name is missing."),
        (WHOLE.replace('"echo"', '"Not Good"'), "lower case"),
        (WHOLE.replace("causal-lm", "sing"), "'sing' is none of"),
        (WHOLE.replace("def predict", "def other"), r"predict\(\) is missing."),
    ],
)
def test_r15_a_bad_file_is_an_error_tab_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path, "bad.py", text)
    write(tmp_path, "good.py", WHOLE.replace("echo", "good"))
    bad, good = discover(tmp_path)
    assert bad.plugin is None and bad.title == "bad" and good.plugin
    assert re.search(reason, str(bad.error)) and "Traceback" not in str(bad.error)


def test_r15_a_taken_name_is_an_error_for_the_later_file(tmp_path: Path) -> None:
    for file in ("a.py", "b.py"):
        write(tmp_path, file, WHOLE)
    write(tmp_path, "c.py", WHOLE.replace("echo", "train"))
    first, second, page = discover(tmp_path)
    assert first.plugin and second.plugin is None and second.name == "b"
    assert "a.py has it" in str(second.error)
    assert "Graft's own page" in str(page.error)


def test_r15_only_a_python_file_right_in_the_folder_is_a_tab(tmp_path: Path) -> None:
    for place in ("uploads", "__pycache__", "a.py.d"):
        (tmp_path / place).mkdir()
        write(tmp_path / place, "bad.py", "raise ValueError")
    for name in ("bad.pth", "bad.so", "bad.pyc", ".hidden.py", "_helper.py", "bad.py.txt"):
        write(tmp_path, name, "raise ValueError")
    assert discover(tmp_path) == []


def test_a_saved_file_is_imported_again_and_an_error_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path, "echo.py", WHOLE)
    first = load(path).plugin
    os.utime(write(tmp_path, "echo.py", WHOLE.replace("1", "2")), (1, 1))  # as within one second
    second = load(path).plugin
    assert first and second
    assert (first.predict(None, "x"), second.predict(None, "x")) == ("1x", "2x")
    assert type(pickle.loads(pickle.dumps(second))) is type(second)  # noqa: S301 - our own
    assert "class Echo" in inspect.getsource(type(second))
    module = sys.modules["graft_plugin_echo"]
    write(tmp_path, "echo.py", "raise ValueError")
    assert load(path).error and sys.modules["graft_plugin_echo"] is module


def test_a_check_names_every_missing_fact() -> None:
    class Empty(TaskPlugin):
        pass

    with pytest.raises(PluginError) as caught:
        Empty.check()
    for fact in ("inputs()", "outputs()", "predict()", "name", "title", "model", "task"):
        assert f"{fact} is missing." in caught.value.why


def test_the_command_prints_facts_as_json_lines(tmp_path: Path) -> None:
    write(tmp_path, "bad.py", "import nowhere_at_all")
    write(tmp_path, "echo.py", WHOLE)
    env = {"PATH": os.environ["PATH"], "GRAFT_PLUGINS": str(tmp_path), "GRAFT_MODEL_ECHO": "org/other"}
    done = subprocess.run(
        [sys.executable, "-m", "plugins"], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True
    )
    bad, echo = [json.loads(line) for line in done.stdout.splitlines()]
    assert "cannot be imported" in bad["error"]
    assert (echo["name"], echo["title"], echo["model"], echo["task"]) == ("echo", "Echo", "org/other", "causal-lm")
    assert echo["columns"] is None and echo["prompt"] == ""
