"""docs/settings.md: the table is made from `Settings`, and has every variable with its default."""

from __future__ import annotations

import ast
import re

from settings import MODEL_PREFIX, Settings
from tests.docs.documents import DOCUMENTS, PAGES, ROOT
from tests.docs.settings_table import default, described, replaced, table


def variables_read() -> set[str]:
    """Every variable that settings.py gives a meaning: the names in the calls of `from_env` and what it calls."""
    readers = ("env.get", "_flag", "_choice", "_gigabytes", "_count")
    calls = [node for node in ast.walk(ast.parse((ROOT / "settings.py").read_text())) if isinstance(node, ast.Call)]
    given = [word for call in calls if ast.unparse(call.func) in readers for word in call.args]
    names = {str(word.value) for word in given if isinstance(word, ast.Constant)}
    return {name for name in names if re.fullmatch(r"[A-Z_]{5,}", name)} | {f"{MODEL_PREFIX}<TAB>"}


def test_page_is_the_one_that_is_generated() -> None:
    page = PAGES["docs/settings.md"]
    assert table() in page and replaced(page) == page, "run python -m tests.docs.settings_table"


def test_table_has_every_variable() -> None:
    shown = [variable for _, variable, _ in described()]
    assert set(shown) == variables_read() and len(shown) == len(set(shown)) >= 20


def test_defaults_are_those_of_an_empty_environment() -> None:
    plain, declared = Settings.from_env({}), Settings()
    fields = [field for field, _, _ in described() if field and field != "home"]
    assert len(fields) >= 20
    assert [field for field in fields if getattr(plain, field) != getattr(declared, field)] == []
    assert plain.home == declared.home.absolute() and plain.sign_in == "local"
    shown = {variable: default(field, variable) for field, variable, _ in described()}
    assert (shown["GRAFT_UPLOAD_MB"], shown["GRAFT_DISK_GB"], shown["GRAFT_RUN_HOURS"]) == ("50", "100", "72")
    assert (shown["GRAFT_HOME"], shown["GRAFT_PLUGINS"], shown["GRAFT_PASSWORD"]) == ("data", "plugins", "")


def test_documents_name_no_variable_that_is_not_read() -> None:
    named = set(re.findall(r"GRAFT_[A-Z_]*[A-Z]", "\n".join(DOCUMENTS.values())))
    unknown = {name for name in named if name not in variables_read() and not name.startswith(MODEL_PREFIX)}
    assert len(named) >= 20 and unknown <= {"GRAFT_MODEL"}
