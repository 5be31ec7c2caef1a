"""Contests of several sides, measured in turns, and their rows in the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.bench.contest import Outcome, Side, compete
from scripts.bench.load import Figure
from scripts.bench.report import Goal, Met, Row

PRODUCT, READ_ONLY, TMPFS, RCLONE, MFUSEPY = "product", "product, read-only", "tmpfs", "rclone mount", "mfusepy"

NO_GOAL = Goal()


@dataclass(frozen=True, slots=True)
class Contest:
    """Every side's figures, round by round."""

    figures: Mapping[str, list[Figure]]

    def between(self, product: str, bound: str) -> Outcome:
        """Two of the sides."""
        ours, theirs = self.figures[product], self.figures[bound]
        return compete(_replayed(ours), _replayed(theirs), rounds=len(ours) - 1)

    def row(self, what: str, bound: str, goal: Goal = NO_GOAL, *, product: str = PRODUCT) -> Row:
        """Speeds: how many times as fast as the bound the product is."""
        outcome = self.between(product, bound)
        return Row(
            f"{what}; {bound}",
            speed(outcome.product),
            speed(outcome.bound),
            f"{_short(outcome.ratio)} ({_short(min(outcome.ratios))} to {_short(max(outcome.ratios))})",
            _target(goal),
            goal.judge(outcome.ratio),
        )


def contest(sides: Mapping[str, Callable[[], Figure]], *, rounds: int) -> Contest:
    """One side after the other, round by round; the first round is not counted."""
    figures: dict[str, list[Figure]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, measure in sides.items():
            figures[name].append(measure())
    return Contest(figures)


def _replayed(figures: list[Figure]) -> Side:
    """A side that was measured before; `compete` leaves out its first round."""
    return Side(iter(figures).__next__)


def speed(figure: Figure) -> str:
    """Per second, with what one operation takes where that was measured."""
    text = f"{figure.value:,.0f}/s"
    return text if figure.p50_ms is None else f"{text}, p50 {figure.p50_ms:.3f} ms, p99 {figure.p99_ms:.3f} ms"


def at_most(value: float, limit: float) -> Met:
    """The verdict on a value that has a limit of its own."""
    return Met.YES if value <= limit else Met.NO


def at_least(value: float, limit: float) -> Met:
    """The same, from below."""
    return Met.YES if value >= limit else Met.NO


def _short(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"


def _target(goal: Goal) -> str:
    """As `Goal` prints it, with all its digits: these ratios are small."""
    return "" if goal.at_least is None else f"≥ {goal.at_least:g}"
