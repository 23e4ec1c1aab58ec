"""The versions of each tab: their cards, which one answers, how it came to, and what may be deleted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from errors import AdapterError
from plugins import TaskPlugin
from store.adapters import BASE
from store.archive import pack
from ui.adapters import card_view, import_form, merge_export, versions_view
from ui.adapters.card_rows import DOWNLOAD, CardRows
from ui.context import Context
from ui.html.tags import Html, notice, tag
from ui.i18n import Words, t, words
from ui.pulse import ASKED, QUIET, LiveView, PagePoll, chosen_of
from ui.train import continue_from
from ui.train.continue_from import TrainForm
from ui.web.access import Action
from ui.web.owner import place_notice

LONGEST_REASON = 200
Act = Callable[[str, str, str], object]
"""What a button does with a version, for a reason, by somebody."""


@dataclass(frozen=True)
class Controls:
    """What a section's buttons are."""

    promote: gr.Button
    back: gr.Button
    base: gr.Button
    delete: gr.Button
    why: gr.Textbox
    take: gr.Button
    merged: gr.Button
    on: gr.Button

    @property
    def all(self) -> list[Any]:
        """Those that follow what there is."""
        return [self.promote, self.back, self.base, self.delete, self.why, self.take, self.merged, self.on]


def build(context: Context, pulse: PagePoll, form: TrainForm | None = None) -> None:
    """Place a section for each tab that learns; `form` is the Train page's, which a version can fill."""
    gr.Markdown(t("adapters.about"), elem_classes="g-about")
    place_notice(context, pulse)
    menus = dict[str, gr.Dropdown]()
    for plugin in context.learners():
        with gr.Column(elem_classes="g-section"):
            gr.Markdown(plugin.say(plugin.title), elem_classes="g-section-title")
            menus[plugin.name] = Section(context, plugin, pulse, form).version
    import_form.build(context, pulse, menus)


