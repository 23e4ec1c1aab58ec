"""A run as a command: its arguments, the configuration that they make, and the command for a configuration."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import ConfigError
from hub.splits import DEFAULT
from settings import Settings
from tasks import TabSpec
from training.cli.terminal import download_bar
from training.config import HUB, HYPERPARAMETERS, PRESET, PRESETS, TrainConfig
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


def add_arguments(parser: argparse.ArgumentParser, named: bool = True) -> None:
    """Declare the arguments that describe a run; `named`: the adapter's name is required."""
    add = parser.add_argument
    add("--plugin", required=True, help="the tab to train for, for example classification")
    add(
        "--data",
        required=True,
        type=Path,
        help="CSV, TSV, JSONL, JSON or Parquet, or a Hub data set: owner/name or owner/name@revision",
    )
    add("--hub-config", default="", help="the configuration, of a Hub data set that has several")
    add("--hub-split", default="", help="the split, if not the one to train on")
    add("--name", required=named, default="mine", help="the adapter's name; it gets its next version")
    add("--held-out-data", type=lambda p: str(Path(p).absolute()), help="rows to compare on, in a file")
    add("--held-out-split", default="", help="another split of the Hub data set, to compare on")
    add("--columns", default="", help="columns of the file: text=COLUMN,target=COLUMN")
    add("--model", "--base", dest="base", help="another base than the tab's: a Hub id or a folder")
    add("--preset", choices=PRESETS["label"], default=PRESET, help="what the settings below begin with")
    add("--promote", action="store_true", help="answer with it at once, if it is not worse")
    add("--anyway", action="store_true", help="start it where the estimate says that it does not fit")
    settings = parser.add_argument_group("settings")
    for name, field in HYPERPARAMETERS.items():
        options = {**OPTIONS[field.kind]} | ({"choices": field.choices} if field.choices else {})
        settings.add_argument(_option(name), help=field.help[0].lower() + field.help[1:].rstrip("."), **options)


def to_config(options: argparse.Namespace, spec: TabSpec) -> TrainConfig:
    """Return the configuration that the arguments describe; raises `ConfigError`."""
    keys = (*HYPERPARAMETERS, "preset", "promote", "anyway", "held_out_data", "held_out_split")
    chosen: dict[str, Any] = {key: getattr(options, key) for key in keys}
    folder = bool(options.base) and Path(options.base).is_dir()
    chosen["model"] = str(Path(options.base).absolute()) if folder else options.base
    place = place_of(options)
    chosen["hub"] = place.fields if place else getattr(options, "hub", None)
    chosen["mapping"] = parse_columns(options.columns) or None
    if place and options.held_out_data and options.held_out_split:
        raise ConfigError("The command", ["It names held-out rows in a file and as a split."], "Leave out one of them.")
    return TrainConfig.for_tab(spec, None if place else options.data, options.name, **chosen)


def place_of(options: argparse.Namespace) -> HubSplit | None:
    """Return the place on the Hub that the arguments name; None for a file, or rows that have been fetched."""
    return parse_hub_id(str(options.data), options.hub_config, options.hub_split)


def fetch_rows(settings: Settings, options: argparse.Namespace) -> None:
    """Fetch rows that are on the Hub, and put where they lie into the options. Raises `DataError`.

    Here, because the user's token is here: the process of a run gets none.
    """
    place = place_of(options)
    if place is not None:
        with download_bar(place.id) as progress:
            options.data, held_out = HubData(settings).fetch_both(place, options.held_out_split, progress)
        options.hub = read_selection(options.data).source
        options.held_out_data = str(held_out) if held_out else options.held_out_data


def write(config: TrainConfig, spec: TabSpec, data: str) -> str:
    """Return the command of a run, without what the nearest preset sets; `data` is the file as its reader knows it."""
    preset, different = nearest_preset(config, spec)
    parts: list[str] = [COMMAND, "--plugin", config.plugin, *_rows_of(config, data), "--name", config.name]
    if config.mapping and config.mapping != config.columns:
        parts += ["--columns", ",".join(f"{part}={column}" for part, column in config.mapping.items())]
    parts += ["--model", config.model] if config.model != spec.model else []
    if config.held_out_split:
        parts += ["--held-out-split", config.held_out_split]
    elif config.held_out_data:
        parts += ["--held-out-data", config.held_out_data]
    parts += ["--preset", preset] if preset != PRESET else []
    for key in different:
        value = getattr(config, key)
        parts += [_option(key), str(value)] if HYPERPARAMETERS[key].kind != "switch" else [_switch(key, value)]
    switches = [_option(key) for key in ("promote", "anyway") if getattr(config, key)]
    return f"{COMMAND} {shlex.join([*parts[1:], *switches])}"


def _rows_of(config: TrainConfig, data: str) -> list[str]:
    """Return the arguments that name the rows."""
    if not config.hub:
        return ["--data", data]
    id, revision, name, split = (config.hub[key] for key in HUB)
    named = ["--data", f"{id}@{revision}" if revision else id]
    named += ["--hub-config", name] if name and name != DEFAULT else []
    return [*named, "--hub-split", split] if split else named


def nearest_preset(config: TrainConfig, spec: TabSpec) -> tuple[str, Sequence[str]]:
    """Return the preset from which fewest hyperparameters of `config` differ, and these; the first of several."""

    def different(preset: str) -> list[str]:
        plain = TrainConfig.for_tab(spec, Path("data"), "name", preset)
        return [key for key in HYPERPARAMETERS if getattr(config, key) != getattr(plain, key)]

    found = {preset: different(preset) for preset in (PRESET, *PRESETS["label"])}
    return min(found.items(), key=lambda item: len(item[1]))


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _switch(key: str, value: bool) -> str:
    return _option(key) if value else _option(f"no_{key}")
