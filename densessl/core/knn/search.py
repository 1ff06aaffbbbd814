"""Exact search for the largest dot products, in blocks: no N×M matrix ever exists."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import watchdog

ROWS, COLUMNS = 1024, 8192  # of a block of similarities: 32 MiB in float32


def unit(features: Tensor) -> Tensor:
    """Rows ``[N, D]`` scaled to length 1, in float32 at least; rows of zeros stay."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)


@torch.no_grad()
def nearest(
    queries: Tensor,
    database: Tensor | Iterable[Tensor],
    k: int,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> tuple[Tensor, Tensor]:
    """The ``k`` rows of ``database`` with the largest dot products with each query.

    ``queries [N, D]``; ``database [M, D]``, or its rows in several tensors one after the other
    (from files, say), each of which is brought to the device and type of the queries. Returns
    similarities ``[N, min(k, M)]``, falling, and the rows' numbers, long. Equal similarities: the
    lower number first, and at the edge the lower number wins. At most ``rows × columns``
    similarities exist at a time. Raises ValueError for k below 1 and for shapes that do not fit.
    """
    if k < 1 or queries.ndim != 2:
        raise ValueError(f"k is {k}, queries are {list(queries.shape)}; needed: k ≥ 1, [N, D]")
    best, index = queries.new_empty(len(queries), 0), queries.new_empty(len(queries), 0).long()
    offset = 0
    with torch.autocast(queries.device.type, enabled=False):  # half precision makes false ties
        for block in _blocks(database, queries.shape[1], columns):
            block = block.to(queries, non_blocking=True)
            held = min(k, offset + len(block))
            if held > best.shape[1]:  # room for those of the first blocks
                best, index = _widened(best, held), _widened(index, held)
            for first in range(0, len(queries), rows):
                part = slice(first, first + rows)
                found = best[part, : min(k, offset)], index[part, : min(k, offset)]
                values = queries[part] @ block.T
                best[part], index[part] = _merged(found, values, offset, held)
                watchdog.beat()
            offset += len(block)
    return best, index


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``values.topk(k)`` of rows ``[N, M]`` with the order of ties settled: lower number first."""
    top, index = _topk(values, k)
    if k < values.shape[1]:  # topk takes any of those that are equal to the last
        edge = (_count(values >= top[:, -1:]) > k).nonzero()[:, 0]
        if len(edge):
            falling, numbers = values[edge].sort(dim=1, descending=True, stable=True)
            top[edge], index[edge] = falling[:, :k], numbers[:, :k]
    return top, index


def _merged(
    found: tuple[Tensor, Tensor], values: Tensor, offset: int, held: int
) -> tuple[Tensor, Tensor]:
    """The ``held`` best of those found and of the next rows, ``values [n, b]`` from ``offset`` on.

    Those found have lower numbers: only what is above their last can displace one, and a stable
    sort of all together keeps the order of ties.
    """
    best, index = found
    if best.shape[1] < held:  # the first rows: there is room for all
        new, numbers = largest(values, min(held, values.shape[1]))
    else:
        better = int(_count(values > best[:, -1:]).max()) if len(values) else 0
        if not better:
            return best, index
        take = largest if better > held else _topk
        new, numbers = take(values, min(better, held))
    both, order = torch.cat([best, new], 1).sort(dim=1, descending=True, stable=True)
    numbers = torch.cat([index, numbers + offset], 1).gather(1, order)
    return both[:, :held], numbers[:, :held]


def _topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    top, index = values.topk(k, dim=1)
    index, order = index.sort(dim=1)
    top, order = top.gather(1, order).sort(dim=1, descending=True, stable=True)
    return top, index.gather(1, order)


def _count(true: Tensor) -> Tensor:
    return true.sum(1, dtype=torch.int32)  # twice as fast as int64


def _widened(x: Tensor, columns: int) -> Tensor:
    wide = x.new_empty(len(x), columns)
    wide[:, : x.shape[1]] = x
    return wide


def _blocks(database: Tensor | Iterable[Tensor], width: int, columns: int) -> Iterator[Tensor]:
    """The rows in blocks of ``columns``, small parts joined and large ones cut."""
    waiting: list[Tensor] = []
    for part in [database] if isinstance(database, Tensor) else database:
        if part.ndim != 2 or part.shape[1] != width:
            raise ValueError(f"rows are {list(part.shape[1:])} wide, queries {width}")
        waiting.append(part)
        if sum(map(len, waiting)) >= columns:
            *blocks, rest = (
                torch.cat(waiting).split(columns) if waiting[1:] else part.split(columns)
            )
            yield from blocks
            waiting = [rest]
    if waiting and sum(map(len, waiting)):
        yield torch.cat(waiting)
