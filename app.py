"""Graft: `python app.py`, or `graft`, opens the page; a Space and `gradio app.py` import `demo`.

The composition root: settings, then stores, then the pool of bases, then tabs, then the page.
"""

from __future__ import annotations

import threading

from settings import Settings, prepare_environment

prepare_environment()  # before Gradio is imported, because it reads some of it then

from errors import GraftError  # noqa: E402
from models.resolve import ModelStore  # noqa: E402
from plugins._discovery import discover  # noqa: E402
from serving.pool import Pool  # noqa: E402
from store.adapters import AdapterStore  # noqa: E402
from store.watch import Watch  # noqa: E402
from training.runs.runs import Runs  # noqa: E402
from ui import shell  # noqa: E402
from ui.context import Context  # noqa: E402
from ui.shell import Reloader  # noqa: E402
from ui.web import server  # noqa: E402
from ui.web.guard import log_without_tokens  # noqa: E402


def compose(settings: Settings) -> Context:
    """Return everything that the page works with; nothing is loaded yet."""
    adapters = AdapterStore(settings.home, settings.shipped)
    pool = Pool(settings, ModelStore(settings.home / "models", settings.offline), adapters)
    return Context(settings, discover(settings.plugins), pool, adapters, Runs(settings))


log_without_tokens()  # before plugins are imported, whose errors are logged
try:
    context = compose(Settings.from_env())
except GraftError as error:
    server.stop(error, 2)
demo = shell.build(context)


def main() -> None:
    """Serve the page until interrupted."""
    try:
        server.check_home(context.settings)
        threading.Thread(target=context.runs.attend, name="graft-queue", daemon=True).start()
        Watch(context.adapters.watched, context.versions_changed).start()
        Watch([context.settings.plugins], Reloader(context, demo)).start()
        server.launch(demo, context)
    except GraftError as error:
        server.stop(error, 1)


if __name__ == "__main__":
    main()
