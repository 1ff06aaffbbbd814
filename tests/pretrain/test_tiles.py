"""Large images as tiles (DATA.TILE): which there are, what a sample sees, a run from them."""

import json
import tarfile
import time

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.pretrain import audit, config
from densessl.pretrain.advise import look
from densessl.pretrain.main import main
from densessl.pretrain.views import ImageSource, build_source
from densessl.pretrain.views.dataset import build_dataset
from densessl.pretrain.views.tiles import read_headers
from tests.decoding.images import tiff_in_tiles, tiff_of_channels

rng = np.random.default_rng(0)
SLIDE = np.asarray(Image.fromarray(rng.integers(0, 256, (18, 25, 3), np.uint8)).resize((250, 180)))
TILE = 64
# of 250 x 180 px: the last column and the last row begin further in
COLUMNS, ROWS = (0, 64, 128, 186), (0, 64, 116)


@pytest.fixture
def slides(tmp_path):
    """A TIFF and a JPEG of 12 tiles each, and an image that is smaller than one."""
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "a.tif").write_bytes(tiff_in_tiles(SLIDE, 32))
    Image.fromarray(SLIDE).save(folder / "b.jpg", quality=95, restart_marker_rows=1)
    Image.fromarray(SLIDE[:40, :60]).save(folder / "c.png")
    return folder


def options(folder, *words):
    overrides = ["DATA.PATH", str(folder), "DATA.TILE", str(TILE), "VIEWS.SIZE", "32"]
    return config.load("moco_v2", [*overrides, *words])


def test_tiles_cover_an_image_and_have_one_size(slides):
    source = build_source(options(slides))
    assert len(source) == 25
    places = [source.name(n).partition("#xywh=")[::2] for n in range(25)]
    expected = [f"{x},{y},64,64" for y in ROWS for x in COLUMNS]
    assert [place for name, place in places if name == "a.tif"] == expected
    assert places[24] == ("c.png", "") and source.path(24) == str(slides / "c.png")
    assert source.path(1) == f"{slides}/a.tif#xywh=64,0,64,64"
    with pytest.raises(IndexError):
        source.name(25)


def test_a_sample_is_its_tile(slides):
    cfg = options(slides)
    dataset = build_dataset(cfg, build_source(cfg), None)
    boxes = [(x, y) for y in ROWS for x in COLUMNS]
    with Image.open(slides / "b.jpg") as image:
        jpeg = np.asarray(image)
    for n, (x, y) in enumerate(boxes):
        np.testing.assert_array_equal(dataset.values(n), SLIDE[y : y + TILE, x : x + TILE])
        np.testing.assert_array_equal(dataset.values(12 + n), jpeg[y : y + TILE, x : x + TILE])
    assert dataset.values(24).shape == (40, 60, 3)
    sample = dataset[0, 3]
    assert sample.size.tolist() == [TILE, TILE] and sample.box.max() <= TILE


def test_the_fingerprint_is_of_the_tiles(slides):
    before = build_source(options(slides)).fingerprint()
    assert build_source(options(slides)).fingerprint() == before
    assert build_source(options(slides, "DATA.TILE", "96")).fingerprint() != before
    (slides / "a.tif").write_bytes(tiff_in_tiles(SLIDE[:170], 32))
    assert build_source(options(slides)).fingerprint() != before


def test_shards_and_several_folders_have_tiles_too(slides, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "d.tif").write_bytes(tiff_in_tiles(SLIDE, 32))
    assert len(build_source(options(f"{slides}:{other}"))) == 37
    with tarfile.open(tmp_path / "slides.tar", "w") as tar:
        for name in ("a.tif", "b.jpg", "c.png"):
            tar.add(slides / name, name)
    cfg = options(tmp_path / "slides.tar", "DATA.SOURCE", "shards")
    dataset = build_dataset(cfg, build_source(cfg), None)
    assert len(dataset) == 25
    np.testing.assert_array_equal(dataset.values(5), SLIDE[64:128, 64:128])


def test_headers_are_read_by_several_processes_alike(slides, caplog):
    sizes = [tiff_in_tiles(SLIDE[:height], 90) for height in (60, 70, 150)]
    for n in range(20):
        (slides / f"d{n:03d}.tif").write_bytes(sizes[n % 3])
    one, many = (build_source(options(slides, "DATA.WORKERS", n)) for n in "02")
    assert one.fingerprint() == many.fingerprint() and len(one) == len(many)


