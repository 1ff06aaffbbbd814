"""A paper's table with our trials in it: which record is which row, and what is never mixed."""

import csv
import io
import logging
import math

import pytest
import yaml
from scipy import stats

from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.tables import from_paper, layouts, spread
from densessl.d2_transfer.tables import main as verb
from densessl.d2_transfer.tables.render import FORMATS

IN1K = {"dataset": "imagenet/train", "images": 1281167, "epochs": 200.0}
IN100 = {"dataset": "imagenet/train (imagenet100)", "images": 126689, "epochs": 200.0}
SETSIM = IN1K | {"config_name": "setsim_r50_in1k_200ep"}
MOCO = IN1K | {"config_name": "moco_v2_r50_in1k_200ep"}


@pytest.fixture
def trial(tmp_path):
    """A function that writes the record and the config of one trial below ``tmp_path``."""

    def write(folder, seed=1, config=None, **changes):
        folder = tmp_path / folder / f"trial_{seed}"
        config = {"SEED": seed, "SOLVER": {"BASE_LR": 0.02}} | (config or {})
        values = {
            "method": "setsim",
            "weights": {"path": "setsim.pkl", "sha256": "bb" * 32},
            "pretrain": SETSIM,
            "protocol": "voc_det_c4",
            "variant": "",
            "seed": seed,
            "metrics": {"bbox/AP": 59.0, "bbox/AP50": 83.0, "bbox/AP75": 66.0},
            "config_sha256": results.config_fingerprint(config),
            "versions": {},
            "started": results.now(),
            "finished": results.now(),
        }
        results.save(folder, results.Record(**{**values, **changes}))
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    return write


def built(tmp_path, name, variant=None):
    return from_paper.build(layouts.find(name, variant), results.collect([tmp_path]))


def measured(table):
    """What was measured, by label."""
    return {row.label: row for row in table.rows if row.cells}


@pytest.mark.parametrize("values", [[59.0, 59.4], [56.1, 57.2, 57.0, 56.4, 57.9], [1.0, 1.0, 1.0]])
def test_the_t_interval_is_scipy_s(values):
    mean, deviation = spread.mean_and_deviation(values)
    low, high = spread.t_interval(mean, deviation, len(values))
    error = stats.sem(values)
    if error:
        expected = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
        assert (low, high) == pytest.approx(expected, rel=1e-12)
    else:
        assert low == high == mean
    assert spread.t_interval(59.0, math.nan, 1) is None


def test_five_trials_stand_beside_the_published_value(tmp_path, trial):
    values = (58.9, 59.2, 59.5, 59.0, 59.4)
    for seed, ap in enumerate(values, start=1):
        trial("setsim", seed, metrics={"bbox/AP": ap, "bbox/AP50": 80.0 + seed / 10})
    table, placed = built(tmp_path, "setsim/table4")
    assert list(measured(table)) == ["SetSim"] and placed.messages == []
    row = measured(table)["SetSim"]
    cell = row.cells["voc_det_c4 bbox/AP"]
    assert row.kind == "both" and cell.n == 5 and row.seeds == [1, 2, 3, 4, 5]
    assert cell.mean == pytest.approx(59.2)
    assert cell.difference == pytest.approx(59.2 - 59.1)
    assert cell.interval[0] < 59.1 < cell.interval[1] and cell.within is True
    far = row.cells["voc_det_c4 bbox/AP50"]
    assert far.difference == pytest.approx(80.3 - 83.2) and far.within is False
    assert "voc_det_c4 bbox/AP75" not in row.cells  # not measured, not invented
    assert row.published["voc_det_c4 bbox/AP75"].mean == 66.1


