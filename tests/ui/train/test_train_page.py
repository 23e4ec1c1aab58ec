"""train_page.py: the values of the form, and the command of its run."""

from pathlib import Path

import pytest

from training.config import HYPERPARAMETERS, PRESETS, TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


def command(page, context, **changed) -> str:
    """Return the command for values as the page's form sends them, with some of them changed."""
    config = TrainConfig.for_tab(context.spec("echo"), Path("data"), "name")
    rows = {"kind": "example", "example": "tickets.csv", "column_text": "text", "column_target": "label"}
    settings = {key: getattr(config, key) for key in HYPERPARAMETERS}
    values = {"tab": "echo", "name": "mine", "promote": True, "model": "org/base", **rows, **settings, **changed}
    return page._write_command(**values)


def test_the_command_names_what_differs_from_the_preset(page, context) -> None:
    plain = (
        "python -m training --plugin echo --data examples/tickets.csv --name mine --rank 4 --quantize 4bit --promote"
    )
    assert command(page, context, quantize="4bit", rank=4) == plain
    assert "--columns text=label,target=label" in command(page, context, column_text="label")
    wrong = command(page, context, name="Not a name")
    assert wrong.startswith("# The training configuration is not valid.")


def test_a_preset_sets_every_setting(page, context) -> None:
    quick = page._preset("echo", "quick")
    values = {name: quick[component] for name, component in page.form.hyperparameters.items()}
    assert values["epochs"] == PRESETS["label"]["quick"]["epochs"]
    assert "--preset quick --promote" in command(page, context, **values)


def test_every_value_of_the_form_has_a_name_of_its_own(page) -> None:
    form = page.form
    assert len(form.inputs) == len(set(form.inputs.values())) == 1 + len(form.rows.inputs) + len(form.fields)
