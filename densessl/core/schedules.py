"""Curves of a schedule, as pure functions: a resumed run needs the step number and nothing else."""

import math
from collections.abc import Iterable


def linear(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` in equal steps; ``share`` of the way is done, 0 to 1."""
    return end * share + start * (1 - share)


def cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine (SGDR, Loshchilov & Hutter 2017, eq. 5)."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))


def stepped(start: float, factor: float, marks: Iterable[float], now: float) -> float:
    """``start``, times ``factor`` at each of the ``marks``."""
    return start * factor ** sum(mark <= now for mark in marks)


def polynomial(start: float, end: float, power: float, share: float) -> float:
    """(start − end) (1 − share)^power + end, and ``end`` from then on (mmcv's ``poly`` policy)."""
    return (start - end) * max(1 - share, 0.0) ** power + end