def test_one_trial_has_a_difference_but_no_interval(tmp_path, trial):
    trial("setsim")
    table, _ = built(tmp_path, "setsim/table4")
    cell = measured(table)["SetSim"].cells["voc_det_c4 bbox/AP"]
    assert cell.difference == pytest.approx(-0.1) and cell.within is None
    text = FORMATS["md"]([table])
    assert "| SetSim † | 200 | <u>59.1</u> |" in text
    assert "| SetSim (ours, n = 1) | 200 | 59.0 |" in text
    assert "| ours − published |  | −0.1 | −0.2 | −0.1 |" in text
    assert "t interval" not in text and "one fine-tuning a row" in text


def test_ours_are_compared_with_our_own_baseline_and_theirs_with_theirs(tmp_path, trial):
    sup = {"path": "r50.pth", "sha256": "ee" * 32}
    trial("sup", method="supervised", weights=sup, pretrain={}, metrics={"bbox/AP": 53.0})
    moco = {"path": "moco.pkl", "sha256": "aa" * 32}
    trial("moco", method="moco", weights=moco, pretrain=MOCO, metrics={"bbox/AP": 57.2})
    table, _ = built(tmp_path, "resim/in1k_voc")
    row = measured(table)["MoCo-v2"]
    assert row.cells["voc_det_c4 bbox/AP"].delta == pytest.approx(4.2)  # over ours: 53.0
    assert row.published["voc_det_c4 bbox/AP"].delta == 3.5  # as printed, over theirs: 53.5
    text = FORMATS["md"]([table])
    assert "| MoCo-v2 † | 57.0 (+3.5) |" in text and "57.2 (+4.2)" in text
    assert "its record does not say what it was pretrained on" in text


def test_a_random_start_is_the_papers_whatever_they_call_it(tmp_path, trial):
    nothing = {"path": "random", "sha256": ""}
    trial("random", method="random", weights=nothing, pretrain={}, metrics={"bbox/AP": 33.0})
    for name, label in (
        ("setsim/table4", "Random init."),
        ("scfs/table3", "Scratch"),
        ("houghcl/voc_det", "random init."),
        ("resim/in100_voc", "random init."),
    ):
        assert list(measured(built(tmp_path, name)[0])) == [label]


def test_configs_that_differ_by_the_data_alone_are_told_by_the_data(tmp_path, trial):
    names = ["moco_v2_r50_in1k_800ep", "moco_v2_r50_coco_800ep", "my_moco"]
    coco = {"dataset": "coco/train2017", "images": 118287, "epochs": 800.0, "config_name": names}
    trial("moco", method="moco", pretrain=coco, metrics={"bbox/AP": 54.0})
    (row,) = measured(built(tmp_path, "houghcl/voc_det")[0]).values()
    assert (row.label, row.data, row.epochs) == ("MoCo v2", "COCO", "800")


def test_rows_of_one_method_are_told_by_the_config(tmp_path, trial):
    for name, ap in (("sort", 55.5), ("hungarian", 55.7), ("random", 55.0)):
        config = {"config_name": f"setsim_{name}_r50_in100_200ep"}
        weights = {"path": name, "sha256": name.ljust(64, "0")}
        metrics = {"bbox/AP": ap}
        trial(name, pretrain=IN100 | config, weights=weights, metrics=metrics)
    table, _ = built(tmp_path, "setsim/table2")
    means = {label: row.cells["voc_det_c4 bbox/AP"].mean for label, row in measured(table).items()}
    assert means == {"Random": 55.0, "Sort": 55.5, "Hungarian": 55.7}
    # In the table of the frameworks none of the three is SetSim's row.
    rows = measured(built(tmp_path, "setsim/table1")[0])
    assert set(rows) == {f"setsim_{n}_r50_in100_200ep" for n in ("sort", "hungarian", "random")}


