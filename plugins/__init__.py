"""The plugin contract: one file in this folder, one class, one tab.

Facts are class attributes, work is one method. From them a tab gets its page, its API endpoint, the choice of adapter
in each request, training on its columns, and new versions as they are published, without a line of its own.

Plugins are trusted code: they run with everything that the Graft process may do. `docs` for authors: README.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from gradio.i18n import I18nData

from errors import PluginError
from serving.lm import LM
from tasks import TASKS, Columns, TabSpec

if TYPE_CHECKING:
    from gradio.components import Component

__all__ = ["LM", "Columns", "OwnModel", "TaskPlugin"]


@dataclass
class OwnModel:
    """What `predict` receives in place of an `LM` when a plugin brings a module of its own."""

    module: Any
    """What `load()` returned."""
    base: str
    version: str = "own"
    notes: list[str] = field(default_factory=list)
    """What the reader must know about an answer; shown under it."""


class TaskPlugin:
    """Base class of every tab.

    A plugin names a base `model`, its `task` and the `columns` it learns from; or it overrides `load()` and brings a
    torch module of its own, and then has its page and endpoint, but no versions: no training, correcting or comparing.
    """

    name: ClassVar[str] = ""
    """The tab's name in the API and on disk: lower case letters, digits and underscores."""
    title: ClassVar[str] = ""
    """What the tab is called on the page, in English."""
    description: ClassVar[str] = ""
    """One sentence under the title, in English."""
    words: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Translations, by language and English text: {"zh-CN": {"Summarize": "摘要"}}; see `say`."""
    model: ClassVar[str] = ""
    """A Hub id, `id@revision`, or a local folder."""
    task: ClassVar[str] = ""
    """A name in `tasks.TASKS`."""
    columns: ClassVar[Columns | None] = None
    """The columns of a training row."""
    prompt: ClassVar[str] = ""
    """How a row's text is put to a model that answers with text: a template with one `{text}`."""
    examples: ClassVar[Sequence[Sequence[Any]]] = ()
    """Rows for `inputs()`, offered to click."""

    def inputs(self) -> list[Component]:
        """Gradio components whose values `predict` receives, in order."""
        raise NotImplementedError

    def options(self) -> list[Component]:
        """Further components, folded away; their values follow those of `inputs()`."""
        return []

    def outputs(self) -> list[Component]:
        """Gradio components that show what `predict` returns."""
        raise NotImplementedError

    def predict(self, lm: Any, *values: Any) -> Any:  # noqa: ANN401 - whatever the components take and show
        """Answer one request. `lm` is an `LM` bound to one base and one pinned version, or an `OwnModel` for a plugin
        with a `load()` of its own. A generator streams."""
        raise NotImplementedError

    def load(self) -> Any:  # noqa: ANN401 - the plugin's own module
        """Build a module of the plugin's own, once, in the background; `predict` finds it as `lm.module`."""
        return None

    @classmethod
    def say(cls, english: str) -> I18nData | str:
        """A text of the page in the reader's language, if `words` has it; for labels, placeholders and the like."""
        translated = any(english in texts for texts in cls.words.values())
        return I18nData(f"{cls.name}: {english}") if translated else english

    @classmethod
    def spec(cls, models: Mapping[str, str] | None = None) -> TabSpec:
        """The plugin's facts as plain values; `models` may replace the base by the tab's name."""
        return TabSpec(cls.name, (models or {}).get(cls.name, cls.model), cls.task, cls.columns, cls.prompt)

    @classmethod
    def streams(cls) -> bool:
        """Whether answers arrive in pieces."""
        return inspect.isgeneratorfunction(cls.predict)

    @classmethod
    def brings_own(cls) -> bool:
        """Whether the plugin loads a module of its own instead of naming a base."""
        return cls.load is not TaskPlugin.load

    @classmethod
    def check(cls) -> None:
        """Raise `PluginError` naming every fact that is missing or wrong."""
        problems = [f"{m}() is missing." for m in ("inputs", "outputs", "predict") if m not in _defined(cls)]
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


def _defined(cls: type[TaskPlugin]) -> set[str]:
    """Names defined by `cls` or its parents below `TaskPlugin`."""
    return {name for c in cls.__mro__ if issubclass(c, TaskPlugin) and c is not TaskPlugin for name in vars(c)}
