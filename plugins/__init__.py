"""The plugin contract: one file in this folder, with one class, is one tab.

Facts are class attributes, and one method answers. The page, the API endpoint, the choice of version in each request,
training and corrections follow from them. Plugins are trusted code: they run with all rights of the Graft process.
For authors: docs/plugins.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gradio.components import Component
from gradio.i18n import I18nData

from errors import PluginError
from serving.lm import LM
from tasks import TASKS, Columns, TabSpec

__all__ = ["LM", "Columns", "OwnModel", "TaskPlugin"]


@dataclass
class OwnModel:
    """The `lm` of a plugin that brings a module of its own."""

    module: Any
    """Returned by `load()`."""
    base: str
    version: str = "own"
    notes: list[str] = field(default_factory=list)
    """Notes for the reader of the answer, shown under it."""


class TaskPlugin:
    """Base class of every tab.

    A plugin names a base `model`, its `task` and the `columns` to train on; or it overrides `load()` and brings a torch
    module of its own, and then has no versions: no training, corrections or comparison.
    """

    name: ClassVar[str] = ""
    """Name in the API and on disk: lower case letters, digits and underscores."""
    title: ClassVar[str] = ""
    """Name on the page, in English."""
    description: ClassVar[str] = ""
    """One sentence under the title, in English."""
    words: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Translations, by language and English text: {"zh-CN": {"Summarize": "摘要"}}; see `say`."""
    model: ClassVar[str] = ""
    """A Hub id, `id@revision`, or a local folder."""
    task: ClassVar[str] = ""
    """A name in `tasks.TASKS`."""
    columns: ClassVar[Columns | None] = None
    """Columns of a training row."""
    prompt: ClassVar[str] = ""
    """Template with one `{text}`, for models that answer with text."""
    examples: ClassVar[Sequence[Sequence[Any]]] = ()
    """Rows of values for `inputs()`, offered to click."""

    def inputs(self) -> list[Component]:
        """Return the Gradio components whose values `predict` receives, in order."""
        raise NotImplementedError

    def options(self) -> list[Component]:
        """Return further components, folded away; their values follow those of `inputs()`."""
        return []

    def outputs(self) -> list[Component]:
        """Return the Gradio components that show what `predict` returns."""
        raise NotImplementedError

    def predict(self, lm: Any, *values: Any) -> Any:  # noqa: ANN401 - whatever the components take and show
        """Answer one request; a generator streams. `lm` is an `LM`, or an `OwnModel` where `load()` is overridden."""
        raise NotImplementedError

    def load(self) -> Any:  # noqa: ANN401 - the plugin's own module
        """Build the plugin's own module, once, in the background; `predict` receives it as `lm.module`."""

    @classmethod
    def say(cls, english: str) -> I18nData | str:
        """Return a label or placeholder that the browser translates, if `words` has it."""
        translated = any(english in texts for texts in cls.words.values())
        return I18nData(f"{cls.name}: {english}") if translated else english

    @classmethod
    def spec(cls, models: Mapping[str, str] | None = None) -> TabSpec:
        """Return the plugin's facts as plain values; `models` may replace the base, by the tab's name."""
        return TabSpec(cls.name, (models or {}).get(cls.name, cls.model), cls.task, cls.columns, cls.prompt)

    @classmethod
    def streams(cls) -> bool:
        """Return whether answers arrive in pieces."""
        return inspect.isgeneratorfunction(cls.predict)

    @classmethod
    def brings_own(cls) -> bool:
        """Return whether the plugin loads a module of its own instead of naming a base."""
        return cls.load is not TaskPlugin.load

    @classmethod
    def check(cls) -> None:
        """Raise `PluginError` naming every fact that is missing or wrong."""
        methods = ("inputs", "outputs", "predict")
        problems = [f"{m}() is missing." for m in methods if getattr(cls, m) is getattr(TaskPlugin, m)]
        problems += [f"{fact} is missing." for fact in ("name", "title") if not getattr(cls, fact)]
        if cls.name and not (cls.name.isidentifier() and cls.name == cls.name.lower()):
            problems.append(f"name={cls.name!r} must be lower case letters, digits and underscores.")
        if cls.name.endswith("_compare"):
            problems.append(f"name={cls.name!r} ends in _compare, which names the endpoint of a comparison.")
        if not cls.brings_own():
            problems += [f"{fact} is missing." for fact in ("model", "task") if not getattr(cls, fact)]
        if cls.task and cls.task not in TASKS:
            problems.append(f"task={cls.task!r} is none of {', '.join(TASKS)}.")
        if cls.prompt and cls.prompt.count("{text}") != 1:
            problems.append("prompt must contain {text} once.")
        if problems:
            raise PluginError(f"The plugin class {cls.__name__} is not complete.", " ".join(problems))
