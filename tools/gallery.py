"""Write the loss gallery in docs/losses and the tables in README.md.

``python tools/gallery.py`` writes text and pictures; the pictures need the extra ``docs``.
``--text`` writes the text only. ``--check`` writes nothing, names the files that are out of date,
and exits with 1 if there are any. With names, only the pictures of these losses are drawn; the name
``mining`` stands for the page on hard-example mining.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))

from gallery import catalogue, pages


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0, or 1 if a file is out of date or cannot be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="name the files that are out of date")
    parser.add_argument("--text", action="store_true", help="write the text only, no pictures")
    parser.add_argument("names", nargs="*", help="draw only the pictures of these losses")
    options = parser.parse_args(arguments)
    try:
        wanted = pages.texts()
        if options.check:
            return _report(pages.stale(wanted))
        for file, text in wanted.items():
            file.write_text(text, encoding="utf-8")
        for file in pages.left_over(wanted):
            file.unlink()
        if not options.text:
            _draw(set(options.names))
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(stale: list[str]) -> int:
    for name in stale:
        print(f"out of date: {name}", file=sys.stderr)
    if stale:
        print("run make gallery to update them", file=sys.stderr)
    return 1 if stale else 0


def _draw(names: set[str]) -> None:
    """Draw the pictures of `names`, or all if `names` is empty."""
    folder = catalogue.PAGES / pages.IMAGES
    folder.mkdir(exist_ok=True)
    try:
        curves = importlib.import_module("gallery.curves")
        portrait = importlib.import_module("gallery.portrait")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise RuntimeError(
            "the pictures need matplotlib: pip install -e '.[docs]', or use --text for the text"
        ) from error
    for entry in catalogue.losses():
        if not names or entry.name in names:
            curves.draw(entry, folder / f"{entry.name}.png")
    if not names or "mining" in names:
        portrait.draw(catalogue.minings(), folder)


if __name__ == "__main__":
    sys.exit(main())
