"""Pretrain with lightly's MoCo-v2 or DenseCL: the outside check of ``make evidence``.

    python -m benchmarks.evidence.lightly_pretrain densecl IMAGES --steps 600 --seed 1 -o FILE.pth

Network, views, optimiser and schedule are those that ``configs/papers/evidence`` gives to our own
MoCo-v2 and DenseCL; transforms, heads, losses, memory bank and momentum updates are lightly's, put
together as in its examples. What then still differs, docs/evidence.md says. The file holds a
torchvision ResNet-18 without its classifier. A run takes minutes; one that was stopped starts from
the beginning.
"""

import argparse
import copy
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from densessl.core.errors import EnvironmentLacks, InputError, run_module

METHODS = ("moco_v2", "densecl")
SUFFIXES = (".jpg", ".jpeg", ".png")
DIM, HIDDEN, CHANNELS = 128, 512, 512
TEMPERATURE = 0.2
WARMUP_FACTOR = 0.01


def main(argv: list[str]) -> int:
    """Train and write the backbone; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        import lightly  # noqa: F401
    except ImportError:
        raise EnvironmentLacks(
            "lightly is missing: pip install 'densessl[evidence]' (make evidence installs it)"
        ) from None
    torch.manual_seed(args.seed)
    files = sorted(path for path in args.images.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(files) < args.batch:
        raise InputError(f"{args.images} holds {len(files)} images; a batch is of {args.batch}")
    model = Pair(args.method, args.queue)
    train(model, files, args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    partial = args.output.with_name(args.output.name + ".part")
    torch.save({"state_dict": model.backbone.state_dict()}, partial)
    os.replace(partial, args.output)
    return 0


class Pair(nn.Module):
    """Query and momentum encoder of MoCo-v2, or of DenseCL, from lightly's parts."""

    def __init__(self, method: str, queue: int):
        import torchvision
        from lightly.loss import NTXentLoss
        from lightly.models import utils
        from lightly.models.modules import DenseCLProjectionHead, MoCoProjectionHead

        super().__init__()
        self.dense = method == "densecl"
        resnet = torchvision.models.resnet18()
        resnet.fc = nn.Identity()
        self.backbone = resnet
        head = DenseCLProjectionHead if self.dense else MoCoProjectionHead
        names = ("image", "dense") if self.dense else ("image",)
        self.heads = nn.ModuleDict({name: head(CHANNELS, HIDDEN, DIM) for name in names})
        self.losses = nn.ModuleDict(
            {name: NTXentLoss(TEMPERATURE, memory_bank_size=(queue, DIM)) for name in names}
        )
        self.momentum_backbone = copy.deepcopy(self.backbone)
        self.momentum_heads = copy.deepcopy(self.heads)
        for module in (self.momentum_backbone, self.momentum_heads):
            utils.deactivate_requires_grad(module)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        from lightly.models import utils

        query = _features(self.backbone, first)  # [B, C, h, w]
        with torch.no_grad():
            key = _features(self.momentum_backbone, second)
            k = self.momentum_heads["image"](key.mean((2, 3)))
        loss = self.losses["image"](self.heads["image"](query.mean((2, 3))), k)
        if not self.dense:
            return loss
        rows, key_rows = (each.flatten(2).transpose(1, 2) for each in (query, key))  # [B, N, C]
        with torch.no_grad():
            p_k = self.momentum_heads["dense"](key_rows)
            p_k = utils.select_most_similar(rows, key_rows, p_k)
        p_q = self.heads["dense"](rows)
        return 0.5 * loss + 0.5 * self.losses["dense"](p_q.flatten(0, 1), p_k.flatten(0, 1))

    def follow(self, momentum: float) -> None:
        """Move the momentum encoder."""
        from lightly.models import utils

        utils.update_momentum(self.backbone, self.momentum_backbone, momentum)
        utils.update_momentum(self.heads, self.momentum_heads, momentum)


def _features(resnet: nn.Module, images: Tensor) -> Tensor:
    """The last map of a torchvision ResNet, ``[B, 512, h, w]``, computed in bfloat16 as ours."""
    with torch.autocast("cpu", torch.bfloat16):
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
        x = resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(x))))
    return x.float()


def transform(size: int, scale: tuple[float, float]):
    """lightly's MoCo-v2 views, with the range of the crop's area that ours have."""
    from lightly.transforms import MoCoV2Transform
    from lightly.transforms.torchvision_v2_compatibility import torchvision_transforms

    kind = torchvision_transforms.RandomResizedCrop
    made = MoCoV2Transform(input_size=size)
    for view in made.transforms:
        (crop,) = (step for step in view.transform.transforms if isinstance(step, kind))
        crop.scale = scale
    return made


def train(model: Pair, files: list[Path], args: argparse.Namespace) -> None:
    """AdamW, one epoch of linear warm-up, then a cosine per step to 0."""
    from lightly.utils.scheduler import cosine_schedule
    from PIL import Image

    views = transform(args.size, tuple(args.scale))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.rate, weight_decay=args.decay)
    epoch = len(files) // args.batch
    model.train().to(memory_format=torch.channels_last)
    order: list[int] = []
    for step in range(args.steps):
        if step % epoch == 0:
            order = torch.randperm(len(files)).tolist()
        place = step % epoch * args.batch
        chosen = [files[number] for number in order[place : place + args.batch]]
        pairs = [views(Image.open(path).convert("RGB")) for path in chosen]
        first, second = (
            torch.stack(each).to(memory_format=torch.channels_last)
            for each in zip(*pairs, strict=True)
        )
        if step < epoch:
            factor = WARMUP_FACTOR + (1 - WARMUP_FACTOR) * step / epoch
        else:
            factor = cosine_schedule(step - epoch, args.steps - epoch, 1.0, 0.0)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * factor
        model.follow(args.momentum)
        loss = model(first, second)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == args.steps - 1:
            print(f"step {step + 1}/{args.steps}  loss {loss.item():.4f}", flush=True)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("method", choices=METHODS)
    made.add_argument("images", type=Path, help="a tree of images")
    made.add_argument("--steps", type=int, required=True)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--size", type=int, default=40, help="side of a view in pixels")
    made.add_argument("--scale", type=float, nargs=2, default=(0.1, 0.5), help="area of a crop")
    made.add_argument("--queue", type=int, default=256)
    made.add_argument("--momentum", type=float, default=0.99)
    made.add_argument("--rate", type=float, default=0.0003, help="of AdamW at this batch")
    made.add_argument("--decay", type=float, default=1e-4)
    made.add_argument("-o", "--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    run_module(main, "lightly_pretrain")
