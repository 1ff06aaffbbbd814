"""The trial record: written whole, read strictly; its fingerprint means "the same experiment"."""

import json
import math

import pytest
import yaml
from fvcore.common.config import CfgNode

from densessl.core.errors import InputError
from densessl.d2_transfer import results


def record(**changes) -> results.Record:
    values = {
        "method": "moco",
        "weights": {"path": "moco.pkl", "sha256": "ab" * 32},
        "pretrain": {"dataset": "imagenet", "epochs": 200},
        "protocol": "voc_det_c4",
        "variant": "",
        "seed": 1,
        "metrics": {"bbox/AP": 57.0, "bbox/AP50": 82.3},
        "config_sha256": "cd" * 32,
        "versions": {"torch": "2.11.0"},
        "started": results.now(),
        "finished": results.now(),
    }
    return results.Record(**{**values, **changes})


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    saved = record(mini=True)
    path = results.save(tmp_path / "trial_1", saved)
    assert path == tmp_path / "trial_1" / "result.json"
    loaded = results.load(path)
    assert loaded == saved and loaded.folder == path.parent
    assert results.load(path.parent) == saved  # a folder will do


def test_an_undefined_metric_is_null_in_the_file_and_nan_in_the_record(tmp_path):
    path = results.save(tmp_path, record(metrics={"bbox/APl": math.nan, "bbox/AP": 1}))
    assert json.loads(path.read_text())["metrics"] == {"bbox/APl": None, "bbox/AP": 1.0}
    assert math.isnan(results.load(path).metrics["bbox/APl"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 99}, "schema is 99"),
        ({"seed": "1"}, "'seed' is '1'"),
        ({"seed": True}, "'seed' is True"),
        ({"mini": 1}, "'mini' is 1"),
        ({"metrics": {"bbox/AP": "57"}}, "metrics.bbox/AP"),
        ({"weights": {"path": "x"}}, "weights.sha256"),
        ({"finished": "yesterday"}, "'finished' is 'yesterday'"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"metrics": {"bbox/AP": 100.1}}, "'metrics.bbox/AP' is 100.1; allowed: 0 to 100"),
        ({"metrics": {"sem_seg/mIoU": -1}}, "'metrics.sem_seg/mIoU' is -1"),
        ({"metrics": {"bbox/AP-cat": 101}}, "'metrics.bbox/AP-cat' is 101"),
        ({"metrics": {"cls/top1": 170}}, "'metrics.cls/top1' is 170"),
        ({"metrics": {"bbox/AP": True}}, "'metrics.bbox/AP' is True"),
        ({"seed": -2}, "'seed' is -2; allowed: 0 or more"),
        ({"pretrain": {"epochs": -200}}, "'pretrain.epochs' is -200"),
        ({"evaluated": {"path": "x"}}, "evaluated.sha256"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, change, named):
    path = results.save(tmp_path, record())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as error:
        results.load(path)
    assert named in str(error.value) and str(path) in str(error.value)


def test_what_is_no_share_has_no_bounds_and_a_sum_may_end_above_100(tmp_path):
    metrics = {"linear/best_lr": 160.0, "search/weight_decay": 0.0, "bbox/AP": 100.00000000000001}
    path = results.save(tmp_path, record(metrics=metrics))
    assert results.load(path).metrics == metrics


@pytest.mark.parametrize(
    "metric, found",
    [
        ("bbox/AP-person", ("bbox/AP", "person")),
        ("segm/AP-w/o helmet - 2", ("segm/AP", "w/o helmet - 2")),
        ("sem_seg/IoU-sky", ("sem_seg/IoU", "sky")),
        ("bbox/AP", None),
        ("bbox/AP50", None),
    ],
)
def test_which_metric_is_of_one_class(metric, found):
    assert results.class_of(metric) == found


@pytest.mark.parametrize("field", ["method", "protocol", "variant", "metrics", "config_sha256"])
def test_a_missing_field_is_named(tmp_path, field):
    path = results.save(tmp_path, record())
    values = json.loads(path.read_text())
    del values[field]
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=f"'{field}' is missing"):
        results.load(path)


def test_what_is_not_a_record_is_refused(tmp_path):
    with pytest.raises(InputError, match="no trial record"):
        results.load(tmp_path)
    (tmp_path / "result.json").write_text("{half")
    with pytest.raises(InputError, match="not a trial record"):
        results.load(tmp_path)
    with pytest.raises(InputError, match="expected"):
        results.save(tmp_path, record(metrics={"bbox/AP": "high"}))
    assert (tmp_path / "result.json").read_text() == "{half"  # a refused record writes nothing


