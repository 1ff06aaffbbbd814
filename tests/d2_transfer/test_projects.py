"""Protocols of Detectron2's projects, built in and as one's own config: PointRend and DeepLab, and
whose options ViTDet's are (test_vitdet.py has the rest of it)."""

import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml

from densessl.configs import FOLDER
from densessl.core import options
from densessl.core.errors import EnvironmentLacks, InputError, StoppedEarly
from densessl.d2_transfer import compat, config_files, main, projects, protocols, results
from densessl.d2_transfer.resolve import check_words, describe, resolve

compat.setup()  # before any test imports Detectron2
import torch  # noqa: E402
from detectron2.modeling import SemanticSegmentor, build_model  # noqa: E402

from densessl.d2_transfer import modeling  # noqa: E402, F401  (registers DeepLabSegmentor)

POINTREND, DEEPLAB = ("coco_pointrend_1x", ""), ("cityscapes_semseg", "deeplab_v3plus")
OF = {POINTREND: ("PointRend",), DEEPLAB: ("DeepLab",)}
WITH_OPTIONS = OF | {("coco_vitdet_b_100ep", ""): (projects.VITDET,)}
NARROW = {  # a ResNet-50, which DeepLab's backbone is at least, of some thousand parameters
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
}
DETECTION = [
    (each.name, variant)
    for each in protocols.PROTOCOLS.values()
    if each.family == protocols.DETECTION
    for variant in each.variants
]
# As the project's first configs have it, with the head's old name.
MINE = f"""\
_BASE_: "{FOLDER / "transfer" / "Base-RCNN-FPN.yaml"}"
MODEL:
  MASK_ON: True
  ROI_HEADS: {{NAME: "PointRendROIHeads"}}
  ROI_MASK_HEAD:
    NAME: "CoarseMaskHead"
    FC_DIM: 1024
    NUM_FC: 2
    IN_FEATURES: ["p2"]
    POINT_HEAD_ON: True
  POINT_HEAD: {{FC_DIM: 128}}
INPUT: {{MASK_FORMAT: "bitmask"}}
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
"""


def words(changes: dict) -> list[str]:
    return [str(each) for each in chain(*changes.items())]


@pytest.mark.parametrize("name, variant", DETECTION)
def test_a_config_has_the_options_of_no_other_project(name, variant):
    """What a protocol's fingerprint is of does not grow with the projects that others use."""
    found = set(options.flat(resolve(name, variant, plain=True)))
    named = WITH_OPTIONS.get((name, variant), ())
    assert projects.among(found) == named
    assert found == set(options.flat(compat.default_options(named)))
    if not named:
        assert found == set(options.flat(compat.default_options()))


@pytest.mark.parametrize("name", projects.KNOWN)
def test_options_that_are_read_are_those_that_an_import_adds(name):
    before = sys.modules.get("cv2")
    assert compat.default_options([name]).dump() == compat.get_cfg([name]).dump()
    assert sys.modules.get("cv2") is before  # what stands for OpenCV is gone
    assert projects.among(options.flat(compat.get_cfg([name]))) == (name,)


def test_a_checkout_has_its_projects_beside_the_package(tmp_path):
    import detectron2

    installed = Path(detectron2.__file__).parent / "projects" / "point_rend" / "config.py"
    copy = tmp_path / "projects" / "PointRend" / "point_rend" / "config.py"
    copy.parent.mkdir(parents=True)
    copy.write_text(installed.read_text())
    cfg = compat.default_options()
    projects.add_options("PointRend", cfg, tmp_path / "detectron2")
    assert cfg.dump() == compat.default_options(["PointRend"]).dump()


def test_a_project_that_is_not_there_is_one_message(monkeypatch):
    monkeypatch.setitem(projects.MODULES, "DeepLab", ("no_deeplab", "add_deeplab_config"))
    says = "Detectron2's project DeepLab .*no_deeplab.*; fix it with: "
    for get in (compat.get_cfg, compat.default_options):
        with pytest.raises(EnvironmentLacks, match=says):
            get(["DeepLab"])


def test_a_config_of_ones_own_is_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(MINE)
    found, _ = protocols.find("mine.yaml")
    assert found.metrics == protocols.BOX + protocols.MASK
    more = ["MODEL.POINT_HEAD.NUM_FC", "2"]
    check_words("mine.yaml", more)
    cfg = resolve("mine.yaml", overrides=more)
    assert (cfg.MODEL.POINT_HEAD.FC_DIM, cfg.MODEL.POINT_HEAD.NUM_FC) == (128, 2)
    assert cfg.dump() == resolve("mine.yaml", plain=True, overrides=more).dump()
    head = cfg.MODEL.ROI_MASK_HEAD  # as Detectron2 would rename it in a trial that has begun
    assert (head.NAME, head.POOLER_TYPE) == ("PointRendMaskHead", "")
    own = resolve("mine.yaml", gpus=1, mini=True, cuda=False, overrides=words(NARROW))
    assert own.MODEL.POINT_HEAD.FC_DIM == 64  # the miniature's
    written = own.dump()
    build_model(own)
    assert own.dump() == written
    Path("config.yaml").write_text(written)
    again = config_files.of_trial(Path("config.yaml"))
    assert results.flat(yaml.safe_load(again.dump())) == results.flat(yaml.safe_load(written))


