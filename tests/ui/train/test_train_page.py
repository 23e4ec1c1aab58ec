"""train_page.py: the form, its handlers, and the command of a run, in a real page with a pool that has no models."""

from pathlib import Path

import gradio as gr
import pytest

from tests.helpers.ui_site import serve
from training.config import HYPERPARAMETERS, PRESETS, TrainConfig
from ui.train import train_page

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("site")) as found:
        yield found


def form_of(site, **changed) -> dict:
    """Return values as the page's form sends them, with some settings changed."""
    config = TrainConfig.for_tab(site.context.spec("echo"), Path("data"), "name")
    rows = {"kind": "example", "example": "tickets.csv", "column_text": "text", "column_target": "label"}
    settings = {key: getattr(config, key) for key in HYPERPARAMETERS}
    return {"tab": "echo", "name": "mine", "promote": True, "model": "org/base", **rows, **settings, **changed}


def test_the_command_says_what_was_changed(site) -> None:
    command = train_page._command(site.context)
    said = "python -m training --plugin echo --data examples/tickets.csv --name mine --rank 4 --quantize 4bit --promote"
    assert command(**form_of(site, quantize="4bit", rank=4)) == said
    assert "--columns text=label,target=label" in command(**form_of(site, column_text="label"))
    assert command(**form_of(site, name="Not a name")).startswith("# The training configuration is not valid.")


def test_a_preset_sets_every_setting(site) -> None:
    with gr.Blocks():
        form, *_ = train_page._form(site.context)
    quick = train_page._preset(site.context, form)("echo", "quick")
    values = {name: quick[component] for name, component in form.hyperparameters.items()}
    assert values["epochs"] == PRESETS["label"]["quick"]["epochs"]
    assert "--preset quick --promote" in train_page._command(site.context)(**form_of(site, **values))


def test_every_value_of_the_form_has_a_name_of_its_own(site) -> None:
    with gr.Blocks():
        form, *_ = train_page._form(site.context)
    assert len(form.inputs) == len(set(form.inputs.values())) == 1 + len(form.rows.inputs) + len(form.fields)
