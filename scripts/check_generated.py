"""Compare what is made from the code with the code: `python -m scripts.check_generated` fails when one differs.

With `--write` it writes them instead.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from app.server.application import create_app
from app.settings import Settings
from scripts import api_table, man_page, settings_table, sync_twins

PAGES: Final[dict[str, Callable[[], str]]] = {
    "docs/reference/api-coverage.md": lambda: api_table.render(create_app().openapi()),
    "docs/reference/settings.md": lambda: settings_table.render(Settings),
    "docs/man/memstore.1": man_page.render,
    **{f"app/client/{module}": partial(sync_twins.render, module) for module in sync_twins.TWINS},
}
"""Each generated page, by its path from the project's root, and what makes it."""

FIX: Final = ".venv/bin/python -m scripts.check_generated --write"


def stale(root: Path) -> dict[str, str]:
    """The pages under `root` that are missing or differ from what the code says, with the right text."""
    current = {page: make() for page, make in PAGES.items()}
    return {
        page: text
        for page, text in current.items()
        if not (root / page).is_file() or (root / page).read_text(encoding="utf-8") != text
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when every page is current (or was written), 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m scripts.check_generated", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the pages that are not current")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the project's root")
    options = parser.parse_args(arguments)
    root: Path = options.root
    pages = stale(root)
    for page, text in pages.items():
        if options.write:
            (root / page).parent.mkdir(parents=True, exist_ok=True)
            (root / page).write_text(text, encoding="utf-8")
            print(f"{page}: written")
        else:
            print(f"{page}: not what the code says; fix it with: {FIX}", file=sys.stderr)
    return 1 if pages and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
