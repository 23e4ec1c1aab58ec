"""train_page.py: the form, its handlers, and commands both ways, in a real page with a pool that has no models."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks import Columns, TabSpec
from tests.helpers.ui_site import serve
from training.config import HYPERPARAMETERS, TrainConfig
from ui.train import train_page

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
REQUEST = SimpleNamespace(headers={})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("site")) as found:
        yield found


FIELDS = SimpleNamespace(fields=["name", "promote", "model", *HYPERPARAMETERS])


def form_of(**changed) -> list:
    """What the page's form sends, with some settings changed."""
    spec = TabSpec("echo", "org/base", "text-classification", Columns("text", "label"))
    config = TrainConfig.for_tab(spec, Path("data"), "name")
    values = {key: getattr(config, key) for key in HYPERPARAMETERS} | changed
    rows = ["example", "tickets.csv", None, "", None, None, None, "text", "label", None]
    return ["echo", *rows, "mine", True, "org/base", *values.values()]


def test_the_command_line_says_what_was_changed(site) -> None:
    command = train_page._command(site.context, FIELDS)
    form = form_of(quantize="4bit", rank=4)
    said = "python -m training --plugin echo --data examples/tickets.csv --name mine --rank 4 --quantize 4bit --promote"
    assert command(*form) == said
    form[8] = "label"
    assert "--columns text=label,target=label" in command(*form)
    form[11] = "Not a name"
    assert command(*form).startswith("# The training configuration is not valid.")
    quick = train_page._preset(site.context)("echo", "quick")
    assert "--preset quick --promote" in command(*form_of()[:14], *quick)
