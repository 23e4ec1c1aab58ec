"""The documents as text, and their code blocks. A block is marked by an invisible comment in the line above it."""

from __future__ import annotations

import re

import yaml

from settings import REPOSITORY as ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT, BODY = yaml.safe_load(README.split("---\n")[1]), README.split("---\n", 2)[2]
PAGES = {f"docs/{path.name}": path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))} | PAGES
USERS = "\n".join([BODY, *PAGES.values()])
"""All documents for users."""


def marked(marker: str, text: str = USERS) -> list[str]:
    """Return the code blocks behind a comment `<!-- marker -->`; `marker` is a regular expression."""
    return re.findall(rf"^<!-- {marker} -->\n```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks(language: str, text: str = USERS) -> list[str]:
    """Return all code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
