"""Evaluates models on held-out rows: their answers, the loss of the expected ones, and metrics over both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
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
"""A word of any script; a single character in Chinese and Japanese. ROUGE's own tokenizer knows only a-z and 0-9."""
SAME_TEXT = 0.8
"""ROUGE-L from which an answer counts as the expected one."""

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Predictions:
    """Answers of one model to the held-out rows, in their order."""

    answers: list[str]
    """Labels, or texts; empty texts for rows after the first `WRITTEN_ROWS`."""
    loss: Floats
    """Negative log-likelihood of each expected answer, in nats, summed over its tokens."""
    tokens: Floats
    """Number of tokens of each expected answer; 1 for a label."""

    @property
    def row_losses(self) -> list[float]:
        """Mean loss per token, for each row."""
        losses: list[float] = (self.loss / np.maximum(self.tokens, 1)).tolist()
        return losses


@dataclass(frozen=True)
class Evaluation:
    """Held-out rows as tokens of one base, on which models with that base are evaluated."""

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
        max_length: int | None = None,
    ) -> Evaluation:
        """Encode the rows with the prompt of `version`, and if given another base's `tokenizer` and `max_length`.

        Rows whose answer does not fit are dropped.
        """
        prompt = self.config.prompt if version is None or self.labels else str(version.manifest.get("prompt") or "")
        config = replace(self.config, prompt=prompt, max_length=max_length or self.config.max_length)
        if tokenizer is None and config == self.config:
            return self
        tokenizer = tokenizer or self.tokenizer
        held_out = encode_rows(self.held_out.kept, tokenizer, config, self.labels, task)
        return Evaluation(held_out, tokenizer, self.labels, config)

    @torch.inference_mode()
    def predict(self, net: Any, labels: Sequence[str] = ()) -> Predictions:  # noqa: ANN401 - a PreTrainedModel or PeftModel
        """Return a model's predictions; `labels` are those of its head in order, by default the rows' own."""
        net.eval()
        with autocast(training_dtype(self.config.precision)):
            if not self.labels:
                return self._generate(net)
            return self._classify(lambda batch: net(**batch).logits, labels or self.labels, net.device)

    @torch.inference_mode()
    def predict_by_meaning(self, body: nn.Module) -> Predictions:
        """Return the predictions of an encoder without a head: for each row the label with the most similar vector."""
        body.eval()
        device = next(body.parameters()).device

        def vectors(batch: Batch) -> torch.Tensor:
            mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
            return mean_vectors(body(**batch).last_hidden_state, mask)

        with autocast(training_dtype(self.config.precision)):
            texts = neutralize_all(self.tokenizer, self.labels)
            names = vectors(dict(self.tokenizer(texts, padding=True, return_tensors="pt").to(device)))
            return self._classify(
                lambda batch: similarity_probabilities(vectors(batch), names).log(), self.labels, device
            )

    def predict_without_adapter(self, model: Model, load: Callable[[bool], Any]) -> tuple[Predictions, str]:
        """Return the predictions of a base alone, and how they were made: `writing`, `head` or `meaning`.

        `load(with_head)` returns the base. Labels are chosen by its own head if that was trained on the rows' labels,
        otherwise by the meaning of their names.
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
                "accuracy": metrics.mean(targets == answers),
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
        """Return the number of correct answers, and the number of all: labels, or texts that were generated."""
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
        """Classify all rows; `score` maps a batch to logits of shape (rows, labels)."""
        rows = self.held_out.kept
        answers, loss = [""] * len(rows), np.zeros(len(rows))
        expected = [labels.index(row["target"]) for row in rows]
        for group, batch in self._batches(device):
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            scores = score(inputs).float().log_softmax(-1)
            for i, row, best in zip(group, scores.tolist(), scores.argmax(-1).tolist(), strict=True):
                answers[i], loss[i] = labels[best], -row[expected[i]]
        return Predictions(answers, loss, np.ones(len(rows)))

    def _generate(self, net: Any) -> Predictions:  # noqa: ANN401 - as above
        """Return the loss of every row, and greedy answers to the first `WRITTEN_ROWS`."""
        examples = self.held_out.examples
        loss, tokens = np.zeros(len(examples)), np.zeros(len(examples))
        for group, batch in self._batches(net.device):
            each, rows = token_losses(net, batch)
            loss[group] = np.bincount(rows.cpu(), each.double().cpu(), len(group))
            tokens[group] = np.bincount(rows.cpu(), minlength=len(group))
        answers = self._answers(net, examples[:WRITTEN_ROWS])
        return Predictions(answers + [""] * (len(examples) - len(answers)), loss, tokens)

    def _answers(self, net: Any, examples: Sequence[Example]) -> list[str]:  # noqa: ANN401 - as above
        """Return greedy answers, generated in padded batches of rows of similar length."""
        seq2seq = net.config.is_encoder_decoder
        answers = [""] * len(examples)
        ids = [question(example, seq2seq) for example in examples]
        lengths = np.array([len(asked) + WRITTEN_TOKENS for asked in ids], np.int32)
        longest = window(net.config, self.tokenizer)
        for group in micro_batches(range(len(ids)), lengths, WRITING_TOKENS):
            asked = {"input_ids": [ids[i] for i in group]}
            side = "right" if seq2seq else "left"
            batch = self.tokenizer.pad(asked, padding_side=side, return_tensors="pt").to(net.device)
            width = batch["input_ids"].shape[1]
            out = net.generate(
                **batch,
                max_new_tokens=WRITTEN_TOKENS if seq2seq else max(1, min(WRITTEN_TOKENS, longest - width)),
                num_beams=1,
                do_sample=False,
                temperature=None,
                top_p=None,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            texts = self.tokenizer.batch_decode(out[:, 0 if seq2seq else width :], skip_special_tokens=True)
            for i, text in zip(group, texts, strict=True):
                answers[i] = text.strip()
        return answers


def own_labels(model: Model, labels: list[str]) -> list[str]:
    """Return `labels` in the order of the base's own head; empty where it was not trained on just these."""
    architectures, names = model.config.get("architectures") or [""], model.config.get("id2label") or {}
    by_name = {label.casefold(): label for label in labels}
    head = [str(names[key]).casefold() for key in sorted(names, key=int)]
    if architectures[0].endswith("ForSequenceClassification") and sorted(head) == sorted(by_name):
        return [by_name[name] for name in head]
    return []


def question(example: Example, encoder_decoder: bool) -> list[int]:
    """Return the tokens of an encoded row that come before its last answer."""
    answer = None if encoder_decoder else last_answer([label != IGNORED for label in example["labels"]])
    return list(example["input_ids"][:answer])


def rouge_l(target: str, answer: str) -> float:
    """Return the F-measure of ROUGE-L (Lin, 2004), 0 to 1."""
    return float(_scorer().score(target, answer)["rougeL"].fmeasure)


@cache
def _scorer() -> Any:  # noqa: ANN401 - a RougeScorer
    # Only where there are texts to compare: with nltk behind it, it is 60 MB and a second.
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

    return RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=lambda text: WORD.findall(text.lower())))
