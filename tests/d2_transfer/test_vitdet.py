"""ViTDet: its optimizer's groups, its jitter, its heads, what it refuses; resumed, and learning."""

import re
from itertools import chain

import numpy as np
import pytest
import torch

import densessl
from densessl.core.errors import InputError, StoppedEarly
from densessl.d2_transfer import compat, limits, main
from densessl.d2_transfer.backbone_choice import follow
from densessl.d2_transfer.resolve import check_words, resolve
from densessl.weight_files import timm_networks

compat.setup()  # before any test imports Detectron2
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from densessl.d2_transfer.datasets.detection_mapper import DetectionMapper  # noqa: E402
from densessl.d2_transfer.solver import build_optimizer  # noqa: E402
from densessl.d2_transfer.trainer import Trainer  # noqa: E402

NAME, VIT, BLOCKS = "coco_vitdet_b_100ep", "test_vit2", 8
ADAMW = ["SOLVER.OPTIMIZER", "adamw"]


def words(changes: dict) -> list[str]:
    return [str(each) for each in chain(*changes.items())]


def config(*overrides: str, protocol: str = NAME, network: str = f"timm/{VIT}"):
    cfg = resolve(protocol, gpus=1, mini=True, cuda=False, overrides=overrides)
    return follow(cfg, network)


# The optimizer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.7, 1.0])
def test_each_parameter_has_the_rate_and_the_decay_of_its_place(decay):
    cfg = config("SOLVER.LAYER_DECAY", str(decay), "SOLVER.BASE_LR", "0.01")
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.AdamW
    found = {
        id(each): (group["lr"], group["weight_decay"], group["betas"])
        for group in optimizer.param_groups
        for each in group["params"]
    }
    kinds = (torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.BatchNorm2d)
    layers = set()
    for name, parameter in model.named_parameters():
        layer = BLOCKS + 1
        inside = name.removeprefix("backbone.bottom_up.timm_network.")
        if inside != name and (match := re.match(r"blocks\.(\d+)\.", inside)):
            layer = int(match[1]) + 1
        elif inside != name and not inside.startswith("norm."):
            layer = 0
        layers.add(layer)
        of_norm = isinstance(model.get_submodule(name.rpartition(".")[0]), kinds)
        weight_decay = 0.0 if of_norm or name.endswith("pos_embed") else 0.1
        lr, wd, betas = found.pop(id(parameter))
        assert (lr, wd) == (pytest.approx(0.01 * decay ** (BLOCKS + 1 - layer)), weight_decay), name
        assert betas == (0.9, 0.999)
    assert not found and layers == set(range(BLOCKS + 2))


def test_the_rates_follow_the_schedule_together():
    cfg = config("SOLVER.MAX_ITER", "100", "SOLVER.STEPS", "(50,)")
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
    begun = [group["initial_lr"] for group in optimizer.param_groups]
    for _ in range(60):
        optimizer.step()
        scheduler.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.1 * each for each in begun])


