"""queue_logsumexp against float64, in every kernel that this machine has."""

import math

import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.losses import queue_logsumexp
from densessl.pretrain.losses.queue import _attention, _blocks, _heads

CUDA = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)
TOLERANCE = 1e-5


def unit(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1).to(dtype)


def plain(query, queue, temperature):
    """Value and gradient of the sum, in float64, through the full [M, K] matrix."""
    query = query.detach().double().cpu().requires_grad_()
    value = torch.logsumexp(query @ queue.double().cpu().T / temperature, dim=1)
    (gradient,) = torch.autograd.grad(value.sum(), query)
    return value.detach(), gradient


def ours(query, queue, temperature, kernel="auto"):
    query = query.detach().clone().requires_grad_()
    value = queue_logsumexp(query, queue, temperature, kernel)
    (gradient,) = torch.autograd.grad(value.sum(), query)
    return value.detach(), gradient


def assert_near(found, expected, tolerance=TOLERANCE):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double().cpu(), b, atol=tolerance, rtol=0)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("kernel", ["auto", "attention", "blocks"])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("m, k, d", [(70, 4096, 128), (1, 1000, 16), (300, 33, 64), (5, 1, 8)])
def test_value_and_gradient_are_those_of_float64(device, kernel, temperature, m, k, d):
    query, queue = unit(m, d).to(device), unit(k, d, seed=1).to(device)
    found = ours(query, queue, temperature, kernel)
    assert found[0].dtype == torch.float32 and found[1].dtype == torch.float32
    assert_near(found, plain(query, queue, temperature))


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("kernel", ["auto", "attention", "blocks"])
def test_peaked_distributions_keep_their_precision(device, kernel):
    # A query that is itself in the queue: softmax concentrates on it, and the gradient's magnitude
    # rises to 1 / temperature. 1e-5 is meant relative to that, as in the golden files.
    queue = unit(2048, 32, seed=1).to(device)
    query = queue[:40] + 0
    found, expected = ours(query, queue, 0.07, kernel), plain(query, queue, 0.07)
    assert_near(found[:1], expected[:1])
    assert 5 < expected[1].abs().max() < 1 / 0.07
    assert_near(found[1:], expected[1:], TOLERANCE * float(expected[1].abs().max()))


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("kernel", ["auto", "attention", "blocks"])
@pytest.mark.parametrize("scale", [30.0, 3000.0])
def test_large_logits_neither_overflow_nor_lose_the_maximum(device, kernel, scale):
    query, queue = unit(20, 64).to(device) * scale, unit(5000, 64, seed=1).to(device)
    value, gradient = plain(query, queue, 0.07)
    found = ours(query, queue, 0.07, kernel)
    # A logit is a sum of 64 products of at most |query| |key| / temperature together, and each of
    # the 64 float32 sums rounds to 24 bits; in which order is up to the processor.
    relative = 64 * 2**-24 * scale / 0.07
    torch.testing.assert_close(found[0].double().cpu(), value, atol=relative, rtol=0)
    assert found[1].isfinite().all()
    torch.testing.assert_close(
        found[1].double().cpu(), gradient, atol=relative * float(gradient.abs().max()), rtol=0
    )


@pytest.mark.parametrize("offset", [-120.0, -60.0, -30.0, 30.0, 60.0, 120.0])
def test_logits_far_from_zero_keep_their_differences(offset):
    # exp(s) itself is 0, rounded or too large for float32 at most of them
    query, queue = unit(20, 64), unit(3000, 64, seed=1)
    query, queue = F.pad(query, (0, 1), value=1.0), F.pad(queue, (0, 1), value=offset * 0.07)
    expected = plain(query, queue, 0.07)
    found = ours(query, queue, 0.07, "blocks")
    relative = 65 * 2**-24 * abs(offset)  # as above
    assert_near(found[:1], expected[:1], relative)
    assert_near(found[1:], expected[1:], relative * float(expected[1].abs().max()))


def test_one_row_far_from_zero_leaves_the_others_right():
    query, queue = unit(20, 64), unit(3000, 64, seed=1)
    query[3] *= 300
    found, expected = ours(query, queue, 0.07), plain(query, queue, 0.07)
    others = torch.arange(20) != 3
    assert_near([x[others] for x in found], [x[others] for x in expected])
    assert all(x[3].isfinite().all() for x in found)


