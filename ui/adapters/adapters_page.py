"""The Adapters page: the versions of each tab, their cards, which one answers, and the history of both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from plugins import TaskPlugin
from store.adapters import BASE, Version
from store.archive import pack
from ui.adapters import card_view, transfer, versions_view
from ui.adapters.card_rows import CardRows
from ui.context import Context
from ui.html.tags import Html, join, notice, tag
from ui.i18n import Words, t, words
from ui.pulse import ASKED, QUIET, LiveView, PagePoll, Updates, chosen_of, in_order
from ui.train import continue_from, page_files
from ui.train.data_form import TrainForm
from ui.web.access import Action
from ui.web.gradio_private import cache_file
from ui.web.signin import place_notice

LONGEST_REASON = 200
Act = Callable[[str, str, str], object]
"""An action on a version: takes its reference, a reason, and the name of the user."""


def build(context: Context, poll: PagePoll, form: TrainForm | None = None) -> None:
    """Place a section for each tab that learns; `form` is the Train page's, which a version can fill."""
    gr.Markdown(t("adapters.about"), elem_classes="g-about")
    place_notice(context, poll)
    menus = dict[str, gr.Dropdown]()
    for plugin in context.learners():
        with gr.Column(elem_classes="g-section"):
            gr.Markdown(plugin.say(plugin.title), elem_classes="g-section-title")
            menus[plugin.name] = Section(context, plugin, poll, form).version
    if context.access.possible and menus:
        with poll.reserved(Action.KEEP):
            transfer.ImportForm(context, menus)