def test_adamw_is_for_every_detector(capsys):
    resnet = ["SOLVER.WEIGHT_DECAY", "0.05", "MODEL.RESNETS.DEPTH", "18"]
    resnet += ["MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    check_words("coco_mask_fpn_1x", [*ADAMW, *resnet])
    cfg = config(*ADAMW, *resnet, protocol="coco_mask_fpn_1x", network="")
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.AdamW
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {
        (cfg.SOLVER.BASE_LR, 0.05),
        (cfg.SOLVER.BASE_LR, 0.0),
    }
    assert cfg.INPUT.LSJ.SIZE == 0 and cfg.MODEL.BACKBONE.DROP_PATH == 0
    decayed = config(*ADAMW, *resnet, "SOLVER.LAYER_DECAY", "0.7", protocol="coco_mask_fpn_1x")
    with pytest.raises(InputError, match="LAYER_DECAY is 0.7, but the backbone is no ViT; allowed"):
        build_optimizer(decayed, model)
    pyramid = follow(decayed.clone(), f"timm/{VIT}")
    assert len(Trainer.build_optimizer(pyramid, Trainer.build_model(pyramid)).param_groups) > 4
    capsys.readouterr()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_gradients_are_clipped_all_together(optimizer):
    clip = {"ENABLED": True, "CLIP_TYPE": "full_model", "CLIP_VALUE": 0.5}
    named = words({f"SOLVER.CLIP_GRADIENTS.{key}": value for key, value in clip.items()})
    cfg = config("SOLVER.OPTIMIZER", optimizer, "SOLVER.LAYER_DECAY", "1.0", *named)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    made = build_optimizer(cfg, model)
    generator = torch.Generator().manual_seed(0)
    for each in model.parameters():
        each.grad = 100 * torch.randn(each.shape, generator=generator)
    before = [each.grad.clone() for each in model.parameters()]
    norm = torch.cat([each.flatten() for each in before]).norm()
    made.step()
    for each, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(each.grad, old * 0.5 / norm, rtol=1e-4, atol=1e-6)


# Large-scale jitter -----------------------------------------------------------------------------


def entry(file) -> dict:
    """An image of 64 x 48 with a square at the left edge, and one in the lower right corner."""
    from PIL import Image

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    squares = ((2, 4, 12, 14), (50, 36, 62, 46))
    return {
        "file_name": str(file),
        "height": 48,
        "width": 64,
        "annotations": [
            {
                "bbox": [x, y, u, v],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": number,
                "segmentation": [[x, y, u, y, u, v, x, v]],
            }
            for number, (x, y, u, v) in enumerate(squares)
        ],
    }


def mapped(given: dict, *scale: float, seed: int = 0) -> dict:
    size = ["INPUT.LSJ.SIZE", "64", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "64"]
    mapper = DetectionMapper(config("INPUT.LSJ.SCALE", str(scale), *size), True)
    np.random.seed(seed)  # noqa: NPY002  (what the loader does)
    return mapper(given)


def test_a_scale_above_one_crops_and_one_below_shrinks(tmp_path):
    given = entry(tmp_path / "a.png")
    kept = set()
    for seed in range(8):
        large = mapped(given, 2.0, 2.0, seed=seed)  # 128 x 96, of which 64 x 64 are kept
        assert large["image"].shape == (3, 64, 64)
        objects = large["instances"]
        kept.add(tuple(objects.gt_classes.tolist()))
        if len(objects):
            masks = objects.gt_masks.tensor
            assert masks.shape[1:] == (64, 64) and masks.flatten(1).any(1).all()
            boxes = objects.gt_masks.get_bounding_boxes().tensor
            torch.testing.assert_close(objects.gt_boxes.tensor, boxes)
        small = mapped(given, 0.5, 0.5, seed=seed)
        assert small["image"].shape == (3, 24, 32)  # no padding, which the backbone does
        assert small["instances"].gt_classes.tolist() == [0, 1]
    assert len(kept) > 1 and kept <= {(0,), (1,), ()}  # the two never fit into one crop


def test_a_scale_is_drawn_between_the_two():
    cfg = config("INPUT.LSJ.SCALE", "(0.25, 0.5)")
    jitter = DetectionMapper(cfg, True).augmentations.augs[1]
    np.random.seed(0)  # noqa: NPY002
    image = np.zeros((96, 128, 3), np.uint8)
    drawn = {jitter.get_transform(image).new_w for _ in range(50)}
    assert min(drawn) >= 32 and max(drawn) <= 64 and len(drawn) > 10


def test_images_are_padded_to_the_square_that_they_are_trained_on():
    cfg = config()
    model = Trainer.build_model(cfg).eval()
    seen = []
    model.backbone.bottom_up.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    images = [{"image": torch.zeros(3, *size, dtype=torch.uint8)} for size in ((128, 64), (40, 96))]
    with torch.no_grad():
        found = model(images)
    assert seen == [(2, 3, 128, 128)]
    assert [each["instances"].image_size for each in found] == [(128, 64), (40, 96)]


def test_what_takes_less_memory_is_a_config_that_fits():
    cfg = resolve(NAME, gpus=1, cuda=False)
    hint = next(each for each in limits.smaller(cfg, 1) if each.startswith("INPUT."))
    words = hint.removesuffix(" (smaller images)").split()
    assert words[:2] == ["INPUT.LSJ.SIZE", "768"]
    small = resolve(NAME, gpus=1, cuda=False, overrides=words)
    assert small.INPUT.MAX_SIZE_TEST == small.INPUT.LSJ.SIZE == 768


def test_every_parameter_learns():
    """What gets no gradient would stop training on several GPUs."""
    cfg = config()
    model = Trainer.build_model(cfg)
    found = Instances((128, 128), gt_boxes=Boxes(torch.tensor([[10.0, 20, 60, 90]])))
    found.gt_classes, mask = torch.tensor([7]), torch.zeros(1, 128, 128, dtype=torch.bool)
    mask[0, 20:90, 10:60] = True
    found.gt_masks = BitMasks(mask)
    with EventStorage():
        sum(
            model([{"image": torch.rand(3, 128, 128) * 255, "instances": found}]).values()
        ).backward()
    unused = [key for key, each in model.named_parameters() if each.grad is None]
    assert unused == []


def test_the_heads_norm_every_position_by_itself():
    model = Trainer.build_model(config())
    box, mask = model.roi_heads.box_head, model.roi_heads.mask_head
    x = torch.randn(2, 64, 5, 5)
    for norm in (box.conv4.norm, mask.mask_fcn4.norm):
        expected = (x - x.mean(1, keepdim=True)) / (
            x.var(1, keepdim=True, unbiased=False) + 1e-6
        ) ** 0.5
        torch.testing.assert_close(norm(x), expected)
    assert not hasattr(box, "conv5") and not hasattr(box, "fc2")
    assert len(model.proposal_generator.rpn_head.conv) == 2


# What it refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("SOLVER.OPTIMIZER", "adam", "optimizer 'adam' in SOLVER.OPTIMIZER. Did you mean 'adamw'"),
        ("SOLVER.OPTIMIZER", "sgd", "LAYER_DECAY is 0.7 with SOLVER.OPTIMIZER 'sgd'; allowed: 1.0"),
        ("SOLVER.BETAS", "(0.9,)", r"SOLVER.BETAS is \(0.9,\); allowed: two numbers from 0"),
        ("SOLVER.BETAS", "(0.9, 1.0)", "SOLVER.BETAS is .*; allowed: two numbers from 0 to below"),
        ("SOLVER.LAYER_DECAY", "0.", "SOLVER.LAYER_DECAY is 0.0; allowed: more than 0, up to 1"),
        ("SOLVER.LAYER_DECAY", "1.5", "SOLVER.LAYER_DECAY is 1.5; allowed: more than 0, up to 1"),
        ("SOLVER.LAYER_DECAY", "much", "SOLVER.LAYER_DECAY is 'much'; it must be a number"),
        ("MODEL.BACKBONE.DROP_PATH", "1.", "DROP_PATH is 1.0; allowed: from 0 to below 1"),
        ("INPUT.LSJ.SIZE", "1000", "INPUT.LSJ.SIZE is 1000; allowed: a multiple of 32, to whose"),
        ("INPUT.LSJ.SIZE", "0", "INPUT.LSJ.SIZE is 0; allowed: a multiple of 32, to whose"),
        ("INPUT.LSJ.SCALE", "(2.0, 0.1)", "INPUT.LSJ.SCALE is .*; allowed: two numbers above 0"),
        (
            "INPUT.MAX_SIZE_TEST",
            "1333",
            "MAX_SIZE_TEST is 1333; allowed: up to INPUT.LSJ.SIZE, 1024",
        ),
        ("INPUT.CROP.ENABLED", "True", "INPUT.CROP.ENABLED is True with INPUT.LSJ.SIZE 1024"),
        ("SOLVER.LAYER_DECAYS", "0.7", "SOLVER.LAYER_DECAY'"),
    ],
)
def test_a_wrong_value_is_one_message(key, value, says, capsys):
    given = ["transfer", "random", "--protocol", NAME, "-o", "no", "--print-config", key, value]
    assert densessl.main(given) == 2
    message = capsys.readouterr().err
    assert re.search(says, message), message
    assert "Traceback" not in message


