"""Hough voting: golden numbers of HoughCL's formula and of hyperpixel flow's code, and loops."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.core.errors import InputError
from densessl.pretrain.correspondence import best, cosine, hough_confidence, mirrored, nearest, vote

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ["grid4x5", "grid7x7_noisy", "grid7x7_shift"]


def golden(name):
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / name).items()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("passes, prefix", [(2, "poster"), (1, "single")])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_confidence_and_match_are_the_golden_ones(name, passes, prefix, dtype, tolerance):
    arrays = golden(f"houghcl/{name}.npz")
    query, key = (arrays[f"h_{view}"][None].to(dtype) for view in "qk")
    confidence = hough_confidence(query, key, query.shape[2:], passes=passes)
    expected = arrays[f"{prefix}__confidence"]
    assert confidence.dtype == dtype
    torch.testing.assert_close(confidence[0].double(), expected, atol=tolerance, rtol=tolerance)
    match = best(confidence, cosine(query, key))[0]
    assert torch.equal(match, arrays[f"{prefix}__match"])
    flat = hough_confidence(query.flatten(2), key.flatten(2), query.shape[2:], passes=passes)
    assert torch.equal(flat, confidence)


@pytest.mark.parametrize("name", CASES)
def test_votes_per_offset_are_the_golden_ones(name):
    arrays = golden(f"houghcl/{name}.npz")
    rows, columns = arrays["hough_raw"].shape
    offsets = arrays["offsets_yx"] + torch.tensor([rows // 2, columns // 2])
    votes = vote(arrays["p_a"][None], offsets[..., 0] * columns + offsets[..., 1], rows * columns)
    torch.testing.assert_close(votes.view(rows, columns), arrays["hough_raw"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("grid", [(2, 3), (3, 1)])
@pytest.mark.parametrize("exponent, sigma", [(3, 1.0), (2.5, 0.6)])
def test_confidence_is_the_literal_sum(grid, exponent, sigma):
    torch.manual_seed(0)
    h, w = grid
    query, key = torch.randn(2, 2, 5, h, w, dtype=torch.float64)
    cos = cosine(query, key).clamp_min(0) ** exponent
    cells = list(itertools.product(range(h), range(w)))
    matches = list(itertools.product(range(h * w), range(h * w)))
    bins = list(itertools.product(range(1 - h, h), range(1 - w, w)))

    def offset(m):
        (y_q, x_q), (y_k, x_k) = cells[m[0]], cells[m[1]]
        return y_k - y_q, x_k - x_q

    def geometry(m, x):  # p(m_g | x)
        return math.exp(-(math.dist(offset(m), x) ** 2) / (2 * sigma**2))

    twice = hough_confidence(query, key, grid, exponent, sigma)
    once = hough_confidence(query, key, grid, exponent, sigma, passes=1)
    for b in range(2):
        for m in matches:
            own = float(cos[b][m])
            poster = sum(
                geometry(m, x) * sum(float(cos[b][n]) * geometry(n, x) for n in matches)
                for x in bins
            )
            single = sum(float(cos[b][n]) * geometry(n, offset(m)) for n in matches)
            assert float(twice[b][m]) == pytest.approx(own * poster, abs=1e-12)
            assert float(once[b][m]) == pytest.approx(own * single, abs=1e-12)


@pytest.mark.parametrize("name", ["rhm_default8192", "rhm_ncells256"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_pixel_bins_give_hyperpixel_flows_confidence(name, dtype, tolerance):
    """Bins of hyperpixel flow's code: pixels of receptive fields, a 7x7 kernel over the bins.

    The float64 numbers hold the official kernel, which is float32 in both.
    """
    arrays = golden(f"hpf/{name}.npz")
    source, target = ((box[:, :2] + box[:, 2:]) / 2 for box in _boxes(arrays))
    offset = (arrays["src_imsize_wh"] - source)[:, None] + target[None]  # [N, N, 2] as x, y
    x, y = (offset / arrays["hs_cellsize"]).long().unbind(2)
    columns, rows = int(arrays["nbins_x"]), int(arrays["nbins_y"])
    bins = y * columns + x
    assert torch.equal(bins, arrays["bin_ids"])

    features = (arrays[f"{view}_feat"][None].to(dtype) for view in ("src", "trg"))
    votes = cosine(*features).clamp_min(0) ** 3
    space = vote(votes, bins, rows * columns).view(1, 1, rows, columns)
    smooth = F.conv2d(space, arrays["gaussian7"].to(dtype)[None, None], padding=3)
    confidence = votes * smooth.flatten()[bins]
    expected = arrays["confidence_f64" if dtype == torch.float64 else "confidence_f32"]
    torch.testing.assert_close(confidence[0], expected.to(dtype), atol=tolerance, rtol=tolerance)
    assert torch.equal(best(confidence)[0], arrays["argmax_f32"])


def _boxes(arrays):
    return arrays["src_boxes"].double(), arrays["trg_boxes"].double()


def test_voting_finds_the_common_shift_where_neighbours_do_not():
    """Noisy features of a map and of the same map, moved: the true offset wins by its votes."""
    torch.manual_seed(0)
    base = torch.randn(16, 24, 9, 9)
    query, key = base[..., 1:8, 2:9], base[..., 2:9, 1:8]  # key cell = query cell + (-1, +1)
    key = key + 1.2 * torch.randn(key.shape)
    y, x = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    shown = ((y > 0) & (x < 6)).flatten()
    truth = ((y - 1) * 7 + x + 1).flatten()

    def right(match):
        return (match == truth)[:, shown].float().mean()

    by_vote = right(best(hough_confidence(query, key, (7, 7)), cosine(query, key)))
    assert by_vote > 0.9
    assert by_vote > right(nearest(query, key)) + 0.05


def test_confidence_is_not_negative_and_zero_only_without_similarity():
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 6, 3, 4)
    confidence = hough_confidence(query, key, (3, 4))
    assert confidence.shape == (4, 12, 12)
    assert torch.equal(confidence > 0, cosine(query, key) > 0)
    assert not hough_confidence(torch.zeros_like(query), key, (3, 4)).any()


def test_confidence_is_float32_inside_autocast():
    torch.manual_seed(0)
    query, key = torch.rand(2, 2, 16, 5, 5)
    outside = hough_confidence(query, key, (5, 5))
    with torch.autocast("cpu", torch.bfloat16):
        inside = hough_confidence(query, key, (5, 5))
    assert inside.dtype == torch.float32 and torch.equal(inside, outside)
    assert hough_confidence(query.bfloat16(), key.bfloat16(), (5, 5)).dtype == torch.float32


@pytest.mark.parametrize("most", [1, 3, 40])
def test_votes_are_sums_over_bins(most):
    generator = torch.Generator().manual_seed(most)
    matches = torch.rand(3, 8, 5, generator=generator, dtype=torch.float64)
    bins = torch.randint(0, most, (8, 5), generator=generator)
    votes = vote(matches, bins, 50)  # most bins stay empty
    expected = torch.stack([(matches * (bins == n)).sum((1, 2)) for n in range(50)], dim=1)
    torch.testing.assert_close(votes, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(votes.sum(1), matches.sum((1, 2)))


def test_best_takes_the_first_of_equal_values_and_falls_back_where_all_is_zero():
    confidence = torch.tensor([[[0.0, 2.0, 2.0], [0.0, 0.0, 0.0], [3.0, 1.0, 3.0]]])
    fallback = torch.tensor([[[9.0, 0.0, 0.0], [-3.0, -1.0, -1.0], [0.0, 9.0, 0.0]]])
    assert best(confidence, fallback).tolist() == [[1, 1, 0]]
    assert best(confidence).tolist() == [[1, 0, 0]]
    assert best(confidence).dtype == torch.long


def test_opposite_features_fall_back_to_the_nearest():
    torch.manual_seed(0)
    query, key = torch.rand(2, 8, 3, 3), -torch.rand(2, 8, 3, 3)  # every cosine is negative
    confidence = hough_confidence(query, key, (3, 3))
    assert not confidence.any()
    assert torch.equal(best(confidence, cosine(query, key)), nearest(query, key))


def test_mirroring_undoes_a_flip_of_its_own_images_only():
    torch.manual_seed(0)
    features = torch.rand(3, 2, 4, 5)
    flip = torch.tensor([True, False, True])
    flipped = mirrored(features, flip)
    assert torch.equal(flipped[1], features[1])
    assert torch.equal(flipped[0], features[0].flip(2))
    assert torch.equal(mirrored(flipped, flip), features)


def test_bad_values_are_refused():
    z = torch.rand(1, 2, 3, 4)
    with pytest.raises(InputError, match="passes is 3"):
        hough_confidence(z, z, (3, 4), passes=3)
    with pytest.raises(InputError, match=r"grid \(4, 4\)"):
        hough_confidence(z, z, (4, 4))
    for values in ({"exponent": 0}, {"sigma": 0.0}):
        with pytest.raises(InputError, match="positive"):
            hough_confidence(z, z, (3, 4), **values)