@pytest.mark.parametrize(
    "facts",
    [
        SETSIM | {"epochs": 20.0},  # not finished, or shorter
        SETSIM | {"images": 126689, "dataset": "imagenet/train (imagenet100)"},
        SETSIM | {"images": 1000},
        SETSIM | {"config_name": ""},  # a run of no built-in config
        SETSIM | {"config_name": 7},
    ],
)
def test_another_run_is_not_the_paper_s_row(tmp_path, trial, facts):
    trial("setsim", pretrain=facts)
    table, _ = built(tmp_path, "setsim/table4")
    (row,) = measured(table).values()
    assert row.kind == "measured" and table.sections[row.section] == "Not in the paper"


def test_weights_from_elsewhere_are_matched_by_their_facts_and_it_says_so(tmp_path, trial):
    trial("official", pretrain={"dataset": "ImageNet-1K", "epochs": 200})
    table, _ = built(tmp_path, "setsim/table4")
    assert measured(table)["SetSim"].notes == (
        "matched by method, data and epochs: its record names no pretraining config",
    )
    assert "its record names no pretraining config" in FORMATS["md"]([table])


def test_weights_that_may_be_several_rows_are_none(tmp_path, trial):
    facts = {"dataset": "imagenet100", "epochs": 200}
    options = {"DATASETS": {"CLASSES": "imagenet100"}}
    knn = {"protocol": "knn", "variant": "last", "metrics": {"knn/top1": 84.0}}
    trial("official", method="scfs", pretrain=facts, config=options, **knn)
    table, placed = built(tmp_path, "scfs/table8")
    assert not measured(table)
    (said,) = placed.messages
    assert "'res2' or 'res2 + res3'" in said and "does not name the config" in said


def test_the_two_fpn_variants_never_share_a_table(tmp_path, trial):
    fpn = {"protocol": "coco_mask_fpn_1x"}
    trial("two", variant="moco2fc", metrics={"bbox/AP": 40.0}, **fpn)
    trial("four", variant="4conv1fc", metrics={"bbox/AP": 41.0}, **fpn)
    means = {}
    for variant, other in (("moco2fc", "4conv1fc"), ("4conv1fc", "moco2fc")):
        table, placed = built(tmp_path, "setsim/table6", variant)
        (cell,) = measured(table)["SetSim"].cells.values()
        means[variant] = (cell.mean, cell.n)
        (said,) = placed.messages
        assert f"its variant of coco_mask_fpn_1x is {other}" in said and "never mixed" in said
    assert means == {"moco2fc": (40.0, 1), "4conv1fc": (41.0, 1)}
    assert built(tmp_path, "setsim/table6")[0].columns[0].variant == "moco2fc"  # the default


def test_no_difference_is_taken_across_variants(tmp_path, trial):
    """In SCFS's Table 4 MoCo-v2's 40.4 is 4conv1fc, DINO's heads are not known."""
    fpn = {"protocol": "coco_mask_fpn_1x", "metrics": {"bbox/AP": 39.0}, "method": "moco"}
    trial("two", variant="moco2fc", pretrain=MOCO, **fpn)
    dino = IN1K | {"config_name": "dino_r50_in1k_800ep", "epochs": 800.0}
    weights = {"path": "dino", "sha256": "dd" * 32}
    trial("dino", variant="moco2fc", pretrain=dino, weights=weights, **fpn)
    trial("four", variant="4conv1fc", pretrain=MOCO, **fpn)
    table, _ = built(tmp_path, "scfs/table4")
    assert list(measured(table)) == ["MoCo v2", "DINO"]
    for row in measured(table).values():
        (cell,) = row.cells.values()
        assert cell.difference is None and cell.within is None
    assert "No difference is taken" in FORMATS["md"]([table])
    table, _ = built(tmp_path, "scfs/table4", "4conv1fc")
    (cell,) = measured(table)["MoCo v2"].cells.values()
    assert cell.difference == pytest.approx(39.0 - 40.4)


