"""The pixels of each position are those that nearest upsampling gives it."""

import pytest
import torch

from densessl import probes


@pytest.mark.parametrize("size, grid", [((16, 24), (4, 6)), ((17, 23), (4, 6)), ((5, 5), (5, 5))])
def test_pixels_belong_to_the_position_that_upsampling_puts_there(size, grid):
    labels = torch.randint(0, 5, (2, *size), generator=torch.Generator().manual_seed(0))
    counts = probes.cell_counts(labels.to(torch.uint8), 4, grid)  # class 4 is ignored
    numbers = torch.arange(grid[0] * grid[1]).view(1, 1, *grid).float()
    place = torch.nn.functional.interpolate(numbers, size=size, mode="nearest")[0, 0].long()
    for image, found in zip(labels, counts.view(2, -1, 4), strict=True):
        for position in range(grid[0] * grid[1]):
            inside = image[place == position]
            assert found[position].tolist() == [int((inside == c).sum()) for c in range(4)]
    assert torch.equal(probes.cell_counts(labels[1], 4, grid), counts[1])


def test_shares():
    counts = torch.tensor([[1, 3], [2, 2], [0, 0]])
    assert probes.shares(counts).tolist() == [[0.25, 0.75], [0.5, 0.5], [0, 0]]
