r"""Convert Google-style docstrings with reStructuredText to the Markdown of GitHub and GitLab.

Formulas become ```` ```math ```` blocks and ``$`...`$``, because between plain dollars both sites
remove the backslash of ``\,`` and ``\{``.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(r"^([A-Z][a-z]+):$")
_ARGUMENT = re.compile(r"^(\*{0,2}\w+)(?: \([^)]*\))?:\s*(.*)$")
_ROLE = re.compile(r":(\w+):`(~?)([^`]+)`")
_LINK = re.compile(r"`([^`<]+) <(https?://[^>]+)>`__?")
_ITEM = re.compile(r"^(?:[-*]|\d+\.) ")


@dataclass
class Docstring:
    """The parts of a docstring, as Markdown except for the names of `arguments`."""

    summary: str
    body: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    sections: list[tuple[str, str]] = field(default_factory=list)

    def section(self, title: str) -> str:
        """Return the Markdown of the section `title`, empty if it does not exist."""
        return next((text for name, text in self.sections if name == title), "")


def parse(text: str) -> Docstring:
    """Split a docstring into its parts.

    Example:
        >>> doc = parse('''Square of ``x``.
        ...
        ... Args:
        ...     x: At least :math:`0`.
        ...
        ... Note:
        ...     Slow.
        ... ''')
        >>> doc.summary, doc.arguments, doc.sections
        ('Square of `x`.', {'x': 'At least $`0`$.'}, [('Note', 'Slow.')])
    """
    head, *parts = _split_sections(inspect.cleandoc(text).splitlines())
    summary, _, body = "\n".join(head[1]).strip().partition("\n\n")
    doc = Docstring(_inline(" ".join(summary.split())), to_markdown(body.splitlines()))
    for title, lines in parts:
        if title in ("Args", "Arguments"):
            doc.arguments |= _arguments(lines)
        else:
            doc.sections.append((title, to_markdown(lines)))
    return doc


def _split_sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    parts: list[tuple[str, list[str]]] = [("", [])]
    for index, line in enumerate(lines):
        match = _SECTION.match(line)
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if match and following.startswith(" "):
            parts.append((match[1], []))
        else:
            parts[-1][1].append(line)
    return [(title, inspect.cleandoc("\n" + "\n".join(body)).splitlines()) for title, body in parts]


def _arguments(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for line in lines:
        match = _ARGUMENT.match(line)
        if match:
            found[match[1].lstrip("*")] = [match[2]]
        elif line.strip() and found:
            found[next(reversed(found))].append(line.strip())
    return {name: _inline(" ".join(words).strip()) for name, words in found.items()}


def to_markdown(lines: list[str]) -> str:
    """Convert paragraphs, lists, formulas and doctests; each paragraph becomes one line.

    Raises:
        ValueError: On a directive other than ``math``, which would appear as source on the page.
    """
    blocks: list[str] = []
    rest = list(lines)
    while rest:
        line = rest.pop(0)
        if not line.strip():
            continue
        taken = [line]
        if line.strip().startswith(".. math::"):
            taken += _take_indented(rest, _indent(line))
            blocks.append(_fence("math", [line.split("::", 1)[1], *taken[1:]]))
        elif line.strip().startswith(">>>"):
            while rest and rest[0].strip():
                taken.append(rest.pop(0))
            blocks.append(_fence("python", taken))
        elif line.strip().startswith(".. ") or line.rstrip().endswith("::"):
            raise ValueError(f"cannot convert {line.strip()!r} to Markdown")
        else:
            while rest and rest[0].strip() and not rest[0].strip().startswith((".. ", ">>>")):
                taken.append(rest.pop(0))
            blocks += _paragraph(taken)
    return "\n\n".join(blocks)


def _take_indented(rest: list[str], indent: int) -> list[str]:
    taken: list[str] = []
    while rest and (not rest[0].strip() or _indent(rest[0]) > indent):
        taken.append(rest.pop(0))
    if taken or not rest:
        return taken
    while rest and rest[0].strip():  # a formula that is not indented more than its directive
        taken.append(rest.pop(0))
    return taken


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _fence(language: str, lines: list[str]) -> str:
    body = inspect.cleandoc("\n" + "\n".join(lines)) if language == "python" else _formula(lines)
    return f"```{language}\n{body}\n```"


def _formula(lines: list[str]) -> str:
    return "\n".join(line.strip() for line in lines if line.strip())


def _paragraph(lines: list[str]) -> list[str]:
    """Join the lines of a paragraph, or of each item of a list."""
    if not _ITEM.match(lines[0].strip()):
        return [_inline(" ".join(line.strip() for line in lines))]
    items: list[str] = []
    for line in lines:
        if _ITEM.match(line.strip()) and _indent(line) <= _indent(lines[0]):
            items.append(line.strip())
        else:
            items[-1] += f" {line.strip()}"
    return ["\n".join(_inline(item) for item in items)]


def _inline(text: str) -> str:
    text = _LINK.sub(r"[\1](\2)", text)
    text = _ROLE.sub(_role, text)
    if ":`" in text:
        raise ValueError(f"cannot convert {text!r} to Markdown")
    return text.replace("``", "`")


def _role(match: re.Match[str]) -> str:
    role, tilde, content = match.groups()
    if role == "math":
        return f"$`{content}`$"
    return f"`{content.rsplit('.', 1)[-1] if tilde else content}`"


def first_sentence(text: str) -> str:
    """Return the first sentence of `text`, without its full stop.

    Example:
        >>> first_sentence("Mean of i.e. all pixels. And more.")
        'Mean of i.e. all pixels'
    """
    return re.split(r"\.(?=\s+[A-Z]|$)", text, maxsplit=1)[0].strip()


def source(references: str) -> str:
    """Return the first work in `references`, up to its year.

    Example:
        >>> source("Lin et al., Focal Loss, ICCV 2017, eq. 4; with softmax.")
        'Lin et al., Focal Loss, ICCV 2017'
        >>> source("")
        ''
    """
    line = references.split("\n", 1)[0].lstrip("-* ")
    match = re.match(r".*?\b(?:19|20)\d\d\b", line)
    return match[0] if match else first_sentence(line)
