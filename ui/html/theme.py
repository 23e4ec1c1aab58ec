"""How Graft looks: warm paper, one deep green, the fonts that the reader's system has. Nothing is fetched."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base
from gradio.themes.utils import colors, sizes

STYLE = Path(__file__).resolve().with_name("style.css")

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "PingFang SC",
        "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")  # fmt: skip
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

MOSS = colors.Color(
    name="moss", c50="#eef6f0", c100="#d8eadd", c200="#b3d6be", c300="#85bb97", c400="#559b6e", c500="#357d51",
    c600="#276641", c700="#205236", c800="#1b422d", c900="#163625", c950="#0b1f15",
)  # fmt: skip
PAPER = colors.Color(
    name="paper", c50="#faf9f6", c100="#f3f1ec", c200="#e6e3db", c300="#d2cec3", c400="#a29d91", c500="#77736a",
    c600="#5a574f", c700="#423f3a", c800="#292825", c900="#1c1b19", c950="#131211",
)  # fmt: skip

THEME = Base(
    primary_hue=MOSS, secondary_hue=MOSS, neutral_hue=PAPER, font=SANS, font_mono=MONO, radius_size=sizes.radius_md,
    spacing_size=sizes.spacing_md, text_size=sizes.text_md,
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    background_fill_primary="white",
    background_fill_primary_dark="*neutral_900",
    background_fill_secondary="*neutral_50",
    background_fill_secondary_dark="*neutral_950",
    body_text_color="*neutral_800",
    body_text_color_dark="*neutral_100",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_border_width="1px",
    block_border_color="*neutral_200",
    block_border_color_dark="*neutral_800",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    block_label_text_color="*neutral_600",
    block_label_text_color_dark="*neutral_300",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    block_title_text_weight="500",
    block_shadow="none",
    input_background_fill="*neutral_50",
    input_background_fill_dark="*neutral_950",
    input_border_color="*neutral_300",
    input_border_color_dark="*neutral_700",
    input_border_width="1px",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_500",
    button_border_width="1px",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_500",
    button_primary_background_fill_hover_dark="*primary_400",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
    button_primary_border_color="transparent",
    button_secondary_background_fill="white",
    button_secondary_background_fill_hover="*neutral_100",
    button_secondary_background_fill_dark="*neutral_800",
    button_secondary_background_fill_hover_dark="*neutral_700",
    button_secondary_border_color="*neutral_300",
    button_secondary_border_color_dark="*neutral_700",
    button_large_text_weight="600",
    slider_color="*primary_500",
    slider_color_dark="*primary_400",
)  # fmt: skip
"""The theme; Gradio takes it at launch."""
