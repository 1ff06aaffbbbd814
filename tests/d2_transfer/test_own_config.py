"""A user's own config for Detectron2 as a protocol: ``--protocol mine.yaml``."""

from pathlib import Path

import pytest
import yaml

import densessl
from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, protocols, results
from densessl.d2_transfer.resolve import check_words, describe, resolve

compat.setup()  # before any test imports Detectron2

BASE = """\
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  WEIGHTS: "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  MASK_ON: True
  BACKBONE: {NAME: "build_resnet_fpn_backbone", FREEZE_AT: 0}
  RESNETS:
    DEPTH: 18
    RES2_OUT_CHANNELS: 64
    NORM: "BN"
    STRIDE_IN_1X1: False
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"]}
  ROI_HEADS: {NAME: "StandardROIHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"]}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 2, POOLER_RESOLUTION: 7}
INPUT: {FORMAT: "RGB"}
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
"""
MINE = """\
_BASE_: "base.yaml"
SOLVER:
  IMS_PER_BATCH: 4
  STEPS: (600, 800)
  MAX_ITER: 900
OUTPUT_DIR: "./output/mine"
SEED: 3
"""
SMALL = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_a_protocol_called_as_its_file(folder):
    found, variant = protocols.find("mine.yaml")
    assert (found.name, variant, found.datasets) == ("mine", "", protocols.COCO)
    assert found.metrics == protocols.BOX + protocols.MASK
    cfg = resolve("mine.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (900, (600, 800))
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.INPUT.FORMAT) == (18, "RGB")
    steady = resolve("mine.yaml", overrides=["SOLVER.STEPS", "()"])
    assert "steps at 600, 800" in describe(cfg, 1) and "no step" in describe(steady, 1)
    assert resolve("mine.yaml", overrides=["SOLVER.MAX_ITER", "850"]).SOLVER.MAX_ITER == 850
    assert protocols.anywhere("mine.yaml") == str(folder / "mine.yaml")


def test_on_panoptic_data_sets_it_has_panoptic_quality(folder, scenes, capsys):
    (folder / "panoptic.yaml").write_text(
        f'_BASE_: "{FOLDER / "transfer" / "coco_panoptic_fpn_1x.yaml"}"\n'
        "MODEL: {RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64}}\n"
    )
    found, _ = protocols.find("panoptic.yaml")
    assert found.metrics == protocols.PROTOCOLS["coco_panoptic_fpn_1x"].metrics
    assert found.metrics[0] == "panoptic_seg/PQ"
    words = ["transfer", "random", "--protocol", "panoptic.yaml", "--mini", "-o", "out", *SMALL]
    assert densessl.main([*words, "--trials", "1", "--data", str(scenes)]) == 0
    shown = capsys.readouterr().out
    assert all(metric in shown for metric in found.metrics), shown
    (record,) = results.collect(["out"])
    assert set(found.metrics) <= record.metrics.keys()
    assert densessl.main(["table", "out"]) == 0
    head = capsys.readouterr().out.splitlines()[2]
    columns = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")
    assert head.startswith(
        "| method | n | "
        + "".join(f"Panoptic Seg. {each} | " for each in columns)
        + "Object Det. AP"
    )


def test_its_trials_are_recorded_compared_and_tabled(folder, scenes, our_checkpoint, capsys):
    weights = str(our_checkpoint(folder / "backbone.pth", depth=18))
    for out, start in (("a", "random"), ("b", weights)):
        words = ["transfer", start, "--protocol", "mine.yaml", "--mini", "-o", out, *SMALL]
        assert densessl.main([*words, "--trials", "2", "--data", str(scenes)]) == 0
    records = results.collect(["a", "b"])
    assert {(each.protocol, each.variant, each.mini) for each in records} == {("mine", "", True)}
    assert [each.seed for each in records] == [1, 2, 1, 2]  # those of the trials
    assert set(protocols.BOX + protocols.MASK) <= records[0].metrics.keys()
    written = yaml.safe_load(Path("b/trial_1/config.yaml").read_text())
    assert written["OUTPUT_DIR"] == str(folder / "b" / "trial_1") and written["SEED"] == 1
    capsys.readouterr()
    assert densessl.main(["compare", "a", "b"]) == 0
    assert densessl.main(["table", "a", "b"]) == 0
    assert capsys.readouterr().out.count("mine") >= 2


