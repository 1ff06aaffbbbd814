"""Images of one, four and more channels: read as stored, measured, augmented, pretrained on."""

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.decoding import UnreadableImage
from densessl.decoding.channels import decode_channels, read_channels
from densessl.pretrain import config
from densessl.pretrain.backbones.build import build_backbone, with_channels
from densessl.pretrain.main import main
from densessl.pretrain.views import build_source, colour
from densessl.pretrain.views.dataset import build_dataset
from densessl.pretrain.views.normalization import given_normalization, measured_normalization
from densessl.pretrain.views.recipes import MOCO_V2, ViewRecipe
from densessl.weight_files.channels import for_channels
from densessl.weight_files.recognise import from_file
from tests.decoding.images import tiff_of_channels as tiff

SIDE = 48


def values(seed: int = 0, channels: int = 4, dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (SIDE, SIDE, channels), dtype=dtype)


@pytest.mark.parametrize("order, planar", [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("channels, dtype", [(4, np.uint8), (5, np.uint16)])
def test_a_tiff_of_many_channels_is_read_as_it_is(order, planar, channels, dtype, tmp_path):
    data = values(1, channels, dtype)
    tiff(tmp_path / "a.tif", data, order, planar)
    np.testing.assert_array_equal(read_channels(tmp_path / "a.tif", channels), data)


def test_pages_arrays_and_pictures_are_read(tmp_path):
    data = values()
    pages = [Image.fromarray(data[:, :, n]) for n in range(4)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    np.save(tmp_path / "last.npy", data)
    np.save(tmp_path / "first.npy", data.transpose(2, 0, 1))
    Image.fromarray(data, "RGBA").save(tmp_path / "a.png")
    for name in ("pages.tif", "last.npy", "first.npy", "a.png"):
        np.testing.assert_array_equal(read_channels(tmp_path / name, 4), data, name)
    Image.fromarray(data[:, :, 0]).save(tmp_path / "grey.png")
    assert decode_channels(tmp_path / "grey.png", 1).values.shape == (SIDE, SIDE, 1)
    deep = data.astype(np.uint16) * 16
    np.save(tmp_path / "deep.npy", deep)
    found = decode_channels(tmp_path / "deep.npy", 4, (0.0, 255.0 * 16)).values
    np.testing.assert_array_equal(found, data)


def test_what_is_not_of_so_many_channels_is_unreadable(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match=r"\(8, 8, 3\), not 4 channels \(DATA.CHANNELS\)"):
        read_channels(tmp_path / "a.png", 4)
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match="allow_pickle"):  # nothing is unpickled
        read_channels(tmp_path / "a.npy", 4)
    tiff(tmp_path / "cut.tif", values())
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:3000])
    with pytest.raises(UnreadableImage):
        read_channels(tmp_path / "cut.tif", 4)


def run(folder, **options):
    cfg = config.defaults()
    words = {"DATA.PATH": str(folder), "VIEWS.SIZE": 32, "SOLVER.BATCH_SIZE": 4} | options
    cfg.merge_from_list([part for pair in words.items() for part in pair])
    return cfg


@pytest.fixture
def four(tmp_path):
    """Eight images of four channels, of which the last is dark and hardly changes."""
    (tmp_path / "images").mkdir()
    for n in range(8):
        data = values(n)
        data[:, :, 3] = 40 + data[:, :, 3] // 64
        tiff(tmp_path / "images" / f"{n}.tif", data)
    return tmp_path / "images"


def test_mean_and_deviation_are_measured_a_channel(four):
    cfg = run(four, **{"DATA.CHANNELS": 4})
    source = build_source(cfg)
    found = measured_normalization(build_dataset(cfg, source, None))
    data = np.stack([values(n) for n in range(8)]) / 255
    assert found["mean"][:3] == pytest.approx(data.mean((0, 1, 2))[:3], abs=1e-5)
    assert found["std"][:3] == pytest.approx(data.std((0, 1, 2))[:3], abs=1e-5)
    assert found["mean"][3] < 0.2 and found["std"][3] < 0.01
    sample = build_dataset(cfg, source, None)[0, 3]
    assert sample.image.shape == (2, 4, 32, 32) and sample.local.shape == (0, 4, 96, 96)


