"""A run as a command, both ways: the terminal reads one, the page shows the one for its form and reads one back."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from errors import ConfigError
from hub.splits import DEFAULT
from tasks import TabSpec
from training.config import HUB, HYPERPARAMETERS, PRESET, PRESETS, TrainConfig
from training.data.files.hub_dataset import Place, parse_place
from training.data.rows import parse_columns

COMMAND = "python -m training"
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "whole": {"type": int}, "number": {"type": float}, "choice": {}, "text": {},
    "switch": {"action": argparse.BooleanOptionalAction},
}  # fmt: skip
"""How a setting of each kind is read."""
NEXT = f"Paste a whole {COMMAND} command, as the Train page writes it; {COMMAND} --help tells its options."
"""What to do about a command that cannot be read."""


class Parser(argparse.ArgumentParser):
    """One that can also raise `ConfigError` instead of ending the process."""

    raises = False

    def error(self, message: str) -> NoReturn:
        """What argparse calls with whatever is wrong."""
        if self.raises:
            raise ConfigError("The command", [f"{message[0].upper()}{message[1:]}."], NEXT)
        super().error(message)


def parser(named: bool = True) -> Parser:
    """The options of `python -m training`; `named`: the adapter's name is among them."""
    made = Parser(COMMAND, description="Train a new version of an adapter for one tab.", allow_abbrev=False)
    made.add_argument("--plugin", required=True, help="the tab to train for, for example classification")
    made.add_argument(
        "--data",
        required=True,
        type=Path,
        help="CSV, TSV, JSONL, JSON or Parquet, or a Hub data set: owner/name or owner/name@revision",
    )
    made.add_argument("--hub-config", default="", help="the configuration, of a Hub data set that has several")
    made.add_argument("--hub-split", default="", help="the split, if not the one to train on")
    made.add_argument("--name", required=named, default="mine", help="the adapter's name; it gets its next version")
    made.add_argument("--held-out-data", type=lambda p: str(Path(p).absolute()), help="rows to compare on, in a file")
    made.add_argument("--held-out-split", default="", help="another split of the Hub data set, to compare on")
    made.add_argument("--columns", default="", help="columns of the file: text=COLUMN,target=COLUMN")
    made.add_argument("--model", "--base", dest="base", help="another base than the tab's: a Hub id or a folder")
    made.add_argument("--preset", choices=PRESETS["label"], default=PRESET, help="what the settings below begin with")
    made.add_argument("--promote", action="store_true", help="answer with it at once, if it is not worse")
    made.add_argument("--anyway", action="store_true", help="start it where the estimate says that it does not fit")
    made.add_argument("--detach", action="store_true", help="leave once it is queued, instead of following it")
    settings = made.add_argument_group("settings")
    for name, knob in HYPERPARAMETERS.items():
        options = {**OPTIONS[knob.kind]} | ({"choices": knob.choices} if knob.choices else {})
        settings.add_argument(_option(name), help=knob.help[0].lower() + knob.help[1:].rstrip("."), **options)
    return made


def to_config(options: argparse.Namespace, spec: TabSpec) -> TrainConfig:
    """The configuration that the options of a command describe; raises `ConfigError`."""
    keys = (*HYPERPARAMETERS, "preset", "promote", "anyway", "held_out_data", "held_out_split")
    chosen: dict[str, Any] = {key: getattr(options, key) for key in keys}
    folder = bool(options.base) and Path(options.base).is_dir()
    chosen["model"] = str(Path(options.base).absolute()) if folder else options.base
    place = place_of(options)
    chosen["hub"] = place.named if place else getattr(options, "hub", None)
    chosen["mapping"] = parse_columns(options.columns) or None
    if place and options.held_out_data and options.held_out_split:
        raise ConfigError("The command", ["It names held-out rows in a file and as a split."], "Leave out one of them.")
    return TrainConfig.for_tab(spec, None if place else options.data, options.name, **chosen)


def place_of(options: argparse.Namespace) -> Place | None:
    """The place on the Hub that a command names; None where it names a file, or rows that have been fetched."""
    return parse_place(str(options.data), options.hub_config, options.hub_split)


def read(command: str) -> argparse.Namespace:
    """The options of a command that somebody pasted, with or without its first words; raises `ConfigError`."""
    try:
        words = shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError("The command", [f"{error}."], NEXT) from error
    start = next((i for i, word in enumerate(words) if word.startswith("-") and word != "-m"), len(words))
    made = parser()
    made.raises = True
    if {"-h", "--help"} & set(words):
        raise ConfigError("The command", ["It asks for help only."], NEXT)
    return made.parse_args(words[start:])


def write(config: TrainConfig, spec: TabSpec, data: str) -> str:
    """The command of a run, `data` as the reader knows the file; what is as the nearest preset has it is left out."""
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
    """The options that say where rows come from."""
    if not config.hub:
        return ["--data", data]
    id, revision, name, split = (config.hub[key] for key in HUB)
    told = ["--data", f"{id}@{revision}" if revision else id]
    told += ["--hub-config", name] if name and name != DEFAULT else []
    return [*told, "--hub-split", split] if split else told


def nearest_preset(config: TrainConfig, spec: TabSpec) -> tuple[str, Sequence[str]]:
    """The preset from which fewest settings of `config` differ, and these; the first one wins where several do."""

    def different(preset: str) -> list[str]:
        plain = TrainConfig.for_tab(spec, Path("data"), "name", preset)
        return [key for key in HYPERPARAMETERS if getattr(config, key) != getattr(plain, key)]

    found = {preset: different(preset) for preset in (PRESET, *PRESETS["label"])}
    return min(found.items(), key=lambda item: len(item[1]))


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _switch(key: str, value: bool) -> str:
    return _option(key) if value else _option(f"no_{key}")
