"""Cosine losses: SimSiam's golden numbers, the set cosine's definition, gradients, invariants."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.losses import negative_cosine, set_cosine

GOLDEN = Path(__file__).parents[1] / "golden" / "simsiam" / "loss.npz"


def inputs(b=3, d=8, nq=10, nk=12, seed=0, dtype=torch.float64, density=0.2):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(b, d, nq, generator=generator, dtype=dtype) * 3
    key = torch.randn(b, d, nk, generator=generator, dtype=dtype) * 2
    mask = torch.rand(b, nq, nk, generator=generator) < density
    return query.requires_grad_(), key, mask


def set_cosine_by_loops(query, key, weights):
    images = []
    for h, z, w in zip(query, key, weights.double(), strict=True):
        rows = []
        for i in range(h.shape[1]):
            if w[i].sum() > 0:
                cosines = torch.stack(
                    [F.cosine_similarity(h[:, i], z[:, j], dim=0) for j in range(z.shape[1])]
                )
                rows.append(-(w[i] * cosines).sum() / w[i].sum())
        images.append(sum(rows) / len(rows) if rows else h.sum() * 0)
    return sum(images) / len(images)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_negative_cosine_is_simsiams(dtype, tolerance):
    arrays = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN).items()}
    p1, p2, z1, z2 = (arrays[k].to(dtype).requires_grad_() for k in ("p1", "p2", "z1", "z2"))
    loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
    loss.backward()
    assert loss.dtype == dtype and z1.grad is None and z2.grad is None
    for found, name in ((loss, "loss"), (p1.grad, "grad_p1"), (p2.grad, "grad_p2")):
        expected = arrays[f"{name}_f64"]
        limit = tolerance * (1 + float(expected.abs().max()))
        torch.testing.assert_close(found.detach().double(), expected, atol=limit, rtol=0)


def test_negative_cosine_of_maps_is_that_of_their_positions():
    query, key, _ = inputs(nk=10)
    rows = (x.transpose(1, 2).flatten(0, 1) for x in (query, key))
    torch.testing.assert_close(negative_cosine(query, key), negative_cosine(*rows))
    grids = (x.unflatten(2, (2, 5)) for x in (query, key))
    torch.testing.assert_close(negative_cosine(*grids), negative_cosine(query, key))


def test_negative_cosine_ignores_lengths_and_survives_zeros():
    query, key, _ = inputs(nk=10)
    torch.testing.assert_close(negative_cosine(3 * query, key / 7), negative_cosine(query, key))
    torch.testing.assert_close(negative_cosine(key, key).item(), -1.0)
    zero = torch.zeros(2, 4, requires_grad=True)
    loss = negative_cosine(zero, torch.ones(2, 4))
    loss.backward()
    assert loss.item() == 0 and zero.grad.isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
def test_set_cosine_is_its_definition(soft):
    query, key, weights = inputs()
    weights[0, 3] = False
    weights[1] = False
    if soft:
        weights = weights * torch.rand(weights.shape, generator=torch.Generator().manual_seed(1))
    found, expected = set_cosine(query, key, weights), set_cosine_by_loops(query, key, weights)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(loss, query)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_gradcheck_of_both():
    query, key, mask = inputs(b=2, d=3, nq=4, nk=5, density=0.4)
    mask[0, 1] = False
    assert mask.any() and not mask.all()
    assert torch.autograd.gradcheck(lambda q: set_cosine(q, key, mask), query)
    assert torch.autograd.gradcheck(lambda q: negative_cosine(q, key[..., :4]), query)


def test_the_key_gets_no_gradient():
    query, key, mask = inputs()
    key.requires_grad_()
    set_cosine(query, key, mask).backward()
    assert key.grad is None and query.grad.any()


def test_one_positive_each_is_the_negative_cosine():
    query, key, _ = inputs(nk=10)
    match = torch.eye(10, dtype=torch.bool).expand(3, 10, 10)
    torch.testing.assert_close(set_cosine(query, key, match), negative_cosine(query, key))


def test_images_and_positions_without_positives():
    query, key, mask = inputs()
    mask[1] = False
    loss = set_cosine(query, key, mask)
    rest = set_cosine(query[[0, 2]], key[[0, 2]], mask[[0, 2]])
    torch.testing.assert_close(loss, rest * 2 / 3)
    (gradient,) = torch.autograd.grad(loss, query)
    without = ~mask.any(2)
    assert not gradient.transpose(1, 2)[without].any() and gradient.isfinite().all()
    nothing = set_cosine(query, key, torch.zeros_like(mask))
    (gradient,) = torch.autograd.grad(nothing, query)
    assert nothing.item() == 0 and torch.equal(gradient, torch.zeros_like(query))


def test_permutations_and_lengths_change_nothing():
    query, key, mask = inputs()
    loss = set_cosine(query, key, mask)
    generator = torch.Generator().manual_seed(5)
    a, b = torch.randperm(10, generator=generator), torch.randperm(12, generator=generator)
    moved = set_cosine(query[:, :, a].flip(0), key[:, :, b].flip(0), mask[:, a][:, :, b].flip(0))
    torch.testing.assert_close(moved, loss)
    torch.testing.assert_close(set_cosine(5 * query, key / 3, mask * 0.25), loss)
    grids = query.unflatten(2, (2, 5)), key.unflatten(2, (3, 4))
    assert torch.equal(set_cosine(*grids, mask), loss)


def test_zero_vectors_are_finite():
    query, key, mask = inputs()
    query = (query * 0).detach().requires_grad_()
    loss = set_cosine(query, key * 0, mask)
    loss.backward()
    assert loss.item() == 0 and query.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_float32_inside_autocast(dtype):
    query, key, mask = (x.detach() for x in inputs(dtype=torch.float32, nk=10))
    query, key = query.to(dtype), key.to(dtype)
    outside = set_cosine(query.float(), key.float(), mask), negative_cosine(query, key)
    with torch.autocast("cpu", torch.bfloat16):
        inside = set_cosine(query, key, mask), negative_cosine(query, key)
    for a, b in zip(outside, inside, strict=True):
        assert b.dtype == torch.float32 and torch.equal(a, b)


def test_bad_inputs_are_named():
    query, key, mask = inputs()
    with pytest.raises(InputError, match="weights"):
        set_cosine(query, key, mask.mT)
    with pytest.raises(InputError, match="key"):
        set_cosine(query, key[:, 1:], mask)
    with pytest.raises(InputError, match="negative_cosine"):
        negative_cosine(query, key)
