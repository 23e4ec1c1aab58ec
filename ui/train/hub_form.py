"""Train: a data set of the Hugging Face Hub, looked up, chosen from, and fetched with progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import DataError, GraftError
from training.data.files.hub_dataset import DataSet, HubData, HubSplit, beside, parse_place
from ui.context import Context
from ui.html.tags import Html, bar, div, failure, span
from ui.i18n import Words, t, words
from ui.web.access import Action

EVERY_S = 0.3
"""How often the progress of a download is drawn."""


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
    said: gr.HTML

    @property
    def all(self) -> list[Component]:
        """Those whose values name rows."""
        return [self.id, self.config, self.split, self.held_out]


class _Left(Exception):
    """Nobody waits for the download any more; what has come of it stays."""


def place_hub() -> HubForm:
    """Place the components."""
    id = gr.Textbox(label=t("hub.id"), info=t("hub.id_info"), max_lines=1)
    look = gr.Button(t("hub.look"), size="sm")
    with gr.Row(elem_classes="g-mapping"):
        config, split = (gr.Dropdown([], label=t(f"hub.{name}"), visible=False, interactive=True, min_width=120,
                                     allow_custom_value=True) for name in ("config", "split"))  # fmt: skip
    held_out = gr.Dropdown([], label=t("hub.held_out"), info=t("hub.held_out_info"), visible=False, interactive=True,
                           allow_custom_value=True)  # fmt: skip
    said = gr.HTML("")
    fetch = gr.Button(t("hub.fetch"), visible=False, size="sm")
    stop = gr.Button(t("hub.stop"), visible=False, size="sm")
    return HubForm(id, config, split, held_out, look, fetch, stop, said)


def connect(context: Context, form: HubForm, then: Callable[[Any], None]) -> None:
    """Connect the components; `then` is given each event after which other rows are chosen."""
    allow = partial(context.allow, Action.TRAIN)
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "once"}
    choices = [form.config, form.split, form.held_out, form.said, form.fetch, form.stop]
    looked = gr.on([form.look.click, form.id.submit], allow(_look_up(context)), form.id, choices, **private)
    then(looked)
    then(form.config.input(allow(_configured(context)), form.all[:2], choices[1:], **private))
    for chosen in (form.split, form.held_out):
        then(chosen.input(allow(_chosen(context)), form.all, choices[2:], **private))
    stopped: set[str] = set()
    then(form.fetch.click(allow(_fetch(context, stopped)), form.all, choices[2:], **private))
    form.stop.click(allow(_stop(stopped)), None, None, queue=False, **private)


def hub(context: Context) -> HubData:
    """The data sets of the Hub. The operator's token is used for the operator alone, on a page nobody else reaches."""
    own = context.access.mode == "local"
    return HubData.of(context.settings, None if own else False)


def place_of(id: str | None, config: str | None = None, split: str | None = None) -> HubSplit:
    """The place that the values of the components name; raises `DataError`. A path of this computer is none here."""
    place = parse_place((id or "").strip(), config or "", split or "", local=False)
    if place is None:
        raise DataError(f"{(id or '')[:100]!r} is not a data set id.", "One looks like owner/name.", "Check it.")
    return place


def values(named: Mapping[str, str], held_out: str = "") -> list[Any]:
    """Values of `HubForm.all` for a place as a run's configuration keeps it; nothing for an empty one."""
    if not named:
        return ["", *[_choice([], "")] * 3]
    id, revision = named["id"], named["revision"]
    chosen = (named["config"], named["split"], held_out)
    return [f"{id}@{revision}" if revision else id, *(_choice([value], value) for value in chosen)]


def held_out_of(context: Context, path: Path, split: str | None) -> Path | None:
    """The rows of another split of what lies in `path`, to compare on; raises `DataError`."""
    return hub(context).find(beside(path, split)) if split else None


