"""README.md of a version: a model card that the Hub understands and that says in plain words what is known.

What was not measured is said to be so. The licence is the publisher's to choose, and is left out.
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
"""A figure's type on the Hub, and its name."""
HEAD = ", num_labels={labels}"


def readme(name: str, facts: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """The text of README.md; `facts` as in the manifest, `card` as in card.json."""
    parts = [_front(name, facts, card), *_purpose(name, facts), *_figures(card), *_use(facts), *_limits(facts, card)]
    return "\n\n".join(parts) + "\n"


def readme_of_import(name: str, facts: Mapping[str, Any]) -> str:
    """The text of README.md for a version that was made elsewhere, of which nothing was measured."""
    task, base, origin = TASKS[facts["task"]], facts["base"], facts["made_elsewhere"]
    front = ModelCardData(base_model=base["id"], library_name="peft", pipeline_tag=task.pipeline_tag,
                          tags=["lora", "graft"], model_name=name)  # fmt: skip
    told = f", which says that it was made for `{origin['base']}`" if origin["base"] else ""
    made = (
        f"A LoRA adapter for `{base['id']}` (revision `{base['revision'] or 'none'}`), made elsewhere. Graft took it "
        f"in for its {facts['plugin']} tab on {facts['created']} from `{origin['file']}` (sha256 of the weights "
        f"`{origin['sha256'][:16]}`){told}."
    )
    limits = "## Limits\n\n- What it was trained on, and how: not known here.\n- How well it answers: not measured."
    parts = [f"---\n{front.to_yaml()}\n---", f"# {name}", made, *_answer(facts), *_use(facts), limits]
    return "\n\n".join(parts) + "\n"


def _front(name: str, facts: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    task, data = TASKS[facts["task"]], facts["data"]
    rows = f"{data['held_out_file'] or data['file']}, {card['held_out']} held-out rows"
    results = [
        EvalResult(
            task_type=task.pipeline_tag, dataset_type="private", dataset_name=rows, metric_type=HUB_METRICS[figure][0],
            metric_name=HUB_METRICS[figure][1], metric_value=round(value, 4),
        )
        for figure, value in card["new"].items()
    ]  # fmt: skip
    front = ModelCardData(
        base_model=facts["base"]["id"], library_name="peft", pipeline_tag=task.pipeline_tag,
        tags=["lora", "graft"], model_name=name, eval_results=results,
    )  # fmt: skip
    return f"---\n{front.to_yaml()}\n---"


def _purpose(name: str, facts: Mapping[str, Any]) -> Iterator[str]:
    base, data, measured = facts["base"], facts["data"], facts["measured"]
    yield f"# {name}"
    yield (
        f"A LoRA adapter for `{base['id']}` (revision `{base['revision'] or 'none'}`), made by Graft for its "
        f"{facts['plugin']} tab on {facts['created']}."
    )
    yield from _answer(facts)
    corrected = f"{data['corrections']} corrections and " if data.get("corrections") else ""
    held = "in full precision" if base["quantize"] == "none" else f"quantized to {base['quantize']}"
    yield (
        f"Trained on {corrected}{data['trained']} of the {data['rows']} rows of {_rows(data)} "
        f"(sha256 `{data['sha256'][:16]}`), {data['truncated']} of them cut short, with the base {held}: "
        f"{measured['steps']} steps in {measured['seconds']:.0f} s on {_machine(facts['machine'])}."
    )


def _answer(facts: Mapping[str, Any]) -> Iterator[str]:
    """What it answers, and to what."""
    if facts["labels"]:
        yield "It puts a text under one of these labels: " + ", ".join(f"`{label}`" for label in facts["labels"]) + "."
    elif facts["prompt"]:
        yield "It answers this prompt:\n\n" + "\n".join(f"    {line}" for line in facts["prompt"].splitlines())
    else:
        yield "It answers a conversation."


def _rows(data: Mapping[str, Any]) -> str:
    """The rows by the name of their file, or as what they are on the Hub."""
    hub = data.get("hub")
    if not hub:
        return f"`{data['file']}`"
    return f"the split `{hub['split']}` of [{hub['id']}](https://huggingface.co/datasets/{hub['id']}/tree/{hub['revision']})"


def _machine(machine: Mapping[str, Any]) -> str:
    return str(machine.get("gpu") or f"{machine['cores']} cores of {machine['cpu']}")


def _figures(card: Mapping[str, Any]) -> Iterator[str]:
    who = [name for name in ("base", "live", "new") if card[name]]
    names = {"base": "base", "live": f"before ({card['live_ref']})", "new": "this version"}
    intervals = card["certainty"]["intervals"]
    lines = [
        f"| {figure} | "
        + " | ".join(f"{card[name][figure]:.3f} ({_interval(intervals[figure][name])})" for name in who)
        + f" | {_interval(intervals[figure]['difference'], '+')} |"
        for figure in card["new"]
    ]
    yield "## Figures"
    yield (
        f"On {card['held_out']} rows that it was not trained on; in brackets the 95 % interval of a bootstrap over "
        f"these rows, and last that of the difference to {'what answered before' if card['live'] else 'the base'}. "
        f"Lower is better for {', '.join(LOWER_IS_BETTER)}."
    )
    yield "\n".join(
        [f"| | {' | '.join(names[name] for name in who)} | difference |", "|---" * (len(who) + 2) + "|", *lines]
    )


def _interval(bounds: list[float], sign: str = "") -> str:
    return f"{bounds[0]:{sign}.3f} to {bounds[1]:{sign}.3f}"


def _use(facts: Mapping[str, Any]) -> Iterator[str]:
    auto_class = TASKS[facts["task"]].auto_class
    head = HEAD.format(labels=len(facts["labels"])) if facts["labels"] else ""
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
