"""What a plugin's `predict` receives: one base and one pinned version, and everything that can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from errors import InputError
from models.chat_template import Message, as_text
from serving.generation.sampling import Place, Sampling
from settings import Settings
from store.adapters import BASE
from tasks import MOST_LABELS, TabSpec

if TYPE_CHECKING:
    from serving.base.slots import Slot
    from serving.classifier import Labels
    from serving.generation.generator import Generator
    from store.adapters import Version


class LM:
    """A language model for the length of one request. `version` names what answers; `notes` what the reader must know.

    `base` is the one that the version was made for, and where no version answers the tab's own. Texts are strings,
    probabilities 0..1. Raises `InputError` for what cannot be answered.
    """

    def __init__(
        self,
        settings: Settings,
        spec: TabSpec,
        slot: Slot | None,
        labels: Labels,
        text: Generator,
        base: str,
        own: Callable[[], Labels],
    ) -> None:
        """`labels` and `text` are those of `base`; `own` gives the labels of the tab's own base."""
        self.base, self.notes, self._settings = base, list[str](), settings
        self._spec, self._slot, self._labels, self._text, self._own = spec, slot, labels, text, own
        self.version = slot.version.ref if slot else BASE
        self.asked: dict[str, Any] = {}
        """What was asked last, as the row of a training file has it: text, or messages."""
        self.lender: Version | None = None
        """The version whose labels a base is asked that has none, where no others are given."""
        self._place = Place()

    @property
    def before(self) -> int:
        """How many requests wait before the one that was asked last; 0 when it is being answered."""
        return self._place.ask()

    def classify(self, text: str, labels: Sequence[str] | None = None) -> dict[str, float]:
        """Labels with probabilities: the version's own, or the given ones by similarity of meaning (by the base)."""
        check_text(self._settings, text)
        self.asked = {"text": text}
        if labels is None and self.lender and self._slot is None and not self._labels.known:
            self.notes.append(f"The base has no labels of its own: it was asked those of {self.lender.ref}.")
            return self._by_meaning(text, self.lender.labels)
        if labels is None:
            self.notes += self._labels.notes(text)
            return self._labels.classify(text, self._slot)
        if not 2 <= len(set(labels)) <= MOST_LABELS:
            raise InputError(
                f"Your own labels must be 2 to {MOST_LABELS} different ones.",
                f"There are {len(set(labels)):,}.",
                "Separate them by commas, for example: billing, bug, praise.",
            )
        # No version knows these labels, so the tab's own base answers.
        self.version, self.base = BASE, self._spec.model
        return self._by_meaning(text, list(dict.fromkeys(labels)))

    def _by_meaning(self, text: str, labels: Sequence[str]) -> dict[str, float]:
        return self._by_own(text).zero_shot(text, labels)

    def embed(self, text: str) -> list[float]:
        """The sentence embedding of the tab's own base: a vector of length 1."""
        check_text(self._settings, text)
        return list(self._by_own(text).embed(text).tolist())

    def _by_own(self, text: str) -> Labels:
        own = self._own()
        self.notes += own.notes(text)
        return own

    def generate(self, text: str, **sampling: Any) -> Iterator[str]:  # noqa: ANN401 - the fields of Sampling
        """The answer to `text`, put through the tab's prompt or the one the version was trained with; grows."""
        check_text(self._settings, text)
        self.asked = {"text": text}
        prompt = self._slot.version.manifest.get("prompt", "") if self._slot else self._spec.prompt
        return self._text.generate(text, prompt, self._sampling(sampling), self._slot, self.notes, self._place)

    def chat(self, messages: Sequence[Message], **sampling: Any) -> Iterator[str]:  # noqa: ANN401 - as above
        """The next turn of a conversation of {"role", "content"} messages; grows."""
        check_text(self._settings, as_text(messages[-1]["content"]) if messages else "")
        self.asked = {"messages": [{"role": str(m["role"]), "content": as_text(m["content"])} for m in messages]}
        return self._text.chat(messages, self._sampling(sampling), self._slot, self.notes, self._place)

    def _sampling(self, options: Mapping[str, Any]) -> Sampling:
        sampling = Sampling(**options)
        check_new_tokens(self._settings, sampling.max_new_tokens)
        return sampling


def check_text(settings: Settings, text: Any) -> None:  # noqa: ANN401 - whatever a caller sent
    """Raise `InputError` for text that is empty or longer than the settings allow."""
    if not str(text or "").strip():
        raise InputError("There is no text.", "The input is empty.", "Type or paste a text, or click an example.")
    if len(str(text)) > settings.text_length:
        raise InputError(
            "The text is too long.",
            f"It has {len(text):,} characters; the limit is {settings.text_length:,}.",
            "Paste a part of it.",
        )


def check_new_tokens(settings: Settings, tokens: float) -> None:
    """Raise `InputError` for an answer that may have more tokens than the settings allow."""
    if tokens > settings.new_tokens:
        why = f"The limit is {settings.new_tokens:,} tokens (GRAFT_NEW_TOKENS)."
        raise InputError("The answer would be too long.", why, "Ask for a shorter one.")