def test_collect_finds_records_below_a_folder_once(tmp_path):
    for k in (2, 1):
        results.save(tmp_path / "moco" / f"trial_{k}", record(seed=k))
    found = results.collect([tmp_path, tmp_path / "moco", tmp_path / "moco" / "trial_1"])
    assert [each.seed for each in found] == [1, 2]
    assert results.collect([tmp_path / "moco" / "trial_1" / "result.json"])[0].seed == 1
    with pytest.raises(InputError, match="no such folder"):
        results.collect([tmp_path / "nowhere"])


def test_collect_finds_records_behind_links_once(tmp_path):
    results.save(tmp_path / "disk" / "moco" / "trial_1", record(seed=4))
    results.save(tmp_path / "runs" / "trial_1", record(seed=5))
    (tmp_path / "runs" / "moco").symlink_to(tmp_path / "disk" / "moco")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs")
    assert [each.seed for each in results.collect([tmp_path / "runs"])] == [4, 5]


def test_collect_gives_damaged_files_to_who_asks_and_goes_on(tmp_path):
    results.save(tmp_path / "trial_1", record())
    (tmp_path / "trial_2").mkdir()
    (tmp_path / "trial_2" / "result.json").write_text("{half")
    with pytest.raises(InputError, match="trial_2"):
        results.collect([tmp_path])
    skipped = []
    assert [each.seed for each in results.collect([tmp_path], skipped.append)] == [1]
    assert len(skipped) == 1 and "trial_2" in str(skipped[0])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_a_metric_that_is_not_finite_is_refused(tmp_path, number):
    path = results.save(tmp_path, record(metrics={"bbox/AP": 57.5}))
    path.write_text(path.read_text().replace("57.5", number))
    with pytest.raises(InputError, match="undefined metric is null") as error:
        results.load(path)
    assert str(path) in str(error.value)


def test_nesting_without_end_is_no_record(tmp_path):
    (tmp_path / "result.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not a trial record"):
        results.load(tmp_path)


MAINS = {  # what get_cfg() of Detectron2's official main has beside 0.5's, at its defaults
    "DATALOADER.REPEAT_SQRT": True,
    "FLOAT32_PRECISION": "",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": 50,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "SOLVER.BASE_LR_END": 0.0,
    "SOLVER.NUM_DECAYS": 3,
    "SOLVER.RESCALE_INTERVAL": False,
}


def with_options(config: CfgNode, flat: dict) -> CfgNode:
    """With more options, as another version of Detectron2 has them."""
    for name, value in flat.items():
        *groups, leaf = name.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, CfgNode())
        node[leaf] = value
    return config


def test_the_fingerprint_ignores_what_may_differ_and_sees_everything_else():
    def config(**changes):
        cfg = CfgNode({"OUTPUT_DIR": "a", "SEED": 1})
        cfg.MODEL = CfgNode({"WEIGHTS": "a.pkl", "DEPTH": 50})
        cfg.SOLVER = CfgNode({"BASE_LR": 0.02, "STEPS": (18000, 22000)})
        cfg.DATALOADER = CfgNode({"NUM_WORKERS": 4})
        cfg.merge_from_list([item for pair in changes.items() for item in pair])
        return cfg

    plain = results.config_fingerprint(config())
    others = {"OUTPUT_DIR": "b", "SEED": 2, "MODEL.WEIGHTS": "b.pkl", "DATALOADER.NUM_WORKERS": 0}
    assert results.config_fingerprint(config(**others)) == plain
    for change in ({"SOLVER.BASE_LR": 0.01}, {"MODEL.DEPTH": 18}, {"SOLVER.STEPS": (1, 2)}):
        assert results.config_fingerprint(config(**change)) != plain
    # Keys of another version of Detectron2 count as soon as they change something.
    assert results.config_fingerprint(with_options(config(), MAINS)) == plain
    for key, value in MAINS.items():
        other = not value if isinstance(value, bool) else f"{value}1"
        assert results.config_fingerprint(with_options(config(), {key: other})) != plain, key
    # The same config read back from YAML: tuples are lists there, keys are in another order.
    assert results.config_fingerprint(yaml.safe_load(config().dump())) == plain
