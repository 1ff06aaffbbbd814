"""Products of matrices, by each kernel that this machine has."""

import pytest
import torch

from densessl.core import products

ONEDNN = pytest.param(
    True,
    marks=pytest.mark.skipif(
        not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="PyTorch without oneDNN"
    ),
)


@pytest.mark.parametrize("onednn", [False, ONEDNN])
@pytest.mark.parametrize("m, n, d", [(1, 1, 1), (5, 7, 3), (64, 257, 128)])
def test_either_kernel_multiplies_rows_as_they_lie_and_strided(monkeypatch, onednn, m, n, d):
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: onednn)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(m, d, generator=generator), torch.randn(n, d, generator=generator)
    expected = a.double() @ b.double().T
    for rows in (b, b.T.contiguous().T):
        found = products.product(a, rows)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)
    assert torch.equal(products.product(a.double(), b.double()), expected)
