"""Contrastive losses: golden numbers of papers and official codes, gradients, invariants."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.correspondence import nearest, one_hot
from densessl.pretrain.losses import dense_info_nce, info_nce, set_info_nce

GOLDEN = Path(__file__).parents[1] / "golden"
GRIDS = ["g4x5", "g7x7", "g7x7neg"]
OFFICIAL = [
    *[(grid, variant) for grid in GRIDS for variant in ("att", "att_nn")],
    *[("g7x7", variant) for variant in ("geo", "geo_nn", "attgeo", "attgeo_nn")],
    ("g7x7neg", "attgeo_nn"),
]


def golden(name):
    return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / name).items()}


def assert_golden(found, expected, tolerance):
    """Absolute plus relative to the largest magnitude, as the golden README asks."""
    expected = expected.double()
    limit = tolerance * (1 + float(expected.abs().max()))
    torch.testing.assert_close(found.detach().double(), expected, atol=limit, rtol=0)


def inputs(b=3, d=8, n=12, k=64, seed=0, dtype=torch.float64, density=0.2):
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(b, d, n, generator=generator, dtype=dtype) for _ in range(2))
    queue = torch.randn(k, d, generator=generator, dtype=dtype)
    mask = torch.rand(b, n, n, generator=generator) < density
    query, key, queue = F.normalize(query, dim=1), F.normalize(key, dim=1), F.normalize(queue)
    return query.requires_grad_(), key, mask, queue


def set_info_nce_by_loops(query, key, mask, queue, temperature, reduction):
    """Eq. 8, term by term."""
    images = []
    for q, k, c in zip(query, key, mask, strict=True):
        rows = []
        for i in range(q.shape[1]):
            members = c[i].nonzero()[:, 0].tolist()
            if not members:
                continue
            e = {j: torch.exp(q[:, i] @ k[:, j] / temperature) for j in members}
            total = sum(e.values()) + torch.exp(queue @ q[:, i] / temperature).sum()
            rows.append(-sum(torch.log(e[j] / total) for j in members) / len(members))
        loss = sum(rows) if rows else q.sum() * 0
        images.append(loss / max(1, len(rows)) if reduction == "mean" else loss)
    return sum(images) / len(images)


# --------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("name", ["infonce_T0p07", "infonce_T0p2"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_info_nce_is_mocos(name, dtype, tolerance):
    arrays = golden(f"moco/{name}.npz")
    temperature = float(arrays["temperature"])
    raw = arrays["q_raw"].to(dtype).requires_grad_()
    query, positive = F.normalize(raw), F.normalize(arrays["k_raw"].to(dtype))
    query.retain_grad()
    loss = info_nce(query, positive, arrays["queue_before"].T.to(dtype), temperature)
    loss.backward()
    tolerance *= 2 if dtype == torch.float32 and temperature < 0.1 else 1
    assert loss.dtype == dtype
    assert_golden(loss, arrays["loss_f64"], tolerance)
    assert_golden(query.grad, arrays["grad_q_norm_f64"], tolerance)
    assert_golden(raw.grad, arrays["grad_q_raw_f64"], tolerance)


@pytest.mark.parametrize("name", ["step_4x5", "step_7x7"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_losses_are_densecls(name, dtype, tolerance):
    arrays = golden(f"densecl/{name}.npz")
    temperature = float(arrays["temperature"])
    f = {k.removesuffix("_f64"): v.to(dtype) for k, v in arrays.items() if k.endswith("_f64")}
    match = nearest(arrays["q_backbone"].to(dtype), arrays["k_backbone"].to(dtype))
    assert torch.equal(match, arrays["match_index_f64"])
    queue, queue2 = (arrays[f"{name}_before"].T.to(dtype) for name in ("queue", "queue2"))
    dense = dense_info_nce(f["q_grid"], f["k_grid"], match, queue2, temperature)
    assert_golden(dense, arrays["loss_dense_unweighted_f64"], tolerance)
    single = info_nce(f["q"], f["k"], queue, temperature)
    assert_golden(single, arrays["loss_single_unweighted_f64"], tolerance)


@pytest.mark.parametrize("name", ["step_4x5", "step_7x7"])
def test_gradients_reach_densecls_backbone(name):
    arrays = golden(f"densecl/{name}.npz")
    weights = {k: v.double() for k, v in arrays.items() if k.startswith("neck_q__")}
    z = arrays["q_backbone"].double().requires_grad_()

    def layer(prefix, x):
        weight = weights[f"neck_q__{prefix}__weight"]
        return F.linear(x, weight.flatten(1), weights[f"neck_q__{prefix}__bias"])

    q = F.normalize(layer("mlp__2", layer("mlp__0", z.mean((2, 3))).relu()))
    positions = z.flatten(2).transpose(1, 2)
    q_grid = F.normalize(layer("mlp2__2", layer("mlp2__0", positions).relu()), dim=2)
    temperature, weight = float(arrays["temperature"]), float(arrays["loss_lambda"])
    loss = (1 - weight) * info_nce(q, arrays["k_f64"], arrays["queue_before"].T, temperature)
    loss = loss + weight * dense_info_nce(
        q_grid.transpose(1, 2),
        arrays["k_grid_f64"],
        nearest(z, arrays["k_backbone"]),
        arrays["queue2_before"].T,
        temperature,
    )
    loss.backward()
    assert_golden(loss, arrays["loss_total_f64"], 1e-10)
    assert_golden(z.grad, arrays["grad_q_backbone_f64"], 1e-10)


@pytest.mark.parametrize("grid, variant", OFFICIAL)
# The released code has 1e-8 in its denominators.
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-7), (torch.float32, 1e-5)])
def test_mean_is_the_released_setsim(grid, variant, dtype, tolerance):
    arrays, expected = (
        golden(f"setsim/{grid}_inputs.npz"),
        golden(f"setsim/{grid}_official_{variant}.npz"),
    )
    raw = arrays["p_q_raw"].to(dtype).requires_grad_()
    query, key = F.normalize(raw, dim=1), F.normalize(arrays["p_k_raw"].to(dtype), dim=1)
    query.retain_grad()
    mask, queue = expected["mask_final"].bool(), arrays["queue2"].T.to(dtype)
    loss = set_info_nce(query, key, mask, queue, float(arrays["T"]), reduction="mean")
    loss.backward()
    assert_golden(loss, expected["loss_f64"], tolerance)
    assert_golden(query.grad, expected["grad_q_norm_f64"], tolerance)
    assert_golden(raw.grad, expected["grad_q_raw_f64"], tolerance)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("variant", ["nn", "nonn"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_sum_and_mean_are_the_papers_setsim(grid, variant, dtype, tolerance):
    arrays, expected = (
        golden(f"setsim/{grid}_inputs.npz"),
        golden(f"setsim/{grid}_paper_{variant}.npz"),
    )
    queue, temperature = arrays["queue2"].T.to(dtype), float(arrays["T"])
    mask = expected["positive_set"].bool()
    images = len(mask)
    for reduction, name, gradient in (
        ("sum", "loss_sum_batchmean", expected["grad_pq_of_sum"] / images),
        ("mean", "loss_rowmean_batchmean", expected["grad_pq_of_rowmean_batchmean"]),
    ):
        query = expected["p_q"].to(dtype).clone().requires_grad_()
        loss = set_info_nce(query, expected["p_k"].to(dtype), mask, queue, temperature, reduction)
        loss.backward()
        assert_golden(loss, expected[name], tolerance)
        assert_golden(query.grad, gradient, tolerance)
    per_image = expected["loss_sum_per_image"]
    for b in range(images):
        one = expected["p_q"][b : b + 1], expected["p_k"][b : b + 1], mask[b : b + 1]
        found = set_info_nce(
            *(x.to(dtype) if x.is_floating_point() else x for x in one), queue, temperature
        )
        assert_golden(found, per_image[b], tolerance)


# --------------------------------------------------------------------------- definition, gradients


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_set_info_nce_is_eq_8_by_loops(reduction):
    query, key, mask, queue = inputs()
    mask[0, 3] = False
    mask[1] = False
    found = set_info_nce(query, key, mask, queue, 0.2, reduction)
    expected = set_info_nce_by_loops(query, key, mask, queue, 0.2, reduction)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(loss, query)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_gradcheck_of_all_three():
    query, key, mask, queue = inputs(b=2, d=3, n=4, k=10, density=0.4)
    mask[0, 1] = False
    match = torch.randint(4, (2, 4), generator=torch.Generator().manual_seed(0))
    key = key.clone().requires_grad_()
    check = torch.autograd.gradcheck
    for reduction in ("sum", "mean"):
        assert check(
            lambda q, k, r=reduction: set_info_nce(q, k, mask, queue, 0.2, r), (query, key)
        )
    assert check(lambda q, k: dense_info_nce(q, k, match, queue, 0.2), (query, key))
    assert check(lambda q, k: info_nce(q[0].T, k[0].T, queue, 0.2), (query, key))


def test_an_image_without_positives_counts_as_zero():
    query, key, mask, queue = inputs()
    mask[1] = False
    loss = set_info_nce(query, key, mask, queue, 0.2, "mean")
    rest = set_info_nce(query[[0, 2]], key[[0, 2]], mask[[0, 2]], queue, 0.2, "mean")
    torch.testing.assert_close(loss, rest * 2 / 3)
    (gradient,) = torch.autograd.grad(loss, query)
    assert not gradient[1].any() and gradient[0].any() and gradient.isfinite().all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_batch_without_any_positive_is_zero_and_can_go_backward(reduction):
    query, key, mask, queue = inputs()
    loss = set_info_nce(query, key, torch.zeros_like(mask), queue, 0.2, reduction)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(query.grad, torch.zeros_like(query))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("some", [True, False])
def test_all_rows_masked_give_what_picked_rows_give(monkeypatch, reduction, some):
    # The way on CUDA, where nobody may wait for the number of positions that have a positive.
    query, key, mask, queue = inputs()
    mask[0, 3], mask[1] = False, False
    mask = mask & some
    key = key.clone().requires_grad_()
    picked = set_info_nce(query, key, mask, queue, 0.2, reduction)
    expected = torch.autograd.grad(picked, (query, key))
    monkeypatch.setattr("densessl.pretrain.losses.contrastive.counting", lambda counts, *rows: rows)
    loss = set_info_nce(query, key, mask, queue, 0.2, reduction)
    torch.testing.assert_close(loss, picked, atol=1e-12, rtol=0)
    for a, b in zip(torch.autograd.grad(loss, (query, key)), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_one_positive_each_is_the_dense_loss():
    query, key, _, queue = inputs(n=10)
    match = torch.randint(10, (3, 10), generator=torch.Generator().manual_seed(1))
    dense = dense_info_nce(query, key, match, queue, 0.07)
    as_sets = set_info_nce(query, key, one_hot(match, 10), queue, 0.07, "mean")
    torch.testing.assert_close(as_sets, dense, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(loss, query)[0] for loss in (as_sets, dense))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_an_empty_queue_leaves_the_set_alone():
    query, key, mask, _ = inputs()
    no_queue = torch.zeros(0, 8, dtype=torch.float64)
    found = set_info_nce(query, key, mask, no_queue, 0.2)
    assert found.isfinite()
    torch.testing.assert_close(found, set_info_nce_by_loops(query, key, mask, no_queue, 0.2, "sum"))
    single = one_hot(torch.zeros(3, 12, dtype=torch.long), 12)
    assert abs(set_info_nce(query, key, single, no_queue, 0.2).item()) < 1e-12


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_permutations_change_nothing(reduction):
    query, key, mask, queue = inputs()
    generator = torch.Generator().manual_seed(5)
    a, b, c = (torch.randperm(n, generator=generator) for n in (12, 12, 64))
    loss = set_info_nce(query, key, mask, queue, 0.2, reduction)
    moved = set_info_nce(
        query[:, :, a], key[:, :, b], mask[:, a][:, :, b], queue[c], 0.2, reduction
    )
    torch.testing.assert_close(moved, loss, atol=1e-12, rtol=0)
    images = set_info_nce(query.flip(0), key.flip(0), mask.flip(0), queue, 0.2, reduction)
    torch.testing.assert_close(images, loss, atol=1e-12, rtol=0)


def test_grids_and_flat_positions_are_the_same():
    query, key, mask, queue = inputs(n=12)
    grid = (query.unflatten(2, (3, 4)), key.unflatten(2, (3, 4)))
    assert torch.equal(
        set_info_nce(*grid, mask, queue, 0.2), set_info_nce(query, key, mask, queue, 0.2)
    )
    match = mask.int().argmax(2)
    assert torch.equal(
        dense_info_nce(*grid, match, queue, 0.2), dense_info_nce(query, key, match, queue, 0.2)
    )


def test_equal_weights_mean_membership():
    query, key, mask, queue = inputs()
    expected = set_info_nce(query, key, mask, queue, 0.2)
    for number in (mask.to(torch.uint8), mask.float(), mask.double() * 0.3):
        torch.testing.assert_close(set_info_nce(query, key, number, queue, 0.2), expected)


def test_weights_weigh_the_positives():
    """The mean over a position's positives is a weighted one; the denominator holds them all."""
    query, key, mask, queue = inputs()
    weights = mask * torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)).double()
    s = torch.einsum("bdn,bdm->bnm", query, key) / 0.2
    from_queue = torch.einsum("bdn,kd->bnk", query, queue) / 0.2
    total = torch.logsumexp(torch.cat((s.masked_fill(~mask, -torch.inf), from_queue), 2), 2)
    some = mask.any(2)
    rows = total[some] - (weights * s).sum(2)[some] / weights.sum(2)[some]
    expected = rows.sum() / len(mask)
    found = set_info_nce(query, key, weights, queue, 0.2)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(x, query, retain_graph=True)[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_losses_are_float32_inside_autocast():
    query, key, mask, queue = inputs(dtype=torch.float32)
    match = mask.int().argmax(2)

    def losses():
        return (
            set_info_nce(query, key, mask, queue, 0.07),
            dense_info_nce(query, key, match, queue, 0.07),
            info_nce(query[0].T, key[0].T, queue, 0.07),
        )

    outside = losses()
    with torch.autocast("cpu", torch.bfloat16):
        inside = losses()
    for a, b in zip(outside, inside, strict=True):
        assert a.dtype == b.dtype == torch.float32 and torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_lose_only_their_own_rounding(dtype):
    query, key, mask, queue = inputs(dtype=torch.float32)
    half = [x.detach().to(dtype) for x in (query, key, queue)]
    leaf = half[0].requires_grad_()
    loss = set_info_nce(leaf, half[1], mask, half[2], 0.2)
    exact = set_info_nce(*(x.detach().double() for x in half[:2]), mask, half[2].double(), 0.2)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, atol=1e-5, rtol=1e-6)
    loss.backward()
    assert leaf.grad.dtype == dtype and leaf.grad.isfinite().all()


