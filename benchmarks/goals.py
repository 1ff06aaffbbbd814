"""Goals beside their measurements, as the benchmarks print them."""

import statistics
from collections.abc import Sequence


def ratios(others: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times as long the others took as ours, of measurements in turns."""
    return [other / own for other, own in zip(others, ours, strict=True)]


def goal(what: str, values: Sequence[float], wanted: float, unit: str, most: bool = False) -> str:
    """A line: the median and range of ``values``, and whether it is at least (``most``: at most)
    what is ``wanted``."""
    median = statistics.median(values)
    reached = median <= wanted if most else median >= wanted
    return (
        f"goal: {what} {'at most' if most else 'at least'} {wanted:g} {unit}: {median:.2f} "
        f"({min(values):.2f}-{max(values):.2f}), {'reached' if reached else 'missed'}"
    )
