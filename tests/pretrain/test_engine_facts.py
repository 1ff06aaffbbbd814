"""What a checkpoint tells of its run."""

import pytest

from densessl.pretrain import config
from densessl.pretrain.engine.facts import config_names, recipe

ROW = "setsim_threshold03_r50_in100_200ep"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([], [ROW]),
        (["SEED", "7", "OUTPUT_DIR", "x", "DATA.PATH", "y", "LOG.PERIOD", "3"], [ROW]),
        (["KNN.PERIOD", "5", "KNN.TRAIN", "x", "KNN.VAL", "y"], [ROW]),
        (["AMP", "bf16", "CHANNELS_LAST", "True"], [ROW]),  # as auto becomes on a GPU
        (["AMP", "fp16"], []),
        (["SETSIM.THRESHOLD", "0.4"], ["setsim_threshold04_r50_in100_200ep"]),
        (["DATA.CLASSES", ""], []),  # another data set
        (["SOLVER.BATCH_SIZE", "512"], []),
    ],
)
def test_a_run_knows_which_built_in_config_it_is(changes, names):
    assert config_names(config.load(ROW, changes)) == names


def test_runs_of_one_recipe_differ_in_the_seed_or_in_nothing_that_counts():
    own = recipe(config.load(ROW))
    for free in (["SEED", "7"], ["OUTPUT_DIR", "x", "DATA.WORKERS", "1"]):
        assert recipe(config.load(ROW, free)) == own
    for other in (["SOLVER.BASE_LR", "0.1"], ["MOCO.QUEUE", "128"], ["DATA.CLASSES", ""]):
        assert recipe(config.load(ROW, other)) != own


def test_papers_that_share_a_run_share_its_names():
    assert "moco_v2" in config_names(config.load("moco_v2_r50_in1k_200ep"))


def test_a_twin_on_scenes_is_no_row_of_a_paper():
    assert config_names(config.load(f"{ROW}_scenes")) == []