def test_extreme_logits_stay_finite():
    query, key, mask, queue = inputs(dtype=torch.float32)
    for temperature in (1e-3, 1e3):
        leaf = query.detach().requires_grad_()
        loss = set_info_nce(leaf, key, mask, queue, temperature)
        loss.backward()
        assert loss.isfinite() and leaf.grad.isfinite().all()
        exact = set_info_nce(query.double(), key.double(), mask, queue.double(), temperature)
        torch.testing.assert_close(loss.double(), exact, atol=1e-4, rtol=1e-5)


def test_inputs_are_not_normalised_inside():
    query, key, mask, queue = inputs()
    found = set_info_nce(2 * query, key, mask, queue, 0.2)
    torch.testing.assert_close(found, set_info_nce(query, key, mask, queue, 0.1))


def test_bad_inputs_are_named():
    query, key, mask, queue = inputs()
    with pytest.raises(InputError, match="mean"):
        set_info_nce(query, key, mask, queue, 0.2, "means")
    with pytest.raises(InputError, match="mask"):
        set_info_nce(query, key, mask[:, 1:], queue, 0.2)
    with pytest.raises(InputError, match="match"):
        dense_info_nce(query, key, mask.int().argmax(2)[:, 1:], queue, 0.2)
    with pytest.raises(InputError, match="positive"):
        info_nce(query[0].T, key[0].T[1:], queue, 0.2)
    with pytest.raises(InputError, match="queue"):
        set_info_nce(query, key, mask, queue.T, 0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_loss_and_gradient():
    query, key, mask, queue = inputs(d=64, n=49, k=4096, dtype=torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        leaf = query.detach().to(device).requires_grad_()
        with torch.autocast(device, torch.bfloat16):
            loss = set_info_nce(
                leaf, key.to(device), mask.to(device), queue.to(device), 0.2, "mean"
            )
        loss.backward()
        results.append((loss.detach().cpu(), leaf.grad.cpu()))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
