"""Time to give each pixel its class: logits of positions, upsampled to the label image, and the
index of the largest.

    OMP_NUM_THREADS=1 python -m benchmarks.pixel_classes

One thread; what is counted is processor time. All find the same classes but where rounding decides.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.probes import largest, upsampled

CASES = ((150, (32, 32), (512, 683)), (21, (28, 28), (375, 500)), (19, (64, 128), (1024, 2048)))


def plain(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False).argmax(1)


def one_by_one(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """As this was done before: [None] gives the strides of no known layout."""
    return torch.stack([plain(each[None], size)[0] for each in maps])


def contiguous(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return plain(maps.contiguous(), size)


def by_numpy(maps: Tensor, size: tuple[int, int]) -> Tensor:
    whole = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return torch.from_numpy(np.argmax(whole.numpy(), 1))


def ours(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return largest(upsampled(maps, size), 1)


WAYS: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "before": one_by_one,
    "contiguous, argmax": contiguous,
    "channels last, argmax": plain,
    "channels last, NumPy's argmax": by_numpy,
    "ours": ours,
}


def seconds(way: Callable, maps: Tensor, size: tuple[int, int]) -> float:
    began = time.process_time()
    way(maps, size)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each, in turns")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"| classes, positions, pixels | {' | '.join(WAYS)} |")
    print("|---|" + "--:|" * len(WAYS))
    for classes, grid, size in CASES:
        generator = torch.Generator().manual_seed(0)
        # As a probe gives them: position by position.
        maps = torch.randn(1, *grid, classes, generator=generator).permute(0, 3, 1, 2)
        found = {name: way(maps, size) for name, way in WAYS.items()}
        assert all((each != found["ours"]).float().mean() < 1e-5 for each in found.values())
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(repeats):
            for name, way in WAYS.items():
                times[name].append(1e3 * seconds(way, maps, size))
        cells = [
            f"{statistics.median(each):.0f} ({min(each):.0f}-{max(each):.0f})"
            for each in times.values()
        ]
        shape = f"{classes}, {grid[0]} × {grid[1]}, {size[0]} × {size[1]}"
        print(f"| {shape} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
