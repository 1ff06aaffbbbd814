"""Each augmentation against a plain reference, and what all of them must keep."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.d2_transfer.datasets import semantic_transforms as transforms

VOC, CITYSCAPES = (2048, 512), (2049, 1025)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


# Sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, scale, ratio, wanted",
    [
        ((375, 500), VOC, 1.0, (512, 683)),  # 500 * 512 / 375 = 682.67
        ((500, 375), VOC, 1.0, (683, 512)),
        ((100, 1000), VOC, 1.0, (205, 2048)),  # the long edge binds: 100 * 2.048
        ((375, 500), VOC, 0.5, (256, 341)),
        ((375, 500), VOC, 1.2347, (632, 843)),  # 512 * 1.2347 = 632.2, cut to 632
        ((1024, 2048), CITYSCAPES, 1.0, (1025, 2049)),
        ((1024, 2048), CITYSCAPES, 2.0, (2049, 4098)),
        ((333, 500), (), 1.0, (333, 500)),
        ((333, 500), (), 1.5, (500, 750)),  # 499.5 rounds up
        ((3, 500), (), 0.1, (1, 50)),
    ],
)
def test_the_size_is_mmcvs(size, scale, ratio, wanted):
    assert transforms.resized(size, scale, ratio) == wanted


# Crops ------------------------------------------------------------------------------------------


def draw(labels, size, crop, generator, largest=1.0, ignore=255):
    return transforms.draw_window(labels, size, crop, largest, ignore, generator)


def test_windows_lie_within_the_image_and_reach_all_of_it(generator):
    labels = np.zeros((20, 30), np.uint8)
    drawn = [draw(labels, (40, 60), (37, 50), generator) for _ in range(400)]
    assert {window.top for window in drawn} == set(range(4))
    assert {window.left for window in drawn} == set(range(11))
    assert {(window.height, window.width) for window in drawn} == {(37, 50)}


def test_an_edge_shorter_than_the_crop_is_kept_whole(generator):
    window = draw(np.zeros((20, 30), np.uint8), (40, 60), (50, 50), generator)
    assert (window.top, window.height, window.width) == (0, 40, 50)


def share(labels, window):
    """How much of the window's pixels, ignored ones aside, its largest category has."""
    crop = transforms.crop_labels(labels, window)
    counts = np.unique(crop[crop != 255], return_counts=True)[1]
    return counts.max() / counts.sum() if len(counts) else 1.0


def test_no_category_fills_a_crop_where_that_can_be_had(generator):
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 32:] = 1
    labels[:8] = 255
    bounded = [draw(labels, (64, 64), (24, 24), generator, 0.75) for _ in range(200)]
    free = [draw(labels, (64, 64), (24, 24), generator) for _ in range(200)]
    # Eleven draws all miss in a few per cent of the crops of this size.
    assert np.mean([share(labels, window) < 0.75 for window in bounded]) > 0.9
    assert np.mean([share(labels, window) < 0.75 for window in free]) < 0.5


def test_ten_crops_are_tried_and_the_eleventh_taken(generator):
    class Counting:
        drawn = 0

        def integers(self, end):
            self.drawn += 1
            return generator.integers(end)

    for labels, draws in ((np.zeros((9, 9), np.uint8), 11), (np.full((9, 9), 255, np.uint8), 11)):
        counting = Counting()
        draw(labels, (9, 9), (4, 4), counting, 0.75)
        assert counting.drawn == 2 * draws
    checkered = (np.indices((9, 9)).sum(0) % 2).astype(np.uint8)
    for largest in (0.75, 1.0):
        counting = Counting()
        draw(checkered, (9, 9), (4, 4), counting, largest)
        assert counting.drawn == 2


@pytest.mark.parametrize("size", [(33, 45), (75, 100), (150, 200), (199, 266)])
def test_a_crop_of_the_image_is_the_same_part_of_the_whole_resized(size, generator):
    image = smooth(75, 100)
    whole = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    for _ in range(5):
        window = draw(np.zeros((75, 100), np.uint8), size, (30, 41), generator)
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        wanted = np.asarray(whole)[rows, columns].astype(int)
        assert abs(wanted - transforms.crop_image(image, window)).max() <= 1


@pytest.mark.parametrize("size", [(33, 45), (75, 100), (150, 200), (199, 266)])
def test_labels_are_of_the_nearest_pixel(size, generator):
    labels = generator.integers(0, 256, (75, 100), dtype=np.uint8)
    window = draw(labels, size, (30, 41), generator)
    found = transforms.crop_labels(labels, window)
    assert found.shape == (30, 41)
    for y, x in [(0, 0), (29, 40), (7, 13)]:
        row = int((window.top + y + 0.5) * 75 / size[0])
        column = int((window.left + x + 0.5) * 100 / size[1])
        assert found[y, x] == labels[row, column]


