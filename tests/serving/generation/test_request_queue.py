"""request_queue.py: the end of the process waits for nobody's answer; the rest is in test_decoding.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from settings import REPOSITORY
from tests.helpers import tiny

ENDS_MEANWHILE = """
import sys
from pathlib import Path
from serving.loaded import Loaded
from serving.generation.request import Request
from serving.generation.sampling import Sampling
from models.resolve import ModelStore
folder = Path(sys.argv[1])
loaded = Loaded(ModelStore(folder / "models", offline=True).resolve(str(folder)), "none")
request = Request([9, 31], Sampling(max_new_tokens=4000, temperature=1.0), None)
loaded.text._answers.submit(request)
while not request.written:
    pass
print("written", flush=True)
"""


def test_a_process_that_ends_while_an_answer_is_written_ends_quietly(tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", ENDS_MEANWHILE, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "written"), done.stderr
