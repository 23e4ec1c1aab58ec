"""The README's table of settings is that of settings.py: every variable, with its default."""

from __future__ import annotations

import ast
import re

from settings import MODEL_PREFIX, Settings
from tests.test_readme import BODY, DOCUMENTS, ROOT


def settings_read() -> set[str]:
    """Every variable that settings.py gives a meaning, seen in its syntax."""
    found = set[str]()
    for node in ast.walk(ast.parse((ROOT / "settings.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "env.get",
            "_flag",
            "_choice",
            "_gigabytes",
            "_count",
        ):
            found |= {
                a.value for a in node.args if isinstance(a, ast.Constant) and re.fullmatch(r"[A-Z_]{5,}", str(a.value))
            }
    return found | {f"{MODEL_PREFIX}<TAB>"}


def settings_shown() -> dict[str, str]:
    """variable -> default, from the README's table."""
    return dict(re.findall(r"^\| `([A-Z_]+(?:<TAB>)?)` \|\s*`?([^`|]*?)`?\s*\|", BODY, re.MULTILINE))


def test_the_table_of_settings_is_complete() -> None:
    assert set(settings_shown()) == settings_read() and len(settings_read()) >= 8
    variables = set(re.findall(r"GRAFT_[A-Z_]+", "\n".join(DOCUMENTS.values())))
    source = (ROOT / "settings.py").read_text()
    assert {v for v in variables if v not in source and not v.startswith(MODEL_PREFIX)} == set()


def test_the_defaults_of_the_table_are_those_of_the_settings() -> None:
    plain, shown = Settings.from_env({}), settings_shown()
    assert (ROOT / shown["GRAFT_HOME"], ROOT / shown["GRAFT_PLUGINS"]) == (ROOT / plain.home.name, plain.plugins)
    assert (shown["GRAFT_HOST"], int(shown["GRAFT_PORT"])) == (plain.host, plain.port)
    assert (shown["GRAFT_QUANTIZE"], shown["GRAFT_PRECISION"]) == (plain.quantize, plain.precision)
    assert shown["GRAFT_GATE"] == plain.gate
    unit = {"GB": 10**9, "MB": 10**6, "HOURS": 3600}
    limits = {
        "CACHE_GB": plain.cache_bytes, "DOWNLOAD_GB": plain.download_bytes, "UPLOAD_MB": plain.upload_bytes,
        "DISK_GB": plain.disk_bytes, "RUN_HOURS": plain.run_seconds, "RUN_MEMORY_GB": plain.run_memory_bytes,
        "RATE": plain.rate, "ROWS": plain.rows, "TEXT_LENGTH": plain.text_length, "NEW_TOKENS": plain.new_tokens,
        "QUEUE": plain.queue,
    }  # fmt: skip
    told = {name: float(shown[f"GRAFT_{name}"]) * unit.get(name.rpartition("_")[2], 1) for name in limits}
    assert told == limits
    assert shown["GRAFT_PASSWORD"] == shown["GRAFT_OWNERS"] == plain.password == "" and shown["HF_HUB_OFFLINE"] == "0"
    assert (plain.sign_in, plain.offline, plain.space) == ("local", False, False)
