"""Teach: a run on the corrections of a tab, and on a sample of the rows that its live version was trained on.

    run, warning = teach(settings, Runs(settings), spec)

The run goes on from the live version. It replays a sample of that version's own rows, which are kept in the folder of
the run that made it, and holds out the same rows as then, so that the card shows whether anything else became worse. A
label that the version does not know needs a fresh adapter and all the rows. No torch is imported here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
"""Rows of the version's own that are replayed."""
SHARE = 0.5
"""Corrections for each replayed row, after they are repeated."""
MOST_REPEATED = 20
PRESET_OF: Mapping[str, Mapping[str, Any]] = {
    "label": {"epochs": 4.0, "batch_size": 16, "learning_rate": 5e-4},
    "text": {"epochs": 2.0, "batch_size": 4, "learning_rate": 3e-4},
}
"""Hyperparameters by kind of answers, instead of the version's own; those of labels were found by trying on tickets."""
SAME: Mapping[str, Any] = {"max_steps": 0, "keep_best": False, "patience": 0, "promote": True, "schedule": "cosine"}


@dataclass(frozen=True)
class Lesson:
    """The configuration of a lesson, still without its file of corrections."""

    config: TrainConfig
    warning: str = ""
    """Sentence for a person to read before it is started."""


def teach(settings: Settings, runs: Runs, spec: TabSpec, id: str | None = None) -> tuple[Run, str]:
    """Queue a lesson for a tab; returns the run, and a warning or an empty text. Raises `GraftError`."""
    corrections = Corrections(settings.home).list(spec.name)
    if active := next((run for run in lessons(runs, spec.name) if run.active), None):
        raise RunError("A lesson goes on already.", f"It is the run {active.id}.", "Wait until it is done.")
    lesson = plan(settings, runs, spec, corrections)
    with tempfile.TemporaryDirectory(prefix="graft-lesson-") as folder:
        path = Path(folder) / "corrections.jsonl"
        path.write_text("".join(_line(correction) for correction in corrections), encoding="utf-8")
        return runs.submit(replace(lesson.config, corrections=str(path)), id), lesson.warning


def lessons(runs: Runs, tab: str) -> list[Run]:
    """Return the runs that taught a tab, newest first."""
    return [run for run in runs.list() if run.plugin == tab and run.teaches]


def plan(settings: Settings, runs: Runs, spec: TabSpec, corrections: Sequence[Correction]) -> Lesson:
    """Return the lesson on these corrections; raises `GraftError` where there can be none."""
    if not corrections:
        raise RunError("There is nothing to teach.", f"Nothing was corrected in {spec.name}.", "Correct an answer.")
    live = AdapterStore(settings.home, settings.shipped).live(spec.name)
    own = own_config(live, runs) if live else None
    new = _new_labels(spec, live, corrections)
    if own:
        return _with_replay(own, live, corrections, new)
    return _alone(spec, live, corrections, new)


def own_config(version: Version, runs: Runs) -> TrainConfig | None:
    """Return the configuration of the run that made a version, if its rows are still there."""
    for run in runs.list():
        if run.id == version.manifest.get("run") or (run.version == version.ref and run.plugin == version.plugin):
            try:
                config = run.config
            except GraftError:
                continue
            return config if _same_rows(config, version) else None
    return None


def _same_rows(config: TrainConfig, version: Version) -> bool:
    """Return whether the rows of a run are those that the version's manifest names."""
    path, known = Path(config.data), (version.manifest.get("data") or {}).get("sha256")
    held_out = not config.held_out_data or Path(config.held_out_data).is_file()
    return bool(config.data) and path.is_file() and held_out and files.sha256(path) == known


def _new_labels(spec: TabSpec, live: Version | None, corrections: Sequence[Correction]) -> list[str]:
    """Return the labels of the corrections that the live version lacks."""
    if TASKS[spec.task].answers != "label":
        return []
    return sorted({correction.target for correction in corrections} - set(live.labels if live else ()))


def _with_replay(own: TrainConfig, live: Version | None, corrections: Sequence[Correction], new: list[str]) -> Lesson:
    data = dict(live.manifest.get("data") or {}) if live else {}
    rows = int(data.get("usable") or 0)
    if new:
        answers = TASKS[own.task].answers
        fresh = {**PRESETS[answers][PRESET], **SAME, "max_length": own.max_length, "start_from": ""}
        config = _config(own, fresh, replay_rows=0, weight=_weight(rows, len(corrections)))
        return Lesson(config, f"{', '.join(new)} is new, so it learns everything again from the base.")
    chosen = {**PRESET_OF[TASKS[own.task].answers], **SAME, "start_from": live.ref if live else ""}
    return Lesson(_config(own, chosen, REPLAY_ROWS, _weight(min(rows, REPLAY_ROWS), len(corrections))))


def _config(own: TrainConfig, chosen: Mapping[str, Any], replay_rows: int, weight: int) -> TrainConfig:
    values = {**asdict(own), **chosen, "replay_rows": replay_rows, "correction_weight": weight, "corrections": ""}
    return TrainConfig(**values)


def _alone(spec: TabSpec, live: Version | None, corrections: Sequence[Correction], new: list[str]) -> Lesson:
    """Return a lesson on corrections alone, without rows to replay or to compare on."""
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
    chosen = {**PRESET_OF[TASKS[spec.task].answers], **SAME, "start_from": live.ref if live else ""}
    if live:
        chosen["max_length"] = int((live.manifest.get("config") or {}).get("max_length") or 256)
        spec = replace(spec, prompt=str(live.manifest.get("prompt") or ""))
    config = TrainConfig.for_tab(spec, Path("corrections.jsonl"), live.name if live else "taught", **chosen)
    weight = _weight(REPLAY_ROWS // 4, len(corrections))
    who = f"The rows that {live.ref} was trained on are not here" if live else "No version answers in this tab yet"
    return Lesson(
        replace(config, data="", corrections="corrections.jsonl", correction_weight=weight),
        f"{who}, so it learns from the corrections alone; what it forgets cannot be seen, and a person decides.",
    )


def _weight(replayed: int, count: int) -> int:
    """Return how often an epoch repeats each correction, so that a few of them matter beside the replayed rows."""
    return max(1, min(MOST_REPEATED, round(SHARE * replayed / count)))


def _line(correction: Correction) -> str:
    return json.dumps({"id": correction.id, **correction.row}, ensure_ascii=False) + "\n"
