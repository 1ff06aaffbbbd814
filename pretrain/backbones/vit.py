"""Vision transformers (Dosovitskiy et al. 2021; DINO's, Caron et al. 2021) on timm's blocks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.core.errors import EnvironmentLacks, InputError, unknown

from ..options import PATCH

VITS = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
}
LEVELS = {4: "block4", 8: "block8", 12: "block12"}  # block, counted from 1 -> level; stride 16
INIT_STD = 0.02


class VisionTransformer(nn.Module):
    """A timm ViT without its head that returns feature levels, for images of any size.

    ``forward(images [B, 3, H, W])`` gives ``{"block4": [B, C, h, w], "block8": …, "block12": …,
    "cls": [B, C]}`` with h = H // 16, w = W // 16: the patch tokens after blocks 4, 8 and 12 and
    the class token after the last, each behind the final LayerNorm that all share (DINO's
    ``get_intermediate_layers``). ``channels`` and ``strides`` map a level that is a map to its C
    and to its pixels a position. The state dict has timm's names, which are also DINO's.
    """

    cls_token: Tensor
    pos_embed: Tensor
    patch_embed: Any
    blocks: nn.ModuleList
    norm: nn.Module

    def __init__(self, network: Any):
        super().__init__()
        for name in ("cls_token", "pos_embed", "patch_embed", "blocks", "norm"):
            setattr(self, name, getattr(network, name))
        self.grid = self.patch_embed.grid_size  # of pos_embed
        self.channels = dict.fromkeys(LEVELS.values(), self.pos_embed.shape[2])
        self.strides = dict.fromkeys(LEVELS.values(), PATCH)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        patches = self.patch_embed.proj(images)  # [B, C, h, w]
        h, w = patches.shape[2:]
        tokens = torch.cat(  # [B, 1 + h·w, C]
            [self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1
        )
        tokens = tokens + position_embedding(self.pos_embed, self.grid, (h, w))
        levels = {}
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens)
            if number in LEVELS:
                normed = self.norm(tokens)
                levels[LEVELS[number]] = normed[:, 1:].transpose(1, 2).unflatten(2, (h, w))
        levels["cls"] = normed[:, 0]
        return levels


def position_embedding(embedding: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """The embedding [1, 1 + gh·gw, C] for another grid: [1, 1 + h·w, C], differentiable.

    As in DINO: bicubic, the class token's as it is, and sampled at the scale (h + 0.1) / gh,
    which is not quite h / gh. The same grid gives the embedding itself.
    """
    if tuple(wanted) == tuple(grid):
        return embedding
    # Bicubic sampling is linear and separable. As two small matrices its gradient is the same in
    # every run (the kernel's on GPUs is not); float64 is out of reach of autocast and TF32.
    rows, columns = (
        _bicubic(old, new, embedding.device) for old, new in zip(grid, wanted, strict=True)
    )
    old = embedding[0, 1:].double().unflatten(0, grid)  # [gh, gw, C]
    new = torch.einsum("yh,hwc,xw->yxc", rows, old, columns).flatten(0, 1)  # [h·w, C]
    return torch.cat([embedding[:, :1], new[None].to(embedding.dtype)], 1)


def _bicubic(old: int, new: int, device: torch.device) -> Tensor:
    """The matrix [new, old] that resamples ``old`` cells to ``new``: what it makes of unit vectors.

    The scale is given, not derived from the sizes: so it, with its 0.1, places the samples.
    """
    units = torch.eye(old, dtype=torch.float64, device=device)[:, None, None]  # [old, 1, 1, old]
    scale = (new + 0.1) / old
    return F.interpolate(units, scale_factor=(1.0, scale), mode="bicubic")[:, 0, 0].T


def build_vit(name: str, drop_path: float = 0.0) -> VisionTransformer:
    """A ViT by name (of ``VITS``; patches of 16 pixels), initialised as DINO does.

    ``drop_path`` is the rate of the last block; those before have proportionally less, the first
    none. Raises InputError for an unknown name or a rate outside [0, 1), EnvironmentLacks where
    timm is not installed.
    """
    if name not in VITS:
        raise unknown("backbone", name, VITS, where="BACKBONE.NAME")
    if not 0 <= drop_path < 1:
        raise InputError(f"drop_path of {name} is {drop_path}; allowed: 0 <= drop_path < 1")
    try:
        from timm.models import vision_transformer
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise EnvironmentLacks(
            f"timm is not installed, and {name} needs it; fix it with: pip install 'timm>=1.0'"
        ) from None
    build = getattr(vision_transformer, VITS[name])
    network = build(pretrained=False, num_classes=0, drop_path_rate=drop_path, weight_init="skip")
    _initialise(network)
    return VisionTransformer(network)


def _initialise(network: Any) -> None:
    """DINO's start; the patch convolution and the LayerNorms keep torch's own."""
    nn.init.trunc_normal_(network.pos_embed, std=INIT_STD)
    nn.init.trunc_normal_(network.cls_token, std=INIT_STD)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
            nn.init.zeros_(module.bias)
