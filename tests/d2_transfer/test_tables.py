"""Tables of records: numbers by hand, and everything that must not be averaged."""

import csv
import io
import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.tables import from_records
from densessl.d2_transfer.tables import main as verb
from densessl.d2_transfer.tables.render import FORMATS, terminal

markdown = FORMATS["md"]
CASES = Path(__file__).resolve().parents[1] / "cases" / "records"

METHODS = {"random": "", "moco": "aa" * 32, "setsim": "bb" * 32}


@pytest.fixture
def trial(tmp_path):
    """A function that writes the record and the config of one trial."""

    def write(method, seed, config=None, folder=None, **changes):
        folder = tmp_path / (folder or method) / f"trial_{seed}"
        config = {"SEED": seed, "SOLVER": {"BASE_LR": 0.02, "STEPS": [1, 2]}} | (config or {})
        known = method in METHODS and METHODS[method]
        values = {
            "method": method,
            "weights": {"path": method, "sha256": METHODS.get(method, "cc" * 32)},
            "pretrain": {"dataset": "scenes", "epochs": 200.0} if known else {},
            "protocol": "voc_det_c4",
            "variant": "",
            "seed": seed,
            "metrics": {"bbox/AP75": 63.0, "bbox/AP": 57.0, "bbox/AP50": 82.3, "bbox/APs": 1.0},
            "config_sha256": results.config_fingerprint(config),
            "versions": {},
            "started": results.now(),
            "finished": results.now(),
        }
        record = results.Record(**{**values, **changes})
        results.save(folder, record)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return write


def tables(tmp_path, **options):
    return from_records.build(results.collect([tmp_path]), **options)


def test_trials_are_called_what_a_label_says(tmp_path, trial, capsys):
    for folder in ("a", "b"):
        for seed in (1, 2):
            trial("moco", seed, folder=folder, weights={"path": folder, "sha256": folder * 64})
    labels = [word for folder in "ab" for word in ("--label", f"{tmp_path / folder}=MoCo {folder}")]
    assert verb.main([str(tmp_path), *labels, "--baseline", "MoCo a", "--format", "md"]) == 0
    shown = capsys.readouterr().out
    assert "| MoCo a |" in shown and "| MoCo b |" in shown and "[" not in shown.split("bbox")[0]
    wide = ["--label", f"{tmp_path}=all"]
    for order, name in ((labels + wide, "all"), (wide + labels, "MoCo a")):  # the last one counts
        assert verb.main([str(tmp_path / "a"), *order, "--format", "md"]) == 0
        assert f"| {name} |" in capsys.readouterr().out
    with pytest.raises(InputError, match="--label is 'x'; allowed: DIR=NAME"):
        verb.main([str(tmp_path), "--label", "x"])


@pytest.mark.parametrize("form", ["md", "latex", "html", "csv"])
def test_a_pretraining_that_was_changed_has_a_footnote(form, tmp_path, trial, capsys):
    change = {"step": 400, "options": {"SOLVER.BASE_LR": [0.03, 0.015], "AMP": ["fp16", "bf16"]}}
    for seed in (1, 2):
        trial("moco", seed, pretrain={"dataset": "scenes", "changes": [change]})
        trial("random", seed)
    assert verb.main([str(tmp_path), "--format", form]) == 0
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if "from step 400" in line]
    assert len(lines) == (3 if form == "csv" else 1)  # there it stands in each metric's line
    for said in ("BASE", "0.03", "0.015", "fp16", "bf16"):
        assert said in lines[0]


def test_mean_standard_deviation_and_n_by_hand(tmp_path, trial):
    for seed, ap in ((1, 56.0), (2, 57.0), (3, 59.0)):
        trial("moco", seed, metrics={"bbox/AP": ap, "bbox/AP50": 82.0})
    (table,) = tables(tmp_path)
    cell = table.rows[0].cells["bbox/AP"]
    assert cell.mean == pytest.approx(172 / 3) and cell.n == 3
    assert cell.std == pytest.approx(math.sqrt((16 + 1 + 25) / 9 / 2))  # deviations −4/3 −1/3 5/3
    assert table.rows[0].seeds == [1, 2, 3]
    assert table.rows[0].cells["bbox/AP50"].std == 0.0


