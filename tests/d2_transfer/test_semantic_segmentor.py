"""Whole images and sliding windows against plain references; what a batch must not change."""

from itertools import chain

import numpy as np
import pytest

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, datasets
from densessl.d2_transfer.resolve import resolve

compat.setup()
import torch  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from densessl.d2_transfer import modeling  # noqa: E402
from densessl.d2_transfer.modeling.segmentor import SlidingWindowSegmentor  # noqa: E402
from densessl.d2_transfer.modeling.sliding_window import by_windows  # noqa: E402
from densessl.d2_transfer.trainer import Trainer  # noqa: E402
from densessl.d2_transfer.windows import spans  # noqa: E402

CLASSES = 5


def build(*overrides):
    """A ResNet-18-D8 with an FCN head, with values for which every pixel matters."""
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / "voc_semseg_fcn_d8.yaml"))
    small = {
        "MODEL.DEVICE": "cpu",
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.SEM_SEG_HEAD.NORM": "BN",
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 8,
        "MODEL.SEM_SEG_HEAD.AUX_CONVS_DIM": 8,
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
    }
    cfg.merge_from_list([*chain(*small.items()), *overrides])
    torch.manual_seed(0)
    model = build_model(cfg)
    nn.init.normal_(model.sem_seg_head.main.classifier.weight, std=1.0)
    return model.eval()


def window(size, stride):
    names = ("ENABLED", "SIZE", "STRIDE")
    pairs = zip(names, (True, size, stride), strict=True)
    return [part for name, value in pairs for part in (f"TEST.SLIDING_WINDOW.{name}", value)]


def picture(h, w, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=generator)
    return {"image": image, **more}


@torch.no_grad()
def segment(model, *inputs):
    return [output["sem_seg"] for output in model(list(inputs))]


def resize(x, size, align_corners):
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


@torch.no_grad()
def network_logits(model, image):
    """``[3, h, w]`` of bytes → logits at the features' size."""
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    image = ((image.float() - mean) / std)[None]
    return model.sem_seg_head.main(model.backbone(image)["res5"])


@pytest.mark.parametrize("align_corners", [False, True])
def test_whole_logits_go_to_the_input_first_and_then_to_the_original(align_corners):
    model = build("MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", align_corners)
    given = picture(45, 70, height=91, width=139)
    logits = network_logits(model, given["image"])
    assert logits.shape == (1, CLASSES, 6, 9)
    wanted = resize(resize(logits, (45, 70), align_corners), (91, 139), align_corners)[0]
    at_once = resize(logits, (91, 139), align_corners)[0]
    (found,) = segment(model, given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found - at_once).abs().max() > 1e-2


def test_without_an_original_size_the_result_has_the_inputs():
    model = build()
    (found,) = segment(model, picture(33, 47))
    assert found.shape == (CLASSES, 33, 47)


@pytest.mark.parametrize("how", [[], window(32, 20)])
def test_a_result_does_not_depend_on_its_batch(how):
    model = build(*how)
    inputs = [picture(40, 64, 1, height=80, width=128), picture(56, 30, 2, height=50, width=27)]
    together = segment(model, *inputs)
    apart = [segment(model, each)[0] for each in inputs]
    assert [x.shape for x in together] == [(CLASSES, 80, 128), (CLASSES, 50, 27)]
    assert all(torch.equal(one, other) for one, other in zip(together, apart, strict=True))


