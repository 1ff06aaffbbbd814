"""``densessl show``: arguments, files, and that pictures show what was computed."""

import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.pretrain import config, show
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.show.by_parts import jigsaw, part_maps
from densessl.pretrain.show.checkpoint import load
from densessl.pretrain.show.look import look_at, views_of
from densessl.pretrain.show.main import images_of
from densessl.pretrain.show.methods import METHODS, chosen
from densessl.pretrain.views import NORMALIZATION


def save(path, backbone="resnet18", method="setsim", **views):
    """A checkpoint of ``densessl pretrain`` that was never trained."""
    cfg = config.defaults()
    cfg.BACKBONE.NAME, cfg.METHOD.NAME = backbone, method
    for name, value in {"SIZE": 96, "LOCAL_SIZE": 48, **views}.items():
        cfg.VIEWS[name] = value
    torch.manual_seed(0)
    saved = {
        "backbone": build_backbone(backbone, norm="BN").state_dict(),
        "config": cfg.dump(),
        "method": method,
        "iteration": 7,
        "normalization": NORMALIZATION | {"channel_order": "RGB"},
    }
    torch.save(saved, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run") / "backbone_final.pth")


@pytest.fixture
def image(tmp_path):
    return picture_file(tmp_path / "scene.png")


def picture_file(path, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(*argv):
    return show.main([*map(str, argv)])


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("format", ["png", "svg", pytest.param("pdf", marks=pytest.mark.slow)])
def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path, checkpoint, image, format):
    def drawn(name, seed):
        out = tmp_path / name
        options = ("--seed", seed, "--format", format, "--method", "vader", "--dpi", 30)
        assert run(checkpoint, image, "-o", out, *options) == 0
        (file,) = out.iterdir()
        assert file.name == f"scene.{format}"
        return file.read_bytes()

    first = drawn("first", 3)
    assert first == drawn("again", 3) != drawn("other", 4)


def test_images_of_one_name_get_a_picture_each(tmp_path, checkpoint):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, name in zip(folders, ("scene.png", "scene.png", "scene_1.png"), strict=True):
        folder.mkdir()
        picture_file(folder / name)
    out = tmp_path / "out"
    run(checkpoint, *folders, "-o", out, "--method", "vader", "--dpi", 30)
    assert sorted(path.name for path in out.iterdir()) == [
        "scene.png",
        "scene_1.png",
        "scene_1_2.png",
    ]


def test_a_folder_stands_for_its_first_images(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("densessl"), "propagate", True)
    for name in ("c.PNG", "a.png", "b.png", ".hidden.png"):
        picture_file(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "below").mkdir()
    picture_file(tmp_path / "below" / "d.png")
    names = [each.path.name for each in images_of([str(tmp_path)], limit=24)]
    assert names == ["a.png", "b.png", "c.PNG"]
    with caplog.at_level(logging.INFO, logger="densessl"):
        assert [each.path.name for each in images_of([str(tmp_path)], limit=2)] == names[:2]
    assert "the first 2 of its 3 images" in caplog.text


def test_a_sheet_has_a_row_an_image(tmp_path, checkpoint):
    for number in range(3):
        picture_file(tmp_path / f"{number}.png", number)
    heights = []
    for limit in (1, 3):
        out = tmp_path / f"out_{limit}"
        options = ("--sheet", "--limit", limit, "--method", "resim", "--dpi", 30)
        run(checkpoint, tmp_path, "-o", out, *options)
        assert [path.name for path in out.iterdir()] == ["sheet.png"]
        heights.append(Image.open(out / "sheet.png").height)
    assert 2 * heights[0] < heights[1] < 3 * heights[0]


def test_every_method_at_once_and_odd_file_names(tmp_path, checkpoint):
    image = picture_file(tmp_path / "a $x_1$ 你好 name.png")
    run(checkpoint, image, "-o", tmp_path / "out", "--method", "all", "--dpi", 30)
    picture = np.asarray(Image.open(tmp_path / "out" / image.name))
    assert picture.shape[0] > 3 * picture.shape[1] * 0.9 and picture.std() > 20


# ------------------------------------------------------------------------------- views and methods


def test_the_method_is_the_checkpoints_own_unless_another_is_asked_for():
    assert chosen("auto", "houghcl") == ("houghcl",)
    assert chosen("auto", "dino") == ("scfs",)
    assert chosen("auto", "moco") == chosen("auto", "mine.py:Mine") == ("setsim",)
    assert chosen("resim", "houghcl") == ("resim",)
    assert chosen("all", "houghcl") == METHODS


def test_views_are_those_of_the_checkpoint_and_the_pixels_come_back(checkpoint, image):
    model = load(str(checkpoint))
    assert (model.method, model.iteration, model.backbone.training) == ("setsim", 7, False)
    look = look_at(model, image, None, 0, "layer3", ("setsim",))
    assert [tuple(view.image.shape) for view in look.views] == [(1, 3, 96, 96)] * 2
    assert look.views[0].size.tolist() == [[120, 90]]
    assert look.grid == (6, 6) and look.local == []
    with torch.no_grad():
        torch.testing.assert_close(look.key, model.backbone(look.views[1].image)["layer3"])
    pixels = look.pixels(look.views[0]).permute(2, 0, 1)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (model.mean, model.std))
    torch.testing.assert_close((pixels - mean) / std, look.views[0].image[0], atol=1e-5, rtol=0)


