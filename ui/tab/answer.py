"""How a plugin answers a request on the page: bound to a version, with the badge of what answered."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from errors import AdapterError, InputError
from plugins import OwnModel, TaskPlugin
from serving.lm import check_new_tokens
from settings import Settings
from store.adapters import BASE, LIVE
from ui.context import Context, own_key
from ui.i18n import Words, asked
from ui.pulse import chosen_of
from ui.tab.correct import record
from ui.train.continue_from import label


def check(settings: Settings, given: Mapping[str, Any]) -> None:
    """Raise `InputError` for the arguments of a tab's `predict` where they are beyond the settings."""
    said = sum(len(text) for text in _texts(list(given.values())))
    if said > settings.text_length:
        why = f"It says {said:,} characters; the limit is {settings.text_length:,} (GRAFT_TEXT_LENGTH)."
        raise InputError("This is too long.", why, "Shorten it, or begin a new conversation.")
    tokens = given.get("max_new_tokens")
    if isinstance(tokens, int | float):
        check_new_tokens(settings, tokens)


def _texts(waiting: list[Any]) -> Iterator[str]:
    """Every text at any depth, without recursion."""
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)


ADAPTER_SCHEMA = {"type": "string", "additional_description": "live, base, a name, or a version such as name@7"}


def described(handler: Callable[..., Any], parameters: Sequence[inspect.Parameter], *more: str) -> Callable[..., Any]:
    """`handler` with the signature that its API shows: the arguments of `predict`, and `more` behind them."""
    # Every argument can be left out by an API caller; what is None then gets predict's own default.
    names = [*(p.name for p in parameters), *more]
    shown = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for n in names]
    handler.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    handler.__annotations__ = {}
    handler.predicts = [str(p) for p in parameters]  # type: ignore[attr-defined]
    return handler


def fill(parameters: Sequence[inspect.Parameter], given: Sequence[Any]) -> dict[str, Any]:
    """The arguments of `predict` by name, without those that were left out and have a default."""
    pairs = zip(parameters, given, strict=True)
    return {p.name: value for p, value in pairs if value is not None or p.default is p.empty}


def answers(
    context: Context, name: str, filled: dict[str, Any], adapter: str, bound: Callable[[Any], None] = lambda lm: None
) -> Generator[list[Any], None, None]:
    """The outputs of a tab as they grow, each time with the badge and what a correction needs behind them.

    `bound` is told what answers, before it is asked. Raises `GraftError`.
    """
    start, say = time.monotonic(), asked()
    context.load_models()
    plugin = context.plugin(name)
    check(context.settings, filled)
    with _bound(context, plugin, adapter) as lm:
        bound(lm)
        result = plugin.predict(lm, **filled)
        for value in result if inspect.isgenerator(result) else [result]:
            outputs = list(value) if isinstance(value, tuple) else [value]
            milliseconds = round(1000 * (time.monotonic() - start))
            badge = {
                "version": lm.version,
                "base": lm.base,
                "ms": milliseconds,
                "notes": [say.sentence(note) for note in lm.notes],
            }
            yield [*outputs, badge, record(lm, outputs, filled)]


def choices_of(context: Context, name: str) -> Callable[[Words, str | None], list[Any]]:
    """Gives the adapter menu its choices as they are now."""

    def choices(say: Words, chosen: str | None) -> list[Any]:
        return [chosen_of(menu(context, name, say), chosen, LIVE)]

    return choices


def menu(context: Context, name: str, say: Words) -> list[tuple[str, str]]:
    """What can answer in a tab: live, which says what it is now, the base, and each version."""
    live = context.adapters.live(name)
    own = context.spec(name).model
    versions = [(label(v, own), v.ref) for v in context.adapters.versions(name)]
    return [
        (say("task.live", version=label(live, own) if live else say("task.base")), LIVE),
        (say("task.base"), BASE),
        *versions,
    ]


@contextmanager
def _bound(context: Context, plugin: TaskPlugin, adapter: str) -> Iterator[Any]:
    """What `predict` receives: an LM of the pool, or the plugin's own module."""
    if plugin.brings_own():
        yield OwnModel(context.pool.own(own_key(plugin)), plugin.title)
        return
    spec = context.spec(plugin.name)
    if adapter not in (LIVE, BASE) and (version := context.adapters.get(adapter)).plugin != spec.name:
        raise AdapterError(f"{version.ref} is not a version of {spec.name}.", f"It was made for {version.plugin}.")
    with context.pool.open(spec, adapter) as lm:
        yield lm
