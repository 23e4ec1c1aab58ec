"""README.md of a version: a model card that the Hub understands, with what was measured and what was not.

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


def readme(name: str, facts: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """Return the text of README.md; `facts` as in the manifest, `card` as in card.json."""
    data, kind = facts["data"], TASKS[facts["task"]].pipeline_tag
    rows = f"{data['held_out_file'] or data['file']}, {card['held_out']} held-out rows"
    results = [
        EvalResult(kind, "private", rows, HUB_METRICS[metric][0], round(value, 4), metric_name=HUB_METRICS[metric][1])
        for metric, value in card["new"].items()
    ]
    made = f"made by Graft for its {facts['plugin']} tab on {facts['created']}."
    origin = [_intro(facts, made), *_answer(facts), _training(facts)]
    parts = [_front(name, facts, results), f"# {name}", *origin, *_metrics(card), *_use(facts), *_limits(facts, card)]
    return "\n\n".join(parts) + "\n"


def readme_of_import(name: str, facts: Mapping[str, Any]) -> str:
    """Return the text of README.md for a version that was made elsewhere, of which nothing was measured."""
    origin = facts["made_elsewhere"]
    says = f", which says that it was made for `{origin['base']}`" if origin["base"] else ""
    made = (
        f"made elsewhere. Graft took it in for its {facts['plugin']} tab on {facts['created']} from `{origin['file']}` "
        f"(sha256 of the weights `{origin['sha256'][:16]}`){says}."
    )
    limits = "## Limits\n\n- What it was trained on, and how: not known here.\n- How well it answers: not measured."
    parts = [_front(name, facts), f"# {name}", _intro(facts, made), *_answer(facts), *_use(facts), limits]
    return "\n\n".join(parts) + "\n"


def _front(name: str, facts: Mapping[str, Any], results: list[EvalResult] | None = None) -> str:
    front = ModelCardData(
        base_model=facts["base"]["id"],
        library_name="peft",
        pipeline_tag=TASKS[facts["task"]].pipeline_tag,
        tags=["lora", "graft"],
        model_name=name,
        eval_results=results,
    )
    return f"---\n{front.to_yaml()}\n---"


def _intro(facts: Mapping[str, Any], made: str) -> str:
    base = facts["base"]
    return f"A LoRA adapter for `{base['id']}` (revision `{base['revision'] or 'none'}`), {made}"


def _answer(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["labels"]:
        yield "It puts a text under one of these labels: " + ", ".join(f"`{label}`" for label in facts["labels"]) + "."
    elif facts["prompt"]:
        yield "It answers this prompt:\n\n" + "\n".join(f"    {line}" for line in facts["prompt"].splitlines())
    else:
        yield "It answers a conversation."


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
    who = [name for name in ("base", "live", "new") if card[name]]
    names = {"base": "base", "live": f"before ({card['live_ref']})", "new": "this version"}
    intervals = card["certainty"]["intervals"]
    lines = [f"| | {' | '.join(names[name] for name in who)} | difference |", "|---" * (len(who) + 2) + "|"]
    for metric in card["new"]:
        cells = [f"{card[name][metric]:.3f} ({_interval(intervals[metric][name])})" for name in who]
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


def _use(facts: Mapping[str, Any]) -> Iterator[str]:
    auto_class = TASKS[facts["task"]].auto_class
    head = f", num_labels={len(facts['labels'])}" if facts["labels"] else ""
    yield "## Use"
    yield "In Graft, copy this folder to `data/adapters/<name>/<number>/`. With PEFT alone:"
    yield f"""```python
from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

base = "{facts["base"]["id"]}"
tokenizer = AutoTokenizer.from_pretrained(base)
model = {auto_class}.from_pretrained(base{head})
model = PeftModel.from_pretrained(model, ".").eval()  # this folder, or its name on the Hub
```"""
    if facts["labels"]:
        yield "The model's logits are those of the labels above, in their order."


def _limits(facts: Mapping[str, Any], card: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits"
    lines = ["Texts unlike those it was trained on: not measured.", "Bias and safety: not measured."]
    if not card["certainty"]["sure"]:
        lines.insert(0, "The difference to what answered before may be chance.")
    if not card["live"]:
        lines.append("A version that answered before: not measured.")
    if "rouge_l" in card["new"]:
        lines.append("ROUGE-L is of the first answers alone; the loss is of all held-out rows.")
    lines.append(f"Rows longer than {facts['config']['max_length']} tokens are cut.")
    yield "\n".join(f"- {line}" for line in lines)
