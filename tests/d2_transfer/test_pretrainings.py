"""Several pretrainings of one method: what is one row, the unit of tests, power, controls."""

import csv
import hashlib
import io
import itertools
import json
import math
import statistics

import numpy as np
import pytest
import yaml
from rich.console import Console
from scipy import stats

from densessl.d2_transfer import results
from densessl.d2_transfer.compare import main as verb
from densessl.d2_transfer.compare.comparison import compare
from densessl.d2_transfer.compare.render import FORMATS as COMPARISONS
from densessl.d2_transfer.compare.words import remarks, verdict
from densessl.d2_transfer.plots import sweeps
from densessl.d2_transfer.plots.trials import Choice
from densessl.d2_transfer.tables import (
    from_paper,
    from_records,
    layouts,
    per_class,
    power,
    spread,
)
from densessl.d2_transfer.tables.render import FORMATS, terminal
from densessl.d2_transfer.tables.t_test import between, holm, of_pretrainings, welch

# AP by pretraining and fine-tuning, made up; the last pretraining of B has one trial less.
A = ((56.1, 56.4, 55.9), (57.0, 57.3, 56.8), (55.2, 55.4, 55.6))
B = ((58.1, 58.0, 58.4), (57.2, 57.5, 57.3), (59.0, 59.3))


@pytest.fixture
def write(tmp_path):
    """A function that writes a method's records: by pretraining the values of its fine-tunings."""

    def wrote(folder, values, seeds=None, recipe=None, named="", config=None, **changes):
        for nth, trials in enumerate(values):
            told = {"dataset": "scenes", "epochs": 200.0, "processes": nth + 1}
            told |= {"recipe": recipe or f"recipe of {folder}", "seed": nth}
            told |= {"seed": seeds[nth]} if seeds else {}
            sum_of = hashlib.sha256(f"{folder} {named} {nth}".encode()).hexdigest()
            for seed, value in enumerate(trials, start=1):
                own = {"SEED": seed, "SOLVER": {"BASE_LR": 0.02}} | (config or {})
                known = {
                    "method": folder,
                    "weights": {"path": f"{folder}{nth}.pkl", "sha256": sum_of},
                    "pretrain": told,
                    "protocol": "voc_det_c4",
                    "variant": "",
                    "metrics": value if isinstance(value, dict) else {"bbox/AP": value},
                    "config_sha256": results.config_fingerprint(own),
                    "versions": {},
                    "started": results.now(),
                    "finished": results.now(),
                }
                place = tmp_path / folder / f"{named}{nth}" / f"trial_{seed}"
                results.save(place, results.Record(**(known | changes), seed=seed))
                (place / "config.yaml").write_text(yaml.safe_dump(own))
        return str(tmp_path / folder)

    return wrote


@pytest.fixture
def control(write):
    """A function that writes the trials of a start without pretraining."""

    def wrote(values, name="random", **changes):
        known = {"weights": {"path": name, "sha256": ""}, "pretrain": {}}
        return write(name, [values], **(known | changes))

    return wrote


def tables(tmp_path, **options):
    return from_records.build(results.collect([tmp_path]), **options)


def compared(a, b, **options):
    return compare((a, b), (results.collect([a]), results.collect([b])), **options)


def lines_of(tables):
    read = csv.DictReader(io.StringIO(FORMATS["csv"](tables)))
    return {(each["row"], each["metric"]): each for each in read}


# ------------------------------------------------------------------------------ one row


def test_pretrainings_of_one_recipe_are_one_row_of_their_means(tmp_path, write):
    write("moco", A)
    write("setsim", B)
    (table,) = tables(tmp_path)
    moco, setsim = (row.cells["bbox/AP"] for row in table.rows)
    means = [statistics.fmean(each) for each in B]
    assert setsim.mean == pytest.approx(statistics.fmean(means))  # not of the eight trials
    assert setsim.mean != pytest.approx(statistics.fmean(itertools.chain(*B)))
    assert setsim.std == pytest.approx(statistics.stdev(means))
    squares = sum((x - statistics.fmean(each)) ** 2 for each in B for x in each)
    assert setsim.std_within == pytest.approx(math.sqrt(squares / (8 - 3)))
    low, high = stats.t.interval(0.95, 2, setsim.mean, setsim.std / math.sqrt(3))
    assert setsim.interval == pytest.approx((low, high))
    rows = [line for line in FORMATS["md"]([table]).splitlines() if line.startswith("|")]
    assert rows[2].startswith("| moco | scenes | 200 | 3 × 3 | 56.2 ± 0.8 / 0.2 |")
    assert rows[3].startswith("| setsim | scenes | 200 | 3 + 3 + 2 | **58.2 ± 0.9 / 0.2** |")
    line = lines_of([table])["setsim", "bbox/AP"]
    assert (line["n"], line["fine_tunings"]) == ("3", "3 + 3 + 2")
    assert float(line["std_fine_tuning"]) == setsim.std_within


