"""What a step of each method asks of a GPU, and the images a second that its limits allow.

    python -m benchmarks.roofline [--methods moco_v2 densecl …]

Arithmetic, no measurement: the real step of the real model on the ``meta`` device, its operations
by PyTorch's FlopCounterMode, its bytes as what every operation reads and writes. In bf16 the bytes
are half of the float32 that is counted. Kernels that are fused read and write less, so the limit
by bytes is a low one. Memory: weights, gradients, the optimizer's moments, and what is kept for the
backward pass.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from densessl.pretrain import config
from densessl.pretrain.engine.memory import META, Kept, built, tensor_bytes
from densessl.pretrain.engine.step import Stepper

GPUS = {  # NVIDIA's data sheets, SXM: dense bf16 operations/s, bytes/s, bytes
    "A100 80 GB": (312e12, 2.04e12, 80e9),
    "H100": (989e12, 3.35e12, 80e9),
    "H200": (989e12, 4.8e12, 141e9),
}
METHODS = ["moco_v2", "densecl", "setsim_paper", "simsiam", "byol", "pixpro", "vader"]
METHODS += ["simclr", "swav", "dino", "scfs"]
BATCHES = 32, 64  # what is counted grows in a straight line between and beyond them


@dataclass(frozen=True)
class Cost:
    """Of a step with so many images on one GPU."""

    operations: float
    moved: float  # bytes
    memory: float  # bytes

    def rate(self, images: int, peak: float, bandwidth: float) -> float:
        """Images a second where operations or bytes, whichever take longer, are the limit."""
        return images / max(self.operations / peak, self.moved / bandwidth)


class _Moved(TorchDispatchMode):
    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.bytes += sum(map(_bytes, tree_leaves((args, kwargs, made))))
        return made


def cost(preset: str, images: int) -> Cost:
    """A step of a built-in config with ``images`` images, in bf16, as a GPU takes it: with the
    backup of what is set back where the step is not finite."""
    cfg = config.load(preset, ["SOLVER.BATCH_SIZE", str(images)])
    method, optimizer, views = built(cfg, images)
    method.steps = method.steps_per_epoch = 1000
    backup = Stepper(method, method, optimizer, META, ahead=True).backup

    def forward() -> Tensor:
        method.before_step(0)
        backup.keep()
        return method(views, 0)["loss"]

    def after() -> None:
        method.after_step(0)
        backup.restore_where(torch.zeros((), dtype=torch.bool, device=META))

    step = counted(method, optimizer, forward, after)
    copies = 2 * sum(_bytes(tensor) for group in backup.tensors for tensor in group)
    return replace(step, memory=step.memory + copies)


def counted(
    model: nn.Module,
    optimizer: Optimizer,
    forward: Callable[[], Tensor],
    after: Callable[[], None] = lambda: None,
) -> Cost:
    """A step of ``model`` on the meta device in bf16: ``forward()``, which gives a loss, the
    backward pass, the optimizer and what comes ``after``."""
    kept = Kept()
    with FlopCounterMode(display=False) as operations, _Moved() as moved:
        with kept.here():
            loss = forward()
        loss.backward()
        optimizer.step()
        after()
    weights = [*model.parameters(), *model.buffers()]
    activations = kept.bytes(weights)
    states = [value for state in optimizer.state.values() for value in state.values()]
    fixed = sum(map(_bytes, [*weights, *states, *(p.grad for p in model.parameters())]))
    return Cost(operations.get_total_flops(), moved.bytes / 2, fixed + activations / 2)


def at(images: int, small: Cost, large: Cost) -> Cost:
    """In a straight line through the costs at both BATCHES."""
    share = (images - BATCHES[0]) / (BATCHES[1] - BATCHES[0])
    pairs = zip(vars(small).values(), vars(large).values(), strict=True)
    return Cost(*(a + share * (b - a) for a, b in pairs))


def largest(room: float, small: Cost, large: Cost) -> int:
    """The largest batch, a multiple of 32, whose memory is at most ``room`` bytes."""
    each = (large.memory - small.memory) / (BATCHES[1] - BATCHES[0])
    return int(BATCHES[0] + (room - small.memory) / each) // 32 * 32


def _bytes(x: object) -> int:
    return tensor_bytes(x) if isinstance(x, Tensor) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    rates = " | ".join(f"{gpu}: images/s at 100 / 40 % | largest batch" for gpu in GPUS)
    print(f"| config | TFLOP | GB moved | GB kept at 64 / 128 / 256 | {rates} |")
    print("|---|" + "--:|" * (3 + 2 * len(GPUS)))
    for preset in options.methods:
        small, large = (cost(preset, images) for images in BATCHES)
        step = at(256, small, large)
        kept = " / ".join(f"{at(n, small, large).memory / 1e9:.0f}" for n in (64, 128, 256))
        cells = [f"{step.operations / 1e12:.1f}", f"{step.moved / 1e9:.0f}", kept]
        for peak, bandwidth, room in GPUS.values():
            rate = step.rate(256, peak, bandwidth)
            cells += [f"{rate:,.0f} / {0.4 * rate:,.0f}", f"{largest(room, small, large):,}"]
        print(f"| `{preset}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
