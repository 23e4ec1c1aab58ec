"""training/publish/export.py and packing in store/archive.py: an export answers as the version does."""

from __future__ import annotations

import json
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel

from errors import AdapterError
from models.resolve import ModelStore
from store.adapters import AdapterStore
from store.archive import pack
from store.files import STAGING_PREFIX
from store.staging import MANIFEST
from tasks import TASKS
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.run_helpers import file_limit
from training.__main__ import main
from training.publish.export import merge


def test_a_merged_model_answers_as_the_version_without_peft(trained: Trained, tmp_path: Path) -> None:
    folder = merge(trained.first, trained.model, tmp_path / "merged")
    auto = getattr(transformers, TASKS[trained.first.manifest["task"]].auto_class)
    options = {"num_labels": len(trained.first.labels)} if trained.first.labels else {}
    base = auto.from_pretrained(trained.model.path, **options)
    ids = torch.tensor([[5, 20, 30, 40, 7]])
    with torch.inference_mode():
        plain = base.eval()(ids).logits
        wanted = PeftModel.from_pretrained(base, trained.first.path).eval()(ids).logits
        found = auto.from_pretrained(folder).eval()(ids).logits
    assert torch.allclose(found, wanted, atol=1e-4) and not torch.allclose(found, plain, atol=1e-2)
    assert transformers.AutoTokenizer.from_pretrained(folder).decode([20]) is not None
    if trained.first.labels:
        assert list(json.loads((folder / "config.json").read_text())["id2label"].values()) == trained.first.labels
    assert not list(tmp_path.glob(f"{STAGING_PREFIX}*"))


def test_r32_another_base_is_refused_and_leaves_nothing(bert: Trained, tmp_path: Path) -> None:
    other = ModelStore(tmp_path / "models", offline=True).resolve(str(tiny.make("bert", tmp_path / "other", seed=5)))
    with pytest.raises(AdapterError, match="cannot be merged"):
        merge(bert.first, other, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_r33_a_zip_holds_what_the_manifest_lists_and_unpacks_as_a_version(bert: Trained, tmp_path: Path) -> None:
    shutil.copytree(bert.home / "adapters", tmp_path / "adapters")
    version = AdapterStore(tmp_path).get(bert.first.ref)
    (version.path / "rows.csv").write_text("a secret")
    archive = pack(version, tmp_path / "first.zip")
    with zipfile.ZipFile(archive) as file:
        assert {Path(name).name for name in file.namelist()} == {*version.manifest["files"], MANIFEST}
        file.extractall(tmp_path / "home" / "adapters")
    copied = AdapterStore(tmp_path / "home").get(bert.first.ref)
    copied.check_files()
    assert copied.manifest == bert.first.manifest


@pytest.mark.parametrize("name", ["first.zip", "merged.zip", "merged"])
def test_r32_an_export_is_whole_or_absent_and_replaces_nothing(name: str, bert: Trained, tmp_path: Path) -> None:
    target = tmp_path / name
    write = partial(pack, bert.first) if name == "first.zip" else partial(merge, bert.first, bert.model)
    with file_limit(2_000), pytest.raises(OSError, match="File too large"):
        write(target)
    assert list(tmp_path.iterdir()) == []
    target.write_text("mine")
    with pytest.raises(AdapterError, match="already there"):
        write(target)
    assert target.read_text() == "mine"


def test_the_command_says_what_it_wrote_or_why_not(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(bert.home))
    target = tmp_path / "merged"
    assert main(["export", bert.first.ref, str(target), "--merged", "--base", bert.spec.model]) == 0
    assert capsys.readouterr().out.split() == ["merge", "write", str(target)]
    assert (target / "model.safetensors").exists()
    assert main(["export", bert.first.ref, str(tmp_path / "a.zip")]) == 0
    assert main(["export", "nothing@1", str(tmp_path / "b.zip")]) == 2
    assert "nothing@1" in capsys.readouterr().err
    assert main(["export", bert.first.ref, str(tmp_path / "gone" / "b.zip")]) == 2
    assert "could not be written. No such file" in capsys.readouterr().err
