"""A detector's config for the backbone in a weights file; also of a Detectron2 user's own project.

from detectron2 import model_zoo
from densessl.d2_transfer.backbone_choice import use_weights

cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
use_weights(cfg, "mine.pkl")
"""

import os

from densessl.core.errors import InputError
from densessl.weight_files import timm_networks

from . import convert
from .config import VITDET

VIT = f"{timm_networks.PREFIX}vit_base_patch16_224"  # what a random start of ViTDet is
PYRAMIDS = {  # on a ResNet: the one on a network of timm's
    "build_resnet_fpn_backbone": "build_timm_fpn_backbone",
    "build_resnet_fpn_p5_backbone": "build_timm_fpn_p5_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_timm_retinanet_fpn_backbone",
}


def follow(cfg, network: str = ""):
    """The (frozen) config with the backbone in it that it or the weights name, if that is timm's.

    ``network``: of the weights, ``timm/NAME``; others leave the config as it is, unless it names
    one itself (MODEL.BACKBONE.TIMM). Raises InputError where the two are not one, and for a model
    that such a network cannot be put into.
    """
    of_weights = network if timm_networks.is_timm(network) else ""
    named = cfg.MODEL.BACKBONE.TIMM
    named = named and f"{timm_networks.PREFIX}{named.removeprefix(timm_networks.PREFIX)}"
    if named and network and named != network:
        raise InputError(f"MODEL.BACKBONE.TIMM is {named}, but the weights are of {network}")
    chosen = named or of_weights
    if cfg.MODEL.BACKBONE.NAME == VITDET:
        chosen = named or network or VIT
        if not timm_networks.is_timm(chosen) or not timm_networks.described(chosen).plain:
            raise InputError(
                f"MODEL.BACKBONE.NAME is {VITDET}, which is made of a ViT; {chosen} is none. "
                "Allowed: weights of a ViT, or for these coco_mask_fpn_1x"
            )
    if not chosen:
        return cfg
    made = cfg.clone()
    made.defrost()
    _put(made, chosen)
    if cfg.is_frozen():
        made.freeze()
    return made


def use_weights(cfg, path: str | os.PathLike) -> None:
    """Set in a config of Detectron2 what the weights in ``path`` need: a ``.pkl`` of ``densessl
    convert``.

    These are MODEL.WEIGHTS, the backbone, and how images are fed (INPUT.FORMAT, MODEL.PIXEL_MEAN,
    MODEL.PIXEL_STD). ResNets go into any model that has one, other networks into one with a
    backbone of ``PYRAMIDS``. Raises InputError for another file and another model.
    """
    facts = convert.read_weights(path).get("densessl")
    if facts is None:
        raise InputError(f"{path} is not of densessl convert: it does not say what its images are")
    if timm_networks.is_timm(facts["network"]):
        _put(cfg, facts["network"])
    else:
        for key, value in convert.resnet_options(facts).items():
            setattr(cfg.MODEL.RESNETS, key, value)
    cfg.MODEL.WEIGHTS = os.fspath(path)
    cfg.INPUT.FORMAT = facts["channel_order"]
    cfg.MODEL.PIXEL_MEAN = facts["normalization"]["pixel_mean"]
    cfg.MODEL.PIXEL_STD = facts["normalization"]["pixel_std"]


def _put(cfg, network: str) -> None:
    from . import modeling  # noqa: F401  (registers the backbone)

    name = cfg.MODEL.BACKBONE.NAME
    if name not in (*PYRAMIDS, *PYRAMIDS.values(), VITDET):
        raise InputError(
            f"MODEL.BACKBONE.NAME is {name}, in whose place {network} cannot be: C4 heads and "
            "dilated networks are made of a ResNet's own stages. Allowed: a protocol or config "
            f"with {' or '.join(PYRAMIDS)}"
        )
    cfg.MODEL.BACKBONE.NAME = PYRAMIDS.get(name, name)
    cfg.MODEL.BACKBONE.TIMM = network