def test_columns_are_those_of_the_papers_in_their_order(tmp_path, trial):
    trial("moco", 1)
    (table,) = tables(tmp_path)
    assert [column.metric for column in table.columns] == ["bbox/AP", "bbox/AP50", "bbox/AP75"]
    assert [column.group for column in table.columns] == [""] * 3  # one task needs no group
    (table,) = tables(tmp_path, metrics=["bbox/APs"])
    assert [column.metric for column in table.columns] == ["bbox/APs"]
    with pytest.raises(InputError, match="Did you mean 'bbox/APs'"):
        tables(tmp_path, metrics=["bbox/APsmall"])


def test_trials_of_a_random_start_are_of_no_one_model(tmp_path, trial):
    for seed in (1, 2):
        trial("random", seed, metrics={"bbox/AP": 33.0 + seed})
    assert "n random networks" in markdown(tables(tmp_path))
    trial("moco", 1, metrics={"bbox/AP": 57.0})
    trial("moco", 2, metrics={"bbox/AP": 58.0})
    assert "n fine-tunings of one pretrained model" in markdown(tables(tmp_path))


def test_the_best_is_bold_and_the_baseline_is_first_and_compared(tmp_path, trial):
    for seed in (1, 2):
        trial("setsim", seed, metrics={"bbox/AP": 59.0 + seed, "bbox/AP50": 80.04})
        trial("moco", seed, metrics={"bbox/AP": 57.0 + seed, "bbox/AP50": 80.0})
        trial("random", seed, metrics={"bbox/AP": 33.0 + seed, "bbox/AP50": 60.0})
    text = markdown(tables(tmp_path, baseline="random"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| method | data | epochs | n | AP | AP50 |"
    assert rows[2] == "| random | – | – | 2 | 34.5 ± 0.7 | 60.0 ± 0.0 |"
    # Means that print alike are both best.
    second = "<u>58.5 ± 0.7 (+24.0)</u>"
    assert rows[3] == f"| moco | scenes | 200 | 2 | {second} | **80.0 ± 0.0 (+20.0)** |"
    assert rows[4].endswith("| **60.5 ± 0.7 (+26.0)** | **80.0 ± 0.0 (+20.0)** |")
    assert "In brackets: over random." in text and "seeds 1, 2" in text
    with pytest.raises(InputError, match="unknown baseline 'rnadom'.*Did you mean 'random'"):
        tables(tmp_path, baseline="rnadom")


def test_a_single_row_or_trial_claims_neither_best_nor_deviation(tmp_path, trial):
    trial("moco", 1)
    text = markdown(tables(tmp_path))
    assert "**" not in text and "±" not in text and "one fine-tuning a row" in text


def test_of_two_rows_the_lower_is_no_second(tmp_path, trial):
    trial("setsim", 1, metrics={"bbox/AP": 59.0})
    trial("moco", 1, metrics={"bbox/AP": 57.0})
    (table,) = tables(tmp_path)
    cells = [row.cells["bbox/AP"] for row in table.rows]
    assert [(cell.best, cell.second) for cell in cells] == [(False, False), (True, False)]


def test_where_all_are_equal_none_is_best(tmp_path, trial):
    for method in ("moco", "setsim"):
        trial(method, 1, metrics={"bbox/AP": 0.0})
    assert "**" not in markdown(tables(tmp_path))


def test_trials_of_different_configs_are_refused_with_keys_and_values(tmp_path, trial):
    trial("moco", 1)
    trial("moco", 2, config={"SOLVER": {"BASE_LR": 0.01, "STEPS": [1, 2], "NEW": True}})
    with pytest.raises(InputError) as error:
        tables(tmp_path)
    message = str(error.value)
    assert "SOLVER.BASE_LR is 0.02 and 0.01" in message and "STEPS" not in message
    assert "SOLVER.NEW is (absent) and True" in message
    assert "trial_1" in message and "trial_2" in message


def test_different_configs_are_refused_also_where_no_config_file_says_which(tmp_path, trial):
    trial("moco", 1)
    (trial("moco", 2, config={"SOLVER": {}}) / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"config.yaml is missing"):
        tables(tmp_path)


def test_rows_of_different_configs_stand_side_by_side_with_a_warning(tmp_path, trial):
    trial("moco", 1)
    trial("setsim", 1, config={"SOLVER": {"BASE_LR": 0.01, "STEPS": [1, 2]}})
    (table,) = tables(tmp_path)
    assert "SOLVER.BASE_LR is 0.02 and 0.01" in markdown([table])


def test_a_seed_counts_once(tmp_path, trial):
    first = trial("moco", 1)
    again = trial("moco", 1, folder="copy")
    with pytest.raises(InputError, match="seed 1 occurs twice") as error:
        tables(tmp_path)
    assert str(first) in str(error.value) and str(again) in str(error.value)


def test_two_pretrained_models_of_one_method_are_never_averaged(tmp_path, trial):
    trial("moco", 1)
    trial("moco", 2, folder="other", weights={"path": "b.pkl", "sha256": "dd" * 32})
    (table,) = tables(tmp_path)
    assert [row.label for row in table.rows] == ["moco [aaaaaaaa]", "moco [dddddddd]"]
    assert [row.cells["bbox/AP"].n for row in table.rows] == [1, 1]
    with pytest.raises(InputError, match="more than one row"):
        tables(tmp_path, baseline="moco")
    (table,) = tables(tmp_path, baseline="moco [dddddddd]")
    assert table.rows[0].cells["bbox/AP"].delta == 0.0


def test_variants_and_miniatures_have_tables_of_their_own(tmp_path, trial):
    fpn = {"protocol": "coco_mask_fpn_1x", "metrics": {"bbox/AP": 38.9, "segm/AP": 35.4}}
    trial("moco", 1, folder="a", variant="moco2fc", **fpn)
    trial("moco", 2, folder="b", variant="4conv1fc", **fpn)
    trial("moco", 3, folder="c", variant="4conv1fc", mini=True, **fpn)
    text = markdown(tables(tmp_path))
    assert text.count("| moco |") == 3
    assert "### coco_mask_fpn_1x, variant moco2fc\n" in text
    assert "### coco_mask_fpn_1x, variant 4conv1fc (miniature)\n" in text
    assert text.count("not comparable with published numbers") == 1
    assert "| Object Det. AP | Instance Seg. AP |" in text


def test_a_miniature_prints_two_decimals_and_a_best_that_they_tell_apart(tmp_path, trial):
    trial("moco", 1, mini=True, metrics={"bbox/AP": 0.124})
    trial("setsim", 1, mini=True, metrics={"bbox/AP": 0.136})
    trial("random", 1, mini=True, metrics={"bbox/AP": 0.1})
    text = markdown(tables(tmp_path, baseline="moco"))
    assert "| <u>0.12</u> |" in text and "| **0.14 (+0.01)** |" in text
    assert "(−0.02)" in text


def test_n_stands_in_the_cells_where_it_differs(tmp_path, trial):
    trial("moco", 1, metrics={"bbox/AP": 50.0, "bbox/AP50": math.nan})
    trial("moco", 2, metrics={"bbox/AP": 51.0, "bbox/AP50": 80.0})
    trial("random", 1, metrics={"bbox/AP": 30.0})
    rows = markdown(tables(tmp_path)).splitlines()
    assert "| moco | scenes | 200 | **50.5 ± 0.7 [n=2]** | 80.0 [n=1] |" in rows
    assert "| random | – | – | 30.0 [n=1] | – |" in rows


def test_the_verb_prints_and_writes_and_says_where_it_looked(tmp_path, trial, capsys):
    with pytest.raises(InputError, match="densessl transfer"):
        verb.main([str(tmp_path)])
    trial("moco", 1)
    trial("random", 1, metrics={"bbox/AP": 33.8})
    assert verb.main([str(tmp_path), "--baseline", "random"]) == 0
    printed = capsys.readouterr().out
    assert "(+23.2)" in printed and printed.startswith("### voc_det_c4")
    verb.main([str(tmp_path), "--baseline", "random", "-o", str(tmp_path / "table.md")])
    assert (tmp_path / "table.md").read_text() == printed
    verb.main([str(tmp_path), "--format", "terminal"])
    drawn = capsys.readouterr().out
    assert "57.0" in drawn and "voc_det_c4" in drawn and "**" not in drawn


def test_a_terminal_of_80_columns_shows_all_of_a_usual_table(tmp_path, trial):
    for method in METHODS:
        for seed, more in ((1, 0.0), (2, 0.3)):
            ap = 57.2 if METHODS[method] else 37.2 + more / 3
            metrics = {"bbox/AP": ap, "bbox/AP50": 82.5 + more, "bbox/AP75": 63.0}
            trial(method, seed, metrics=metrics)
    drawn = terminal.render(tables(tmp_path, baseline="random"), Console(width=80))
    assert "…" not in drawn and drawn.count("82.7 ± 0.2") == 3 and drawn.count("(+0.0)") == 4


@pytest.fixture
def said():
    """What the verb logs, as a list of texts."""
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = logging.getLogger("densessl")
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)


def test_damaged_and_foreign_files_are_named_and_skipped(tmp_path, trial, capsys, said):
    trial("moco", 1)
    for name, text in (("half", "{"), ("other", '{"accuracy": 1}'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "result.json").write_bytes(b"\xff\xfe")
    assert verb.main([str(tmp_path)]) == 0
    assert "| moco |" in capsys.readouterr().out
    assert len(said) == 4 and all(text.startswith("skipped: ") for text in said)
    for name in ("half", "other", "list", "bytes"):
        assert any(str(tmp_path / name / "result.json") in text for text in said)


def test_where_only_damaged_files_are_found_it_is_an_error(tmp_path):
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"no trial_<k>/result.json .*1 files of that name"):
        verb.main([str(tmp_path)])


def test_csv_has_every_number_in_full(tmp_path, trial):
    for seed, ap in ((1, 1 / 3), (2, 57.0)):
        trial("moco", seed, metrics={"bbox/AP": ap})
    trial("random", 1, metrics={"bbox/AP": 0.1, "segm/AP": 7})
    text = FORMATS["csv"](tables(tmp_path, baseline="random"))
    lines = {(row["row"], row["metric"]): row for row in csv.DictReader(io.StringIO(text))}
    assert set(lines) == {("random", "bbox/AP"), ("random", "segm/AP"), ("moco", "bbox/AP")}
    moco = lines["moco", "bbox/AP"]
    assert float(moco["mean"]) == (1 / 3 + 57.0) / 2 and moco["n"] == "2"
    assert float(moco["over_baseline"]) == float(moco["mean"]) - 0.1
    assert moco["kind"] == "measured" and moco["published"] == "" and moco["protocol"]
    assert lines["random", "bbox/AP"]["std"] == lines["random", "bbox/AP"]["low_95"] == ""


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [("md", "### "), ("tex", "% needs"), ("html", "<!DOCTYPE html>"), ("csv", "table,")],
)
def test_the_file_s_suffix_is_the_format(tmp_path, trial, suffix, begins):
    trial("moco", 1)
    file = tmp_path / f"table.{suffix}"
    assert verb.main([str(tmp_path), "-o", str(file)]) == 0
    assert file.read_text().startswith(begins)
    verb.main([str(tmp_path), "-o", str(file), "--format", "md"])
    assert file.read_text().startswith("### ")


