"""Train: a data set of the Hugging Face Hub, looked up, chosen from, and fetched with progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
from gradio.blocks import Block

from errors import DataError, GraftError
from training.data.files.hub_dataset import DataSet, HubData, HubSplit, parse_hub_id
from ui.context import Context
from ui.html.tags import bar, div, failure, span
from ui.i18n import Words, t, words
from ui.pulse import QUIET, Updates
from ui.web.access import Action

EVERY_S = 0.3
"""Seconds between two updates of a download's progress."""


def hub(context: Context) -> HubData:
    """Return the data sets of the Hub. The owner's token is used on a page that nobody else reaches, and no other."""
    own = context.access.mode == "local"
    return HubData(context.settings, None if own else False)


def place_of(id: str | None, config: str | None = None, split: str | None = None) -> HubSplit:
    """Return the split that values of the form name; raises `DataError`, also for a path of this computer."""
    place = parse_hub_id((id or "").strip(), config or "", split or "", local=False)
    if place is None:
        raise DataError(f"{(id or '')[:100]!r} is not a data set id.", "One looks like owner/name.", "Check it.")
    return place


class _Abandoned(Exception):
    """The page that waited for a download is gone; files that have arrived stay on disk."""


class HubForm:
    """The components, placed where it is constructed, and their handlers."""

    def __init__(self, context: Context) -> None:
        """Place the components."""
        self._context = context
        self._id = gr.Textbox(label=t("hub.id"), info=t("hub.id_info"), max_lines=1)
        self._look = gr.Button(t("hub.look"), size="sm")
        menu = partial(gr.Dropdown, [], visible=False, interactive=True, allow_custom_value=True)
        with gr.Row(elem_classes="g-mapping"):
            self._config, self._split = (menu(label=t(f"hub.{name}"), min_width=120) for name in ("config", "split"))
        self._held_out = menu(label=t("hub.held_out"), info=t("hub.held_out_info"))
        self._message = gr.HTML("")
        self._fetch, self._stop = (gr.Button(t(f"hub.{key}"), visible=False, size="sm") for key in ("fetch", "stop"))
        self._stopped: set[str] = set()
        """Sessions of pages that have asked their download to stop."""
        named = {"id": self._id, "config": self._config, "split": self._split, "held_out": self._held_out}
        self.inputs: dict[str, Block] = {**named}
        """Components whose values name rows, by the name of the value."""

    def connect(self, then: Callable[[Any], None]) -> None:
        """Connect the components; `then` is given each event after which other rows are chosen."""
        allow = partial(self._context.allow, Action.TRAIN)
        outputs = [self._config, self._split, self._held_out, self._message, self._fetch, self._stop]
        options: dict[str, Any] = {"outputs": outputs, "api_visibility": "private", "show_progress": "hidden"}
        connect = partial(gr.on, inputs_kwargs=self.inputs, trigger_mode="once", **options)
        then(connect([self._look.click, self._id.submit], allow(self._look_up)))
        # Another configuration has other splits; the first is chosen.
        of_config = {name: self.inputs[name] for name in ("id", "config")}
        then(connect(self._config.input, allow(self._choose), inputs_kwargs=of_config))
        for chosen in (self._split, self._held_out):
            then(connect(chosen.input, allow(self._choose)))
        then(connect(self._fetch.click, allow(self._download)))
        self._stop.click(allow(self._end), **QUIET)

    def values(self, named: Mapping[str, str], held_out: str = "") -> Updates:
        """Return updates that show a split as a run's configuration keeps it; an empty one clears the form."""
        id, revision = named.get("id", ""), named.get("revision")
        menus = {self._config: named.get("config", ""), self._split: named.get("split", ""), self._held_out: held_out}
        chosen = {menu: _choices([value] if value else [], value) for menu, value in menus.items()}
        return {self._id: f"{id}@{revision}" if revision else id, **chosen}

    def _look_up(self, request: gr.Request, id: str, **others: str | None) -> Updates:
        """Show the configurations and splits of the data set that was typed."""
        try:
            place = place_of(id)
            found = hub(self._context).look_up(place)
            configs = _choices(list(found.layout), found.choose(place).config)
            return {self._config: configs, **self._shown(words(request), found, place)}
        except GraftError as error:
            menus = dict.fromkeys((self._config, self._split, self._held_out), gr.update(visible=False, value=None))
            return {**menus, self._message: failure(error), **self._buttons()}

    def _choose(
        self, request: gr.Request, id: str, config: str, split: str | None = None, held_out: str | None = None
    ) -> Updates:
        """Show what there is to fetch of the chosen splits."""
        place = place_of(id, config, split)
        return self._shown(words(request), self._known(place), place, held_out)

    def _download(
        self, request: gr.Request, id: str, config: str | None, split: str | None, held_out: str | None
    ) -> Iterator[Updates]:
        """Download the rows, with progress, until they are here or the page asks to stop."""
        say, place, session = words(request), place_of(id, config, split), str(request.session_hash)
        fetched, abandoned = 0.0, False

        def progress(phase: str, fraction: float | None) -> None:
            nonlocal fetched
            fetched = fraction or 0.0
            if abandoned:
                raise _Abandoned

        pool = ThreadPoolExecutor(1, thread_name_prefix="hub-fetch")
        coming = pool.submit(hub(self._context).fetch_both, place, held_out or "", progress)
        pool.shutdown(wait=False)
        try:
            while not coming.done() and session not in self._stopped:
                shown = div("g-phase", span("", say("hub.fetching", n=f"{100 * fetched:.0f}")), bar(fetched))
                yield {self._message: shown, **self._buttons(stop=True)}
                time.sleep(EVERY_S)
            if coming.done():
                coming.result()
            yield self._shown(say, self._known(place), place, held_out)
        except GraftError as error:
            yield {self._message: failure(error), **self._buttons(fetch=True)}
        finally:
            abandoned = True
            self._stopped.discard(session)

    def _end(self, request: gr.Request) -> None:
        """Have the download of this page end itself, so that its last update is the one that stays."""
        self._stopped.add(str(request.session_hash))

    def _known(self, place: HubSplit) -> DataSet:
        """Return the data set as it was last looked up, or else look it up."""
        return hub(self._context).noted(place) or hub(self._context).look_up(place)

    def _shown(self, say: Words, found: DataSet, place: HubSplit, held_out: str | None = None) -> Updates:
        """Return updates with the splits, those to compare on, and the files to fetch of the chosen ones."""
        chosen = found.choose(place)
        splits = {split: replace(chosen, split=split) for split in found.layout[chosen.config]}
        sizes = [(f"{split} · {_megabytes(found.size(one))}", split) for split, one in splits.items()]
        others = [(say("hub.share"), ""), *(one for one in sizes if one[1] != chosen.split)]
        held_out = held_out if held_out in splits and held_out != chosen.split else ""
        wanted = [chosen, *([splits[held_out]] if held_out else [])]
        here = all(hub(self._context).is_here(found, one) for one in wanted)
        count, size = sum(len(found.files(one)) for one in wanted), _megabytes(sum(map(found.size, wanted)))
        text = say("hub.here" if here else "hub.there", n=count, size=size, revision=chosen.revision[:8])
        # The chosen split is not sent back: another choice made meanwhile would be undone.
        menu = {} if place.split else {self._split: _choices(sizes, chosen.split)}
        return {
            **menu,
            self._held_out: gr.update(choices=others, value=held_out, visible=len(others) > 1),
            self._message: div("g-dim", text),
            **self._buttons(fetch=not here),
        }

    def _buttons(self, fetch: bool = False, stop: bool = False) -> Updates:
        return {self._fetch: gr.update(visible=fetch), self._stop: gr.update(visible=stop)}


def _choices(choices: list[Any], value: str) -> Any:  # noqa: ANN401 - an update of Gradio's
    return gr.update(choices=choices, value=value or None, visible=bool(value))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
