"""Every loss on CUDA: the CPU's value and gradient, and no wait for the device."""

import pytest
import torch
import torch.nn.functional as F

from densessl.pretrain import losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def unit(*shape, dim=-1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=dim)


def mask(*shape):
    found = torch.rand(*shape, generator=torch.Generator().manual_seed(9)) < 0.3
    found[0] = False  # an image without positives
    return found


def case(function, *inputs, **options):
    return pytest.param(function, inputs, options, id=function.__name__)


B, D, N, R = 4, 64, 49, 36
ROWS = torch.arange(2 * B)
BOXES = torch.tensor([[10.0, 10, 58, 58], [0, 0, 1, 1], [150, 90, 224, 224]]).repeat(B, R // 3, 1)
CASES = [
    case(losses.info_nce, unit(N, D), unit(N, D, seed=1), unit(1024, D, seed=2), 0.2),
    case(losses.set_info_nce, unit(B, D, N, dim=1), unit(B, D, N, dim=1, seed=1), mask(B, N, N),
         unit(1024, D, seed=2), 0.2, "mean"),
    case(losses.region_info_nce, unit(B, R, D), unit(B, R, D, seed=1), mask(B, R),
         unit(576, D, seed=2), 0.2),
    case(losses.negative_cosine, unit(N, D), unit(N, D, seed=1)),
    case(losses.set_cosine, unit(B, D, N), unit(B, D, N, seed=1), mask(B, N, N)),
    case(losses.pixel_consistency, unit(B, D, N), unit(B, D, N, seed=1), mask(B, N, N)),
    case(losses.propagated_consistency, unit(B, D, 7, 7), unit(B, D, 7, 7, seed=1),
         unit(B, D, 7, 7, seed=2), mask(B, N, N)),
    case(losses.pixel_propagation, unit(B, D, 7, 7), unit(B, D, 7, 7, seed=1)),
    case(losses.prroi_pool, unit(B, D, 14, 14), BOXES, 1 / 16),
    case(losses.prroi_pool, unit(B, D, 14, 14), BOXES, 1 / 16, 2),
    case(losses.distillation, unit(5, B, 4096), unit(2, B, 4096, seed=1),
         unit(1, 4096, seed=2), 0.1, 0.04),
    case(losses.paired_distillation, unit(B, 256), unit(B, 256, seed=1), None, 0.1, 0.04),
    case(losses.nt_xent, unit(2 * B, D), unit(2 * B, D, seed=1), ROWS, ROWS.roll(B), 0.1),
]  # fmt: skip


def run(function, inputs, options, device):
    inputs = [x.to(device) if isinstance(x, torch.Tensor) else x for x in inputs]
    leaf = inputs[0].clone().requires_grad_()
    found = function(leaf, *inputs[1:], **options)
    weight = torch.linspace(-1, 1, found.numel(), device=device).view_as(found)
    (gradient,) = torch.autograd.grad(found, leaf, weight if found.ndim else None)
    return found.detach(), gradient


@pytest.mark.parametrize("function, inputs, options", CASES)
def test_value_and_gradient_are_the_cpus(function, inputs, options):
    expected, found = (run(function, inputs, options, device) for device in ("cpu", "cuda"))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("function, inputs, options", CASES)
def test_nobody_waits_for_the_device(function, inputs, options):
    inputs = [x.cuda() if isinstance(x, torch.Tensor) else x for x in inputs]
    run(function, inputs, options, "cuda")  # the first call prepares kernels, and may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(function, inputs, options, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_constants_and_lists_are_the_cpus_without_a_wait():
    scores = [unit(B, 300, seed=v) for v in range(4)]
    key_map = unit(B, D, 14, 14)
    codes = [losses.sinkhorn(s) for s in scores[:2]]
    expected = (
        codes[0], losses.swapped_prediction(scores, codes, 0.1), losses.cell_negatives(key_map)
    )  # fmt: skip
    scores, key_map = [s.cuda() for s in scores], key_map.cuda()
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            codes = [losses.sinkhorn(s) for s in scores[:2]]
            loss = losses.swapped_prediction(scores, codes, 0.1)
            found = codes[0], loss, losses.cell_negatives(key_map)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=1e-5, rtol=1e-4)
