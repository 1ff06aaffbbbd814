"""The batched photometric part against torchvision and Pillow, operation by operation."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image, ImageFilter

from benchmarks.launches import Launches, batch_of
from densessl.pretrain.views import RECIPES, ViewRecipe, apply_photometric, colour

FACTORS = torch.tensor([0.6, 0.9, 1.0, 1.4, 0.0])


def images(count=5, height=24, width=31):
    x = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    x[0, :, :8] = 0.5  # without hue
    x[1, :, :8] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    return x


def each(operation, x, *values):
    rows = zip(x, *values, strict=True)
    return torch.stack([operation(row, *map(float, rest)) for row, *rest in rows])


@pytest.mark.parametrize(
    "name, counts", [("brightness", (5, 0)), ("contrast", (0, 5)), ("saturation", (0, 0))]
)
def test_jitter_is_torchvisions(name, counts):
    expected = each(getattr(F, f"adjust_{name}"), images(), FACTORS)
    found = colour.blend(images(), FACTORS, 1 - FACTORS, *counts)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_hue_is_torchvisions():
    shift = torch.tensor([-0.5, -0.1, 0.0, 0.1, 0.4])
    expected = each(F.adjust_hue, images(), shift)
    torch.testing.assert_close(colour.hue(images(), shift), expected, rtol=0, atol=1e-5)


def test_grayscale_and_solarize_are_torchvisions():
    torch.testing.assert_close(colour.grayscale(images()), F.rgb_to_grayscale(images(), 3))
    torch.testing.assert_close(colour.solarize(images()), F.solarize(images(), 128 / 255))


def test_blur_is_torchvisions_gaussian():
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0])
    expected = each(lambda x, s: F.gaussian_blur(x, [17, 17], [s, s]), images(), sigma)
    torch.testing.assert_close(colour.gaussian_blur(images(), sigma), expected, rtol=0, atol=2e-4)


def test_blur_is_near_pillows():
    """The papers used Pillow: three box filters, 8 bits, border pixels repeated outwards."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.array(smooth)).permute(2, 0, 1)[None] / 255
    for sigma in (0.5, 1.0, 2.0):
        pillow = np.array(smooth.filter(ImageFilter.GaussianBlur(sigma)))
        ours = colour.gaussian_blur(x.clone(), torch.tensor([sigma]))[0]
        difference = (ours - torch.from_numpy(pillow).permute(2, 0, 1) / 255).abs()
        inside = difference[:, 8:-8, 8:-8]
        assert inside.mean() < 1 / 255
        assert inside.max() < 4 / 255


def test_blur_of_an_image_smaller_than_its_kernel_keeps_the_mean_of_a_constant():
    x = torch.full((1, 3, 4, 3), 0.3)
    torch.testing.assert_close(colour.gaussian_blur(x, torch.tensor([2.0])), x)


def parameters(count, recipe, seed=0):
    rng = np.random.default_rng(seed)
    return torch.stack([colour.draw(rng, recipe) for _ in range(count)])


