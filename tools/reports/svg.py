"""A drawn chart as a part of a page: no prologue, ids of its own, as wide as there is room, the page's colours."""

from __future__ import annotations

import re

INK, LINE = "#010203", "#040506"
"""What charts draw text and rules with; the page has its own colours for them, light or dark."""


def inline(text: str, name: str, title: str) -> str:
    """Return an SVG file as an element of an HTML page that has a rule colour ``--rule``."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'^<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{title}"', text)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    for reference in ('id="', 'href="#', "url(#"):
        text = text.replace(reference, f"{reference}{name}-")
    return text.replace(INK, "currentColor").replace(LINE, "var(--rule)")
