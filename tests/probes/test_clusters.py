"""K-means equals scipy's from the same centres; matching is the best there is, or by pixels."""

import itertools

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from densessl import probes


def blobs(n=300, channels=4, blobs=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(blobs, (n,), generator=generator)
    centres = 4 * torch.randn(blobs, channels, generator=generator, dtype=torch.float64)
    return centres[labels] + torch.randn(n, channels, generator=generator).double(), labels


@pytest.mark.parametrize("rows", [4096, 37])
def test_equals_scipy_from_the_same_centres(rows, monkeypatch):
    monkeypatch.setattr("densessl.probes.clusters.ROWS", rows)
    x, _ = blobs()
    found = probes.kmeans(x, 7, initial=x[:7], iterations=100)
    centres, assignment = kmeans2(x.numpy(), x[:7].numpy(), iter=100, minit="matrix")
    np.testing.assert_allclose(found.centres, centres, atol=1e-6)
    assert found.converged and np.array_equal(found.assignment, assignment)
    expected = ((x.numpy() - centres[assignment]) ** 2).sum()
    assert found.inertia == pytest.approx(expected, abs=1e-6)


def test_a_seed_gives_the_same_and_restarts_no_worse():
    x, _ = blobs()
    once, again = (probes.kmeans(x, 12, seed=3) for _ in range(2))
    assert torch.equal(once.assignment, again.assignment)
    assert probes.kmeans(x, 12, seed=3, restarts=4).inertia <= once.inertia


def test_every_cluster_has_a_position_and_equal_ones_are_no_trouble():
    x = torch.cat([torch.zeros(50, 2), torch.eye(2) + 1])
    found = probes.kmeans(x, 3, initial=torch.zeros(3, 2))
    assert found.assignment.unique().tolist() == [0, 1, 2] and found.inertia == 0
    assert probes.kmeans(torch.zeros(9, 2), 3, seed=0).inertia == 0
    with pytest.raises(ValueError):
        probes.kmeans(x[:2], 3)


def test_hungarian_is_the_best_of_all_matchings():
    counts = torch.randint(0, 50, (4, 4), generator=torch.Generator().manual_seed(1))
    iou = counts / (counts.sum(1, keepdim=True) + counts.sum(0) - counts)
    best = max(
        itertools.permutations(range(4)),
        key=lambda order: sum(iou[k, c] for k, c in enumerate(order)),
    )
    assert probes.match(counts).tolist() == list(best)


def test_more_clusters_than_classes():
    counts = torch.tensor([[5, 1], [0, 9], [3, 3], [0, 0], [1, 2]])
    assert probes.match(counts).tolist() == [0, 1, 0, 0, 1]
    assert probes.match(counts, "hungarian").tolist() == [0, 1, 0, 0, 0]
    assert probes.match(counts[:1].T.contiguous().T, "hungarian").tolist() == [0]
    with pytest.raises(ValueError):
        probes.match(counts, "best")


@pytest.mark.parametrize("clusters", [5, 20])
def test_equals_the_steps_one_by_one(clusters):
    x, labels = blobs(400)
    labels[::7] = 255
    found = probes.overcluster(x, labels, clusters, classes=5, seed=2)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    first = probes.kmeans(torch.from_numpy(z), clusters, seed=2, iterations=0).centres.numpy()
    _, assignment = kmeans2(z, first, iter=100, minit="matrix")
    assert np.array_equal(found.clustering.assignment, assignment)
    predictions = found.matching[torch.from_numpy(assignment).long()]
    expected = probes.Confusion(5)
    expected.add(predictions, labels)
    assert torch.equal(found.confusion.counts, expected.counts)
    assert found.miou == pytest.approx(expected.miou(), abs=1e-6) and found.miou > 60


def test_the_iou_of_pixels_is_that_of_the_clusters_upsampled():
    x, _ = blobs(24)
    labels = torch.randint(0, 4, (1, 16, 24), generator=torch.Generator().manual_seed(5))
    counts = probes.cell_counts(labels, 3, (4, 6))  # class 3 is ignored
    found = probes.overcluster(x, counts.view(24, 3), 8, seed=0)
    classes = found.matching[found.clustering.assignment].view(1, 1, 4, 6).float()
    pixels = torch.nn.functional.interpolate(classes, size=(16, 24), mode="nearest")[:, 0]
    expected = probes.Confusion(3)
    expected.add(pixels, labels)
    assert torch.equal(found.confusion.counts, expected.counts)


def test_components_keep_what_varies_most():
    x, labels = blobs(200, channels=6)
    wide = torch.cat([x, 1e-3 * torch.randn(200, 10).double()], 1)
    one = probes.overcluster(x, labels, 5, classes=5, seed=1, normalisation="none", pca=None)
    other = probes.overcluster(wide, labels, 5, classes=5, seed=1, normalisation="none", pca=6)
    assert torch.equal(one.clustering.assignment, other.clustering.assignment)


def test_channels_count_alike_and_constant_ones_not_at_all():
    x, labels = blobs()
    one = probes.overcluster(x, labels, 5, classes=5, seed=1)
    scaled = torch.cat([x * torch.tensor([1e-5, 1, 10, 1e4]), torch.full((300, 1), 0.1)], 1)
    other = probes.overcluster(scaled + 3, labels, 5, classes=5, seed=1)
    assert torch.equal(one.clustering.assignment, other.clustering.assignment)


def test_spherical_clusters_know_no_length():
    x, labels = blobs()
    options = {"classes": 5, "seed": 1, "normalisation": "unit", "pca": None}
    one = probes.overcluster(x, labels, 6, **options)
    scale = torch.linspace(1, 9, len(x), dtype=torch.float64)[:, None]
    assert torch.equal(
        one.clustering.assignment,
        probes.overcluster(x * scale, labels, 6, **options).clustering.assignment,
    )
    lengths = one.clustering.centres.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
