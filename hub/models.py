"""Find models in the Hugging Face cache and download them from the Hub: one commit, without code or pickles.

A Hub that does not answer within three seconds is not asked again for five minutes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.hf_api import DatasetInfo, ModelInfo
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from errors import ModelError
from hub import client
from hub.client import MODEL, Meter, Progress, Unreachable, byte_counter, require_room
from store.files import UNSAFE

ALLOWED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
IGNORED = ["*/*", "consolidated*.safetensors", "*.fp16.safetensors"]
"""Other formats in subfolders (onnx, openvino, original), and copies of the same weights."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack")
REACH_SECONDS = 3.0
SILENCE_SECONDS = 300.0
"""Seconds for which a Hub that did not answer is not asked again."""


def cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """Return the complete snapshot in the Hugging Face cache, or None, without the network."""
    try:
        folder = _snapshot(repo, revision, local_files_only=True)
    except (LocalEntryNotFoundError, OSError):
        return None
    # Another program may have downloaded the tokenizer alone.
    whole = (folder / "config.json").is_file() and any(p.suffix in WEIGHTS for p in folder.iterdir())
    return folder if whole else None


def check_names(names: Iterable[str], model_id: str) -> None:
    """Raise `ModelError` unless these top-level files include a configuration and safetensors."""
    what, present = f"The model {model_id} is refused.", set(names)
    if "config.json" not in present:
        adapter = "It is an adapter, not a base." if "adapter_config.json" in present else "It has no config.json."
        raise ModelError(what, adapter, "Give the id or folder of a base model in the transformers format.")
    if any(name.endswith(".safetensors") for name in present):
        return
    unsafe = sorted(name for name in present if name.endswith(UNSAFE))
    found = f"It has only {', '.join(unsafe[:3])}, which can run code." if unsafe else "It has no weights."
    raise ModelError(
        what,
        f"Graft reads weights from *.safetensors only. {found}",
        "Choose a revision with safetensors, or convert it: load it where you trust it, then save_pretrained.",
    )


class Hub:
    """The Hub for one process; remembers that it could not be reached. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    def fetch(self, repo: str, revision: str | None, progress: Progress) -> Path:
        """Download a model and return its folder, which has the commit's sha as its name.

        Raises `ModelError` for what the Hub refuses, `Unreachable` when it does not answer.
        """
        info = self._look_up(repo, revision)
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        check_names([name for name in sizes if "/" not in name], repo)
        total = sum(sizes[name] for name in filter_repo_objects(sizes, allow_patterns=ALLOWED, ignore_patterns=IGNORED))
        require_room(MODEL, repo, total)
        meter = Meter(progress, "download", total)
        meter.at(0)
        # By name and not by commit, so that the cache records the commit of that name.
        path = client.request(MODEL, repo, revision, lambda: _snapshot(repo, revision, tqdm_class=byte_counter(meter)))
        meter.at(total)
        return path

    def _look_up(self, repo: str, revision: str | None) -> ModelInfo | DatasetInfo:
        """Return the commit and the files of a revision; one caller at a time, so that only one waits in vain."""
        with self._lock:
            if time.monotonic() < self._quiet_until:
                raise Unreachable("it did not answer a moment ago")
            try:
                return client.look_up(MODEL, repo, revision, REACH_SECONDS)
            except Unreachable:
                self._quiet_until = time.monotonic() + SILENCE_SECONDS
                raise


def _snapshot(repo: str, revision: str | None, **options: Any) -> Path:  # noqa: ANN401 - those of snapshot_download
    return Path(snapshot_download(repo, revision=revision, allow_patterns=ALLOWED, ignore_patterns=IGNORED, **options))
