"""Class probabilities in pictures (SCFS's Figure 1): numbers, the command, what it refuses."""

import math
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core import knn
from densessl.core.errors import InputError
from densessl.pretrain import config, show
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.show.by_classes import SAMPLES, Voters, classes, samples, voters_of
from densessl.pretrain.show.checkpoint import load
from densessl.pretrain.show.look import look_at
from densessl.pretrain.views import NORMALIZATION
from densessl.pretrain.views.recipes import RECIPES, ViewRecipe

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (220, 30, 30)}


STILL = ViewRecipe(jitter_probability=0, grayscale=0, blur=0)  # crops and flips alone


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of ``densessl pretrain`` that was never trained."""
    cfg = config.defaults()
    cfg.BACKBONE.NAME, cfg.METHOD.NAME = "resnet18", "scfs"
    cfg.VIEWS.SIZE, cfg.VIEWS.LOCAL_SIZE = 64, 32
    torch.manual_seed(0)
    saved = {
        "backbone": build_backbone("resnet18", norm="BN").state_dict(),
        "config": cfg.dump(),
        "method": "scfs",
        "iteration": 7,
        "normalization": NORMALIZATION | {"channel_order": "RGB"},
    }
    path = tmp_path_factory.mktemp("run") / "backbone_final.pth"
    torch.save(saved, path)
    return path


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """A folder a class: images of one colour with little noise, five of each."""
    root = tmp_path_factory.mktemp("train")
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(5):
            pixels = np.array(colour) + generator.integers(-20, 20, (72, 80, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def colours_stay(monkeypatch):
    monkeypatch.setitem(RECIPES, "moco_v2", (STILL, STILL))


def run(*argv):
    return show.main([*map(str, argv)])


def looked(checkpoint, train, image):
    model = load(str(checkpoint))
    voters = voters_of(model, "layer4", Namespace(train=train, train_limit=20, size=None))
    return look_at(model, image, None, 0, "layer4", ("classes",), (), voters)


def test_probabilities_are_the_shares_of_the_votes_weights():
    similarity = torch.tensor([[0.9, 0.8, 0.5, 0.1], [0.3, 0.3, 0.3, -0.2]])
    labels = torch.tensor([[2, 0, 2, 1], [1, 1, 0, 2]])
    p = knn.probabilities(similarity, labels, 4, 0.1)
    for row, (s, own) in enumerate(zip(similarity.tolist(), labels.tolist(), strict=True)):
        weights = [math.exp(each / 0.1) for each in s]
        expected = [
            sum(w for w, c in zip(weights, own, strict=True) if c == k) / sum(weights)
            for k in range(4)
        ]
        assert p[row].tolist() == pytest.approx(expected, rel=1e-6)
    order = knn.vote(similarity, labels, 4, (4,), 0.1, top=4)[4]
    assert torch.equal(order, p.sort(dim=1, descending=True, stable=True)[1])
    # Small temperatures stay finite.
    assert knn.probabilities(similarity, labels, 4, 1e-6)[0].tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="temperature 0"):
        knn.probabilities(similarity, labels, 4, 0)


def test_the_augmented_sample_is_view_1_weighted_with_the_crops_cosine(checkpoint, train):
    look = looked(checkpoint, train, train / "red" / "0.png")
    with torch.no_grad():
        key = look.model.backbone(look.views[0].image)["layer4"][0].double()  # [C, h, w]
        crop = look.model.backbone(look.local[0].image)["layer4"][0].double().mean((1, 2))
    expected = torch.zeros_like(crop)
    for y in range(key.shape[1]):
        for x in range(key.shape[2]):
            cell = key[:, y, x]
            expected += cell * (crop @ cell) / (crop.norm() * cell.norm())
    expected /= key.shape[1] * key.shape[2]
    found = samples(look)
    assert len(look.local) == 1 and found.shape == (4, 512)
    torch.testing.assert_close(found[3].double(), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[3], found[0], rtol=1e-3)
    torch.testing.assert_close(found[2].double(), crop, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", COLOURS)
def test_views_of_an_image_in_the_train_folder_get_its_class(checkpoint, train, name):
    look = looked(checkpoint, train, train / name / "1.png")
    p = look.voters.probabilities(samples(look), look.options.KNN)
    assert p.shape == (4, 3) and p.sum(1).tolist() == pytest.approx([1] * 4)
    true = look.voters.class_of(look.image)
    assert look.voters.classes[true] == name and (p.argmax(1) == true).all()


def test_bars_are_the_probabilities_and_mark_the_true_class(checkpoint, train):
    from matplotlib.figure import Figure

    look = looked(checkpoint, train, train / "red" / "0.png")
    p = look.voters.probabilities(samples(look), look.options.KNN)
    first, bars = classes(look).rows
    assert len(first) == 2 and [panel.title for panel in bars] == list(SAMPLES)
    for row, panel in enumerate(bars):
        axes = Figure().add_subplot()
        panel.draw(axes)
        (inner,) = axes.child_axes
        widths = [patch.get_width() for patch in inner.patches]
        assert widths == pytest.approx(sorted(p[row].tolist(), reverse=True))
        names = [text.get_text().split()[0] for text in inner.texts]
        marked = [
            patch.get_facecolor() != inner.patches[-1].get_facecolor() for patch in inner.patches
        ]
        assert [name for name, each in zip(names, marked, strict=True) if each] == ["red"]


def test_at_most_so_many_images_of_a_class_vote_and_unreadable_ones_do_not(checkpoint, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (40, 40), (50 * number, 9, 9)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "0.png").write_bytes(b"no image")
    model = load(str(checkpoint))

    def labels(limit):
        options = Namespace(train=tmp_path, train_limit=limit, size=None)
        return voters_of(model, "layer4", options).labels.tolist()

    assert labels(20) == [0] * 3 + [1] * 4
    assert labels(2) == [0] * 1 + [1] * 2
    with pytest.raises(InputError, match="fewer than two classes"):
        labels(1)  # the one of class a cannot be read


def test_a_class_is_the_images_own_folder(tmp_path):
    voters = Voters(torch.eye(2), torch.arange(2), ["cat", "dog"])
    assert voters.class_of(tmp_path / "val" / "dog" / "x.png") == 1
    assert voters.class_of(tmp_path / "dog" / "others" / "x.png") is None


@pytest.mark.parametrize("sheet", [(), ("--sheet",)])
def test_the_command_draws_it(checkpoint, train, tmp_path, sheet):
    odd = tmp_path / "$x_1$"
    odd.mkdir()
    Image.new("RGB", (80, 80), (200, 40, 30)).save(odd / "mine.png")
    words = ("--method", "classes", "--train", train, "--train-limit", 2, "--dpi", 30, *sheet)
    images = (train / "red" / "3.png", odd / "mine.png")
    assert run(checkpoint, *images, "-o", tmp_path / "out", *words) == 0
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == (["sheet.png"] if sheet else ["3.png", "mine.png"])
    assert all(np.asarray(Image.open(tmp_path / "out" / name)).std() > 20 for name in names)


def test_wrong_folders_and_options_are_named(checkpoint, train, tmp_path):
    image = train / "red" / "0.png"

    def message(*words):
        with pytest.raises(InputError) as error:
            run(checkpoint, image, "-o", tmp_path / "out", *words)
        assert error.value.exit_code == 2 and not (tmp_path / "out").exists()
        return str(error.value)

    method = ("--method", "classes")
    assert "needs --train DIR" in message(*method)
    assert "none is no folder" in message(*method, "--train", tmp_path / "none")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    assert "a folder of images for each class" in message(*method, "--train", tmp_path / "one")
    Image.new("RGB", (40, 40)).save(tmp_path / "one" / "cat" / "0.png")
    assert "a folder of images for each class" in message(*method, "--train", tmp_path / "one")
    limited = message(*method, "--train", train, "--train-limit", 0)
    assert "--train-limit: the value is 0; it must be at least 1" in limited
    inside = ("--train", train, "-o", train / "red")  # would replace images that vote
    assert "lies in --train" in message(*method, *inside)
    assert "'setsim'" in message("--method", "setsim", "--train", train)
