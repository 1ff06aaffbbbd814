"""Panoptic quality: small cases by hand, and random ones by the paper's formulas, written out."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation.panoptic import PanopticEvaluator, matched, quality

compat.setup()
PERSON, CAR, SKY, ROAD = 1, 3, 187, 149  # category ids; the first two are things
THINGS = {PERSON, CAR}


def strip(*parts: tuple[int, int]) -> np.ndarray:
    """One row of pixels: (number of a segment, pixels), …"""
    return np.array([[number for number, count in parts for _ in range(count)]])


def counts(truth, segments, predicted, found) -> dict[int, list[float]]:
    return {k: v.tolist() for k, v in matched(truth, segments, predicted, found).items()}


def test_a_match_needs_more_than_half_of_the_union():
    truth, segments = strip((1, 10), (2, 10)), {1: (PERSON, False), 2: (SKY, False)}
    more, half = strip((5, 13), (6, 7)), strip((5, 20))
    found = {5: PERSON, 6: SKY}
    assert counts(truth, segments, more, found) == {
        PERSON: [pytest.approx(10 / 13), 1, 0, 0],
        SKY: [pytest.approx(7 / 10), 1, 0, 0],
    }
    assert counts(truth, segments, half, {5: PERSON}) == {
        PERSON: [0, 0, 1, 1],  # its IoU is 0.5 exactly
        SKY: [0, 0, 0, 1],
    }


def test_a_segment_of_another_category_is_missed_and_wrong():
    truth, segments = strip((1, 10)), {1: (PERSON, False)}
    assert counts(truth, segments, strip((9, 10)), {9: CAR}) == {
        PERSON: [0, 0, 0, 1],
        CAR: [0, 0, 1, 0],
    }


def test_pixels_without_a_true_segment_count_neither_way():
    truth, segments = strip((1, 6), (0, 14)), {1: (PERSON, False)}
    assert counts(truth, segments, strip((5, 12), (0, 8)), {5: PERSON}) == {PERSON: [1, 1, 0, 0]}
    # mostly there: no error; half there: an error
    truth = strip((1, 10), (0, 10))
    assert counts(truth, segments, strip((0, 9), (5, 11)), {5: CAR}) == {PERSON: [0, 0, 0, 1]}
    found = counts(truth, segments, strip((0, 5), (5, 10), (0, 5)), {5: CAR})
    assert found == {PERSON: [0, 0, 0, 1], CAR: [0, 0, 1, 0]}


def test_a_crowd_is_neither_missed_nor_matched_and_excuses_its_own_category():
    truth, segments = strip((1, 10)), {1: (PERSON, True)}
    assert counts(truth, segments, strip((5, 10)), {5: PERSON}) == {}
    assert counts(truth, segments, strip((0, 10)), {}) == {}
    assert counts(truth, segments, strip((5, 10)), {5: CAR}) == {CAR: [0, 0, 1, 0]}


def test_the_metrics_by_hand():
    total = {
        PERSON: np.array([1.5, 2, 1, 1]),  # PQ 1.5 / 3, SQ 1.5 / 2, RQ 2 / 3
        CAR: np.array([0.0, 0, 0, 2]),  # 0, 0, 0
        SKY: np.array([0.9, 1, 0, 0]),  # 0.9, 0.9, 1
        ROAD: np.zeros(4),  # neither there nor found
    }
    found = quality(total, THINGS)
    assert found["PQ"] == pytest.approx(100 * (0.5 + 0 + 0.9) / 3)
    assert found["SQ_th"] == pytest.approx(100 * 0.75 / 2)
    assert found["RQ_th"] == pytest.approx(100 * (2 / 3) / 2)
    assert (found["PQ_st"], found["RQ_st"]) == (pytest.approx(90), pytest.approx(100))
    assert np.isnan(quality({SKY: total[SKY]}, THINGS)["PQ_th"])


def by_the_paper(truth, segments, predicted, found) -> dict[int, list[float]]:
    """Equations 1 and 2 with masks, a pair of segments after the other."""
    void, result = truth == 0, {}
    for category in {each for each, _ in segments.values()} | set(found.values()):
        own = {n: truth == n for n, each in segments.items() if each == (category, False)}
        crowds = [truth == n for n, each in segments.items() if each == (category, True)]
        unjudged = np.any([void, *crowds], axis=0)
        ours = {n: predicted == n for n, kind in found.items() if kind == category}
        ious = {
            (a, b): (own[a] & ours[b]).sum() / ((own[a] | ours[b]) & (own[a] | ~void)).sum()
            for a, b in itertools.product(own, ours)
        }
        hits = {pair: iou for pair, iou in ious.items() if iou > 0.5}
        rest = [mask for n, mask in ours.items() if n not in {b for _, b in hits}]
        wrong = [mask for mask in rest if (mask & unjudged).sum() <= mask.sum() / 2]
        row = [sum(hits.values()), len(hits), len(wrong), len(own) - len(hits)]
        if any(row):
            result[category] = row
    return result


@pytest.mark.parametrize("seed", range(6))
def test_random_segments_have_the_paper_s_numbers(seed):
    rng = np.random.default_rng(seed)
    kinds = (PERSON, CAR, SKY, ROAD)
    truth = np.kron(rng.integers(0, 9, (6, 6)), np.ones((4, 4), int))
    predicted = np.where(rng.random(truth.shape) < 0.15, 0, np.roll(truth, seed % 2, 1))
    segments = {n: (kinds[n % 4], n == 8) for n in np.unique(truth).tolist() if n}
    found = {n: kinds[(n + (n == 3)) % 4] for n in np.unique(predicted).tolist() if n}
    expected = by_the_paper(truth, segments, predicted, found)
    assert counts(truth, segments, predicted, found) == {
        category: pytest.approx(row) for category, row in expected.items()
    }
    assert sum(row[1] for row in expected.values()) > 0


def data_set(folder) -> str:
    from detectron2.data import MetadataCatalog

    name = f"panoptic_{folder.name}"
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[:2], pixels[2:] = (7, 1, 0), (0, 0, 1)  # segments 263 and 65536
    Image.fromarray(pixels).save(folder / "9.png")
    segments = [{"id": 263, "category_id": PERSON}, {"id": 65536, "category_id": SKY}]
    entry = {"image_id": 9, "file_name": "9.png", "segments_info": segments}
    (folder / "truth.json").write_text(json.dumps({"annotations": [entry]}))
    MetadataCatalog.get(name).set(
        panoptic_json=str(folder / "truth.json"),
        panoptic_root=str(folder),
        thing_dataset_id_to_contiguous_id={PERSON: 0, CAR: 1},
        stuff_dataset_id_to_contiguous_id={ROAD: 1, SKY: 2},
    )
    return name


def test_classes_of_a_model_become_categories_and_colours_segments(tmp_path):
    evaluator = PanopticEvaluator(data_set(tmp_path))
    evaluator.reset()
    predicted = torch.tensor([[1] * 5] * 2 + [[2] * 5] * 2, dtype=torch.int32)
    found = [{"id": 1, "isthing": True, "category_id": 0}, {"id": 2, "isthing": False}]
    found[1]["category_id"] = 2
    evaluator.process([{"image_id": 9}], [{"panoptic_seg": (predicted, found)}])
    metrics = evaluator.evaluate()["panoptic_seg"]
    assert set(metrics.values()) == {100.0} and len(metrics) == 9


def test_a_prediction_of_another_size_is_named(tmp_path):
    evaluator = PanopticEvaluator(data_set(tmp_path))
    evaluator.reset()
    with pytest.raises(InputError, match=r"9\.png is 5 x 4, its prediction 3 x 2"):
        evaluator.process([{"image_id": 9}], [{"panoptic_seg": (torch.zeros(2, 3), [])}])
