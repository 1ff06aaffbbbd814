"""Config, mapper, model, optimizer and schedule together: a small FCN learns a few pictures."""

from itertools import chain

import numpy as np
import pytest
from PIL import Image

from densessl.configs import FOLDER
from densessl.d2_transfer import compat

compat.setup()
import torch  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.solver import build_optimizer  # noqa: E402

from densessl.d2_transfer import (  # noqa: E402, F401  (modeling registers the segmentor)
    modeling,
    solver,
)
from densessl.d2_transfer.datasets.semantic_mapper import SemanticMapper  # noqa: E402

STEPS = 20
COLOURS = np.array([[60, 60, 60], [220, 60, 50], [50, 190, 70], [60, 80, 230]], np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four pictures of 80x72 with a noisy colour for each of four categories."""
    folder = tmp_path_factory.mktemp("semantic")
    generator = np.random.default_rng(0)
    dicts = []
    for number in range(4):
        blocks = generator.integers(0, 4, (3, 3), dtype=np.uint8)
        labels = np.asarray(Image.fromarray(blocks).resize((80, 72), Image.Resampling.NEAREST))
        image = COLOURS[labels] + generator.integers(-25, 25, (72, 80, 3))
        names = {"file_name": f"{number}.png", "sem_seg_file_name": f"{number}_labels.png"}
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / names["file_name"])
        Image.fromarray(labels).save(folder / names["sem_seg_file_name"])
        dicts.append({key: str(folder / name) for key, name in names.items()})
    return dicts


def config(*overrides):
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / "voc_semseg_fcn_d8.yaml"))
    small = {
        "MODEL.DEVICE": "cpu",
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.SEM_SEG_HEAD.NORM": "BN",
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
        "MODEL.SEM_SEG_HEAD.AUX_CONVS_DIM": 16,
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4,
        "INPUT.SCALE": (80, 72),
        "INPUT.CROP.SIZE": [64, 64],
        "INPUT.RATIO_RANGE": (0.8, 1.3),
        "SOLVER.MAX_ITER": STEPS,
        "SOLVER.BASE_LR": 0.3,
    }
    cfg.merge_from_list([*chain(*small.items()), *overrides])
    return cfg


@pytest.fixture(scope="module")
def trained(pictures):
    """The model after training, and the loss of each step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (the mapper's source)
    cfg = config()
    model, mapper = build_model(cfg).train(), SemanticMapper(cfg)
    optimizer = build_optimizer(cfg, model)
    scheduler = solver.build_lr_scheduler(cfg, optimizer)
    losses = []
    for _ in range(STEPS):
        found = model([mapper(each) for each in pictures])
        loss = sum(found.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(found["loss_sem_seg"].item())
    return model.eval(), losses


@torch.no_grad()
def classes(model, cfg, dicts):
    mapper = SemanticMapper(cfg, is_train=False)
    return [output["sem_seg"].argmax(0).numpy() for output in model([mapper(d) for d in dicts])]


def test_the_loss_falls(trained):
    _, losses = trained
    assert losses[0] == pytest.approx(np.log(4), abs=0.15)  # the classifier starts near zero
    assert np.mean(losses[-4:]) < 0.5 * losses[0]


def test_it_recognises_what_it_has_learnt(trained, pictures):
    model, _ = trained
    labels = [np.asarray(Image.open(each["sem_seg_file_name"])) for each in pictures]
    found = classes(model, config(), pictures)
    right = np.mean([np.mean(a == b) for a, b in zip(found, labels, strict=True)])
    assert right > 0.6  # a quarter by chance


def test_whole_and_sliding_agree_where_one_window_is_enough(trained, pictures):
    model, _ = trained
    whole = classes(model, config(), pictures)
    try:
        model.window = (80, 40)
        enough = classes(model, config(), pictures)
        model.window = (48, 32)
        slid = classes(model, config(), pictures)
    finally:
        model.window = None
    assert all(np.array_equal(a, b) for a, b in zip(whole, enough, strict=True))
    assert np.mean([np.mean(a == b) for a, b in zip(whole, slid, strict=True)]) > 0.7