def test_long_keys_of_short_queries_overflow_nothing():
    # 1000 terms of exp(1.6) 1e36 are more than float32 holds; their mean is not
    query, queue = torch.full((4, 16), 1e-37), torch.full((1000, 16), 1e36)
    value, mean = _blocks(query, queue, 1.0, True)
    torch.testing.assert_close(value, torch.full((4,), 1.6 + math.log(1000)))
    # old kernels add 1000 equal terms one by one
    torch.testing.assert_close(mean, queue[:4], atol=0, rtol=1000 * 2**-24)


def test_float64_stays_float64():
    query, queue = unit(20, 16, dtype=torch.float64), unit(700, 16, seed=1, dtype=torch.float64)
    assert_near(ours(query, queue, 0.07), plain(query, queue, 0.07), 1e-12)
    mixed = ours(query, queue.float(), 0.07)
    assert mixed[0].dtype == torch.float64
    assert_near(mixed, plain(query, queue.float(), 0.07), 1e-12)


def test_gradcheck():
    query = unit(3, 4, dtype=torch.float64).requires_grad_()
    queue = unit(300, 4, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q: queue_logsumexp(q, queue, 0.2), query)


@pytest.mark.parametrize("d", [1, 3, 7, 100, 257])
def test_any_width(d):
    query, queue = unit(30, d), unit(900, d, seed=1)
    assert_near(ours(query, queue, 0.2), plain(query, queue, 0.2))


@pytest.mark.parametrize("block", [7, 64, 999, 1000, 5000])
def test_the_block_size_changes_nothing(block):
    query, queue = unit(30, 16), unit(1000, 16, seed=1)
    value, gradient = plain(query, queue, 0.2)
    lse, mean = _blocks(query, queue, 5.0, True, block)
    assert_near((lse, mean * 5), (value, gradient))
    assert torch.equal(_blocks(query, queue, 5.0, False, block)[0], lse)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("with_autocast", [False, True])
