"""docs/detectron2.md: its snippets run as they stand, in a project of Detectron2's own."""

import re
from pathlib import Path

import pytest
import torch

import densessl
from densessl.d2_transfer import compat
from densessl.d2_transfer.convert import convert, read_weights
from densessl.weight_files import timm_networks

compat.setup()
from detectron2 import model_zoo  # noqa: E402
from detectron2.config import LazyCall as L  # noqa: E402
from detectron2.config import instantiate  # noqa: E402
from detectron2.modeling.backbone import FPN  # noqa: E402
from detectron2.modeling.backbone.fpn import LastLevelMaxPool  # noqa: E402

PAGE = (Path(densessl.__file__).parents[1] / "docs" / "detectron2.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NETWORK = "convnext_atto"
ZOO = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6]}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
  DEVICE: cpu
VERSION: 2
"""


def snippet(part: str) -> str:
    (found,) = [each for each in SNIPPETS if part in each]
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    held = {
        "backbone": timm_networks.build(f"timm/{NETWORK}").state_dict(),
        "config": f"BACKBONE:\n  NAME: timm/{NETWORK}\n",
        "method": "densecl",
        "normalization": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    torch.save(held, folder / "c.pth")
    convert(folder / "c.pth", folder / "mine.pkl")
    return folder / "mine.pkl"


@pytest.fixture
def project(weights, tmp_path, monkeypatch):
    (tmp_path / "mine.pkl").symlink_to(weights)
    (tmp_path / "project.yaml").write_text(ZOO)
    monkeypatch.chdir(tmp_path)


def test_a_yaml_project(project):
    held: dict = {}
    exec(snippet("get_cfg()"), held)
    cfg = held["cfg"]
    assert cfg.MODEL.BACKBONE.NAME == "build_timm_fpn_backbone" and cfg.INPUT.FORMAT == "RGB"
    exec(snippet("check_loaded"), held)
    given = read_weights("mine.pkl")["model"]
    state = held["network"].state_dict()
    for name, array in given.items():
        assert torch.equal(state[f"backbone.bottom_up.{name}"], torch.as_tensor(array))
    by_hand = snippet("registers build_timm_fpn_backbone")
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.TIMM = "build_resnet_fpn_backbone", ""
    exec(by_hand, held)
    exec(snippet("check_loaded"), held)
    assert type(held["network"].backbone).__name__ == "FPN"


def test_by_hand_the_images_must_be_those_of_the_weights(project):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    cfg = get_cfg()
    cfg.merge_from_file("project.yaml")
    exec(snippet("registers build_timm_fpn_backbone"), {"cfg": cfg})
    with pytest.raises(densessl.InputError, match="INPUT.FORMAT is BGR, .* need RGB.*use_"):
        build_backbone(cfg)


def test_a_config_of_the_zoo(project):
    held: dict = {}
    exec(snippet("get_cfg()"), held)
    try:
        model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    except RuntimeError:
        pytest.skip("the Detectron2 on PyPI comes without its configs")
    exec(snippet("model_zoo"), held)
    assert f"timm/{NETWORK}" == held["cfg"].MODEL.BACKBONE.TIMM and held["cfg"].MODEL.MASK_ON


def test_a_lazy_project(project):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling.backbone import BasicStem, ResNet
    from omegaconf import OmegaConf

    model = OmegaConf.create({}, flags={"allow_objects": True})
    model.backbone = L(FPN)(
        bottom_up=L(ResNet)(stem=L(BasicStem)(), stages=[]),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=16,
        top_block=L(LastLevelMaxPool)(),
    )
    held = {"model": model, "train": OmegaConf.create({})}
    exec(snippet("convnext_atto"), held)
    backbone = instantiate(held["model"].backbone)
    DetectionCheckpointer(backbone).load(held["train"].init_checkpoint)
    state = backbone.state_dict()
    for name, array in read_weights("mine.pkl")["model"].items():
        assert torch.equal(state[f"bottom_up.{name}"], torch.as_tensor(array))
    assert backbone(torch.zeros(1, 3, 64, 64))["p6"].shape == (1, 16, 1, 1)
    exec(snippet("SimpleFeaturePyramid"), held)
    with torch.device("meta"):
        backbone = instantiate(held["model"].backbone)
        levels = backbone(torch.zeros(1, 3, 64, 64))
    assert {name: tuple(level.shape[1:]) for name, level in levels.items()} == {
        f"p{n}": (256, 64 >> n, 64 >> n) for n in range(2, 7)
    }
