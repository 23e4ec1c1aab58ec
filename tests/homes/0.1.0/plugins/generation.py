"""Chat with a model, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.components import Component

from plugins import LM, Columns, TaskPlugin


class Generation(TaskPlugin):
    """A conversation."""

    name, title = "generation", "Generate"
    description = "Chat with the model, or with a version that has learned your own way of answering."
    model, task = "HuggingFaceTB/SmolLM2-135M-Instruct", "causal-lm"
    columns = Columns(messages="messages")
    examples = (
        ("Give me three ideas for a rainy Sunday.",),
        ("My bicycle chain keeps slipping. What should I check?",),
        ("Explain what a rainbow is to a child.",),
    )
    words = {  # noqa: RUF012
        "zh-CN": {
            "Generate": "生成",
            description: "与模型对话，或与学会了您的回答方式的版本对话。",
            "Message": "消息",
            "Type a message": "输入消息",
            "Conversation": "对话",
            "System prompt": "系统提示",
            "Temperature (0: always the likeliest word)": "温度（0：始终选最可能的词）",
            "Top-p": "Top-p",
            "Longest answer, in tokens": "回答最大长度（词元）",
        }
    }

    def inputs(self) -> list[Component]:
        self.chat = gr.Chatbot(
            label=self.say("Conversation"), show_label=False, height=420, layout="bubble", buttons=["copy", "copy_all"],
            allow_tags=False, sanitize_html=True,
        )  # fmt: skip
        return [
            gr.Textbox(label=self.say("Message"), placeholder=self.say("Type a message"), lines=1, max_lines=6),
            self.chat,
        ]

    def options(self) -> list[Component]:
        return [
            gr.Textbox(label=self.say("System prompt"), lines=2),
            gr.Slider(0, 2, 0.3, step=0.05, label=self.say("Temperature (0: always the likeliest word)")),
            gr.Slider(0.05, 1, 0.9, step=0.05, label=self.say("Top-p")),
            gr.Slider(1, 512, 160, step=1, label=self.say("Longest answer, in tokens")),
        ]

    def outputs(self) -> list[Component]:
        return [self.chat]

    def predict(
        self,
        lm: LM,
        message: str,
        history: list[dict[str, Any]] | None = None,
        system: str = "",
        temperature: float = 0.3,
        top_p: float = 0.9,
        max_new_tokens: int = 160,
    ) -> Iterator[list[dict[str, Any]]]:
        turns = [*(history or []), {"role": "user", "content": message}]
        chat = [{"role": "system", "content": system}, *turns] if system.strip() else turns
        for text in lm.chat(chat, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p):
            yield [*turns, {"role": "assistant", "content": text}]
