"""The arithmetic of the roofline, and a step whose operations are known."""

import pytest

from benchmarks import roofline
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
