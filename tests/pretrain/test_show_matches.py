"""What the pictures show: on views and features whose matches are known."""

import pytest
import torch

from densessl.pretrain import config
from densessl.pretrain.correspondence import Pair, hough_confidence
from densessl.pretrain.show import matches
from densessl.pretrain.show.matches import Match
from densessl.pretrain.views import View

SIDE, GRID = 70, (5, 7)
N = GRID[0] * GRID[1]
DIAGONAL = list(range(N))
MIRRORED = [row * 7 + 6 - column for row in range(5) for column in range(7)]


def view(box=(10, 20, 150, 120), flip=False):
    return View(
        torch.zeros(1, 3, SIDE, SIDE),
        torch.tensor([box], dtype=torch.float32),
        torch.tensor([flip]),
        torch.tensor([[200.0, 150.0]]),
    )


def pair(flip=False):
    """Two views of the same crop with the same features, one of them mirrored or not."""
    z = torch.rand(1, 64, *GRID, generator=torch.Generator().manual_seed(0))
    return Pair(z, z.flip(3) if flip else z, view(), view(flip=flip))


def options(name, **values):
    cfg = config.defaults()[name]
    for key, value in values.items():
        cfg[key] = value
    return cfg


def keys(found):
    """The matched key position of every query position, in the order of these."""
    return [match.key for match in sorted(found)]


@pytest.mark.parametrize(("flip", "expected"), [(False, DIAGONAL), (True, MIRRORED)])
def test_equal_views_match_along_the_diagonal_and_mirrored_ones_across(flip, expected):
    both = pair(flip)
    found = matches.neighbours(both)
    assert [match.query for match in found] == DIAGONAL and keys(found) == expected
    assert [match.weight for match in found] == pytest.approx([1.0] * N)
    same = matches.geometry(both, 0.5, "pixels")
    assert same.nonzero().tolist() == [[i, key] for i, key in enumerate(expected)]
    voted = matches.hough(both, options("HOUGH", UNFLIP=True))
    assert keys(voted.matches) == expected
    assert matches.hits(found, GRID).tolist() == [[1] * 7] * 5


def test_neighbours_of_some_positions_only():
    assert matches.neighbours(pair(), [3, 11]) == [
        Match(3, 3, pytest.approx(1.0)),
        Match(11, 11, pytest.approx(1.0)),
    ]


def test_hits_count_how_often_a_position_is_matched():
    found = [Match(0, 4, 1.0), Match(1, 4, 0.5), Match(2, 0, 0.1)]
    assert matches.hits(found, (2, 3)).tolist() == [[1, 0, 0], [0, 2, 0]]


# ------------------------------------------------------------------------------------------ SetSim


