"""Two sides measured in turns, so that whatever else the machine does meets both."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from scripts.bench.load import Figure


def _nothing() -> None:
    """The default of a side that leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    measure: Callable[[], Figure]
    """One round."""
    settle: Callable[[], None] = _nothing
    """Waits, after a round, until this side would not disturb the other's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Medians over the rounds, and the ratio product/bound of each pair of rounds."""

    product: Figure
    bound: Figure
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """The median of the pairs: two neighbouring rounds meet the same weather, the medians need not."""
        return statistics.median(self.ratios)


def _median(figures: list[Figure]) -> Figure:
    def middle(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    return Figure(
        statistics.median(figure.value for figure in figures),
        middle([figure.p50_ms for figure in figures]),
        middle([figure.p99_ms for figure in figures]),
    )


def compete(product: Side, bound: Side, *, rounds: int) -> Outcome:
    """Product, bound, product, bound …, after one round of each that is not counted."""
    products: list[Figure] = []
    bounds: list[Figure] = []
    for _ in range(rounds + 1):
        products.append(product.measure())
        product.settle()
        bounds.append(bound.measure())
        bound.settle()
    del products[0], bounds[0]
    ratios = [ours.value / theirs.value for ours, theirs in zip(products, bounds, strict=True)]
    return Outcome(_median(products), _median(bounds), ratios)
