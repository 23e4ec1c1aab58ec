"""From the start of the process until the page can be loaded, and until the first answer; beside a bare Gradio page.

    python -m bench start --rounds 5

Bases are on the disk, and nothing of a process before is used but what the system caches of files. The first answer is
that of the first tab, asked as soon as the page is there. What torch, transformers and peft take to import is told
beside it, because a page that has loaded its model before it shows itself waits for all of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import alternate, ratio, run_child
from bench.servers import TABS, serve_app, serve_stock
from bench.versions import MINILM, SMOLLM, Site, make_site

LIBRARIES = "import torch, transformers, peft; transformers.AutoModelForCausalLM; peft.PeftModel"
QUESTION = "The plot drags, but the acting saves it."
OWN = "praise, complaint"


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Alternate; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench start")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=int, default=1, help="rounds before, which bring files into the system's cache")
    parser.add_argument("--classifier", default=MINILM, help="an id or a folder")
    parser.add_argument("--writer", default=SMOLLM, help="an id or a folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        site = make_site(Path(folder), options.classifier, "text-classification")
        return _compare(site, options)


def _compare(site: Site, options: argparse.Namespace) -> list[dict[str, Any]]:
    answers: list[float] = []
    bases = dict(zip(TABS, (options.classifier, options.writer, options.writer), strict=True))

    def bare() -> float:
        with serve_stock("bare", {}) as server:
            return server.usable

    def graft() -> float:
        with serve_app(site, TABS, bases) as server:
            server.client().predict(QUESTION, OWN, adapter="base", api_name="/classification")
            answers.append(time.perf_counter() - server.started)
            return server.usable

    def imports() -> float:
        return run_child([sys.executable, "-c", LIBRARIES]).seconds

    contenders = {"a bare Gradio page": bare, "graft: page": graft, "imports of torch, transformers, peft": imports}
    alternate(contenders, options.warm)
    answers.clear()
    seconds = alternate(contenders, options.rounds)
    seconds["graft: first answer"] = answers
    return [
        {
            "what": name,
            "seconds": round(statistics.median(found), 2),
            "most": round(max(found), 2),
            "beside bare Gradio": str(ratio(found, seconds["a bare Gradio page"])) if name.startswith("graft") else "",
        }
        for name, found in seconds.items()
    ]
