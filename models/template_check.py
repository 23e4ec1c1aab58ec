"""Try a chat template, which is a program, in a child process with limits before it is used in this one.

    python -m models.template_check < template        renders a short conversation with it

Templates run in Jinja's sandbox, which keeps them from Python's objects, but not from looping for ever.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from functools import cache

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from errors import ModelError
from store import processes

LONGEST = 200_000
"""Characters; the longest real ones have a tenth."""
SECONDS = 2
"""Processor time for a few messages, which take microseconds."""
MEMORY = 2**29
"""Bytes of the address space."""
PATIENCE_S = 60.0
"""Seconds until a child on a busy machine has had its processor time."""
ROLES = ("system", "user", "assistant", "user", "assistant")


class _Generation(Extension):
    """Renders the content of `{% generation %}`, by which templates mark the assistant's text."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Parse the statements up to `{% endgeneration %}`."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def check_templates(templates: str | Mapping[str, str] | None, model_id: str) -> None:
    """Raise `ModelError` where one of a base's chat templates is too slow, takes too much memory, or is too long."""
    for template in templates.values() if isinstance(templates, Mapping) else [templates]:
        if template and not _is_harmless(template):
            why = f"Its chat template takes more than {SECONDS} s or {MEMORY >> 20} MB for five short messages."
            raise ModelError(f"The model {model_id} is refused.", why, "Choose another model.")


@cache
def _is_harmless(template: str) -> bool:
    command = processes.python("models.template_check")
    return len(template) <= LONGEST and processes.succeeds(command, template, PATIENCE_S)


def main() -> int:
    """Render the template on standard input; returns 0 unless it exceeds a limit, or is killed at one.

    A template that the sandbox refuses, or that raises for this conversation, is harmless.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    messages = [{"role": role, "content": "\x021\x02"} for role in ROLES]
    try:
        template = environment.from_string(sys.stdin.read())
        for answer_next in (True, False):
            template.render(
                messages=messages, add_generation_prompt=answer_next, eos_token="", bos_token="", tools=None
            )
    except (MemoryError, RecursionError):
        return 1
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
