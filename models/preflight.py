"""Check a model's folder before a library opens it: safetensors only, no code, no path out of the folder.

Libraries follow a folder's JSON files: code to run (`auto_map`), files of weights (`weight_map`) and the path of the
vocabulary (`vocab_file`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import ModelError
from hub.models import check_names
from store.files import JSON_LIMIT

CODE_KEYS = frozenset(
    {"auto_map", "trust_remote_code", "_attn_implementation_internal", "_experts_implementation_internal"}
)
TEMPLATES = "additional_chat_templates"
TEMPLATE_NAME = re.compile(r"[a-z0-9_-]+\.jinja")
BASENAME = re.compile(r"[\w.-]{1,200}", re.ASCII)
IGNORED_PATHS = frozenset({"special_tokens_map_file"})
"""Keys with paths of the author's computer, which old versions of transformers wrote and none opens."""


def check_model(folder: Path, model_id: str) -> dict[str, Any]:
    """Return the `config.json` of a folder that is safe to load; raises `ModelError` with the id and the reason."""
    check_names((path.name for path in folder.iterdir()) if folder.is_dir() else (), model_id)
    templates = list((folder / TEMPLATES).iterdir()) if (folder / TEMPLATES).is_dir() else []
    _check_links(folder, [*folder.iterdir(), *templates], model_id)
    for path in sorted(folder.glob("*config*.json")):
        if code := sorted(CODE_KEYS.intersection(_keys(_read(path, model_id)))):
            why = f"It needs remote code: {path.name} has the key {code[0]}. Graft runs no code of models."
            raise _refusal(model_id, why)
    for path in sorted(folder.glob("*.index.json")):
        _check_index(folder, path.name, _read_object(path, model_id), model_id)
    if (folder / "tokenizer_config.json").exists():
        _check_paths(_read_object(folder / "tokenizer_config.json", model_id), model_id)
    if odd := [path.name for path in templates if not TEMPLATE_NAME.fullmatch(path.name)]:
        raise _refusal(model_id, f"It has a chat template with the odd name {odd[0][:80]!r}.")
    return _read_object(folder / "config.json", model_id)


def _refusal(model_id: str, why: str, next: str = "Choose another model.") -> ModelError:
    return ModelError(f"The model {model_id} is refused.", why, next)


def _read_object(path: Path, model_id: str) -> dict[str, Any]:
    value = _read(path, model_id)
    if not isinstance(value, dict):
        raise _refusal(model_id, f"{path.name} is not a JSON object.")
    return value


def _read(path: Path, model_id: str) -> object:
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise _refusal(model_id, f"{path.name} is larger than {JSON_LIMIT // 1_000_000} MB.")
        value: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(model_id, f"{path.name} is not readable JSON.", "Delete the model and get it again.") from error
    return value


def _keys(value: object) -> Iterator[str]:
    """Yield every key at every depth, without recursion, because a file may be nested deeply."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _check_index(folder: Path, name: str, index: dict[str, Any], model_id: str) -> None:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        raise _refusal(model_id, f"{name} has no weight_map.")
    for shard in {str(value) for value in weight_map.values()}:
        if not BASENAME.fullmatch(shard) or not shard.endswith(".safetensors") or shard.startswith("."):
            raise _refusal(model_id, f"{name} names the file {shard[:80]!r}, which is not one of its safetensors.")
        if not (folder / shard).is_file():
            raise _refusal(model_id, f"{name} names {shard}, which is missing.", "Download the model again.")


def _check_paths(tokenizer_config: dict[str, Any], model_id: str) -> None:
    for key, value in tokenizer_config.items():
        if not key.endswith("_file") or key in IGNORED_PATHS or value is None:
            continue
        if not (isinstance(value, str) and BASENAME.fullmatch(value)) or value.startswith(".."):
            raise _refusal(model_id, f"tokenizer_config.json has a path in {key}.", f"Remove {key} from a local copy.")


def _check_links(folder: Path, paths: list[Path], model_id: str) -> None:
    """Refuse links out of the folder, except those of the Hugging Face cache to the blobs beside its snapshots."""
    allowed = [folder.resolve(), *_blobs(folder.resolve())]
    for path in paths:
        if path.is_symlink() and not any(path.resolve().is_relative_to(base) for base in allowed):
            raise _refusal(model_id, f"{path.name} is a link that leaves the folder.", "Copy the file in its place.")


def _blobs(snapshot: Path) -> list[Path]:
    """List the folders of the cache with the bytes of `models--org--name/snapshots/<sha>`.

    They are the repository's `blobs`, and the store that repositories share, which huggingface_hub marks.
    """
    repository = snapshot.parent.parent
    if snapshot.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return []
    shared = repository.parent / "blobs"
    return [repository / "blobs"] + ([shared] if (shared / ".huggingface-shared-blobs").is_file() else [])
