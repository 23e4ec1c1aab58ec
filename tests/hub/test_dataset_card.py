"""hub/dataset_card.py: what a card says of files and labels, and that no name in it leads out of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors import DataError
from hub.dataset_card import Card, CardConfig, label_names, read_card

OUTSIDE = ["/etc/secret.json", "../secret.json", "data/../../secret.json", "./../secret.json", "http://x/secret.json",
           "https://x/secret.json", "file:///etc/secret.json", "zip://secret.json::http://x/a.zip", "hf://datasets/a/b",
           "a::b.csv", "data\\..\\secret.json", "c:secret.json", "~/secret.json/..", "data//x.csv", "a\nb.csv",
           "a/**/**/**/b", "{a: b}", "[[x]]", "7"]  # fmt: skip
SHAPES = ["- config_name: c\n  data_files: {}", "- config_name: c\n  data_files:\n  - {}",
          "- config_name: c\n  data_files:\n  - split: train\n    path: {}",
          "- config_name: c\n  data_files:\n  - split: train\n    path:\n    - ok.csv\n    - {}",
          "- config_name: c\n  data_files:\n    train: {}"]  # fmt: skip


def card(yaml: str, mark: str = "---") -> Card:
    return read_card("org/rows", f"{mark}\n{yaml}\n---\n\n# Rows\n---\n")


@pytest.mark.parametrize("pattern", OUTSIDE)
@pytest.mark.parametrize("shape", SHAPES)
def test_r04_a_pattern_that_leads_out_is_refused(shape: str, pattern: str) -> None:
    written = pattern if pattern[0] in "{[7" else '"' + pattern.replace("\\", "\\\\").replace("\n", "\\n") + '"'
    if pattern == "{a: b}" and shape == SHAPES[0]:
        written = "{a: 7}"  # a mapping there is splits and their patterns
    if pattern == "{a: b}" and shape == SHAPES[1]:
        written = "{path: 7}"
    with pytest.raises(DataError, match="not its own"):
        card("configs:\n" + shape.replace("{}", written))


@pytest.mark.parametrize("folder", ["../x", "/etc", "file:///etc", "a/../.."])
def test_r04_a_folder_that_leads_out_is_refused(folder: str) -> None:
    with pytest.raises(DataError, match="not its own"):
        card(f"configs:\n- config_name: c\n  data_dir: {folder}")


@pytest.mark.parametrize("shape", SHAPES)
def test_configurations_in_every_shape(shape: str) -> None:
    config = card("configs:\n" + shape.replace("{}", "./data/train-*.parquet"))
    [found] = config.configs
    assert found.name == "c" and found.splits["train"][-1] == "data/train-*.parquet"


def test_the_default_configuration_and_folders() -> None:
    found = card("configs:\n- config_name: en\n  data_dir: en\n- config_name: de\n  default: true\n  data_dir: de/\n"
                 "  data_files: x.csv\n- config_name: none\n- 7")  # fmt: skip
    assert found.configs == (CardConfig("en", "en"), CardConfig("de", "de", {"train": ("de/x.csv",)}, True))


def test_labels_are_named() -> None:
    info = "dataset_info:\n{}  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n{}"
    info += "  - name: text\n    dtype: string\n  - name: odd\n    dtype: {{class_label: 7}}\n"
    names = "          '0': negative\n          '1': positive\n"
    assert card(info.format("", names)).labels == {"default": {"label": ("negative", "positive")}}
    assert card(info.format("", "          - no\n          - maybe\n")).labels["default"] == {}  # YAML's no is False
    listed = (
        info.format("- config_name: en\n", names).replace("\n  ", "\n    ").replace("\n    features", "\n  features")
    )
    assert card(listed).labels == {"en": {"label": ("negative", "positive")}}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a", "b"], ("a", "b")),
        ({"0": "a", "1": "b"}, ("a", "b")), ({1: "b", 0: "a"}, ("a", "b")), ([1, 2], ("1", "2")), ([False, "a"], ()),
        ({"0": "a", "2": "b"}, ()), (["a", "a"], ()), (["a", None], ()), ("ab", ()), (None, ()), (["x" * 2000], ()),
        (["a"] * 20_000, ()), ([], ()),
    ],
)  # fmt: skip
def test_names_of_labels(names: object, found: tuple[str, ...]) -> None:
    assert label_names(names) == found


@pytest.mark.parametrize("text", ["", "# Rows", "---\n{\n---\n", "---\n- a\n---\n", "---\nconfigs: 7\n---\n",
                                  "---\n&a [*a]\n---\n",
                                  "---\n" + "[" * 50_000 + "\n---\n", "---\nx: 2020-99-99\n---\n",
                                  "---\n!!python/name:os.system\n---\n",
                                  "---\nconfigs:\n- config_name: x\n---\n",
                                  "text\n---\nconfigs: [{data_files: /x}]\n---\n"])  # fmt: skip
def test_a_card_that_says_nothing_of_files(text: str) -> None:
    assert read_card("org/rows", text) == Card()


@pytest.mark.parametrize("call", ["os.mkdir", "os.makedirs"])
def test_r17_a_card_calls_nothing(tmp_path: Path, call: str) -> None:
    canary = tmp_path / "canary"
    read_card("org/rows", f"---\nconfigs: !!python/object/apply:{call} ['{canary}']\n---\n")
    assert not canary.exists()


def test_a_card_may_have_marks_and_line_ends() -> None:
    assert card("configs:\r\n- config_name: c\r\n  data_files: a.csv\r", "\ufeff---").configs[0].name == "c"
