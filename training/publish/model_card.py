"""Writes README.md of a version: a model card for the Hub, with its metrics, its use and its limits.

The licence is the publisher's to choose, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from tasks import LOWER_IS_BETTER, TASKS

HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "F1 (macro)"),
    "log_loss": ("log_loss", "Log loss"),
    "loss": ("loss", "Loss (nats a token)"),
    "perplexity": ("perplexity", "Perplexity"),
    "rouge_l": ("rouge", "ROUGE-L"),
}
"""Type and name of each metric on the Hub."""


def readme(name: str, facts: Mapping[str, Any], card: Mapping[str, Any] | None = None) -> str:
    """Return the text of README.md; `facts` are the manifest's, `card` is card.json or None for an imported version."""
    base, labels, task = facts["base"], facts["labels"], TASKS[facts["task"]]
    front = ModelCardData(
        base_model=base["id"],
        library_name="peft",
        pipeline_tag=task.pipeline_tag,
        tags=["lora", "graft"],
        model_name=name,
        eval_results=_results(facts, card) if card else None,
    )
    if labels:
        answer = "It puts a text under one of these labels: " + ", ".join(f"`{label}`" for label in labels) + "."
    elif facts["prompt"]:
        answer = "It answers this prompt:\n\n" + "\n".join(f"    {line}" for line in facts["prompt"].splitlines())
    else:
        answer = "It answers a conversation."
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {name}",
        f"A LoRA adapter for `{base['id']}` (revision `{base['revision'] or 'none'}`), {_origin(facts)}",
        answer,
        *([_training(facts), *_metrics(card)] if card else []),
        "## Use",
        "In Graft, copy this folder to `data/adapters/<name>/<number>/`. With PEFT alone:",
        _code(base["id"], task.auto_class, f", num_labels={len(labels)}" if labels else ""),
        *(["The model's logits are those of the labels above, in their order."] if labels else []),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts, card)),
    ]
    return "\n\n".join(parts) + "\n"


def _results(facts: Mapping[str, Any], card: Mapping[str, Any]) -> list[EvalResult]:
    data, kind = facts["data"], TASKS[facts["task"]].pipeline_tag
    rows = f"{data['held_out_file'] or data['file']}, {card['held_out']} held-out rows"
    return [
        EvalResult(kind, "private", rows, HUB_METRICS[metric][0], round(value, 4), metric_name=HUB_METRICS[metric][1])
        for metric, value in card["new"].items()
    ]


def _origin(facts: Mapping[str, Any]) -> str:
    source, tab = facts.get("made_elsewhere"), f"for its {facts['plugin']} tab on {facts['created']}"
    if not source:
        return f"made by Graft {tab}."
    says = f", which says that it was made for `{source['base']}`" if source["base"] else ""
    weights = f"(sha256 of the weights `{source['sha256'][:16]}`)"
    return f"made elsewhere. Graft took it in {tab} from `{source['file']}` {weights}{says}."


def _code(base: str, auto_class: str, head: str) -> str:
    return f"""```python
from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

base = "{base}"
tokenizer = AutoTokenizer.from_pretrained(base)
model = {auto_class}.from_pretrained(base{head})
model = PeftModel.from_pretrained(model, ".").eval()  # this folder, or its name on the Hub
```"""


def _training(facts: Mapping[str, Any]) -> str:
    base, data, measured, machine = (facts[key] for key in ("base", "data", "measured", "machine"))
    corrected = f"{data['corrections']} corrections and " if data.get("corrections") else ""
    held = "in full precision" if base["quantize"] == "none" else f"quantized to {base['quantize']}"
    computer = machine.get("gpu") or f"{machine['cores']} cores of {machine['cpu']}"
    rows = f"`{data['file']}`"
    if hub := data.get("hub"):
        url = f"https://huggingface.co/datasets/{hub['id']}/tree/{hub['revision']}"
        rows = f"the split `{hub['split']}` of [{hub['id']}]({url})"
    return (
        f"Trained on {corrected}{data['trained']} of the {data['rows']} rows of {rows} "
        f"(sha256 `{data['sha256'][:16]}`), {data['truncated']} of them cut short, with the base {held}: "
        f"{measured['steps']} steps in {measured['seconds']:.0f} s on {computer}."
    )


def _metrics(card: Mapping[str, Any]) -> Iterator[str]:
    models = {"base": "base", "live": f"before ({card['live_ref']})", "new": "this version"}
    measured = [name for name in models if card[name]]
    intervals = card["certainty"]["intervals"]
    lines = [
        f"| | {' | '.join(models[name] for name in measured)} | difference |",
        "|---" * (len(measured) + 2) + "|",
    ]
    for metric in card["new"]:
        cells = [f"{card[name][metric]:.3f} ({_interval(intervals[metric][name])})" for name in measured]
        lines.append(f"| {' | '.join([metric, *cells, _interval(intervals[metric]['difference'], '+')])} |")
    yield "## Figures"
    yield (
        f"On {card['held_out']} rows that it was not trained on; in brackets the 95 % interval of a bootstrap over "
        f"these rows, and last that of the difference to {'what answered before' if card['live'] else 'the base'}. "
        f"Lower is better for {', '.join(LOWER_IS_BETTER)}."
    )
    yield "\n".join(lines)


def _interval(bounds: list[float], sign: str = "") -> str:
    return f"{bounds[0]:{sign}.3f} to {bounds[1]:{sign}.3f}"


def _limits(facts: Mapping[str, Any], card: Mapping[str, Any] | None) -> list[str]:
    if card is None:
        return ["What it was trained on, and how: not known here.", "How well it answers: not measured."]
    lines = ["Texts unlike those it was trained on: not measured.", "Bias and safety: not measured."]
    if not card["certainty"]["sure"]:
        lines.insert(0, "The difference to what answered before may be chance.")
    if not card["live"]:
        lines.append("A version that answered before: not measured.")
    if "rouge_l" in card["new"]:
        lines.append("ROUGE-L is of the first answers alone; the loss is of all held-out rows.")
    return [*lines, f"Rows longer than {facts['config']['max_length']} tokens are cut."]
