"""The documents as text, and their code blocks. A block is marked by an invisible comment in the line above it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import yaml

from settings import REPOSITORY as ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT, BODY = yaml.safe_load(README.split("---\n")[1]), README.split("---\n", 2)[2]
PAGES = {f"docs/{path.name}": path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))} | PAGES
USERS = "\n".join([BODY, *PAGES.values()])
"""Everything that users read."""
ENVIRONMENT = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | {"HF_HUB_OFFLINE": "1"}


def marked(marker: str, text: str = USERS) -> list[str]:
    """The code blocks behind a comment `<!-- marker -->`; `marker` is a regular expression."""
    return re.findall(rf"^<!-- {marker} -->\n```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks(language: str, text: str = USERS) -> list[str]:
    """All code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in the repository, with nothing of this process's environment but its path."""
    return subprocess.run(
        [sys.executable, "-B", *arguments], cwd=ROOT, env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
