"""docs/python.md and README.md: snippets run, one after the other, as a reader would type them."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import densessl

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "python.md").read_text()
README = (ROOT / "README.md").read_text()


def snippets(heading: str, page: str) -> list[str]:
    """The Python snippets between one heading and the next."""
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", page, re.S | re.M)[1]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def reader(moco, run_folder, pictures, tmp_path, monkeypatch):
    """A working folder with the files that the page names; what a section leaves in memory."""
    (tmp_path / "moco").mkdir()
    (tmp_path / "moco" / moco.name).symlink_to(moco)
    (tmp_path / "moco_v2_800ep_pretrain.pth.tar").symlink_to(moco)
    (tmp_path / "output").symlink_to(run_folder)
    (tmp_path / "images").mkdir()
    for number, path in enumerate(sorted(pictures.iterdir())[:8]):
        Image.open(path).resize((96, 64)).save(tmp_path / "images" / f"{number}.jpg")
    for street in ("street.jpg", "images/street.jpg"):
        Image.open(path).save(tmp_path / street)
    monkeypatch.chdir(tmp_path)

    def read(*headings: str, page: str = DOCUMENT) -> dict:
        held: dict = {"__name__": "reader"}
        exec("import densessl", held)  # the page's first snippet
        for heading in headings:
            for number, text in enumerate(snippets(heading, page)):
                exec(compile(text, f"{heading}, {number}", "exec"), held)
        return held

    return read


def test_the_page_begins_with_the_import():
    assert re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[1] == "import densessl\n"


def test_load_a_backbone(reader):
    held = reader("Load a backbone")
    assert list(held["levels"]) == ["layer1", "layer2", "layer3", "layer4"]
    assert [each.shape[1] for each in held["maps"]] == [64, 128, 256, 512]


def test_load_a_backbone_as_the_readme_says(reader):
    held = reader("Load a backbone", page=README)
    _, height, width = held["image"].shape
    level = held["maps"]["layer4"]
    assert level.shape == (
        1,
        held["backbone"].channels["layer4"],
        -(-height // 32),
        -(-width // 32),
    )


def test_a_method_in_a_loop(reader, tmp_path):
    held = reader("Use a method in your own loop")
    method, network = held["method"], held["network"]
    assert method.step == 2 and held["loss"].isfinite()
    assert method.queue.pointer == method.dense_queue.pointer == 8  # two steps of four images
    assert method.backbone.layer1 is network.layer1  # trained in place
    saved = densessl.load_backbone(tmp_path / "backbone.pth")
    assert torch.equal(saved.conv1.weight, network.conv1.weight)


def test_a_method_in_lightning(reader):
    pytest.importorskip("lightning", reason="Lightning is not installed")
    held = reader("Use a method in your own loop", "In Lightning")
    method = held["trainer"].lightning_module.method
    assert method.step == 2 and method.queue.pointer == 8


def test_the_parts(reader):
    held = reader("The parts by themselves")
    assert held["loss"].isfinite() and held["votes"].shape == (50, 4)


def test_the_verbs(reader):
    held = reader("Verbs as functions")
    assert held["weights"].name == "backbone_final.pth" and held["report"].method == "moco"
    assert densessl.load_backbone("moco.pth").name == "resnet18"
