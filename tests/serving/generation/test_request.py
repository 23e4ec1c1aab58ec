"""request.py: a reader who goes away is waited for by nobody, and waits until nothing is computed for them."""

from __future__ import annotations

import threading

from serving.generation.request import Request
from serving.generation.sampling import Sampling

PATIENCE_S = 60


def test_r26_a_reader_who_goes_away_stops_what_is_written_for_them() -> None:
    request, order = Request([1], Sampling(), None), list[str]()

    def compute() -> None:
        request.write(5)
        if request.stopped.wait(PATIENCE_S):
            order.append("left")
            request.end()

    threading.Thread(target=compute, daemon=True).start()
    reader = request.tokens()
    assert next(reader) == [5] and not request.is_over
    reader.close()
    order.append("gone")
    assert request.is_over and order == ["left", "gone"]
