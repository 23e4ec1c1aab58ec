"""What the page says of its owner: how to sign in, who has, and why some of it is not to be seen.

Handlers decide by themselves (`ui/web/access.py`); this is only what is shown.
"""

from __future__ import annotations

import gradio as gr

from ui.context import Context
from ui.i18n import t
from ui.pulse import PagePoll
from ui.web.access import Action


def place_account(context: Context, pulse: PagePoll) -> None:
    """In the header: where the owner signs in, and out again."""
    if context.access.mode == "huggingface":
        gr.LoginButton(size="sm", elem_classes="g-account")
    if context.access.mode == "password":
        with pulse.reserved(Action.KEEP, others=True):
            gr.Button(t("signin.do"), link="signin", link_target="_self", size="sm", elem_classes="g-account")
        with pulse.reserved(Action.KEEP):
            gr.Button(t("signin.owner"), link="signin", link_target="_self", size="sm", elem_classes="g-account")


def place_notice(context: Context, pulse: PagePoll) -> None:
    """Why somebody sees less than there is, and what would change that; nothing for the owner."""
    if context.access.mode == "nobody":
        gr.Markdown(t("access.off_space" if context.settings.space else "access.off"), elem_classes="g-off")
    elif context.access.mode != "local":
        with pulse.reserved(Action.KEEP, others=True):
            gr.Markdown(t("access.sign_in"), elem_classes="g-off")