def test_options_that_nothing_reads_are_refused(tmp_path, scenes, capsys):
    given = ["transfer", "random", "--protocol", NAME, "--mini", "--data", str(scenes)]
    given += ["-o", str(tmp_path / "out"), "MODEL.BACKBONE.TIMM", VIT, "INPUT.MIN_SIZE_TRAIN"]
    assert densessl.main([*given, "(96,)"]) == 2
    assert "INPUT.MIN_SIZE_TRAIN is set to (96,), but nothing of this" in capsys.readouterr().err


@pytest.mark.parametrize("network", ["timm/test_convnext", "resnet50"])
def test_what_is_no_vit_is_one_message(network):
    with pytest.raises(InputError, match=f"is made of a ViT; {network} is none. Allowed: weights"):
        config(network=network)


def test_a_resnets_weights_are_refused_before_any_work(our_checkpoint, tmp_path, scenes, capsys):
    weights = our_checkpoint(tmp_path / "resnet.pth", depth=18)
    given = ["transfer", str(weights), "--protocol", NAME, "--mini", "--data", str(scenes)]
    assert densessl.main([*given, "-o", str(tmp_path / "out")]) == 2
    assert "is made of a ViT; resnet18 is none" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/trial_*"))


def test_a_random_start_is_a_vit_b():
    cfg = config(network="")
    assert cfg.MODEL.BACKBONE.TIMM == "timm/vit_base_patch16_224" and cfg.is_frozen()


