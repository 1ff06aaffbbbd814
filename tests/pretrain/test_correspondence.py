"""Correspondences: golden numbers of the official codes, and the invariants of the definitions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain.correspondence import (
    attention,
    cosine,
    geometric,
    geometric_from_coordinates,
    nearest,
    one_hot,
    salient,
    set_to_set,
    shared_points,
)
from densessl.pretrain.correspondence.geometry import coordinates

GOLDEN = Path(__file__).parents[1] / "golden"
GRIDS = ["g4x5", "g7x7", "g7x7neg"]


@dataclass
class Crop:
    """The geometry of a view, as pretrain.views.View has it."""

    box: torch.Tensor
    flip: torch.Tensor
    size: torch.Tensor


def golden(name, dtype=None):
    arrays = {
        k: torch.from_numpy(v) for k, v in np.load(GOLDEN / name).items() if v.dtype != "<U23"
    }
    if dtype is None:
        return arrays
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in arrays.items()}


def random_crops(count, seed, size=(500.0, 375.0)):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator) * torch.tensor([0.5, 0.5, 0.4, 0.4])
    low, extent = corners[:, :2], corners[:, 2:] + 0.1
    return (torch.cat((low, low + extent), dim=1) * torch.tensor([*size, *size])).round()


# ------------------------------------------------------------------------------------ attention


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_attention_and_sets_are_the_golden_ones(grid, dtype, tolerance):
    inputs = golden(f"setsim/{grid}_inputs.npz", dtype)
    paper, official = (
        golden(f"setsim/{grid}_paper_nn.npz"),
        golden(f"setsim/{grid}_official_att.npz"),
    )
    code = golden(f"setsim/{grid}_aprime_official.npz")
    threshold = float(inputs["attention_threshold"])
    for i, view in enumerate("qk"):
        z = inputs[f"z_{view}"]
        torch.testing.assert_close(
            attention(z), paper["A_prime"][i].to(dtype), atol=tolerance, rtol=0
        )
        assert torch.equal(salient(z, threshold), paper["omega"][i].bool())
        torch.testing.assert_close(  # the official code adds 1e-10 to the denominator
            attention(z, "square_mean"),
            code[f"aprime_{view}"].flatten(1).to(dtype),
            atol=max(tolerance, 1e-7),
            rtol=0,
        )
        assert torch.equal(salient(z, threshold, "square_mean"), official[f"att_{view}"].bool())


@pytest.mark.parametrize("statistic", ["abs_sum", "square_mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels, side", [(3, 4), (24, 7), (512, 14), (2048, 7)])
def test_a_constant_map_has_no_salient_position(statistic, dtype, channels, side):
    torch.manual_seed(0)
    features = torch.randn(2, channels, 1, 1, dtype=dtype).expand(2, channels, side, side)
    for z in (features, features.contiguous(), torch.zeros_like(features)):
        assert not attention(z, statistic).any()
        assert not salient(z, 1e-3, statistic).any()


def test_one_constant_map_leaves_the_other_images_alone():
    torch.manual_seed(0)
    z = torch.rand(3, 8, 5, 5)
    z[1] = 0.3
    found = salient(z)
    assert not found[1].any()
    assert torch.equal(found[[0, 2]], salient(z[[0, 2]]))


@pytest.mark.parametrize("statistic", ["abs_sum", "square_mean"])
def test_attention_spans_zero_to_one_and_ignores_scale(statistic):
    torch.manual_seed(0)
    z = torch.randn(4, 16, 6, 5)
    a = attention(z, statistic)
    assert a.shape == (4, 30)
    assert torch.equal(a.amin(1), torch.zeros(4)) and torch.equal(a.amax(1), torch.ones(4))
    assert torch.equal(attention(z * 1024, statistic), a)
    assert torch.equal(attention(z.flatten(2), statistic), a)
    assert torch.equal(attention(-z, statistic), a)


def test_the_squared_statistic_selects_fewer_positions():
    torch.manual_seed(0)
    z = torch.rand(16, 32, 7, 7) ** 3 * torch.rand(16, 1, 7, 7)
    assert salient(z, 0.5, "square_mean").sum() < salient(z, 0.5).sum()


def test_attention_is_float32_inside_autocast():
    torch.manual_seed(0)
    z = torch.rand(2, 64, 7, 7)
    outside = attention(z), cosine(z, z.flip(3)), nearest(z, z.flip(3))
    with torch.autocast("cpu", torch.bfloat16):
        inside = attention(z), cosine(z, z.flip(3)), nearest(z, z.flip(3))
        assert torch.mm(z[0, 0], z[0, 0]).dtype == torch.bfloat16  # autocast is on here
    for a, b in zip(outside, inside, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    assert attention(z.half() * 40000).isfinite().all()  # a sum that float16 cannot hold


def test_no_gradient_reaches_the_features():
    z = torch.rand(2, 8, 3, 3, requires_grad=True)
    for out in (attention(z), cosine(z, z)):
        assert not out.requires_grad


def test_bad_options_name_the_nearest_allowed():
    z = torch.rand(1, 2, 3, 3)
    with pytest.raises(InputError, match="abs_sum"):
        attention(z, "abs_sums")
    for threshold in (0, -1, 1.5):
        with pytest.raises(InputError, match="threshold"):
            salient(z, threshold)


def test_set_to_set_is_the_full_bipartite_graph():
    torch.manual_seed(0)
    query, key = torch.rand(3, 6) > 0.5, torch.rand(3, 4) > 0.5
    pairs = set_to_set(query, key)
    assert pairs.shape == (3, 6, 4) and pairs.dtype == torch.bool
    for b in range(3):
        for i in range(6):
            for j in range(4):
                assert pairs[b, i, j] == (query[b, i] and key[b, j])


# ----------------------------------------------------------------------------------- similarity


@pytest.mark.parametrize("grid", GRIDS)
def test_cosine_and_nearest_are_the_golden_ones(grid):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        inputs = golden(f"setsim/{grid}_inputs.npz", dtype)
        expected = golden(f"setsim/{grid}_paper_nn.npz")
        found = cosine(inputs["z_q"], inputs["z_k"])
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected["cos"], atol=tolerance, rtol=0)
        assert torch.equal(nearest(inputs["z_q"], inputs["z_k"]), expected["nn_index"])


@pytest.mark.parametrize("name", ["step_4x5", "step_7x7"])
def test_nearest_is_densecls_match(name):
    arrays = golden(f"densecl/{name}.npz")
    match = nearest(arrays["q_backbone"], arrays["k_backbone"])
    assert torch.equal(match, arrays["match_index_f64"])


@pytest.mark.parametrize("channels", [3, 24, 100, 512, 2048])
@pytest.mark.parametrize("positions", [4, 20, 49, 196])
def test_ties_go_to_the_lowest_index(channels, positions):
    torch.manual_seed(channels + positions)
    query = torch.rand(2, channels, positions)
    key = torch.rand(2, channels, 1).expand(2, channels, positions).contiguous()
    assert not nearest(query, key).any()  # all key positions are the same
    key = torch.rand(2, channels, positions)
    key[:, :, positions // 2 :] = key[:, :, : positions - positions // 2]
    assert (nearest(query, key) < positions // 2 + positions % 2).all()  # the later copy never
    assert not nearest(torch.zeros_like(query), key).any()


def test_nearest_tells_apart_what_float32_cannot():
    torch.manual_seed(0)
    query = torch.rand(3, 512, 10)
    key = query + 0.05 * torch.rand(3, 512, 10)
    near = key.clone()
    near[1, :, 4] = key[1, :, 3] * (1 + 1e-7 * torch.rand(512))  # almost the same direction
    exact = torch.einsum(
        "bcn,bcm->bnm", query.double(), torch.nn.functional.normalize(near.double(), dim=1)
    )
    assert torch.equal(nearest(query, near), exact.argmax(2))
    assert torch.equal(nearest(query.double(), near.double()), exact.argmax(2))


def test_a_view_is_nearest_to_itself_and_follows_a_permutation():
    torch.manual_seed(0)
    z = torch.rand(3, 32, 25)
    order = torch.randperm(25)
    assert torch.equal(nearest(z, z), torch.arange(25).expand(3, 25))
    assert torch.equal(nearest(z, z[:, :, order]), order.argsort().expand(3, 25))
    assert torch.equal(cosine(z, z[:, :, order]), cosine(z, z)[:, :, order])
    torch.testing.assert_close(cosine(z, z).diagonal(dim1=1, dim2=2), torch.ones(3, 25))


def test_nearest_takes_a_cosine_that_is_known():
    torch.manual_seed(0)
    query, key = torch.rand(2, 3, 16, 20)
    key[:, :, 10:] = key[:, :, :10]  # ties, which the features decide
    assert torch.equal(nearest(query, key, cosine(query, key)), nearest(query, key))
    opposite = -cosine(query, key + torch.rand(16, 20))
    assert not torch.equal(nearest(query, key, opposite), nearest(query, key))


def test_one_hot_is_one_per_query_at_the_match():
    match = torch.tensor([[2, 0], [1, 1]])
    pairs = one_hot(match, 3)
    assert pairs.shape == (2, 2, 3) and pairs.dtype == torch.bool
    assert torch.equal(pairs.sum(2), torch.ones(2, 2, dtype=torch.long))
    assert torch.equal(pairs.int().argmax(2), match)


# ------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("name, grid", [("4x5", (4, 5)), ("7x7", (7, 7))])
@pytest.mark.parametrize("ratio", [0.5, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_geometric_pairs_are_pixpros(name, grid, ratio, dtype):
    arrays = golden(f"pixpro/match_and_loss_{name}.npz", dtype)
    pairs = geometric_from_coordinates(arrays["coord_q"], arrays["coord_k"], grid, ratio)
    suffix = f"r{ratio}".replace(".", "p")
    assert pairs.any() and pairs.dtype == torch.bool
    assert torch.equal(pairs, arrays[f"pos_mask_{suffix}_f64"].bool())


def test_the_pixpro_frame_is_the_official_one():
    arrays = golden("pixpro/crop_coords.npz")
    top, left, height, width, image_height, image_width = arrays["crop_top_left_h_w_imgH_imgW"].T
    box = torch.stack((left, top, left + width, top + height), dim=1).float()
    size = torch.stack((image_width, image_height), dim=1).float()
    for flip, expected in ((False, "coord_noflip"), (True, "coord_hflip")):
        view = Crop(box, torch.full((len(box),), flip), size)
        torch.testing.assert_close(
            coordinates(view, "pixpro"), arrays[expected], atol=1e-7, rtol=1e-6
        )


def test_frames_agree_where_the_image_is_square():
    # On a square image the pixpro frame is the pixel frame, scaled, but for its inclusive last
    # pixel; on crops of many pixels that hardly moves a centre.
    size = torch.full((200, 2), 4000.0)
    crops = [random_crops(200, seed, size=(4000.0, 4000.0)) for seed in (0, 1)]
    query, key = (Crop(box, torch.rand(200) < 0.5, size) for box in crops)
    pixels = geometric(query, key, (7, 7))
    pixpro = geometric(query, key, (7, 7), frame="pixpro")
    assert pixels.sum() > 1000
    assert (pixels ^ pixpro).sum() < 0.01 * pixels.sum()


def test_geometry_from_views_matches_a_loop():
    torch.manual_seed(0)
    boxes = random_crops(6, 0), random_crops(6, 1)
    flips = torch.tensor([0, 1, 0, 1, 0, 1]).bool(), torch.tensor([0, 0, 1, 1, 0, 1]).bool()
    size = torch.tensor([[500.0, 375.0]]).expand(6, 2)
    h, w = 3, 4
    pairs = geometric(Crop(boxes[0], flips[0], size), Crop(boxes[1], flips[1], size), (h, w), 0.9)

    def centre(box, flip, position):
        x1, y1, x2, y2 = box.tolist()
        column = position % w
        column = w - 1 - column if flip else column  # a flipped view shows its columns mirrored
        return np.array(
            [x1 + (column + 0.5) * (x2 - x1) / w, y1 + (position // w + 0.5) * (y2 - y1) / h]
        )

    def diagonal(box):
        x1, y1, x2, y2 = box.tolist()
        return np.hypot((x2 - x1) / w, (y2 - y1) / h)

    for b in range(6):
        largest = max(diagonal(boxes[0][b]), diagonal(boxes[1][b]))
        for i in range(h * w):
            for j in range(h * w):
                gap = centre(boxes[0][b], flips[0][b], i) - centre(boxes[1][b], flips[1][b], j)
                assert pairs[b, i, j] == (np.linalg.norm(gap) / largest < 0.9)
    assert pairs.any()


def test_identical_crops_pair_every_cell_with_itself_alone():
    aspect = torch.linspace(3 / 4, 4 / 3, 8)  # of random resized crops; longer cells reach less far
    corner = random_crops(8, 0)[:, :2]
    crop = torch.cat((corner, corner + torch.stack((90 * aspect, torch.full((8,), 90.0)), 1)), 1)
    identity = torch.eye(49, dtype=torch.bool).expand(8, 49, 49)
    assert torch.equal(geometric_from_coordinates(crop, crop, (7, 7), 0.5), identity)
    square = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    at = {t: geometric_from_coordinates(square, square, (7, 7), t).sum(2) for t in (0.7, 0.71)}
    assert (at[0.7] == 1).all()  # neighbours of square cells are at 0.7071 diagonals
    assert at[0.71].min() == 3 and at[0.71].max() == 5


def test_geometry_is_symmetric_and_flips_permute_it():
    query, key = random_crops(32, 0), random_crops(32, 1)
    pairs = geometric_from_coordinates(query, key, (5, 7))
    assert pairs.any()
    assert torch.equal(pairs, geometric_from_coordinates(key, query, (5, 7)).transpose(1, 2))
    flipped = geometric_from_coordinates(query[:, [2, 1, 0, 3]], key, (5, 7))
    assert torch.equal(flipped.view(32, 5, 7, 35).flip(2).flatten(1, 2), pairs)
    both = geometric_from_coordinates(query[:, [2, 1, 0, 3]], key[:, [2, 1, 0, 3]], (5, 7))
    assert torch.equal(both.view(32, 5, 7, 5, 7).flip(2, 4).reshape(32, 35, 35), pairs)


def test_disjoint_and_degenerate_crops_have_no_pairs():
    left, right = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[90.0, 90.0, 99.0, 99.0]])
    assert not geometric_from_coordinates(left, right, (7, 7)).any()
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert not geometric_from_coordinates(point, point, (7, 7)).any()
    # a source image one pixel wide divides by zero in the official frame
    thin = Crop(
        torch.tensor([[0.0, 0.0, 1.0, 9.0]]), torch.tensor([False]), torch.tensor([[1.0, 9.0]])
    )
    assert coordinates(thin, "pixpro").isfinite().all()


def test_geometry_refuses_what_it_does_not_know():
    crop = Crop(random_crops(1, 0), torch.tensor([False]), torch.tensor([[500.0, 375.0]]))
    with pytest.raises(InputError, match="pixpro"):
        geometric(crop, crop, (7, 7), frame="pixpros")
    with pytest.raises(InputError, match="positive"):
        geometric(crop, crop, (7, 7), threshold=0)
    with pytest.raises(InputError, match="positive"):
        geometric(crop, crop, (0, 7))


# --------------------------------------------------------------------------------------- points


def random_views(count):
    flips = torch.rand(2, count, generator=torch.Generator().manual_seed(2)) < 0.5
    size = torch.tensor([[500.0, 375.0]]).expand(count, 2)
    return [Crop(random_crops(count, seed), flips[seed], size) for seed in (0, 1)]


def test_shared_points_are_the_same_place_of_the_image_in_both_views():
    uniform = torch.rand(64, 10, 2, generator=torch.Generator().manual_seed(3))
    query, key = random_views(64)
    *points, valid = shared_points(query, key, uniform)
    places = []
    for view, found in zip((query, key), points, strict=True):
        assert found.shape == (64, 10, 2) and found[valid].abs().max() <= 1
        x = torch.where(view.flip[:, None], -found[..., 0], found[..., 0])
        share = (torch.stack((x, found[..., 1]), 2) + 1) / 2
        low, high = view.box[:, None, :2], view.box[:, None, 2:]
        places.append(low + share * (high - low))
    assert 20 < valid.sum() < 64
    torch.testing.assert_close(places[0][valid], places[1][valid], atol=1e-3, rtol=0)
    low = torch.maximum(query.box[:, :2], key.box[:, :2])[:, None]
    high = torch.minimum(query.box[:, 2:], key.box[:, 2:])[:, None]
    assert torch.equal(valid, (high > low).all(2)[:, 0])
    expected = low + uniform * (high - low)
    torch.testing.assert_close(places[0][valid], expected[valid], atol=1e-3, rtol=0)


def test_without_a_common_area_points_are_spread_over_each_view():
    uniform = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(0))
    size = torch.tensor([[100.0, 100.0]])
    left = Crop(torch.tensor([[0.0, 0.0, 50.0, 50.0]]), torch.tensor([False]), size)
    right = Crop(torch.tensor([[50.0, 0.0, 99.0, 50.0]]), torch.tensor([True]), size)
    query, key, valid = shared_points(left, right, uniform)
    assert not valid
    for points in (query, key):
        assert points.min() < -0.95 and points.max() > 0.95 and points.abs().max() <= 1


# ---------------------------------------------------------------------------------- composition


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("with_nearest", [True, False])
def test_the_papers_positive_sets_compose(grid, with_nearest):
    inputs = golden(f"setsim/{grid}_inputs.npz")
    expected = golden(f"setsim/{grid}_paper_{'nn' if with_nearest else 'nonn'}.npz")
    z_q, z_k = inputs["z_q"], inputs["z_k"]
    threshold = float(inputs["attention_threshold"])
    omega_q, omega_k = salient(z_q, threshold), salient(z_k, threshold)
    pairs = set_to_set(omega_q, omega_k)
    if with_nearest:
        pairs |= one_hot(nearest(z_q, z_k), pairs.shape[2]) & omega_q[:, :, None]
    assert torch.equal(pairs, expected["positive_set"].bool())


@pytest.mark.parametrize(
    "grid, variant",
    [
        *[(grid, variant) for grid in GRIDS for variant in ("att", "att_nn")],
        *[("g7x7", variant) for variant in ("geo", "geo_nn", "attgeo", "attgeo_nn")],
        ("g7x7neg", "attgeo_nn"),
    ],
)
def test_the_released_codes_positive_sets_compose(grid, variant):
    inputs = golden(f"setsim/{grid}_inputs.npz")
    expected = golden(f"setsim/{grid}_official_{variant}.npz")
    z_q, z_k, h_w = inputs["z_q"], inputs["z_k"], inputs["z_q"].shape[2:]
    pairs = torch.zeros_like(expected["mask_final"], dtype=torch.bool)
    if "att" in variant:
        threshold = float(inputs["attention_threshold"])
        sets = (salient(z, threshold, "square_mean") for z in (z_q, z_k))
        pairs = set_to_set(*sets) & (cosine(z_q, z_k) >= float(inputs["neg"]))
    if "geo" in variant:
        pairs |= geometric_from_coordinates(
            inputs["coord_q"], inputs["coord_k"], h_w, float(inputs["geo_threshold"])
        )
    if variant.endswith("nn"):
        pairs |= one_hot(nearest(z_q, z_k), pairs.shape[2]) & pairs.any(2, keepdim=True)
    assert torch.equal(pairs, expected["mask_final"].bool())
