"""The picture of the README: four frames of the page, written by the end-to-end test and joined here.

    pytest tests/test_e2e.py -k learns_in_the_running --frames data/frames
    python -m tests.docs.picture data/frames docs/images/loop.png

A frame is a column of crops of the page at the width of a phone, so that its letters are legible at half the width of
a README.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import FloatRect, Locator, Page, ViewportSize

CAPTIONS = (
    "1  Before: the tab knows film reviews",
    "2  Your rows: 240 support tickets",
    "3  Training: before and after, then live",
    "4  After: the same tab, nothing restarted",
)
SCALE = 2
"""Pixels of the picture for each pixel of the page."""
NARROW: ViewportSize = {"width": 450, "height": 1000}
WIDTH, PAD, CAPTION = 450, 6, 44
"""Width of a frame, margin around a crop and height of a caption, in pixels of the page."""
PAPER, INK, RULE = "#fbf9f4", "#1d4d33", "#d9d6cc"
COLOURS = 96


class Frames:
    """Writes the frames into a folder; does nothing without one."""

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) if folder else None

    def take(self, page: Page, number: int, *crops: Locator) -> None:
        """Write one image for each element, padded, with the page at the width of a phone meanwhile."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        before = page.viewport_size
        page.set_viewport_size(NARROW)
        page.wait_for_timeout(1000)  # the page is drawn anew
        for place, crop in enumerate(crops):
            page.screenshot(path=self._folder / f"{number}-{place}.png", clip=_around(crop), full_page=True)
        if before:
            page.set_viewport_size(before)


def _around(crop: Locator) -> FloatRect:
    box = crop.first.bounding_box()
    assert box is not None, f"{crop} is not on the page"
    return {"x": PAD, "y": box["y"] - PAD, "width": WIDTH - 2 * PAD, "height": box["height"] + 2 * PAD}


def compose(folder: Path, target: Path) -> None:
    """Join the frames of a folder into a picture of two columns."""
    frames = [_frame(sorted(folder.glob(f"{number}-*.png")), text) for number, text in enumerate(CAPTIONS, 1)]
    rows = [frames[:2], frames[2:]]
    heights = [max(frame.height for frame in row) for row in rows]
    picture = Image.new("RGB", (2 * WIDTH * SCALE, sum(heights)), PAPER)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, frame in enumerate(row):
            picture.paste(frame, (column * WIDTH * SCALE, top))
        top += height
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


def _frame(crops: list[Path], caption: str) -> Image.Image:
    """One frame: its caption, a rule, and its crops from top to bottom."""
    assert crops, f"{caption}: no crop was written"
    images = [Image.open(crop) for crop in crops]
    height = CAPTION * SCALE + sum(image.height for image in images)
    frame = Image.new("RGB", (WIDTH * SCALE, height), PAPER)
    draw = ImageDraw.Draw(frame)
    draw.text((20 * SCALE, 12 * SCALE), caption, INK, ImageFont.load_default(17 * SCALE))
    line = (CAPTION - 4) * SCALE
    draw.line((20 * SCALE, line, (WIDTH - 20) * SCALE, line), RULE, SCALE)
    top = CAPTION * SCALE
    for image in images:
        frame.paste(image, (PAD * SCALE, top))
        top += image.height
    return frame


if __name__ == "__main__":
    compose(Path(sys.argv[1]), Path(sys.argv[2]))