def test_a_config_that_does_not_fit_the_weights_is_refused(folder, scenes, our_checkpoint, capsys):
    weights = str(our_checkpoint(folder / "backbone.pth", depth=18))
    (folder / "base.yaml").write_text(BASE.replace('"RGB"', '"BGR"'))
    words = ["transfer", weights, "--protocol", "mine.yaml", "--mini", "-o", "out", *SMALL]
    assert densessl.main([*words, "--data", str(scenes)]) == 2
    assert "INPUT.FORMAT is BGR, the weights need RGB" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("none.yaml", None, "none.yaml cannot be read: No such file"),
        ("bad.yaml", "MODEL: [", "bad.yaml is not YAML"),
        ("list.yaml", "- MODEL", "list.yaml holds a list"),
        ("key.yaml", "\nSOLVER: {MAX_ITERS: 3}", "key.yaml, line 2.*MAX_ITERS.*SOLVER.MAX_ITER'"),
        (
            "kind.yaml",
            "SOLVER: {MAX_ITER: many}",
            "MAX_ITER is 'many'; allowed: a whole number",
        ),
        ("none.yaml", "SOLVER: {MAX_ITER: }", "line 1: SOLVER.MAX_ITER is empty"),
        ("leaf.yaml", "SOLVER: 3", "line 1: SOLVER is 3; allowed: a group of keys"),
        ("group.yaml", "SOLVER: {MAX_ITER: {A: 3}}", "unknown config key 'SOLVER.MAX_ITER.A'"),
        (
            "project.yaml",
            "MODEL: {TENSOR_MASK: {A: 1}}",
            "'MODEL.TENSOR_MASK.A' is of TensorMask, a project beside Detectron2",
        ),
        (
            "v1.yaml",
            "VERSION: 1\nMODEL: {WEIGHTS: a}",
            "2: config key 'MODEL.WEIGHTS' is one of V",
        ),
        ("v3.yaml", "VERSION: 3", "line 1: VERSION is 3; allowed: 0 to 2"),
        ("object.yaml", "A: !!python/object/apply:os.getcwd []", "object.yaml is not YAML"),
        ("lost.yaml", "_BASE_: no.yaml", "lost.yaml, line 1: _BASE_ is 'no.yaml', but there is no"),
        ("circle.yaml", "_BASE_: circle.yaml", "in a circle: circle.yaml -> circle.yaml"),
        ("web.yaml", "_BASE_: https://a/b.yaml", "allowed: a file, or a list of files"),
        ("set.yaml", "DATASETS:\n  TRAIN: ('coco_2017_trai',)", "coco_2017_trai'.*coco_2017_train"),
        ("labels.yaml", "DATASETS:\n  TRAIN: ('ade20k_sem_seg_train',)", "label images"),
        ("voc_det_c4.yaml", "VERSION: 2", "its name is 'voc_det_c4'"),
    ],
)
def test_what_is_no_protocol_is_named_at_once(folder, name, text, says):
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(InputError, match=says):
        check_words(name, [])


def test_a_config_of_an_older_version_is_upgraded(folder):
    Path("old.yaml").write_text(
        "MODEL: {WEIGHT: a, ROI_HEADS: {NMS: 0.4}}\nDATASETS:\n  TRAIN: ('coco_2017_train',)\n"
        "  TEST: ('coco_2017_val',)\n"
    )
    cfg = resolve("old.yaml", plain=True)
    assert (cfg.VERSION, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST) == (2, 0.4)
    assert resolve("old.yaml").dump() == cfg.dump()


def test_bases_lie_in_layers_and_an_error_names_the_file_and_line_of_each_value(folder, capsys):
    (folder / "more.yaml").write_text("SOLVER: {BASE_LR: 0.5, GAMMA: 0.2}\n")
    (folder / "two.yaml").write_text(
        "_BASE_: [mine.yaml, more.yaml]\nSOLVER:\n  MAX_ITER: 800\n  BASE_LR: 0.25\n"
    )
    with pytest.raises(InputError, match="STEPS is .600, 800. with SOLVER.MAX_ITER 800") as error:
        resolve("two.yaml")
    said = str(error.value)
    assert (
        "SOLVER.STEPS is from mine.yaml, line 4; SOLVER.MAX_ITER is from two.yaml, line 3" in said
    )
    (folder / "amp.yaml").write_text("_BASE_: mine.yaml\nSOLVER:\n  AMP: {DTYPE: bfloat17}\n")
    with pytest.raises(InputError, match=r"mean 'bfloat16'.*DTYPE is from amp.yaml, line 3"):
        resolve("amp.yaml")  # where a key is the last word of a sentence
    words = ["transfer", "--protocol", "two.yaml", "--print-config", "SOLVER.STEPS", "(500,)"]
    assert densessl.main(words) == 0
    text = capsys.readouterr().out
    solver = yaml.safe_load(text)["SOLVER"]
    assert (solver["BASE_LR"], solver["GAMMA"], solver["STEPS"]) == (0.25, 0.2, [500])
    for line in (
        "BASE_LR: 0.25  # two.yaml, line 4",
        "GAMMA: 0.2  # more.yaml, line 1",
        "IMS_PER_BATCH: 4  # mine.yaml, line 3",
        "STEPS:  # the command line",
        "MASK_ON: true  # base.yaml, line 6",
        "WARMUP_METHOD: linear\n",
    ):
        assert line in text


def test_a_value_of_the_command_line_alone_is_not_explained(folder):
    with pytest.raises(InputError, match=r"BASE_LR is -1.0; allowed: more than 0$"):
        resolve("mine.yaml", overrides=["SOLVER.BASE_LR", "-1"])


@pytest.mark.parametrize("version", ["VERSION: 2", ""])
def test_a_config_to_be_read_is_the_one_that_is_trained_with(version, folder):
    (folder / "mine.yaml").write_text(f"{version}\n{MINE}")
    assert resolve("mine.yaml", plain=True).dump() == resolve("mine.yaml").dump()
