"""The command `graft`: the page, or with arguments a command of `python -m training`, or of `python -m bench`.

graft
graft train --plugin classification --data rows.csv --name mine
graft bench chat
"""

from __future__ import annotations

import importlib
import sys


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    arguments = sys.argv[1:]
    # Each is imported alone: the page takes seconds to compose, and a list of runs needs none of it.
    if not arguments:
        importlib.import_module("app").main()
        return 0
    if arguments[0] == "bench":
        return int(importlib.import_module("bench.__main__").main(arguments[1:]))
    return int(importlib.import_module("training.__main__").main(arguments, "graft"))


if __name__ == "__main__":
    sys.exit(main())
