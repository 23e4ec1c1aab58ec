"""Publish, promote and correct without end: `python -m tests.helpers.change_writer HOME REF SEED`.

It prints each change as a line of JSON once it is done, and a promotion also before. No torch is imported.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

from store.adapters import AdapterStore
from store.corrections import Corrections
from tests.helpers import TAB


def copy_version(store: AdapterStore, ref: str, name: str) -> str:
    """Publish a version with copies of another's files; returns its name."""
    version = store.get(ref)
    facts = {key: value for key, value in version.manifest.items() if key not in ("format", "name", "number", "files")}
    with store.staging() as staging:
        for file in version.manifest["files"]:
            shutil.copyfile(version.path / file, staging / file)
        return store.publish(staging, name, facts).ref


def main(home: Path, ref: str, seed: int) -> None:
    chance, store, corrections = random.Random(seed), AdapterStore(home), Corrections(home)
    while True:
        kind = chance.choice(("version", "live", "correction"))
        if kind == "version":
            done = copy_version(store, ref, f"copy{seed}")
        elif kind == "live":
            done = chance.choice(store.versions(TAB)).ref
            print(json.dumps(["will", done]), flush=True)
            store.promote(TAB, done)
        else:
            done = f"question {seed} {chance.random()}"
            corrections.add(TAB, {"text": done, "target": "answer"}, "no", ref)
        print(json.dumps([kind, done]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
