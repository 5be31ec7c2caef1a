"""The table: rows of results as Markdown, on standard output and inside docs/performance.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from scripts.bench.contest import Outcome
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN = "<!-- the next lines are written by `make bench` -->"
END = "<!-- end of what `make bench` writes -->"


class Met(Enum):
    """Whether a row reached its target."""

    YES = "met"
    NO = "**not met**"
    NO_TARGET = ""
    NOT_MEASURED = "**not measured**"


@dataclass(frozen=True, slots=True)
class Goal:
    """The ratio a row has to reach; with neither bound it is for information."""

    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:.2f}"
        return "" if self.at_most is None else f"< {self.at_most:.2f}"

    def judge(self, ratio: float) -> Met:
        """The verdict on a ratio."""
        if self.at_least is not None:
            return Met.YES if ratio >= self.at_least else Met.NO
        if self.at_most is not None:
            return Met.YES if ratio < self.at_most else Met.NO
        return Met.NO_TARGET


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    product: str
    bound: str
    ratio: str
    target: str
    met: Met


def rate(figure: Figure) -> str:
    """Per second, with the 99th percentile where one was measured."""
    tail = "" if figure.p99_ms is None else f", p99 {figure.p99_ms:.1f} ms"
    return f"{figure.value:,.0f}/s{tail}"


def seconds(figure: Figure) -> str:
    """A time between a microsecond and minutes."""
    return f"{figure.value:.2f} s" if figure.value >= 1 else f"{figure.value * 1e3:,.2f} ms"


def _ratio(outcome: Outcome) -> str:
    text = f"{outcome.ratio:.2f}"
    if len(outcome.ratios) > 1:
        text += f" ({min(outcome.ratios):.2f} to {max(outcome.ratios):.2f})"
    return text


def row_of_rates(what: str, outcome: Outcome, goal: Goal) -> Row:
    """Requests per second against requests per second."""
    product, bound = rate(outcome.product), rate(outcome.bound)
    return Row(what, product, bound, _ratio(outcome), str(goal), goal.judge(outcome.ratio))


def row_of_times(what: str, outcome: Outcome, goal: Goal) -> Row:
    """Time against time."""
    product, bound = seconds(outcome.product), seconds(outcome.bound)
    return Row(what, product, bound, _ratio(outcome), str(goal), goal.judge(outcome.ratio))


def row_not_measured(what: str, reason: str) -> Row:
    """A row that has no figure, with the first line of why, and the last where there are more."""
    first, *others = reason.strip().splitlines()
    why = " … ".join([first, *others[-1:]]).replace("|", "/")
    return Row(what, why, "", "", "", Met.NOT_MEASURED)


def markdown(rows: Sequence[Row], heading: str) -> str:
    """The heading and the table."""
    lines = [
        heading,
        "",
        "| what; bound | product | bound | ratio (lowest to highest) | target | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.what} | {row.product} | {row.bound} | {row.ratio} | {row.target} | {row.met.value} |" for row in rows
    ]
    return "\n".join(lines)


def write_into_document(text: str, document: Path = DOCUMENT) -> None:
    """Replace what stands between the two marks.

    Raises:
        MeasurementError: the marks are not there.
    """
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise MeasurementError(f"{document} has lost the two marks the table belongs between")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
