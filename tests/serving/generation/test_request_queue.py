"""request_queue.py: readers who go away, and the end of the process; the rest is in test_continuous.py."""

from __future__ import annotations

import threading
from pathlib import Path

from serving.generation.request_queue import Request
from serving.generation.sampling import SamplingParams
from tests.helpers import tiny
from tests.helpers.child import run
from tests.helpers.waiting import PATIENCE_S

ENDS_MEANWHILE = """
import sys
from pathlib import Path
from serving.generation.request_queue import Request
from serving.generation.sampling import SamplingParams
from tests.helpers.answers import load
loaded = load(Path(sys.argv[1]))
request = Request([9, 31], SamplingParams(max_new_tokens=4000, temperature=1.0), None)
loaded.generator.queue.put(request)
while not request.written:
    pass
print("written", flush=True)
"""


def test_a_process_that_ends_while_an_answer_is_written_ends_quietly(tmp_path: Path) -> None:
    done = run("-c", ENDS_MEANWHILE, str(tiny.make("llama", tmp_path / "llama")))
    assert (done.returncode, done.stdout.strip()) == (0, "written"), done.stderr


def test_r26_a_reader_who_goes_away_stops_what_is_written_for_them() -> None:
    request, order = Request([1], SamplingParams(), None), list[str]()

    def compute() -> None:
        request.write(5)
        if request.cancelled.wait(PATIENCE_S):
            order.append("left")
            request.end()

    threading.Thread(target=compute, daemon=True).start()
    reader = request.tokens()
    assert next(reader) == [5] and not request.is_over
    reader.close()
    order.append("gone")
    assert request.is_over and order == ["left", "gone"]
