"""SwAV: balanced codes and swapped prediction, against the paper's algorithm and by loops."""

import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.losses import sinkhorn, swapped_prediction


def some_scores(m=24, p=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(m, 5, generator=generator, dtype=dtype))
    return z @ F.normalize(torch.randn(p, 5, generator=generator, dtype=dtype)).T


def views(v=4, b=3, p=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(b, p, generator=generator, dtype=dtype) for _ in range(v)]
    codes = [torch.rand(b, p, generator=generator, dtype=dtype) for _ in range(2)]
    return [s.requires_grad_() for s in scores], [q / q.sum(1, keepdim=True) for q in codes]


# ------------------------------------------------------------------------------------ sinkhorn


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_codes_are_those_of_the_papers_algorithm(epsilon, iterations):
    scores = some_scores()
    q = torch.exp(scores / epsilon).T  # prototypes x samples, as the paper writes it
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdim=True) * len(q)
        q /= q.sum(0, keepdim=True) * q.shape[1]
    expected = (q * q.shape[1]).T
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected)


def test_rows_sum_to_one_and_columns_become_equal():
    # A batch that prefers one prototype by far.
    scores = some_scores(m=60)
    scores[:, 2] += 0.5
    codes = sinkhorn(scores, iterations=50)
    torch.testing.assert_close(codes.sum(1), torch.ones(60).double())
    torch.testing.assert_close(codes.sum(0), torch.full((6,), 10.0).double(), atol=0.05, rtol=0)
    softmax = torch.softmax(scores / 0.05, 1).sum(0)
    few = sinkhorn(scores).sum(0)
    assert softmax.max() > 20 and few.max() < 15 and (codes >= 0).all()


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_no_score_is_too_large(scale):
    scores = some_scores(dtype=torch.float32) * scale
    codes = sinkhorn(scores)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(1), torch.ones(24))


def test_a_sample_far_from_every_prototype_still_has_a_code():
    # After the maximum is subtracted, exp of this row is 0 everywhere.
    scores = some_scores(dtype=torch.float32)
    scores[5] -= 1000
    codes = sinkhorn(scores)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(1), torch.ones(24))


def test_constants_and_order_change_nothing():
    scores = some_scores()
    codes = sinkhorn(scores)
    torch.testing.assert_close(sinkhorn(scores + 17), codes)
    rows = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    columns = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sinkhorn(scores[rows][:, columns]), codes[rows][:, columns])


def test_codes_are_float32_constants():
    scores = some_scores(dtype=torch.float32).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        codes = sinkhorn(scores)
    assert codes.dtype == torch.float32 and not codes.requires_grad
    assert torch.equal(codes, sinkhorn(scores.float()))


# -------------------------------------------------------------------------- swapped prediction


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_swapped_prediction_is_its_definition(temperature):
    scores, codes = views()
    total = 0
    for g, q in enumerate(codes):
        others = [s for v, s in enumerate(scores) if v != g]
        for s in others:
            p = torch.softmax(s / temperature, 1)
            total = total - (q * torch.log(p)).sum(1).mean() / len(others) / len(codes)
    found = swapped_prediction(scores, codes, temperature)
    torch.testing.assert_close(found, total, atol=1e-12, rtol=0)


@pytest.mark.parametrize("crops", [2, 4])
def test_gradcheck(crops):
    scores, codes = views(v=crops)
    assert torch.autograd.gradcheck(lambda *s: swapped_prediction(s, codes, 0.2), scores)


def test_two_views_predict_each_other_only():
    scores, codes = views(v=2)
    loss = swapped_prediction(scores, codes, 0.1)
    torch.testing.assert_close(swapped_prediction(scores[::-1], codes[::-1], 0.1), loss)
    (first, second) = torch.autograd.grad(loss, scores)
    zero = [codes[0], torch.zeros_like(codes[1])]
    swapped = torch.autograd.grad(swapped_prediction(scores, zero, 0.1), scores)
    # The first view's code teaches the second view alone.
    assert not swapped[0].any() and torch.equal(swapped[1], second) and first.any()


def test_codes_get_no_gradient():
    scores, codes = views()
    codes = [q.requires_grad_() for q in codes]
    swapped_prediction(scores, codes, 0.1).backward()
    assert all(q.grad is None for q in codes) and all(s.grad.any() for s in scores)


def test_the_order_of_images_and_local_views_does_not_matter():
    scores, codes = views()
    loss = swapped_prediction(scores, codes, 0.1)
    moved = swapped_prediction([s.flip(0) for s in scores], [q.flip(0) for q in codes], 0.1)
    torch.testing.assert_close(moved, loss)
    torch.testing.assert_close(
        swapped_prediction([*scores[:2], scores[3], scores[2]], codes, 0.1), loss
    )


def test_it_is_float32_inside_autocast():
    scores, codes = views(dtype=torch.float32)
    outside = swapped_prediction(scores, codes, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = swapped_prediction(scores, codes, 0.1)
        half = swapped_prediction([s.bfloat16() for s in scores], codes, 0.1)
    assert torch.equal(inside, outside) and half.dtype == torch.float32


def test_bad_inputs_are_named():
    scores, codes = views()
    with pytest.raises(InputError, match="two views"):
        swapped_prediction(scores[:1], codes[:1], 0.1)
    with pytest.raises(InputError, match="codes"):
        swapped_prediction(scores, [], 0.1)
    with pytest.raises(InputError, match=r"\[B, P\]"):
        swapped_prediction(scores, [q[1:] for q in codes], 0.1)
    with pytest.raises(InputError, match="scores"):
        sinkhorn(scores[0][0])
    with pytest.raises(InputError, match="epsilon"):
        sinkhorn(scores[0], epsilon=0)
    with pytest.raises(InputError, match="iterations"):
        sinkhorn(scores[0], iterations=0)
