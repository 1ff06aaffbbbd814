"""The weighted vote against the definition, one query at a time in Python's own numbers."""

import math

import pytest
import torch

from densessl.core import knn


def plain(queries, database, labels, classes, k, temperature):
    """Classes by falling sums of exp(s/τ) over the k nearest; equal sums: the lower class first."""
    predicted = []
    for query in queries.double():
        similarity = (database.double() @ query).tolist()
        order = sorted(range(len(similarity)), key=lambda row: (-similarity[row], row))[:k]
        sums = [0.0] * classes
        for row in order:
            sums[labels[row]] += math.exp((similarity[row] - similarity[order[0]]) / temperature)
        predicted.append(sorted(range(classes), key=lambda c: (-sums[c], c)))
    return torch.tensor(predicted)


@pytest.fixture(scope="module")
def features():
    """Features of 7 loose classes, of which many rows are doubles: 90 queries, 700 rows.

    In steps of 1/64, so that every dot product is exact, whatever the order of its sum.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 8, generator=generator)
    labels = torch.randint(0, 7, (700,), generator=generator)
    database = centres[labels] + torch.randn(700, 8, generator=generator)
    database[350:500] = database[100:250]
    truth = torch.randint(0, 7, (90,), generator=generator)
    queries = centres[truth] + torch.randn(90, 8, generator=generator)
    coarse = [(64 * knn.unit(x)).round().double() / 64 for x in (queries, database)]
    return *coarse, labels, truth


def test_every_k_predicts_what_the_definition_does(features):
    queries, database, labels, truth = features
    ks = (10, 20, 100, 200, 5000)
    found = knn.classify(queries, database, labels, 7, ks, 0.07)
    assert list(found) == list(ks)
    for k in ks:
        expected = plain(queries, database, labels.tolist(), 7, k, 0.07)
        assert torch.equal(found[k], expected[:, :5])
    hits = (found[20][:, 0] == truth).double().mean()
    assert hits > 0.5  # of 7 classes


def test_float32_predicts_the_same(features):
    queries, database, labels, _ = features
    found = knn.classify(queries.float(), database.float(), labels, 7, (20, 200))
    expected = knn.classify(queries, database, labels, 7, (20, 200))
    assert all(torch.equal(found[k], expected[k]) for k in (20, 200))


def test_two_neighbours_by_hand():
    similarity, labels = torch.tensor([[0.9, 0.8, 0.8]]), torch.tensor([[2, 1, 1]])
    # e^(0.9/τ) against twice e^(0.8/τ): equal at τ = 0.1 / ln 2
    assert knn.vote(similarity, labels, 3, (3,), 0.13)[3].tolist() == [[2, 1, 0]]
    assert knn.vote(similarity, labels, 3, (3,), 0.16)[3].tolist() == [[1, 2, 0]]
    assert knn.vote(similarity, labels, 3, (1,), 0.16)[1].tolist() == [[2, 0, 1]]


def test_equal_votes_go_to_the_lower_class():
    similarity, labels = torch.full((1, 4), 0.5), torch.tensor([[3, 1, 3, 1]])
    assert knn.vote(similarity, labels, 5, (4,))[4].tolist() == [[1, 3, 0, 2, 4]]


def test_small_temperatures_stay_finite():
    similarity, labels = torch.tensor([[1.0, 0.99]]), torch.tensor([[1, 0]])
    assert knn.vote(similarity, labels, 2, (2,), 1e-4)[2].tolist() == [[1, 0]]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperatures_that_are_none_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        knn.vote(torch.ones(1, 1), torch.zeros(1, 1).long(), 2, (1,), temperature)
