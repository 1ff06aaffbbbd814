"""Recipes: one flip for both views, blur first, local crops behind the global views."""

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from PIL import Image

from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.views import (
    RECIPES,
    ImageSource,
    ViewDataset,
    ViewRecipe,
    apply_photometric,
    build_recipes,
    collate,
    colour,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return ImageSource(folder, [f"{number}.png" for number in range(6)], "test")


def options(**changes) -> CfgNode:
    views = config.defaults().VIEWS
    for name, value in changes.items():
        views[name] = value
    return views


def keys():
    return [(epoch, index) for epoch in range(8) for index in range(6)]


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_only_resims_recipes_flip_both_views_together(source, recipe):
    dataset = ViewDataset(source, RECIPES[recipe], 16, seed=0)
    flips = torch.stack([dataset[key].flip for key in keys()])  # [48, 2]
    together = recipe in ("resim", "moco_v2_same_flip")
    assert bool((flips[:, 0] == flips[:, 1]).all()) is together
    assert 10 < flips[:, 0].sum() < 38


def test_local_views_come_behind_and_change_nothing_of_the_global_ones(source):
    alone = ViewDataset(source, RECIPES["swav"], 32, seed=0)
    views = options(RECIPE="swav", LOCAL_CROPS=3, LOCAL_SCALE=(0.05, 0.14))
    recipe, local = build_recipes(views)
    assert recipe == RECIPES["swav"] and len(local) == 3
    dataset = ViewDataset(source, recipe, 32, 0, local, local_size=16)
    for key in keys()[:12]:
        sample, before = dataset[key], alone[key]
        assert sample.image.shape == (2, 3, 32, 32) and sample.local.shape == (3, 3, 16, 16)
        assert torch.equal(sample.image, before.image) and torch.equal(sample.box[:2], before.box)
        side = sample.box[:, 2:] - sample.box[:, :2]
        area = side.prod(1) / (60 * 80)
        assert (area[:2] > 0.13).all() and (area[2:] < 0.16).all() and (area[2:] > 0.04).all()
    batch = collate([dataset[key] for key in keys()[:4]])
    found = apply_photometric(batch, "cpu")
    assert [view.image.shape[-1] for view in found] == [32, 32, 16, 16, 16]
    assert all(torch.equal(v.box, batch.box[:, n]) for n, v in enumerate(found))


def test_all_views_of_an_image_are_cut_from_one_decoding(source, monkeypatch):
    from densessl.pretrain.views import dataset as module

    decoded = []
    decode = module.decode
    monkeypatch.setattr(module, "decode", lambda *given: decoded.append(given) or decode(*given))
    recipe, local = build_recipes(options(RECIPE="swav", LOCAL_CROPS=6))
    ViewDataset(source, recipe, 32, 0, local)[0, 0]
    assert len(decoded) == 1


def test_the_scale_of_global_crops_can_be_set():
    recipe, local = build_recipes(options(RECIPE="byol", SCALE=(0.25, 1.0)))
    assert [r.scale for r in recipe] == [(0.25, 1.0)] * 2 and local == ()
    assert [r.scale for r in build_recipes(options(RECIPE="byol"))[0]] == [(0.08, 1.0)] * 2


@pytest.mark.parametrize("scale", [(0.5,), (0.5, 0.2), (0.0, 1.0), (0.1, 1.2), ("a", "b")])
@pytest.mark.parametrize("name", ["SCALE", "LOCAL_SCALE"])
def test_scales_that_are_no_range_are_refused(name, scale):
    with pytest.raises(InputError, match=rf"VIEWS\.{name} is .*as \(0.2, 1.0\)"):
        build_recipes(options(**{name: scale}))


def test_blur_first_is_before_all_colour():
    rng = np.random.default_rng(1)
    recipe = ViewRecipe(blur=1.0, blur_first=True, jitter_probability=1.0, grayscale=1.0)
    parameters = torch.stack([colour.draw(rng, recipe) for _ in range(3)])
    x = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    blurred = colour.gaussian_blur(x.clone(), parameters[:, colour.SIGMA])
    rest = parameters.clone()
    rest[:, colour.SIGMA] = 0
    expected = colour.photometric(blurred, rest)
    torch.testing.assert_close(colour.photometric(x.clone(), parameters), expected)
    late = parameters.clone()
    late[:, colour.BLUR_FIRST] = 0
    assert (colour.photometric(x.clone(), late) - expected).abs().max() > 1e-3


def test_bicubic_crops_differ_from_bilinear_ones_a_little(source):
    first = ViewDataset(source, RECIPES["pixpro"], 32, seed=0)[0, 0]
    other = ViewDataset(source, RECIPES["byol"], 32, seed=0)[0, 0]
    assert torch.equal(first.box, other.box) and torch.equal(first.colour, other.colour)
    difference = (first.image.float() - other.image.float()).abs()
    assert 0 < difference.mean() < 40
