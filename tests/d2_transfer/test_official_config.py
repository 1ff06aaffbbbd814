"""``--print-config --official``: configs that plain Detectron2 loads."""

import re

import pytest
import yaml

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, main, projects
from densessl.d2_transfer.protocols import DETECTION, PROTOCOLS
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.results import OF_MAIN_ALONE, flat

compat.setup()  # before any test imports Detectron2

OURS = re.compile("fcos|vitdet")
OF_DETECTRON2 = [
    (name, variant)
    for name, protocol in PROTOCOLS.items()
    if protocol.family == DETECTION and not protocol.needs
    for variant in protocol.variants
]


def plain_cfg(main_too: bool = False, pointrend: bool = False):
    """Detectron2's own ``get_cfg()``, with the keys of its official main, or of PointRend."""
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    if pointrend:
        projects.load("PointRend", cfg)
    for key, value in OF_MAIN_ALONE.items() if main_too else ():
        *groups, leaf = key.split(".")
        node = cfg
        for group in groups:
            node = node.setdefault(group, CfgNode())
        node[leaf] = value
    return cfg


def printed(capsys, *words: str) -> str:
    assert main.main([*words, "--print-config", "--official"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("protocol, variant", OF_DETECTRON2)
def test_plain_detectron2_loads_it_or_it_is_said_what_it_lacks(protocol, variant, capsys, tmp_path):
    words = ["--protocol", protocol, *(["--variant", variant] if variant else [])]
    if protocol.endswith("semseg") or variant == "res5_frozen" or OURS.search(protocol):
        with pytest.raises(InputError, match="--official: plain Detectron2 has nothing for ") as no:
            main.main([*words, "--print-config", "--official"])
        key = "FREEZE_RES5 True" if variant == "res5_frozen" else "INPUT.SCALE ("
        if "fcos" in protocol:
            key = "plain Detectron2 has nothing for MODEL.META_ARCHITECTURE 'FCOS'"
        if "vitdet" in protocol:
            key = "SOLVER.LAYER_DECAY 0.7, SOLVER.OPTIMIZER 'adamw'"
        assert key in str(no.value)
        return
    text = printed(capsys, *words)
    (tmp_path / "config.yaml").write_text(text)
    wanted = flat(yaml.safe_load(resolve(protocol, variant).dump()))
    pointrend = "pointrend" in protocol
    assert ("point_rend.add_pointrend_config(cfg) first" in text) == pointrend
    for main_too in (False, True):
        cfg = plain_cfg(main_too, pointrend)
        cfg.merge_from_file(str(tmp_path / "config.yaml"))
        found = flat(yaml.safe_load(cfg.dump()))
        assert found == {key: wanted[key] for key in found}
    assert ("'Res5ROIHeadsExtraNorm' is not in Detectron2" in text) == ("c4" in protocol)
    if "c4" not in protocol:
        from detectron2.modeling import build_model

        cfg.MODEL.DEVICE = "cpu"
        build_model(cfg)


def test_a_config_of_main_loads_in_0_5(tmp_path):
    from densessl.d2_transfer.official_config import official_text

    cfg = resolve("coco_mask_fpn_1x").clone()
    cfg.defrost()
    for key, value in OF_MAIN_ALONE.items():
        *groups, leaf = key.split(".")
        node = cfg
        for group in groups:
            node = node[group]
        node[leaf] = value
    (tmp_path / "config.yaml").write_text(official_text(cfg))
    plain_cfg().merge_from_file(str(tmp_path / "config.yaml"))
    cfg.FLOAT32_PRECISION = "high"
    text = official_text(cfg)
    assert text.startswith("# FLOAT32_PRECISION: 0.5 of Detectron2 does not have it\n")
    assert yaml.safe_load(text)["FLOAT32_PRECISION"] == "high"


@pytest.mark.parametrize(
    "words, says",
    [
        (["--protocol", "coco_mask_fpn_1x", "--official"], "--official is for --print-config"),
        (
            ["--protocol", "knn", "--official", "--print-config"],
            "knn does not train with Detectron2",
        ),
        (
            [
                *("--protocol", "coco_mask_fpn_1x", "--official", "--print-config"),
                *("MODEL.FPN.TRANSFER", "True"),
            ],
            "plain Detectron2 has nothing for MODEL.FPN.TRANSFER True",
        ),
    ],
)
def test_what_has_no_official_config_is_refused(words, says):
    with pytest.raises(InputError, match=says):
        main.main(words)
