"""Which evaluator a data set gets, what a record keeps of its results, and stops in between."""

import math
import os
import signal

import pytest

from densessl.core import waiting
from densessl.core.errors import InputError, StoppedEarly
from densessl.d2_transfer import compat, datasets
from densessl.d2_transfer.evaluation import build_evaluator, flat_metrics
from densessl.d2_transfer.evaluation.build import (
    CityscapesInstanceEvaluator,
    CocoEvaluator,
    LvisEvaluator,
    OccurringClassesVOCEvaluator,
    Progress,
    Quiet,
    SemanticEvaluator,
)
from densessl.d2_transfer.stops import stoppable

compat.setup()
from detectron2.evaluation import DatasetEvaluators  # noqa: E402

EVALUATORS = {
    "voc_2007_test": OccurringClassesVOCEvaluator,
    "coco_2017_val": CocoEvaluator,
    "keypoints_coco_2017_val": CocoEvaluator,
    "coco_2017_val_panoptic_separated": DatasetEvaluators,  # panoptic quality, and COCO's AP
    "lvis_v0.5_val": LvisEvaluator,
    "lvis_v1_val": LvisEvaluator,
    "cityscapes_fine_instance_seg_val": CityscapesInstanceEvaluator,
    "cityscapes_fine_sem_seg_val": SemanticEvaluator,
    "voc_2012_semseg_val": SemanticEvaluator,
    "ade20k_sem_seg_val": SemanticEvaluator,
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_protocols_test_set_has_its_evaluator(scenes, name):
    datasets.register(scenes)
    built = build_evaluator(name, "", images=6)
    assert [type(each) for each in built._evaluators] == [Progress, EVALUATORS[name]]


def test_an_unknown_evaluator_type_is_refused_with_those_there_are():
    from detectron2.data import MetadataCatalog

    MetadataCatalog.get("unknown_type").set(evaluator_type="cityscapes_sem_seg")
    with pytest.raises(InputError, match="'cityscapes_sem_seg'.*unknown_type.*sem_seg"):
        build_evaluator("unknown_type", "", images=1)
    with pytest.raises(InputError, match="'None'"):
        build_evaluator("no_such_data_set", "", images=1)


def test_a_record_keeps_the_means_and_the_ap_or_iou_of_single_classes():
    nan = float("nan")
    flat = flat_metrics(
        {
            "bbox": {"AP": 7, "APs": nan, "AP-bird": 3.0},
            "keypoints": {"AP": 1.0, "APm": 2.0},
            "sem_seg": {"mIoU": 4.0, "pACC": 5.0, "IoU-sky": 6.0, "ACC-sky": 7.0},
        }
    )
    assert math.isnan(flat.pop("bbox/APs"))
    assert flat == {
        "bbox/AP": 7.0,
        "bbox/AP-bird": 3.0,
        "keypoints/AP": 1.0,
        "keypoints/APm": 2.0,
        "sem_seg/mIoU": 4.0,
        "sem_seg/pACC": 5.0,
        "sem_seg/IoU-sky": 6.0,
    }
    assert all(type(value) is float for value in flat.values())


def test_a_stop_is_answered_at_the_next_image(monkeypatch):
    progress = Progress("evaluate", images=3)
    progress.reset()
    progress.process([{}], [{}])
    assert progress.bar.done == 1
    monkeypatch.setattr(waiting, "_asked", True)
    with pytest.raises(StoppedEarly, match="evaluates again"):
        progress.process([{}], [{}])
    assert progress.bar is None


def test_a_stop_is_forgotten_with_the_work_that_it_ended():
    with stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        assert waiting.asked()
    assert not waiting.asked()


def test_what_an_evaluator_prints_is_not_seen(capsys):
    class Loud(Progress):
        def evaluate(self):
            print("Average Precision")
            return {"bbox": {"AP": 1.0}}

    evaluator = Quiet([Progress("evaluate", 1), Loud("loud", 1)])
    evaluator.reset()
    assert evaluator.evaluate() == {"bbox": {"AP": 1.0}}
    assert capsys.readouterr().out == ""
