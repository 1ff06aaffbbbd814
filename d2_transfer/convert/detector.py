"""Whether a detector's config suits the weights: any disagreement costs AP and raises no error."""

from typing import Any

from densessl.core.errors import InputError


def check_detector_config(weights: dict[str, Any], cfg) -> None:
    """Refuse a Detectron2 config that feeds or builds the backbone in another way than the weights.

    ``weights``: of ``read_weights``. Compares INPUT.FORMAT, PIXEL_MEAN and PIXEL_STD, the depth,
    STRIDE_IN_1X1 and the widths of a plain ResNet. Raises InputError naming every disagreeing key
    with both values, and weights whose facts are not known.
    """
    facts = weights.get("densessl")
    if facts is None:
        raise InputError(
            f"the weights (by '{weights.get('__author__')}') do not say how their images were "
            "normalised; convert the original checkpoint with: densessl convert"
        )
    model, resnets = cfg.MODEL, cfg.MODEL.RESNETS
    normal = facts["normalization"]
    compared = [
        ("INPUT.FORMAT", cfg.INPUT.FORMAT, facts["channel_order"]),
        ("MODEL.PIXEL_MEAN", list(model.PIXEL_MEAN), normal["pixel_mean"]),
        ("MODEL.PIXEL_STD", list(model.PIXEL_STD), normal["pixel_std"]),
        ("MODEL.RESNETS.DEPTH", resnets.DEPTH, facts["depth"]),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS", resnets.STEM_OUT_CHANNELS, 64),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", resnets.RES2_OUT_CHANNELS, _res2(facts["depth"])),
        ("MODEL.RESNETS.NUM_GROUPS", resnets.NUM_GROUPS, 1),
        ("MODEL.RESNETS.WIDTH_PER_GROUP", resnets.WIDTH_PER_GROUP, 64),
    ]
    if facts["depth"] >= 50:  # the basic blocks of 18 and 34 have no 1x1 convolution
        stride = facts["stride_in_1x1"]
        compared.append(("MODEL.RESNETS.STRIDE_IN_1X1", resnets.STRIDE_IN_1X1, stride))
    wrong = [
        f"{key} is {value}, the weights need {needed}"
        for key, value, needed in compared
        if not _same(value, needed)
    ]
    c4 = model.META_ARCHITECTURE == "GeneralizedRCNN" and model.ROI_HEADS.NAME.startswith("Res5")
    if facts["depth"] < 50 and c4:
        wrong.append(
            f"MODEL.ROI_HEADS.NAME is {model.ROI_HEADS.NAME}, whose res5 is three bottleneck "
            f"blocks: a ResNet-{facts['depth']} cannot fill it; use an FPN protocol"
        )
    if wrong:
        raise InputError("the detector's config and the weights disagree: " + "; ".join(wrong))


def _res2(depth: int) -> int:
    return 256 if depth >= 50 else 64


def _same(value: Any, needed: Any) -> bool:
    if isinstance(needed, list):
        near = [abs(a - b) < 1e-3 for a, b in zip(value, needed, strict=False)]
        return len(value) == len(needed) and all(near)
    return value == needed