class Section:
    """The versions of one tab, placed where it is constructed and kept up to date by the page's poll."""

    def __init__(self, context: Context, plugin: TaskPlugin, poll: PagePoll, form: TrainForm | None = None) -> None:
        """Place the section."""
        self._context, self._tab = context, plugin.name
        self._for_all, self._for_owner = partial(context.allow, Action.LOOK), partial(context.allow, Action.KEEP)
        listed = gr.HTML("", elem_classes="g-list", js_on_load=versions_view.CHOOSE)
        self.version = gr.Dropdown([], label=t("adapters.version"), show_label=False, interactive=True)
        """The version that is looked at."""
        card = gr.HTML("", elem_classes="g-list", render=False)
        if context.access.possible:
            with poll.reserved(Action.KEEP):
                self._place_buttons()
                changed = self._connect_changes()
                self._connect_downloads()
            if form:
                continue_from.connect(context, self._continue, self.version, form)
        card.render()  # type: ignore[no-untyped-call]
        if context.access.possible:
            with poll.reserved(Action.KEEP):
                self._place_rows(poll, changed)
        outputs = [listed, self.version, card]
        poll.add(LiveView([self.version], outputs, lambda say, ref: (context.changes, ref), self.refresh))
        self.version.input(self._for_all(self._show_card), self.version, card, **QUIET)
        chosen = listed.select(self._for_all(self._choose), None, self.version, **ASKED)
        chosen.success(self._for_all(self._show_card), self.version, card, **QUIET)

    def _place_buttons(self) -> None:
        with gr.Row(elem_classes="g-buttons g-acts"):
            self._promote = gr.Button(t("adapters.promote"), variant="primary", scale=1)
            self._back, self._base = (gr.Button(t(f"adapters.{key}"), scale=1) for key in ("roll_back", "use_base"))
            plain: dict[str, Any] = {"show_label": False, "container": False, "max_lines": 1, "scale": 3}
            self._why = gr.Textbox(placeholder=t("adapters.why"), max_length=LONGEST_REASON, **plain)
        with gr.Row(elem_classes="g-buttons g-more"):
            keys = ("train_on", "take", "merged", "delete")
            self._more = [gr.Button(t(f"adapters.{key}"), size="sm", min_width=120) for key in keys]
            self._continue, self._take, self._merge, self._delete = self._more

    def _connect_changes(self) -> list[Dependency]:
        """Connect the buttons that change which version answers or remove one; returns their events."""
        store, (to_delete, sure) = self._context.adapters, self._place_question()
        acts: list[tuple[gr.Button, Any, Act]] = [
            (self._promote, self.version, self.promote),
            (self._back, self.version, lambda _, why, who: store.roll_back(self._tab, why, who)),
            (self._base, self.version, lambda _, why, who: store.promote(self._tab, BASE, why, who)),
            # The version that the question named is deleted, whatever is looked at by then.
            (sure, to_delete, self.delete),
        ]
        once: dict[str, Any] = {"trigger_mode": "once", **ASKED}
        return [
            button.click(self._for_owner(self.handler(act)), [ref, self._why], self._why, **once)
            for button, ref, act in acts
        ]

    def _place_question(self) -> tuple[gr.State, gr.Button]:
        """Place the question before a deletion; returns the version that it names, and the button that confirms."""
        to_delete = gr.State("")
        with gr.Column(visible=False, elem_classes="g-confirm") as confirm:
            question = gr.HTML("", elem_classes="g-list")
            with gr.Row(elem_classes="g-buttons"):
                sure = gr.Button(t("adapters.delete_sure"), variant="stop", size="sm")
                keep = gr.Button(t("adapters.delete_keep"), size="sm")
        self._delete.click(self._for_owner(self._ask), self.version, [to_delete, question, confirm], **ASKED)
        for button in (sure, keep):
            button.click(self._for_all(lambda: gr.update(visible=False)), None, confirm, **QUIET)
        return to_delete, sure

    def _connect_downloads(self) -> None:
        page_files.download(self._take, self._for_owner(self._pack), self.version)
        message = gr.HTML("", elem_classes="g-list")
        merge = self._for_owner(self._merged)
        merged = page_files.download(self._merge, merge, self.version, [message], trigger_mode="once")
        merged.failure(self._for_all(lambda: ""), None, message, **QUIET)

    def _place_rows(self, poll: PagePoll, changed: list[Dependency]) -> None:
        """Place the rows of the card and the history, which follow with the buttons; `changed` are events before."""
        context, version = self._context, self.version
        self._rows = CardRows(context, poll, version, lambda ref: (ref, self._card(ref)), Action.KEEP)
        self._history = gr.HTML("", elem_classes="g-list")
        outputs = [self._promote, self._back, self._base, self._why, *self._more, self._history, self._rows.signal]
        refresh = in_order(outputs, self.refresh_for_owner)
        view = poll.add(LiveView([version], outputs, lambda say, ref: (context.changes, ref), refresh, Action.KEEP))
        version.change(view.handler(context.access, silently=True), version, outputs, **QUIET)
        for event in changed:
            event.then(view.handler(context.access), version, outputs, **QUIET)

    def refresh(self, say: Words, chosen: str | None) -> list[Any]:
        """Return updates of the list, the menu, and the card of the version that is looked at."""
        store = self._context.adapters
        versions, live = store.versions(self._tab), store.live(self._tab)
        refs = [version.ref for version in versions]
        # The newest whose promotion would change something.
        newest = next((ref for ref in refs if not live or ref != live.ref), next(iter(refs), None))
        listed = versions_view.versions(say, versions, live.ref if live else "")
        menu = chosen_of([(ref, ref) for ref in refs], chosen, newest)
        return [listed, {**menu, "visible": bool(refs)}, self._card_html(say, chosen if chosen in refs else newest)]

    def refresh_for_owner(self, say: Words, ref: str | None) -> Updates:
        """Return updates of the buttons, the history, and the signal to show the rows of the card anew."""
        store = self._context.adapters
        live, before, any_ = store.live(self._tab), store.rollback_target(self._tab), bool(store.versions(self._tab))
        back = say("adapters.roll_back_to", version=say("task.base") if before == BASE else before or "")
        return {
            self._promote: gr.update(visible=any_ and ref != (live.ref if live else None)),
            self._back: gr.update(visible=before is not None, value=back),
            self._base: gr.update(visible=live is not None and before != BASE),
            **dict.fromkeys((self._why, *self._more), gr.update(visible=any_)),
            self._history: versions_view.timeline(say, store.history(self._tab)),
            self._rows.signal: f"{self._context.changes} {ref}",
        }

    def promote(self, ref: str, why: str, who: str) -> None:
        """Let a version answer, once it was loaded as a request would load it: a damaged one is refused here."""
        self._context.pool.check(self._context.spec(self._tab), ref)
        self._context.adapters.promote(self._tab, ref, why, who)

    def delete(self, ref: str, why: str, who: str) -> None:
        """Delete a version that nothing needs; the history keeps why, and by whom. Raises `AdapterError`."""
        version = self._own(ref)
        self._context.pool.release(version.ref)
        self._context.adapters.delete(version.ref, why, who)

    def handler(self, act: Act) -> Callable[..., str]:
        """Return the handler of an action on the chosen version; it empties the field of the reason."""

        def handle(ref: str | None, why: str | None, request: gr.Request) -> str:
            who = self._context.access.user(request).name
            act(ref or "", " ".join((why or "").split())[:LONGEST_REASON], who)
            self._context.versions_changed()
            return ""

        return handle

    def _ask(self, ref: str | None, request: gr.Request) -> list[Any]:
        """Ask whether to delete a version."""
        say, own = words(request), self._own(ref or "").ref
        text = tag("strong", say("adapters.delete_ask", version=own))
        return [own, notice(text, tag("p", say("adapters.delete_about")), kind="warn"), gr.update(visible=True)]

    def _pack(self, ref: str | None) -> str:
        """Return the zip of a version, in a file of Gradio's own cache."""
        with tempfile.TemporaryDirectory() as folder:
            content = pack(self._own(ref or ""), Path(folder) / "version.zip").read_bytes()
        return cache_file(content, f"{ref}.zip")

    def _merged(self, request: gr.Request, ref: str | None) -> Iterator[tuple[Html, str | None]]:
        """Merge a version into its base; yields each phase, and at last the zip."""
        yield from transfer.merged(words(request), self._own(ref or "").ref, self._context.settings.home)

    def _choose(self, event: gr.EventData) -> str:
        """Choose the version that was clicked in the list."""
        return self._own(str(event.version)).ref

    def _own(self, ref: str) -> Version:
        return self._context.adapters.get_for(self._tab, ref)

    def _card(self, ref: str | None) -> Mapping[str, Any]:
        return self._own(ref or "").card

    def _show_card(self, request: gr.Request, ref: str | None) -> Html:
        return self._card_html(words(request), ref)

    def _card_html(self, say: Words, ref: str | None) -> Html:
        card = card_view.summary(say, self._card(ref)) if ref else None
        return join([tag("h4", say("adapters.card", version=ref)), card] if card else [])
