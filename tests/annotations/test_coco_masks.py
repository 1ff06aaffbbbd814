"""Run lengths as pycocotools' text: decoded as it does, and judged many at a time."""

import numpy as np
from pycocotools import mask as coco_mask

from densessl.annotations.coco_masks import CHUNK, CompressedRuns, decoded


def runs_of(mask: np.ndarray) -> list[int]:
    """Column by column, the first of zeros."""
    flat = np.concatenate(([0], mask.ravel(order="F")))
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()


def text_of(mask: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(mask))["counts"].decode()


def random_masks(count: int) -> list[np.ndarray]:
    """Noise, blocks, empty and full ones, from one pixel to runs of several characters."""
    rng = np.random.default_rng(0)
    masks = []
    for number in range(count):
        height, width = rng.integers(1, 90, 2)
        mask = (rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1])).astype(np.uint8)
        if number % 3 == 0:
            mask[:] = 0
            mask[height // 4 : height // 2 + 1, width // 3 : width // 2 + 1] = 1
        masks.append(mask)
    return [*masks, np.ones((3000, 2000), np.uint8), np.ones((1, 1), np.uint8)]


def test_texts_have_the_run_lengths_that_pycocotools_wrote():
    masks = random_masks(300)
    counts, owner, broken = decoded([text_of(mask) for mask in masks])
    expected = [runs_of(mask) for mask in masks]
    assert counts.tolist() == [count for runs in expected for count in runs]
    assert owner.tolist() == [place for place, runs in enumerate(expected) for _ in runs]
    assert not broken.any()


def test_right_texts_pass_and_any_other_image_is_named():
    masks = random_masks(200)
    texts = [text_of(mask) for mask in masks]
    times = 2 * CHUNK // sum(map(len, texts)) + 1  # more than are judged at once
    runs = CompressedRuns()
    for again in range(times):
        for place, (mask, text) in enumerate(zip(masks, texts, strict=True)):
            wrong = place == again % len(masks)
            runs.add((again, place), text, mask.size + wrong)
    faults = dict(runs.faults())
    assert sorted(faults) == [(again, again % len(masks)) for again in range(times)]
    assert {kind for kind, _ in faults.values()} == {"sum"}


def test_a_text_that_is_cut_anywhere_is_named():
    mask = random_masks(4)[3]
    text = text_of(mask)
    runs = CompressedRuns()
    for length in range(len(text)):
        runs.add(length, text[:length], mask.size)
    assert sorted(id for id, _ in runs.faults()) == list(range(len(text)))
