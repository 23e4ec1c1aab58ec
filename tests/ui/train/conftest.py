"""A Train page of this process, whose runs are processes of a stand-in."""

import gradio as gr
import pytest

from tests.helpers.run_helpers import STAND_IN, end_all
from tests.helpers.ui_site import make
from training.runs.runs import Runs
from ui.pulse import PagePoll
from ui.train.train_page import TrainPage


@pytest.fixture
def context(tmp_path):
    found, _, _ = make(tmp_path)
    found.settings.home.mkdir()
    found.runs = Runs(found.settings, STAND_IN)
    yield found
    end_all(found.runs)


@pytest.fixture
def home(context):
    return context.settings.home


@pytest.fixture
def page(context):
    with gr.Blocks() as demo:
        return TrainPage(context, demo, PagePoll(context.access, lambda: None))
