"""The same held-out rows through one model after another: answers, losses, and the figures that these make."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerBase

from models.chat_template import truncate
from models.loading import computing, mean_vectors, similarity_probabilities, training_dtype
from models.tokenizer import window
from training.config import TrainConfig
from training.data.tokens import IGNORED, Encoded, Example, conversation, last_answer
from training.estimate.training_memory import micro_batch_tokens
from training.loop.batches import collate, micro_batches
from training.loop.losses import token_losses
from training.publish import metrics
from training.publish.metrics import Figure, Floats

ANSWERS_WRITTEN = 12
"""Held-out rows whose answers are generated for the card; the loss is of all of them."""
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
LONGEST_ANSWER = 96
TOKENS_WRITING = 4096
"""Padded tokens of a batch that is written to: each step reads all weights, however many rows it is for."""


@dataclass(frozen=True)
class Outcome:
    """What one contender made of each held-out row, in their order."""

    answers: list[str]
    """Empty where none was written."""
    loss: Floats
    """Negative log-likelihood of the expected answer, in nats, summed over its tokens."""
    tokens: Floats
    """Tokens of the expected answer; 1 for a label."""

    @property
    def row_losses(self) -> list[float]:
        """The mean loss of a token of each row."""
        return [float(value) for value in self.loss / np.maximum(self.tokens, 1)]


@dataclass(frozen=True)
class Trial:
    """The held-out rows, to be put to one model after another."""

    held_out: Encoded
    tokenizer: PreTrainedTokenizerBase
    labels: list[str]
    config: TrainConfig

    @property
    def targets(self) -> list[str]:
        """What is expected of each row."""
        return [conversation(row, self.config.prompt)[-1]["content"] for row in self.held_out.kept]

    @torch.inference_mode()
    def of(self, net: Any, labels: Sequence[str] = ()) -> Outcome:  # noqa: ANN401 - a PreTrainedModel, or PEFT around one
        """What a model that writes makes of the rows, or one with a head for `labels`, by default the rows' own."""
        net.eval()
        with computing(training_dtype(self.config.precision)):
            if not self.labels:
                return self._write(net)
            return self._labelled(lambda batch: net(**batch).logits, labels or self.labels, net.device)

    @torch.inference_mode()
    def of_bare_encoder(self, body: nn.Module) -> Outcome:
        """What an encoder without a head makes of them: each row's label is the most similar in meaning."""
        body.eval()
        device = next(body.parameters()).device

        def vectors(batch: BatchEncoding) -> torch.Tensor:
            return mean_vectors(body(**batch).last_hidden_state, batch["attention_mask"])

        with computing(training_dtype(self.config.precision)):
            names = vectors(self._batch(self.labels, device))
            return self._labelled(
                lambda batch: similarity_probabilities(vectors(batch), names).log(), self.labels, device
            )

    def figures(self, outcome: Outcome) -> dict[str, Figure]:
        """The figures of an outcome by name, each as a function of the rows' weights."""
        if self.labels:
            targets, answers = self.indices(self.targets), self.indices(outcome.answers)
            return {
                "accuracy": metrics.accuracy(targets == answers),
                "macro_f1": metrics.macro_f1(targets, answers, len(self.labels)),
                "log_loss": metrics.mean(outcome.loss),
            }
        loss = metrics.ratio(outcome.loss, outcome.tokens)
        written = [float(bool(i < ANSWERS_WRITTEN)) for i in range(len(outcome.answers))]
        overlap = [rouge_l(t, a) * w for t, a, w in zip(self.targets, outcome.answers, written, strict=True)]
        return {
            "loss": loss,
            "perplexity": lambda weights: np.exp(np.minimum(loss(weights), 50)),
            "rouge_l": metrics.ratio(np.array(overlap), np.array(written)),
        }

    def indices(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Labels by their place among the labels."""
        place = {label: i for i, label in enumerate(self.labels)}
        return np.array([place[label] for label in labels], dtype=np.int64)

    def _labelled(
        self, score: Callable[[BatchEncoding], torch.Tensor], labels: Sequence[str], device: torch.device
    ) -> Outcome:
        """`score`: a batch -> one number for each of `labels`, which softmax makes into probabilities."""
        texts = [row["text"] for row in self.held_out.kept]
        answers, loss = [""] * len(texts), np.zeros(len(texts))
        expected = [labels.index(row["target"]) for row in self.held_out.kept]
        lengths = np.array([len(example["input_ids"]) for example in self.held_out.examples], np.int32)
        for batch in micro_batches(range(len(texts)), lengths, self._at_once(device)):
            scores = score(self._batch([texts[i] for i in batch], device)).float().log_softmax(-1)
            for i, row, best in zip(batch, scores.tolist(), scores.argmax(-1).tolist(), strict=True):
                answers[i], loss[i] = labels[best], -row[expected[i]]
        return Outcome(answers, loss, np.ones(len(texts)))

    def _at_once(self, device: torch.device) -> int:
        return micro_batch_tokens(device.type, training_dtype(self.config.precision) != torch.float32)

    def _batch(self, texts: list[str], device: torch.device) -> BatchEncoding:
        rows = [text.inputs for text in truncate(self.tokenizer, texts, self.config.max_length)]
        return self.tokenizer.pad({key: [row[key] for row in rows] for key in rows[0]}, return_tensors="pt").to(device)

    def _write(self, net: Any) -> Outcome:  # noqa: ANN401 - as above
        """The loss of every row, and greedy answers to the first of them."""
        loss, tokens = self._losses(net)
        answers = self._answers(net, self.held_out.examples[:ANSWERS_WRITTEN])
        return Outcome(answers + [""] * (len(loss) - len(answers)), loss, tokens)

    def _losses(self, net: Any) -> tuple[Floats, Floats]:  # noqa: ANN401 - as above
        """The summed loss of each row's learned tokens, in nats, and how many these are."""
        examples, pad = self.held_out.examples, int(self.tokenizer.pad_token_id)
        lengths = np.array([max(len(e["input_ids"]), len(e["labels"])) for e in examples], np.int32)
        loss, tokens, widest = np.zeros(len(examples)), np.zeros(len(examples)), int(lengths.max(initial=0))
        for group in micro_batches(range(len(examples)), lengths, self._at_once(net.device)):
            batch = {k: v.to(net.device) for k, v in collate([examples[i] for i in group], pad, widest).items()}
            each, rows = token_losses(net, batch)
            loss[group] = np.bincount(rows.cpu(), each.double().cpu(), len(group))
            tokens[group] = np.bincount(rows.cpu(), minlength=len(group))
        return loss, tokens

    def _answers(self, net: Any, some: Sequence[Example]) -> list[str]:  # noqa: ANN401 - as above
        """Greedy answers to a few rows, rows of like length in one padded batch."""
        found = [""] * len(some)
        ids = [question(example, net.config.is_encoder_decoder) for example in some]
        longest = window(net.config, self.tokenizer)
        lengths = np.array([len(asked) + LONGEST_ANSWER for asked in ids], np.int32)
        for batch in micro_batches(range(len(ids)), lengths, TOKENS_WRITING):
            texts = self._continue(net, [ids[i] for i in batch], longest - max(len(ids[i]) for i in batch))
            for i, text in zip(batch, texts, strict=True):
                found[i] = text
        return found

    def _continue(self, net: Any, ids: list[list[int]], room: int) -> list[str]:  # noqa: ANN401 - as above
        side = "right" if net.config.is_encoder_decoder else "left"
        batch = self.tokenizer.pad({"input_ids": ids}, padding_side=side, return_tensors="pt").to(net.device)
        out = net.generate(
            **batch,
            max_new_tokens=LONGEST_ANSWER if net.config.is_encoder_decoder else max(1, min(LONGEST_ANSWER, room)),
            num_beams=1,
            do_sample=False,
            temperature=None,
            top_p=None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        start = 0 if net.config.is_encoder_decoder else batch["input_ids"].shape[1]
        return [text.strip() for text in self.tokenizer.batch_decode(out[:, start:], skip_special_tokens=True)]


def measured(found: Mapping[str, Figure], rows: int) -> dict[str, float]:
    """The figures over all the rows."""
    return {name: metrics.measure(figure, rows) for name, figure in found.items()}


def question(example: Example, encoder_decoder: bool) -> list[int]:
    """What a model is asked of an encoded row: everything before its last answer."""
    if encoder_decoder:
        return list(example["input_ids"])
    return list(example["input_ids"][: last_answer([label != IGNORED for label in example["labels"]])])


def rouge_l(target: str, answer: str) -> float:
    """ROUGE-L F-measure (Lin, 2004), 0..1."""
    return float(_scorer().score(target, answer)["rougeL"].fmeasure)


class _Words:
    """Words of any script for ROUGE, whose own tokenizer knows a-z and 0-9 only; Chinese and Japanese by character."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words."""
        return WORD.findall(text.lower())


@cache
def _scorer() -> Any:  # noqa: ANN401 - a RougeScorer
    # Only where there are texts to compare: with nltk behind it, it is 60 MB and a second.
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

    return RougeScorer(["rougeL"], tokenizer=_Words())
