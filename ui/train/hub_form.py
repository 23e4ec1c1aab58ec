"""Train: a data set of the Hugging Face Hub, looked up, chosen from, and fetched with progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from errors import DataError, GraftError
from training.data.files.hub_dataset import DataSet, HubData, HubSplit, parse_hub_id
from ui.context import Context
from ui.html.tags import Html, bar, div, failure, span
from ui.i18n import Words, t, words
from ui.pulse import Updates
from ui.web.access import Action

EVERY_S = 0.3
"""Seconds between two updates of a download's progress."""


@dataclass(frozen=True)
class HubForm:
    """The components."""

    id: gr.Textbox
    config: gr.Dropdown
    split: gr.Dropdown
    held_out: gr.Dropdown
    look: gr.Button
    fetch: gr.Button
    stop: gr.Button
    message: gr.HTML

    @property
    def inputs(self) -> dict[str, Block]:
        """Components whose values name rows, by the name of the value."""
        return {"id": self.id, "config": self.config, "split": self.split, "held_out": self.held_out}

    @property
    def outputs(self) -> list[Component]:
        """Components that handlers of this form update."""
        return [self.config, self.split, self.held_out, self.message, self.fetch, self.stop]

    def values(self, named: Mapping[str, str], held_out: str = "") -> Updates:
        """Return updates that show a place as a run's configuration keeps it; an empty one clears the form."""
        if not named:
            return {self.id: "", **{menu: _choice([], "") for menu in (self.config, self.split, self.held_out)}}
        id, revision = named["id"], named["revision"]
        chosen = {self.config: named["config"], self.split: named["split"], self.held_out: held_out}
        menus = {menu: _choice([value], value) for menu, value in chosen.items()}
        return {self.id: f"{id}@{revision}" if revision else id, **menus}

    def shown(self, context: Context, say: Words, found: DataSet, place: HubSplit, held_out: str = "") -> Updates:
        """Return updates with the splits, those to compare on, and what there is to fetch of the chosen ones."""
        chosen = found.choose(place)
        files = {split: replace(chosen, split=split) for split in found.layout[chosen.config]}
        sizes = [(f"{split} · {_megabytes(found.size(one))}", split) for split, one in files.items()]
        others = [(say("hub.share"), ""), *(one for one in sizes if one[1] != chosen.split)]
        held_out = held_out if held_out in files and held_out != chosen.split else ""
        places = [chosen, *([files[held_out]] if held_out else [])]
        here = all(hub(context).is_here(found, one) for one in places)
        count, size = sum(len(found.files(one)) for one in places), _megabytes(sum(map(found.size, places)))
        text = say("hub.here" if here else "hub.there", n=count, size=size, revision=chosen.revision[:8])
        return {
            self.split: _choice(sizes, chosen.split),
            self.held_out: gr.update(choices=others, value=held_out, visible=len(others) > 1),
            self.message: div("g-dim", text),
            **self.buttons(fetch=not here),
        }

    def buttons(self, fetch: bool = False, stop: bool = False) -> Updates:
        """Return updates that show the button that can be used now."""
        return {self.fetch: gr.update(visible=fetch), self.stop: gr.update(visible=stop)}


class _Left(Exception):
    """Nobody waits for the download any more; what has arrived stays on disk."""


def place_hub() -> HubForm:
    """Place the components."""
    id = gr.Textbox(label=t("hub.id"), info=t("hub.id_info"), max_lines=1)
    look = gr.Button(t("hub.look"), size="sm")
    menu = partial(gr.Dropdown, [], visible=False, interactive=True, allow_custom_value=True)
    with gr.Row(elem_classes="g-mapping"):
        config, split = (menu(label=t(f"hub.{name}"), min_width=120) for name in ("config", "split"))
    held_out = menu(label=t("hub.held_out"), info=t("hub.held_out_info"))
    message = gr.HTML("")
    fetch = gr.Button(t("hub.fetch"), visible=False, size="sm")
    stop = gr.Button(t("hub.stop"), visible=False, size="sm")
    return HubForm(id, config, split, held_out, look, fetch, stop, message)


def connect(context: Context, form: HubForm, then: Callable[[Any], None]) -> None:
    """Connect the components; `then` is given each event after which other rows are chosen."""
    allow = partial(context.allow, Action.TRAIN)
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "once"}
    private |= {"inputs_kwargs": form.inputs, "outputs": form.outputs}
    then(gr.on([form.look.click, form.id.submit], allow(_look_up(context, form)), **private))
    then(form.config.input(allow(_configured(context, form)), **private))
    for menu in (form.split, form.held_out):
        then(menu.input(allow(_chosen(context, form)), **private))
    stopped: set[str] = set()
    then(form.fetch.click(allow(_fetch(context, form, stopped)), **private))
    form.stop.click(allow(_stop(stopped)), None, None, queue=False, api_visibility="private", show_progress="hidden")


