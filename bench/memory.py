"""Resident memory: three tabs with eight versions, beside three pipelines of one version each.

    python -m bench memory

The whole process of the page on both sides, when every version has answered once, in main memory as the kernel counts
it (on a GPU add what the driver says). Weights of bases are held alike on both sides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import alternate, ratio
from bench.servers import TABS, serve_app, serve_stock
from bench.soak import resident_bytes
from bench.versions import LABELS, MINILM, SMOLLM, Site, make_site, publish
from store.adapters import Version

SHARE = (3, 3, 2)
"""Versions of each tab."""
TEXT = "The plot drags, but the acting saves it."


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Alternate; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16, help="of an answer, 16 at least")
    parser.add_argument("--classifier", default=MINILM, help="an id or a folder")
    parser.add_argument("--writer", default=SMOLLM, help="an id or a folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        bases = dict(zip(TABS, (options.classifier, options.writer, options.writer), strict=True))
        sites = {tab: make_site(Path(folder), base, _task(tab), name=tab) for tab, base in bases.items()}
        versions = {
            tab: publish(site, [f"{tab}-{i}" for i in range(share)])
            for (tab, site), share in zip(sites.items(), SHARE, strict=True)
        }
        return _compare(sites, versions, options)


def _task(tab: str) -> str:
    return "text-classification" if tab == TABS[0] else "causal-lm"


def _compare(
    sites: dict[str, Site], versions: dict[str, list[Version]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    classifier, writer = sites[TABS[0]], sites[TABS[-1]]
    job = {"classifier": str(classifier.model.path), "writer": str(writer.model.path), "labels": LABELS,
           "adapter": str(versions[TABS[0]][0].path), "tokens": options.tokens}  # fmt: skip

    def stock() -> float:
        with serve_stock("three", job) as server:
            client = server.client()
            for endpoint in ("/classify", "/summarize", "/generate"):
                client.predict(TEXT, api_name=endpoint)
            return resident_bytes(server.pid) / 1e6

    def graft() -> float:
        bases = {tab: site.spec.model for tab, site in sites.items()}
        with serve_app(classifier, TABS, bases=bases) as server:
            client = server.client()
            for tab, some in versions.items():
                length = {"max_new_tokens": options.tokens} if tab != TABS[0] else {}
                for version in some:
                    _, by = client.predict(TEXT, adapter=version.ref, api_name=f"/{tab}", **length)
                    if by["version"] != version.ref:
                        raise RuntimeError(f"{version.ref} was asked and {by['version']} answered.")
            return resident_bytes(server.pid) / 1e6

    held = alternate({"stock": stock, "graft": graft}, options.rounds)
    return [
        {
            "what": "three pipelines" if name == "stock" else f"three tabs, {sum(SHARE)} versions",
            "MB": round(statistics.median(held[name])),
            "beside stock": str(ratio(held[name], held["stock"])) if name == "graft" else "",
        }
        for name in held
    ]