# Trained ----------------------------------------------------------------------------------------


def test_a_stopped_trial_resumes_bit_for_bit(scenes, tmp_path, stops_at):
    """AdamW's two moments, the groups' rates, drop path and a jitter that leaves some images
    without an object."""
    short = {"SOLVER.MAX_ITER": 4, "SOLVER.IMS_PER_BATCH": 2, "MODEL.BACKBONE.TIMM": VIT}
    short["INPUT.LSJ.SCALE"] = "(2.0, 4.0)"

    def go(out):
        flags = ["--mini", "--trials", "1", "--data", str(scenes), "-o", str(tmp_path / out)]
        assert main.main(["random", "--protocol", NAME, *flags, *words(short)]) == 0
        folder = tmp_path / out / "trial_1"
        return torch.load(folder / "model_final.pth", weights_only=True)["model"]

    whole = go("whole")
    with stops_at(1), pytest.raises(StoppedEarly, match="stopped at step 2 of 4"):
        go("parts")
    parts = go("parts")
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


@pytest.mark.slow
def test_it_learns(our_checkpoint, four_scenes, learns, tmp_path):
    overrides = ["DATASETS.TEST", "('coco_2017_train',)", "SOLVER.MAX_ITER", "100"]
    overrides += ["INPUT.LSJ.SCALE", "(1.0, 1.0)"]  # the same four pictures in every step
    torch.manual_seed(4)
    weights = our_checkpoint(
        tmp_path / "backbone_final.pth",
        backbone=timm_networks.build(f"timm/{VIT}").state_dict(),
        config=f"BACKBONE:\n  NAME: timm/{VIT}\n",
        method="moco",
    )
    learns(NAME, "", weights, four_scenes, tmp_path, overrides, "bbox/AP50", 5)