def _choice(choices: list[Any], value: str) -> Any:  # noqa: ANN401 - an update of Gradio's
    return gr.update(choices=choices, value=value or None, visible=bool(value))


def _look_up(context: Context) -> Any:  # noqa: ANN401 - a handler of Gradio's
    """What there is to choose from."""

    def look_up(request: gr.Request, id: str) -> list[Any]:
        try:
            place = place_of(id)
            found = hub(context).look_up(place)
            configs = _choice(list(found.layout), found.choose(place).config)
            return [configs, *_shown(context, words(request), found, place)]
        except GraftError as error:
            return [*[gr.update(visible=False, value=None)] * 3, failure(error), *[gr.update(visible=False)] * 2]

    return look_up


def _configured(context: Context) -> Any:  # noqa: ANN401
    def configured(request: gr.Request, id: str, config: str) -> list[Any]:
        found, place = _noted(context, id, config)
        return _shown(context, words(request), found, place)

    return configured


def _chosen(context: Context) -> Any:  # noqa: ANN401
    def chosen(request: gr.Request, id: str, config: str, split: str, held_out: str | None = "") -> list[Any]:
        found, place = _noted(context, id, config, split)
        return _shown(context, words(request), found, place, held_out or "")[1:]

    return chosen


def _noted(context: Context, id: str, config: str, split: str = "") -> tuple[DataSet, HubSplit]:
    place = place_of(id, config, split)
    return hub(context).noted(place) or hub(context).look_up(place), place


def _shown(context: Context, say: Words, found: DataSet, place: HubSplit, held_out: str = "") -> list[Any]:
    """The splits, those to compare on, what is said of the ones that are chosen, and the buttons that fetch them."""
    chosen = found.choose(place)
    files = {split: replace(chosen, split=split) for split in found.layout[chosen.config]}
    sizes = [(f"{split} · {_megabytes(found.size(one))}", split) for split, one in files.items()]
    others = [(say("hub.share"), ""), *(one for one in sizes if one[1] != chosen.split)]
    held_out = held_out if held_out in files and held_out != chosen.split else ""
    places = [chosen, *([files[held_out]] if held_out else [])]
    here = all(hub(context).is_here(found, one) for one in places)
    count, size = sum(len(found.files(one)) for one in places), _megabytes(sum(map(found.size, places)))
    text = say("hub.here" if here else "hub.there", n=count, size=size, revision=chosen.revision[:8])
    kept = gr.update(choices=others, value=held_out, visible=len(others) > 1)
    return [_choice(sizes, chosen.split), kept, div("g-dim", text), *_buttons(fetch=not here)]


def _buttons(fetch: bool = False, stop: bool = False) -> list[Any]:
    """Of the two buttons, the one that there is something to do for."""
    return [gr.update(visible=fetch), gr.update(visible=stop)]


def _stop(stopped: set[str]) -> Any:  # noqa: ANN401
    """Let the download of this page end itself: what it shows last is then what stays."""

    def stop(request: gr.Request) -> None:
        stopped.add(str(request.session_hash))

    return stop


def _fetch(context: Context, stopped: set[str]) -> Any:  # noqa: ANN401
    """Download the rows, and say meanwhile how far it is; until it is done, or the page is among the `stopped`."""

    def fetch(
        request: gr.Request, id: str, config: str | None, split: str | None, held_out: str | None = ""
    ) -> Iterator[list[Any]]:
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
                yield [gr.skip(), _progress(say, part), *_buttons(stop=True)]
                time.sleep(EVERY_S)
            if coming.done():
                coming.result()
            found, _ = _noted(context, id, config or "", split or "")
            yield _shown(context, say, found, place, held_out or "")[1:]
        except GraftError as error:
            yield [gr.skip(), failure(error), *_buttons(fetch=True)]
        finally:
            left = True
            stopped.discard(page)

    return fetch


def _progress(say: Words, part: float) -> Html:
    return div("g-phase", span("", say("hub.fetching", n=f"{100 * part:.0f}")), bar(part))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
