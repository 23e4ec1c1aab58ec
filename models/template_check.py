"""Chat templates of bases are programs: each is tried in a process of its own before it is used in this one.

    python -m models.template_check < template        renders a short conversation with it, in little time and memory

Templates run in Jinja's sandbox, which keeps them from reaching for objects, and not from looping for ever. One that a
short conversation makes slow or large is refused; what it would do to one particular text is not known here.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Mapping
from functools import cache

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from errors import ModelError
from settings import REPOSITORY, child_environment

LONGEST = 200_000
"""Characters; the longest real ones have a tenth."""
SECONDS = 2
"""Of the processor, for a few messages that take microseconds."""
MEMORY = 2**29
"""Bytes of the address space."""
PATIENCE_S = 60.0
"""Until a process on a busy machine has had its two seconds."""
MESSAGES = ("system", "user", "assistant", "user", "assistant")


class _Generation(Extension):
    """`{% generation %}`, by which templates mark what is learned: read as what stands inside it."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements up to `{% endgeneration %}`."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def check_templates(templates: str | Mapping[str, str] | None, model_id: str) -> None:
    """Raise `ModelError` for a base one of whose chat templates is too slow, takes too much memory, or is too long."""
    for template in templates.values() if isinstance(templates, Mapping) else [templates]:
        if template and not _is_harmless(template):
            why = f"Its chat template takes more than {SECONDS} s or {MEMORY >> 20} MB for five short messages."
            raise ModelError(f"The model {model_id} is refused.", why, "Choose another model.")


@cache
def _is_harmless(template: str) -> bool:
    if len(template) > LONGEST:
        return False
    try:
        tried = subprocess.run(
            [sys.executable, "-m", "models.template_check"], input=template.encode("utf-8", "replace"), cwd=REPOSITORY,
            env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0


def main() -> int:
    """Render the template on standard input; whether it makes sense is for whoever uses it to find out."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    try:
        template = environment.from_string(sys.stdin.read())
        for answer_next in (True, False):
            messages = [{"role": role, "content": "\x021\x02"} for role in MESSAGES]
            template.render(
                messages=messages, add_generation_prompt=answer_next, eos_token="", bos_token="", tools=None
            )
    except MemoryError:
        return 1
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return 0  # refused by the sandbox, or for other conversations than this one
    except RecursionError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
