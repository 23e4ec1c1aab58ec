"""training/publish/evaluate.py: the card's figures, by hand-computed examples and by what the server answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import PeftModel
from sklearn import metrics

from models.loading import load_model
from tests.conftest import Trained
from tests.helpers.answers import write
from training.config import TrainConfig
from training.data.tokens import IGNORED, encode_rows
from training.publish import evaluate
from training.publish.evaluate import ANSWERS_WRITTEN, LONGEST_ANSWER, Trial, measured, question, rouge_l


@pytest.mark.parametrize(
    ("target", "answer", "score"),
    [
        ("the cat sat", "the cat sat", 1),
        ("the cat sat", "", 0),
        ("a b c d", "a c", 2 / 3),  # longest common subsequence 2: recall 1/2, precision 1
        ("a b c d", "d c b a", 0.25),
        ("今天天气很好", "今天天气很好", 1),
        ("天气好", "天气坏", 2 / 3),  # Chinese by character
        ("Été à Köln", "été à köln", 1),
    ],
)
def test_rouge_l_by_hand(target: str, answer: str, score: float) -> None:
    assert rouge_l(target, answer) == pytest.approx(score)


def trial_of(trained: Trained, rows: list[dict[str, str]], labels: list[str]) -> Trial:
    task = "text-classification" if labels else "causal-lm"
    config = TrainConfig(
        name="a", plugin="p", model="m", task=task, data="d", columns={"text": "text", "target": "target"},
        max_length=64, precision="float32",
        prompt="" if labels else "Sum up: {text}",
    )  # fmt: skip
    tokenizer = trained.load().base.tokenizer
    encoded = encode_rows(rows, tokenizer, config, labels, task)
    return Trial(encoded, tokenizer, labels, config)


def net_of(trained: Trained, auto_class: str, **config: Any) -> PeftModel:
    net, _ = load_model(trained.model, auto_class, "none", **config)
    return PeftModel.from_pretrained(net, trained.first.path).eval()


def test_a_versions_answers_are_those_it_gives_when_it_serves(bert: Trained) -> None:
    rows = [{"text": f"{word} parcel {i} </s>", "target": str(i % 2)} for i, word in enumerate(["late", "great"] * 10)]
    trial = trial_of(bert, rows, ["0", "1"])
    net = net_of(bert, "AutoModelForSequenceClassification", num_labels=2, ignore_mismatched_sizes=True)
    outcome = trial.of(net)
    loaded = bert.load()
    with loaded.base.slots.pin(bert.first) as slot:
        served = [loaded.classifier.classify(row["text"], slot) for row in rows]
    assert outcome.answers == [max(scores, key=scores.__getitem__) for scores in served]
    probabilities = [scores[row["target"]] for scores, row in zip(served, rows, strict=True)]
    assert outcome.loss == pytest.approx([-math.log(p) for p in probabilities], abs=1e-4)
    found = measured(trial.figures(outcome), len(rows))
    targets = [row["target"] for row in rows]
    assert found["accuracy"] == metrics.accuracy_score(targets, outcome.answers)
    assert found["log_loss"] == pytest.approx(
        metrics.log_loss(targets, [[1 - s["1"], s["1"]] for s in served]), abs=1e-4
    )


def test_a_bare_encoder_answers_zero_shot_as_it_does_when_it_serves(bert: Trained) -> None:
    rows = [
        {"text": f"note {i} about {word}", "target": word} for i, word in enumerate(["delay", "praise", "money"] * 3)
    ]
    labels = ["delay", "money", "praise"]
    net, _ = load_model(bert.model, "AutoModel")
    outcome = trial_of(bert, rows, labels).of_bare_encoder(net)
    served = [bert.load().classifier.zero_shot(row["text"], labels) for row in rows]
    assert outcome.answers == [max(scores, key=scores.__getitem__) for scores in served]


def test_a_head_with_labels_in_another_order_is_read_by_name(bert: Trained) -> None:
    rows = [{"text": f"{word} parcel {i}", "target": str(i % 2)} for i, word in enumerate(["late", "great"] * 5)]
    trial = trial_of(bert, rows, ["0", "1"])
    net = net_of(bert, "AutoModelForSequenceClassification", num_labels=2, ignore_mismatched_sizes=True)
    one, other = trial.of(net), trial.of(net, ["1", "0"])
    assert [{"0": "1", "1": "0"}[answer] for answer in one.answers] == other.answers
    assert (-one.loss).tolist() == pytest.approx([math.log(1 - math.exp(-loss)) for loss in other.loss], abs=1e-4)


def test_the_loss_of_a_row_is_the_models_own(llama: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"notes {'of a meeting ' * (i % 4)}{i}", "target": "word " * (1 + 3 * (i % 3))} for i in range(9)]
    trial, net = trial_of(llama, rows, []), net_of(llama, "AutoModelForCausalLM")
    monkeypatch.setattr(evaluate, "micro_batch_tokens", lambda *_: 100)  # several rows a batch, several batches
    with torch.inference_mode():
        loss, tokens = trial._losses(net)
        for example, summed, count in zip(trial.held_out.examples, loss, tokens, strict=True):
            alone = {key: torch.tensor([example[key]], device=net.device) for key in ("input_ids", "labels")}
            assert summed / count == pytest.approx(float(net(**alone).loss), rel=1e-4)


def test_written_answers_are_those_it_gives_when_it_serves(llama: Trained) -> None:
    rows = [{"text": f"notes of {'a long ' * i}meeting", "target": "t"} for i in range(ANSWERS_WRITTEN + 2)]
    trial = trial_of(llama, rows, [])
    outcome = trial.of(net_of(llama, "AutoModelForCausalLM"))
    assert outcome.answers[ANSWERS_WRITTEN:] == ["", ""]
    found = measured(trial.figures(outcome), len(rows))
    assert found["loss"] == pytest.approx(outcome.loss.sum() / outcome.tokens.sum())
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    # only the answers that were written count
    scores = [rouge_l("t", answer) for answer in outcome.answers[:ANSWERS_WRITTEN]]
    assert found["rouge_l"] == pytest.approx(sum(scores) / ANSWERS_WRITTEN)
    loaded = llama.load()
    with loaded.base.slots.pin(llama.first) as slot:
        for row, answer in list(zip(rows, outcome.answers, strict=True))[:4]:
            served = write(loaded, row["text"], "Sum up: {text}", slot, max_new_tokens=LONGEST_ANSWER)
            assert served.strip() == answer


def test_questions_are_all_before_the_last_answer() -> None:
    example = {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, 6, IGNORED, 8, 9]}
    assert question(example, encoder_decoder=False) == [5, 6, 7]
    assert question(example, encoder_decoder=True) == [5, 6, 7, 8, 9]