@pytest.mark.parametrize(
    "mean, std, words",
    [
        ("0.5,0.5", "0.1,0.1", "DATA.MEAN is '0.5,0.5'; allowed: 4 numbers of"),
        ("0,0,0,0", "1,1,0,1", "DATA.STD is '1,1,0,1'; allowed: 4 numbers above 0"),
        ("0,0,0,0", "", "DATA.STD is ''; allowed: 4 numbers above 0"),
        ("imagenet", "", "DATA.MEAN is 'imagenet'; allowed"),
    ],
)
def test_means_that_do_not_fit_are_refused(mean, std, words):
    cfg = run(".", **{"DATA.CHANNELS": 4})
    cfg.DATA.MEAN, cfg.DATA.STD = mean, std
    with pytest.raises(InputError, match=words):
        given_normalization(cfg.DATA)


def test_colours_of_many_channels_are_brightness_and_contrast():
    always = ViewRecipe(jitter=(0, 0, 0.9, 0.4), jitter_probability=1, grayscale=1, blur=0)
    x = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([colour.draw(np.random.default_rng(n), always) for n in range(2)])
    assert torch.allclose(colour.photometric(x.clone(), rows), x)  # hue, saturation, grey: none
    rows = torch.stack([colour.draw(np.random.default_rng(n), MOCO_V2) for n in range(2)])
    assert colour.photometric(x.clone(), rows).shape == x.shape


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_the_first_convolution_gives_equal_channels_the_same_answer(channels):
    torch.manual_seed(0)
    three = build_backbone("resnet18", "BN").eval()
    state, changes = for_channels(three.state_dict(), "conv1", channels)
    other = with_channels(build_backbone("resnet18", "BN"), channels).eval()
    other.load_state_dict(state)
    grey = torch.rand(1, 1, 64, 64)
    found = other(grey.expand(-1, channels, -1, -1))["layer4"]
    assert torch.allclose(found, three(grey.expand(-1, 3, -1, -1))["layer4"], atol=1e-4)
    assert changes == [f"its first convolution of 3 channels takes {channels} now"]


def test_four_channels_are_pretrained_on_and_resumed(four, tmp_path, caplog):
    words = ["--config", "moco_v2_scenes", "DATA.PATH", str(four), "DATA.CHANNELS", "4"]
    words += ["BACKBONE.NAME", "resnet18", "VIEWS.SIZE", "32", "SOLVER.BATCH_SIZE", "4"]
    words += ["DATA.WORKERS", "0", "OUTPUT_DIR", str(tmp_path / "out"), "MOCO.QUEUE", "8"]
    assert main([*words, "SOLVER.MAX_STEPS", "2"]) == 0
    saved = torch.load(tmp_path / "out" / "backbone_final.pth", weights_only=True)
    assert saved["backbone"]["conv1.weight"].shape == (64, 4, 7, 7)
    normalization = saved["normalization"]
    assert normalization["channel_order"] == "as stored" and len(normalization["mean"]) == 4
    more = ["SOLVER.MAX_STEPS", "3", "--change", "SOLVER.MAX_STEPS"]
    assert main([*words, *more]) == 0
    again = torch.load(tmp_path / "out" / "backbone_final.pth", weights_only=True)
    assert again["normalization"] == normalization and again["iteration"] == 3
    _, found = from_file(tmp_path / "out" / "backbone_final.pth")
    assert (found.network, found.channels) == ("resnet18", 4)
    assert found.normalization["mean"] == pytest.approx(list(normalization["mean"]))


def test_labels_during_a_run_are_of_rgb_images(four):
    cfg = run(four, **{"DATA.CHANNELS": 4, "KNN.PERIOD": 1.0, "KNN.TRAIN": ".", "KNN.VAL": "."})
    with pytest.raises(InputError, match="KNN.PERIOD is 1; allowed with DATA.CHANNELS 4"):
        config.validate(cfg)
