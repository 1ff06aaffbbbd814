"""ReSim's region loss: golden numbers of the released code, gradients, invariants."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.losses import cell_negatives, info_nce, prroi_pool, region_info_nce

GOLDEN = Path(__file__).parents[1] / "golden" / "resim" / "loss.npz"


def assert_golden(found, expected, tolerance):
    expected = expected.double()
    limit = tolerance * (1 + float(expected.abs().max()))
    torch.testing.assert_close(found.detach().double(), expected, atol=limit, rtol=0)


def inputs(b=3, r=6, d=8, m=40, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(b, r, d, generator=generator, dtype=dtype) for _ in range(2))
    negatives = F.normalize(torch.randn(m, d, generator=generator, dtype=dtype))
    valid = torch.rand(b, r, generator=generator) < 0.6
    return F.normalize(query, dim=2).requires_grad_(), F.normalize(key, dim=2), valid, negatives


def by_loops(query, key, valid, negatives, temperature, among):
    terms = []
    for b, r in valid.nonzero().tolist():
        positive = torch.exp(query[b, r] @ key[b, r] / temperature)
        others = torch.exp(negatives @ query[b, r] / temperature).sum()
        terms.append(-torch.log(positive / (others if among else positive + others)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_losses_and_gradients_are_resims(dtype, tolerance):
    arrays = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN).items()}
    temperature = float(arrays["T"])
    q_raw = arrays["q_raw"].to(dtype).requires_grad_()
    queue = arrays["queue"].T.to(dtype)
    loss = info_nce(F.normalize(q_raw), F.normalize(arrays["k_raw"].to(dtype)), queue, temperature)
    assert_golden(loss, arrays["loss_inst_f64"], tolerance)
    maps = {}
    for level, suffix, stride in (("c4", "", 16), ("c3", "_c3", 8)):
        maps[level] = arrays[f"fq_{level}"].to(dtype).requires_grad_()
        key_map = arrays[f"fk_{level}"].to(dtype)
        query, key = (
            F.normalize(prroi_pool(features, boxes, 1 / stride).flatten(2), dim=2)
            for features, boxes in (
                (maps[level], arrays[f"anchors_q{suffix}"]),
                (key_map, arrays[f"anchors_k{suffix}"]),
            )
        )
        valid, negatives = arrays[f"labels{suffix}"] == 0, cell_negatives(key_map)
        assert len(negatives) == int(arrays[f"logits_{level}_shape"][1]) - 1
        if level == "c4":
            expected = arrays["logits_c4_f32"][:, 1:]
            assert_golden(query.flatten(0, 1) @ negatives.T / temperature, expected, 1e-5)
        else:
            expected = arrays["pos_c3_f64"][valid.flatten()]
            found = (query * key).sum(2)[valid] / temperature
            assert_golden(found, expected, tolerance)
        region = region_info_nce(query, key, valid, negatives, temperature)
        assert region.dtype == dtype
        assert_golden(region, arrays[f"loss_{level}_f64"], tolerance)
        loss = loss + region
    assert_golden(loss, arrays["loss_total_f64"], tolerance)
    loss.backward()
    assert_golden(q_raw.grad, arrays["grad_q_raw_f64"], tolerance)
    for level, features in maps.items():
        assert_golden(features.grad, arrays[f"grad_fq_{level}_f64"], tolerance)


@pytest.mark.parametrize("among", [False, True])
@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_region_info_nce_is_its_definition(among, temperature):
    query, key, valid, negatives = inputs()
    if among:  # all regions of the key views, the positive in them
        negatives = torch.cat([negatives, key[valid]])
    found = region_info_nce(query, key, valid, negatives, temperature, among)
    expected = by_loops(query, key, valid, negatives, temperature, among)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(loss, query)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_among_the_negatives_is_the_loss_without_that_negative():
    query, key, _, _ = inputs(b=1)
    one = torch.zeros(1, 6, dtype=torch.bool)
    one[0, 2] = True
    found = region_info_nce(query, key, one, key[0], 0.2, among=True)
    others = key[0, [0, 1, 3, 4, 5]]
    torch.testing.assert_close(found, region_info_nce(query, key, one, others, 0.2))


@pytest.mark.parametrize("among", [False, True])
def test_gradcheck(among):
    query, key, valid, negatives = inputs(b=2, r=3, d=3, m=7)
    valid[0, 1] = False
    key = key.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, k: region_info_nce(q, k, valid, negatives, 0.2, among), (query, key)
    )


@pytest.mark.parametrize("among", [False, True])
def test_without_a_valid_region_loss_and_gradients_are_zero(among):
    query, key, valid, negatives = inputs()
    key = key.clone().requires_grad_()
    loss = region_info_nce(query, key, torch.zeros_like(valid), negatives, 0.2, among)
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, (query, key)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_invalid_regions_do_not_matter():
    query, key, valid, negatives = inputs()
    loss = region_info_nce(query, key, valid, negatives, 0.2)
    other = torch.where(valid[..., None], query, query.roll(1, 2)).detach().requires_grad_()
    changed = region_info_nce(other, key, valid, negatives, 0.2)
    assert torch.equal(changed, loss)
    (gradient,) = torch.autograd.grad(changed, other)
    assert not gradient[~valid].any() and gradient[valid].any(1).all()


@pytest.mark.parametrize("some", [True, False])
def test_all_rows_masked_give_what_picked_rows_give(monkeypatch, some):
    # The way on CUDA, where nobody may wait for the number of valid regions.
    query, key, valid, negatives = inputs()
    valid = valid & some
    picked = region_info_nce(query, key, valid, negatives, 0.2)
    (expected,) = torch.autograd.grad(picked, query)
    monkeypatch.setattr("densessl.pretrain.losses.contrastive.counting", lambda counts, *rows: rows)
    loss = region_info_nce(query, key, valid, negatives, 0.2)
    torch.testing.assert_close(loss, picked, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, query)[0], expected, atol=1e-12, rtol=0)


def test_permutations_change_nothing():
    query, key, valid, negatives = inputs()
    loss = region_info_nce(query, key, valid, negatives, 0.2)
    order, images = torch.tensor([4, 0, 5, 1, 3, 2]), torch.tensor([2, 0, 1])
    moved = (x[images][:, order] for x in (query, key, valid))
    torch.testing.assert_close(region_info_nce(*moved, negatives.flip(0), 0.2), loss)


def test_it_is_float32_inside_autocast():
    query, key, valid, negatives = inputs(dtype=torch.float32)
    outside = region_info_nce(query, key, valid, negatives, 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        inside = region_info_nce(query, key, valid, negatives, 0.07)
    assert inside.dtype == torch.float32 and torch.equal(inside, outside)


# ---------------------------------------------------------------------------------- negatives


def test_cells_are_unit_vectors_of_averages_in_order():
    key_map = torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(0)).double()
    found = cell_negatives(key_map.requires_grad_())
    assert found.shape == (2 * 4 * 2, 5) and not found.requires_grad
    expected = [
        F.normalize(key_map[b, :, i : i + 3, j : j + 3].mean((1, 2)), dim=0)
        for b in range(2)
        for i in range(4)
        for j in range(2)
    ]
    torch.testing.assert_close(found, torch.stack(expected).detach())


def test_one_cell_is_the_position_itself():
    key_map = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = F.normalize(key_map, dim=1).permute(0, 2, 3, 1).reshape(-1, 5)
    torch.testing.assert_close(cell_negatives(key_map, 1), expected)
    last = key_map.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(cell_negatives(last, 2), cell_negatives(key_map, 2))


def test_a_zero_map_gives_zero_vectors():
    assert torch.equal(cell_negatives(torch.zeros(1, 4, 5, 5)), torch.zeros(9, 4))


def test_bad_inputs_are_named():
    query, key, valid, negatives = inputs()
    with pytest.raises(InputError, match="valid"):
        region_info_nce(query, key, valid[:, 1:], negatives, 0.2)
    with pytest.raises(InputError, match="key"):
        region_info_nce(query, key[1:], valid, negatives, 0.2)
    with pytest.raises(InputError, match="queue"):
        region_info_nce(query, key, valid, negatives.T, 0.2)
    for size in (0, 5):
        with pytest.raises(InputError, match=f"size is {size}"):
            cell_negatives(torch.zeros(1, 2, 4, 6), size)
