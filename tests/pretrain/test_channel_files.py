"""Pretraining on images whose channels lie in files of their own: as on the same in one file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.main import main
from densessl.pretrain.views import build_source
from densessl.pretrain.views.dataset import build_dataset
from tests.decoding.images import tiff_of_channels as tiff

SMALL = Path(__file__).parents[2] / "benchmarks" / "small_backbone.py"
WORDS = ("_B02", "_B03", "_B04", "_B08")
SIDE = 48


@pytest.fixture
def both(tmp_path):
    """Six images of four channels of 16 bits, in a file each, and in four files each."""
    for name in ("one", "files/north"):
        (tmp_path / name).mkdir(parents=True)
    for n in range(6):
        values = np.random.default_rng(n).integers(0, 4000, (SIDE, SIDE + 8, 4), dtype=np.uint16)
        tiff(tmp_path / "one" / f"{n}.tif", values)
        for place, word in enumerate(WORDS):
            tiff(tmp_path / "files" / "north" / f"{n}{word}.tif", values[:, :, place : place + 1])
    Image.new("RGB", (8, 8)).save(tmp_path / "files" / "preview.png")
    return tmp_path / "one", tmp_path / "files"


def run(folder, **options):
    cfg = config.defaults()
    words = {"DATA.PATH": str(folder), "VIEWS.SIZE": 32, "SOLVER.BATCH_SIZE": 2} | options
    cfg.merge_from_list([part for pair in words.items() for part in pair])
    return cfg


def in_files(folder, *words, **options):
    return run(folder, **{"DATA.CHANNEL_FILES": ",".join(words)}, **options)


@pytest.mark.parametrize("tile", [0, 32])
def test_samples_are_those_of_one_file(tile, both):
    one, files = both
    more = {"DATA.CHANNELS": 4, "DATA.TILE": tile}
    expected = build_source(run(one, **more))
    source = build_source(in_files(files, *WORDS, **more))
    assert len(source) == len(expected) == (24 if tile else 6)
    assert source.name(0).startswith("north/0_B02.tif")
    cfg = run(one, **more)
    made, wanted = (build_dataset(cfg, each, (0.0, 4095.0)) for each in (source, expected))
    for index in (0, len(source) - 1):
        assert torch.equal(made[0, index].image, wanted[0, index].image)
        assert torch.equal(made[0, index].box, wanted[0, index].box)


def test_the_order_of_the_words_is_that_of_the_channels_and_of_the_fingerprint(both):
    _, files = both
    first = build_source(in_files(files, *WORDS, **{"DATA.CHANNELS": 4}))
    other = build_source(in_files(files, *WORDS[::-1], **{"DATA.CHANNELS": 4}))
    values = [build_dataset(run(files, **{"DATA.CHANNELS": 4}), each, (0.0, 4095.0)).values(3)
              for each in (first, other)]  # fmt: skip
    np.testing.assert_array_equal(values[0], values[1][:, :, ::-1])
    assert first.fingerprint() != other.fingerprint()


def test_lists_name_all_files(both, tmp_path):
    _, files = both
    names = [f"files/north/{n}{word}.tif" for n in (4, 1) for word in WORDS]
    (tmp_path / "list.txt").write_text("\n".join(names))
    options = {"DATA.SOURCE": "list", "DATA.CHANNELS": 4}
    source = build_source(in_files(tmp_path / "list.txt", *WORDS, **options))
    assert [source.name(n) for n in range(2)] == [names[0], names[4]]


def test_a_file_that_is_missing_is_named(both):
    _, files = both
    (files / "north" / "3_B03.tif").unlink()
    with pytest.raises(InputError, match=r"not in .*: north/3_B03.tif \(beside north/3_B02.tif\)"):
        build_source(in_files(files, *WORDS, **{"DATA.CHANNELS": 4}))
    (files / "north" / "3_B02.tif").unlink()  # the one that an image is called by
    with pytest.raises(InputError, match=r"north/3_B02.tif \(beside"):
        build_source(in_files(files, *WORDS, **{"DATA.CHANNELS": 4}))
    with pytest.raises(InputError, match=r"no image in .* \(the first is .*north"):
        build_source(in_files(files, "_C1", "_C2", **{"DATA.CHANNELS": 2}))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"DATA.CHANNELS": 3}, "of 4 channels, and DATA.CHANNELS is 3; allowed: the same number"),
        (
            {"DATA.FRAME_RATE": 1.0, "DATA.CHANNEL_FILES": "a,b,c", "DATA.CHANNELS": 3},
            "DATA.FRAME_RATE is 1.0; allowed with DATA.CHANNEL_FILES: 0",
        ),
        ({"DATA.TRUNCATED": True}, "DATA.TRUNCATED is True; allowed with .*: False"),
        ({"DATA.CHANNEL_FILES": "_B02"}, "DATA.CHANNEL_FILES is '_B02'; allowed: a word for each"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options, message, both):
    files = in_files(both[1], *WORDS, **{"DATA.CHANNELS": 4})
    files.merge_from_list([part for pair in options.items() for part in pair])
    with pytest.raises(InputError, match=message):
        config.validate(files)


def test_three_files_are_pictures_of_which_nothing_is_measured_with_labels(both):
    three = in_files(both[1], *WORDS[:3])
    sample = build_dataset(three, build_source(three), (0.0, 4095.0))[0, 0]
    assert sample.image.shape == (2, 3, 32, 32)
    three.KNN.PERIOD = 1
    with pytest.raises(InputError, match="KNN.PERIOD is 1; allowed with DATA.CHANNEL_FILES"):
        config.validate(three)


def test_a_run_is_that_on_one_file(both, tmp_path):
    made = []
    for name, folder, more in (
        ("one", both[0], []),
        ("files", both[1], ["DATA.CHANNEL_FILES", ",".join(WORDS)]),
    ):
        words = ["--config", "moco_v2_scenes", "BACKBONE.NAME", f"{SMALL}:SmallPyramid"]
        words += ["DATA.PATH", str(folder), "MOCO.QUEUE", "8"]
        words += ["DATA.CHANNELS", "4", "SOLVER.BATCH_SIZE", "4", "SOLVER.MAX_STEPS", "2"]
        words += ["VIEWS.SIZE", "32", "KNN.PERIOD", "0", "PROBE.PERIOD", "0", "DATA.WORKERS", "0"]
        assert main([*words, "OUTPUT_DIR", str(tmp_path / name), *more]) == 0
        made.append(torch.load(tmp_path / name / "backbone_final.pth", weights_only=True))
    one, files = made
    assert all(torch.equal(files["backbone"][key], each) for key, each in one["backbone"].items())
    assert files["pretrain"]["channel_files"] == ",".join(WORDS)
