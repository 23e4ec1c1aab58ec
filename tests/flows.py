"""Modules of Graft that run in the flows of docs/architecture.md, as a profiler sees them.

The page is served with tiny bases and asked through HTTP; a CSV becomes a version by the command line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from gradio_client import Client

from store.watch import Watch
from tests.helpers import endpoints, tiny
from tests.helpers.recorder import PARSER, Recorder, interpreter
from tests.helpers.training_helpers import spec_of, train
from ui.web import server

ROOT = Path(__file__).resolve().parents[1]
WARM = 2
"""Requests before the one that is recorded."""


class Flows:
    """A page on a home of its own with tiny bases. Each public method returns the modules that one flow runs."""

    def __init__(self, work: Path) -> None:
        """Start the page, which answers messages by a version; `work` is an empty folder."""
        self._recorder = Recorder()
        self._recorder.install()  # before any thread of Graft starts
        self._work = work
        bert, llama = (str(tiny.make(family, work / family)) for family in ("bert", "llama"))
        names = ("CLASSIFICATION", "GENERATION", "SUMMARIZATION")
        bases = {f"GRAFT_MODEL_{name}": base for name, base in zip(names, (bert, llama, llama), strict=True)}
        os.environ |= {"GRAFT_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1", "GRAFT_QUANTIZE": "none", **bases}
        import app

        self._context = app.context
        server.check_home(self._context.settings)
        spec = replace(spec_of("llama", Path(llama)), name="generation")
        version = train(spec, self._context.settings.home, name="voice")
        self._context.adapters.promote(spec.name, version.ref)
        self._watch = Watch(self._context.adapters.watched, self._context.versions_changed)
        self._watch.start()
        options = server.options(self._context) | {"server_port": None}
        _, url, _ = app.demo.launch(**options, prevent_thread_lock=True)
        self._context.load_models()
        self._client = Client(url, verbose=False)
        self._handlers = endpoints.endpoints(app.demo).values()

    def csv(self) -> set[str]:
        """Train a version on a CSV, by the command line."""
        rows, recorded = self._work / "rows.csv", self._work / "recorded"
        rows.write_text("".join(["text,label\n", *(f"number {i},{i % 2}\n" for i in range(24))]), encoding="utf-8")
        recorded.mkdir()
        options = ["--plugin", "classification", "--data", str(rows), "--name", "tickets", "--max-steps", "2"]
        subprocess.run([interpreter(recorded), "-m", "training", *options], cwd=ROOT, check=True, capture_output=True)
        lines = [line for file in recorded.glob("*.modules") for line in file.read_text("utf-8").split()]
        assert lines.count(PARSER) == 2, "by the inspection, and by the run"
        return {*lines} - {PARSER}

    def promote(self) -> set[str]:
        """Call the handler of Make live, and wait until the version, loaded ahead as the newest is, is live."""
        handler = next(found.fn for name, found in self._handlers if name == "adapters_page.Section.handler.handle")
        caller = SimpleNamespace(headers={}, client=SimpleNamespace(host="127.0.0.1"))
        self._settle()
        handler(caller, "tickets@1", "", caller)
        modules = self._settle()
        self._watch.stop()
        return modules

    def classify(self) -> set[str]:
        """Classify a text by HTTP."""
        return self._ask("/classification")

    def request(self) -> set[str]:
        """Answer a message by HTTP."""
        return self._ask("/generation")

    def token(self) -> set[str]:
        """Stream an answer by HTTP, recorded between two of its updates."""
        answer = iter(self._client.submit("a message", max_new_tokens=200, api_name="/generation"))
        next(answer)
        next(answer)
        self._recorder.modules.clear()
        next(answer)
        next(answer)
        return {*self._recorder.modules}

    def _ask(self, endpoint: str) -> set[str]:
        for number in range(WARM + 1):
            self._settle()
            self._client.predict(f"text {number}", api_name=endpoint)
        return {*self._recorder.modules}

    def _settle(self) -> set[str]:
        """Wait until a second brings no other module; returns those recorded, and begins anew."""
        before = -1
        while len(self._recorder.modules) > before:
            before = len(self._recorder.modules)
            time.sleep(1)
        modules = {*self._recorder.modules}
        self._recorder.modules.clear()
        return modules


FLOWS = ("csv", "promote", "classify", "request", "token")
"""Flows in the order in which they run."""


def main() -> None:
    """Print the modules of each flow."""
    argparse.ArgumentParser("python -m tests.flows", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flows = Flows(Path(folder))
        for name in FLOWS:
            modules = sorted(getattr(flows, name)())
            print(f"{name}: {len(modules)}", *modules, sep="\n  ")
    sys.stdout.flush()
    os._exit(0)  # the page's threads would go on


if __name__ == "__main__":
    main()
