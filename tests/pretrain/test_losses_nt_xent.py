"""NT-Xent: the paper's formula by loops, gradients, what other processes change."""

import math

import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.losses import nt_xent


def batch(pairs=5, d=6, seed=0, dtype=torch.float64):
    """Unit vectors ``[2B, D]`` of B images, first all first views, and own and positive rows."""
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(2 * pairs, d, generator=generator, dtype=dtype))
    own = torch.arange(2 * pairs)
    return z.requires_grad_(), own, own.roll(pairs)


def by_loops(z, positive, temperature):
    terms = []
    for i in range(len(z)):
        numerator = torch.exp(z[i] @ z[positive[i]] / temperature)
        others = [torch.exp(z[i] @ z[j] / temperature) for j in range(len(z)) if j != i]
        terms.append(-torch.log(numerator / sum(others)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_it_is_simclrs_equation(temperature):
    z, own, positive = batch()
    found, expected = nt_xent(z, z, own, positive, temperature), by_loops(z, positive, temperature)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(loss, z)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_gradcheck():
    z, own, positive = batch(pairs=3, d=3)
    assert torch.autograd.gradcheck(lambda x: nt_xent(x, x, own, positive, 0.2), z)
    rows = torch.tensor([1, 4])
    assert torch.autograd.gradcheck(
        lambda x, everyone: nt_xent(x, everyone, own[rows], positive[rows], 0.2),
        (z.detach()[rows].requires_grad_(), z),
    )


# In float32 a logit of up to 1 / 0.1 is known to 10 x 2^-24 for each of its products and sums.
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_processes_average_to_the_whole_batch(dtype, tolerance):
    z, own, positive = batch(pairs=6, dtype=dtype)
    whole = nt_xent(z, z, own, positive, 0.1)
    (expected,) = torch.autograd.grad(whole, z)
    # Two processes with three images each: both views of images 0-2, both of images 3-5.
    parts = [torch.tensor([0, 1, 2, 6, 7, 8]), torch.tensor([3, 4, 5, 9, 10, 11])]
    losses = [nt_xent(z[rows], z, own[rows], positive[rows], 0.1) for rows in parts]
    torch.testing.assert_close(sum(losses) / 2, whole, atol=tolerance, rtol=0)
    (found,) = torch.autograd.grad(sum(losses) / 2, z)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_the_order_of_the_rows_does_not_matter():
    z, own, positive = batch()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    place = order.argsort()  # where a row of the batch lies after the permutation
    moved = nt_xent(z[order], z[order], place[own[order]], place[positive[order]], 0.1)
    torch.testing.assert_close(moved, nt_xent(z, z, own, positive, 0.1))


def test_the_sample_itself_does_not_count():
    z, own, positive = batch()
    everyone = z.detach().clone()
    everyone[0] = -everyone[0]
    # The loss of row 0 does not look at row 0 of everyone.
    rows = torch.tensor([0])
    found = nt_xent(z[rows], everyone, own[rows], positive[rows], 0.1)
    torch.testing.assert_close(found, nt_xent(z[rows], z, own[rows], positive[rows], 0.1))


def test_one_image_has_nothing_to_tell_apart():
    z, own, positive = batch(pairs=1)
    assert abs(nt_xent(z, z, own, positive, 0.1).item()) < 1e-12


def test_equal_vectors_are_guessed():
    z = F.normalize(torch.ones(8, 3, dtype=torch.float64))
    own = torch.arange(8)
    loss = nt_xent(z, z, own, own.roll(4), 0.1).item()
    assert math.isclose(loss, math.log(7), abs_tol=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_and_autocast(temperature):
    z, own, positive = batch(dtype=torch.float32)
    loss = nt_xent(z, z, own, positive, temperature)
    exact = nt_xent(z.double(), z.double(), own, positive, temperature)
    torch.testing.assert_close(loss.double(), exact, atol=1e-4, rtol=1e-5)
    assert torch.autograd.grad(loss, z, retain_graph=True)[0].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        inside = nt_xent(z, z, own, positive, temperature)
    assert inside.dtype == torch.float32 and torch.equal(inside, loss)


def test_bad_inputs_are_named():
    z, own, positive = batch()
    with pytest.raises(InputError, match="own"):
        nt_xent(z, z, own[1:], positive, 0.1)
    with pytest.raises(InputError, match="everyone"):
        nt_xent(z, z[:, 1:], own, positive, 0.1)
