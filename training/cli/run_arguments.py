"""The arguments that describe a run, the configuration that they make, and the command for a configuration.

The tabs are read from a child process, because this one imports no plugin.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import ConfigError, GraftError
from hub.splits import DEFAULT
from settings import Settings
from store import processes
from tasks import Columns, TabSpec
from training.cli.terminal import download_bar
from training.config import HYPERPARAMETERS, PRESET, PRESETS, TrainConfig
from training.data.files.formats import read_selection
from training.data.files.hub_dataset import HubData, HubSplit, parse_hub_id
from training.data.rows import parse_columns

COMMAND = "python -m training"
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "whole": {"type": int},
    "number": {"type": float},
    "choice": {},
    "text": {},
    "switch": {"action": argparse.BooleanOptionalAction},
}
"""Options of `add_argument` by kind of hyperparameter."""


def find_tab(name: str, base: str | None = None) -> TabSpec:
    """Return the facts of a tab, with another `base` if one is named. Raises `GraftError`."""
    tabs = read_tabs()
    found = tabs.get(name)
    if found is None:
        raise ConfigError("--plugin", [f"There is no tab {name!r}; there are: {', '.join(tabs)}."])
    if "error" in found:
        raise ConfigError("--plugin", [found["error"]])
    columns = Columns(**found["columns"]) if found["columns"] else None
    return TabSpec(name, base or found["model"], found["task"], columns, found["prompt"])


def read_tabs() -> Mapping[str, Mapping[str, Any]]:
    """Return the facts of every tab by its name, read from a child process. Raises `GraftError`."""
    died = ConfigError("GRAFT_PLUGINS", ["The process that imports the plugins ended early."])
    lines = processes.lines(processes.python("plugins"), GraftError.from_dict, died)
    # A plugin may print when it is imported; the facts are the lines that begin like this.
    tabs = [json.loads(line) for line in lines if line.startswith('{"name": ')]
    return {tab["name"]: tab for tab in tabs}


def parse_base(text: str) -> str:
    """Return a base that an argument names: an id as it is, a folder as an absolute path."""
    return str(Path(text).absolute()) if text and Path(text).is_dir() else text


def add_arguments(parser: argparse.ArgumentParser, named: bool = True) -> None:
    """Declare the arguments that describe a run; with `named` the name of the adapter is required."""
    add = parser.add_argument
    add("--plugin", required=True, help="the tab to train for, for example classification")
    data = "CSV, TSV, JSONL, JSON or Parquet, or a Hub data set: owner/name or owner/name@revision"
    add("--data", required=True, type=Path, help=data)
    add("--hub-config", default="", help="the configuration, of a Hub data set that has several")
    add("--hub-split", default="", help="the split, if not the one to train on")
    add("--name", required=named, default="mine", help="the adapter's name; it gets its next version")
    add("--held-out-data", type=lambda p: str(Path(p).absolute()), help="rows to compare on, in a file")
    add("--held-out-split", default="", help="another split of the Hub data set, to compare on")
    add("--columns", default="", help="columns of the file: text=COLUMN,target=COLUMN")
    add("--model", "--base", dest="base", type=parse_base, help="another base than the tab's: a Hub id or a folder")
    add("--preset", choices=PRESETS["label"], default=PRESET, help="what the settings below begin with")
    add("--promote", action="store_true", help="answer with it at once, if it is not worse")
    add("--anyway", action="store_true", help="start it where the estimate says that it does not fit")
    settings = parser.add_argument_group("settings")
    for name, field in HYPERPARAMETERS.items():
        options = {**OPTIONS[field.kind]} | ({"choices": field.choices} if field.choices else {})
        settings.add_argument(_option(name), help=field.help[0].lower() + field.help[1:].rstrip("."), **options)


def configure(options: argparse.Namespace, settings: Settings) -> TrainConfig:
    """Return the configuration that the arguments describe, with its rows on this computer. Raises `GraftError`."""
    return fetch_rows(to_config(options, find_tab(options.plugin, options.base)), settings)


def to_config(options: argparse.Namespace, spec: TabSpec) -> TrainConfig:
    """Return the configuration that the arguments describe, with rows of the Hub not fetched. Raises `ConfigError`."""
    keys = (*HYPERPARAMETERS, "preset", "promote", "anyway", "held_out_data", "held_out_split")
    chosen: dict[str, Any] = {key: getattr(options, key) for key in keys}
    place = parse_hub_id(str(options.data), options.hub_config, options.hub_split)
    if place and options.held_out_data and options.held_out_split:
        raise ConfigError("The command", ["It names held-out rows in a file and as a split."], "Leave out one of them.")
    chosen |= {"model": options.base, "hub": place.fields if place else None}
    chosen["mapping"] = parse_columns(options.columns) or None
    return TrainConfig.for_tab(spec, None if place else options.data, options.name, **chosen)


def fetch_rows(config: TrainConfig, settings: Settings) -> TrainConfig:
    """Fetch rows that are on the Hub; returns the configuration with their paths. Raises `DataError`.

    Not a task of the run's process, which has no token of the user.
    """
    if not config.hub:
        return config
    place = HubSplit(**config.hub)
    with download_bar(place.id) as progress:
        data, held_out = HubData(settings).fetch_both(place, config.held_out_split, progress)
    source, held_out_data = read_selection(data).source, str(held_out) if held_out else config.held_out_data
    return replace(config, data=str(data), hub=source, held_out_data=held_out_data)


def write(config: TrainConfig, spec: TabSpec, data: str) -> str:
    """Return the command of a run, without settings of the nearest preset; `data` is the path of the user's file."""
    preset, different = nearest_preset(config, spec)
    chosen_columns = config.mapping if config.mapping != config.columns else {}
    values = {
        "plugin": config.plugin,
        **(_hub_values(config.hub) if config.hub else {"data": data}),
        "name": config.name,
        "columns": ",".join(f"{part}={column}" for part, column in chosen_columns.items()),
        "model": config.model if config.model != spec.model else "",
        "held_out_split": config.held_out_split,
        "held_out_data": "" if config.held_out_split else config.held_out_data,
        "preset": preset if preset != PRESET else "",
    }
    words = [word for key, value in values.items() if value for word in (_option(key), value)]
    for key in different:
        value = getattr(config, key)
        words += [_option(key if value else f"no_{key}")] if isinstance(value, bool) else [_option(key), str(value)]
    words += [_option(key) for key in ("promote", "anyway") if getattr(config, key)]
    return f"{COMMAND} {shlex.join(words)}"


def _hub_values(hub: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments that name rows of the Hub, with their values."""
    rows = f"{hub['id']}@{hub['revision']}" if hub["revision"] else hub["id"]
    return {
        "data": rows,
        "hub_config": hub["config"] if hub["config"] != DEFAULT else "",
        "hub_split": hub["split"],
    }


def nearest_preset(config: TrainConfig, spec: TabSpec) -> tuple[str, Sequence[str]]:
    """Return the preset from which fewest hyperparameters of `config` differ, and the names of these."""

    def different(preset: str) -> list[str]:
        plain = TrainConfig.for_tab(spec, Path("data"), "name", preset)
        return [key for key in HYPERPARAMETERS if getattr(config, key) != getattr(plain, key)]

    found = {preset: different(preset) for preset in (PRESET, *PRESETS["label"])}
    return min(found.items(), key=lambda item: len(item[1]))


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"
