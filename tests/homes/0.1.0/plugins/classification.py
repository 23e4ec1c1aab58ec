"""Classify a text: with the labels of a trained version, or with any labels, by similarity of meaning."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from plugins import LM, Columns, TaskPlugin


class Classification(TaskPlugin):
    """Labels with probabilities."""

    name, title = "classification", "Classify"
    description = "Sort a text into labels: those a version was trained on, or your own, without any training."
    model, task = "sentence-transformers/all-MiniLM-L6-v2", "text-classification"
    columns = Columns(text="text", target="label")
    examples = (
        ("The plot drags, but the acting saves it.", ""),
        ("Two hours of my life that I would like to have back.", ""),
        ("I was charged twice this month, please refund one of them.", "billing, bug, praise"),
    )
    words = {  # noqa: RUF012 - a fact, like the others
        "zh-CN": {
            "Classify": "分类",
            description: "为文本选择标签：可用已训练版本的标签，也可直接输入自己的标签，无需训练。",
            "Text": "文本",
            "Text to classify": "要分类的文本",
            "Your own labels (optional)": "自定义标签（可选）",
            "billing, bug, praise": "账单, 故障, 表扬",
            "Labels": "标签",
        }
    }

    def inputs(self) -> list[Component]:
        return [
            gr.Textbox(label=self.say("Text"), placeholder=self.say("Text to classify"), lines=4, max_lines=12),
            gr.Textbox(label=self.say("Your own labels (optional)"), placeholder=self.say("billing, bug, praise")),
        ]

    def outputs(self) -> list[Component]:
        return [gr.Label(label=self.say("Labels"), num_top_classes=6)]

    def predict(self, lm: LM, text: str, labels: str = "") -> dict[str, float]:
        own = [label.strip() for label in labels.replace("，", ",").split(",") if label.strip()]
        return lm.classify(text, own or None)
