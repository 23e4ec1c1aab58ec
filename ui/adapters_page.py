"""The versions of each tab: their cards, which one answers, how it came to, and what may be deleted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from errors import AdapterError
from plugins import TaskPlugin
from store.adapters import BASE
from store.archive import pack
from ui import card_view, import_form, merged, train_on, versions_view
from ui.card_rows import DOWNLOAD, CardRows
from ui.context import Context
from ui.guard import kindly
from ui.pulse import QUIET, Follower, Pulse
from ui.render import Html, notice, tag
from ui.strings import Words, t, words
from ui.train_on import TrainForm

LONGEST_REASON = 200
Act = Callable[[str, str, str], object]
"""What a button does with a version, for a reason, by somebody."""


@dataclass(frozen=True)
class Controls:
    """What a section's buttons are."""

    version: gr.Dropdown
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
        return [self.version, self.promote, self.back, self.base, self.delete, self.why, self.take, self.merged,
                self.on]  # fmt: skip


def build(context: Context, pulse: Pulse, form: TrainForm | None = None) -> None:
    """Place a section for each tab that learns; `form` is the Train page's, which a version can fill."""
    gr.Markdown(t("adapters.about"), elem_classes="g-about")
    if not context.settings.may_train:
        gr.Markdown(t("train.off"), elem_classes="g-off")
    for plugin in context.learners():
        with gr.Column(elem_classes="g-section"):
            gr.Markdown(plugin.say(plugin.title), elem_classes="g-section-title")
            Section(context, plugin, pulse, form)
    import_form.build(context)