def test_a_sample_does_not_depend_on_its_batch():
    recipe = ViewRecipe(solarize=0.5)
    drawn = parameters(16, recipe)
    x = torch.rand(16, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    together = colour.photometric(x.clone(), drawn)
    alone = torch.cat(
        [colour.photometric(x[i : i + 1].clone(), drawn[i : i + 1]) for i in range(16)]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert together.min() >= 0 and together.max() <= 1 + 1e-6


def test_the_order_of_operations_is_the_samples_own():
    """Contrast before brightness is not brightness before contrast; a row says which."""
    x = images(2)[:, :, :4, :4].clone()
    x[1] = x[0]
    drawn = torch.zeros(2, colour.COLUMNS)
    drawn[:, colour.FACTORS : colour.FACTORS + 4] = torch.tensor([0.6, 1.4, 1.2, 0.1])
    drawn[:, colour.ORDER : colour.ORDER + 4] = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    steps = [
        lambda y: F.adjust_brightness(y, 0.6),
        lambda y: F.adjust_contrast(y, 1.4),
        lambda y: F.adjust_saturation(y, 1.2),
        lambda y: F.adjust_hue(y, 0.1),
    ]
    expected = []
    for row in ([0, 1, 2, 3], [3, 2, 1, 0]):
        y = x[0].clone()
        for number in row:
            y = steps[number](y)
        expected.append(y)
    torch.testing.assert_close(
        colour.photometric(x.clone(), drawn), torch.stack(expected), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name, local, most", [("moco_v2", 0, 150), ("dino", 8, 300)])
def test_the_number_of_kernels_does_not_grow_with_the_batch(name, local, most):
    """All views of one size pass each operation together: two sizes, twice as many."""
    recipes = [*RECIPES[name][:2], *[RECIPES[name][-1]] * local]
    counts, rng = [], np.random.default_rng(0)
    for images in (8, 24):
        with Launches() as launches:
            views = apply_photometric(batch_of(recipes, images, rng), "meta")
        assert {part.device.type for view in views for part in vars(view).values()} == {"meta"}
        counts.append(launches.count)
        assert launches.copies == (3 if local else 2)  # the images of each size, all numbers
    assert max(counts) < most and abs(counts[0] - counts[1]) < 20  # rarer operations are not met


@pytest.mark.parametrize("few", [1, 3])
def test_all_images_together_are_the_same_as_a_few_at_a_time(monkeypatch, few):
    """On CUDA they pass together, on the CPU as many as fit its cache."""
    monkeypatch.setattr(colour, "CACHED", few * 20**2)
    drawn = parameters(40, ViewRecipe(solarize=0.5, blur_first=True))
    x = torch.rand(40, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    parts = colour.photometric(x.clone(), drawn)
    made = colour.PhotometricPlan(drawn)
    whole = colour.change_(x.clone(), made, made.numbers.float())
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_drawn_as_they_say(name):
    for recipe in RECIPES[name]:
        drawn = parameters(4000, recipe)
        jittered = drawn[:, colour.ORDER] >= 0
        assert jittered.float().mean() == pytest.approx(recipe.jitter_probability, abs=0.03)
        orders = drawn[jittered, colour.ORDER : colour.ORDER + 4]
        assert torch.equal(orders.sort(1).values, torch.arange(4.0).expand_as(orders))
        assert len(orders.unique(dim=0)) == 24
        factors = drawn[jittered, colour.FACTORS : colour.FACTORS + 4]
        low = torch.tensor([1 - r for r in recipe.jitter[:3]] + [-recipe.jitter[3]])
        high = torch.tensor([1 + r for r in recipe.jitter[:3]] + [recipe.jitter[3]])
        assert (factors >= low).all() and (factors <= high).all()
        torch.testing.assert_close(factors.mean(0), (low + high) / 2, rtol=0, atol=0.02)
        for column, probability in (
            (colour.GRAYSCALE, recipe.grayscale),
            (colour.SIGMA, recipe.blur),
            (colour.SOLARIZE, recipe.solarize),
        ):
            assert (drawn[:, column] > 0).float().mean() == pytest.approx(probability, abs=0.03)
        sigma = drawn[drawn[:, colour.SIGMA] > 0, colour.SIGMA]
        if len(sigma):
            assert sigma.min() >= recipe.blur_sigma[0] and sigma.max() <= recipe.blur_sigma[1]


def test_recipes_differ_where_their_papers_do():
    v1, v2 = RECIPES["moco_v1"][0], RECIPES["moco_v2"][0]
    assert v1.grayscale_first and not v2.grayscale_first
    assert (v1.jitter[3], v2.jitter[3]) == (0.4, 0.1)
    first, second = RECIPES["byol"]
    assert (first.blur, second.blur, first.solarize, second.solarize) == (1.0, 0.1, 0.0, 0.2)
