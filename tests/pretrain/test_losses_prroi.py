"""Precise region pooling: the official kernel's numbers, the integral itself, gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain.losses import prroi_pool

GOLDEN = Path(__file__).parents[1] / "golden" / "resim" / "prroi_pool.npz"
SIZES = {"1x1": (1, 1), "2x3": (2, 3), "7x7": (7, 7)}


@pytest.fixture
def arrays():
    return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN).items()}


def assert_golden(found, expected, tolerance):
    expected = expected.double()
    limit = tolerance * (1 + float(expected.abs().max()))
    torch.testing.assert_close(found.detach().double(), expected, atol=limit, rtol=0)


def random_inputs(b=2, c=3, h=6, w=7, r=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(b, c, h, w, generator=generator, dtype=dtype)
    low = torch.rand(b, r, 2, generator=generator, dtype=dtype) * 60 - 10
    side = torch.rand(b, r, 2, generator=generator, dtype=dtype) * 50 + 4
    return features, torch.cat([low, low + side], 2)


def interpolant(features, y, x):
    """F(y, x) of one image ``[C, h, w]`` at all pairs, 0 outside the map: ``[C, Y, X]``."""
    hats = [
        (1 - (points[:, None] - torch.arange(n)).abs()).clamp_min(0)
        for points, n in ((y, features.shape[1]), (x, features.shape[2]))
    ]
    return torch.einsum("yi,cij,xj->cyx", hats[0], features, hats[1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_are_the_official_kernels(arrays, size, dtype):
    double = dtype == torch.float64
    forward = (1e-10 if size != "7x7" else 1e-9) if double else (1e-5 if size != "7x7" else 5e-5)
    image = arrays["rois"][:, 0].long()
    features = arrays["features"].to(dtype).requires_grad_()
    boxes = arrays["rois"][:, 1:].to(dtype).requires_grad_()
    out = prroi_pool(
        features, boxes.expand(2, -1, -1), float(arrays["spatial_scale"]), SIZES[size]
    )[image, torch.arange(len(image))]
    out.backward(arrays[f"cot_{size}"].to(dtype))
    assert out.dtype == features.grad.dtype == boxes.grad.dtype == dtype
    name = f"officialkernel_{size}_f64"
    assert_golden(out, arrays[f"out_{name}"], forward)
    assert_golden(out, arrays[f"out_exact_{size}"], forward)
    assert_golden(features.grad, arrays[f"grad_features_{name}"], forward)
    boxes_tolerance = forward if double else 5e-4
    assert_golden(boxes.grad, arrays[f"grad_rois_{name}"][:, 1:], boxes_tolerance)


def test_the_gradient_of_features_is_the_exact_operators(arrays):
    features = arrays["features"].double().detach().requires_grad_()
    image = arrays["rois"][:, 0].long()
    boxes = arrays["rois"][:, 1:].expand(2, -1, -1)
    out = prroi_pool(features, boxes, float(arrays["spatial_scale"]))
    out[image, torch.arange(len(image))].backward(arrays["cot_1x1"].double())
    assert_golden(features.grad, arrays["grad_features_exact_1x1"], 1e-10)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [1, (2, 3)])
def test_it_is_the_integral(size, aligned):
    features, boxes = random_inputs()
    out = prroi_pool(features, boxes, 1 / 8, size, aligned)
    ph, pw = (size, size) if isinstance(size, int) else size
    n = 600 // ph, 600 // pw  # midpoints a bin and axis; the error of each is 1 / n^2
    for b, r in ((0, 0), (0, 3), (1, 1), (1, 4)):
        x1, y1, x2, y2 = (boxes[b, r] / 8 - (0.5 if aligned else 0)).tolist()
        y = y1 + (y2 - y1) * (torch.arange(ph * n[0], dtype=torch.float64) + 0.5) / (ph * n[0])
        x = x1 + (x2 - x1) * (torch.arange(pw * n[1], dtype=torch.float64) + 0.5) / (pw * n[1])
        samples = interpolant(features[b], y, x).view(-1, ph, n[0], pw, n[1])
        torch.testing.assert_close(out[b, r], samples.mean((2, 4)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [1, (2, 3)])
def test_gradcheck(size):
    features, boxes = random_inputs(b=2, c=2, h=4, w=5, r=3)
    # One box reaches over the border, one has no width: gradients are finite and right there too.
    boxes[0, 0] = torch.tensor([-7.0, 5.0, 13.0, 41.0])
    leaves = features.requires_grad_(), boxes.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, x: prroi_pool(f, x, 1 / 8, size), leaves)


@pytest.mark.parametrize("size", [1, (2, 3)])
@pytest.mark.parametrize(
    "box", [[20, 20, 20, 40], [20, 30, 40, 30], [9, 9, 9, 9], [40, 10, 20, 30]]
)
def test_a_box_without_area_gives_zero_and_no_gradient(box, size):
    features, _ = random_inputs()
    boxes = torch.tensor(box, dtype=torch.float64).expand(2, 1, 4).clone()
    leaves = features.requires_grad_(), boxes.requires_grad_()
    out = prroi_pool(*leaves, 1 / 8, size)
    assert not out.any()
    for gradient in torch.autograd.grad(out.sum(), leaves):
        assert not gradient.any() and gradient.isfinite().all()


@pytest.mark.parametrize("size", [1, 4])
def test_a_constant_map_stays_constant_inside_and_fades_outside(size):
    features = torch.full((1, 2, 6, 7), 3.0, dtype=torch.float64)
    inside = torch.tensor([[[0.0, 0.0, 48.0, 40.0], [9.5, 3.0, 31.0, 17.0]]])
    out = prroi_pool(features, inside, 1 / 8, size)
    torch.testing.assert_close(out, torch.full_like(out, 3.0))
    outside = torch.tensor([[[64.0, 0.0, 90.0, 40.0], [0.0, -30.0, 20.0, -8.0]]])
    assert not prroi_pool(features, outside, 1 / 8, size).any()
    # Half of this box lies left of the map; of it only the ramp from -1 to 0, half as high, counts.
    half = prroi_pool(features, torch.tensor([[[-16.0, 0.0, 16.0, 40.0]]]), 1 / 8)
    torch.testing.assert_close(half, torch.full_like(half, 3.0 * (2 + 0.5) / 4))


def test_the_windows_of_resim_weigh_cells_as_published():
    # A map that holds each cell's own column: pooling gives back the weights of the columns.
    features = torch.eye(28, dtype=torch.float64)[None, :, None].expand(1, 28, 28, 28)
    box = torch.tensor([[[0.0, 32.0, 48.0, 80.0]]])
    at_16 = prroi_pool(features[..., :14, :14], box, 1 / 16)[0, 0, :4, 0, 0]
    expected = torch.tensor([1, 2, 2, 1], dtype=torch.float64) / 6
    torch.testing.assert_close(at_16, expected)
    box = torch.tensor([[[0.0, 32.0, 32.0, 64.0]]])
    at_8 = prroi_pool(features, box, 1 / 8)[0, 0, :5, 0, 0]
    torch.testing.assert_close(at_8, torch.tensor([1, 2, 2, 2, 1], dtype=torch.float64) / 8)


def test_aligned_moves_the_map_by_half_a_cell():
    features, boxes = random_inputs()
    moved = prroi_pool(features, boxes + 4, 1 / 8, 2, aligned=True)
    torch.testing.assert_close(moved, prroi_pool(features, boxes, 1 / 8, 2))


def test_bins_of_one_box_average_to_the_box():
    features, boxes = random_inputs()
    bins = prroi_pool(features, boxes, 1 / 8, (3, 2))
    torch.testing.assert_close(bins.mean((3, 4)), prroi_pool(features, boxes, 1 / 8)[..., 0, 0])


def test_narrow_boxes_keep_float32s_precision():
    features, _ = random_inputs(dtype=torch.float32)
    low = torch.tensor([11.3, 17.9])
    boxes = torch.cat([low, low + 2**-7])[None, None].expand(2, 1, 4)  # a thousandth of a cell
    found = prroi_pool(features, boxes, 1 / 8)
    exact = prroi_pool(features.double(), boxes.double(), 1 / 8)
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [1, 2])
def test_mirrored_maps_with_mirrored_boxes_give_mirrored_bins(size):
    features, boxes = random_inputs()
    last = (features.shape[3] - 1) * 8
    mirrored = torch.stack(
        [last - boxes[..., 2], boxes[..., 1], last - boxes[..., 0], boxes[..., 3]], 2
    )
    found = prroi_pool(features.flip(3), mirrored, 1 / 8, size)
    torch.testing.assert_close(found.flip(4), prroi_pool(features, boxes, 1 / 8, size))


@pytest.mark.parametrize("size", [1, 2])
def test_images_and_boxes_are_independent(size):
    features, boxes = random_inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    out = prroi_pool(features, boxes, 1 / 8, size)
    moved = prroi_pool(features.flip(0), boxes[:, order].flip(0), 1 / 8, size)
    torch.testing.assert_close(moved, out[:, order].flip(0))


def test_memory_format_and_autocast_change_nothing():
    features, boxes = random_inputs(dtype=torch.float32)
    expected = prroi_pool(features, boxes, 1 / 8, 2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = prroi_pool(features, boxes, 1 / 8, 2)
        half = prroi_pool(features.bfloat16(), boxes, 1 / 8, 2)
    assert torch.equal(inside, expected) and half.dtype == torch.float32
    assert torch.equal(half, prroi_pool(features.bfloat16().float(), boxes, 1 / 8, 2))
    last = features.contiguous(memory_format=torch.channels_last)
    for size in (1, 2):
        expected = prroi_pool(features, boxes, 1 / 8, size)
        torch.testing.assert_close(prroi_pool(last, boxes, 1 / 8, size), expected)
    # Boxes in float64 do not make the features float64.
    assert prroi_pool(features, boxes.double(), 1 / 8).dtype == torch.float32


def test_no_boxes():
    features, boxes = random_inputs()
    assert prroi_pool(features, boxes[:, :0], 1 / 8, 2).shape == (2, 0, 3, 2, 2)
    assert prroi_pool(features, boxes[:, :0], 1 / 8).shape == (2, 0, 3, 1, 1)


def test_bad_inputs_are_named():
    features, boxes = random_inputs()
    with pytest.raises(InputError, match=r"\[2, 5, 4\].*\[B, R, 4\]"):
        prroi_pool(features[0], boxes, 1 / 8)
    with pytest.raises(InputError, match="boxes"):
        prroi_pool(features, boxes[:1], 1 / 8)
    with pytest.raises(InputError, match="boxes"):
        prroi_pool(features, torch.cat([boxes, boxes], 2), 1 / 8)
    with pytest.raises(InputError, match="scale"):
        prroi_pool(features, boxes, 0)
    with pytest.raises(InputError, match="output_size"):
        prroi_pool(features, boxes, 1 / 8, (0, 2))
