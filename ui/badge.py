"""The line under an answer, `sentiment@1 · all-MiniLM-L6-v2 · 31 ms`: an object for API callers, words on the page."""

from __future__ import annotations

from typing import Any

import gradio as gr

# Gradio fills a template by Handlebars first and then compiles the result as a JavaScript template literal, so a value
# put in by {{value.x}} could run as code. Here the template is constant, and its one expression escapes the values.
TEMPLATE = """${(() => {
  if (!value || !value.version) return '';
  const clean = (s) => String(s).replace(/[^0-9A-Za-z @._-]/g, (c) => '&#' + c.codePointAt(0) + ';');
  const base = String(value.base).split('/').pop();
  const time = value.ms < 1000 ? value.ms + ' ms' : (value.ms / 1000).toFixed(1) + ' s';
  const facts = [value.version, base, time];
  const line = facts.map((s) => '<span>' + clean(s) + '</span>').join('<i> · </i>');
  const notes = (value.notes || []).map((s) => '<p>' + clean(s) + '</p>').join('');
  return '<div class="g-badge">' + line + '</div>' + (notes && '<div class="g-notes">' + notes + '</div>');
})()}"""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "version": {"type": "string", "description": "what answered: name@7, base, or own"},
        "base": {"type": "string", "description": "the base's id"},
        "ms": {"type": "integer", "description": "milliseconds from request to answer"},
        "notes": {"type": "array", "items": {"type": "string"}, "description": "what the reader must know"},
    },
}


def make_badge() -> gr.HTML:
    """Which version and base answered, in how many milliseconds, with notes such as a truncation."""
    # Not a subclass: Gradio writes a .pyi file beside the source of every component class that it meets.
    badge = gr.HTML(None, label="answer", html_template=TEMPLATE, js_on_load=None, elem_classes="g-answered")
    badge.api_info = lambda: SCHEMA  # type: ignore[method-assign]
    return badge
