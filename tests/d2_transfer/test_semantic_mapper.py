"""What the mapper makes of files, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.datasets.semantic_mapper import SemanticMapper, read_labels

CROP = ["INPUT.CROP.SIZE", [48, 40], "INPUT.SCALE", (120, 60)]
PLAIN = ["INPUT.PHOTOMETRIC_DISTORTION", False, "INPUT.RANDOM_FLIP", "none"]


def config(*overrides, name="voc_semseg_fcn_d8"):
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / f"{name}.yaml"))
    cfg.merge_from_list(list(overrides))
    return cfg


@pytest.fixture
def files(tmp_path):
    """A picture of 64x48, and a palette mask whose colours are not its indices."""
    generator = np.random.default_rng(0)
    labels = np.asarray(
        Image.fromarray(generator.integers(0, 21, (6, 8), dtype=np.uint8)).resize((64, 48), 0)
    ).copy()
    labels[:2] = 255
    image = np.stack([labels, 255 - labels, labels // 2], 2)
    Image.fromarray(image).save(tmp_path / "image.png")
    mask = Image.fromarray(labels).convert("L")
    mask.putpalette(generator.integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert mask.mode == "P"
    mask.save(tmp_path / "mask.png")
    given = {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "mask.png"),
        "image_id": 7,
    }
    return given, image, labels


def mapped(mapper, given, seed=0):
    np.random.seed(seed)  # noqa: NPY002  (what the loader does)
    return mapper(given)


def test_palette_masks_give_their_indices(files):
    given, _, labels = files
    assert np.array_equal(read_labels(given["sem_seg_file_name"]), labels)


def test_grey_masks_give_their_values(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(labels).save(tmp_path / "mask.png")
    assert np.array_equal(read_labels(str(tmp_path / "mask.png")), labels)


def test_masks_of_one_bit_give_their_values(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "mask.png")
    assert np.array_equal(read_labels(str(tmp_path / "mask.png")), np.eye(4))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_of_colours_are_refused(mode, tmp_path):
    Image.new(mode, (4, 4)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask.png is an? (picture in colour|image of mode)"):
        read_labels(str(tmp_path / "mask.png"))


def test_a_training_sample_has_the_crops_size_and_types(files):
    given, _, labels = files
    before = dict(given)
    mapper = SemanticMapper(config(*CROP), is_train=True)
    for seed in range(8):
        found = mapped(mapper, given, seed)
        image, sem_seg = found["image"], found["sem_seg"]
        assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 48, 40))
        assert (sem_seg.dtype, tuple(sem_seg.shape)) == (torch.long, (48, 40))
        assert set(sem_seg.unique().tolist()) <= set(np.unique(labels).tolist())
        assert (found["height"], found["width"], found["image_id"]) == (48, 64, 7)
    assert given == before


def test_small_images_are_padded_with_the_mean_and_ignored(files):
    given, *_ = files
    cfg = config(*CROP, *PLAIN, "INPUT.RATIO_RANGE", (0.5, 0.5))
    found = mapped(SemanticMapper(cfg), given)  # 64x48 becomes 40x30
    assert found["image"][:, 30:].flatten(1).unique(dim=1).flatten().tolist() == [124, 116, 104]
    assert (found["sem_seg"][30:] == 255).all()
    assert (found["sem_seg"][8:30] != 255).all()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    assert ((found["image"][:, 30:] - mean) / std).abs().max() < 0.01


def test_without_randomness_the_sample_is_the_file(files):
    given, image, labels = files
    cfg = config(*PLAIN, "INPUT.SCALE", (), "INPUT.RATIO_RANGE", (1.0, 1.0))
    cfg.INPUT.CROP.ENABLED = False
    found = mapped(SemanticMapper(cfg), given)
    assert np.array_equal(found["image"].numpy(), image.transpose(2, 0, 1))
    assert np.array_equal(found["sem_seg"].numpy(), labels)


@pytest.mark.parametrize("flip, axis", [("horizontal", 1), ("vertical", 0)])
def test_flips_take_the_labels_along_half_the_time(flip, axis, files):
    given, image, labels = files
    cfg = config("INPUT.SCALE", (), "INPUT.RATIO_RANGE", (1.0, 1.0), "INPUT.RANDOM_FLIP", flip)
    cfg.INPUT.CROP.ENABLED = cfg.INPUT.PHOTOMETRIC_DISTORTION = False
    mapper, flipped = SemanticMapper(cfg), 0
    for seed in range(60):
        found = mapped(mapper, given, seed)
        was = not np.array_equal(found["sem_seg"].numpy(), labels)
        wanted = [np.flip(x, axis) if was else x for x in (image, labels)]
        assert np.array_equal(found["image"].numpy(), wanted[0].transpose(2, 0, 1))
        assert np.array_equal(found["sem_seg"].numpy(), wanted[1])
        flipped += was
    assert 18 < flipped < 42


def test_image_and_labels_are_cropped_together(files):
    """The picture's red is its labels: where all neighbours agree, so must the sample."""
    given, *_ = files
    mapper = SemanticMapper(config(*CROP, "INPUT.PHOTOMETRIC_DISTORTION", False))
    for seed in range(10):
        found = mapped(mapper, given, seed)
        inside = found["sem_seg"] != 255
        red = found["image"][0].long()
        assert ((red == found["sem_seg"]) | ~inside).double().mean() > 0.6
        shifted = (red.roll(7, 1) == found["sem_seg"]) | ~inside
        assert shifted.double().mean() < 0.55