def test_a_suffix_of_no_format_is_refused_before_any_reading(tmp_path):
    with pytest.raises(InputError, match=r"'.htlm' names no format. Did you mean .htm"):
        verb.main([str(tmp_path / "nowhere"), "-o", "table.htlm"])


def test_a_caller_s_log_is_left_as_it_is(tmp_path, trial, said):
    trial("moco", 1)
    before = list(logging.getLogger("densessl").handlers)
    verb.main([str(tmp_path), "-o", str(tmp_path / "table.md")])
    assert logging.getLogger("densessl").handlers == before and said[-1].startswith("wrote ")


def test_facts_of_any_kind_do_no_harm(tmp_path, trial):
    facts = {"dataset": ["a", 1], "epochs": {"x": None}}
    path = trial("moco", 1, pretrain=facts) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    for render in FORMATS.values():
        assert "moco" in render(tables(tmp_path))


def test_a_method_whose_metrics_are_undefined_stays_in_the_table(tmp_path, trial, capsys):
    trial("moco", 1)
    trial("random", 1, metrics={"bbox/AP": 30.0, "bbox/AP50": math.nan, "bbox/AP75": 3.0})
    shutil.copytree(CASES / "table_all_nan_record", tmp_path / "undefined")
    assert verb.main([str(tmp_path), "--baseline", "m", "--format", "md"]) == 0
    shown = capsys.readouterr().out
    assert "| m | imagenet | 200 | 1 | – | – | – |" in shown
    assert "| random | – | – | 1 | 30.0 | – | 3.0 |" in shown  # no difference from nothing
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert not any("(" in row for row in rows) and "nan " not in shown
    assert "undefined in every trial" in shown
    for form in ("latex", "html", "terminal"):
        assert "nan" not in FORMATS[form](tables(tmp_path)).replace("undefined", "")
    lines = csv.DictReader(io.StringIO(FORMATS["csv"](tables(tmp_path))))
    found = {(each["row"], each["metric"]): (each["mean"], each["n"]) for each in lines}
    assert found["m", "bbox/AP"] == ("", "0") and found["moco", "bbox/AP"] == ("57.0", "1")


