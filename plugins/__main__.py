"""Print one JSON object for each tab: `python -m plugins`. The training command line learns a tab's facts from it.

{"name": "classification", "title": "Classify", "model": "...", "task": "...", "columns": {...}, "prompt": ""}
{"name": "broken", "title": "broken", "error": "broken.py cannot be imported. ..."}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from errors import GraftError
from plugins._discovery import Tab, discover
from settings import Settings


def facts(tab: Tab, models: Mapping[str, str]) -> dict[str, Any]:
    """A tab's facts as plain values, its base replaced where the environment says so."""
    if tab.plugin is None:
        return {"name": tab.name, "title": tab.title, "error": str(tab.error)}
    return {"name": tab.name, "title": tab.title, **asdict(tab.plugin.spec(models))}


def main() -> int:
    """Print every tab; returns the exit code."""
    try:
        settings = Settings.from_env()
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    for tab in discover(settings.plugins):
        print(json.dumps(facts(tab, settings.models), ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