def test_the_seed_of_numpy_settles_the_sample(files):
    given, *_ = files
    mapper = SemanticMapper(config(*CROP))
    one, again, other = (mapped(mapper, given, seed) for seed in (1, 1, 2))
    assert torch.equal(one["image"], again["image"])
    assert torch.equal(one["sem_seg"], again["sem_seg"])
    assert not torch.equal(one["image"], other["image"])
    np.random.seed(1)  # noqa: NPY002
    first, second = mapper(given), mapper(given)
    assert not torch.equal(first["image"], second["image"])


def test_evaluation_resizes_into_the_scale_and_keeps_the_originals_size(files):
    given, *_ = files
    found = mapped(SemanticMapper(config(*CROP), is_train=False), given)
    assert (found["image"].dtype, tuple(found["image"].shape)) == (torch.uint8, (3, 60, 80))
    assert (found["height"], found["width"]) == (48, 64)
    assert "sem_seg" not in found
    assert found["sem_seg_file_name"] == given["sem_seg_file_name"]
    own = mapped(SemanticMapper(config(name="voc_semseg_moco_fcn"), is_train=False), given)
    assert np.array_equal(own["image"].numpy(), files[1].transpose(2, 0, 1))


def test_a_label_beyond_the_classes_is_refused(files):
    given, *_ = files
    mapper = SemanticMapper(config(*CROP, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3))
    with pytest.raises(InputError, match=r"mask.png has the label \d+; allowed: 0 to 2"):
        mapped(mapper, given)


def test_labels_of_another_size_are_refused(files, tmp_path):
    given, *_ = files
    Image.new("L", (63, 48)).save(tmp_path / "other.png")
    given = given | {"sem_seg_file_name": str(tmp_path / "other.png")}
    with pytest.raises(InputError, match="other.png has 63x48 pixels, its image .* 64x48"):
        mapped(SemanticMapper(config(*CROP)), given)


@pytest.mark.parametrize(
    "key, value",
    [
        ("INPUT.RANDOM_FLIP", "horizontl"),
        ("INPUT.SCALE", (512,)),
        ("INPUT.RATIO_RANGE", (2.0, 0.5)),
        ("INPUT.RATIO_RANGE", (0.0, 0.5)),
        ("INPUT.CROP.TYPE", "relative_range"),
        ("INPUT.CROP.SIZE", [0.9, 0.9]),
        ("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.0),
    ],
)
def test_config_values_without_a_meaning_are_refused(key, value):
    with pytest.raises(InputError, match=key.rpartition(".")[2].split("_")[0]):
        SemanticMapper(config(key, value))