def test_suspect_numbers_are_no_target(tmp_path, trial):
    hough = IN1K | {"config_name": "houghcl_r50_in1k_200ep"}
    trial(
        "hough",
        method="houghcl",
        protocol="coco_mask_fpn_1x",
        variant="moco2fc",
        pretrain=hough,
        metrics={"bbox/AP": 39.6},
    )
    table, _ = built(tmp_path, "houghcl/coco_det")
    (cell,) = measured(table)["HoughCL"].cells.values()
    assert cell.difference is None
    assert all(not c.best and not c.second for row in table.rows for c in row.published.values())
    assert "suspect: repeats the VOC numbers" in FORMATS["md"]([table])


def test_an_fpn_that_was_transferred_is_a_row_of_its_own(tmp_path, trial):
    fpn = {"protocol": "coco_mask_fpn_1x", "variant": "moco2fc", "method": "resim"}
    facts = IN1K | {"config_name": "resim_fpn_r50_in1k_200ep"}
    for folder, transfer, ap in (("without", False, 39.4), ("with", True, 39.9)):
        config = {"MODEL": {"FPN": {"TRANSFER": transfer}}}
        trial(folder, pretrain=facts, config=config, metrics={"bbox/AP": ap}, **fpn)
    table, _ = built(tmp_path, "resim/coco_1x")
    means = {
        label: cell.mean for label, row in measured(table).items() for cell in row.cells.values()
    }
    assert means == {"ReSim-FPN": 39.4, "ReSim-FPN^T": 39.9}
    assert "MODEL.FPN.TRANSFER is False and True" in "\n".join(table.notes)


def test_classes_are_told_by_the_config_of_the_trial(tmp_path, trial):
    knn = {"protocol": "knn", "variant": "last", "metrics": {"knn/top1": 65.0}, "method": "scfs"}
    facts = IN1K | {"config_name": "scfs_r50_in1k_200ep"}
    trial("all", pretrain=facts, config={"DATASETS": {"CLASSES": ""}}, **knn)
    trial("100", 2, pretrain=facts, config={"DATASETS": {"CLASSES": "imagenet100"}}, **knn)
    table, placed = built(tmp_path, "scfs/table1")
    (row,) = measured(table).values()
    assert (row.label, row.epochs, row.seeds) == ("SCFS", "200", [1])
    assert "DATASETS.CLASSES is 'imagenet100' there, '' in the table" in placed.messages[0]
    (tmp_path / "all" / "trial_1" / "config.yaml").unlink()
    table, placed = built(tmp_path, "scfs/table1")
    assert not measured(table)
    assert any("no config.yaml beside the record" in said for said in placed.messages)


def test_miniatures_never_stand_beside_published_numbers(tmp_path, trial):
    trial("mini", mini=True)
    table, placed = built(tmp_path, "setsim/table4")
    assert not measured(table)
    (said,) = placed.messages
    assert "miniature" in said and str(tmp_path / "mini" / "trial_1") in said


def test_two_models_of_one_row_are_two_lines_and_one_published(tmp_path, trial):
    trial("first", metrics={"bbox/AP": 59.0})
    again = {"path": "again.pkl", "sha256": "cc" * 32}
    trial("again", weights=again, metrics={"bbox/AP": 58.0})
    text = FORMATS["md"]([built(tmp_path, "setsim/table4")[0]])
    assert text.count("| SetSim † |") == 1
    assert "| SetSim [bbbbbbbb] (ours, n = 1) |" in text
    assert "| SetSim [cccccccc] (ours, n = 1) |" in text
    assert text.count("ours − published") == 2


def test_trials_of_two_configs_or_a_seed_twice_are_refused(tmp_path, trial):
    trial("a", 1)
    trial("b", 2, config={"SOLVER": {"BASE_LR": 0.01}})
    with pytest.raises(InputError, match=r"SOLVER.BASE_LR is 0.02 and 0.01"):
        built(tmp_path, "setsim/table4")
    trial("b", 2)
    trial("c", 2)
    with pytest.raises(InputError, match="seed 2 occurs twice"):
        built(tmp_path, "setsim/table4")


