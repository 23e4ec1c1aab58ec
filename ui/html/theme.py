"""The look of the page: warm paper, one deep green, the fonts that the reader's system has. Nothing is fetched."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base
from gradio.themes.utils import colors, sizes

STYLE = Path(__file__).resolve().with_name("style.css")
SANS = "ui-sans-serif, system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, PingFang SC, Microsoft YaHei"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, Liberation Mono, monospace"


def _shades(name: str, values: str) -> colors.Color:
    """Make a colour from its eleven shades in hexadecimal, the lightest first."""
    return colors.Color(*[*(f"#{value}" for value in values.split()), name])


MOSS = _shades("moss", "eef6f0 d8eadd b3d6be 85bb97 559b6e 357d51 276641 205236 1b422d 163625 0b1f15")
PAPER = _shades("paper", "faf9f6 f3f1ec e6e3db d2cec3 a29d91 77736a 5a574f 423f3a 292825 1c1b19 131211")
COLOURS = {
    "body_background_fill": ("*neutral_50", "*neutral_950"),
    "background_fill_primary": ("white", "*neutral_900"),
    "background_fill_secondary": ("*neutral_50", "*neutral_950"),
    "body_text_color": ("*neutral_800", "*neutral_100"),
    "body_text_color_subdued": ("*neutral_600", "*neutral_400"),
    "block_background_fill": ("white", "*neutral_900"),
    "block_border_color": ("*neutral_200", "*neutral_800"),
    "block_label_background_fill": ("transparent", "transparent"),
    "block_label_text_color": ("*neutral_600", "*neutral_300"),
    "block_title_text_color": ("*neutral_700", "*neutral_200"),
    "input_background_fill": ("*neutral_50", "*neutral_950"),
    "input_border_color": ("*neutral_300", "*neutral_700"),
    "input_placeholder_color": ("*neutral_500", "*neutral_500"),
    "button_primary_background_fill": ("*primary_600", "*primary_500"),
    "button_primary_background_fill_hover": ("*primary_700", "*primary_400"),
    "button_primary_text_color": ("white", "white"),
    "button_secondary_background_fill": ("white", "*neutral_800"),
    "button_secondary_background_fill_hover": ("*neutral_100", "*neutral_700"),
    "button_secondary_border_color": ("*neutral_300", "*neutral_700"),
    "slider_color": ("*primary_500", "*primary_400"),
}
"""Colours of the theme, on a light and on a dark screen."""
THEME = Base(
    primary_hue=MOSS,
    secondary_hue=MOSS,
    neutral_hue=PAPER,
    font=[*SANS.split(", "), "Noto Sans CJK SC", "sans-serif"],
    font_mono=MONO.split(", "),
    radius_size=sizes.radius_md,
    spacing_size=sizes.spacing_md,
    text_size=sizes.text_md,
).set(
    **{name: light for name, (light, _) in COLOURS.items()},
    **{f"{name}_dark": dark for name, (_, dark) in COLOURS.items()},
    block_border_width="1px",
    block_label_border_width="0px",
    block_title_text_weight="500",
    block_shadow="none",
    input_border_width="1px",
    button_border_width="1px",
    button_primary_border_color="transparent",
    button_large_text_weight="600",
)
"""The theme; Gradio takes it at launch."""