def test_local_crops_keep_their_share_of_the_views_and_leave_these_alone(checkpoint, image):
    model = load(str(checkpoint))
    look = look_at(model, image, 192, 5, "layer4", ("scfs",))
    assert [tuple(view.image.shape) for view in look.local] == [(1, 3, 96, 96)] * 6
    plain = views_of(model, look.source, 192, 5)
    for view, other in zip(look.views, plain, strict=True):
        assert torch.equal(view.image, other.image) and torch.equal(view.box, other.box)
    with torch.no_grad():
        mean = model.backbone(look.local[2].image)["layer4"].mean((2, 3))
    torch.testing.assert_close(look.crops[:, 2], mean)


def test_a_jigsaw_has_a_map_of_each_part_and_their_mean_of_every_network(tmp_path, image):
    files = [
        save(tmp_path / f"{name}.pth", method=name, RECIPE="dino") for name in ("scfs", "dino")
    ]
    first, second = (load(str(file)) for file in files)
    look = look_at(first, image, None, 0, "layer3", ("jigsaw",), (second,))
    section = jigsaw(look)
    assert [len(row) for row in section.rows] == [6, 6]
    assert [row[0].title for row in section.rows] == ["scfs: the parts", "dino: the parts"]
    maps = part_maps(first, "layer3", look.pixels(look.views[0]))
    part = look.views[0].image[:, :, 48:, :48]  # lower left
    with torch.no_grad():
        query = first.backbone(part)["layer3"].mean((2, 3))
        whole = first.backbone(look.views[0].image)["layer3"]
    expected = torch.cosine_similarity(query[:, :, None, None], whole)[0]
    torch.testing.assert_close(maps[2], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(maps[4], maps[:4].mean(0))
    words = ("--method", "jigsaw", "--beside", files[1], "--level", "layer3", "--dpi", 30)
    run(files[0], image, "-o", tmp_path / "out", *words)
    assert np.asarray(Image.open(tmp_path / "out" / "scene.png")).std() > 20
    with pytest.raises(InputError, match="--beside is for --method jigsaw"):
        run(files[0], image, "-o", tmp_path / "out", "--beside", files[1])


@pytest.mark.slow  # timm alone takes seconds
def test_a_vit_shows_a_block(tmp_path, image):
    checkpoint = save(tmp_path / "vit.pth", "vit_tiny", "dino", SIZE=64)
    run(checkpoint, image, "-o", tmp_path / "out", "--level", "block8", "--dpi", 40)
    assert np.asarray(Image.open(tmp_path / "out" / "scene.png")).std() > 20
    with pytest.raises(InputError, match="patches of 16 pixels; nearest: 64 or 80"):
        run(checkpoint, image, "-o", tmp_path / "out", "--size", 70)


# --------------------------------------------------------------------------------------- bad input


def test_wrong_input_is_named_before_any_work(tmp_path, checkpoint, image):
    def message(*argv):
        with pytest.raises(InputError) as error:
            run(*argv, "-o", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(error.value)

    assert "no such image" in message(checkpoint, tmp_path / "none.jpg")
    assert "no such checkpoint" in message(tmp_path / "none.pth", image)
    assert "layer4" in message(checkpoint, image, "--level", "layer5")
    assert "Did you mean 'houghcl'" in message(checkpoint, image, "--method", "hough")
    assert "unknown format 'jpg'" in message(checkpoint, image, "--format", "jpg")
    assert "at least 32 and at most 1024" in message(checkpoint, image, "--size", 0)
    assert "--seed" in message(checkpoint, image, "--seed", -1)
    assert "--limit" in message(checkpoint, image, "--limit", 0)
    assert "--dpi" in message(checkpoint, image, "--dpi", 1)
    (tmp_path / "empty").mkdir()
    assert "has no images" in message(checkpoint, tmp_path / "empty")
    (tmp_path / "text.png").write_text("no image")
    assert "cannot be read" in message(checkpoint, tmp_path / "text.png")
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(image.read_bytes()[:500])
    assert "cut.png cannot be read" in message(checkpoint, truncated)
    many = [image] * 41
    assert "at most 40 rows" in message(checkpoint, *many, "--sheet")


def test_a_level_that_does_not_fit_a_method_is_named(tmp_path, checkpoint, image):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="one position, and houghcl compares positions"):
        run(checkpoint, image, "-o", out, "--size", 32, "--method", "houghcl")
    with pytest.raises(InputError, match="56 × 56|80 × 80 positions, too many"):
        run(checkpoint, image, "-o", out, "--size", 320, "--level", "layer1")
    assert not out.exists()
    run(checkpoint, image, "-o", out, "--size", 32, "--method", "resim", "--dpi", 30)
    assert (out / "scene.png").is_file()


def test_no_picture_replaces_an_image(tmp_path, checkpoint, image):
    before = image.read_bytes()
    with pytest.raises(InputError, match="would replace what it is made of"):
        run(checkpoint, image, "-o", tmp_path)
    assert image.read_bytes() == before
    with pytest.raises(InputError, match="is a file"):
        run(checkpoint, image, "-o", image)


# ----------------------------------------------------------------------------------------- stopping


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(tmp_path, image):
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "foreign.pth")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ("show", tmp_path / "foreign.pth", image, "-o", tmp_path / "out")
    child = subprocess.Popen(
        [sys.executable, "-m", "densessl", *map(str, words)],
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(temporary.glob("densessl_show_*")):  # the conversion begins
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    _, told = child.communicate()
    assert child.returncode == 130 and "Traceback" not in told
    assert list(temporary.glob("densessl_show_*")) == [] and not (tmp_path / "out").exists()
