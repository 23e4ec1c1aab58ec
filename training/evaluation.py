"""The same held-out rows through base, live version and new one, and what changed: the card's figures."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer
from torch import nn
from transformers import BatchEncoding, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from store.embedding import mean_vectors, similarity_probabilities
from store.loading import computing, training_dtype, window
from store.prompts import neutralize
from training.config import TrainConfig
from training.encoding import IGNORED, Encoded, Example, conversation, last_answer

ANSWERS_WRITTEN = 12
"""Held-out rows whose answers are generated for the card; the loss is of all of them."""
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
LONGEST_ANSWER = 96


@dataclass(frozen=True)
class Outcome:
    """One contender's figures over the held-out rows, and its answer to each row (empty where none was written)."""

    figures: dict[str, float]
    answers: list[str]


@dataclass(frozen=True)
class Trial:
    """The held-out rows, to be put to one model after another."""

    held_out: Encoded
    tokenizer: PreTrainedTokenizerBase
    labels: list[str]
    config: TrainConfig

    @torch.inference_mode()
    def of(self, net: Any) -> Outcome:  # noqa: ANN401 - a PreTrainedModel, or PEFT around one
        """What a model with a head of its own, or one that writes, makes of the rows."""
        net.eval()
        with computing(training_dtype(self.config.precision)):
            return (
                self._write(net)
                if not self.labels
                else self._labelled(lambda b: net(**b).logits.argmax(-1), net.device)
            )

    @torch.inference_mode()
    def of_bare_encoder(self, body: nn.Module) -> Outcome:
        """What an encoder without a head makes of them: each row's label is the most similar in meaning."""
        body.eval()
        device = next(body.parameters()).device

        def vectors(batch: BatchEncoding) -> torch.Tensor:
            return mean_vectors(body(**batch).last_hidden_state, batch["attention_mask"])

        names = vectors(self._batch(self.labels, device))
        return self._labelled(lambda b: similarity_probabilities(vectors(b), names).argmax(-1), device)

    def _labelled(self, choose: Callable[[BatchEncoding], torch.Tensor], device: torch.device) -> Outcome:
        answers: list[str] = []
        for rows in _batches(self.held_out.kept, 16):
            best = choose(self._batch([row["text"] for row in rows], device)).tolist()
            answers += [self.labels[i] for i in best]
        return Outcome(label_figures([row["target"] for row in self.held_out.kept], answers), answers)

    def _batch(self, texts: list[str], device: torch.device) -> BatchEncoding:
        limit = self.config.max_length
        texts = [neutralize(self.tokenizer, text) for text in texts]
        return self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)

    def _write(self, net: Any) -> Outcome:  # noqa: ANN401 - as above
        """Loss over every learned token of the rows, and ROUGE-L of the answers to the first of them."""
        loss = self._loss(net)
        written = [self._answers(net, some) for some in _batches(self.held_out.examples[:ANSWERS_WRITTEN], 6)]
        answers = [answer for batch in written for answer in batch]
        targets = [conversation(row, self.config.prompt)[-1]["content"] for row in self.held_out.kept]
        figures = {"loss": loss, "perplexity": math.exp(min(loss, 50)), "rouge_l": rouge_l(targets, answers)}
        return Outcome(figures, answers + [""] * (len(targets) - len(answers)))

    def _loss(self, net: Any) -> float:  # noqa: ANN401 - as above
        """Mean negative log-likelihood of the learned tokens, in nats."""
        total, count = 0.0, 0
        collate = DataCollatorForSeq2Seq(self.tokenizer, label_pad_token_id=IGNORED)
        self.tokenizer.padding_side = "right"
        for some in _batches(self.held_out.examples, 4):
            batch = collate([dict(example) for example in some]).to(net.device)
            learned = int((batch["labels"] != IGNORED).sum())
            total += float(net(**batch).loss) * learned
            count += learned
        return total / max(count, 1)

    def _answers(self, net: Any, some: Sequence[Example]) -> list[str]:  # noqa: ANN401 - as above
        """Greedy answers to a few rows, as one padded batch."""
        ids = [question(example, net.config.is_encoder_decoder) for example in some]
        room = window(net.config, self.tokenizer) - max(len(asked) for asked in ids)
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


def question(example: Example, encoder_decoder: bool) -> list[int]:
    """What a model is asked of an encoded row: everything before its last answer."""
    if encoder_decoder:
        return list(example["input_ids"])
    return list(example["input_ids"][: last_answer([label != IGNORED for label in example["labels"]])])


def label_figures(targets: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels with equal weight (macro)."""
    right = sum(t == a for t, a in zip(targets, answers, strict=True))
    hits = Counter(t for t, a in zip(targets, answers, strict=True) if t == a)
    wanted, given = Counter(targets), Counter(answers)
    f1 = [2 * hits[label] / (wanted[label] + given[label]) for label in wanted]
    return {"accuracy": right / len(targets), "macro_f1": sum(f1) / len(f1)}


def rouge_l(targets: Sequence[str], answers: Sequence[str]) -> float:
    """Mean ROUGE-L F-measure (Lin, 2004) of the answers that were written, 0..1."""
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    scores = [scorer.score(t, a)["rougeL"].fmeasure for t, a in zip(targets, answers, strict=False)]
    return sum(scores) / len(scores) if scores else 0.0


class _Words:
    """Words of any script for ROUGE, whose own tokenizer knows a-z and 0-9 only; Chinese and Japanese by character."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words."""
        return WORD.findall(text.lower())


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