def test_threads_share_the_queue_and_leave_no_trace(monkeypatch, threads, with_autocast):
    monkeypatch.setattr("densessl.pretrain.losses.queue.WORTH_THREADS", 0)
    monkeypatch.setattr("densessl.pretrain.losses.queue.ROWS", 16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        query, queue = unit(37, 16), unit(1000, 16, seed=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=with_autocast):
            found = ours(query, queue, 0.2)
            with torch.no_grad():
                value = queue_logsumexp(query, queue, 0.2)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert_near(found, plain(query, queue, 0.2))
    torch.testing.assert_close(value, found[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_the_parts_of_the_queue_merge_exactly(device, heads):
    query, queue = unit(37, 16).to(device), unit(1000, 16, seed=1).to(device)
    lse, mean = _attention(query, queue, 5.0, True, heads)
    assert_near((lse, mean * 5), plain(query, queue, 0.2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_queue_is_cut_into_equal_parts():
    for m, k in ((1568, 65536), (12544, 65536), (32, 65535), (32, 96), (1, 1)):
        assert k % _heads(m, k, torch.device("cuda")) == 0


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(device, dtype):
    query, queue = unit(60, 64).to(device, dtype), unit(3000, 64, seed=1).to(device, dtype)
    value, gradient = plain(query, queue, 0.2)
    found = ours(query, queue, 0.2)
    # The value has float32's precision given the rounded inputs; the gradient comes back in the
    # inputs' own precision, on CUDA through a kernel that also rounds the softmax to it.
    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    torch.testing.assert_close(found[0].double().cpu(), value, atol=TOLERANCE, rtol=0)
    eps = torch.finfo(dtype).eps * float(gradient.abs().max())
    torch.testing.assert_close(found[1].double().cpu(), gradient, atol=2 * eps, rtol=0)


def test_autocast_around_it_changes_nothing():
    query, queue = unit(60, 64), unit(3000, 64, seed=1)
    outside = ours(query, queue, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        for kernel in ("auto", "attention", "blocks"):
            assert_near(ours(query, queue, 0.2, kernel), plain(query, queue, 0.2))
        inside = ours(query, queue, 0.2)
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))


@pytest.mark.parametrize("kernel", ["auto", "attention", "blocks"])
def test_overwriting_the_queue_after_the_forward_pass_does_no_harm(kernel):
    query, queue = unit(20, 16).requires_grad_(), unit(512, 16, seed=1)
    expected = plain(query, queue, 0.2)[1]
    value = queue_logsumexp(query, queue, 0.2, kernel)
    queue.zero_()
    value.sum().backward()
    torch.testing.assert_close(query.grad.double(), expected, atol=TOLERANCE, rtol=0)


def test_upstream_gradients_weigh_the_rows():
    query, queue = unit(20, 16), unit(512, 16, seed=1)
    weight = torch.linspace(-2, 3, 20)
    leaf = query.clone().requires_grad_()
    queue_logsumexp(leaf, queue, 0.2).backward(weight)
    expected = plain(query, queue, 0.2)[1] * weight[:, None]
    torch.testing.assert_close(leaf.grad.double(), expected, atol=3 * TOLERANCE, rtol=0)


def test_the_order_of_the_queue_does_not_matter():
    query, queue = unit(20, 16), unit(512, 16, seed=1)
    order = torch.randperm(512, generator=torch.Generator().manual_seed(0))
    assert_near(ours(query, queue[order], 0.2), plain(query, queue, 0.2))


def test_a_strided_queue_is_the_same_queue():
    # Official files keep the queue as [D, K]; its transpose is a strided view.
    query, queue = unit(20, 16), unit(512, 16, seed=1)
    assert_near(ours(query, queue.T.contiguous().T, 0.2), plain(query, queue, 0.2))


@pytest.mark.parametrize("kernel", ["auto", "blocks"])
def test_no_query_and_no_queue(kernel):
    empty = torch.zeros(0, 16, requires_grad=True)
    value = queue_logsumexp(empty, unit(64, 16), 0.2, kernel)
    assert value.shape == (0,)
    value.sum().backward()
    assert empty.grad.shape == (0, 16)
    query = unit(3, 16).requires_grad_()
    value = queue_logsumexp(query, torch.zeros(0, 16), 0.2, kernel)
    assert torch.equal(value, torch.full((3,), -torch.inf))
    value.exp().sum().backward()
    assert torch.equal(query.grad, torch.zeros(3, 16))


def test_a_nan_stays_visible():
    query = unit(3, 16)
    query[1] = torch.nan
    value = queue_logsumexp(query, unit(64, 16), 0.2)
    assert value.isnan().tolist() == [False, True, False]


def test_without_gradient_the_value_is_the_same():
    query, queue = unit(20, 16).requires_grad_(), unit(512, 16, seed=1)
    with torch.no_grad():
        value = queue_logsumexp(query, queue, 0.2)
    assert not value.requires_grad
    assert torch.equal(value, queue_logsumexp(query, queue, 0.2).detach())


def test_it_cannot_be_differentiated_twice():
    query = unit(3, 16).requires_grad_()
    value = queue_logsumexp(query, unit(64, 16), 0.2).sum()
    with pytest.raises(RuntimeError, match="twice"):
        torch.autograd.grad(value, query, create_graph=True)


def test_the_same_call_gives_the_same_bits():
    query, queue = unit(200, 128), unit(8192, 128, seed=1)
    first = ours(query, queue, 0.2)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, ours(query, queue, 0.2), strict=True))


def test_bad_inputs_are_named():
    query, queue = unit(3, 16), unit(64, 16)
    for bad in (0, -0.2, float("nan")):
        with pytest.raises(InputError, match="temperature"):
            queue_logsumexp(query, queue, bad)
    with pytest.raises(InputError, match=r"\[3, 16\].*\[16, 64\]"):
        queue_logsumexp(query, queue.T, 0.2)
    with pytest.raises(InputError, match="detach"):
        queue_logsumexp(query, queue.clone().requires_grad_(), 0.2)
    with pytest.raises(InputError, match="attention"):
        queue_logsumexp(query, queue, 0.2, kernel="attentions")
