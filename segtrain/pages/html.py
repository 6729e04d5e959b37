"""HTML building blocks of a page: escaped text, sections, tables, colours and pictures."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from segtrain.errors import printable
from segtrain.pages.style import STYLE


def escaped(text: object) -> str:
    """Return text from the data, which may contain anything, in a form that is safe on a page.

    Example:
        >>> escaped('<a href="x">')
        '&lt;a href=&quot;x&quot;&gt;'
    """
    return html.escape(printable(text))


def page(title: str, body: Iterable[str]) -> str:
    """Return a page that needs no other file; `body` is markup, `title` is plain text."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escaped(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def section(name: str, heading: str, parts: Iterable[str], note: str = "") -> str:
    """Return a section with its heading; `parts` are markup, `heading` and `note` plain text."""
    intro = f'<p class="note">{escaped(note)}</p>' if note else ""
    inside = "\n".join(parts)
    return f'<section id="{name}">\n<h2>{escaped(heading)}</h2>{intro}\n{inside}\n</section>'


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int],
    *,
    style: str = "",
) -> str:
    """Return a table of markup; the columns whose index is in `numbers` are aligned right.

    Args:
        headings: The headings, as plain text.
        rows: The cells of each row, as markup.
        numbers: The columns to align right.
        style: Classes of the style sheet: ``fixed`` keeps the first column in view when the table
            scrolls, ``upright`` turns the other headings by 90 degrees.
    """
    right = set(numbers)

    def row(cells: Sequence[str], tag: str) -> str:
        marks = ('class="number"' if index in right else "" for index in range(len(cells)))
        inside = (
            f"<{tag} {mark}>{cell}</{tag}>" if mark else f"<{tag}>{cell}</{tag}>"
            for cell, mark in zip(cells, marks, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    lines = "\n".join(row(cells, "td") for cells in rows)
    inside = [f"<span>{escaped(text)}</span>" if style else escaped(text) for text in headings]
    kind = f' class="{style}"' if style else ""
    return (
        f'<div class="scroll"><table{kind}>\n<thead>{row(inside, "th")}</thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def swatch(colour: Sequence[int]) -> str:
    """Return a small square in the colour of a class."""
    red, green, blue = (int(channel) for channel in colour[:3])
    return f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'


def legend(names: Sequence[str], colours: Sequence[Sequence[int]]) -> str:
    """Return a legend of class names and their colours."""
    pairs = zip(names, colours, strict=True)
    marks = (f'<span class="name">{swatch(colour)}{escaped(name)}</span>' for name, colour in pairs)
    return f'<p class="legend">{"".join(marks)}</p>'


def picture(uri: str, text: str, *, sharp: bool = False) -> str:
    """Return an image embedded in the page; `text` describes it."""
    mark = ' class="sharp"' if sharp else ""
    return f'<img{mark} src="{uri}" alt="{escaped(text)}" loading="lazy">'
