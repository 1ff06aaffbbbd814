"""Each classification protocol in miniature through the verb, on scenes: better than chance.

Trained on the objects of some scenes and tested on those of others. With the training labels
shuffled among the objects the same protocols are at chance: what they learn is in the images.
"""

import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from densessl.d2_transfer import main, protocols, results
from densessl.d2_transfer.classification.voc_objects import SPLITS, read_voc_objects
from densessl.d2_transfer.protocols import CLASSIFICATION, PROTOCOLS

pytestmark = pytest.mark.slow

P = 0.001  # chance does as well less often than this
# Margins that hold on any processor: p < 1e-11, of three seeds with 1 % of the labels, else of one.
SEARCHED = ["SOLVER.MAX_ITER", "40", "SEARCH.BASE_LR", "(0.005, 0.02)"]
FINETUNE = ["SOLVER.MAX_ITER", "40", "SEARCH.BASE_LR", "()", "SOLVER.BASE_LR", "0.02"]
LINEAR = ["SOLVER.MAX_ITER", "100", "SOLVER.BASE_LR", "0.3"]
RUNS = {  # (protocol, variant): KEY VALUE …
    ("knn", "last"): [],
    ("knn", "stages"): [],
    ("linear", "dino"): LINEAR,
    ("linear", "moco"): LINEAR,
    ("semisup_1pct", ""): SEARCHED,
    ("semisup_10pct", ""): SEARCHED,
    ("finetune_cls", "voc_objects"): FINETUNE,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> Path:
    """Scenes with some 600 objects to train on and 400 to test on."""
    from densessl.pretrain.scenes import main as scenes_verb

    folder = tmp_path_factory.mktemp("objects") / "scenes"
    options = ["--train", "240", "--val", "160", "--size", "64", "--seed", "1", "--workers", "1"]
    assert not scenes_verb.main([str(folder), *options])
    return folder


@pytest.fixture(scope="module")
def shuffled(objects, tmp_path_factory) -> Path:
    """The same scenes, with the classes of all training objects in another order."""
    folder = tmp_path_factory.mktemp("shuffled")
    for year in ("VOC2007", "VOC2012"):
        shutil.copytree(objects / year, folder / year)
    trees = {}
    for year, split in SPLITS[0]:
        for name in (folder / year / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            file = folder / year / "Annotations" / f"{name}.xml"
            trees[file] = ElementTree.parse(file)
    names = [each for tree in trees.values() for each in tree.findall("object/name")]
    texts = np.random.default_rng(0).permutation([name.text for name in names])
    for name, text in zip(names, texts, strict=True):
        name.text = str(text)
    for file, tree in trees.items():
        tree.write(file)
    return folder


def run(protocol, variant, weights, data, out, overrides):
    """The record of one trial, as the verb leaves it, and how many test images it had right."""
    words = [str(weights), "--protocol", protocol, "--mini", "--trials", "1"]
    words += ["--variant", variant] if variant else []
    assert main.main([*words, "--data", str(data), "-o", str(out), *overrides]) == 0
    record = results.load(out / "trial_1")
    assert (record.protocol, record.variant, record.mini) == (protocol, variant, True)
    row = protocols.PROTOCOLS[protocol]
    assert set(row.metrics) <= set(record.metrics)
    return record, record.metrics[row.metrics[0]]


def by_chance(top1: float, data: Path) -> float:
    """How often the best guess that sees no image (always the largest class) does as well."""
    labels = read_voc_objects(data)[1].labels
    share = np.bincount(labels).max() / len(labels)
    p = binom.sf(round(top1 * len(labels) / 100) - 1, len(labels), share)
    print(f"top 1 {top1:.2f} of {len(labels)} images, largest class {100 * share:.2f}, p {p:.1e}")
    return p


def test_no_protocol_is_left_out():
    rows = [row for row in PROTOCOLS.values() if row.family == CLASSIFICATION]
    left_out = {("finetune_cls", name) for name in PROTOCOLS["finetune_cls"].variants}
    left_out |= {("custom_cls", "")}  # is tried in test_custom_cls.py
    every = {(row.name, variant) for row in rows for variant in row.variants}
    assert every - left_out == RUNS.keys() - left_out


@pytest.mark.parametrize("protocol, variant", RUNS)
def test_a_protocol_beats_chance(protocol, variant, pretrained, objects, tmp_path):
    overrides, weights = RUNS[protocol, variant], pretrained(18)
    record, top1 = run(protocol, variant, weights, objects, tmp_path, overrides)
    assert record.method == "moco" and record.weights["path"] == str(weights)
    assert by_chance(top1, objects) < P


def test_a_vision_transformer_beats_chance(objects, tmp_path):
    overrides = [*LINEAR, "MODEL.BACKBONE", "vit_tiny"]
    top1 = run("linear", "dino", "random", objects, tmp_path, overrides)[1]
    assert by_chance(top1, objects) < P


@pytest.mark.parametrize(
    "protocol, variant", [("knn", "last"), ("linear", "dino"), ("finetune_cls", "voc_objects")]
)
def test_shuffled_labels_teach_nothing(protocol, variant, pretrained, objects, shuffled, tmp_path):
    overrides, weights = RUNS[protocol, variant], pretrained(18)
    top1 = run(protocol, variant, weights, shuffled, tmp_path, overrides)[1]
    assert by_chance(top1, objects) > P
