"""Tables: numbers by hand, and everything that must not be averaged."""

import math

import pytest
import yaml
from rich.console import Console

from console.errors import InputError
from d2_transfer import results
from d2_transfer.tables import main as verb
from d2_transfer.tables import model, render

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
    return model.build(results.collect([tmp_path]), **options)


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
    assert table.metrics == ["bbox/AP", "bbox/AP50", "bbox/AP75"]
    (table,) = tables(tmp_path, metrics=["bbox/APs"])
    assert table.metrics == ["bbox/APs"]
    with pytest.raises(InputError, match="Did you mean 'bbox/APs'"):
        tables(tmp_path, metrics=["bbox/APsmall"])


def test_the_best_is_bold_and_the_baseline_is_first_and_compared(tmp_path, trial):
    for seed in (1, 2):
        trial("setsim", seed, metrics={"bbox/AP": 59.0 + seed, "bbox/AP50": 80.04})
        trial("moco", seed, metrics={"bbox/AP": 57.0 + seed, "bbox/AP50": 80.0})
        trial("random", seed, metrics={"bbox/AP": 33.0 + seed, "bbox/AP50": 60.0})
    text = render.markdown(tables(tmp_path, baseline="random"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| method | data | epochs | n | AP | AP50 |"
    assert rows[2] == "| random | – | – | 2 | 34.5 ± 0.7 | 60.0 ± 0.0 |"
    # Means that print alike are both best.
    assert rows[3] == "| moco | scenes | 200 | 2 | 58.5 ± 0.7 (+24.0) | **80.0 ± 0.0 (+20.0)** |"
    assert rows[4].endswith("| **60.5 ± 0.7 (+26.0)** | **80.0 ± 0.0 (+20.0)** |")
    assert "In brackets: over random." in text and "seeds 1, 2" in text
    with pytest.raises(InputError, match="unknown baseline 'rnadom'.*Did you mean 'random'"):
        tables(tmp_path, baseline="rnadom")


def test_a_single_row_or_trial_claims_neither_best_nor_deviation(tmp_path, trial):
    trial("moco", 1)
    text = render.markdown(tables(tmp_path))
    assert "**" not in text and "±" not in text and "one fine-tuning a row" in text


def test_where_all_are_equal_none_is_best(tmp_path, trial):
    for method in ("moco", "setsim"):
        trial(method, 1, metrics={"bbox/AP": 0.0})
    assert "**" not in render.markdown(tables(tmp_path))


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
    assert "SOLVER.BASE_LR is 0.02 and 0.01" in render.markdown([table])


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
    text = render.markdown(tables(tmp_path))
    assert text.count("| moco |") == 3
    assert "### coco_mask_fpn_1x, variant moco2fc\n" in text
    assert "### coco_mask_fpn_1x, variant 4conv1fc (miniature)\n" in text
    assert text.count("not comparable with published numbers") == 1
    assert "| bbox AP | segm AP |" in text


def test_a_miniature_prints_two_decimals_and_a_best_that_they_tell_apart(tmp_path, trial):
    trial("moco", 1, mini=True, metrics={"bbox/AP": 0.124})
    trial("setsim", 1, mini=True, metrics={"bbox/AP": 0.136})
    trial("random", 1, mini=True, metrics={"bbox/AP": 0.1})
    text = render.markdown(tables(tmp_path, baseline="moco"))
    assert "| 0.12 |" in text and "| **0.14 (+0.01)** |" in text


def test_n_stands_in_the_cells_where_it_differs(tmp_path, trial):
    trial("moco", 1, metrics={"bbox/AP": 50.0, "bbox/AP50": math.nan})
    trial("moco", 2, metrics={"bbox/AP": 51.0, "bbox/AP50": 80.0})
    trial("random", 1, metrics={"bbox/AP": 30.0})
    rows = render.markdown(tables(tmp_path)).splitlines()
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
            metrics = {"bbox/AP": 57.2, "bbox/AP50": 82.5 + more, "bbox/AP75": 63.0}
            trial(method, seed, metrics=metrics)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(render.terminal(tables(tmp_path, baseline="random")))
    drawn = captured.get()
    assert "…" not in drawn and drawn.count("82.7 ± 0.2") == 3 and drawn.count("(+0.0)") == 6
