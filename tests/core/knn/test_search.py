"""Nearest neighbours: the plain full matrix gives the same, ties included, and is never made."""

import pytest
import torch

from densessl.core import knn


def plain(queries, database, k):
    """Every similarity in float64, sorted stably: the definition."""
    values = queries.double() @ database.double().T
    values, index = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k], index[:, :k]


def whole_numbers(n, d, seed, most=3):
    """Small whole numbers: float32 holds their dot products exactly, and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, (n, d), generator=generator).float()


@pytest.mark.parametrize("k", [1, 7, 50, 200, 333, 1000])
@pytest.mark.parametrize("rows, columns", [(1024, 8192), (5, 64), (7, 1), (1, 333)])
def test_equals_the_plain_form_with_its_ties(k, rows, columns):
    queries, database = whole_numbers(23, 4, 0), whole_numbers(333, 4, 1)
    values, index = knn.nearest(queries, database, k, rows, columns)
    expected, order = plain(queries, database, k)
    assert torch.equal(values.double(), expected)
    assert torch.equal(index, order)


def test_rows_may_come_in_several_parts_and_types():
    queries, database = whole_numbers(9, 6, 2), whole_numbers(100, 6, 3)
    parts = [database[:1], database[1:40].double(), database[40:]]
    values, index = knn.nearest(queries, iter(parts), 30, columns=16)
    expected, order = plain(queries, database, 30)
    assert torch.equal(index, order) and torch.equal(values.double(), expected)
    assert values.dtype == queries.dtype


def test_all_alike_gives_the_first_rows():
    values, index = knn.nearest(torch.ones(4, 3), torch.ones(50, 3), 6, rows=3, columns=8)
    assert torch.equal(index, torch.arange(6).expand(4, 6)) and (values == 3).all()


def test_ordinary_features_have_the_neighbours_of_float64():
    generator = torch.Generator().manual_seed(4)
    queries = knn.unit(torch.randn(64, 32, generator=generator))
    database = knn.unit(torch.randn(3000, 32, generator=generator))
    values, index = knn.nearest(queries, database, 20, rows=48, columns=700)
    expected, order = plain(queries, database, 20)
    assert (values - expected).abs().max() < 1e-6
    assert torch.equal(index, order)


def test_no_queries_and_few_rows():
    values, index = knn.nearest(torch.ones(0, 3), torch.ones(5, 3), 2)
    assert values.shape == index.shape == (0, 2)
    assert knn.nearest(torch.ones(2, 3), torch.ones(1, 3), 10)[1].tolist() == [[0], [0]]


@pytest.mark.parametrize("queries, k", [(torch.ones(3), 1), (torch.ones(2, 3), 0)])
def test_wrong_input_is_refused(queries, k):
    with pytest.raises(ValueError, match="k is"):
        knn.nearest(queries, torch.ones(5, 3), k)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="rows are"):
        knn.nearest(torch.ones(2, 3), torch.ones(5, 4), 1)


def test_unit_rows_and_rows_of_zeros():
    rows = knn.unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16))
    assert torch.equal(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_autocast_changes_nothing():
    generator = torch.Generator().manual_seed(5)
    queries, database = (
        torch.randn(6, 16, generator=generator),
        torch.randn(90, 16, generator=generator),
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = knn.nearest(queries, database, 5)
    assert all(map(torch.equal, found, knn.nearest(queries, database, 5)))


def test_no_matrix_of_all_similarities_is_allocated(largest_tensor):
    """The largest tensor of a search of 4000 × 30000 is far below the 480 MB of their matrix."""
    queries, database = whole_numbers(4000, 2, 6), whole_numbers(30000, 2, 7)
    with largest_tensor() as largest:
        knn.nearest(queries, database, 200)
    block = 1024 * 8192 * 4
    assert largest.bytes <= 2 * block  # a row's edge is settled by a sort with int64 numbers
    assert 6 * largest.bytes < 4000 * 30000 * 4


@pytest.mark.parametrize("columns", [1600, 4000, 4001])
def test_few_of_many_columns_keep_the_order_of_their_ties(columns):
    values = whole_numbers(40, columns, 8, most=30)
    values[0] = 1.0  # all alike: a search of all
    top, index = knn.search.largest(values, 20)
    falling, numbers = values.sort(dim=1, descending=True, stable=True)
    assert torch.equal(top, falling[:, :20]) and torch.equal(index, numbers[:, :20])
