"""Exact search for the largest dot products, in blocks: no N×M matrix ever exists."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import watchdog
from ..products import product

# Of a block of similarities: 31 MiB in float32. From 32 on glibc would fetch new pages each time.
ROWS, COLUMNS = 1024, 8000
GROUP = 8  # similarities of which the largest is looked at first,
MANY = 4000  # where a row has so many; else topk alone is faster


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
                values = product(queries[part], block)
                best[part], index[part] = _merged(found, values, offset, held)
                watchdog.beat()
            offset += len(block)
    return best, index


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``values.topk(k)`` of rows ``[N, M]`` with the order of ties settled: lower number first."""
    if values.shape[1] >= max(2 * GROUP * k, MANY):
        # The k-th of the groups' largest is at most the k-th of all, and not many are above it.
        parts = values[:, : values.shape[1] // GROUP * GROUP].unflatten(1, (GROUP, -1))
        edge = parts.amax(1).topk(k, dim=1, sorted=False)[0].amin(1, keepdim=True)
        found = _where(values, values >= edge, k)
        if found is not None:
            return _first(*found, k)
    top, index = values.topk(k, dim=1)
    index, order = index.sort(dim=1)
    top, index = _first(top.gather(1, order), index, k)
    if k < values.shape[1]:  # topk takes any of those that are equal to the last
        tied = ((values >= top[:, -1:]).sum(1) > k).nonzero()[:, 0]
        if len(tied):
            top[tied], index[tied] = _lowest(values[tied], top[tied, -1:], k)
    return top, index


def _lowest(values: Tensor, edge: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row, of those equal to the k-th (``edge [N, 1]``) the first."""
    falling = torch.arange(values.shape[1], 0, -1, device=values.device)
    order = (falling * (values == edge)).masked_fill_(~(values <= edge), len(falling) + 1)
    index = order.topk(k, dim=1, sorted=False)[1].sort(dim=1)[0]
    return _first(values.gather(1, index), index, k)


def _merged(
    found: tuple[Tensor, Tensor], values: Tensor, offset: int, held: int
) -> tuple[Tensor, Tensor]:
    """The ``held`` best of those found and of the next rows, ``values [n, b]`` from ``offset`` on.

    Those found have lower numbers: only what is above their last can displace one, and a stable
    sort of all together keeps the order of ties.
    """
    best, index = found
    new = None
    if best.shape[1] == held:
        new = _where(values, values > best[:, -1:], 0)
    if new is None:  # the first rows, for all of which there is room, or many that are better
        new = largest(values, min(held, values.shape[1]))
    both = torch.cat([best, new[0]], 1)
    return _first(both, torch.cat([index, new[1] + offset], 1), held)


def _where(values: Tensor, wanted: Tensor, least: int) -> tuple[Tensor, Tensor] | None:
    """What is ``wanted`` of each row, as ``[n, w]``, in order, and its numbers; the rest is −inf.

    None where it is less than ``least`` of a row (not a number is above nothing), or so much of one
    that a search of all is faster.
    """
    flat = _true(wanted.flatten())
    row = flat // values.shape[1]
    counts = row.bincount(minlength=len(values))
    fewest, width = (int(x) for x in counts.aminmax()) if len(counts) else (0, 0)
    if fewest < least or 4 * width > values.shape[1]:
        return None
    places = torch.arange(width, device=flat.device) < counts[:, None]  # [n, w]
    top = values.new_full(places.shape, -torch.inf).masked_scatter_(places, values.take(flat))
    index = flat.new_zeros(places.shape).masked_scatter_(places, flat - row * values.shape[1])
    return top, index


def _true(wanted: Tensor) -> Tensor:
    """Where ``wanted`` (bool) is true: eight at a time, since few are."""
    if len(wanted) % 8:
        return wanted.nonzero()[:, 0]
    eight = wanted.view(torch.int64).nonzero()
    true = wanted.view(-1, 8)[eight[:, 0]].nonzero()
    return eight[true[:, 0], 0] * 8 + true[:, 1]


def _first(values: Tensor, numbers: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row, falling, with their ``numbers``; equal ones stay in order."""
    falling, order = values.sort(dim=1, descending=True, stable=True)
    order = order[:, :k]
    return falling[:, :k], order if numbers is None else numbers.gather(1, order)


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