def test_a_model_that_no_paper_has_is_ranked_with_ours(tmp_path, trial):
    trial("setsim", metrics={"bbox/AP": 59.0})
    trial("moco", method="moco", pretrain=MOCO, metrics={"bbox/AP": 57.0})
    mine = IN1K | {"config_name": "", "epochs": 300.0}
    trial("mine", method="mine.py:Mine", pretrain=mine, metrics={"bbox/AP": 61.0})
    table, _ = built(tmp_path, "setsim/table4")
    row = table.rows[-1]
    (cell,) = row.cells.values()
    assert row.label == "mine.py:Mine, imagenet/train, 300 epochs" and row.facts["Epochs"] == "300"
    assert cell.best and cell.delta == pytest.approx(4.0)
    assert measured(table)["SetSim"].cells["voc_det_c4 bbox/AP"].second


def test_a_threshold_without_a_published_number_stands_only_where_it_was_measured(tmp_path, trial):
    def threshold(name, ap):
        facts = IN100 | {"config_name": f"setsim_{name}r50_in100_200ep"}
        weights = {"path": name, "sha256": (name or "0").ljust(64, "0")}
        trial(f"t{name}", pretrain=facts, weights=weights, metrics={"bbox/AP": ap})

    threshold("threshold01_", 54.9)
    threshold("threshold05_", 55.8)
    threshold("", 56.0)
    table, _ = built(tmp_path, "setsim/fig3")
    assert [row.label for row in table.rows] == ["0.1", "0.5", "0.7", "0.9"]
    text = FORMATS["md"]([table])
    assert "| 0.1 †<sup>a</sup> | – (−1.13) |" in text
    assert "54.90 (−1.10)" in text


def test_the_verb_prints_a_paper_s_table_alone_and_with_records(tmp_path, trial, capsys):
    assert verb.main(["--paper", "setsim/table4"]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("### SetSim, Table 4: ") and alone.count("†") == 13
    trial("setsim")
    trial("other", protocol="coco_mask_c4_1x")
    assert verb.main(["--paper", "setsim/table4", str(tmp_path), "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    both = [line for line in lines if line["kind"] == "both"]
    assert [line["metric"] for line in both] == ["bbox/AP", "bbox/AP50", "bbox/AP75"]
    assert float(both[0]["published"]) == 59.1 and float(both[0]["mean"]) == 59.0
    assert len(lines) == 36


def test_the_verb_lists_the_papers_tables(capsys):
    assert verb.main(["--list-papers"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(layouts.names()) == 27


def test_the_verb_s_wrong_uses_are_refused(tmp_path):
    for wrong, said in (
        ([], "no folder is named"),
        (["--paper", "setsim/table9"], "unknown table 'setsim/table9'"),
        (["--paper", "setsim/table4", "--metric", "bbox/AP"], "--metric is for tables of records"),
        (["--paper", "setsim/table4", "--baseline", "x"], "--baseline is for tables of records"),
        (["--variant", "moco2fc", str(tmp_path)], "--variant moco2fc is for --paper"),
        (["--paper", "setsim/table4", str(tmp_path)], r"no trial_<k>/result.json"),
        (["--paper", "setsim/table4", "--format", "pdf"], "invalid choice: 'pdf'"),
    ):
        with pytest.raises(InputError, match=said):
            verb.main(wrong)


def test_where_no_record_belongs_the_published_numbers_stand_with_a_warning(
    tmp_path, trial, capsys
):
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = logging.getLogger("densessl")
    trial("other", protocol="coco_mask_c4_1x")
    logger.addHandler(handler)
    try:
        assert verb.main(["--paper", "setsim/table4", str(tmp_path)]) == 0
    finally:
        logger.removeHandler(handler)
    assert "SetSim †" in capsys.readouterr().out
    assert "no record belongs to setsim/table4: the published numbers alone" in texts
