"""Precise region pooling: the exact mean of the bilinear interpolant over a box.

    F(y, x) = sum_ij F[i, j] hat(y - i) hat(x - j),   hat(u) = max(0, 1 - |u|)
    out     = 1 / area * integral of F over the bin

The integral factors. With the integral of hat, G(u) = 1/2 + v - v|v|/2 at v = clamp(u, -1, 1),

    out = sum_ij Wy[i] F[i, j] Wx[j],   Wx[j] = (G(xb - j) - G(xa - j)) / (xb - xa),

so pooling is a product with two small matrices, and its gradients are those of that product.
"""

import torch

from densessl.core.errors import InputError

from ..precision import without_autocast


def prroi_pool(
    features: torch.Tensor,
    boxes: torch.Tensor,
    scale: float,
    output_size: int | tuple[int, int] = 1,
    aligned: bool = False,
) -> torch.Tensor:
    """Mean of the interpolated features over every bin of every box: ``[B, R, C, ph, pw]``.

    ``features`` are ``[B, C, h, w]``; ``boxes [B, R, 4]`` are x1, y1, x2, y2 in pixels of the view,
    multiplied by ``scale`` (1 / stride); ``output_size`` is the number of bins, one for both sides
    or (rows, columns). The map is 0 outside: a bin that leaves it keeps its full area as divisor.
    A bin without area gives 0. The sample of cell j sits at coordinate j, as in the released code;
    ``aligned=True`` puts it at the cell's centre, j + 1/2.
    Gradients reach features and boxes, exactly. The result is float32, or float64 for float64
    features, whatever the autocast state. Raises InputError for shapes that disagree.
    Source: the precise RoI pooling of IoU-Net, as ReSim uses it.
    """
    ph, pw = (output_size, output_size) if isinstance(output_size, int) else output_size
    _check(features, boxes, scale, ph, pw)
    with without_autocast(features.device):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        b, c, h, w = features.shape
        corners = boxes.double() * scale - (0.5 if aligned else 0.0)
        rows = _weights(corners[..., 1], corners[..., 3], ph, h).to(features.dtype)
        columns = _weights(corners[..., 0], corners[..., 2], pw, w).to(features.dtype)
        if ph == pw == 1:  # both sides at once: [B, R, h w] x [B, h w, C]
            both = (rows.mT * columns).flatten(2)
            return torch.bmm(both, features.flatten(2).mT)[..., None, None]
        by_row = torch.bmm(rows.flatten(1, 2), features.permute(0, 2, 3, 1).flatten(2))
        by_row = by_row.view(b, -1, ph, w, c)
        return (columns[:, :, None] @ by_row).permute(0, 1, 4, 2, 3)  # [B, R, C, ph, pw]


def _weights(start: torch.Tensor, end: torch.Tensor, bins: int, cells: int) -> torch.Tensor:
    """Share of every cell in every bin of one axis: ``[B, R, bins, cells]``.

    ``start`` and ``end [B, R]`` are float64: the difference of two integrals, divided by the bin's
    width, would lose in float32 what a narrow bin needs.
    """
    width = (end - start).clamp_min(0) / bins  # [B, R]
    edge = torch.arange(bins + 1, dtype=start.dtype, device=start.device)
    cell = torch.arange(cells, dtype=start.dtype, device=start.device)
    position = start[..., None] + width[..., None] * edge  # [B, R, bins + 1]
    v = (position[..., None] - cell).clamp(-1, 1)
    integral = v - v * v.abs() / 2  # the constant 1/2 falls out of the difference
    positive = width > 0
    divisor = width.where(positive, 1)[..., None, None]
    return (integral.diff(dim=2) / divisor) * positive[..., None, None]


def _check(features: torch.Tensor, boxes: torch.Tensor, scale: float, ph: int, pw: int) -> None:
    if features.ndim != 4 or boxes.ndim != 3 or boxes.shape[::2] != (len(features), 4):
        raise InputError(
            f"prroi_pool(): features are {list(features.shape)} and boxes {list(boxes.shape)}; "
            "they must be [B, C, h, w] and [B, R, 4]"
        )
    if not scale > 0:
        raise InputError(f"prroi_pool(): scale is {scale}; it must be positive (1 / stride)")
    if min(ph, pw) < 1:
        raise InputError(f"prroi_pool(): output_size is {(ph, pw)}; it must be at least 1")