def test_an_image_without_a_readable_header_is_one_sample_that_fails(slides):
    (slides / "b.jpg").write_bytes(b"no image")
    cfg = options(slides)
    dataset = build_dataset(cfg, build_source(cfg), None)
    assert len(dataset) == 14
    assert dataset[0, 12].unreadable == [12] and "no image" in dataset.reason(12)


class Hanging(ImageSource):
    """Its second image lies on a disk that does not answer."""

    def open(self, index):
        if index == 1:
            time.sleep(600)
        return super().open(index)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_header_that_does_not_come_ends_the_run(slides, workers):
    source = Hanging(slides, ["a.tif", "b.jpg", *["c.png"] * 20], "here")
    with pytest.raises(EnvironmentLacks, match=r"header of .*b.jpg has not been .* 0.3 s \(DATA"):
        read_headers(source, 3, workers, 0.3)


def test_formats_that_are_decoded_whole_are_named(slides, caplog):
    caplog.set_level("INFO", "densessl")
    build_source(options(slides))
    assert "25 tiles of 64 px (DATA.TILE) from 3 images; larger than a tile: 2" in caplog.text
    assert "decoded whole" not in caplog.text
    Image.fromarray(SLIDE).save(slides / "d.png")
    build_source(options(slides))
    assert (
        f"{slides}/d.png can only be decoded whole, for each of its tiles anew (1 image"
        in caplog.text
    )


@pytest.mark.parametrize(
    "tile, words",
    [
        (31, r"DATA.TILE is 31; allowed: 0 for whole images, or 32 \(VIEWS.SIZE\) to 13377"),
        (13378, "DATA.TILE is 13378; allowed: .* to 13377, the root of DATA.MAX_PIXELS"),
        (-1, "DATA.TILE is -1; .*0"),
    ],
)
def test_a_side_that_makes_no_sense_is_refused(tile, words, tmp_path):
    with pytest.raises(InputError, match=words):
        config.check(options(tmp_path, "DATA.TILE", str(tile)))


def test_audit_and_advise_count_tiles(slides, tmp_path, capsys):
    file = tmp_path / "audit.json"
    assert audit.main([str(slides), "--tile", "64", "--workers", "1", "-o", str(file)]) == 0
    found = json.loads(file.read_text())
    assert (found["images"], found["samples"], found["tile"]) == (3, 25, 64)
    assert found["width"]["max"] == 250
    assert "25 of 64 px" in capsys.readouterr().out
    images = look(build_source(options(slides)))
    assert (images.number, images.side) == (25, 64)


def test_an_image_of_too_many_pixels_is_audited_by_tiles(slides, monkeypatch):
    from densessl.pretrain import audit_images

    whole = build_source(options(slides, "DATA.TILE", "0"))
    expected = audit_images.inspect_image(whole, 0)
    monkeypatch.setattr(audit_images, "MAX_PIXELS", 1000)
    assert audit_images.inspect_image(whole, 0, None, TILE) == expected


def test_deep_tiles_of_five_channels_are_pretrained_on_and_resumed_bit_for_bit(tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    values = np.resize(SLIDE.astype(np.uint16) * 200, (180, 250, 5))
    tiff_of_channels(slides / "a.tif", values)
    words = ["--config", "moco_v2_scenes", "DATA.PATH", str(slides), "DATA.TILE", str(TILE)]
    words += ["DATA.CHANNELS", "5", "DATA.WORKERS", "0", "BACKBONE.NAME", "resnet18"]
    words += ["VIEWS.SIZE", "32", "SOLVER.BATCH_SIZE", "4", "MOCO.QUEUE", "8"]
    words += ["SOLVER.SCHEDULE", "constant", "SOLVER.MAX_STEPS"]

    def weights(folder, *more):
        assert main([*words, *more, "OUTPUT_DIR", str(tmp_path / folder)]) == 0
        return torch.load(tmp_path / folder / "backbone_final.pth", weights_only=True)

    whole = weights("whole", "2")
    facts = whole["pretrain"]
    assert (facts["images"], facts["epochs"]) == (12, round(2 / 3, 4))  # an epoch counts tiles
    assert facts["range"][1] > 255
    weights("parts", "1")
    with pytest.raises(InputError, match="DATA.TILE: a run cannot change it, it counts its epochs"):
        weights("parts", "2", "DATA.TILE", "32", "--change", "DATA.TILE", "SOLVER.MAX_STEPS")
    again = weights("parts", "2", "--change", "SOLVER.MAX_STEPS")
    assert again["iteration"] == 2
    for name, value in again["backbone"].items():
        assert torch.equal(value, whole["backbone"][name]), name
