"""Print the facts of each tab as a line of JSON: `python -m plugins`. The training command line reads them.

{"name": "classification", "title": "Classify", "model": "...", "task": "...", "columns": {...}, "prompt": ""}
{"name": "broken", "title": "broken", "error": "broken.py cannot be imported. ..."}
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from errors import GraftError
from plugins._discovery import discover
from settings import Settings


def main() -> int:
    """Print every tab; returns the exit code."""
    try:
        settings = Settings.from_env()
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    for tab in discover(settings.plugins):
        facts = asdict(tab.plugin.spec(settings.models)) if tab.plugin else {"error": str(tab.error)}
        print(json.dumps({"name": tab.name, "title": tab.title, **facts}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
