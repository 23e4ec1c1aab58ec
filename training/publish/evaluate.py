"""Held-out rows put to one model after another: predictions, their losses, and metrics over both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from models.chat_template import neutralize_all
from models.loading import autocast, mean_vectors, similarity_probabilities, training_dtype
from models.resolve import Model
from models.tokenizer import window
from store.adapters import Version
from training.config import TrainConfig
from training.data.tokens import IGNORED, Encoded, Example, conversation, encode_rows, last_answer
from training.estimate.training_memory import WRITING_TOKENS, WRITTEN_ROWS, WRITTEN_TOKENS, micro_batch_tokens
from training.loop.batches import micro_batches, padded_batches
from training.loop.losses import token_losses
from training.publish import metrics
from training.publish.metrics import Floats, Metric

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
SAME_TEXT = 0.8
"""ROUGE-L from which two texts count as saying the same."""

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Predictions:
    """Answers of one contender to the held-out rows, in their order."""

    answers: list[str]
    """Empty where none was written."""
    loss: Floats
    """Negative log-likelihood of the expected answer, in nats, summed over its tokens."""
    tokens: Floats
    """Tokens of the expected answer; 1 for a label."""

    @property
    def row_losses(self) -> list[float]:
        """Mean loss of a token, for each row."""
        return [float(value) for value in self.loss / np.maximum(self.tokens, 1)]


@dataclass(frozen=True)
class Evaluation:
    """Held-out rows, encoded for one base, to be put to models on it."""

    held_out: Encoded
    tokenizer: PreTrainedTokenizerBase
    labels: list[str]
    config: TrainConfig

    @property
    def targets(self) -> list[str]:
        """Expected answer of each row."""
        return [conversation(row, self.config.prompt)[-1]["content"] for row in self.held_out.kept]

    def encoded_for(
        self,
        version: Version | None,
        task: str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **changed: Any,  # noqa: ANN401 - fields of the configuration
    ) -> Evaluation:
        """Return the rows as `version` is asked them: with its own prompt, and the tokenizer of its base.

        Rows whose answer does not fit are dropped.
        """
        if version is not None and not self.labels:
            changed["prompt"] = str(version.manifest.get("prompt") or "")
        if tokenizer is not None:
            changed["task"] = task
        config = replace(self.config, **changed)
        if tokenizer is None and config == self.config:
            return self
        held_out = encode_rows(self.held_out.kept, tokenizer or self.tokenizer, config, self.labels, task)
        return Evaluation(held_out, tokenizer or self.tokenizer, self.labels, config)

    @torch.inference_mode()
    def predict(self, net: Any, labels: Sequence[str] = ()) -> Predictions:  # noqa: ANN401 - a PreTrainedModel or PeftModel
        """Return a model's predictions; `labels` are those of its head, by default the rows' own."""
        net.eval()
        with autocast(training_dtype(self.config.precision)):
            if not self.labels:
                return self._write(net)
            return self._classify(lambda batch: net(**batch).logits, labels or self.labels, net.device)

    @torch.inference_mode()
    def predict_by_meaning(self, body: nn.Module) -> Predictions:
        """Return the predictions of an encoder without a head: for each row the label of the most similar meaning."""
        body.eval()
        device = next(body.parameters()).device

        def vectors(batch: Batch) -> torch.Tensor:
            mask = batch.get("attention_mask")
            states = body(**batch).last_hidden_state
            return mean_vectors(states, torch.ones_like(batch["input_ids"]) if mask is None else mask)

        with autocast(training_dtype(self.config.precision)):
            texts = neutralize_all(self.tokenizer, self.labels)
            names = vectors(dict(self.tokenizer(texts, padding=True, return_tensors="pt").to(device)))
            return self._classify(
                lambda batch: similarity_probabilities(vectors(batch), names).log(), self.labels, device
            )

    def predict_without_adapter(self, model: Model, load: Callable[[bool], Any]) -> tuple[Predictions, str]:
        """Return the predictions of a base alone, and how it answers: by writing, by its own head, or by meaning.

        `load` is given whether the head is needed, and returns the model.
        """
        if not self.labels:
            return self.predict(load(True)), "writing"
        if own := own_labels(model, self.labels):
            return self.predict(load(True), own), "head"
        return self.predict_by_meaning(load(False).base_model), "meaning"

    def metrics(self, predictions: Predictions) -> dict[str, Metric]:
        """Return the metrics of predictions by name, each as a function of the rows' weights."""
        if self.labels:
            targets, answers = self.indices(self.targets), self.indices(predictions.answers)
            return {
                "accuracy": metrics.accuracy(targets == answers),
                "macro_f1": metrics.macro_f1(targets, answers, len(self.labels)),
                "log_loss": metrics.mean(predictions.loss),
            }
        loss = metrics.ratio(predictions.loss, predictions.tokens)
        written = (np.arange(len(predictions.answers)) < WRITTEN_ROWS).astype(np.float64)
        pairs = zip(self.targets, predictions.answers, strict=True)
        overlap = [rouge_l(target, answer) if written[i] else 0.0 for i, (target, answer) in enumerate(pairs)]
        return {
            "loss": loss,
            "perplexity": lambda weights: np.exp(np.minimum(loss(weights), 50)),
            "rouge_l": metrics.ratio(np.array(overlap), written),
        }

    def indices(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Return labels by their index among the labels."""
        index = {label: i for i, label in enumerate(self.labels)}
        return np.array([index[label] for label in labels], dtype=np.int64)

    def count_correct(self, predictions: Predictions) -> tuple[int, int]:
        """Return how many answers are correct, and of how many: all labels, or the texts that were written."""
        pairs = list(zip(self.targets, predictions.answers, strict=True))
        if self.labels:
            return sum(target == answer for target, answer in pairs), len(pairs)
        return sum(rouge_l(*pair) >= SAME_TEXT for pair in pairs[:WRITTEN_ROWS]), len(pairs[:WRITTEN_ROWS])

    def _batches(self, device: torch.device) -> Iterator[tuple[list[int], Batch]]:
        examples = self.held_out.examples
        sizes = [len(e["input_ids"]) if self.labels else max(len(e["input_ids"]), len(e["labels"])) for e in examples]
        budget = micro_batch_tokens(device.type, training_dtype(self.config.precision) != torch.float32)
        pad = int(self.tokenizer.pad_token_id)
        return padded_batches(examples, np.array(sizes, np.int32), pad, budget, device)

    def _classify(
        self, score: Callable[[Batch], torch.Tensor], labels: Sequence[str], device: torch.device
    ) -> Predictions:
        """`score`: a batch -> (rows, labels), which softmax makes into probabilities."""
        rows = self.held_out.kept
        answers, loss = [""] * len(rows), np.zeros(len(rows))
        expected = [labels.index(row["target"]) for row in rows]
        for group, batch in self._batches(device):
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            scores = score(inputs).float().log_softmax(-1)
            for i, row, best in zip(group, scores.tolist(), scores.argmax(-1).tolist(), strict=True):
                answers[i], loss[i] = labels[best], -row[expected[i]]
        return Predictions(answers, loss, np.ones(len(rows)))

    def _write(self, net: Any) -> Predictions:  # noqa: ANN401 - as above
        """Return the loss of every row, and greedy answers to the first of them."""
        examples = self.held_out.examples
        loss, tokens = np.zeros(len(examples)), np.zeros(len(examples))
        for group, batch in self._batches(net.device):
            each, rows = token_losses(net, batch)
            loss[group] = np.bincount(rows.cpu(), each.double().cpu(), len(group))
            tokens[group] = np.bincount(rows.cpu(), minlength=len(group))
        answers = self._answers(net, examples[:WRITTEN_ROWS])
        return Predictions(answers + [""] * (len(examples) - len(answers)), loss, tokens)

    def _answers(self, net: Any, examples: Sequence[Example]) -> list[str]:  # noqa: ANN401 - as above
        """Return greedy answers, rows of similar length in one padded batch."""
        both = net.config.is_encoder_decoder
        answers = [""] * len(examples)
        ids = [question(example, both) for example in examples]
        lengths = np.array([len(asked) + WRITTEN_TOKENS for asked in ids], np.int32)
        longest = window(net.config, self.tokenizer)
        for group in micro_batches(range(len(ids)), lengths, WRITING_TOKENS):
            asked = {"input_ids": [ids[i] for i in group]}
            side = "right" if both else "left"
            batch = self.tokenizer.pad(asked, padding_side=side, return_tensors="pt").to(net.device)
            width = batch["input_ids"].shape[1]
            out = net.generate(
                **batch,
                max_new_tokens=WRITTEN_TOKENS if both else max(1, min(WRITTEN_TOKENS, longest - width)),
                num_beams=1,
                do_sample=False,
                temperature=None,
                top_p=None,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            texts = self.tokenizer.batch_decode(out[:, 0 if both else width :], skip_special_tokens=True)
            for i, text in zip(group, texts, strict=True):
                answers[i] = text.strip()
        return answers


def own_labels(model: Model, labels: list[str]) -> list[str]:
    """Return the rows' labels in the order of the base's own trained head; empty where it has none for them."""
    architecture = next(iter(model.config.get("architectures") or ()), "")
    names = model.config.get("id2label") or {}
    mine = {label.casefold(): label for label in labels}
    heads = [str(names[key]).casefold() for key in sorted(names, key=int)]
    if not architecture.endswith("ForSequenceClassification") or sorted(heads) != sorted(mine):
        return []
    return [mine[name] for name in heads]


def question(example: Example, encoder_decoder: bool) -> list[int]:
    """Return the part of an encoded row that a model is asked: everything before its last answer."""
    if encoder_decoder:
        return list(example["input_ids"])
    return list(example["input_ids"][: last_answer([label != IGNORED for label in example["labels"]])])


def rouge_l(target: str, answer: str) -> float:
    """Return the F-measure of ROUGE-L (Lin, 2004), 0 to 1."""
    return float(_scorer().score(target, answer)["rougeL"].fmeasure)


class _WordTokenizer:
    """Words of any script for ROUGE, whose own tokenizer knows a-z and 0-9 only; Chinese and Japanese by character."""

    def tokenize(self, text: str) -> list[str]:
        """Return lower-case words."""
        return WORD.findall(text.lower())


@cache
def _scorer() -> Any:  # noqa: ANN401 - a RougeScorer
    # Only where there are texts to compare: with nltk behind it, it is 60 MB and a second.
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

    return RougeScorer(["rougeL"], tokenizer=_WordTokenizer())
