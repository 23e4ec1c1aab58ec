"""training/publish/evaluate.py: predictions are the server's answers, and metrics agree with hand-computed examples."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from sklearn import metrics

from models.loading import load_model
from tests.conftest import Trained
from tests.helpers.answers import write
from tests.helpers.evaluations import evaluation_of, peft_net, predictions, rows_alone
from training.estimate.training_memory import WRITTEN_ROWS, WRITTEN_TOKENS
from training.publish import evaluate
from training.publish.evaluate import own_labels, rouge_l
from training.publish.metrics import measure


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
def test_rouge_l_agrees_with_hand_computed_scores(target: str, answer: str, score: float) -> None:
    assert rouge_l(target, answer) == pytest.approx(score)


ROWS = [{"text": f"{word} parcel {i} </s>", "target": str(i % 2)} for i, word in enumerate(["late", "great"] * 10)]


def best(scores: dict[str, float]) -> str:
    return max(scores, key=scores.__getitem__)


def test_a_versions_labels_are_those_it_answers_when_it_serves(bert: Trained) -> None:
    evaluation, loaded = evaluation_of(bert, ROWS, ["0", "1"]), bert.load()
    net = peft_net(loaded, bert.first)
    found = evaluation.predict(net)
    with loaded.base.slots.pin(bert.first) as slot:
        served = [loaded.classifier.classify(row["text"], slot) for row in ROWS]
    assert found.answers == [best(scores) for scores in served]
    probabilities = [scores[row["target"]] for scores, row in zip(served, ROWS, strict=True)]
    assert found.loss == pytest.approx([-math.log(p) for p in probabilities], abs=1e-4)
    values = measure(evaluation.metrics(found), len(found.answers))
    targets, likely = [row["target"] for row in ROWS], [[1 - s["1"], s["1"]] for s in served]
    assert values["accuracy"] == metrics.accuracy_score(targets, found.answers)
    assert values["log_loss"] == pytest.approx(metrics.log_loss(targets, likely), abs=1e-4)
    other = evaluation.predict(net, ["1", "0"])  # a head with its labels in another order
    assert [{"0": "1", "1": "0"}[answer] for answer in found.answers] == other.answers
    assert (-found.loss).tolist() == pytest.approx([math.log(1 - math.exp(-loss)) for loss in other.loss], abs=1e-4)


def test_a_bare_encoder_answers_by_meaning_as_when_it_serves(bert: Trained) -> None:
    words, labels = ["delay", "praise", "money"] * 3, ["delay", "money", "praise"]
    rows = [{"text": f"note {'of it ' * i} about {word}", "target": word} for i, word in enumerate(words)]
    net, _ = load_model(bert.model, "AutoModel")
    found = evaluation_of(bert, rows, labels).predict_by_meaning(net)
    assert found.answers == [best(bert.load().classifier.zero_shot(row["text"], labels)) for row in rows]


def test_the_loss_of_a_row_is_the_models_own(llama: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"notes {'of a meeting ' * (i % 4)}{i}", "target": "word " * (1 + 3 * (i % 3))} for i in range(9)]
    evaluation, net = evaluation_of(llama, rows, []), peft_net(llama.load(), llama.first)
    monkeypatch.setattr(evaluate, "micro_batch_tokens", lambda *_: 100)  # several rows a batch, several batches
    found = evaluation.predict(net)
    for example, mean in zip(evaluation.held_out.examples, found.row_losses, strict=True):
        alone = {key: torch.tensor([example[key]], device=net.device) for key in ("input_ids", "labels")}
        assert mean == pytest.approx(float(net(**alone).loss), rel=1e-4)


def test_generated_answers_are_those_of_the_server(llama: Trained) -> None:
    rows = [{"text": f"notes of {'a long ' * i}meeting", "target": "t"} for i in range(WRITTEN_ROWS + 2)]
    evaluation, loaded = evaluation_of(llama, rows, []), llama.load()
    found = evaluation.predict(peft_net(loaded, llama.first))
    assert found.answers[WRITTEN_ROWS:] == ["", ""]
    values = measure(evaluation.metrics(found), len(found.answers))
    assert values["loss"] == pytest.approx(found.loss.sum() / found.tokens.sum())
    assert values["perplexity"] == pytest.approx(math.exp(values["loss"]))
    # only the answers that were generated count
    scores = [rouge_l("t", answer) for answer in found.answers[:WRITTEN_ROWS]]
    assert values["rouge_l"] == pytest.approx(sum(scores) / WRITTEN_ROWS)
    with loaded.base.slots.pin(llama.first) as slot:
        for row, answer in list(zip(rows, found.answers, strict=True))[:4]:
            written = write(loaded, row["text"], "Sum up: {text}", slot, max_new_tokens=WRITTEN_TOKENS)
            assert written.strip() == answer


BERT = ["BertForSequenceClassification"]


@pytest.mark.parametrize(
    ("architectures", "id2label", "order"),
    [
        (BERT, {"0": "b", "1": "A"}, ["b", "a"]),
        (BERT, {"0": "b", "1": "c"}, []),
        (BERT, {"0": "b"}, []),
        (["BertModel"], {"0": "b", "1": "a"}, []),
        (None, None, []),
    ],
)
def test_a_bases_head_is_used_if_its_labels_are_those_of_the_rows(
    architectures: list[str] | None, id2label: dict[str, str] | None, order: list[str]
) -> None:
    model = SimpleNamespace(config={"architectures": architectures, "id2label": id2label})
    assert own_labels(model, ["a", "b"]) == order  # type: ignore[arg-type]


TEXT = "The path opens in May and is five kilometres long."
NEAR, OTHER = TEXT.replace("is five", "will be five"), "Nothing was decided about the tax office."


@pytest.mark.parametrize(
    ("targets", "labels", "answers", "correct"),
    [
        (["a", "b", "a"], ["a", "b"], ["a", "a", "a"], (2, 3)),
        (["a", "b", "a"] * 9, ["a", "b"], ["b", "a", "b"] * 9, (0, 27)),
        ([TEXT] * 3, [], [TEXT, NEAR, OTHER], (2, 3)),
        ([TEXT] * (WRITTEN_ROWS + 3), [], [TEXT] * (WRITTEN_ROWS + 3), (WRITTEN_ROWS, WRITTEN_ROWS)),
    ],
)
def test_correct_answers_are_equal_labels_or_similar_texts(
    targets: list[str], labels: list[str], answers: list[str], correct: tuple[int, int]
) -> None:
    assert rows_alone(targets, labels).count_correct(predictions(answers)) == correct
