"""Retrieval equals the full matrix, and never makes it."""

import pytest
import torch

from densessl import probes


def case(queries=37, keys=500, channels=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(classes, (keys,), generator=generator)
    return draw(queries, channels), draw(keys, channels), labels


def plain(queries, keys, soft, k, temperature):
    """By the full matrix."""
    q, m = (x / x.norm(dim=1, keepdim=True) for x in (queries, keys))
    similarity, index = (q @ m.T).topk(k, dim=1)
    return ((similarity / temperature).softmax(1)[:, :, None] * soft[index]).sum(1)


@pytest.mark.parametrize("rows", [4096, 10])
def test_equals_the_full_matrix(rows, monkeypatch):
    monkeypatch.setattr("densessl.probes.retrieval.ROWS", rows)
    queries, keys, labels = case()
    soft = torch.nn.functional.one_hot(labels, 5).double()
    expected = plain(queries, keys, soft, 30, 0.02)
    found = probes.knn_segment(queries, keys, labels, classes=5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    parts = probes.knn_segment(queries, (keys[:3], keys[3:400], keys[400:]), soft)
    torch.testing.assert_close(parts, expected, atol=1e-6, rtol=0)
    soft = torch.rand(500, 5, generator=torch.Generator().manual_seed(1)).double()
    expected = plain(queries, keys, soft / soft.sum(1, keepdim=True), 7, 0.1)
    found = probes.knn_segment(queries, keys, soft, 7, 0.1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("soft", [True, False])
def test_keys_without_a_class_are_no_neighbours(soft):
    queries, keys, labels = case()
    labels[::2] = 255
    kept = probes.knn_segment(queries, keys[1::2], labels[1::2], classes=5)
    if soft:
        labels = torch.nn.functional.one_hot(labels.clamp(max=5), 6)[:, :5].float()
    found = probes.knn_segment(queries, [keys[:100], keys[100:]], labels, classes=5)
    torch.testing.assert_close(found, kept, atol=1e-6, rtol=0)


def test_what_does_not_fit_is_refused():
    queries, keys, labels = case()
    for wrong in (
        {"keys": keys[1:]},
        {"keys": torch.cat([keys, keys])},
        {"labels": labels[1:]},
        {"labels": labels + 5},
        {"classes": None},
        {"temperature": 0},
        {"k": 0},
    ):
        given = {"keys": keys, "labels": labels, "classes": 5} | wrong
        with pytest.raises(ValueError):
            probes.knn_segment(queries, **given)


def test_subsets_are_nested_and_by_seed():
    large, small = (set(probes.subset(10582, share, 3)) for share in ("1/64", "1/128"))
    assert small < large and len(small) == 83
    assert small != set(probes.subset(10582, "1/128", 4))
    assert probes.subset(5, "1/1", 0) == list(range(5))
    assert len(probes.subset(5, "1/128", 0)) == 1
    with pytest.raises(ValueError):
        probes.subset(5, 0, 0)


def test_rare_classes_are_sampled_more_often():
    counts = torch.zeros(100, 3)
    counts[:88, 0], counts[88:98, 1], counts[98:, 0] = 4, 4, 0  # 98, 99: no class
    taken = torch.zeros(100)
    for seed in range(200):
        index = probes.sample_positions(counts, 20, torch.Generator().manual_seed(seed))
        assert index.tolist() == sorted(set(index.tolist())) and len(index) == 20
        taken[index] += 1
    assert taken[98:].sum() == 0
    assert taken[88:98].mean() > 3 * taken[:88].mean()
    every = probes.sample_positions(counts, 1000, torch.Generator())
    assert every.tolist() == list(range(98))


def test_memory_does_not_grow_with_positions_times_queries(largest_tensor):
    """No tensor is larger than a block of the search, soft labels or not."""
    found = []
    for size in (1, 2):
        queries, keys = torch.randn(1500, 16), torch.randn(9000 * size, 16)
        counts = torch.randint(1, 5, (9000 * size, 3))
        with largest_tensor() as largest:
            probes.knn_segment(queries, keys.split(7000), counts)
        found.append(largest.bytes)
    block = 1024 * 8192 * 4
    assert found[0] == found[1] <= 2 * block < 1500 * 18_000 * 4 / 1.5
