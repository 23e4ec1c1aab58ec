"""A stand-in for a run's process: it only waits and obeys files, and keeps what `child.py` and the worker promise.

    python tests/helpers/stand_in.py RUN_DIR

A step every few milliseconds; a file `finish`, `fail` or `crash` in the folder ends it that way at the next one, and
`pause` with a checkpoint. With an adapter named `stubborn` it has a grandchild in a session of its own that ignores
TERM, and one named `deaf` ignores TERM itself. A chatty one prints 10 MB.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STEPS = 1_000_000
STUBBORN = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); time.sleep(900)"


def emit(folder: Path, kind: str, **values: object) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": kind, "at": time.time(), **values}) + "\n")


def leave(folder: Path, result: dict[str, object]) -> None:
    (folder / ".result").write_text(json.dumps(result))
    (folder / ".result").rename(folder / "result.json")


def start_at(folder: Path) -> int:
    found = [int(path.parent.name) for path in folder.glob("checkpoints/[0-9]*/state.json")]
    return max(found, default=0) + 1


def main(folder: Path) -> int:
    if sys.stdin.buffer.read(1) != b"\n":
        return 75
    (folder / "queued").unlink(missing_ok=True)
    name = json.loads((folder / "config.json").read_text())["name"]
    if name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with (folder.parent.parent / "device.lock").open("a") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        code = train(folder, name)
    if name == "stubborn":
        os.kill(int((folder / "grandchild").read_text()), signal.SIGKILL)
    return code


def train(folder: Path, name: str) -> int:
    if name == "stubborn":
        (folder / "grandchild").unlink(missing_ok=True)
        child = subprocess.Popen(
            [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True, stderr=subprocess.DEVNULL
        )
        child.stdout.readline()
        (folder / "grandchild.new").write_text(str(child.pid))
        (folder / "grandchild.new").replace(folder / "grandchild")  # whoever finds it can read it whole
    print("It began.", flush=True)
    if name == "chatty":
        print("x" * 10 * 2**20, flush=True)
    emit(folder, "phase", phase="train")
    for step in range(start_at(folder), STEPS):
        emit(folder, "step", step=step, steps=STEPS, loss=1 / step, memory=2**30)
        if (folder / "pause").exists():
            (folder / "checkpoints" / str(step)).mkdir(parents=True)
            (folder / "checkpoints" / str(step) / "state.json").write_text("{}")
            leave(folder, {"state": "paused", "step": step, "steps": STEPS})
            return 0
        if (folder / "finish").exists():
            card = {"metric": "accuracy", "base": {"accuracy": 0.5}, "live": None, "new": {"accuracy": 0.75}}
            card |= {"held_out": 8, "fixed": 2, "broken": 0, "rows": [], "gate": {"pass": True, "why": ""}}
            leave(folder, {"state": "done", "version": f"{name}@1", "promoted": False, "card": card})
            return 0
        if (folder / "fail").exists():
            leave(folder, {"state": "failed", "what": "It failed.", "why": "It was told to.", "next": "Do not."})
            return 1
        if (folder / "crash").exists():
            os._exit(3)
        time.sleep(0.005)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
