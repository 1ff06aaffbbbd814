import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from densessl.pretrain.scenes.contours import center_polygon, edge_polygons, loops, signed_area
from densessl.pretrain.scenes.render import solid


def random_masks(count, share=0.6, height=12, width=15):
    rng = np.random.default_rng(0)
    return [rng.random((height, width)) < share for _ in range(count)]


def decode(polygons, shape):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_polygons_give_any_mask_back_exactly(share):
    for mask in random_masks(60, share):
        assert np.array_equal(decode(edge_polygons(mask), mask.shape), mask)


def test_polygons_of_a_ring_leave_its_hole_open():
    y, x = np.mgrid[:40, :40] - 20
    ring = (np.hypot(x, y) < 18) & (np.hypot(x, y) > 9)
    polygons = edge_polygons(ring)
    assert len(polygons) > 1
    assert np.array_equal(decode(polygons, ring.shape), ring)


def test_a_full_mask_is_one_rectangle_along_the_image_edges():
    assert edge_polygons(np.ones((3, 5), bool)) == [[0, 0, 5, 0, 5, 3, 0, 3]]


def test_signed_areas_add_up_to_the_pixels():
    for mask in random_masks(40):
        assert sum(map(signed_area, loops(mask))) == mask.sum()


def test_painting_a_center_polygon_gives_a_solid_mask_back():
    for mask in map(solid, random_masks(60)):
        painted = Image.new("L", mask.shape[::-1], 0)
        ImageDraw.Draw(painted).polygon(center_polygon(mask), fill=1)
        assert np.array_equal(np.asarray(painted, bool), mask)


def test_solid_keeps_the_largest_piece_without_holes():
    mask = np.zeros((9, 9), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[6, 6] = True  # touches at a corner only
    kept = solid(mask)
    assert kept.sum() == 25 and not kept[6, 6]
