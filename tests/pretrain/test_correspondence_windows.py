"""Windows of two views: the official ones, the geometry of any crops and flips, and the edges."""

from pathlib import Path

import numpy as np
import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain.correspondence import windows
from densessl.pretrain.views import View

GOLDEN = Path(__file__).parents[1] / "golden"
SETTINGS = {"c4": (48, 32), "c3": (32, 24)}


def view(box, flip=False, side=224, dtype=torch.float64):
    """Views of a source of 500 x 400 pixels; their images are never read."""
    box = torch.as_tensor(box, dtype=dtype)
    height, width = (side, side) if isinstance(side, int) else side
    flip = torch.as_tensor(flip).expand(len(box))
    size = torch.tensor([[500, 400]]).expand(len(box), 2)
    return View(torch.zeros(1).expand(len(box), 3, height, width), box, flip, size)


def random_boxes(count, seed):
    """Whole-pixel crops as of a random resized crop: 25 to 100 percent of either side."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, 4, generator=generator)
    extent = (share[:, 2:] * 0.75 + 0.25) * torch.tensor([500.0, 400.0])
    corner = share[:, :2] * (torch.tensor([500.0, 400.0]) - extent)
    return torch.cat((corner, corner + extent), dim=1).round().double()


def random_views(count, seed, side=224):
    flip = torch.rand(count, generator=torch.Generator().manual_seed(seed + 99)) < 0.5
    return view(random_boxes(count, seed), flip, side)


def in_source(of, boxes):
    """Boxes ``[B, R, 4]`` of a view, in pixels of the source."""
    low, extent = of.box[:, None, :2], of.box[:, None, 2:] - of.box[:, None, :2]
    side = torch.tensor([of.image.shape[3], of.image.shape[2]], dtype=torch.float64)
    first, last = boxes[..., :2] / side, boxes[..., 2:] / side
    mirrored = of.flip[:, None, None] & torch.tensor([True, False])
    first, last = torch.where(mirrored, 1 - last, first), torch.where(mirrored, 1 - first, last)
    return torch.cat((low + extent * first, low + extent * last), dim=2)


# ----------------------------------------------------------------------------------- official code


@pytest.mark.parametrize("level", SETTINGS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("flip", [False, True])
def test_windows_are_the_official_ones(level, dtype, tolerance, flip):
    """The official code flips both views before the crop: the flip drops out of the mapping.

    Flipped after the crop, as here, the same crops of the mirrored image have mirrored boxes.
    """
    arrays = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / "resim/windows.npz").items()}
    views = []
    for letter in "qk":
        top, left, height, width = arrays[f"crops_{letter}_top_left_h_w"].unbind(1)
        right = left + width
        left, right = (500 - right, 500 - left) if flip else (left, right)
        box = torch.stack((left, top, right, top + height), dim=1)
        views.append(view(box, flip, dtype=dtype))
    query_boxes, key_boxes, valid = windows(*views, *SETTINGS[level])
    assert torch.equal(valid, arrays[f"{level}_label"] == 0)
    assert query_boxes.dtype == key_boxes.dtype == dtype
    close = {"atol": tolerance, "rtol": 1e-12 if dtype == torch.float64 else 1e-6}
    torch.testing.assert_close(query_boxes.double(), arrays[f"{level}_q"], **close)
    torch.testing.assert_close(key_boxes.double(), arrays[f"{level}_k"], **close)


@pytest.mark.parametrize(
    "size, stride, count, inclusive_count",
    [(48, 32, 36, 36), (32, 24, 64, 81), (16, 16, 169, 196), (48, 16, 121, 144), (64, 48, 16, 16)],
)
def test_counts_of_the_papers_settings(size, stride, count, inclusive_count):
    one = view([[0, 0, 400, 400]])
    for placement in ("grid", "overlap"):
        for inclusive, expected in ((False, count), (True, inclusive_count)):
            boxes, _, valid = windows(one, one, size, stride, inclusive, placement)
            assert boxes.shape == (1, expected, 4) and valid.all()
            assert torch.equal(boxes[0, :, 2:] - boxes[0, :, :2], torch.full((expected, 2), size))
            assert boxes[0, 1].tolist() == [stride, 0, stride + size, size]  # columns are inner
            assert boxes.max() < 224 or inclusive


# ---------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("placement", ["grid", "overlap"])
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("sides", [(224, 224), ((96, 128), (160, 64))])
def test_both_boxes_show_the_same_place(placement, inclusive, sides):
    query, key = random_views(300, 0, sides[0]), random_views(300, 1, sides[1])
    query_boxes, key_boxes, valid = windows(query, key, 32, 16, inclusive, placement)
    assert 0 < valid.sum() < valid.numel()
    assert {(bool(a), bool(b)) for a, b in zip(query.flip, key.flip, strict=True)} == {
        (a, b) for a in (True, False) for b in (True, False)
    }
    same = in_source(query, query_boxes) - in_source(key, key_boxes)
    assert same[valid].abs().max() < (1e-2 if inclusive else 1e-9)
    for of, boxes in ((query, query_boxes), (key, key_boxes)):
        height, width = of.image.shape[2:]
        assert (boxes[..., 2:] > boxes[..., :2]).all() and boxes.min() > -2e-3
        assert (boxes[valid][:, 2:] <= torch.tensor([width, height]) + 2e-3).all()
    nowhere = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    assert (key_boxes[~valid] == nowhere).all()
    if placement == "overlap":
        assert (query_boxes[~valid] == nowhere).all()


def test_grid_windows_are_valid_exactly_when_the_key_view_shows_them():
    query, key = random_views(300, 2), random_views(300, 3)
    query_boxes, _, valid = windows(query, key, 48, 32)
    place = in_source(query, query_boxes)
    shown = (place[..., :2] > key.box[:, None, :2] + 1e-9).all(2)
    shown &= (place[..., 2:] < key.box[:, None, 2:] - 1e-9).all(2)
    touching = (place[..., :2] > key.box[:, None, :2] - 1e-9).all(2)
    touching &= (place[..., 2:] < key.box[:, None, 2:] + 1e-9).all(2)
    assert (shown <= valid).all() and (valid <= touching).all()


@pytest.mark.parametrize("inclusive", [False, True])
def test_overlap_windows_fill_what_both_views_show(inclusive):
    query, key = random_views(300, 4), random_views(300, 5)
    query_boxes, _, valid = windows(query, key, 48, 32, inclusive, "overlap")
    low = torch.maximum(query.box[:, :2], key.box[:, :2])
    high = torch.minimum(query.box[:, 2:], key.box[:, 2:])
    shown = (high - low).clamp_min(0) * 224 / (query.box[:, 2:] - query.box[:, :2])
    room = shown - 48 + (1e-3 if inclusive else 0)
    per_axis = torch.where(room >= 0, (room / 32).floor() + 1, 0)
    clear = ((room / 32 - (room / 32).round()).abs() > 1e-6).all(1)  # of ending on the very edge
    assert clear.sum() > 250
    assert torch.equal(valid.sum(1)[clear], per_axis.prod(1).long()[clear])
    some = valid.any(1)
    assert some.any() and not some.all()
    first = in_source(query, query_boxes)[some, 0]  # begins at a corner of the common area
    corner = torch.where(
        query.flip[some], (first[:, 2] - high[some, 0]).abs(), (first[:, 0] - low[some, 0]).abs()
    )
    assert corner.max() < 1e-9 and (first[:, 1] - low[some, 1]).abs().max() < 1e-9


@pytest.mark.parametrize("placement", ["grid", "overlap"])
def test_mirroring_the_source_changes_nothing(placement):
    """Mirrored boxes with toggled flips are the same views of the mirrored image."""
    query, key = random_views(200, 6), random_views(200, 7)
    found = windows(query, key, 48, 32, placement=placement)
    mirrored = [
        view(
            torch.stack((500 - v.box[:, 2], v.box[:, 1], 500 - v.box[:, 0], v.box[:, 3]), 1),
            ~v.flip,
        )
        for v in (query, key)
    ]
    again = windows(*mirrored, 48, 32, placement=placement)
    assert torch.equal(found[2], again[2])
    for one, other in zip(found[:2], again[:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


def test_an_image_does_not_depend_on_the_others():
    query, key = random_views(50, 8), random_views(50, 9)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    pick = [View(*(t[order] for t in (v.image, v.box, v.flip, v.size))) for v in (query, key)]
    for one, other in zip(windows(query, key, 32, 24), windows(*pick, 32, 24), strict=True):
        assert torch.equal(one[order], other)


@pytest.mark.parametrize("flips", [(False, False), (True, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_view_has_all_windows_of_itself(flips, dtype):
    boxes = random_boxes(200, 10)
    query, key = (view(boxes, flip, dtype=dtype) for flip in flips)
    for inclusive in (False, True):
        query_boxes, key_boxes, valid = windows(query, key, 48, 16, inclusive)
        assert valid.all()
        torch.testing.assert_close(query_boxes, key_boxes, atol=1e-3, rtol=0)


def test_a_view_and_its_mirror_image_share_windows_mirrored():
    query, key = view([[10, 20, 300, 310]]), view([[10, 20, 300, 310]], True)
    query_boxes, key_boxes, valid = windows(query, key, 48, 32)
    # A window that begins on the left edge of one view ends on the right edge of the other.
    assert torch.equal(valid, query_boxes[..., 0] > 0)
    expected = query_boxes[:, :, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1])
    expected = expected + torch.tensor([224, 0, 224, 0])
    torch.testing.assert_close(key_boxes[valid], expected[valid], atol=1e-9, rtol=0)
    assert windows(query, key, 48, 32, inclusive=True)[2].all()


# ------------------------------------------------------------------------------------------- edges


def test_the_right_edge_is_strict_and_the_left_is_not():
    query = view([[0, 0, 224, 224]])
    # The last of the query's windows (176 to 224) is left out; one that ends at 208 is there.
    for right, expected in ((208.0, 5), (208.1, 6)):  # the key view ends at the window's end
        for placement in ("grid", "overlap"):
            key = view([[0, 0, right, 224]])
            valid = windows(query, key, 48, 32, placement=placement)[2].view(6, 6)
            assert torch.equal(valid[0], torch.arange(6) < expected)
    inclusive = windows(query, view([[0, 0, 208, 224]]), 48, 32, inclusive=True)
    assert inclusive[2].all()
    left = windows(query, view([[32, 32, 224, 224]]), 48, 32)[2].view(6, 6)
    assert not left[0].any() and not left[:, 0].any() and left[1:, 1:].all()


def test_disjoint_and_degenerate_views_share_no_window():
    query = view([[0, 0, 100, 100], [0, 0, 100, 100], [5, 5, 5, 9], [0, 0, 300, 300]])
    key = view([[200, 200, 300, 300], [100, 0, 200, 100], [5, 5, 5, 9], [7, 7, 8, 8]])
    for placement in ("grid", "overlap"):
        for inclusive in (False, True):
            boxes = windows(query, key, 48, 32, inclusive, placement)
            assert not boxes[2].any()
            assert boxes[0].isfinite().all() and boxes[1].isfinite().all()


def test_windows_need_not_be_square_or_start_at_a_multiple():
    boxes, _, valid = windows(
        view([[0, 0, 400, 300]], side=(96, 160)), view([[0, 0, 400, 300]]), 48, 32
    )
    assert boxes.shape == (1, 2 * 4, 4) and valid.all()  # rows 0, 32 - columns 0, 32, 64, 96
    assert boxes[0, -1].tolist() == [96, 32, 144, 80]


def test_bad_values_are_refused():
    one = view([[0, 0, 100, 100]], side=48)
    with pytest.raises(InputError, match="at most 47 in a view of 48 pixels"):
        windows(one, one, 48, 32)
    assert windows(one, one, 48, 32, inclusive=True)[2].tolist() == [[True]]
    for size, stride in ((0, 8), (16, 0), (16, -8)):
        with pytest.raises(InputError, match="must be positive"):
            windows(one, one, size, stride)
    with pytest.raises(InputError, match="Did you mean 'overlap'"):
        windows(one, one, 16, 16, placement="overlaps")
