"""The `lm` that a plugin's `predict` receives: it asks one version on its base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from errors import InputError, Text
from models.chat_template import Message, as_text
from settings import Settings
from store.adapters import BASE, Version
from tasks import MOST_LABELS, TabSpec

if TYPE_CHECKING:
    from serving.base.slots import Slot
    from serving.classifier import Classifier
    from serving.generation.request_queue import Request
    from serving.loaded import Loaded


class LM:
    """A language model for one request. Texts are strings, probabilities 0 to 1.

    Raises `InputError` for input that cannot be answered.
    """

    def __init__(
        self,
        settings: Settings,
        spec: TabSpec,
        loaded: Loaded,
        slot: Slot | None,
        base: str,
        own_classifier: Callable[[], Classifier],
        lender: Version | None = None,
    ) -> None:
        """`base` is the name of the base that is `loaded`; `own_classifier` returns that of the tab's own base.

        `lender`: version whose labels are offered to a base that has none, unless the caller gives labels.
        """
        self.notes = list[str]()
        """Notes for the reader of the answer."""
        self._settings, self._spec, self._loaded, self._slot = settings, spec, loaded, slot
        self._own_classifier, self._lender = own_classifier, lender
        self._source = (slot.version.ref if slot else BASE, base)
        self._asked: Mapping[str, Any] = {}
        self._request: Request | None = None

    @property
    def version(self) -> str:
        """Version that gave the last answer, or will give the first one: `name@7`, or base."""
        return self._source[0]

    @property
    def base(self) -> str:
        """Base that gave the last answer, or will give the first one."""
        return self._source[1]

    @property
    def asked(self) -> Mapping[str, Any]:
        """Last question, with the keys of a training row: text, or messages."""
        return self._asked

    @property
    def before(self) -> int:
        """Number of requests ahead of the last question in the queue; 0 while it is being answered."""
        return self._loaded.generator.queue.ahead(self._request) if self._request else 0

    def classify(self, text: str, labels: Sequence[str] | None = None) -> dict[str, float]:
        """Return the probability of each label: the version's own, or the given ones by similarity of meaning.

        Given labels are answered by the tab's own base, since no version was trained on them.
        """
        check_text(self._settings, text)
        self._asked = {"text": text}
        classifier = self._loaded.classifier
        if labels is None and self._lender and self._slot is None and not classifier.has_labels:
            labels = self._lender.labels
            template = "The base has no labels of its own: it was asked those of {version}."
            self.notes.append(Text(template, version=self._lender.ref))
        if labels is None:
            self.notes += classifier.notes(text)
            return classifier.classify(text, self._slot)
        if not 2 <= len(set(labels)) <= MOST_LABELS:
            raise InputError(
                Text("Your own labels must be 2 to {most} different ones.", most=MOST_LABELS),
                Text("There are {n}.", n=f"{len(set(labels)):,}"),
                "Separate them by commas, for example: billing, bug, praise.",
            )
        self._source = (BASE, self._spec.model)
        return self._own_base(text).zero_shot(text, list(dict.fromkeys(labels)))

    def embed(self, text: str) -> list[float]:
        """Return the sentence embedding of the tab's own base: a vector of length 1."""
        check_text(self._settings, text)
        return list(self._own_base(text).embed(text).tolist())

    def generate(self, text: str, **sampling: Any) -> Iterator[str]:  # noqa: ANN401 - the fields of SamplingParams
        """Yield the growing answer to `text`, in the prompt that the version was trained with, or else in the tab's."""
        check_text(self._settings, text)
        self._asked = {"text": text}
        prompt = self._slot.version.manifest.get("prompt", "") if self._slot else self._spec.prompt
        generator = self._loaded.generator
        return self._stream(generator.text_request(text, prompt, generator.params(**sampling), self._slot))

    def chat(self, messages: Sequence[Message], **sampling: Any) -> Iterator[str]:  # noqa: ANN401 - as above
        """Yield the growing next turn of a conversation of {"role", "content"} messages."""
        check_text(self._settings, as_text(messages[-1]["content"]) if messages else "")
        self._asked = {"messages": [{"role": str(m["role"]), "content": as_text(m["content"])} for m in messages]}
        generator = self._loaded.generator
        return self._stream(generator.chat_request(messages, generator.params(**sampling), self._slot))

    def _stream(self, request: Request) -> Iterator[str]:
        check_new_tokens(self._settings, request.params.max_new_tokens)
        self.notes += request.notes
        request.notes = self.notes  # for a note that comes with the end
        self._request = request
        return self._loaded.generator.stream(request)

    def _own_base(self, text: str) -> Classifier:
        """Return the classifier of the tab's own base; adds a note if it truncates the text."""
        classifier = self._own_classifier()
        self.notes += classifier.notes(text)
        return classifier


def check_text(settings: Settings, text: Any) -> None:  # noqa: ANN401 - whatever a caller sent
    """Raise `InputError` for text that is empty or longer than the settings allow."""
    if not str(text or "").strip():
        raise InputError("There is no text.", "The input is empty.", "Type or paste a text, or click an example.")
    if len(str(text)) > settings.text_length:
        template = "It has {n} characters; the limit is {limit}."
        why = Text(template, n=f"{len(text):,}", limit=f"{settings.text_length:,}")
        raise InputError("The text is too long.", why, "Paste a part of it.")


def check_new_tokens(settings: Settings, tokens: float) -> None:
    """Raise `InputError` for an answer that may have more tokens than the settings allow."""
    if tokens > settings.new_tokens:
        why = Text("The limit is {limit} tokens (GRAFT_NEW_TOKENS).", limit=f"{settings.new_tokens:,}")
        raise InputError("The answer would be too long.", why, "Ask for a shorter one.")
