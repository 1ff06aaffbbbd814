"""The confusion matrix equals a plain count, and its metrics their definitions."""

import math

import numpy as np
import pytest
import torch

from densessl import probes


def plain(predictions, labels, classes):
    """IoU in per cent by sets of pixels; NaN where neither set has any."""
    predictions, labels = predictions.numpy(), labels.numpy()
    kept = (labels >= 0) & (labels < classes)
    found = []
    for c in range(classes):
        ours, theirs = (predictions == c) & kept, (labels == c) & kept
        either = (ours | theirs).sum()
        found.append(100 * (ours & theirs).sum() / either if either else math.nan)
    return found


def test_equals_the_plain_form_over_several_parts():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (3, 20, 30), generator=generator).to(torch.uint8)
    labels[0, :5], labels[1, :5] = 255, 4
    labels[labels == 3] = 4  # class 3 is only predicted, 5 neither
    labels[labels == 5] = 1
    predictions = torch.randint(0, 5, (3, 20, 30), generator=generator)
    confusion = probes.Confusion(6)
    for each, label in zip(predictions, labels, strict=True):
        confusion.add(each, label)
    expected = plain(predictions, labels, 6)
    np.testing.assert_allclose(confusion.iou(), expected, atol=1e-10)
    assert expected[3] == 0 and math.isnan(expected[5])
    assert confusion.miou() == pytest.approx(np.nanmean(expected), abs=1e-10)
    kept = labels != 255
    assert confusion.counts.sum() == kept.sum()
    right = (predictions == labels) & kept
    assert confusion.accuracy() == pytest.approx(100 * float(right.sum() / kept.sum()), abs=1e-4)
    recalls = [
        100 * float((right & (labels == c)).sum() / (labels == c).sum()) for c in (0, 1, 2, 4)
    ]
    assert confusion.recall().nanmean() == pytest.approx(np.mean(recalls), abs=1e-4)


def test_no_labels_give_no_number():
    confusion = probes.Confusion(2)
    confusion.add(torch.zeros(4), torch.tensor([255, -1, 2, 7]))
    assert all(map(math.isnan, (confusion.miou(), confusion.accuracy())))


@pytest.mark.parametrize("predictions", [[0, 1, 2], [0, -1]])
def test_what_does_not_fit_is_refused(predictions):
    with pytest.raises(ValueError):
        probes.Confusion(2).add(torch.tensor(predictions), torch.tensor([0, 1]))


def test_what_is_predicted_where_nothing_counts_may_be_anything():
    confusion = probes.Confusion(2)
    confusion.add(torch.tensor([9, 1]), torch.tensor([255, 1]))
    assert confusion.miou() == 100
