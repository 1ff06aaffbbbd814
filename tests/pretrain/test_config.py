"""Options: what is wrong is said with its name, its value and what is allowed."""

import pytest

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.pretrain import config
from densessl.pretrain.engine.placement import check_compiler
from densessl.pretrain.engine.resume import differences
from densessl.pretrain.engine.schedules import scaled_lr


def made(*overrides):
    return config.load(overrides=["DATA.PATH", "somewhere", *overrides])


def test_the_defaults_are_valid():
    config.validate(made())


@pytest.mark.parametrize("name", ["OUTPUT_DIR", "DATA.PATH"])
def test_a_run_without_a_folder_is_refused_and_its_options_are_valid(name):
    cfg = made(name, "")
    config.validate(cfg)
    with pytest.raises(InputError, match=f"{name} is empty; give a folder"):
        config.check_folders(cfg)


@pytest.mark.parametrize("name", config.built_in())
def test_the_built_in_configs_are_valid(name):
    config.validate(config.load(name, ["DATA.PATH", "somewhere"]))


def test_what_is_no_built_in_config_is_checked_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setsim_paper").write_text("METHOD: {NAME: resim}\n")  # a file, of a known name
    for path, more in (("setsim_paper", []), ("moco_v2", ["METHOD.NAME", "resim"])):
        words = ["DATA.PATH", "somewhere", *more]
        with pytest.raises(InputError, match="resim needs one flip"):
            config.validate_loaded(config.load(path, words), path, words)


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_config_and_its_base_may_be_in_any_form_of_unicode(tmp_path, form):
    (tmp_path / "base.yaml").write_text("SOLVER:\n  EPOCHS: 7\n", encoding=form)
    (tmp_path / "é.yaml").write_text("_BASE_: base.yaml  # é\nSEED: 3\n", encoding=form)
    cfg = config.load(tmp_path / "é.yaml")
    assert (cfg.SEED, cfg.SOLVER.EPOCHS) == (3, 7)