class Section:
    """One tab's versions, placed where it is constructed."""

    def __init__(self, context: Context, plugin: TaskPlugin, pulse: Pulse, form: TrainForm | None = None) -> None:
        """Place the section; it follows the pulse."""
        self._context, self._tab = context, plugin.name
        may = context.settings.may_train
        listed = gr.HTML("", elem_classes="g-list", js_on_load=versions_view.CHOOSE)
        controls = self._controls(may)
        with gr.Column(visible=False, elem_classes="g-confirm") as confirm:
            asked = gr.HTML("", elem_classes="g-list")
            with gr.Row(elem_classes="g-buttons"):
                sure = gr.Button(t("adapters.delete_sure"), variant="stop", size="sm")
                keep = gr.Button(t("adapters.delete_keep"), size="sm")
        going = gr.HTML("", elem_classes="g-list")
        card = gr.HTML("", elem_classes="g-list")
        # Rows are not for strangers, whose page has none of this.
        self._rows = CardRows(context, controls.version, self._card) if may else None
        history = gr.HTML("", elem_classes="g-list")
        taken = [controls.version, *(self._rows.taken if self._rows else [])]
        shown = [*(self._rows.shown if self._rows else []), card]
        parts = [listed, history, *controls.all, *shown]
        follower = pulse.add(Follower(taken, parts, lambda say, *_: context.changes, self.refresh))
        controls.version.input(kindly(self._chosen), taken, shown, **QUIET)
        given = [controls.version, controls.why]
        acts: list[tuple[gr.Button, Act]] = [
            (controls.promote, self.promote),
            (controls.back, lambda _, why, who: context.adapters.roll_back(self._tab, why, who)),
            (controls.base, lambda _, why, who: context.adapters.promote(self._tab, BASE, why, who)),
            (sure, self.delete),
        ]
        for button, act in acts:
            done = button.click(kindly(self.allowed(act)), given, controls.why, trigger_mode="once", **QUIET)
            done.then(follower.handler(), taken, parts, **QUIET)
        controls.delete.click(kindly(self._ask), controls.version, [asked, confirm], **QUIET)
        file = gr.File(visible="hidden", show_label=False, elem_classes="g-unseen")
        packed = controls.take.click(kindly(self._pack), controls.version, file, **QUIET)
        packed.success(None, file, None, js=DOWNLOAD, api_visibility="private")
        made = controls.merged.click(kindly(self._merge), controls.version, [going, file], show_progress="hidden",
                                     api_visibility="private", trigger_mode="once")  # fmt: skip
        made.success(None, file, None, js=DOWNLOAD, api_visibility="private")
        made.failure(lambda: "", None, going, **QUIET)
        picked = listed.select(kindly(self._picked), None, controls.version, **QUIET)
        picked.success(kindly(self._chosen), taken, shown, **QUIET)
        if form:
            train_on.connect(context, controls.on, controls.version, form)
        for button in (sure, keep):
            button.click(lambda: gr.update(visible=False), None, confirm, **QUIET)

    def _controls(self, may: bool) -> Controls:
        """The version to look at, which everybody may choose, and what only some may do with it."""
        with gr.Row(elem_classes="g-buttons g-acts"):
            version = gr.Dropdown([], label=t("adapters.version"), show_label=False, scale=2, interactive=True)
            promote = gr.Button(t("adapters.promote"), variant="primary", scale=1, visible=may)
            back = gr.Button(t("adapters.roll_back"), scale=1, visible=may)
            base = gr.Button(t("adapters.use_base"), scale=1, visible=may)
            why = gr.Textbox(placeholder=t("adapters.why"), show_label=False, container=False, max_lines=1, scale=3,
                             visible=may, max_length=LONGEST_REASON)  # fmt: skip
        with gr.Row(elem_classes="g-buttons g-more"):
            small: dict[str, Any] = {"size": "sm", "visible": may, "min_width": 120}
            on, take, merged, delete = (
                gr.Button(t(f"adapters.{key}"), **small) for key in ("train_on", "take", "merged", "delete")
            )
        return Controls(version, promote, back, base, delete, why, take, merged, on)

    def refresh(self, say: Words, chosen: str | None, kind: str | None = None, search: str | None = None) -> list[Any]:
        """The tab's versions as they are now."""
        store, may = self._context.adapters, self._context.settings.may_train
        found, live = store.versions(self._tab), store.live(self._tab)
        refs, before = [version.ref for version in found], store.way_back(self._tab)
        # The newest that a click would change something for.
        newest = next((ref for ref in refs if not live or ref != live.ref), next(iter(refs), None))
        ref = chosen if chosen in refs else newest
        return [
            versions_view.versions(say, found, live.ref if live else ""),
            versions_view.timeline(say, store.history(self._tab)) if may else "",
            gr.update(choices=refs, value=ref, visible=bool(refs)),
            gr.update(visible=may and bool(refs)),
            gr.update(
                visible=may and before is not None,
                value=say("adapters.roll_back_to", version=say("task.base") if before == BASE else before or ""),
            ),
            gr.update(visible=may and live is not None),
            *[gr.update(visible=may and bool(refs))] * 5,
            *self._shown(say, ref, kind, search),
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

    def allowed(self, act: Act) -> Callable[..., str]:
        """`act` on the chosen version, where this page may promote: decided here, whatever the layout hides.

        Gives the box of reasons its next content, which is none.
        """

        def handler(ref: str | None, why: str | None, request: gr.Request) -> str:
            self._context.require_training()
            who = getattr(request, "username", None) or "page"
            act(ref or "", " ".join((why or "").split())[:LONGEST_REASON], who)
            self._context.versions_changed()
            return ""

        return handler

    def _ask(self, ref: str | None, request: gr.Request) -> list[Any]:
        """Whether to delete this version, before it is done."""
        self._context.require_training()
        say = words(request)
        text = tag("strong", say("adapters.delete_ask", version=self._own(ref or "").ref))
        return [notice(text, tag("p", say("adapters.delete_about")), kind="warn"), gr.update(visible=True)]

    def _pack(self, ref: str | None) -> str:
        """A version in one file of Gradio's own cache, which it serves and sweeps."""
        self._context.require_training()
        with tempfile.TemporaryDirectory() as folder:
            content = pack(self._own(ref or ""), Path(folder) / "version.zip").read_bytes()
        path: str = save_bytes_to_cache(content, f"{ref}.zip", get_upload_folder())
        return path

    def _merge(self, request: gr.Request, ref: str | None) -> Iterator[list[Any]]:
        """A version merged into its base, in one file; how far it is meanwhile."""
        self._context.require_training()
        for html, path in merged.merged(words(request), self._own(ref or "").ref, self._context.settings.home):
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

    def _chosen(self, request: gr.Request, ref: str | None, kind: str | None = None, search: str | None = None) -> Any:  # noqa: ANN401
        updates = self._shown(words(request), ref, kind, search)
        return updates if len(updates) > 1 else updates[0]

    def _shown(self, say: Words, ref: str | None, kind: str | None, search: str | None) -> list[Any]:
        """The rows of a version's card, where there are any to show, and the card."""
        rows = self._rows.updates(say, ref, kind, search) if self._rows else []
        card = card_view.figures(say, self._card(ref)) if ref else Html("")
        title = tag("h4", say("adapters.card", version=ref)) if card else None
        return [*rows, Html((title or "") + card)]
