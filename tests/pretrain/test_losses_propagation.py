"""PixPro: golden numbers of the released code, definitions, gradients, invariants."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.correspondence import geometric_from_coordinates
from densessl.pretrain.losses import pixel_consistency, pixel_propagation, propagated_consistency

GOLDEN = Path(__file__).parents[1] / "golden" / "pixpro"
POWERS = {"p1_0": 1.0, "p2_0": 2.0, "p0_5": 0.5}


def golden(name):
    arrays = np.load(GOLDEN / name)
    return {k: torch.from_numpy(np.asarray(arrays[k])) for k in arrays if k != "names"}


def assert_golden(found, expected, tolerance):
    expected = expected.detach().double()
    limit = tolerance * (1 + float(expected.abs().max()))
    torch.testing.assert_close(found.detach().double(), expected, atol=limit, rtol=0)


def value_transform(layer, arrays, x):
    """The released g(x): nothing, a 1x1 convolution, or convolution - BN - ReLU - convolution."""
    w = {
        k.removeprefix("value_transform__"): v.to(x.dtype)
        for k, v in arrays.items()
        if k.startswith("value_transform__")
    }
    if layer == 0:
        return x
    if layer == 1:
        return F.conv2d(x, w["weight"], w["bias"])
    x = F.conv2d(x, w["linear1__weight"], w["linear1__bias"])
    x = F.batch_norm(x, None, None, w["bn1__weight"], w["bn1__bias"], training=True).relu()
    return F.conv2d(x, w["linear2__weight"], w["linear2__bias"])


def inputs(b=2, c=5, d=6, h=3, w=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, c, h, w, generator=generator, dtype=dtype)
    value = torch.randn(b, d, h, w, generator=generator, dtype=dtype)
    return x.requires_grad_(), value.requires_grad_()


def pairs(b=3, d=6, nq=10, nk=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(b, d, n, generator=generator, dtype=dtype) for n in (nq, nk))
    mask = torch.rand(b, nq, nk, generator=generator) < 0.3
    return F.normalize(query, dim=1).requires_grad_(), F.normalize(key, dim=1), mask


# --------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_propagation_is_pixpros(layer, power, dtype):
    arrays = golden(f"ppm_layer{layer}.npz")
    single = 1e-4 if power == "p0_5" else 2e-5 if layer == 2 else 1e-5
    tolerance = 1e-10 if dtype == torch.float64 else single
    x = arrays["x"].to(dtype).requires_grad_()
    y = pixel_propagation(x, value_transform(layer, arrays, x), POWERS[power])
    unit = F.normalize(y, dim=1)
    (unit * arrays["cot"].to(dtype)).sum().backward()
    assert y.dtype == dtype
    assert_golden(y, arrays[f"ppm_out_{power}_f64"], tolerance)
    assert_golden(unit, arrays[f"ppm_out_l2norm_{power}_f64"], tolerance)
    assert_golden(x.grad, arrays[f"grad_x_{power}_f64"], tolerance)


@pytest.mark.parametrize("grid", ["4x5", "7x7"])
@pytest.mark.parametrize("ratio", ["r0p5", "r0p7"])
# The released code adds 1e-6 to the number of pairs in float32, where it vanishes from 16 pairs on.
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 5e-9), (torch.float32, 1e-5)])
def test_consistency_is_pixpros(grid, ratio, dtype, tolerance):
    arrays = golden(f"match_and_loss_{grid}.npz")
    raw = arrays["q_raw"].to(dtype).requires_grad_()
    query, key = F.normalize(raw, dim=1), F.normalize(arrays["k_raw"].to(dtype), dim=1)
    query.retain_grad()
    weights = arrays[f"pos_mask_{ratio}_f64"].bool()
    loss = -2 * pixel_consistency(query, key, weights)
    loss.backward()
    assert loss.dtype == dtype
    assert_golden(loss, arrays[f"loss_{ratio}_f64"], tolerance)
    assert_golden(query.grad, arrays[f"grad_q_norm_{ratio}_f64"], tolerance)
    assert_golden(raw.grad, arrays[f"grad_q_raw_{ratio}_f64"], tolerance)
    # One image at a time the 1e-6 weighs more: a share of 1e-6 / pairs of that image's loss.
    single = max(tolerance, 1e-6 / float(arrays[f"n_pos_{ratio}"].clamp_min(1).min()))
    for b, expected in enumerate(arrays[f"loss_per_image_{ratio}_f64"]):
        one = slice(b, b + 1)
        found = -2 * pixel_consistency(query[one], key[one], weights[one])
        assert_golden(found, expected, single)


# --------------------------------------------------------------------------------- propagation


@pytest.mark.parametrize("exponent", [0.5, 1, 1.5, 2, 3.0])
def test_propagation_is_its_definition(exponent):
    x, value = inputs()
    found = pixel_propagation(x, value, exponent)
    u, v = (F.normalize(m.flatten(2), dim=1) for m in (x, value))
    floor = 1e-6 if exponent < 1 else 0
    expected = torch.zeros_like(v)
    for b in range(2):
        for i in range(12):
            for j in range(12):
                weight = ((u[b, :, i] @ u[b, :, j]).clamp_min(0) + floor) ** exponent
                expected[b, :, i] += weight * v[b, :, j]
    torch.testing.assert_close(found, expected.view_as(value), atol=1e-11, rtol=0)
    cotangent = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    gradients = (
        torch.autograd.grad(y, (x, value), cotangent.view_as(y)) for y in (found, expected)
    )
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 2.5])
def test_gradcheck_of_propagation(exponent):
    # All cosines are positive, away from the corner at 0 where a power has no derivative.
    x, value = (m.detach().abs() + 0.2 for m in inputs(b=2, c=3, d=2, h=2, w=2))
    leaves = x.requires_grad_(), value.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, v: pixel_propagation(a, v, exponent), leaves)
    own = x.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: pixel_propagation(a, a, exponent), own)


def test_gradcheck_of_propagation_with_opposed_positions():
    assert torch.autograd.gradcheck(pixel_propagation, inputs(b=1, c=3, d=2, h=2, w=2))


def test_propagation_does_not_see_lengths():
    x, value = inputs()
    scale = torch.linspace(0.1, 20, 12, dtype=torch.float64).view(1, 1, 3, 4)
    found = pixel_propagation(x * scale, value * scale.flip(3))
    torch.testing.assert_close(found, pixel_propagation(x, value))


def test_propagation_goes_with_its_positions():
    x, value = inputs()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    y = pixel_propagation(x, value).flatten(2)
    moved = pixel_propagation(
        x.flatten(2)[:, :, order].flip(0), value.flatten(2)[:, :, order].flip(0)
    )
    torch.testing.assert_close(moved, y[:, :, order].flip(0))


def test_positions_that_resemble_none_keep_their_own_value():
    x = torch.eye(4, dtype=torch.float64).view(1, 4, 2, 2)
    value = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(pixel_propagation(x, value), F.normalize(value, dim=1))
    # Opposed positions do not count: the maximum with 0.
    torch.testing.assert_close(
        pixel_propagation(torch.cat([x, -x], 3), torch.cat([value, value], 3)),
        F.normalize(torch.cat([value, value], 3), dim=1),
    )


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zero_vectors_resemble_nothing(exponent, dtype):
    x, value = (m.detach().to(dtype) for m in inputs())
    x[0, :, 1, 2] = 0
    value[1, :, 0, 0] = 0
    leaves = x.requires_grad_(), value.requires_grad_()
    y = pixel_propagation(*leaves, exponent)
    if exponent >= 1:
        assert not y[0, :, 1, 2].any()
    for gradient in torch.autograd.grad(F.normalize(y, dim=1).square().sum(), leaves):
        assert gradient.isfinite().all()


# --------------------------------------------------------------------------------- consistency


@pytest.mark.parametrize("soft", [False, True])
def test_consistency_is_its_definition(soft):
    query, key, weights = pairs()
    weights[1] = False
    if soft:
        weights = weights * torch.rand(weights.shape, generator=torch.Generator().manual_seed(1))
    total = 0
    for q, k, a in zip(query, key, weights.double(), strict=True):
        agreement = sum(a[i, j] * (q[:, i] @ k[:, j]) for i in range(10) for j in range(12))
        total = total + agreement / (a.sum() + 1e-6)
    found = pixel_consistency(query, key, weights)
    torch.testing.assert_close(found, total / 3, atol=1e-12, rtol=0)


def test_gradcheck_of_consistency():
    query, key, weights = pairs(b=2, d=3, nq=4, nk=5)
    key = key.clone().requires_grad_()
    weights[0] = False
    assert torch.autograd.gradcheck(lambda q, k: pixel_consistency(q, k, weights), (query, key))


def test_images_without_pairs_count_as_zero():
    query, key, weights = pairs()
    weights[1] = False
    loss = pixel_consistency(query, key, weights)
    rest = pixel_consistency(query[[0, 2]], key[[0, 2]], weights[[0, 2]])
    torch.testing.assert_close(loss, rest * 2 / 3)
    (gradient,) = torch.autograd.grad(loss, query)
    assert not gradient[1].any()
    nothing = pixel_consistency(query, key, torch.zeros_like(weights))
    (gradient,) = torch.autograd.grad(nothing, query)
    assert nothing.item() == 0 and torch.equal(gradient, torch.zeros_like(query))


def test_equal_views_agree_fully():
    query, _, _ = pairs()
    match = torch.eye(10, dtype=torch.bool).expand(3, 10, 10)
    found = pixel_consistency(query, query.detach(), match)
    torch.testing.assert_close(found.item(), 10 / (10 + 1e-6))


def test_permutations_and_grids_change_nothing():
    query, key, weights = pairs()
    loss = pixel_consistency(query, key, weights)
    generator = torch.Generator().manual_seed(5)
    a, b = torch.randperm(10, generator=generator), torch.randperm(12, generator=generator)
    moved = pixel_consistency(
        query[:, :, a].flip(0), key[:, :, b].flip(0), weights[:, a][:, :, b].flip(0)
    )
    torch.testing.assert_close(moved, loss)
    grids = query.unflatten(2, (2, 5)), key.unflatten(2, (3, 4))
    assert torch.equal(pixel_consistency(*grids, weights), loss)


# ------------------------------------------------------------------------------------- together


def one_after_the_other(x, value, key, weights, exponent=2.0):
    y = F.normalize(pixel_propagation(x, value, exponent), dim=1)
    return pixel_consistency(y, F.normalize(key.detach(), dim=1), weights)


def three_maps(seed=0, dtype=torch.float64):
    x, value = inputs(seed=seed, dtype=dtype)
    key = 3 * inputs(seed=seed + 1, dtype=dtype)[1].detach()
    weights = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(seed)) < 0.3
    return x, value, key, weights


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_together_they_give_the_same(exponent, dtype, tolerance):
    *maps, weights = three_maps()
    expected = one_after_the_other(*maps, weights, exponent)
    gradients = torch.autograd.grad(expected, maps[:2])
    maps = [m.detach().to(dtype).requires_grad_() for m in maps[:2]] + [maps[2].to(dtype)]
    found = propagated_consistency(*maps, weights, exponent)
    assert found.dtype == dtype
    assert_golden(found, expected, tolerance)
    for a, b in zip(torch.autograd.grad(found, maps[:2]), gradients, strict=True):
        assert_golden(a, b, tolerance * (10 if exponent < 1 else 1))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 5e-9), (torch.float32, 1e-5)])
def test_together_they_are_the_whole_loss_of_pixpro(dtype, tolerance):
    arrays = golden("full_loss_ins0.npz")
    one, two = (arrays[k].to(dtype).requires_grad_() for k in ("feat1", "feat2"))
    ratio, power = float(arrays["pos_ratio"]), float(arrays["pixpro_p"])
    pairs = geometric_from_coordinates(arrays["coord1"], arrays["coord2"], (7, 7), ratio)
    loss = sum(
        -2 * propagated_consistency(x, value_transform(1, arrays, x), key, weights, power)
        for x, key, weights in ((one, two, pairs), (two, one, pairs.mT))
    )
    loss.backward()
    assert_golden(loss, arrays["loss_f64"], tolerance)
    assert_golden(one.grad, arrays["grad_feat1_f64"], tolerance)
    assert_golden(two.grad, arrays["grad_feat2_f64"], tolerance)


def test_gradcheck_together():
    x, value = (m.detach().abs() + 0.2 for m in inputs(b=2, c=3, d=2, h=2, w=2))
    key = inputs(b=2, c=3, d=2, h=2, w=2, seed=3)[1].detach()
    weights = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    weights[1] = 0
    leaves = x.requires_grad_(), value.requires_grad_()
    for exponent in (0.5, 2.0):
        assert torch.autograd.gradcheck(
            lambda a, v, p=exponent: propagated_consistency(a, v, key, weights, p), leaves
        )
    assert torch.autograd.gradgradcheck(
        lambda a, v: propagated_consistency(a, v, key, weights), leaves
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_together_zero_vectors_are_finite(dtype):
    x, value, key, weights = (m.detach() for m in three_maps(dtype=dtype))
    x[0, :, 1, 2] = 0
    value[1, :, 0, 0] = 0
    key[0, :, 0, 1] = 0
    leaves = x.requires_grad_(), value.requires_grad_()
    loss = propagated_consistency(*leaves, key, weights)
    torch.testing.assert_close(loss, one_after_the_other(*leaves, key, weights))
    for gradient in torch.autograd.grad(loss, leaves):
        assert gradient.isfinite().all()
    nothing = propagated_consistency(*leaves, key, torch.zeros_like(weights))
    assert nothing.item() == 0
    for gradient in torch.autograd.grad(nothing, leaves):
        assert not gradient.any()


def test_the_key_gets_no_gradient():
    x, value, key, weights = three_maps()
    key.requires_grad_()
    propagated_consistency(x, value, key, weights).backward()
    assert key.grad is None and x.grad.any() and value.grad.any()


def test_they_are_float32_inside_autocast_and_in_any_memory_format():
    x, value = (m.detach() for m in inputs(dtype=torch.float32))
    query, key, weights = pairs(dtype=torch.float32)
    outside = pixel_propagation(x, value), pixel_consistency(query, key, weights)
    with torch.autocast("cpu", torch.bfloat16):
        inside = pixel_propagation(x, value), pixel_consistency(query, key, weights)
        half = pixel_propagation(x.bfloat16(), value.bfloat16())
    for a, b in zip(outside, inside, strict=True):
        assert b.dtype == torch.float32 and torch.equal(a, b)
    assert half.dtype == torch.float32
    last = (m.contiguous(memory_format=torch.channels_last) for m in (x, value))
    torch.testing.assert_close(pixel_propagation(*last), outside[0])
    x, value, key, weights = three_maps(dtype=torch.float32)
    together = propagated_consistency(x, value, key, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(propagated_consistency(x, value, key, weights), together)
    last = (m.contiguous(memory_format=torch.channels_last) for m in (x, value, key))
    torch.testing.assert_close(propagated_consistency(*last, weights), together)


def test_bad_inputs_are_named():
    x, value = inputs()
    with pytest.raises(InputError, match="value"):
        pixel_propagation(x, value[:, :, 1:])
    for exponent in (0, -1.0, float("nan")):
        with pytest.raises(InputError, match="exponent"):
            pixel_propagation(x, value, exponent)
    query, key, weights = pairs()
    with pytest.raises(InputError, match="weights"):
        pixel_consistency(query, key, weights[:, 1:])
    x, value, key, weights = three_maps()
    with pytest.raises(InputError, match="propagated_consistency.*weights"):
        propagated_consistency(x, value, key, weights[:, 1:])
    with pytest.raises(InputError, match="propagated_consistency.*exponent"):
        propagated_consistency(x, value, key, weights, 0)
