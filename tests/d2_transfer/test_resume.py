"""A stopped trial of each kind of detector is, once resumed, bit for bit the undisturbed one.

test_trials.py has Mask R-CNN with other numbers of workers, test_projects.py, test_vitdet.py and
test_own_lazy_config.py have theirs.
"""

import json
from itertools import chain

import pytest
import torch

from densessl.core.errors import StoppedEarly
from densessl.d2_transfer import compat, main, results

compat.setup()
from detectron2.engine.hooks import LRScheduler as Detectron2s  # noqa: E402

SMALL = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.IMS_PER_BATCH": 2,
    "TEST.PRECISE_BN.NUM_ITER": 1,
}


@pytest.mark.parametrize(
    "protocol, amp",
    [
        ("coco_panoptic_fpn_1x", ()),
        ("coco_retinanet_1x", ()),
        ("ade20k_semseg", ()),  # whose rate falls in each step
        ("ade20k_semseg", ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")),
        ("coco_fcos_1x", ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16")),
    ],
)
def test_a_stopped_trial_resumes_bit_for_bit(protocol, amp, scenes, tmp_path, stops_at):
    def go(out):
        flags = ["--mini", "--trials", "1", "--data", str(scenes), "-o", str(tmp_path / out)]
        overrides = [str(word) for word in (*chain(*SMALL.items()), *amp)]
        assert main.main(["random", "--protocol", protocol, *flags, *overrides]) == 0
        folder = tmp_path / out / "trial_1"
        model = torch.load(folder / "model_final.pth", weights_only=True)["model"]
        return model, results.load(folder).metrics

    whole, metrics = go("whole")
    with stops_at(1), pytest.raises(StoppedEarly, match="stopped at step 2 of 4"):
        go("parts")
    parts, same = go("parts")
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    assert same == pytest.approx(metrics, nan_ok=True, rel=0, abs=0)


def test_a_checkpoint_without_the_schedules_place_goes_on_where_it_stood(
    scenes, tmp_path, stops_at, monkeypatch
):
    """As those of PolyLR were before 2026-12, where torch is 2.0 or later."""
    words = ["random", "--protocol", "voc_semseg", "--mini", "--trials", "1"]
    words += ["--data", str(scenes), *(str(word) for word in chain(*SMALL.items()))]

    def rates(out):
        lines = (tmp_path / out / "trial_1" / "metrics.json").read_text().splitlines()
        return [line["lr"] for line in map(json.loads, lines) if "lr" in line]

    assert main.main([*words, "-o", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(Detectron2s, "state_dict", lambda self: None)
        with stops_at(1), pytest.raises(StoppedEarly, match="stopped at step 2 of 4"):
            main.main([*words, "-o", str(tmp_path / "parts")])
    assert main.main([*words, "-o", str(tmp_path / "parts")]) == 0
    assert rates("parts")[-1] == rates("whole")[-1]
