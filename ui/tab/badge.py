"""The badge under an answer, such as `sentiment@1 · all-MiniLM-L6-v2 · 31 ms`; API clients receive it as JSON.

In a comparison it also shows an error, and the differences from the first answer.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ui.i18n import LANGUAGES, texts
from ui.web.gradio_private import describe

# Gradio fills a template by Handlebars and then compiles it as a JavaScript template literal, so that a value in
# {{value.x}} could run as code. This template is constant, and its one expression escapes every value.
TEMPLATE = """${(() => {
  if (!value) return '';
  const texts = TEXTS[navigator.language.startsWith('zh') ? 1 : 0];
  const clean = (s) => String(s).replace(/[^0-9A-Za-z @._-]/g, (c) => '&#' + c.codePointAt(0) + ';');
  if (value.before) return '<div class="g-badge g-before">' + clean(texts[2].replace('{n}', value.before)) + '</div>';
  if (!value.version) return '';
  const base = String(value.base).split('/').pop();
  const time = value.ms < 1000 ? value.ms + ' ms' : (value.ms / 1000).toFixed(1) + ' s';
  const line = [value.version, base, time].map((s) => '<span>' + clean(s) + '</span>').join('<i> · </i>');
  const notes = (value.notes || []).map((s) => '<p>' + clean(s) + '</p>').join('');
  const below = (kind, inner) => inner && '<div class="' + kind + '">' + inner + '</div>';
  const failed = value.error && '<p>' + clean(value.error) + '</p>';
  return (failed ? '' : below('g-badge', line)) + below('g-notes', notes) + below('g-notice g-bad', failed || '')
    + below('g-differs', differs());
  function differs() {
    if (value.than === undefined) return '';
    const than = texts[value.differs.length ? 1 : 0].replace('{version}', value.than);
    const tags = {gone: 'del', come: 'ins', kept: 'span'};
    const pieces = value.differs.map(([kind, s]) => '<' + tags[kind] + '>' + clean(s) + '</' + tags[kind] + '>');
    return '<p>' + clean(than) + '</p>' + below('g-source', pieces.join(''));
  }
})()}"""

STRING = {"type": "string"}
PROPERTIES: dict[str, dict[str, Any]] = {
    "version": STRING | {"description": "version that answered: name@7, base, or own"},
    "base": STRING | {"description": "id of the base"},
    "ms": {"type": "integer", "description": "milliseconds from request to answer"},
    "notes": {"type": "array", "items": STRING, "description": "notes for the reader, such as a truncation"},
    "before": {"type": "integer", "description": "while it waits: number of requests before it"},
    "error": STRING | {"description": "in a comparison: why there is no answer, or no whole one"},
    "than": STRING | {"description": "in a comparison: version of the first answer"},
    "differs": {
        "type": "array",
        "items": {"type": "array", "items": STRING},
        "description": "in a comparison: pieces [kept, gone or come; text] from that answer to this one",
    },
}


def make_badge() -> gr.HTML:
    """Make the component that shows a badge."""
    keys = ("compare.same", "compare.differs", "task.before")
    by_language = json.dumps([[texts(language)[key] for key in keys] for language in LANGUAGES])
    # Not a subclass, because Gradio writes a .pyi file beside the source of every component class.
    badge = gr.HTML(
        None,
        label="answer",
        html_template=TEMPLATE.replace("TEXTS", by_language),
        js_on_load=None,
        elem_classes="g-answered",
    )
    describe(badge, {"type": "object", "properties": PROPERTIES})
    return badge
