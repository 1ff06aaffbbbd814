"""Pictures show what was computed: lines, outlines, maps and the counts in titles."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import EnvironmentLacks
from densessl.pretrain import config
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.show import matches
from densessl.pretrain.show.by_features import densecl, houghcl, setsim
from densessl.pretrain.show.by_geometry import resim
from densessl.pretrain.show.checkpoint import Pretrained
from densessl.pretrain.show.look import look_at
from densessl.pretrain.show.panels import BAD, GOOD, SideBySide, centre
from densessl.pretrain.show.picture import draw_picture
from densessl.pretrain.views import NORMALIZATION


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    image = tmp_path_factory.mktemp("images") / "scene.png"
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    torch.manual_seed(0)
    model = Pretrained(
        backbone=build_backbone("resnet18", norm="BN").eval(),
        name="random.pth",
        network="resnet18",
        method="unknown",
        iteration=0,
        cfg=config.defaults(),
        **NORMALIZATION,
    )
    found = look_at(model, image, 224, 0, "layer4", ("houghcl",))
    # Matches of a position with itself would not tell the two views apart.
    return replace(found, key=found.key.roll(2, 3))


def axes_of(panel):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    panel.draw(axes)
    return axes


def test_the_lines_are_the_matches(look):
    panel = houghcl(look).rows[0][0]
    found = matches.hough(look.pair, look.options.HOUGH)
    drawn = axes_of(panel).lines
    assert len(drawn) == 25 and sum(match.query == match.key for match in found.matches) < 10
    side = SideBySide(None, tuple(look.pixels(view).numpy() for view in look.views))
    expected = [
        [
            side.place(centre(match.query, (7, 7), side.views[0]), False),
            side.place(centre(match.key, (7, 7), side.views[1]), True),
        ]
        for match in (*found.least, *found.most)
    ]
    assert [list(zip(*line.get_data(), strict=True)) for line in drawn] == expected
    assert [line.get_color() == GOOD for line in drawn] == [False] * 20 + [True] * 5
    assert [text for _, text in panel.legend] == ["the 5 most confident", "the 20 least confident"]


def test_the_titles_count_what_is_drawn(look):
    sets = matches.sets(look.pair, look.options.SETSIM)
    first, second = setsim(look).rows
    m, n = (int(each.sum()) for each in sets.members)
    assert first[2].title == f"salient set of view 1: {m} of 49"
    assert second[0].title == f"set to set: {m} × {n} = {m * n} pairs"
    assert len(axes_of(second[0]).lines) == n  # of one position, with the whole other set
    assert len(axes_of(second[1]).lines) == min(6, m)
    heat = axes_of(first[0]).images[1].get_array()
    assert np.array_equal(heat, sets.attention[0].numpy())


def test_every_window_is_outlined_in_both_views(look):
    found = matches.window_pairs(*look.views, look.options.RESIM, look.scale)
    frames = 2  # of the views
    outlines = 2 * (len(found.pairs) + min(6, len(found.pairs)))
    assert found.pairs and len(axes_of(resim(look).rows[0][0]).patches) == frames + outlines


def test_a_position_is_drawn_at_the_centre_of_its_cell():
    # 2 × 3 cells of 50 × 40 pixels; pixel centres are whole numbers, so edges are at −0.5
    pixels = np.zeros((100, 120, 3))
    assert centre(0, (2, 3), pixels) == (19.5, 24.5)
    assert centre(5, (2, 3), pixels) == (99.5, 74.5)
    side = SideBySide(None, (pixels, pixels))
    assert side.place((10, 20), False) == (10, 20)
    assert side.place((10, 20), True) == (10 + 120 + 15, 20 + 17)


def test_neighbours_are_green_where_geometry_agrees(look):
    options = look.options.PIXPRO
    same = matches.geometry(look.pair, options.THRESHOLD, options.FRAME)
    panel = densecl(look).rows[0][0]
    agree = [bool(same[match.query, match.key]) for match in matches.neighbours(look.pair)]
    drawn = axes_of(panel).lines
    assert [line.get_color() for line in drawn] == [GOOD if right else BAD for right in agree]
    assert f"({sum(agree)})" in panel.legend[0][1] and f"({49 - sum(agree)})" in panel.legend[1][1]


def test_what_cannot_be_written_is_the_environments_fault(tmp_path, look):
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(EnvironmentLacks, match="cannot write"):
        draw_picture(look, ("vader",), tmp_path / "out" / "a.png", "png", 30)
