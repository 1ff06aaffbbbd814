"""The arithmetic of the roofline, and a step whose operations are known."""

import pytest

from benchmarks import roofline, roofline_transfer
from benchmarks.roofline import Cost, at, largest


def test_the_slower_of_operations_and_bytes_is_the_limit():
    assert Cost(operations=100, moved=10, memory=0).rate(8, peak=50, bandwidth=10) == 4
    assert Cost(operations=100, moved=40, memory=0).rate(8, peak=50, bandwidth=10) == 2


def test_batches_beyond_those_counted_lie_in_a_straight_line():
    small, large = Cost(10, 3, 100), Cost(20, 5, 132)
    assert at(128, small, large) == Cost(40, 9, 196)
    assert largest(196, small, large) == 128 and largest(195, small, large) == 96


def test_a_step_of_simclr_has_the_operations_of_its_resnet():
    """Two views; 4.09 G multiplications of ResNet-50 forward, twice as many backward."""
    step = roofline.cost("simclr", 32)
    expected = 2 * 32 * 3 * 2 * 4.09e9
    assert step.operations == pytest.approx(expected, rel=0.03)


def test_a_step_of_fine_tuning_has_the_operations_of_its_resnet():
    step, images, _ = roofline_transfer.cost("finetune_cls")
    assert step.operations == pytest.approx(2 * 3 * 4.09e9 * images, rel=0.03)


def test_a_detectors_step_counts_its_heads_on_the_regions_it_samples():
    step, images, size = roofline_transfer.cost("coco_mask_fpn_1x")
    assert (images, size) == (2, (736, 960))
    fewer, *_ = roofline_transfer.cost(
        "coco_mask_fpn_1x", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "256"
    )
    box = 256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320)  # two layers and the predictors
    mask = 4 * 14**2 * 9 * 256**2 + 14**2 * 4 * 256**2 + 28**2 * 256 * 80
    regions = 256 * images  # of which a quarter are objects
    assert step.operations - fewer.operations == pytest.approx(
        2 * 3 * (regions * box + regions // 4 * mask)
    )