def hub(context: Context) -> HubData:
    """Return the data sets of the Hub. The owner's token is used on a page that nobody else reaches, and no other."""
    own = context.access.mode == "local"
    return HubData(context.settings, None if own else False)


def place_of(id: str | None, config: str | None = None, split: str | None = None) -> HubSplit:
    """Return the place that values of the form name; raises `DataError`, also for a path of this computer."""
    place = parse_hub_id((id or "").strip(), config or "", split or "", local=False)
    if place is None:
        raise DataError(f"{(id or '')[:100]!r} is not a data set id.", "One looks like owner/name.", "Check it.")
    return place


def _choice(choices: list[Any], value: str) -> Any:  # noqa: ANN401 - an update of Gradio's
    return gr.update(choices=choices, value=value or None, visible=bool(value))


def _look_up(context: Context, form: HubForm) -> Callable[..., Updates]:
    """Return the handler that shows the configurations and splits of the data set that was typed."""

    def look_up(request: gr.Request, id: str, **others: str | None) -> Updates:
        try:
            place = place_of(id)
            found = hub(context).look_up(place)
            configs = _choice(list(found.layout), found.choose(place).config)
            return {form.config: configs, **form.shown(context, words(request), found, place)}
        except GraftError as error:
            menus = dict.fromkeys((form.config, form.split, form.held_out), gr.update(visible=False, value=None))
            return {**menus, form.message: failure(error), **form.buttons()}

    return look_up


def _configured(context: Context, form: HubForm) -> Callable[..., Updates]:
    """Return the handler that shows the splits of another configuration, the first of them chosen."""

    def configured(request: gr.Request, id: str, config: str, **others: str | None) -> Updates:
        found, place = _noted(context, id, config)
        return form.shown(context, words(request), found, place)

    return configured


def _chosen(context: Context, form: HubForm) -> Callable[..., Updates]:
    """Return the handler of another split. Its own menu is not sent back: a choice made meanwhile would be undone."""

    def chosen(request: gr.Request, id: str, config: str, split: str, held_out: str | None) -> Updates:
        found, place = _noted(context, id, config, split)
        updates = form.shown(context, words(request), found, place, held_out or "")
        del updates[form.split]
        return updates

    return chosen


def _noted(context: Context, id: str, config: str | None, split: str | None = None) -> tuple[DataSet, HubSplit]:
    place = place_of(id, config, split)
    return hub(context).noted(place) or hub(context).look_up(place), place


def _stop(stopped: set[str]) -> Callable[..., None]:
    """Return the handler that has the download of this page end itself, so that its last update is what stays."""

    def stop(request: gr.Request) -> None:
        stopped.add(str(request.session_hash))

    return stop


def _fetch(context: Context, form: HubForm, stopped: set[str]) -> Callable[..., Iterator[Updates]]:
    """Return the handler that downloads the rows with progress, until they are here or the page is in `stopped`."""

    def fetch(
        request: gr.Request, id: str, config: str | None, split: str | None, held_out: str | None
    ) -> Iterator[Updates]:
        say, place, data, part, left = words(request), place_of(id, config, split), hub(context), 0.0, False
        page = str(request.session_hash)

        def progress(phase: str, fraction: float | None) -> None:
            nonlocal part
            part = fraction or 0.0
            if left:
                raise _Left

        pool = ThreadPoolExecutor(1, thread_name_prefix="hub-fetch")
        coming = pool.submit(data.fetch_both, place, held_out or "", progress)
        pool.shutdown(wait=False)
        try:
            while not coming.done() and page not in stopped:
                yield {form.message: _progress(say, part), **form.buttons(stop=True)}
                time.sleep(EVERY_S)
            if coming.done():
                coming.result()
            found, _ = _noted(context, id, config, split)
            updates = form.shown(context, say, found, place, held_out or "")
            del updates[form.split]
            yield updates
        except GraftError as error:
            yield {form.message: failure(error), **form.buttons(fetch=True)}
        finally:
            left = True
            stopped.discard(page)

    return fetch


def _progress(say: Words, part: float) -> Html:
    return div("g-phase", span("", say("hub.fetching", n=f"{100 * part:.0f}")), bar(part))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
