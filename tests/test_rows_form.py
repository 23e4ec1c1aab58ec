"""ui/rows_form.py: where rows come from, and what is shown of them, in a real page with a pool that has no models."""

from types import SimpleNamespace

import pytest

from errors import GraftError
from tests.ui_site import serve
from ui import rows_form
from ui.rows_form import Where

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
REQUEST = SimpleNamespace(headers={})
NO_HUB = ("", None, None)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("site")) as found:
        yield found


def test_a_report_of_an_example_fills_the_form(site) -> None:
    *_, [shown, text, target, messages, name, _] = rows_form.inspect(site.context, keep=False)(
        REQUEST, "echo", "example", "tickets.csv", *[None] * 7
    )
    assert "240" in shown and "feature request" in shown
    assert (text["value"], target["value"], messages["visible"], name) == ("text", "label", False, "tickets")


def test_columns_that_cannot_be_guessed_can_be_chosen(site, tmp_path) -> None:
    path = tmp_path / "My rows.csv"
    path.write_text("body,kind\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)), encoding="utf-8")
    *_, [shown, text, target, messages, name, _] = rows_form.inspect(site.context, keep=False)(
        REQUEST, "echo", "upload", None, str(path), *NO_HUB, "text", "label", None
    )
    assert "has no column" in shown and name == "my-rows"
    assert text["choices"] == [("body", "body"), ("kind", "kind")] or text["choices"] == ["body", "kind"]
    assert text["value"] is target["value"] is None and text["visible"] and not messages["visible"]
    *_, [shown, text, *_] = rows_form.inspect(site.context, keep=True)(
        REQUEST, "echo", "upload", None, str(path), *NO_HUB, "body", "kind", None
    )
    assert text["value"] == "body" and "20" in shown


def test_only_examples_by_name_are_read(site) -> None:
    for name in ("../app.py", "/etc/passwd", "README.md"):
        with pytest.raises(GraftError, match="There is no example"):
            rows_form.chosen_file(site.context, Where("example", name))
    with pytest.raises(GraftError, match="not a table"):
        rows_form.chosen_file(site.context, Where("upload", None, __file__))
    assert rows_form.chosen_file(site.context, Where("hub", "tickets.csv", __file__)) is None
    for id in ("../rows", "/etc/passwd", "examples/tickets.csv@/etc", "x"):
        with pytest.raises(GraftError, match="is not a"):
            rows_form.chosen_file(site.context, Where("hub", id=id))
