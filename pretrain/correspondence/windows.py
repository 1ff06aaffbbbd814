"""The same window in two views (ReSim): windows of the query view, found again in the key view.

    s, e        where a view's first and last edge lie in the source image; s > e when flipped
    D           side of the view in pixels
    X           = s_q + (e_q - s_q) x / D_q           place x of the query view, in the source
    x_k         = (X - s_k) D_k / (e_k - s_k)         the same place in the key view

and y alike. The flips of the two views may differ; a window is put upright after mapping.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch

from densessl.core.errors import InputError, unknown

from .geometry import coordinates

if TYPE_CHECKING:
    from ..views import View

PLACEMENTS = ("grid", "overlap")
ROUNDING = 1e-3  # pixels that an inclusive edge forgives

Spans = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # query, key [B, n, 2], valid [B, n]


class Axis(NamedTuple):
    """One axis of a view: where its edges lie in the source (float64), and its side in pixels."""

    start: torch.Tensor  # [B, 1]; s
    end: torch.Tensor  # [B, 1]; e
    side: int  # D


@torch.no_grad()
def windows(
    query_view: "View",
    key_view: "View",
    size: int,
    stride: int,
    inclusive: bool = False,
    placement: str = "grid",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windows of the query view and the same places in the key view.

    Returns ``query_boxes [B, R, 4]`` and ``key_boxes [B, R, 4]``, x1, y1, x2, y2 in pixels of the
    own view, and bool ``valid [B, R]``. Windows have side ``size`` and step ``stride``, whole
    pixels; rows outer, columns inner. ``placement``:

    ``"grid"``     from the query view's corner, as the released code; valid where the key view
                   shows the whole window
    ``"overlap"``  from the corner of the area that both views show, as the paper says; valid
                   where the whole window lies in that area

    A window ends before the right and the lower edge (of the query view; of the key view or the
    common area), or with ``inclusive`` also on it. The key box of an invalid window is
    (0, 0, 1, 1); for ``"overlap"`` its query box too. Raises InputError for another placement, and
    when no window fits into the query view. Source: ReSim section 3.2 and its released code.
    """
    if placement not in PLACEMENTS:
        raise unknown("placement", placement, PLACEMENTS, where="windows()")
    spans = _on_grid if placement == "grid" else _on_overlap
    query, key = _axes(query_view), _axes(key_view)
    (x_q, x_k, valid_x), (y_q, y_k, valid_y) = (
        spans(query[axis], key[axis], size, stride, inclusive) for axis in (0, 1)
    )
    valid = (valid_y[:, :, None] & valid_x[:, None, :]).flatten(1)  # [B, R]
    # Rounded to the views' own type only now: a window is in or out by its exact place.
    dtype = torch.promote_types(query_view.box.dtype, torch.float32)
    query_boxes, key_boxes = _boxes(x_q, y_q).to(dtype), _boxes(x_k, y_k).to(dtype)
    nowhere = torch.zeros_like(key_boxes)
    nowhere[..., 2:] = 1
    key_boxes = torch.where(valid[..., None], key_boxes, nowhere)
    if placement == "overlap":
        query_boxes = torch.where(valid[..., None], query_boxes, nowhere)
    return query_boxes, key_boxes, valid


def _on_grid(query: Axis, key: Axis, size: int, stride: int, inclusive: bool) -> Spans:
    """Where windows begin and end along an axis, from the query view's edge."""
    span_q = _steps(query, size, stride, inclusive).expand(len(query.start), -1, -1)
    span_k = _map(query, key, span_q)
    first, last = span_k.unbind(2)
    if inclusive:
        return span_q, span_k, (first >= -ROUNDING) & (last <= key.side + ROUNDING)
    return span_q, span_k, (first >= 0) & (last < key.side)


def _on_overlap(query: Axis, key: Axis, size: int, stride: int, inclusive: bool) -> Spans:
    """The same from the first edge of what both views show."""
    edges = torch.cat((key.start, key.end), dim=1)
    shown = (edges - query.start) * query.side / (query.end - query.start)  # in the query view
    shown = shown.sort(dim=1).values.clamp(0, query.side)  # [B, 2]
    span_q = shown[:, :1, None] + _steps(query, size, stride, inclusive)
    last, end = span_q[..., 1], shown[:, 1:]
    inside = last <= end + ROUNDING if inclusive else last < end
    span_k = _map(query, key, span_q).clamp(0, key.side)  # may leave the view by rounding
    return span_q, span_k, inside


def _steps(axis: Axis, size: int, stride: int, inclusive: bool) -> torch.Tensor:
    """Begin and end of the windows that fit into a view: float64 ``[n, 2]``."""
    most = axis.side if inclusive else axis.side - 1  # where the last window may end
    if not 1 <= size <= most or stride < 1:
        raise InputError(
            f"windows(): size {size} and stride {stride} must be positive, and the size at most "
            f"{most} in a view of {axis.side} pixels"
        )
    begin = torch.arange(0, most - size + 1, stride, device=axis.start.device, dtype=torch.float64)
    return torch.stack((begin, begin + size), dim=1)


def _map(query: Axis, key: Axis, span: torch.Tensor) -> torch.Tensor:
    """Spans ``[B, n, 2]`` of the query view in pixels of the key view, begin before end."""
    s_q, e_q, s_k, e_k = (edge[..., None] for edge in (*query[:2], *key[:2]))
    place = s_q + (e_q - s_q) * span / query.side
    return ((place - s_k) * key.side / (e_k - s_k)).sort(dim=2).values


def _axes(view: "View") -> tuple[Axis, Axis]:
    """The axes x and y of a view."""
    x1, y1, x2, y2 = coordinates(view, "pixels").double().split(1, dim=1)  # x1 > x2: flipped
    height, width = view.image.shape[2:]
    return Axis(x1, x2, width), Axis(y1, y2, height)


def _boxes(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Spans ``[B, columns, 2]`` and ``[B, rows, 2]`` as boxes ``[B, rows columns, 4]``."""
    columns, rows = x.shape[1], y.shape[1]
    x = x[:, None].expand(-1, rows, -1, -1)
    y = y[:, :, None].expand(-1, -1, columns, -1)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=3).flatten(1, 2)