def test_every_option_can_be_set_from_the_command_line_to_its_default():
    for name, value in config.flat(config.defaults()).items():
        assert config.flat(config.load(overrides=[name, str(value)]))[name] == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["METHOD.NAME", "moko"], r"'moko' in METHOD.NAME.*mean 'moco'.*setsim"),
        (["METHOD.NAME", "none.py:Mine"], r"METHOD.NAME: there is no file 'none.py'"),
        (["METHOD.NAME", "simsiam", "VIEWS.LOCAL_CROPS", "2"], r"LOCAL_CROPS is 2, but simsiam"),
        (["METHOD.NAME", "resim"], r"RECIPE is moco_v2, but resim needs one flip.*resim, moco_v2"),
        (
            ["METHOD.NAME", "vader", "VIEWS.SIZE", "100"],
            r"SIZE is 100; .* nearest: 96 or 128",
        ),
        (
            ["METHOD.NAME", "resim", "VIEWS.RECIPE", "resim", "RESIM.WINDOW", "(300, 32)"],
            r"RESIM.WINDOW is \(300, 32\); .* below VIEWS.SIZE = 224",
        ),
        (
            ["METHOD.NAME", "dense", "DENSE.CORRESPONDENCE", "set | nearst"],
            r"(?s)DENSE.CORRESPONDENCE: .*nearst.*nearest",
        ),
        (
            ["METHOD.NAME", "setsim", "SETSIM.SET", "False", "SETSIM.GEOMETRY_THRESHOLD", "0"]
            + ["SETSIM.NEAREST", "False"],
            r"no position has a positive",
        ),
        (["VIEWS.SCALE", "(0.5, 0.2)"], r"VIEWS.SCALE is \(0.5, 0.2\)"),
        (["SOLVER.OPTIMIZER", "adam"], r"'adam' in SOLVER.OPTIMIZER.*lars, sgd"),
        (["SETSIM.THRESHOLD", "0"], r"SETSIM.THRESHOLD is 0.0; it must be above 0"),
        (
            ["BACKBONE.NAME", "vit_small", "METHOD.NAME", "vader"],
            r"vit_small, but vader needs levels at the strides .*; it goes with moco, ",
        ),
        (
            ["METHOD.NAME", "dino", "BACKBONE.NAME", "vit_small", "VIEWS.SIZE", "100"],
            r"VIEWS.SIZE is 100; .* patches of 16 pixels; nearest: 96 or 112",
        ),
        (["HOUGH.PASSES", "3"], r"HOUGH.PASSES is 3; .* at least 1 and at most 2"),
        (["BACKBONE.NAME", "resnet5"], r"'resnet5' in BACKBONE.NAME.*mean 'resnet50'"),
        (["VIEWS.RECIPE", "moco-v2"], r"'moco-v2' in VIEWS.RECIPE.*mean 'moco_v2'"),
        (["BACKBONE.NORM", "syncbn"], r"'syncbn' in BACKBONE.NORM.*mean 'SyncBN'"),
        (["DATA.SOURCE", "imagenet"], r"'imagenet' in DATA.SOURCE.*coco, folder, list"),
        (["AMP", "fp8"], r"'fp8' in AMP"),
        (["SOLVER.SCHEDULE", "cos"], r"'cos' in SOLVER.SCHEDULE.*mean 'cosine'"),
        (["SOLVER.PER", "iteration"], r"'iteration' in SOLVER.PER"),
        (["DEVICE", "gpu"], r"'gpu' in DEVICE"),
        (["SOLVER.BASE_LR", "0"], r"SOLVER.BASE_LR is 0.0; it must be above 0"),
        (["SOLVER.BASE_LR", "1e999"], r"SOLVER.BASE_LR in .* is '1e999'"),
        (["SOLVER.BASE_LR", "-0.1"], r"SOLVER.BASE_LR is -0.1"),
        (["MOCO.TEMPERATURE", "0"], r"MOCO.TEMPERATURE is 0.0; it must be above 0"),
        (["MOCO.MOMENTUM", "1.5"], r"MOCO.MOMENTUM is 1.5; .* at least 0 and at most 1"),
        (["MOCO.QUEUE", "0"], r"MOCO.QUEUE is 0; it must be at least 1"),
        (["DENSE.WEIGHT", "2"], r"DENSE.WEIGHT is 2.0"),
        (["DATA.WORKERS", "-1"], r"DATA.WORKERS is -1; it must be at least 0"),
        (["DATA.MAX_UNREADABLE", "5"], r"DATA.MAX_UNREADABLE is 5.0; .* at most 1"),
        (["SOLVER.STEPS", "(160, 120)"], r"SOLVER.STEPS is \(160, 120\); .* rising"),
        (["SOLVER.STEPS", "(0.5,)"], r"SOLVER.STEPS .* whole"),
        (["SOLVER.EPOCHS", "0"], r"SOLVER.EPOCHS is 0; it must be at least 1"),
        (["CHECKPOINT.KEEP", "0"], r"CHECKPOINT.KEEP is 0"),
        (["CHECKPOINT.PERIOD", "0"], r"CHECKPOINT.PERIOD is 0.0; it must be above 0"),
        (["LOG.PERIOD", "0"], r"LOG.PERIOD is 0"),
        (["SEED", "-1"], r"SEED is -1"),
        (
            ["SOLVER.BATCH_SIZE", "200"],
            r"BATCH_SIZE is 200, .*GROUP_SIZE = 32; nearest batch: 192 or 224",
        ),
        (
            ["METHOD.NAME", "setsim", "VIEWS.SIZE", "32"],
            r"VIEWS.SIZE is 32: .* one position, and setsim .* least is 33",
        ),
    ],
)
def test_values_out_of_range_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        config.validate(made(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.BASELR", "1"], r"unknown option 'SOLVER.BASELR'.*mean 'SOLVER.BASE_LR'"),
        (
            ["SOLVER.EPOCHS", "many"],
            r"SOLVER.EPOCHS in .* is 'many'; .* whole number",
        ),
        (["SOLVER.EPOCHS"], r"KEY VALUE pairs; 'SOLVER.EPOCHS' has no value"),
        (["SOLVER", "1"], r"SOLVER in the command line is a group of options"),
        (["SOLVER.BASE_LR", "nan"], r"SOLVER.BASE_LR in the command line is 'nan'; .* number"),
    ],
)
def test_overrides_that_are_no_options_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        config.load(overrides=overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  EPOCH: 3\n", r"unknown option 'SOLVER.EPOCH' in .*mean 'SOLVER.EPOCHS'"),
        ("SOLVER: 3\n", r"SOLVER in .* is a group of options"),
        ("MOCO: [1, 2\n", r"is not a config file"),
        ("_BASE_: nowhere.yaml\n", r"is not a config file.*nowhere.yaml"),
        ("just words\n", r"is not a config file"),
        ("!!python/object/apply:os.system ['true']\n", r"is not a config file"),
    ],
)
def test_files_that_are_no_configs_are_refused(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        config.load(tmp_path / "mine.yaml")


def test_a_missing_file_names_the_built_in_ones():
    with pytest.raises(InputError, match="no such file.*'nothing.yaml'"):
        config.load("nothing.yaml")


def test_a_twin_is_its_config_with_a_small_network():
    row, twin = (
        config.load("setsim_hungarian_r50_in100_200ep"),
        config.load("setsim_hungarian_r50_in100_200ep_scenes"),
    )
    assert (row.BACKBONE.NAME, twin.BACKBONE.NAME) == ("resnet50", "resnet18")
    assert row.SETSIM == twin.SETSIM and row.SETSIM.STRATEGY == "hungarian"
    assert (row.DATA.CLASSES, twin.DATA.CLASSES) == ("imagenet100", "")
    with pytest.raises(InputError, match="mean 'setsim_paper'"):
        config.load("setsim_papr_scenes")


def test_rates_are_those_of_a_batch_of_256_and_shrink_with_the_batch():
    """MoCo's linear rule; a twin with the rate of the full batch collapses within 20 steps."""
    for name in config.built_in():
        row, twin = config.load(name).SOLVER, config.load(f"{name}_scenes").SOLVER
        assert row.REFERENCE_BATCH == twin.REFERENCE_BATCH == 256, name
        assert twin.BASE_LR == row.BASE_LR, name
    assert scaled_lr(config.load("moco_v2_scenes").SOLVER) == pytest.approx(0.03 * 16 / 256)
    assert scaled_lr(config.load("demo_simclr").SOLVER) == pytest.approx(0.008 * 64 / 256)
    assert scaled_lr(config.load("swav").SOLVER) == 4.8  # at its own batch, 4096


def test_options_of_ones_own_method_are_free(tmp_path):
    cfg = made("METHOD.OPTIONS.LEAST", "0.3", "METHOD.OPTIONS.KIND", "mutual")
    assert cfg.METHOD.OPTIONS == {"LEAST": 0.3, "KIND": "mutual"}
    deep = made("METHOD.OPTIONS.A.B", "1", "METHOD.OPTIONS.A.C", "2", "METHOD.OPTIONS.A.B", "0.5")
    assert deep.METHOD.OPTIONS.A == {"B": 0.5, "C": 2}
    assert "B: 0.5" in deep.dump()
    (tmp_path / "saved.yaml").write_text(cfg.dump())
    assert config.load(tmp_path / "saved.yaml") == cfg


def test_a_file_inherits_and_overrides_win(tmp_path):
    (tmp_path / "base.yaml").write_text("SEED: 5\nSOLVER:\n  EPOCHS: 7\n  BASE_LR: 1e-3\n")
    (tmp_path / "mine.yaml").write_text("_BASE_: base.yaml\nSOLVER:\n  EPOCHS: 8\n")
    cfg = config.load(tmp_path / "mine.yaml", ["SEED", "9"])
    assert (cfg.SEED, cfg.SOLVER.EPOCHS, cfg.SOLVER.BASE_LR) == (9, 8, 0.001)


@pytest.mark.parametrize(
    ("batch", "world", "norm", "allowed"),
    [
        (256, 8, "split", True),  # MoCo's own layout
        (256, 1, "split", True),
        (24, 1, "split", True),  # fewer than a group: one group
        (96, 2, "split", False),  # 48 a process
        (96, 2, "BN", True),
        (100, 3, "BN", False),
    ],
)
def test_the_batch_must_suit_the_processes(batch, world, norm, allowed):
    cfg = made("SOLVER.BATCH_SIZE", str(batch), "BACKBONE.NORM", norm)
    if allowed:
        config.validate(cfg, world)
    else:
        with pytest.raises(InputError, match=f"BATCH_SIZE is {batch}.*nearest"):
            config.validate(cfg, world)


def test_a_missing_compiler_is_the_environments_fault(monkeypatch):
    import torch

    monkeypatch.setenv("PATH", "/nowhere")
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    with pytest.raises(EnvironmentLacks, match="COMPILE needs a C.. compiler"):
        check_compiler(made("COMPILE", "True"), cpu)
    check_compiler(made("COMPILE", "True"), gpu)
    check_compiler(made(), cpu)


def test_differences_name_what_changes_the_run_only():
    cfg = made()
    assert differences(cfg.dump(), cfg) == []
    later = made("SOLVER.STEPS", "(30,)", "DATA.WORKERS", "9", "OUTPUT_DIR", "b", "AMP", "bf16")
    assert differences(cfg.dump(), later) == [
        "AMP: auto -> bf16",
        "SOLVER.STEPS: [120, 160] -> (30,)",
    ]


def test_an_option_younger_than_the_checkpoint_counts_as_its_default():
    cfg = made()
    old = cfg.clone()
    del old.MOCO["SHUFFLE"]
    assert differences(old.dump(), cfg) == []
    assert differences(old.dump(), made("MOCO.SHUFFLE", "False")) == ["MOCO.SHUFFLE: True -> False"]


@pytest.mark.parametrize(
    ("norm", "group", "world", "groups"),
    [("split", 32, 1, 8), ("split", 256, 1, 1), ("split", 512, 1, 1), ("split", 32, 8, 8),
     ("split", 16, 8, 16), ("BN", 32, 1, 1), ("BN", 32, 8, 8), ("SyncBN", 32, 8, 1)],
)  # fmt: skip
def test_normalisation_groups_of_the_global_batch(norm, group, world, groups):
    options = ["BACKBONE.NORM", norm, "BACKBONE.GROUP_SIZE", str(group)]
    assert config.normalisation_groups(config.load(overrides=options), world) == groups
