"""Summarize a text, streamed."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr
from gradio.components import Component

from plugins import LM, Columns, TaskPlugin

ARTICLE = (
    "The city council voted on Tuesday to turn the disused railway line between the harbour and the old mill into a "
    "path for walkers and cyclists. Work begins in May and should take fourteen months. The path will be five "
    "kilometres long, lit at night, and connect four schools with the town centre. Shop owners near the mill had "
    "feared losing parking spaces; the council promised them forty new ones behind the station. The project costs "
    "3.2 million, of which the region pays half."
)
NOTES = (
    "weekly sync - Ana, Piotr, Mei. payment page slow on old phones, Mei measured 9 s. agreed to drop the image "
    "carousel. Piotr removes it by Thursday, Ana tells support. newsletter idea parked until June."
)


class Summarization(TaskPlugin):
    """A short version of a long text."""

    name, title = "summarization", "Summarize"
    description = "Paste an article or your notes; a short summary appears as it is written."
    model, task = "HuggingFaceTB/SmolLM2-135M-Instruct", "causal-lm"
    columns = Columns(text="text", target="summary")
    prompt = "Summarize the following text in one or two sentences.\n\n{text}"
    examples = ((ARTICLE,), (NOTES,))
    words = {  # noqa: RUF012
        "zh-CN": {
            "Summarize": "摘要",
            description: "粘贴文章或笔记，摘要会逐字出现。",
            "Text": "文本",
            "Text to summarize": "要摘要的文本",
            "Longest summary, in tokens": "摘要最大长度（词元）",
            "Summary": "摘要",
        }
    }

    def inputs(self) -> list[Component]:
        return [gr.Textbox(label=self.say("Text"), placeholder=self.say("Text to summarize"), lines=8, max_lines=16)]

    def options(self) -> list[Component]:
        return [gr.Slider(16, 256, 80, step=1, label=self.say("Longest summary, in tokens"))]

    def outputs(self) -> list[Component]:
        return [gr.Textbox(label=self.say("Summary"), lines=6, buttons=["copy"])]

    def predict(self, lm: LM, text: str, max_new_tokens: int = 80) -> Iterator[str]:
        yield from lm.generate(text, max_new_tokens=max_new_tokens)