def test_a_terminal_of_80_columns_shows_all_of_it(tmp_path, write, control):
    def metrics(values, more):
        return [
            [{"bbox/AP": x + more, "bbox/AP50": x + 25, "bbox/AP75": x + 5} for x in each]
            for each in values
        ]

    control(metrics([(30.0, 31.2, 30.4)], 0)[0])
    write("moco", metrics(NOISE, 0))
    write("setsim", metrics(A, 0.0))
    drawn = terminal.render(tables(tmp_path, baseline="random"), Console(width=80))
    assert "…" not in drawn and "distinguishable" in drawn and drawn.count("/ 0.2 ") == 3


def test_of_one_pretraining_the_row_claims_nothing_about_methods(tmp_path, write):
    write("moco", A[:1])
    (alone,) = tables(tmp_path)
    assert not alone.nested and any("fine-tuning alone" in note for note in alone.notes)
    write("setsim", B)
    (table,) = tables(tmp_path)
    row = FORMATS["md"]([table]).splitlines()[4]
    assert row.startswith("| moco | scenes | 200 | 1 × 3 | 56.1 ± – / 0.3 |")
    assert any("pretraining alone" in note and note.endswith("moco.") for note in table.notes)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 1),
        ({"recipe": "another"}, 2),
        ({"seeds": (0, 1)}, 4),  # of one seed there are two networks
        ({"pretrain": {"dataset": "scenes"}}, 3),  # a record of before tells neither
        ({"pretrain": {"recipe": "recipe of moco"}}, 3),
    ],
)
def test_what_is_averaged_is_one_recipe_of_different_seeds(tmp_path, write, changes, rows):
    write("moco", A[:2])
    write("moco", A[1:], named="more", **({"seeds": (3, 4)} | changes))
    (table,) = tables(tmp_path)
    assert len(table.rows) == rows and len({row.label for row in table.rows}) == rows


def test_a_start_that_is_pretrained_for_each_seed_is_one_recipe(tmp_path, write):
    told = {"dataset": "scenes", "recipe": "vader", "start_recipe": "moco"}
    for seed in range(2):
        for name, more in (("own", {}), ("given", {"start_recipe": ""})):
            pretrain = told | {"seed": seed, "start_sha256": f"{seed}" * 64} | more
            write(f"vader {name}", [A[seed]], named=f"seed{seed}", pretrain=pretrain)
    # the weights' hashes of one method differ by the folder
    (table,) = tables(tmp_path)
    assert [row.method for row in table.rows] == ["vader given", "vader given", "vader own"]


def test_in_a_paper_s_table_they_are_one_row_too(tmp_path, write):
    facts = {"dataset": "imagenet/train", "images": 1281167, "epochs": 200.0}
    facts |= {"config_name": ["setsim_r50_in1k_200ep"], "recipe": "one"}
    for seed, values in enumerate(A):
        write("setsim", [values], named=f"seed{seed}", pretrain=facts | {"seed": seed})
    table, _ = from_paper.build(layouts.find("setsim/table4"), results.collect([tmp_path]))
    text = FORMATS["md"]([table])
    assert "| SetSim (ours, n = 3 × 3) | 200 | 56.2 ± 0.8 / 0.2 |" in text
    assert "With 3 pretrainings each a difference below" in text


def test_a_point_of_a_plot_is_the_mean_of_pretrainings(tmp_path, write):
    for value, values in ((0.7, A), (0.8, B)):
        for seed, trials in enumerate(values):
            told = {"recipe": f"{value}", "seed": seed, "setsim_threshold": value}
            write("setsim", [trials], named=f"{value} {seed}", pretrain=told)
    plot = sweeps.threshold(results.collect([tmp_path]), Choice())
    line = plot.panels[0].lines[0]
    assert line.y == pytest.approx([np.mean([np.mean(each) for each in side]) for side in (A, B)])
    assert line.counts == [3, 3]


# ------------------------------------------------------------------------------ compare