def test_a_method_without_the_metrics_of_the_others_stays_in_the_table(tmp_path, trial):
    trial("moco", 1)
    trial("setsim", 1, metrics={"bbox/AR": 40.0})
    assert "| setsim | scenes | 200 | 1 | – | – | – |" in markdown(tables(tmp_path))


def per_class(ap, **classes):
    named = {f"bbox/AP-{name}": value for name, value in classes.items()}
    return {"bbox/AP": ap, **named, "bbox/AP-w/o helmet": ap + 1}


def test_classes_have_rows_of_their_own_means_and_ranks(tmp_path, trial, capsys):
    for seed, more in ((1, 0.0), (2, 1.0)):
        trial("moco", seed, metrics=per_class(40.0 + more, cat=30.0 + more, dog=math.nan))
        trial("setsim", seed, metrics=per_class(42.0 + more, cat=28.0 + more, dog=math.nan))
    words = [str(tmp_path), "--per-class", "--baseline", "moco"]
    assert verb.main([*words, "--format", "md"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[0] == "| class | n | moco | setsim |" and len(rows) == 5
    assert rows[2] == "| cat | 2 | **30.5 ± 0.7** | 28.5 ± 0.7 (−2.0) |"
    assert rows[3] == "| dog | 2 | – | – |"
    assert rows[4] == "| w/o helmet | 2 | 41.5 ± 0.7 | **43.5 ± 0.7 (+2.0)** |"
    assert verb.main([*words, "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    means = {(each["method"], each["metric"]): each["mean"] for each in lines}
    assert means["setsim", "bbox/AP-cat"] == "28.5" and means["moco", "bbox/AP-dog"] == ""
    (plain,) = tables(tmp_path)
    assert [column.metric for column in plain.columns] == ["bbox/AP"]
    (named,) = tables(tmp_path, metrics=["bbox/AP-w/o helmet"])
    assert (named.columns[0].head, named.columns[0].group) == ("AP-w/o helmet", "")


def test_classes_of_boxes_and_masks_stand_in_groups(tmp_path, trial, capsys):
    metrics = {"bbox/AP": 40.0, "segm/AP": 35.0, "bbox/AP-cat": 30.0, "segm/AP-cat": 25.0}
    trial("moco", 1, metrics=metrics)
    assert verb.main([str(tmp_path), "--per-class", "--format", "md"]) == 0
    shown = capsys.readouterr().out
    assert "| class | n | Object Det. AP moco | Instance Seg. AP moco |" in shown
    assert "| cat | 1 | 30.0 | 25.0 |" in shown


@pytest.mark.parametrize(
    "words, says",
    [
        (["--per-class"], "no record has the AP or IoU of single classes"),
        (["--per-class", "--metric", "bbox/AP"], "--metric bbox/AP"),
        (["--per-class", "--paper", "setsim/table4"], "--per-class is for tables of records"),
    ],
)
def test_where_there_are_no_classes_that_is_said(tmp_path, trial, words, says):
    trial("moco", 1)
    with pytest.raises(InputError, match=says):
        verb.main([str(tmp_path), *words])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"metrics": {"bbox/AP": 570.0}}, "metrics.bbox/AP' is 570"),
        ({"metrics": {"bbox/AP": "57.0"}}, "metrics.bbox/AP' is '57.0'"),
        ({"seed": -1}, "'seed' is -1"),
    ],
)
def test_a_value_that_cannot_be_ends_the_table_and_is_named(tmp_path, trial, change, says):
    """Left out with a warning it would make an average of fewer trials."""
    trial("moco", 1)
    file = trial("moco", 2) / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError) as error:
        verb.main([str(tmp_path)])
    assert says in str(error.value) and str(file) in str(error.value)
    assert error.value.exit_code == 2
