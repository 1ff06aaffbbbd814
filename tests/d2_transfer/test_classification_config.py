"""The classification protocols' configs: the published recipes, overrides, miniatures."""

import subprocess
import sys

import pytest
import yaml

from densessl.core.errors import InputError
from densessl.d2_transfer import classification
from densessl.d2_transfer.classification.config import combinations, describe
from densessl.d2_transfer.classification.settings import Schedule, configured
from densessl.d2_transfer.protocols import CLASSIFICATION, PROTOCOLS
from densessl.d2_transfer.results import config_fingerprint

ROWS = {name: row for name, row in PROTOCOLS.items() if row.family == CLASSIFICATION}
ALL = [(name, variant) for name, row in ROWS.items() for variant in row.variants]
IMAGES = 1281167


def resolved(protocol, variant=None, *overrides, **options):
    return classification.resolve(protocol, variant, overrides=overrides, **options)


def test_the_protocols_have_their_rows():
    known = ["knn", "linear", "custom_cls", "semisup_1pct", "semisup_10pct", "finetune_cls"]
    assert list(ROWS) == known
    assert ROWS["knn"].metrics[0] == "knn/top1" and ROWS["linear"].metrics[0] == "linear/top1"
    assert {"cifar10", "cifar100", "cub200", "cars", "aircraft", "pets", "folder"} <= set(
        ROWS["finetune_cls"].variants
    )