@pytest.mark.parametrize(
    "text, says",
    [
        ("MODEL: {POINT_HEAD: {NUM_FCS: 2}}", "line 1: unknown config key .*POINT_HEAD.NUM_FC'"),
        ("MODEL: {PANOPTIC_DEEPLAB: {A: 1}, RESNETS: {STEM_TYPE: basic}}", "is of Panoptic-DeepL"),
        (
            "MODEL: {RESNETS: {STEM_TYPE: basic}}\n"
            "DATASETS: {TRAIN: ['cityscapes_fine_sem_seg_train']}",
            "give your options to cityscapes_semseg",
        ),
    ],
)
def test_what_a_project_cannot_be_is_named_at_once(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        check_words("mine.yaml", [])


@pytest.mark.parametrize(
    "protocol, key, value, says",
    [
        ("coco_mask_fpn_1x", "MODEL.POINT_HEAD.NUM_FC", "2", "is of Detectron2's project PointR"),
        ("coco_pointrend_1x", "MODEL.POINT_HEAD.NUM_FCS", "2", "MODEL.POINT_HEAD.NUM_FC'"),
        ("coco_pointrend_1x", "MODEL.POINT_HEAD.NUM_CLASSES", "3", "NUM_CLASSES is 3 .* the same"),
    ],
)
def test_an_option_that_does_not_fit_is_one_message(protocol, key, value, says):
    with pytest.raises(InputError, match=says):
        resolve(protocol, plain=True, overrides=[key, value])


def deeplab(**changes):
    """A narrow DeepLab-v3+ with values for which every pixel matters, and its config."""
    named = {"MODEL.SEM_SEG_HEAD.NORM": "BN", "INPUT.CROP.SIZE": [32, 64]}
    cfg = resolve(*DEEPLAB, gpus=1, mini=True, cuda=False, overrides=words(NARROW | named))
    cfg.defrost()
    cfg.merge_from_list([*chain(*changes.items())])
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.sem_seg_head.predictor.weight, std=1.0)
    return model.eval(), cfg


@torch.no_grad()
def segment(model, *images):
    given = [{"image": each, "height": each.shape[1], "width": each.shape[2]} for each in images]
    return [each["sem_seg"] for each in model(given)]


def picture(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def test_deeplab_segments_as_detectron2s_own_segmentor():
    model, cfg = deeplab()
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    plain = build_model(cfg).eval()
    assert type(plain) is SemanticSegmentor
    plain.load_state_dict(model.state_dict())
    for image in (picture(64, 128), picture(32, 64)):
        (ours,), (theirs,) = segment(model, image), segment(plain, image)
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="must be divisible"):
        segment(plain, picture(50, 70))
    (found,) = segment(model, picture(50, 70))
    assert found.shape[1:] == (50, 70)
    grey = torch.tensor(cfg.MODEL.PIXEL_MEAN).round().to(torch.uint8).view(3, 1, 1)
    filled = grey.repeat(1, 64, 128)
    filled[:, :50, :70] = picture(50, 70)
    torch.testing.assert_close(segment(plain, filled)[0][:, :50, :70], found, atol=0.1, rtol=0.1)


def test_deeplab_slides_windows():
    model, _ = deeplab()
    image = picture(64, 96)
    parts = [segment(model, image[..., left : left + 64])[0] for left in (0, 32)]
    model.window = (64, 32)
    (found,) = segment(model, image)
    torch.testing.assert_close(found[..., :32], parts[0][..., :32])
    torch.testing.assert_close(found[..., 32:64], (parts[0][..., 32:] + parts[1][..., :32]) / 2)


def test_weights_of_a_resnet_50_have_a_tensor_for_all_of_deeplabs_backbone():
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_resnet_backbone

    cfg = resolve(*DEEPLAB, gpus=1, cuda=False)
    backbone = build_model(cfg).backbone
    plain = compat.get_cfg()
    plain.MODEL.RESNETS.OUT_FEATURES, plain.MODEL.RESNETS.NORM = ["res5"], "BN"
    plain.MODEL.BACKBONE.FREEZE_AT = 0
    held = build_resnet_backbone(plain, ShapeSpec(channels=3)).state_dict()
    shapes = {key: value.shape for key, value in backbone.state_dict().items()}
    assert shapes == {key: value.shape for key, value in held.items()}
    dilations = [block.conv2.dilation[0] for block in backbone.res5]
    assert dilations == [2, 4, 8] and backbone.output_shape()["res5"].stride == 16


def test_deeplabs_rate_warms_up_and_falls():
    from densessl.d2_transfer.solver import build_lr_scheduler

    _, cfg = deeplab(**{"SOLVER.MAX_ITER": 10, "SOLVER.WARMUP_ITERS": 2, "SOLVER.BASE_LR": 1.0})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    warm = [0.001, 0.5005, *[1.0] * 8]
    wanted = [share * (1 - t / 10) ** 0.9 for t, share in enumerate(warm)]
    assert rates == pytest.approx(wanted)
    assert "rate 1 falling to 0 by power 0.9 and 2 of warm-up" in describe(cfg, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name, variant", OF)
def test_a_stopped_trial_resumes_bit_for_bit(name, variant, scenes, tmp_path, stops_at):
    short = {"SOLVER.MAX_ITER": 4, "SOLVER.IMS_PER_BATCH": 2, "TEST.PRECISE_BN.NUM_ITER": 1}

    def go(out):
        flags = ["--variant", variant] if variant else []
        flags += ["--mini", "--trials", "1", "--data", str(scenes), "-o", str(tmp_path / out)]
        assert main.main(["random", "--protocol", name, *flags, *words(NARROW | short)]) == 0
        folder = tmp_path / out / "trial_1"
        return torch.load(folder / "model_final.pth", weights_only=True)["model"], folder

    whole, _ = go("whole")
    with stops_at(1), pytest.raises(StoppedEarly, match="stopped at step 2 of 4"):
        go("parts")
    parts, folder = go("parts")
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert results.config_fingerprint(written) == results.load(folder).config_sha256
