"""The badge under an answer, `sentiment@1 · all-MiniLM-L6-v2 · 31 ms`: JSON for API clients, words on the page.

In a comparison it also shows an error, and the differences from the first answer.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ui.i18n import LANGUAGES, texts
from ui.web.gradio_private import describe

# Gradio fills a template by Handlebars and then compiles it as a JavaScript template literal, so a value put in by
# {{value.x}} could run as code. This template is constant, and its one expression escapes the values.
TEMPLATE = """${(() => {
  if (!value) return '';
  const said = SAID[navigator.language.startsWith('zh') ? 1 : 0];
  const clean = (s) => String(s).replace(/[^0-9A-Za-z @._-]/g, (c) => '&#' + c.codePointAt(0) + ';');
  if (value.before) return '<div class="g-badge g-before">' + clean(said[2].replace('{n}', value.before)) + '</div>';
  if (!value.version) return '';
  const base = String(value.base).split('/').pop();
  const time = value.ms < 1000 ? value.ms + ' ms' : (value.ms / 1000).toFixed(1) + ' s';
  const facts = [value.version, base, time];
  const line = facts.map((s) => '<span>' + clean(s) + '</span>').join('<i> · </i>');
  const notes = (value.notes || []).map((s) => '<p>' + clean(s) + '</p>').join('');
  const below = (kind, inner) => inner && '<div class="' + kind + '">' + inner + '</div>';
  const failed = value.error && '<p>' + clean(value.error) + '</p>';
  return (failed ? '' : below('g-badge', line)) + below('g-notes', notes) + below('g-notice g-bad', failed || '')
    + below('g-differs', differs());
  function differs() {
    if (value.than === undefined) return '';
    const than = said[value.differs.length ? 1 : 0].replace('{version}', value.than);
    const marks = {gone: 'del', come: 'ins', kept: 'span'};
    const pieces = value.differs.map(([kind, s]) => {
      const name = marks[kind] || 'span';
      return '<' + name + '>' + clean(s) + '</' + name + '>';
    });
    return '<p>' + clean(than) + '</p>'
      + (pieces.length ? '<div class="g-source">' + pieces.join('') + '</div>' : '');
  }
})()}"""

FACTS = {
    "version": ("string", "version that answered: name@7, base, or own"),
    "base": ("string", "id of the base"),
    "ms": ("integer", "milliseconds from request to answer"),
    "notes": ("array", "notes for the reader, such as a truncation"),
    "before": ("integer", "while it waits: number of requests before it"),
    "error": ("string", "in a comparison: why there is no answer, or no whole one"),
    "than": ("string", "in a comparison: version of the first answer"),
    "differs": ("array", "in a comparison: pieces [kept, gone or come; text] from that answer to this one"),
}
ITEMS = {"notes": {"type": "string"}, "differs": {"type": "array", "items": {"type": "string"}}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        name: {"type": kind, "description": text} | ({"items": ITEMS[name]} if name in ITEMS else {})
        for name, (kind, text) in FACTS.items()
    },
}


def _said() -> str:
    """Return the texts of the template by language, as JSON."""
    keys = ("compare.same", "compare.differs", "task.before")
    return json.dumps([[texts(language)[key] for key in keys] for language in LANGUAGES], ensure_ascii=True)


def make_badge() -> gr.HTML:
    """Make the component that shows version, base, milliseconds, and notes such as a truncation."""
    # Not a subclass: Gradio writes a .pyi file beside the source of every component class that it meets.
    badge = gr.HTML(
        None,
        label="answer",
        html_template=TEMPLATE.replace("SAID", _said()),
        js_on_load=None,
        elem_classes="g-answered",
    )
    describe(badge, SCHEMA)
    return badge
