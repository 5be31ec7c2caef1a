"""Tables: on a terminal under a head and no wider than it, in a file or pipe with every value whole."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, split_text

from app.cli import terminal

GAP = "  "
_CUT = "…"


class Column(NamedTuple):
    """One column. Those with `least` give way where a terminal is too narrow, the first of them first."""

    head: str
    least: int = 0
    """The fewest cells it can be cut to; 0: its values are always whole."""
    middle: bool = False
    """Cut from the middle, for values whose end says most, such as paths."""
    right: bool = False
    """Aligned to the right, for numbers."""


class Styled(NamedTuple):
    """A value in a style of `terminal.styled`."""

    text: str
    style: str


def cut(text: str, width: int, *, middle: bool = False) -> str:
    """The text in at most so many cells of a terminal, with `…` for what is left out."""
    if cell_len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3 if middle else 0
    start = split_text(text, width - 1 - tail)[0]
    end = split_text(text, cell_len(text) - tail)[1] if tail else ""
    return f"{start}{_CUT}{end}"


Cell = str | Styled


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """The lines of a table, with their ends. Values may come from elsewhere: each is shown as a `terminal.field`."""
    if not rows:
        return
    cells = [[_safe(cell) for cell in row] for row in rows]
    widths = _widths(cells)
    if terminal.is_terminal():
        widths = _fitting(columns, [max(w, len(c.head)) for w, c in zip(widths, columns, strict=True)])
        yield _line(columns, [Styled(column.head, "dim") for column in columns], widths)
    for row in cells:
        yield _line(columns, row, widths)


def natural_width(rows: Sequence[Sequence[Cell]]) -> int:
    """How many cells a table would take if nothing were cut."""
    widths = _widths([[_safe(cell) for cell in row] for row in rows])
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _safe(cell: Cell) -> Styled:
    return Styled(terminal.field(cell), "") if isinstance(cell, str) else Styled(terminal.field(cell.text), cell.style)


def _widths(cells: Sequence[Sequence[Styled]]) -> list[int]:
    return [max(cell_len(cell.text) for cell in column) for column in zip(*cells, strict=True)]


def _fitting(columns: Sequence[Column], widths: list[int]) -> list[int]:
    too_wide = sum(widths) + len(GAP) * (len(widths) - 1) - terminal.width()
    for place in range(len(columns)):
        if too_wide > 0 and columns[place].least:
            given = min(too_wide, max(0, widths[place] - columns[place].least))
            widths[place] -= given
            too_wide -= given
    return widths


def _line(columns: Sequence[Column], row: Sequence[Styled], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        text = cut(cell.text, width, middle=column.middle) if column.least else cell.text
        space = " " * (width - cell_len(text))
        shown = terminal.styled(text, cell.style) if cell.style else text
        parts.append(space + shown if column.right else shown + space)
    return GAP.join(parts).rstrip(" ") + "\n"
