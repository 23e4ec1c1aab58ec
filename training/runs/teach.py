"""Lessons: runs on the corrections of a tab and on a sample of the rows that its live version was trained on.

    run, warning = teach(settings, Runs(settings), spec)

A lesson continues from the live version. The rows of that version are in the folder of the run that made it; some are
trained on again (replayed) against forgetting, and the same ones as then are held out, so that the card shows what
became worse. A label that the version does not know needs a fresh adapter and all rows. No torch is imported here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import GraftError, RunError
from settings import Settings
from store import files
from store.adapters import AdapterStore, Version
from store.corrections import Correction, Corrections
from tasks import TASKS, TabSpec
from training.config import PRESET, PRESETS, TrainConfig
from training.runs.run import Run
from training.runs.runs import Runs

REPLAY_ROWS = 120
"""Rows of the live version's training that are replayed."""
SHARE = 0.5
"""Repeated corrections per replayed row."""
MOST_REPEATED = 20
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "label": {"epochs": 4.0, "batch_size": 16, "learning_rate": 5e-4},
    "text": {"epochs": 2.0, "batch_size": 4, "learning_rate": 3e-4},
}
"""Hyperparameters of lessons by kind of answers; those of labels were found by trying on tickets."""
COMMON: Mapping[str, Any] = {"max_steps": 0, "keep_best": False, "patience": 0, "promote": True, "schedule": "cosine"}
"""Settings of every lesson."""


def teach(settings: Settings, runs: Runs, spec: TabSpec, id: str | None = None) -> tuple[Run, str]:
    """Queue a lesson for a tab; returns the run, and a warning or an empty text. Raises `GraftError`."""
    corrections = Corrections(settings.home).list(spec.name)
    if active := next((run for run in lessons(runs, spec.name) if run.active), None):
        raise RunError("A lesson goes on already.", f"It is the run {active.id}.", "Wait until it is done.")
    config, warning = plan(settings, runs, spec, corrections)
    with tempfile.TemporaryDirectory(prefix="graft-lesson-") as folder:
        path = Path(folder) / "corrections.jsonl"
        path.write_text("".join(_line(correction) for correction in corrections), encoding="utf-8")
        return runs.submit(replace(config, corrections=str(path)), id), warning


def lessons(runs: Runs, tab: str) -> list[Run]:
    """Return the lessons of a tab, newest first."""
    return [run for run in runs.list() if run.plugin == tab and run.teaches]


def plan(settings: Settings, runs: Runs, spec: TabSpec, corrections: Sequence[Correction]) -> tuple[TrainConfig, str]:
    """Return the configuration of a lesson, yet without its file of corrections, and a warning or an empty text.

    Raises `GraftError` where there can be no lesson.
    """
    if not corrections:
        raise RunError("There is nothing to teach.", f"Nothing was corrected in {spec.name}.", "Correct an answer.")
    live = AdapterStore(settings.home, settings.shipped).live(spec.name)
    new: list[str] = []
    if TASKS[spec.task].answers == "label":
        new = sorted({correction.target for correction in corrections} - set(live.labels if live else ()))
    if live and (made := find_config(live, runs)):
        return _with_replay(made, live, len(corrections), new)
    return _alone(spec, live, len(corrections), new)


def find_config(version: Version, runs: Runs) -> TrainConfig | None:
    """Return the configuration of the run that made a version, if the rows that it was trained on are still there."""
    for run in runs.list():
        if run.id == version.manifest.get("run") or (run.version == version.ref and run.plugin == version.plugin):
            with suppress(GraftError):
                config = run.config
                return config if _same_rows(config, version) else None
    return None


def _same_rows(config: TrainConfig, version: Version) -> bool:
    """Return whether the rows of a run are those that the version's manifest names."""
    path, known = Path(config.data), (version.manifest.get("data") or {}).get("sha256")
    held_out = not config.held_out_data or Path(config.held_out_data).is_file()
    return bool(config.data) and path.is_file() and held_out and files.sha256(path) == known


def _with_replay(made: TrainConfig, live: Version, count: int, new: Sequence[str]) -> tuple[TrainConfig, str]:
    """Plan a lesson on `count` corrections beside rows of the run `made`: all rows where there are new labels."""
    answers, rows = TASKS[made.task].answers, int((live.manifest.get("data") or {}).get("usable") or 0)
    if new:
        preset = {**PRESETS[answers][PRESET], "max_length": made.max_length}
        start_from, replayed = "", 0
        warning = f"{', '.join(new)} is new, so it learns everything again from the base."
    else:
        preset, start_from, replayed, warning = {**SETTINGS[answers]}, live.ref, REPLAY_ROWS, ""
        rows = min(rows, REPLAY_ROWS)
    changes = {**preset, **COMMON, "start_from": start_from, "replay_rows": replayed, "corrections": ""}
    return replace(made, **changes, correction_weight=_weight(rows, count)), warning


def _alone(spec: TabSpec, live: Version | None, count: int, new: Sequence[str]) -> tuple[TrainConfig, str]:
    """Plan a lesson on `count` corrections alone, without rows to replay or to compare on."""
    if live and new:
        raise RunError(
            f"{live.ref} does not know {', '.join(new)}.",
            "A new label needs the rows that the version was trained on, and they are not here.",
            "Train on your rows and the exported corrections together, or use the labels that it has.",
        )
    if not live and len(new) == 1:
        raise RunError(
            f"All corrections say {new[0]}.", "Nothing can be told apart by one label.", "Correct to another label too."
        )
    chosen = {**SETTINGS[TASKS[spec.task].answers], **COMMON, "correction_weight": _weight(REPLAY_ROWS // 4, count)}
    if live:
        chosen |= {"start_from": live.ref, "max_length": (live.manifest.get("config") or {}).get("max_length") or 256}
        spec = replace(spec, prompt=str(live.manifest.get("prompt") or ""))
    name = live.name if live else "taught"
    config = TrainConfig.for_tab(spec, None, name, corrections="corrections.jsonl", **chosen)
    who = f"The rows that {live.ref} was trained on are not here" if live else "No version answers in this tab yet"
    return (
        config,
        f"{who}, so it learns from the corrections alone; what it forgets cannot be seen, and a person decides.",
    )


def _weight(replayed: int, count: int) -> int:
    """Return the repetitions of each correction in an epoch, so that a few count beside the replayed rows."""
    return max(1, min(MOST_REPEATED, round(SHARE * replayed / count)))


def _line(correction: Correction) -> str:
    return json.dumps({"id": correction.id, **correction.row}, ensure_ascii=False) + "\n"