def test_sets_are_the_positions_of_much_attention():
    query, key = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3)
    query[0, 0] = torch.tensor([[0.0, 10.0, 6.9], [7.0, 1.0, 2.0]])  # of |z|, so also below 0
    key[0, 1] = -torch.tensor([[5.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    found = matches.sets(Pair(query, key, view(), view()), options("SETSIM"))
    assert found.members[0].tolist() == [[False, True, False], [True, False, False]]
    assert found.members[1].tolist() == [[True, False, False], [False, True, False]]
    assert found.attention[0].flatten().tolist() == pytest.approx([0, 1, 0.69, 0.7, 0.1, 0.2])
    assert (found.pairs, found.most_attended) == (4, 1)
    assert (
        matches.sets(Pair(query, key, view(), view()), options("SETSIM", THRESHOLD=0.9)).pairs == 1
    )


def test_constant_attention_has_no_set():
    flat, some = torch.ones(1, 8, *GRID), pair().key
    found = matches.sets(Pair(flat, some, view(), view()), options("SETSIM"))
    assert (found.pairs, found.most_attended) == (0, None)
    assert not found.members[0].any() and found.members[1].any()


# ----------------------------------------------------------------------------------------- HoughCL


def planted(grid, appearance):
    """Position i looks like position i of the other view by ``appearance[i]``, else like none."""
    n = len(appearance)
    c = torch.tensor(appearance, dtype=torch.float64)
    query = torch.eye(2 * n, n, dtype=torch.float64)
    key = torch.cat((torch.diag(c), torch.diag((1 - c**2).sqrt())))
    maps = (each.view(1, 2 * n, *grid).float() for each in (query, key))
    return Pair(*maps, view(), view())


@pytest.mark.parametrize(
    ("grid", "most", "least"), [((7, 7), 5, 20), ((4, 4), 5, 11), ((2, 2), 4, 0)]
)
def test_the_most_and_the_least_confident_matches(grid, most, least):
    """All true matches have one offset, so that confidence goes with the cube of appearance."""
    n = grid[0] * grid[1]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).tolist()
    appearance = [0.0] * n
    for rank, position in enumerate(order):
        appearance[position] = 1 - 0.7 * rank / n
    found = matches.hough(planted(grid, appearance), options("HOUGH"))
    expected = [Match(i, i, pytest.approx(appearance[i] ** 3, rel=1e-5)) for i in order]
    assert found.matches == expected
    assert found.most == expected[:most]
    assert found.least == expected[n - least :]
    assert found.confidence.flatten().tolist() == pytest.approx([a**3 for a in appearance])


def test_equal_confidences_keep_the_order_of_positions():
    found = matches.hough(planted((4, 4), [0.5] * 16), options("HOUGH"))
    assert [match.query for match in found.matches] == list(range(16))


def test_confidences_are_those_of_the_correspondence_over_the_largest():
    z = torch.rand(2, 1, 16, *GRID, generator=torch.Generator().manual_seed(3))
    found = matches.hough(Pair(z[0], z[1], view(), view()), options("HOUGH", SIGMA=0.7, PASSES=1))
    p = hough_confidence(z[0], z[1], GRID, 3, 0.7, 1)[0]
    for query, key, weight in found.matches:
        assert key == int(p[query].argmax())
        assert weight == pytest.approx(float(p[query].max() / p.max()))
    weights = [match.weight for match in found.matches]
    assert weights == sorted(weights, reverse=True) and weights[0] == 1


def test_unflipped_confidence_lies_where_its_position_is_seen():
    c = [0.9 if i == 0 else 0.3 for i in range(16)]
    plain = planted((4, 4), c)
    turned = Pair(plain.query.flip(3), plain.key, view(flip=True), view())
    found = matches.hough(turned, options("HOUGH", UNFLIP=True))
    assert found.most[0].query == 3 and found.most[0].key == 0  # the corner, seen mirrored
    assert found.confidence[0].tolist() == pytest.approx([1 / 27, 1 / 27, 1 / 27, 1], rel=1e-4)


# ----------------------------------------------------------------------- points, windows, searches


def test_points_are_at_the_same_place_of_the_image():
    own, other = view((0, 0, 140, 140)), view((70, 35, 140, 105), flip=True)
    found = matches.points(own, other, 36, seed=5)
    assert len(found) == 36 and len(set(found)) == 36
    for (x, y), (x2, y2) in found:
        assert (2 * x, 2 * y) == pytest.approx((140 - x2, 35 + y2), abs=1e-3)
        assert 35 <= x <= 70 and 17.5 <= y <= 52.5
    assert found == matches.points(own, other, 36, seed=5) != matches.points(own, other, 36, seed=6)
    assert matches.points(view((0, 0, 50, 50)), view((60, 60, 90, 90)), 36, seed=5) == []


def test_windows_of_equal_and_of_mirrored_views():
    resim = options("RESIM", WINDOW=(48, 32))
    found = matches.window_pairs(view(), view(), resim, scale=0.5)
    begins = [0, 16, 32]  # of 24 pixels, before the edge at 70
    expected = [(x, y, x + 24, y + 24) for y in begins for x in begins]
    assert (found.side, found.stride, found.total) == (24, 16, 9)
    assert found.pairs == [(box, box) for box in expected]
    found = matches.window_pairs(view((0, 0, 70, 70)), view((0, 0, 70, 70), flip=True), resim, 0.5)
    assert found.total == 9
    # The first column would end on the other view's edge, which does not count.
    inside = [box for box in expected if box[0] > 0]
    assert found.pairs == [((x, y, a, b), (70 - a, y, 70 - x, b)) for x, y, a, b in inside]


def test_windows_where_views_are_apart_and_where_they_are_small():
    resim = options("RESIM", WINDOW=(48, 32))
    found = matches.window_pairs(view((0, 0, 50, 50)), view((60, 60, 90, 90)), resim)
    assert (found.pairs, found.side) == ([], 48)
    assert matches.window_pairs(view(), view(), resim, scale=9).side == SIDE - 1


@pytest.mark.parametrize("flip", [False, True])
def test_a_local_crop_is_found_where_its_features_are(flip):
    place = torch.eye(N).view(1, N, *GRID)  # every position has a channel of its own
    crops = torch.stack((place[:, :, 3, 1], place[:, :, 0, 0] + place[:, :, 0, 1]), 1)
    outer = view((0, 0, 140, 140), flip)  # shown at half its size
    local = [view((0, 0, 40, 20)), view((120, 120, 160, 160))]
    first, second = matches.searches(crops, place, local, outer)
    assert first.attention.argmax() == 3 * 7 + 1 and float(first.attention.sum()) == 1
    assert second.attention.flatten()[:3].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0])
    assert first.box == ((50, 0, 70, 10) if flip else (0, 0, 20, 10)) and first.share == 1
    assert second.box == ((0, 60, 10, 70) if flip else (60, 60, 70, 70))
    assert second.share == pytest.approx(0.25)


def test_spread_takes_both_ends_and_never_one_twice():
    assert matches.spread([], 6) == [] and matches.spread([4, 9], 6) == [4, 9]
    assert matches.spread(range(11), 6) == [0, 2, 4, 6, 8, 10]
    assert matches.spread(range(50), 1) == [0]
    for count in range(2, 9):
        chosen = matches.spread(range(10), count)
        assert len(set(chosen)) == count and chosen == sorted(chosen)
        assert (chosen[0], chosen[-1]) == (0, 9)