def test_a_list_of_protocols_needs_no_torch():
    program = (
        "import sys, densessl; densessl.main(['transfer', '--list']); "
        "assert not {'torch', 'fvcore'} & sys.modules.keys(); densessl.main(['transfer', '-h'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("voc_det_c4 "), done.stderr


@pytest.mark.parametrize("protocol, variant", ALL)
@pytest.mark.parametrize("mini", [False, True])
def test_every_config_resolves_and_survives_its_yaml(protocol, variant, mini):
    cfg = resolved(protocol, variant, mini=mini, cuda=False)
    assert cfg.is_frozen() and cfg.MODEL.DEVICE == "cpu"
    other = cfg.clone()
    other.defrost()
    other.SEED, other.OUTPUT_DIR = 7, "elsewhere"
    there, here = (yaml.safe_load(each.dump()) for each in (cfg, other))
    assert config_fingerprint(there) == config_fingerprint(here)
    assert describe(cfg, 1)


def test_knn_is_dinos():
    cfg = resolved("knn")
    assert (cfg.KNN.KS, cfg.KNN.K, cfg.KNN.TEMPERATURE) == ((10, 20, 100, 200), 20, 0.07)
    assert (cfg.INPUT.RESIZE, cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION) == (256, 224, "bicubic")
    assert resolved("knn", "stages").KNN.STAGES == ("all",)


def test_linear_is_scfs_or_mocos():
    cfg = resolved("linear")
    schedule = Schedule(cfg, IMAGES, configured(cfg))
    assert schedule.steps == round(100 * IMAGES / 2048)
    assert schedule.learning_rate(0) == pytest.approx(0.08)
    half = round(50.5 * IMAGES / 2048)  # within epoch 50 of 100
    assert schedule.learning_rate(half) == pytest.approx(0.04)
    assert schedule.learning_rate(schedule.steps - 1) == pytest.approx(2.0e-5, rel=0.02)
    assert {0.001, 3.8} <= set(cfg.SOLVER.SWEEP) and cfg.SOLVER.WEIGHT_DECAY == 0
    moco = resolved("linear", "moco")
    schedule = Schedule(moco, IMAGES, configured(moco))
    rates = [schedule.learning_rate(round(e * IMAGES / 256)) for e in (0, 59.9, 60.1, 79.9, 80.1)]
    assert rates == pytest.approx([30, 30, 3, 3, 0.3])
    assert moco.INPUT.INTERPOLATION == "bilinear" and not moco.SOLVER.SWEEP


def test_few_labels_search_rate_and_factor():
    for share, name in ((0.01, "1percent.txt"), (0.1, "10percent.txt")):
        cfg = resolved(f"semisup_{share * 100:.0f}pct")
        assert (name, share) == (cfg.DATASETS.LIST, cfg.DATASETS.SHARE)
        assert combinations(cfg) == 9 and cfg.SOLVER.EPOCHS == 20


def test_small_sets_search_simclrs_grid():
    cfg = resolved("finetune_cls", "pets")
    assert cfg.DATASETS.NAME == "pets" and cfg.SOLVER.NESTEROV
    assert Schedule(cfg, 3680, configured(cfg)).steps == 20000
    assert (len(cfg.SEARCH.BASE_LR), len(cfg.SEARCH.WEIGHT_DECAY)) == (7, 8)
    assert (cfg.SEARCH.BASE_LR[0], cfg.SEARCH.BASE_LR[-1]) == (1e-4, 1e-1)
    none = resolved("finetune_cls", "pets", "SEARCH.BASE_LR", "()", "SEARCH.WEIGHT_DECAY", "()")
    assert combinations(cfg) == 56 and combinations(none) == 0


def test_miniatures_read_the_objects_of_scenes_and_draw_their_labels():
    cfg = resolved("semisup_1pct", mini=True, cuda=False)
    assert (cfg.DATASETS.NAME, cfg.DATASETS.LIST) == ("voc_objects", "seeded")
    assert 0.1 < cfg.DATASETS.SHARE < 1 and combinations(cfg) == 2
    assert resolved("finetune_cls", "cifar10", mini=True).DATASETS.NAME == "cifar10"
    assert combinations(resolved("linear", mini=True, cuda=False)) == 0


def test_overrides_win_and_whole_numbers_are_numbers():
    cfg = resolved("linear", None, "SOLVER.EPOCHS", "20", "SOLVER.BASE_LR", "1e-2", mini=True)
    assert cfg.SOLVER.EPOCHS == 20.0 and cfg.SOLVER.BASE_LR == 0.01


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["SOLVER.BASELR", "1"], r"unknown config key 'SOLVER.BASELR'.*mean 'SOLVER.BASE_LR'"),
        (["SOLVER.BASE_LR", "fast"], r"SOLVER.BASE_LR is 'fast'; it must be a number"),
        (["SOLVER.BASE_LR"], r"'SOLVER.BASE_LR' has no value"),
        (["SOLVER.BASE_LR", "0"], r"SOLVER.BASE_LR is 0.0; .* above 0"),
        (["SOLVER.SWEEP", "(0.1, -1)"], r"SOLVER.SWEEP is \(0.1, -1\); .* above 0"),
        (["SOLVER.SWEEP", "('a',)"], r"SOLVER.SWEEP is .*; .* above 0"),
        (["SOLVER.SCHEDULE", "cos"], r"'cos' in SOLVER.SCHEDULE.*mean 'cosine'"),
        (["SOLVER.MOMENTUM", "1"], r"SOLVER.MOMENTUM is 1.0; .* at least 0 and below 1"),
        (["SOLVER.STEPS", "(80, 60)"], r"SOLVER.STEPS is \(80, 60\)"),
        (["SOLVER.IMS_PER_BATCH", "3"], r"SOLVER.IMS_PER_BATCH is 3, which 2 processes"),
        (["INPUT.RESIZE", "200"], r"INPUT.RESIZE is 200, less than INPUT.SIZE 224"),
        (["INPUT.CROP_SCALE", "(1.0, 0.5)"], r"INPUT.CROP_SCALE is \(1.0, 0.5\)"),
        (["KNN.K", "30"], r"KNN.KS is .* with KNN.K 30"),
        (["KNN.KS", "(20, 2.5)"], r"KNN.KS is \(20, 2.5\)"),
        (["KNN.STAGES", "()"], r"KNN.STAGES is empty"),
        (["KNN.TEMPERATURE", "0"], r"KNN.TEMPERATURE is 0.0"),
        (["DATASETS.NAME", "cifar"], r"'cifar' in DATASETS.NAME.*mean 'cifar1"),
        (["DATASETS.SHARE", "1.5"], r"DATASETS.SHARE is 1.5; it must be above 0 and at most 1"),
        (["SEARCH.HELD_OUT", "1"], r"SEARCH.HELD_OUT is 1.0"),
        (["MODEL.BACKBONE", "resnet5"], r"'resnet5' in MODEL.BACKBONE.*mean 'resnet50'"),
        (["MODEL.DEVICE", "cuda"], r"MODEL.DEVICE is 'cuda'; allowed: cpu: there is no CUDA"),
        (["MODEL.NORM", "SyncBN"], r"MODEL.NORM is 'SyncBN', which needs a CUDA device"),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(overrides, message):
    with pytest.raises(InputError, match=message):
        resolved("linear", None, *overrides, gpus=2, cuda=False)


@pytest.mark.parametrize(
    "protocol, variant, message",
    [
        ("finetune", None, "unknown protocol 'finetune'.*mean 'finetune_cls'"),
        ("linear", "mocov2", "unknown variant 'mocov2' in --variant of linear.*mean 'moco'"),
        ("semisup_1pct", "x", "--variant is 'x', but semisup_1pct has no variants"),
    ],
)
def test_unknown_names_are_refused(protocol, variant, message):
    with pytest.raises(InputError, match=message):
        resolved(protocol, variant)
