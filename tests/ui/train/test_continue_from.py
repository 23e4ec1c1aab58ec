"""continue_from.py: the form offers versions, and a version fills the form."""

import pytest

from errors import AdapterError
from ui.i18n import Words
from ui.train import continue_from

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


@pytest.fixture
def publish(context):
    def publish(name: str, **facts: object) -> None:
        with context.adapters.staging() as staging:
            (staging / "adapter_model.safetensors").write_bytes(b"x")
            base = {"id": "org/base", "source": "hub", "revision": "main"}
            context.adapters.publish(staging, name, {"plugin": "echo", "base": base, "labels": [], **facts})

    return publish


def test_the_form_offers_the_versions_of_its_tab(context, publish) -> None:
    publish("mine"), publish("far", base={"id": "org/other"}), publish("foreign", plugin="stream")
    found = dict(continue_from.choices(context, Words(), "echo"))
    assert found == {"a fresh adapter": "", "mine@1": "mine@1", "far@1 · other": "far@1"}
    assert continue_from.choices(context, Words(), "gone") == [("a fresh adapter", "")]


def test_a_version_fills_the_form_with_how_it_was_made(context, page, publish) -> None:
    def filled(ref: str) -> dict[str, object]:
        updates = continue_from.values(context, context.adapters.get(ref), page.form)
        return {"tab": updates[page.form.tab], **{name: updates[field] for name, field in page.form.fields.items()}}

    publish("mine", config={"rank": 3, "start_from": "old@1", "unknown": 1})
    values = filled("mine@1")
    assert (values["tab"], values["name"], values["rank"], values["model"]) == ("echo", "mine", 3, "org/base")
    assert values["start_from"]["value"] == "mine@1"
    publish("far", base={"id": "org/other", "source": "hub", "revision": ""})
    assert filled("far@1")["model"] == "org/other", "it continues on the base that it was made for"
    publish("lost", base={"id": "elsewhere", "source": "folder"})
    with pytest.raises(AdapterError, match="nobody has said where it lies"):
        filled("lost@1")
