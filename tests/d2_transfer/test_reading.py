"""Transfer's images: the pixels that pretraining sees, in every kind of protocol."""

import copy
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import classification, compat, image_range, results, trials
from densessl.d2_transfer.classification.images import Images, packed
from densessl.d2_transfer.datasets.reading import Reading
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.weights import Weights
from densessl.decoding import decode
from tests.decoding.images import png16

compat.setup()
from detectron2.data import DatasetCatalog, DatasetMapper  # noqa: E402
from detectron2.structures import BoxMode, PolygonMasks  # noqa: E402

from densessl.d2_transfer import datasets  # noqa: E402
from densessl.d2_transfer.datasets.detection_mapper import DetectionMapper  # noqa: E402
from densessl.d2_transfer.datasets.semantic_mapper import SemanticMapper  # noqa: E402


def config(protocol, *overrides):
    return resolve(protocol, gpus=1, mini=True, overrides=overrides, cuda=False)


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def same(one, other):
    """Two outputs of mappers, bit for bit."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if key == "instances":
            a, b = value.get_fields(), other[key].get_fields()
            assert a.keys() == b.keys() and value.image_size == other[key].image_size
            for name in a:
                if isinstance(a[name], PolygonMasks):
                    for ours, theirs in zip(a[name].polygons, b[name].polygons, strict=True):
                        assert all((x == y).all() for x, y in zip(ours, theirs, strict=True))
                else:
                    held = [getattr(each, "tensor", each) for each in (a[name], b[name])]
                    assert torch.equal(*held)
        elif torch.is_tensor(value):
            assert torch.equal(value, other[key])
        else:
            assert value == other[key]


@pytest.mark.parametrize(
    ("protocol", "data_set"),
    [
        ("voc_det_c4", "voc_2007_trainval"),
        ("coco_mask_fpn_1x", "coco_2017_train"),
        ("coco_keypoint_fpn_1x", "keypoints_coco_2017_train"),
        ("cityscapes_inst", "cityscapes_fine_instance_seg_train"),
    ],
)
def test_eight_bits_give_detectron2s_own_mapping_bit_for_bit(protocol, data_set, scenes):
    cfg = config(protocol)
    datasets.register(scenes)
    for entry in DatasetCatalog.get(data_set)[:3]:
        for training in (True, False):
            mapped = []
            for kind in (DetectionMapper, DatasetMapper):
                np.random.seed(5)  # noqa: NPY002  (what Detectron2's augmentations draw from)
                mapped.append(kind(cfg, training)(copy.deepcopy(entry)))
            same(*mapped)


@pytest.fixture
def turned(tmp_path):
    """A JPEG that is stored as 40 x 60 and stands upright as 60 x 40."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(picture(40, 60))
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    return tmp_path / "a.jpg"


def entry_of(file, width, height, box=(10, 5, 30, 25)):
    x1, y1, x2, y2 = box
    polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    return {
        "file_name": str(file),
        "image_id": 1,
        "width": width,
        "height": height,
        "annotations": [
            {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
            | {"segmentation": [[float(v) for v in polygon]], "iscrowd": 0}
        ],
    }


PLAIN = ("INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.MAX_SIZE_TRAIN", "60", "INPUT.RANDOM_FLIP", "none")


def test_annotations_are_those_of_the_upright_picture(turned):
    mapper = DetectionMapper(config("coco_mask_fpn_1x", *PLAIN), True)
    mapped = mapper(entry_of(turned, 60, 40))
    assert mapped["image"].shape == (3, 40, 60)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[10, 5, 30, 25]]
    with pytest.raises(InputError, match=r"a.jpg has 60x40 pixels, .*of 40x60.*EXIF"):
        mapper(entry_of(turned, 40, 60))


def test_segmentation_compares_labels_with_the_upright_picture(turned, tmp_path):
    cfg = config("voc_semseg")
    for size, fits in (((60, 40), True), ((40, 60), False)):
        Image.new("L", size).save(tmp_path / "labels.png")
        entry = {"file_name": str(turned), "sem_seg_file_name": str(tmp_path / "labels.png")}
        if fits:
            SemanticMapper(cfg, True)(entry)
        else:
            with pytest.raises(InputError, match="60x40"):
                SemanticMapper(cfg, True)(entry)


