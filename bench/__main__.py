"""Run one comparison: `python -m bench NAME`, with `--help` behind NAME for its options.

A comparison is a function `(arguments, folder) -> rows`; `folder` is empty, and removed afterwards. Its rows are
printed as a table and written to `bench/results/` as JSON, with the date, the machine and the libraries' versions.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measure import Row, save, table
from settings import prepare_environment

RESULTS = Path(__file__).resolve().parent / "results"
COMPARISONS = {
    "chat": ("inference.generation_speed:chat", "conversations through HTTP, beside Gradio with generate"),
    "mixed": ("inference.generation_speed:mixed", "rows of several versions in a batch, beside PEFT adapter_names"),
    "swap": ("inference.version_swap:run", "a new version into a loaded base, beside PEFT load_adapter"),
    "classify": ("inference.classify_requests:run", "classification for many clients, beside a pipeline"),
    "start": ("inference.page_costs:start", "seconds until the page and the first answer, beside a bare page"),
    "memory": ("inference.page_costs:memory", "resident memory of three tabs, beside three pipelines"),
    "gpu": ("inference.gpu_llama:run", "QLoRA, and decoding with many versions, on an 8B-shaped Llama"),
    "train": ("finetuning.train_recipe:train", "speed, memory and quality of training, beside the Trainer"),
    "live": ("finetuning.train_recipe:live", "from Train to the first answer, beside a script and a restart"),
    "data": ("finetuning.data_files:run", "a large JSONL file inspected and prepared, beside datasets"),
}
"""Name -> (module and function below `bench`, one line for `--help`)."""


def load(name: str) -> Callable[[Sequence[str], Path], list[Row]]:
    """Import a comparison by its name."""
    module, _, function = COMPARISONS[name][0].partition(":")
    found: Callable[[Sequence[str], Path], list[Row]] = getattr(importlib.import_module(f"bench.{module}"), function)
    return found


def main(arguments: Sequence[str]) -> int:
    """Run one comparison; arguments after its name are its own."""
    epilog = "\n".join(f"{name:12} {line}" for name, (_, line) in COMPARISONS.items())
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench", epilog=epilog, formatter_class=style)
    parser.add_argument("name", choices=list(COMPARISONS))
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the comparison")
    options = parser.parse_args(arguments)
    prepare_environment()  # as for the page, before torch is imported; peers have processes of their own
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        rows = load(options.name)(options.rest, Path(folder))
    print(table(rows))
    print(save(RESULTS, options.name, options.rest, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
