"""Plots as files: format, size, what stands in them, and that nothing is cut off."""

import math
import re

import pytest
from PIL import Image

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer.plots import style
from densessl.d2_transfer.plots.drawing import draw
from densessl.d2_transfer.plots.model import Line, Plot, PlotPanel

SVG_TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")


def curves(*names, panels=1):
    xs = list(range(1, 41))
    lines = [
        Line(name, xs, [n + 9 / x for x in xs], [n + 8 / x for x in xs], [n + 11 / x for x in xs])
        for n, name in enumerate(names)
    ]
    return Plot(
        [PlotPanel("step", f"loss {n}", lines) for n in range(panels)], ["a note"], curves=True
    )


def texts(path):
    return [
        text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
        for text in SVG_TEXT.findall(path.read_text(encoding="utf-8"))
    ]


def test_formats_by_suffix(tmp_path):
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        draw(curves("moco"), tmp_path / f"plot{suffix}")
        assert (tmp_path / f"plot{suffix}").read_bytes().startswith(start)


def test_a_png_is_a_column_or_a_page_wide_at_200_dpi(tmp_path):
    for wide, inches in ((False, style.COLUMN), (True, style.PAGE)):
        draw(curves("moco", "setsim"), tmp_path / "plot.png", wide)
        with Image.open(tmp_path / "plot.png") as picture:
            assert picture.width == round(inches * 200)
            assert picture.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_a_panel_more_is_higher(tmp_path):
    heights = []
    for panels in (1, 2):
        draw(curves("moco", panels=panels), tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as picture:
            heights.append(picture.height)
    assert heights[1] > heights[0] + 200


@pytest.mark.parametrize("suffix", style.FORMATS)
def test_the_same_plot_is_the_same_bytes(tmp_path, suffix):
    found = []
    for name in ("a", "b"):
        draw(curves("moco", "setsim"), tmp_path / f"{name}{suffix}")
        found.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert found[0] == found[1]
    assert b"CreationDate" not in found[0] and b"<dc:date>" not in found[0]


def test_an_svgs_labels_are_text(tmp_path):
    names = ["moco", "_hidden", "a$b$c", "x < y & z", "ünï", r"\frac"]
    draw(curves(*names, panels=2), tmp_path / "plot.svg")
    found = texts(tmp_path / "plot.svg")
    for text in [*names, "step", "loss 0", "loss 1", "a note"]:
        assert text in found
    assert found.count("moco") == 1  # one legend for both panels


@pytest.mark.parametrize("wide", [False, True])
def test_long_and_many_names_stay_within_the_picture(tmp_path, wide):
    names = [f"run_{n}" for n in range(9)]
    names += ["a_name_without_a_space_" * 6, "a name of many words " * 8]
    draw(curves(*names), tmp_path / "plot.png", wide)
    with Image.open(tmp_path / "plot.png") as picture:
        grey = picture.convert("L")
        width, height = grey.size
        edges = [(0, 0, 3, height), (width - 3, 0, width, height), (0, height - 3, width, height)]
        for edge in edges:
            assert grey.crop(edge).getextrema() == (255, 255)


def test_lines_are_told_apart_without_colour():
    looks = [style.mark(nth) for nth in range(40)]
    assert len({(str(look.dash), look.marker) for look in looks}) == 40
    assert len({look.colour for look in looks[:7]}) == 7


def test_gaps_bars_and_published_points_are_drawn(tmp_path):
    ours = Line(
        "ours",
        [0.1, 0.4, 0.7],
        [1.0, math.nan, 2.0],
        [0.9, math.nan, math.nan],
        [1.1, math.nan, math.nan],
    )
    theirs = Line("published", [0.1], [1.2], published=True)
    single = Line("single", [0.5], [1.5], counts=[1])
    for is_curves in (False, True):
        plot = Plot([PlotPanel("x", "y", [ours, theirs, single])], curves=is_curves)
        draw(plot, tmp_path / "plot.svg")
        assert {"ours", "published", "single"} <= set(texts(tmp_path / "plot.svg"))
    drawn = (tmp_path / "plot.svg").read_text()
    assert "nan" not in drawn.lower()


def test_named_ticks_stand_for_numbers(tmp_path):
    line = Line("dino", [0, 1], [50.0, 60.0])
    draw(Plot([PlotPanel("stage", "top-1", [line], ("res4", "res5"))]), tmp_path / "plot.svg")
    assert {"res4", "res5"} <= set(texts(tmp_path / "plot.svg"))


def test_a_readers_own_style_changes_nothing(tmp_path):
    import matplotlib

    draw(curves("moco"), tmp_path / "a.svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        draw(curves("moco"), tmp_path / "b.svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_wrong_file_is_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        draw(curves("moco"), tmp_path / "folder.png")
    with pytest.raises(InputError, match="'.pgn' is no format of a plot. Did you mean .png"):
        draw(curves("moco"), tmp_path / "plot.pgn")


def test_without_matplotlib_it_says_what_mends_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("densessl.core.install.CHECKOUT", False)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'densessl\[transfer\]'"):
        draw(curves("moco"), tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []
