"""models/template_check.py: a chat template that loops, grows or reaches for objects does nothing to this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2.exceptions import SecurityError, TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from errors import ModelError
from models.resolve import ModelStore
from models.template_check import LONGEST, check_templates
from models.tokenizer import load_tokenizer
from tests.helpers import tiny

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TRAPS = {
    "loops": LOOPS,
    "loops where something is learned": "{% generation %}" + LOOPS + "{% endgeneration %}",
    "grows": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "is one long text": "{{ 'a' * 10 ** 11 }}",
    "calls itself": "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "is long": "x" * (LONGEST + 1),
}
WALKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}{{ messages.__init__.__globals__.x }}",
    "{{ messages.append(1) }}",
    "{{ cycler.__init__.__globals__.os.popen('touch canary; id').read() }}",
    "{{ '{0.__class__.__init__}'.format(messages) }}",
]


@pytest.mark.parametrize("trap", TRAPS)
def test_r25_a_template_that_would_not_end_is_refused(trap: str) -> None:
    with pytest.raises(ModelError, match="org/base is refused"):
        check_templates(TRAPS[trap], "org/base")


@pytest.mark.parametrize("template", WALKS)
def test_r25_a_template_runs_no_code_and_reaches_no_object_of_python(template: str) -> None:
    check_templates(template, "org/base")
    assert not Path("canary").exists(), "a child runs in the repository's folder"
    try:
        rendered, _ = render_jinja_template([[{"role": "user", "content": "x"}]], chat_template=template)
    except (SecurityError, TemplateError):
        return
    assert "<" not in rendered[0] and "uid=" not in rendered[0]


def test_r25_a_base_with_such_a_template_is_not_loaded_and_a_good_one_is(tmp_path: Path) -> None:
    check_templates(tiny.CHATML, "org/base")
    check_templates({"default": tiny.CHATML, "tool": "{% generation %}x{% endgeneration %}"}, "org/base")
    check_templates(None, "org/base")
    folder = tiny.make("llama", tmp_path / "llama")
    model = ModelStore(tmp_path, offline=True).resolve(str(folder))
    assert load_tokenizer(model).chat_template
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    facts = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**facts, "chat_template": LOOPS}))
    with pytest.raises(ModelError, match="takes more than 2 s"):
        load_tokenizer(model)