@pytest.mark.parametrize("align_corners", [False, True])
def test_sliding_windows_are_averaged_where_they_overlap(align_corners):
    model = build(*window(33, 21), "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", align_corners)
    given = picture(61, 90, height=50, width=71)
    total = torch.zeros(CLASSES, 61, 90, dtype=torch.float64)
    count = torch.zeros(61, 90, dtype=torch.float64)
    for top in (0, 21, 28):  # 61 - 33 = 28
        for left in (0, 21, 42, 57):  # 90 - 33 = 57
            part = given["image"][:, top : top + 33, left : left + 33]
            logits = network_logits(model, part).double()
            total[:, top : top + 33, left : left + 33] += resize(logits, (33, 33), align_corners)[0]
            count[top : top + 33, left : left + 33] += 1
    assert (count.min(), count.max()) == (1, 6)  # 3 x 2 where most overlap
    wanted = resize((total / count)[None], (50, 71), align_corners)[0].float()
    torch.testing.assert_close(segment(model, given)[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("height, width", [(30, 25), (48, 48), (20, 48)])
def test_an_image_within_one_window_is_a_whole_image(height, width):
    given = picture(height, width, height=60, width=60)
    (sliding,) = segment(build(*window(48, 32)), given)
    (whole,) = segment(build(), given)
    assert torch.equal(sliding, whole)


@pytest.mark.parametrize(
    "length, size, stride, wanted",
    [
        (1025, 769, 513, [(0, 769), (256, 1025)]),
        (2049, 769, 513, [(0, 769), (513, 1282), (1026, 1795), (1280, 2049)]),
        (1024, 769, 513, [(0, 769), (255, 1024)]),
        (769, 769, 513, [(0, 769)]),
        (770, 769, 513, [(0, 769), (1, 770)]),
        (500, 769, 513, [(0, 500)]),
        (1282, 769, 513, [(0, 769), (513, 1282)]),
    ],
)
def test_the_grid_is_mmsegmentations(length, size, stride, wanted):
    assert spans(length, size, stride) == wanted


@pytest.mark.parametrize("size, stride", [(7, 1), (7, 4), (7, 7), (3, 2)])
def test_windows_cover_every_pixel_with_none_too_many(size, stride):
    for length in range(1, 40):
        found = spans(length, size, stride)
        covered = {pixel for start, end in found for pixel in range(start, end)}
        assert covered == set(range(length))
        assert {end - start for start, end in found} == {min(size, length)}
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("stride", [0, 34])
def test_windows_that_leave_gaps_are_refused(stride):
    with pytest.raises(InputError, match=f"TEST.SLIDING_WINDOW.STRIDE is {stride}"):
        build(*window(33, stride))


def test_training_returns_the_losses_and_evaluation_needs_no_labels():
    model = build().train()
    labels = torch.zeros(32, 40, dtype=torch.long)
    losses = model([picture(32, 40, seed, sem_seg=labels) for seed in range(2)])
    assert set(losses) == {"loss_sem_seg", "loss_aux"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert isinstance(model, modeling.FCNSegmentor)


def test_images_of_several_sizes_are_padded_with_ignored_pixels_in_training():
    model = build("MODEL.SEM_SEG_HEAD.DROPOUT", 0.0).train()
    labels = torch.randint(0, CLASSES, (32, 40), generator=torch.Generator().manual_seed(3))
    small, large = picture(16, 24, 1), picture(32, 40, 2, sem_seg=labels)
    small["sem_seg"] = labels[:16, :24]
    losses = model([small, large])
    image = torch.stack([torch.zeros(3, 32, 40), large["image"].float()])
    image[0] = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    image[0, :, :16, :24] = small["image"].float()
    padded = torch.full((32, 40), 255)
    padded[:16, :24] = small["sem_seg"]
    alike = model([{"image": image[0], "sem_seg": padded}, {"image": image[1], "sem_seg": labels}])
    torch.testing.assert_close(losses, alike)


def semantic_fpn(*overrides):
    """Config and model of a miniature of ade20k_semseg's Semantic FPN, on a ResNet-18."""
    words = [*("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64")]
    words += map(str, overrides)
    cfg = resolve("ade20k_semseg", "semantic_fpn", 1, mini=True, cuda=False, overrides=words)
    torch.manual_seed(0)
    return cfg, Trainer.build_model(cfg).eval()


def test_windows_of_a_semantic_fpn_are_seen_as_images_of_their_own():
    """And averaged where they overlap, before they are resized to the original."""
    cfg, model = semantic_fpn(*window(40, 24))
    given = picture(64, 88, height=50, width=71)
    total, count = torch.zeros(2, 150, 64, 88, dtype=torch.float64)
    for top in (0, 24):
        for left in (0, 24, 48):
            part = given["image"][:, top : top + 40, left : left + 40]
            (logits,) = segment(model, {"image": part, "height": 40, "width": 40})
            total[:, top : top + 40, left : left + 40] += logits.double()
            count[:, top : top + 40, left : left + 40] += 1
    assert (count.min(), count.max()) == (1, 4)
    wanted = resize((total / count)[None], (50, 71), False)[0].float()
    slid = by_windows(cfg, model)
    assert isinstance(slid, SlidingWindowSegmentor)
    other = picture(40, 33, seed=1, height=80, width=66)
    found, alone = segment(slid, given, other)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    (whole,) = segment(model, given)
    assert (found - whole).abs().max() > 1e-2
    assert torch.equal(alone, segment(model, other)[0])  # within one window


def test_a_window_as_large_as_the_image_gives_a_semantic_fpns_very_numbers(few_scenes, tmp_path):
    """The protocol's metrics through the evaluator; smaller windows give others."""
    datasets.register(few_scenes)
    found = {}
    for how in ([], window(128, 128), window(48, 32)):
        cfg, model = semantic_fpn(*how)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = str(tmp_path)
        nn.init.normal_(model.sem_seg_head.predictor.weight, std=1.0)
        found[len(found)] = dict(Trainer.test(cfg, model))
    assert "mIoU" in found[0]["sem_seg"]
    np.testing.assert_equal(found[1], found[0])
    assert found[2]["sem_seg"]["pACC"] != found[0]["sem_seg"]["pACC"]