def test_compare_is_welchs_test_of_the_pretrainings_means(write):
    found = compared(write("moco", A), write("setsim", B))
    difference = found.differences["bbox/AP"]
    a, b = ([statistics.fmean(each) for each in side] for side in (A, B))
    theirs = stats.ttest_ind(b, a, equal_var=False)
    low, high = theirs.confidence_interval(0.95)
    assert difference.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert difference.t == pytest.approx(theirs.statistic, rel=1e-9)
    assert difference.interval == pytest.approx((low, high), rel=1e-9)
    assert difference.fine_tunings == ((3, 3, 3), (3, 3, 2))
    text = verdict(found)
    assert "3 × 3 and 3 + 3 + 2" in text and "other pretraining runs" not in text
    told = json.loads(COMPARISONS["json"](found))
    assert told["metrics"]["bbox/AP"]["unit"] == "pretraining"
    assert told["a"]["pretraining_seeds"] == [0, 1, 2] and told["a"]["pretrainings"] == 3
    assert told["metrics"]["bbox/AP"]["bootstrap"] == pytest.approx(difference.bootstrap)


def test_the_verb_takes_several_folders(tmp_path, write, capsys):
    write("moco", A)
    write("setsim", B)
    a, b = (
        ":".join(str(tmp_path / name / str(nth)) for nth in range(3)) for name in ("moco", "setsim")
    )
    assert verb.main([a, b, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["bbox/AP"]["fine_tunings"] == [[3, 3, 3], [3, 3, 2]]


def test_it_is_the_random_intercept_analysis_where_the_numbers_are_equal():
    """F of the method over pretrainings within methods, by the mean squares of a nested ANOVA."""
    a, b = np.array(A), np.array([[58.1, 58.0, 58.4], [57.2, 57.5, 57.3], [59.0, 59.3, 58.8]])
    every = np.stack([a, b])  # [method, pretraining, fine-tuning]
    by_pretraining, by_method = every.mean(2), every.mean((1, 2))
    of_method = 3 * 3 * ((by_method - every.mean()) ** 2).sum() / 1
    of_pretraining = 3 * ((by_pretraining - by_method[:, None]) ** 2).sum() / (2 * (3 - 1))
    assert of_pretrainings(a, b).t ** 2 == pytest.approx(of_method / of_pretraining, rel=1e-9)


def test_the_cluster_bootstrap_is_that_of_every_draw():
    """Of three pretrainings a side there are 27 draws, all equally likely."""
    a, b = ([statistics.fmean(each) for each in side] for side in (A, B))
    of_a, of_b = ([np.mean(draw) for draw in itertools.product(side, repeat=3)] for side in (a, b))
    every = np.sort(np.subtract.outer(of_b, of_a).ravel())
    low, high = spread.bootstrap_interval(a, b)
    assert (low, high) == spread.bootstrap_interval(a, b)
    share = [(every < bound - 1e-9).mean() for bound in (low, high)]
    assert share == pytest.approx([0.025, 0.975], abs=0.01)
    assert spread.bootstrap_interval(a, b[:1]) is None


@pytest.mark.parametrize(("a", "b"), [(A[:1], B), (A, B[:1])])
def test_one_pretraining_is_compared_as_a_model_and_not_as_a_method(write, a, b):
    found = compared(write("moco", a), write("setsim", b))
    difference = found.differences["bbox/AP"]
    means = [[statistics.fmean(each) for each in side] for side in (b, a)]
    (alone,) = min(means, key=len)
    others = max(means, key=len)
    t = (alone - np.mean(others)) / (np.std(others, ddof=1) * math.sqrt(1 + 1 / len(others)))
    assert abs(difference.t) == pytest.approx(abs(t))
    assert difference.p == pytest.approx(2 * stats.t.sf(abs(t), len(others) - 1))
    assert difference.bootstrap is None
    name = "moco" if len(a) == 1 else "setsim"
    assert f"{name} has one pretraining" in verdict(found)


def test_two_single_pretrainings_are_two_models_and_no_methods(write):
    found = compared(write("moco", A[:1]), write("setsim", B[:1]))
    assert found.differences["bbox/AP"].pairs == 3  # as ever: by the seeds of the fine-tunings
    assert "between these two pretrained models, not between methods" in verdict(found)
    assert json.loads(COMPARISONS["json"](found))["metrics"]["bbox/AP"]["unit"] == "trial"


def test_nothing_is_said_of_chance_with_one_unit_on_each_side(write, control):
    found = compared(control([30.0]), write("moco", A[:1]))
    assert found.differences["bbox/AP"].p is None and "Nothing can be said" in verdict(found)


def test_of_a_random_start_each_trial_is_a_unit(write, control):
    found = compared(control([30.0, 31.0, 30.4]), write("moco", A))
    theirs = stats.ttest_ind([np.mean(x) for x in A], [30.0, 31.0, 30.4], equal_var=False)
    assert found.differences["bbox/AP"].p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.differences["bbox/AP"].fine_tunings == ((1, 1, 1), (3, 3, 3))


def test_a_fine_tuning_without_a_value_is_counted_out(write):
    b = [B[0], B[1], (59.0, math.nan)]
    found = compared(write("moco", A), write("setsim", b))
    assert found.differences["bbox/AP"].fine_tunings[1] == (3, 3, 1)
    assert found.left_out["bbox/AP"] == "setsim has no value in 1 of 8 trials"


SIMULATIONS, BETWEEN, WITHIN = 2000, 1.0, 0.5


def simulated(pretrainings, fine_tunings, generator):
    """A method without any effect: its pretrainings differ, and so do their fine-tunings."""
    level = generator.normal(0, BETWEEN, (pretrainings, 1))
    return 50 + level + generator.normal(0, WITHIN, (pretrainings, fine_tunings))


def test_a_difference_that_is_none_is_found_as_seldom_as_said():
    """5 % of 2,000 comparisons, and not more; by trials it would be far more."""
    generator, by_pretraining, by_trial, alone = np.random.default_rng(5), 0, 0, 0
    for _ in range(SIMULATIONS):
        a, b = (simulated(3, 5, generator) for _ in range(2))
        by_pretraining += between(a.mean(1), b.mean(1)).p < 0.05
        by_trial += welch(a.ravel(), b.ravel()).p < 0.05
        alone += between(simulated(5, 1, generator).ravel(), a.mean(1)[:1]).p < 0.05
    most = stats.binom.ppf(0.9999, SIMULATIONS, 0.05)
    assert by_pretraining <= most and alone <= most
    assert by_pretraining > 0.01 * SIMULATIONS  # it can find something
    assert by_trial > 0.3 * SIMULATIONS


# ------------------------------------------------------------------------------ power


@pytest.mark.parametrize(("n_a", "n_b"), [(2, 2), (3, 3), (3, 5), (1, 4), (12, 12)])
def test_the_least_difference_has_a_power_of_80_per_cent(n_a, n_b):
    least = power.smallest_difference(n_a, n_b, 0.7)
    degrees = n_a + n_b - 2
    shift, t = least / (0.7 * math.sqrt(1 / n_a + 1 / n_b)), stats.t.ppf(0.975, degrees)
    theirs = stats.nct.sf(t, degrees, shift) + stats.nct.cdf(-t, degrees, shift)
    assert theirs == pytest.approx(0.8, abs=1e-9)
    assert power.power(least, n_a, n_b, 0.7) == pytest.approx(theirs, abs=1e-9)
    assert power.power(0.0, n_a, n_b, 0.7) == pytest.approx(0.05)


def test_the_power_is_that_of_simulated_pretrainings():
    least = power.smallest_difference(3, 3, 2.0)
    generator = np.random.default_rng(1)
    a, b = (generator.normal(mean, 2.0, (20_000, 3)) for mean in (0.0, least))
    seen = (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert seen == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20_000))


def test_compare_and_tables_say_what_cannot_be_seen(tmp_path, write):
    found = compared(write("moco", A), write("setsim", B))
    a, b = ([statistics.fmean(each) for each in side] for side in (A, B))
    deviation = math.sqrt((statistics.variance(a) + statistics.variance(b)) / 2)
    least = power.smallest_difference(3, 3, deviation)
    assert found.differences["bbox/AP"].detectable == pytest.approx(least)
    assert f"With 3 pretrainings a difference below {least:.2f} AP cannot be seen" in verdict(found)
    (table,) = tables(tmp_path)
    assert any(f"below {least:.1f} AP cannot be seen" in note for note in table.notes)
    assert any("Cluster bootstrap" in line for line in remarks(found))


def test_nothing_can_be_reckoned_without_a_deviation():
    assert power.smallest_difference(1, 1, 1.0) is None
    assert power.smallest_difference(3, 3, 0.0) is None
    assert power.smallest_difference(3, 3, math.nan) is None


# ------------------------------------------------------------------------------ controls


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == []


NOISE = ((30.2, 30.5), (30.9, 30.1), (31.4, 31.6))


def test_a_row_that_is_not_distinguishable_says_so_and_keeps_its_number_in_csv(
    tmp_path, write, control
):
    values = (30.0, 31.2, 30.4)
    control(values)
    write("moco", NOISE)
    write("setsim", B)
    (table,) = tables(tmp_path, baseline="random")
    ps = [
        stats.ttest_ind([np.mean(x) for x in each], values, equal_var=False).pvalue
        for each in (NOISE, B)
    ]
    p = max(ps)  # the greater of two is Holm's as it is
    for form in ("md", "html", "latex", "terminal"):
        text = FORMATS[form]([table])
        assert text.count("distinguishable") == 2 and f"(p = {p:.2f})" in text  # and a note
        assert "30.8 ±" not in text and "58.2 ±" in text.replace("$\\pm$", "±")
    assert f"not distinguishable from random (p = {p:.2f})" in FORMATS["md"]([table])
    lines = lines_of([table])
    moco, setsim = lines["moco", "bbox/AP"], lines["setsim", "bbox/AP"]
    assert float(moco["mean"]) == pytest.approx(np.mean(NOISE)) and moco["control"] == "random"
    assert float(moco["p_control"]) == pytest.approx(ps[0], rel=1e-9)
    assert float(setsim["p_control_holm"]) == pytest.approx(2 * ps[1], rel=1e-9)
    assert lines["random", "bbox/AP"]["p_control"] == ""
    best = {row.method: row.cells["bbox/AP"].best for row in table.rows}
    assert best == {"random": False, "moco": False, "setsim": True}


def test_of_two_controls_the_nearer_counts_whatever_a_label_calls_it(tmp_path, write, control):
    control((20.0, 20.5, 20.2), method="Random init.")
    control((30.0, 31.2, 30.4), "random_bn", method="data's statistics")
    write("moco", NOISE)
    (table,) = tables(tmp_path)
    assert "not distinguishable from random_bn (p =" in FORMATS["md"]([table])
    assert [row.control for row in table.rows] == ["", "random", "random_bn"]


def test_one_pretraining_is_tested_as_one_more_network(tmp_path, write, control):
    values = (30.0, 31.2, 30.4)
    control(values)
    write("moco", [(32.0, 32.1, 31.9, 32.0)])  # its fine-tunings agree; networks do not
    (table,) = tables(tmp_path)
    t = (32.0 - np.mean(values)) / (np.std(values, ddof=1) * math.sqrt(1 + 1 / 3))
    chance = table.rows[1].cells["bbox/AP"].chance
    assert chance.p == pytest.approx(2 * stats.t.sf(t, 2), rel=1e-9) and chance.p > 0.05
    assert table.rows[1].cells["bbox/AP"].hidden


def test_with_one_trial_of_the_control_nothing_is_tested_and_that_is_said(tmp_path, write, control):
    control([30.0])
    write("moco", [(30.1, 30.2)])
    (table,) = tables(tmp_path)
    assert "30.1 ±" in FORMATS["md"]([table]) and "p_control" not in FORMATS["csv"]([table])
    assert any("No row could be tested against random" in note for note in table.notes)


def test_numbers_that_are_all_equal_are_not_distinguishable(tmp_path, write, control):
    control((0.0, 0.0))
    write("moco", [(0.0, 0.0)])
    text = FORMATS["md"](tables(tmp_path))
    assert "not distinguishable from random (p = 1.00)" in text
    assert "With 2 trials of a control" in text


def test_the_main_metric_of_a_task_decides_for_its_columns(tmp_path, write, control):
    def metrics(box, mask):
        return {"bbox/AP": box, "bbox/AP50": box + 25, "segm/AP": mask}

    control([metrics(30.0, 20.0), metrics(31.2, 20.5), metrics(30.4, 20.2)])
    write("moco", [[metrics(x, 30 + x / 10) for x in each] for each in NOISE])
    (table,) = tables(tmp_path)
    row = next(line for line in FORMATS["md"]([table]).splitlines() if line.startswith("| moco"))
    box, box50, mask = row.split(" | ")[-3:]
    assert box.startswith("not distinguishable") and box50 == "–" and mask.startswith("**33.1")
    html = FORMATS["html"]([table])
    assert 'colspan="2">not distinguishable' in html


def test_single_classes_are_not_tested(tmp_path, write, control):
    control([{"bbox/AP": 30.0, "bbox/AP-cat": x} for x in (9.0, 12.0, 10.0)])
    write("moco", [[{"bbox/AP": 50.0, "bbox/AP-cat": 10.5}] * 2])
    (table,) = per_class.build(results.collect([tmp_path]))
    assert not any(cell.hidden for row in table.rows for cell in row.cells.values())
