"""training/evaluation.py: the card's figures, by hand-computed examples and by what the server answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from sklearn import metrics

from serving.sampling import Sampling
from store.loading import load_model
from tests.conftest import Trained
from training.config import TrainConfig
from training.encoding import IGNORED, encode_rows
from training.evaluation import ANSWERS_WRITTEN, LONGEST_ANSWER, Trial, label_figures, question, rouge_l


def test_accuracy_and_macro_f1_by_hand() -> None:
    figures = label_figures(["a", "a", "a", "b", "b", "c"], ["a", "a", "b", "b", "c", "c"])
    assert figures["accuracy"] == pytest.approx(4 / 6)
    # a: precision 1, recall 2/3; b: 1/2 and 1/2; c: 1/2 and 1
    assert figures["macro_f1"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)


@pytest.mark.parametrize(
    ("targets", "answers", "accuracy", "f1"),
    [
        (["a", "b"], ["a", "b"], 1, 1),
        (["a", "b"], ["b", "a"], 0, 0),
        (["a"], ["c"], 0, 0),
        (["a", "a"], ["a", "c"], 0.5, 2 / 3),
    ],
)
def test_figures_at_their_ends(targets: list[str], answers: list[str], accuracy: float, f1: float) -> None:
    assert label_figures(targets, answers) == pytest.approx({"accuracy": accuracy, "macro_f1": f1})


PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30)


@given(pairs=PAIRS)
def test_figures_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    targets, answers = [t for t, _ in pairs], [a for _, a in pairs]
    ours = label_figures(targets, answers)
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(targets, answers))
    theirs = metrics.f1_score(targets, answers, labels=sorted(set(targets)), average="macro", zero_division=0)
    assert ours["macro_f1"] == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("targets", "answers", "score"),
    [
        (["the cat sat"], ["the cat sat"], 1),
        (["the cat sat"], [""], 0),
        (["a b c d"], ["a c"], 2 / 3),  # longest common subsequence 2: recall 1/2, precision 1
        (["a b c d"], ["d c b a"], 0.25),
        (["a b", "c d", "e f"], ["a b", "x"], 0.5),  # only the answers that were written count
        (["a"], [], 0),
        (["今天天气很好"], ["今天天气很好"], 1),
        (["天气好"], ["天气坏"], 2 / 3),  # Chinese by character
        (["Été à Köln"], ["été à köln"], 1),
    ],
)
def test_rouge_l_by_hand(targets: list[str], answers: list[str], score: float) -> None:
    assert rouge_l(targets, answers) == pytest.approx(score)


def trial_of(trained: Trained, rows: list[dict[str, str]], labels: list[str]) -> Trial:
    task = "text-classification" if labels else "causal-lm"
    config = TrainConfig(
        name="a", plugin="p", model="m", task=task, data="d", columns={"text": "text", "target": "target"},
        max_length=64,
        prompt="" if labels else "Sum up: {text}",
    )  # fmt: skip
    tokenizer = trained.load().resident.tokenizer
    encoded = encode_rows(rows, tokenizer, config, labels, task)
    return Trial(encoded, tokenizer, labels, config)


def net_of(trained: Trained, auto_class: str, **config: Any) -> PeftModel:
    net, _ = load_model(trained.model, auto_class, "none", **config)
    return PeftModel.from_pretrained(net, trained.first.path).eval()


def test_a_versions_answers_are_those_it_gives_when_it_serves(bert: Trained) -> None:
    rows = [{"text": f"{word} parcel {i} </s>", "target": str(i % 2)} for i, word in enumerate(["late", "great"] * 10)]
    outcome = trial_of(bert, rows, ["0", "1"]).of(
        net_of(bert, "AutoModelForSequenceClassification", num_labels=2, ignore_mismatched_sizes=True)
    )
    loaded = bert.load()
    with loaded.resident.pin(bert.first) as slot:
        served = [loaded.labels.classify(row["text"], slot) for row in rows]
    assert outcome.answers == [max(scores, key=scores.__getitem__) for scores in served]
    assert outcome.figures == label_figures([row["target"] for row in rows], outcome.answers)


def test_a_bare_encoder_answers_zero_shot_as_it_does_when_it_serves(bert: Trained) -> None:
    rows = [
        {"text": f"note {i} about {word}", "target": word} for i, word in enumerate(["delay", "praise", "money"] * 3)
    ]
    labels = ["delay", "money", "praise"]
    net, _ = load_model(bert.model, "AutoModel")
    outcome = trial_of(bert, rows, labels).of_bare_encoder(net)
    served = [bert.load().labels.zero_shot(row["text"], labels) for row in rows]
    assert outcome.answers == [max(scores, key=scores.__getitem__) for scores in served]


def test_loss_is_the_mean_over_learned_tokens(llama: Trained) -> None:
    rows = [{"text": f"notes {i}", "target": "word " * (1 + 3 * i)} for i in range(5)]
    trial = trial_of(llama, rows, [])
    net = net_of(llama, "AutoModelForCausalLM")
    losses = []
    for example in trial.held_out.examples:
        with torch.inference_mode():
            scores = net(input_ids=torch.tensor([example["input_ids"]])).logits[0].log_softmax(-1)
        losses += [-float(scores[i - 1, t]) for i, t in enumerate(example["labels"]) if t != IGNORED]
    with torch.inference_mode():
        assert trial._loss(net) == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_written_answers_are_those_it_gives_when_it_serves(llama: Trained) -> None:
    rows = [{"text": f"notes of {'a long ' * i}meeting", "target": "t"} for i in range(ANSWERS_WRITTEN + 2)]
    trial = trial_of(llama, rows, [])
    outcome = trial.of(net_of(llama, "AutoModelForCausalLM"))
    assert outcome.answers[ANSWERS_WRITTEN:] == ["", ""]
    assert outcome.figures["perplexity"] == pytest.approx(math.exp(outcome.figures["loss"]))
    assert outcome.figures["rouge_l"] == rouge_l(["t"] * len(rows), outcome.answers[:ANSWERS_WRITTEN])
    loaded = llama.load()
    with loaded.resident.pin(llama.first) as slot:
        for row, answer in list(zip(rows, outcome.answers, strict=True))[:4]:
            options = Sampling(max_new_tokens=LONGEST_ANSWER)
            assert list(loaded.text.generate(row["text"], "Sum up: {text}", options, slot, []))[-1].strip() == answer


def test_questions_are_all_before_the_last_answer() -> None:
    example = {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, 6, IGNORED, 8, 9]}
    assert question(example, encoder_decoder=False) == [5, 6, 7]
    assert question(example, encoder_decoder=True) == [5, 6, 7, 8, 9]
