"""Names of a vision transformer's tensors: timm's, which are DINO's too, and torchvision's.

A tensor counts as part of the backbone only if torchvision's own network of that width has it, by
name and shape. Both libraries hold the same tensors: torchvision's ``in_proj`` is timm's ``qkv``.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

IMAGE, PATCH, BLOCKS = 224, 16, 12


@dataclass(frozen=True)
class Size:
    """A ViT of the field: its title, timm's name for it, its width and heads."""

    title: str
    timm: str
    width: int
    heads: int

    @property
    def torchvision(self) -> dict[str, int]:
        """The arguments of ``torchvision.models.VisionTransformer``, which names only the base."""
        return {
            "image_size": IMAGE,
            "patch_size": PATCH,
            "num_layers": BLOCKS,
            "num_heads": self.heads,
            "hidden_dim": self.width,
            "mlp_dim": 4 * self.width,
        }


SIZES = {
    "vit_tiny": Size("ViT-Ti/16", "vit_tiny_patch16_224", 192, 3),
    "vit_small": Size("ViT-S/16", "vit_small_patch16_224", 384, 6),
    "vit_base": Size("ViT-B/16", "vit_base_patch16_224", 768, 12),
}

_BLOCK, _PART = r"encoder\.layers\.encoder_layer_(\d+)\.", r"(weight|bias)"
_RULES = [  # torchvision's names -> timm's
    (r"class_token", r"cls_token"),
    (r"encoder\.pos_embedding", r"pos_embed"),
    (rf"conv_proj\.{_PART}", r"patch_embed.proj.\1"),
    (rf"encoder\.ln\.{_PART}", r"norm.\1"),
    (rf"{_BLOCK}ln_([12])\.{_PART}", r"blocks.\1.norm\2.\3"),
    (rf"{_BLOCK}self_attention\.in_proj_{_PART}", r"blocks.\1.attn.qkv.\2"),
    (rf"{_BLOCK}self_attention\.out_proj\.{_PART}", r"blocks.\1.attn.proj.\2"),
    # The files that torchvision offers are older than its names of today.
    (rf"{_BLOCK}mlp\.(?:0|linear_1)\.{_PART}", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_BLOCK}mlp\.(?:3|linear_2)\.{_PART}", r"blocks.\1.mlp.fc2.\2"),
]


def to_timm(name: str) -> str | None:
    """timm's name of a torchvision ViT tensor; None for a name that is not one."""
    for pattern, replacement in _RULES:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return None


def in_timms_names(state: dict[str, Any]) -> dict[str, Any]:
    """The same tensors, torchvision's names of a ViT replaced; a second one of a name stays."""
    renamed: dict[str, Any] = {}
    for name, tensor in state.items():
        new = to_timm(name) or name
        renamed[name if new in renamed else new] = tensor
    return renamed


def is_vit(state: dict[str, Any]) -> bool:
    """Whether these are the names (timm's) of a vision transformer, of any size."""
    return "cls_token" in state and "blocks.0.attn.qkv.weight" in state


def network_of(state: dict[str, Any]) -> str | None:
    """The ViT of this width, by our name; None when it is not one of ours."""
    width = (getattr(state["cls_token"], "shape", None) or (0,))[-1]
    return next((name for name, size in SIZES.items() if size.width == width), None)


@lru_cache
def _torchvisions_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """In torchvision's order, without the classifier; computed, for its import is slow."""
    width = SIZES[network].width
    shapes: dict[str, tuple[int, ...]] = {
        "class_token": (1, 1, width),
        "conv_proj.weight": (width, 3, PATCH, PATCH),
        "conv_proj.bias": (width,),
        "encoder.pos_embedding": (1, (IMAGE // PATCH) ** 2 + 1, width),
    }
    for number in range(BLOCKS):
        block = f"encoder.layers.encoder_layer_{number}"
        for part, weight in (
            ("ln_1.", (width,)),
            ("self_attention.in_proj_", (3 * width, width)),
            ("self_attention.out_proj.", (width, width)),
            ("ln_2.", (width,)),
            ("mlp.0.", (4 * width, width)),
            ("mlp.3.", (width, 4 * width)),
        ):
            shapes[f"{block}.{part}weight"] = weight
            shapes[f"{block}.{part}bias"] = weight[:1]
    return shapes | {"encoder.ln.weight": (width,), "encoder.ln.bias": (width,)}


def expected(network: str) -> dict[str, tuple[int, ...]]:
    """timm's name and the shape of every backbone tensor (150), in torchvision's order."""
    return {str(to_timm(name)): shape for name, shape in _torchvisions_shapes(network).items()}


def torchvision_names(network: str) -> dict[str, str]:
    """torchvision's name of every backbone tensor, by timm's, one to one."""
    return {str(to_timm(name)): name for name in _torchvisions_shapes(network)}
