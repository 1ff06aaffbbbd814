"""One-to-one pairs of salient positions: definitions checked in loops, and their invariants."""

from itertools import permutations

import pytest
import torch

from densessl.pretrain.correspondence import cosine, hungarian, random_pairs, sorted_pairs


def example(seed=0, images=12, queries=20, keys=16):
    """Features, attention and sets of many sizes, an empty one among them."""
    generator = torch.Generator().manual_seed(seed)
    sides = {}
    for name, count in (("q", queries), ("k", keys)):
        share = torch.rand(images, 1, generator=generator)
        members = torch.rand(images, count, generator=generator) < share
        members[0] = name == "q"  # no key is salient
        members[1] = True
        features = torch.rand(images, 8, count, generator=generator)
        sides[name] = features, torch.rand(images, count, generator=generator), members
    return sides["q"], sides["k"]


def strategies():
    def by_attention(query, key):
        return sorted_pairs(query[1], key[1], query[2], key[2])

    def at_random(query, key):
        return random_pairs(query[2], key[2], torch.Generator().manual_seed(3))

    def by_assignment(query, key):
        return hungarian(query[0], key[0], query[2], key[2])

    return {"sorted": by_attention, "random": at_random, "hungarian": by_assignment}


@pytest.mark.parametrize("name", strategies())
@pytest.mark.parametrize("queries, keys", [(20, 16), (9, 25), (49, 49)])
def test_pairs_are_one_to_one_within_the_sets(name, queries, keys):
    query, key = example(queries=queries, keys=keys)
    pairs = strategies()[name](query, key)
    assert pairs.shape == (12, queries, keys) and pairs.dtype == torch.bool
    assert pairs.sum(1).max() == 1 and pairs.sum(2).max() == 1
    assert not (pairs & ~query[2][:, :, None]).any() and not (pairs & ~key[2][:, None]).any()
    expected = torch.minimum(query[2].sum(1), key[2].sum(1))
    assert torch.equal(pairs.sum((1, 2)), expected)
    assert expected[0] == 0 and expected[1] == min(queries, keys)


@pytest.mark.parametrize("name", ["sorted", "hungarian"])
def test_an_image_does_not_depend_on_the_others(name):
    query, key = example()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    pairs = strategies()[name](query, key)
    permuted = strategies()[name]([x[order] for x in query], [x[order] for x in key])
    assert torch.equal(permuted, pairs[order])


def test_sorted_pairs_go_by_rank():
    attention_q = torch.tensor([[0.8, 0.1, 1.0, 0.9, 0.7]])
    attention_k = torch.tensor([[0.7, 1.0, 0.2, 0.9, 0.0]])
    pairs = sorted_pairs(attention_q, attention_k, attention_q >= 0.7, attention_k >= 0.7)
    assert pairs.nonzero().tolist() == [[0, 0, 0], [0, 2, 1], [0, 3, 3]]  # 4 is left over


def test_equal_attention_ranks_by_index():
    attention = torch.ones(1, 6)
    members = torch.tensor([[False, True, True, False, True, True]])
    others = torch.tensor([[True, False, False, True, True, False]])
    pairs = sorted_pairs(attention, attention, members, others)
    assert pairs.nonzero().tolist() == [[0, 1, 0], [0, 2, 3], [0, 4, 4]]


def test_sorted_pairs_match_a_loop():
    query, key = example(seed=5)
    pairs = sorted_pairs(query[1], key[1], query[2], key[2])
    for b in range(12):
        ranks = []
        for _, attention, members in (query, key):
            inside = members[b].nonzero().flatten().tolist()
            ranks.append(sorted(inside, key=lambda n: -attention[b, n].item()))  # noqa: B023
        expected = sorted(zip(*ranks, strict=False))
        assert list(map(tuple, pairs[b].nonzero().tolist())) == expected


def test_random_pairs_follow_the_generator():
    query, key = example()

    def draw(seed):
        return random_pairs(query[2], key[2], torch.Generator().manual_seed(seed))

    assert torch.equal(draw(7), draw(7))
    assert not torch.equal(draw(7), draw(8))
    torch.manual_seed(1)
    first = random_pairs(query[2], key[2])
    torch.manual_seed(1)
    assert torch.equal(first, random_pairs(query[2], key[2]))  # without one, torch's own


def test_random_pairs_are_uniform():
    """Two of three queries with two of two keys: all six ways equally often."""
    count = 12000
    queries, keys = torch.ones(count, 3).bool(), torch.ones(count, 2).bool()
    pairs = random_pairs(queries, keys, torch.Generator().manual_seed(0))
    ways = pairs.int().argmax(1)  # the query of each key
    counts = torch.stack(
        [(ways == torch.tensor(way)).all(1).sum() for way in permutations(range(3), 2)]
    )
    assert counts.sum() == count
    # Binomial with mean 2000 and standard deviation 41.
    assert (counts - count / 6).abs().max() < 5 * 41


def test_hungarian_has_the_highest_total_cosine():
    query, key = example(images=8, queries=6, keys=5)
    cos = cosine(query[0], key[0]).double()
    pairs = hungarian(query[0], key[0], query[2], key[2])
    for b in range(8):
        rows = query[2][b].nonzero().flatten().tolist()
        columns = key[2][b].nonzero().flatten().tolist()
        if len(rows) < len(columns):
            ways = ([*zip(rows, way, strict=True)] for way in permutations(columns, len(rows)))
        else:
            ways = ([*zip(way, columns, strict=True)] for way in permutations(rows, len(columns)))
        highest = max(sum(cos[b, i, j].item() for i, j in way) for way in ways)
        assert (cos[b] * pairs[b]).sum().item() == pytest.approx(highest, abs=1e-9)


def test_hungarian_is_at_least_as_good_as_the_other_strategies():
    query, key = example(images=32, queries=49, keys=49)
    cos = cosine(query[0], key[0])
    total = {name: (cos * way(query, key)).sum((1, 2)) for name, way in strategies().items()}
    for other in ("sorted", "random"):
        assert (total["hungarian"] >= total[other] - 1e-5).all()
        assert total["hungarian"].mean() > 1.05 * total[other].mean()


def test_hungarian_finds_a_permutation_and_ignores_scale():
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(3, 16, 5, 5, generator=generator)
    order = torch.randperm(25, generator=generator)
    everything = torch.ones(3, 25).bool()
    pairs = hungarian(z, z.flatten(2)[:, :, order], everything, everything)
    assert torch.equal(pairs.int().argmax(2), order.argsort().expand(3, 25))
    noise = torch.rand(3, 16, 5, 5, generator=generator)
    assert torch.equal(
        hungarian(37 * z, noise, everything, everything),
        hungarian(z, noise, everything, everything),
    )