@pytest.mark.parametrize("size", [(33, 45), (75, 100), (199, 266)])
def test_image_and_labels_stay_aligned(size, generator):
    """The same picture as both: their edges fall together, within the image's interpolation."""
    labels = np.zeros((75, 100), np.uint8)
    labels[20:50, 30:80] = 200
    window = draw(labels, size, (30, 41), generator)
    image = transforms.crop_image(np.repeat(labels[..., None], 3, 2), window)[..., 0]
    found = transforms.crop_labels(labels, window)
    assert ((image >= 100) == (found == 200)).mean() > 0.98
    assert set(np.unique(found)) <= {0, 200}


# Colour -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("saturation", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("degrees", [-36, 0, 34])
def test_saturation_and_hue_are_hsvs(saturation, degrees, generator):
    colours = generator.integers(0, 256, (3, 40)).astype(np.float32)
    colours[:, :6] = [[0, 255, 80, 80, 255, 0]] * 3  # greys
    colours[:, 6:9] = [[255, 0, 9], [0, 255, 9], [0, 0, 255]]
    found = transforms.turn(torch.from_numpy(colours)[..., None], saturation, degrees)
    for colour, changed in zip(colours.T, found[..., 0].T, strict=True):
        hue, amount, value = colorsys.rgb_to_hsv(*colour / 255)
        turned = colorsys.hsv_to_rgb((hue + degrees / 360) % 1, min(amount * saturation, 1), value)
        assert changed.tolist() == pytest.approx([255 * x for x in turned], abs=1e-2)


class Scripted:
    """A generator that answers what a test says, in order."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def _next(self, *args):
        return self.answers.pop(0)

    random = uniform = integers = _next


YES, NO = 0.0, 0.9


def pixel(value):
    return torch.tensor(value, dtype=torch.uint8).view(3, 1, 1)


@pytest.mark.parametrize(
    "answers, wanted",
    [
        ([NO, NO, NO, NO, NO], [200, 100, 40]),
        ([YES, 30.0, NO, NO, NO, NO], [230, 130, 70]),
        ([YES, -32.0, NO, NO, NO, NO], [168, 68, 8]),
        ([YES, 32.0, YES, YES, 1.5, NO, NO], [255, 198, 108]),  # clipped at 255
        ([NO, YES, YES, 1.2, YES, 1.5, NO], [240, 90, 0]),  # saturation at most 1
        ([NO, NO, YES, 1.5, NO, YES, 1.2], [240, 90, 0]),
        ([NO, YES, YES, 1.5, YES, 0.5, NO], [255, 202, 158]),
        ([NO, NO, YES, 0.5, NO, YES, 1.5], [255, 225, 180]),  # the other order differs
        ([NO, YES, NO, NO, YES, 15], [200, 180, 40]),  # 22.5 degrees and 30
    ],
)
def test_distortion_takes_its_steps_in_mmsegmentations_order(answers, wanted):
    scripted = Scripted(*answers)
    found = transforms.distort(pixel([200, 100, 40]), scripted)
    assert not scripted.answers
    assert found.dtype == torch.uint8
    assert abs(found.flatten().int() - torch.tensor(wanted)).max() <= 1


def test_each_distortion_happens_half_the_time(generator):
    grey = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    values = [int(transforms.distort(grey, generator)[0]) for _ in range(2000)]
    unchanged = np.mean([value == 100 for value in values])
    assert 0.22 < unchanged < 0.32  # a quarter, and changes too small for a whole number
    assert min(values) < 50  # (100 - 32) / 2 is the darkest
    assert max(values) > 180
    assert min(values) >= 34
    assert max(values) <= 198


def test_the_same_seed_distorts_alike():
    image = torch.from_numpy(smooth(12, 15).transpose(2, 0, 1).copy())
    before = image.clone()
    one, two, other = (transforms.distort(image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(image, before)


def test_padding_is_below_and_right():
    image = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    found = transforms.pad(image, (3, 4), [50, 60, 70])
    assert torch.equal(found[:, :2, :2], image)
    outside = torch.ones(3, 4, dtype=torch.bool)
    outside[:2, :2] = False
    assert [set(channel[outside].tolist()) for channel in found] == [{50}, {60}, {70}]
    assert transforms.pad(image, (2, 2), [0, 0, 0]) is image