@pytest.mark.parametrize("mask", ["polygon", "bitmask"])
def test_annotations_shrink_with_an_image_that_is_read_at_reduced_scale(mask, tmp_path):
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[100:300, 200:400] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sizes = ("INPUT.MIN_SIZE_TRAIN", "(100,)", "INPUT.MAX_SIZE_TRAIN", "150")
    sizes += ("INPUT.RANDOM_FLIP", "none", "INPUT.MASK_FORMAT", mask)
    entry = entry_of(tmp_path / "a.png", 600, 400, box=(200, 100, 400, 300))
    if mask == "bitmask":
        from pycocotools import mask as coco_mask

        encoded = coco_mask.encode(np.asfortranarray(pixels[:, :, 0] // 255))
        entry["annotations"][0]["segmentation"] = encoded
    for most in ("0", "60000", "15000"):
        cfg = config("coco_mask_fpn_1x", *sizes, "INPUT.MAX_PIXELS", most)
        mapped = DetectionMapper(cfg, True)(entry)
        assert (mapped["width"], mapped["height"]) == (600, 400)
        assert mapped["image"].shape == (3, 100, 150)
        assert mapped["instances"].gt_boxes.tensor.tolist() == [[50, 25, 100, 75]]
        bright = mapped["image"][0] > 127
        assert bright.nonzero().aminmax(dim=0).min.tolist() == [25, 50]
        if mask == "bitmask":
            assert (mapped["instances"].gt_masks.tensor[0] == bright).float().mean() > 0.98
        tested = DetectionMapper(cfg, False)(entry)
        assert (tested["width"], tested["height"]) == (600, 400)


def test_labels_fit_an_image_that_is_read_at_reduced_scale(tmp_path):
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[100:300, 200:400] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[:, :, 0] // 255).save(tmp_path / "labels.png")
    entry = {
        "file_name": str(tmp_path / "a.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
    }
    options = ("INPUT.RANDOM_FLIP", "none", "INPUT.PHOTOMETRIC_DISTORTION", "False")
    cfg = config("voc_semseg", *options, "INPUT.MAX_PIXELS", "60000")
    np.random.seed(1)  # noqa: NPY002
    mapped = SemanticMapper(cfg, True)(entry)
    labels, bright = mapped["sem_seg"], mapped["image"][0] > 127
    shown = labels != 255
    assert (labels[shown].bool() == bright[shown]).float().mean() > 0.97
    assert (mapped["width"], mapped["height"]) == (600, 400)


# ---- one decoder ----

KINDS = {
    "thermal": lambda eight: 7000 + eight.astype(np.uint16) * 8,
    "12 bits": lambda eight: eight.astype(np.uint16) * 16,
    "floats": lambda eight: eight.astype(np.float32) / 255,
    "8 bits": lambda eight: eight,
}


def write(file, values):
    if values.dtype == np.uint16:
        file.write_bytes(png16(values))
    else:
        Image.fromarray(values).save(file, "TIFF" if values.dtype == np.float32 else "PNG")


@pytest.mark.parametrize("kind", KINDS)
def test_all_rooms_see_the_same_pixels(kind, tmp_path):
    from densessl.pretrain.engine.online_knn import ClassFolders
    from densessl.pretrain.views import ImageSource, ViewDataset, ViewRecipe

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.png", KINDS[kind](picture(32, 32)))
    file, bounds = tmp_path / "one" / "a.png", (7000, 9040) if kind == "thermal" else (0, 4080)
    bounds = (0, 1) if kind == "floats" else bounds
    expected = np.asarray(decode(file, bounds).image)
    assert (expected == picture(32, 32)[:, :, None]).all()

    whole = (ViewRecipe(scale=(1, 1), ratio=(1, 1), flip=0.0),)
    view = ViewDataset(ImageSource(tmp_path / "one", ["a.png"], ""), whole, 32, 0, bounds=bounds)
    assert (view[0, 0].image[0].permute(1, 2, 0).numpy() == expected).all()
    resized = ClassFolders(tmp_path, 0, 28, "KNN.VAL", bounds)[0][0]  # of 32 the middle 28
    assert (resized.permute(1, 2, 0).numpy() == expected[2:30, 2:30]).all()
    images = Images("", tmp_path, packed(["one/a.png"]), np.zeros(1, int), ("one",), bounds=bounds)
    assert (np.asarray(images.open(0)) == expected).all()
    text = ",".join(map(str, bounds))
    for protocol, mapper in (("voc_det_c4", DetectionMapper), ("voc_semseg", SemanticMapper)):
        cfg = config(protocol, "INPUT.RANGE", text)
        pixels, size = mapper(cfg, False).read(file)
        order = slice(None, None, -1 if cfg.INPUT.FORMAT == "BGR" else 1)
        assert size == (32, 32) and (pixels[:, :, order] == expected).all()


def test_an_unreadable_image_is_named_with_its_reason(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.jpg cannot be read: empty \(0 bytes\)"):
        Reading("BGR", None, 0)(tmp_path / "a.jpg")


# ---- which range ----


def of_weights(bounds):
    return Weights("", "w", "", "moco", {"range": list(bounds)} if bounds else {})


@pytest.mark.parametrize(
    ("given", "of", "expected"),
    [
        ("", None, "0 to 4095"),  # from the training images
        ("", (7000, 9000), "7000 to 9000"),  # the weights' pretraining's
        ("auto", (7000, 9000), "0 to 4095"),
        ("100,3000", (7000, 9000), "100 to 3000"),
        ("(0.5, 1.5)", None, "0.5 to 1.5"),
    ],
)
def test_which_range_a_protocol_takes(given, of, expected, tmp_path, caplog):
    write(tmp_path / "a.png", KINDS["12 bits"](picture(32, 32)))
    cfg = config("voc_det_c4", *(("INPUT.RANGE", given) if given else ()))
    with caplog.at_level(logging.INFO):
        settled = image_range.settle(
            cfg, of_weights(of).bounds, lambda: [tmp_path / "a.png"], says=True
        )
    assert expected == settled.INPUT.RANGE and settled.is_frozen()
    assert f"{expected.replace(' to ', ',')} become black and white" in caplog.text


@pytest.mark.parametrize(
    ("of", "warns"),
    [((0, 4095), False), ((0, 5000), False), ((7000, 9000), True), ((0, 65535), True)]
    + [((0, 1000), True), ((500, 3500), False)],
)
def test_a_range_that_hides_the_images_is_told_with_theirs(of, warns, tmp_path, caplog):
    write(tmp_path / "a.png", KINDS["12 bits"](picture(32, 32)))
    image_range.settle(config("voc_det_c4"), of, lambda: [tmp_path / "a.png"], says=True)
    assert ("INPUT.RANGE auto takes 0,4095" in caplog.text) == warns


def test_eight_bits_leave_the_config_as_it_was(tmp_path):
    write(tmp_path / "a.png", picture(32, 32))
    cfg = config("voc_det_c4")
    settled = image_range.settle(cfg, None, lambda: [tmp_path / "a.png"], says=True)
    assert settled == cfg


def test_new_options_at_their_defaults_do_not_make_another_experiment():
    """A folder of trials from before they were there resumes."""
    held = {
        "INPUT": {"FORMAT": "BGR", "RANGE": "", "MAX_PIXELS": config("voc_det_c4").INPUT.MAX_PIXELS}
    }
    before = {"INPUT": {"FORMAT": "BGR"}}
    assert results.config_fingerprint(held) == results.config_fingerprint(before)
    held["INPUT"]["RANGE"] = "0,4095"
    assert results.config_fingerprint(held) != results.config_fingerprint(before)


@pytest.mark.parametrize("protocol", ["voc_det_c4", "knn"])
@pytest.mark.parametrize("value", ["9,3", "dark", "1,2,3"])
def test_a_wrong_range_is_refused(protocol, value):
    with pytest.raises(InputError, match="INPUT.RANGE is .*allowed: auto"):
        resolve(protocol, gpus=1, mini=True, overrides=["INPUT.RANGE", value], cuda=False)


def labelled(folder, values_of):
    """Class folders: a class is a coarse pattern, an image a noisy one."""
    for split, count in (("train", 12), ("val", 6)):
        for label in range(3):
            place = folder / "set" / split / f"class{label}"
            place.mkdir(parents=True)
            for n in range(count):
                rng = np.random.default_rng((label, n, count))
                noisy = picture(24, 24, seed=label) + rng.normal(0, 25, (24, 24))
                write(place / f"{n}.png", values_of(noisy.clip(0, 255).astype(np.uint8)))
    return folder


def knn(folder, out, *overrides):
    words = ["INPUT.SIZE", "16", "INPUT.RESIZE", "16", "MODEL.BACKBONE", "resnet18"]
    words += ["DATASETS.NAME", "folder", "DATASETS.FOLDER", "set", "KNN.KS", "(5,)", "KNN.K", "5"]
    cfg = classification.resolve("knn", None, 1, True, [*words, *overrides], False)
    cfg = image_range.settle(
        cfg, None, lambda: classification.training_files(cfg, folder), says=False
    )
    run = trials.Run(
        folder=out,
        protocol="knn",
        variant="",
        mini=True,
        weights=classification.prepare("random", out, cfg),
        data=classification.check_data(cfg, folder),
    )
    (record,), failed = trials.run_trials(run, cfg, 1, 1, classification.run_trial)
    assert not failed
    return record


def test_knn_of_sixteen_bits_is_that_of_the_same_pictures_in_eight(tmp_path):
    found = {}
    kinds = KINDS | {"16 bits": lambda eight: eight.astype(np.uint16) * 257}
    for kind, values_of in kinds.items():
        folder = labelled(tmp_path / kind, values_of)
        found[kind] = knn(folder, tmp_path / f"out {kind}")
    eight = found.pop("8 bits")
    assert eight.metrics["knn/top1"] > 80 and not eight.range  # of chance 33
    for kind, record in found.items():
        assert record.metrics["knn/top1"] == pytest.approx(eight.metrics["knn/top1"], abs=6), kind
        assert len(record.range) == 2
    assert found["16 bits"].metrics == eight.metrics and found["16 bits"].range == [0, 65535]
    assert results.load(tmp_path / "out 16 bits" / "trial_1").range == [0, 65535]


@pytest.mark.parametrize("out", ["weights.pkl", "weights.pth", "weights.safetensors"])
def test_converted_weights_keep_the_range_of_their_pretraining(out, our_checkpoint, tmp_path):
    from densessl.d2_transfer import convert

    facts = {"dataset": "thermal", "images": 40, "epochs": 2, "range": [7000.0, 9000.0]}
    source = our_checkpoint(tmp_path / "ours.pth", pretrain=facts, range=[7000.0, 9000.0])
    report = convert.convert(source, tmp_path / out)
    assert report.pretrain["range"] == [7000, 9000] and "range [7000.0, 9000.0]" in str(report)
    again = convert.convert(tmp_path / out, tmp_path / "again.pth")
    assert again.pretrain["range"] == [7000, 9000]
    cfg = classification.resolve("knn", None, 1, True, ["MODEL.BACKBONE", "resnet18"], False)
    for named in (source, tmp_path / out):
        assert classification.prepare(str(named), tmp_path, cfg).bounds == (7000, 9000)


def test_an_evaluation_alone_takes_the_range_of_the_trial(tmp_path):
    (tmp_path / "config.yaml").write_text("INPUT:\n  RANGE: 7000 to 9000\n")
    assert image_range.of_trial(tmp_path / "model_final.pth") == (7000, 9000)
    for text in ("INPUT:\n  RANGE: ''\n", "INPUT:\n  FORMAT: BGR\n", "", "7"):
        (tmp_path / "config.yaml").write_text(text)
        assert image_range.of_trial(tmp_path / "model_final.pth") is None