class Section:
    """One tab's versions, placed where it is constructed."""

    def __init__(self, context: Context, plugin: TaskPlugin, pulse: PagePoll, form: TrainForm | None = None) -> None:
        """Place the section; it follows the pulse."""
        self._context, self._tab, self._allow = context, plugin.name, partial(context.allow, Action.KEEP)
        listed = gr.HTML("", elem_classes="g-list", js_on_load=versions_view.CHOOSE)
        version = gr.Dropdown([], label=t("adapters.version"), show_label=False, interactive=True)
        self.version = version
        """Which of them is looked at."""
        card, kept = gr.HTML("", elem_classes="g-list", render=False), context.access.possible
        if kept:
            with pulse.reserved(Action.KEEP):
                acted = self._place_controls(version, form)
        card.render()  # type: ignore[no-untyped-call]
        if kept:
            with pulse.reserved(Action.KEEP):
                self._place_kept(pulse, version, *acted)
        looked = [listed, version, card]
        pulse.add(LiveView([version], looked, lambda say, ref: (context.changes, ref), self.refresh))
        version.input(context.allow(Action.LOOK, self._chosen), version, card, **QUIET)
        picked = listed.select(context.allow(Action.LOOK, self._picked), None, version, **ASKED)
        picked.success(context.allow(Action.LOOK, self._chosen), version, card, **QUIET)

    def _place_controls(self, version: gr.Dropdown, form: TrainForm | None) -> tuple[Controls, list[Any]]:
        """Buttons for the version that is looked at; gives them, and the events after which all is shown anew."""
        context, controls = self._context, self._controls()
        doubted = gr.State("")  # the version whose deletion was asked for and waits for a second word
        with gr.Column(visible=False, elem_classes="g-confirm") as confirm:
            asked = gr.HTML("", elem_classes="g-list")
            with gr.Row(elem_classes="g-buttons"):
                sure = gr.Button(t("adapters.delete_sure"), variant="stop", size="sm")
                keep = gr.Button(t("adapters.delete_keep"), size="sm")
        going = gr.HTML("", elem_classes="g-list")
        acts: list[tuple[gr.Button, Act]] = [
            (controls.promote, self.promote),
            (controls.back, lambda _, why, who: context.adapters.roll_back(self._tab, why, who)),
            (controls.base, lambda _, why, who: context.adapters.promote(self._tab, BASE, why, who)),
        ]
        settings = {"trigger_mode": "once", **ASKED}

        def on(button: gr.Button, act: Act, of: Any) -> Any:  # noqa: ANN401 - components and events of Gradio's
            return button.click(self._allow(self.handler(act)), [of, controls.why], controls.why, **settings)

        # What is deleted is what the question named, whatever is looked at by then.
        done = [*(on(button, act, version) for button, act in acts), on(sure, self.delete, doubted)]
        controls.delete.click(self._allow(self._ask), version, [doubted, asked, confirm], **ASKED)
        file = gr.File(visible="hidden", show_label=False, elem_classes="g-unseen")
        packed = controls.take.click(self._allow(self._pack), version, file, **ASKED)
        packed.success(None, file, None, js=DOWNLOAD, api_visibility="private")
        made = controls.merged.click(self._allow(self._merge), version, [going, file], show_progress="hidden",
                                     api_visibility="private", trigger_mode="once")  # fmt: skip
        made.success(None, file, None, js=DOWNLOAD, api_visibility="private")
        made.failure(context.allow(Action.LOOK, lambda: ""), None, going, **QUIET)
        if form:
            continue_from.connect(context, controls.on, version, form)
        for button in (sure, keep):
            button.click(context.allow(Action.LOOK, lambda: gr.update(visible=False)), None, confirm, **QUIET)
        return controls, done

    def _place_kept(self, pulse: PagePoll, version: gr.Dropdown, controls: Controls, done: list[Any]) -> None:
        """The rows of its card and the history, which follow with the buttons."""
        context = self._context
        self._rows = CardRows(context, version, self._card, Action.KEEP)
        history = gr.HTML("", elem_classes="g-list")
        taken, shown = [version, *self._rows.taken], [*controls.all, history, *self._rows.shown]
        follower = LiveView(taken, shown, lambda say, ref, *_: (context.changes, ref), self.refresh_kept, Action.KEEP)
        pulse.add(follower)
        version.change(follower.handler(context.access, silently=True), taken, shown, **QUIET)
        for event in done:
            event.then(follower.handler(context.access), taken, shown, **QUIET)

    def _controls(self) -> Controls:
        """What may be done with a version."""
        with gr.Row(elem_classes="g-buttons g-acts"):
            promote = gr.Button(t("adapters.promote"), variant="primary", scale=1)
            back, base = (gr.Button(t(f"adapters.{key}"), scale=1) for key in ("roll_back", "use_base"))
            why = gr.Textbox(placeholder=t("adapters.why"), show_label=False, container=False, max_lines=1, scale=3,
                             max_length=LONGEST_REASON)  # fmt: skip
        with gr.Row(elem_classes="g-buttons g-more"):
            on, take, merged, delete = (gr.Button(t(f"adapters.{key}"), size="sm", min_width=120)
                                        for key in ("train_on", "take", "merged", "delete"))  # fmt: skip
        return Controls(promote, back, base, delete, why, take, merged, on)

    def refresh(self, say: Words, chosen: str | None) -> list[Any]:
        """The tab's versions as they are now, and the card of the one that is looked at."""
        store = self._context.adapters
        found, live = store.versions(self._tab), store.live(self._tab)
        refs = [version.ref for version in found]
        # The newest that a click would change something for.
        newest = next((ref for ref in refs if not live or ref != live.ref), next(iter(refs), None))
        ref = chosen if chosen in refs else newest
        listed = versions_view.versions(say, found, live.ref if live else "")
        menu = chosen_of([(ref, ref) for ref in refs], chosen, newest)
        return [listed, {**menu, "visible": bool(refs)}, self._figures(say, ref)]

    def refresh_kept(
        self, say: Words, ref: str | None, kind: str | None = None, search: str | None = None
    ) -> list[Any]:
        """What may be done with it, how the tab came to answer as it does, and the rows of the card."""
        store = self._context.adapters
        live, before, any_ = store.live(self._tab), store.way_back(self._tab), bool(store.versions(self._tab))
        back = say("adapters.roll_back_to", version=say("task.base") if before == BASE else before or "")
        return [
            gr.update(visible=any_ and ref != (live.ref if live else None)),
            gr.update(visible=before is not None, value=back),
            gr.update(visible=live is not None and before != BASE),
            *[gr.update(visible=any_)] * 5,
            versions_view.timeline(say, store.history(self._tab)),
            *self._rows.updates(say, ref, kind, search),
        ]

    def promote(self, ref: str, why: str, who: str) -> None:
        """Let a version answer, once it was loaded as a request would load it: a damaged one is refused here."""
        self._context.pool.check(self._context.spec(self._tab), ref)
        self._context.adapters.promote(self._tab, ref, why, who)

    def delete(self, ref: str, why: str, who: str) -> None:
        """Remove a version that nothing needs; the history keeps why, and by whom. Raises `AdapterError`."""
        version = self._own(ref)
        self._context.pool.release(version.ref)
        self._context.adapters.delete(version.ref, why, who)

    def handler(self, act: Act) -> Callable[..., str]:
        """`act` on the chosen version. Gives the box of reasons its next content, which is none."""

        def handle(ref: str | None, why: str | None, request: gr.Request) -> str:
            who = self._context.access.user(request).name
            act(ref or "", " ".join((why or "").split())[:LONGEST_REASON], who)
            self._context.versions_changed()
            return ""

        return handle

    def _ask(self, ref: str | None, request: gr.Request) -> list[Any]:
        """Whether to delete this version, before it is done."""
        say = words(request)
        own = self._own(ref or "").ref
        text = tag("strong", say("adapters.delete_ask", version=own))
        return [own, notice(text, tag("p", say("adapters.delete_about")), kind="warn"), gr.update(visible=True)]

    def _pack(self, ref: str | None) -> str:
        """A version in one file of Gradio's own cache, which it serves and sweeps."""
        with tempfile.TemporaryDirectory() as folder:
            content = pack(self._own(ref or ""), Path(folder) / "version.zip").read_bytes()
        path: str = save_bytes_to_cache(content, f"{ref}.zip", get_upload_folder())
        return path

    def _merge(self, request: gr.Request, ref: str | None) -> Iterator[list[Any]]:
        """A version merged into its base, in one file; how far it is meanwhile."""
        for html, path in merge_export.merged(words(request), self._own(ref or "").ref, self._context.settings.home):
            yield [html, path]

    def _picked(self, event: gr.EventData) -> str:
        """A click on a version of the list chooses it."""
        return str(self._own(str(event.version)).ref)

    def _own(self, ref: str) -> Any:  # noqa: ANN401 - a Version
        version = self._context.adapters.get(ref)
        if version.plugin != self._tab:
            raise AdapterError(f"{ref} is not a version of {self._tab}.", f"It was made for {version.plugin}.")
        return version

    def _card(self, ref: str) -> dict[str, Any]:
        card: dict[str, Any] = self._own(ref).card
        return card

    def _chosen(self, request: gr.Request, ref: str | None) -> Html:
        return self._figures(words(request), ref)

    def _figures(self, say: Words, ref: str | None) -> Html:
        """The card of a version."""
        card = card_view.figures(say, self._card(ref)) if ref else Html("")
        title = tag("h4", say("adapters.card", version=ref)) if card else None
        return Html((title or "") + card)
