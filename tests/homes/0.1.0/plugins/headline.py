"""A headline for a text."""

import gradio as gr

from plugins import Columns, TaskPlugin


class Headline(TaskPlugin):
    name, title = "headline", "Headline"
    description = "Paste a text; a headline for it appears."
    model, task = "HuggingFaceTB/SmolLM2-135M-Instruct", "causal-lm"
    columns = Columns(text="text", target="headline")
    prompt = "Write one short headline for this text.\n\n{text}"

    def inputs(self):
        return [gr.Textbox(label="Text", lines=8)]

    def outputs(self):
        return [gr.Textbox(label="Headline")]

    def predict(self, lm, text):
        yield from lm.generate(text, max_new_tokens=24)
