"""The pictures of a checkpoint: what is drawn is what the correspondences say."""

import numpy as np
import pytest
import torch
from PIL import Image

from console.errors import InputError
from pretrain import config, show
from pretrain.backbones import build_backbone
from pretrain.views import NORMALIZATION


@pytest.fixture
def checkpoint(tmp_path):
    cfg = config.defaults()
    cfg.BACKBONE.NAME = "resnet18"
    cfg.VIEWS.SIZE = 96
    torch.manual_seed(0)
    saved = {
        "backbone": build_backbone("resnet18", norm="BN").state_dict(),
        "config": cfg.dump(),
        "method": "setsim",
        "iteration": 7,
        "normalization": NORMALIZATION | {"channel_order": "RGB"},
    }
    torch.save(saved, tmp_path / "backbone_final.pth")
    return tmp_path / "backbone_final.pth"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "scene.png"
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_one_picture_an_image_and_the_same_again_for_a_seed(tmp_path, checkpoint, image):
    (tmp_path / "other").mkdir()
    same_name = tmp_path / "other" / "scene.png"
    same_name.write_bytes(image.read_bytes())
    out = tmp_path / "pictures"
    assert show.main([str(checkpoint), str(image), str(same_name), "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["scene.png", "scene_1.png"]
    first, second = (np.asarray(Image.open(out / name)) for name in ("scene.png", "scene_1.png"))
    assert first.shape[0] > 500 and (first == second).all()
    show.main([str(checkpoint), str(image), "-o", str(tmp_path / "seed"), "--seed", "1"])
    assert (np.asarray(Image.open(tmp_path / "seed" / "scene.png")) != first).any()


def test_views_are_those_of_the_checkpoint_and_the_pixels_come_back(checkpoint, image):
    model = show.load(str(checkpoint))
    assert model.method == "setsim" and model.iteration == 7 and not model.backbone.training
    views = show.views_of(model, image, 96, seed=0)
    assert [tuple(view.image.shape) for view in views] == [(1, 3, 96, 96)] * 2
    assert views[0].size.tolist() == [[120, 90]]
    pixels = show.pixels_of(views[0], model)
    again = (torch.from_numpy(pixels).permute(2, 0, 1) - torch.tensor(model.mean).view(3, 1, 1)) / (
        torch.tensor(model.std).view(3, 1, 1)
    )
    torch.testing.assert_close(again, views[0].image[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("backbone", "level"), [("resnet18", "layer3"), ("vit_tiny", "block8")])
def test_a_multi_crop_checkpoint_shows_its_search_too(tmp_path, image, backbone, level):
    cfg = config.load("dino_scenes", ["BACKBONE.NAME", backbone, "VIEWS.LOCAL_CROPS", "6"])
    torch.manual_seed(0)
    saved = {
        "backbone": build_backbone(backbone, norm="BN").state_dict(),
        "config": cfg.dump(),
        "normalization": NORMALIZATION | {"channel_order": "RGB"},
    }
    torch.save(saved, tmp_path / "teacher.pth")
    out = tmp_path / "pictures"
    show.main([str(tmp_path / "teacher.pth"), str(image), "-o", str(out), "--level", level])
    assert sorted(path.name for path in out.iterdir()) == ["scene.png", "scene_search.png"]
    assert np.asarray(Image.open(out / "scene_search.png")).std() > 20


def test_a_position_is_drawn_at_the_centre_of_its_cell():
    # 2 × 3 cells of 50 × 40 pixels; pixel centres are whole numbers, so edges are at −0.5
    assert show._centre(0, (2, 3), 100, 120) == (19.5, 24.5)
    assert show._centre(5, (2, 3), 100, 120) == (99.5, 74.5)


def test_wrong_input_is_named_before_any_work(tmp_path, checkpoint, image):
    def message(*argv):
        with pytest.raises(InputError) as error:
            show.main([*map(str, argv), "-o", str(tmp_path / "out")])
        assert not (tmp_path / "out").exists()
        return str(error.value)

    assert "no such image" in message(checkpoint, tmp_path / "none.jpg")
    assert "no such checkpoint" in message(tmp_path / "none.pth", image)
    assert "not a checkpoint" in message(image, image)
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    assert "it has no 'backbone'" in message(tmp_path / "other.pth", image)
    assert "layer4" in message(checkpoint, image, "--level", "layer5")
    (tmp_path / "text.png").write_text("no image")
    assert "cannot be read" in message(checkpoint, tmp_path / "text.png")
    assert "--size" in message(checkpoint, image, "--size", "0")


def test_code_in_a_checkpoint_is_not_run(tmp_path, image):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"backbone": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="not a checkpoint"):
        show.main([str(tmp_path / "trap.pth"), str(image), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "sprung").exists()
