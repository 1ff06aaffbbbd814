"""``densessl compare``: the statistics against scipy's and by hand, the words, what is refused."""

import json
import math

import pytest
import yaml
from scipy import stats

from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.compare import main as verb
from densessl.d2_transfer.compare.comparison import compare
from densessl.d2_transfer.compare.render import FORMATS
from densessl.d2_transfer.compare.words import points, verdict
from densessl.d2_transfer.tables.spread import mean_and_deviation, t_interval
from densessl.d2_transfer.tables.t_test import paired, welch

A = (56.1, 56.4, 55.9, 56.6, 56.2)
B = (56.9, 57.3, 56.4, 57.7, 56.8)


@pytest.fixture
def trials(tmp_path):
    """A function that writes the records of a model's trials and returns their folder."""

    def write(folder, values, seeds=None, config=None, metric="bbox/AP", **changes):
        for nth, value in enumerate(values):
            seed = seeds[nth] if seeds else nth + 1
            own = {"SEED": seed, "SOLVER": {"BASE_LR": 0.02}} | (config or {})
            known = {
                "method": folder,
                "weights": {"path": folder, "sha256": folder.encode().hex().ljust(64, "0")},
                "pretrain": {},
                "protocol": "voc_det_c4",
                "variant": "",
                "metrics": value if isinstance(value, dict) else {metric: value},
                "config_sha256": results.config_fingerprint(own),
                "versions": {},
                "started": results.now(),
                "finished": results.now(),
            }
            place = tmp_path / folder / changes.get("variant", "") / f"trial_{seed}"
            results.save(place, results.Record(**(known | changes), seed=seed))
            (place / "config.yaml").write_text(yaml.safe_dump(own))
        return str(tmp_path / folder)

    return write


def compared(a, b, **options):
    return compare((a, b), (results.collect([a]), results.collect([b])), **options)


def test_trials_of_two_versions_of_detectron2_compare_until_an_option_differs(trials):
    """The official main has options that 0.5 lacks; at 0.5's behaviour they are no difference."""
    ours = trials("a", A, versions={"detectron2": "0.5"})
    mains = {"FLOAT32_PRECISION": "", "DATALOADER": {"REPEAT_SQRT": True}}
    theirs = trials("b", B, config=mains, versions={"detectron2": "0.6"})
    assert compared(ours, theirs).differences["bbox/AP"].mean == pytest.approx(
        sum(B) / len(B) - sum(A) / len(A)
    )
    kept = {record.versions["detectron2"] for record in results.collect([ours, theirs])}
    assert kept == {"0.5", "0.6"}
    other = trials("c", B, config={"FLOAT32_PRECISION": "high"}, versions={"detectron2": "0.6"})
    with pytest.raises(InputError) as caught:
        compared(ours, other)
    assert "FLOAT32_PRECISION is (absent) and high" in str(caught.value)
    assert "Detectron2 0.5 and 0.6" in str(caught.value)


def test_paired_is_scipys_and_the_tables_interval():
    found, theirs = paired(A, B), stats.ttest_rel(B, A)
    low, high = theirs.confidence_interval(0.95)
    assert found.t == pytest.approx(theirs.statistic, rel=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.interval == pytest.approx((low, high), rel=1e-9)
    differences = [b - a for a, b in zip(A, B, strict=True)]
    assert found.interval == pytest.approx(t_interval(*mean_and_deviation(differences), 5))


@pytest.mark.parametrize("b", [B, B[:3], (50.0, 60.0)])
def test_welch_is_scipys(b):
    found, theirs = welch(A, b), stats.ttest_ind(b, A, equal_var=False)
    low, high = theirs.confidence_interval(0.95)
    assert found.t == pytest.approx(theirs.statistic, rel=1e-12)
    assert found.degrees == pytest.approx(theirs.df, rel=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.interval == pytest.approx((low, high), rel=1e-9)


def test_paired_by_hand():
    found = paired((56.0, 57.0, 58.0), (57.0, 57.5, 59.5))  # differences 1, 0.5, 1.5
    assert (found.mean, found.pairs, found.degrees) == (1.0, 3, 2)
    assert found.effect == pytest.approx(2.0)  # 1 / 0.5
    t = 2 * math.sqrt(3)
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))  # two degrees have this form
    assert found.interval == pytest.approx(
        (1 - 4.302653 * 0.5 / 3**0.5, 1 + 4.302653 * 0.5 / 3**0.5)
    )


def test_welch_by_hand():
    found = welch((1.0, 2.0, 3.0), (4.0, 6.0, 8.0))  # variances 1 and 4
    assert (found.mean, found.pairs) == (4.0, None)
    assert found.t == pytest.approx(4 / math.sqrt(1 / 3 + 4 / 3))
    assert found.degrees == pytest.approx((5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2))
    assert found.effect == pytest.approx(4 / math.sqrt((2 * 1 + 2 * 4) / 4))


@pytest.mark.parametrize("test", [paired, welch])
def test_values_without_a_spread_have_no_test(test):
    equal = test((57.0, 57.0), (57.0, 57.0))
    assert equal.mean == 0 and equal.without_spread
    assert (equal.interval, equal.p, equal.effect) == (None, None, None)
    apart = test((57.1, 57.1, 57.1), (57.4, 57.4, 57.4))
    assert apart.mean == pytest.approx(0.3) and apart.without_spread and apart.p is None


def test_a_spread_of_rounding_alone_is_none():
    a = (56.1, 57.2, 58.3)
    found = paired(a, [value + 0.1 for value in a])
    assert found.without_spread and found.p is None
    assert not welch(a, [value + 0.1 for value in a]).without_spread


def test_one_value_has_no_test():
    for found in (paired((1.0,), (2.0,)), welch((1.0,), (2.0, 3.0))):
        assert found.interval is None and found.p is None and not found.without_spread


@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "pairs"),
    [
        ((1, 2, 3, 4, 5), (5, 4, 3, 2, 1), 5),
        ((1, 2, 3, 4, 5), (2, 3, 4, 5, 6), 4),
        ((1, 2, 3, 4, 5), (1, 2, 3), 3),
        ((1, 2, 3, 4, 5), (1, 2), None),  # three of A's would be thrown away
        ((1, 2, 3), (11, 12, 13), None),
    ],
)
def test_trials_are_paired_by_seed_where_most_have_a_partner(trials, seeds_a, seeds_b, pairs):
    of_a = {seed: 50 + seed**2 / 7 for seed in seeds_a}
    of_b = {seed: 51 + seed**1.5 / 3 for seed in seeds_b}
    found = compared(
        trials("moco", list(of_a.values()), seeds_a), trials("setsim", list(of_b.values()), seeds_b)
    )
    difference = found.differences["bbox/AP"]
    common = sorted(set(seeds_a) & set(seeds_b))
    assert difference.pairs == pairs
    if pairs:
        theirs = stats.ttest_rel([of_b[s] for s in common], [of_a[s] for s in common])
        alone = sorted(set(seeds_a) ^ set(seeds_b))
        assert found.left_out["bbox/AP"] == (
            f"no partner for seed {', '.join(map(str, alone))}" if alone else ""
        )
    else:
        theirs = stats.ttest_ind(list(of_b.values()), list(of_a.values()), equal_var=False)
        assert found.left_out["bbox/AP"] == ""
    assert difference.p == pytest.approx(theirs.pvalue, rel=1e-9)


def test_a_trial_without_a_value_does_not_count(trials):
    found = compared(trials("moco", A), trials("setsim", [*B[:4], math.nan]))
    assert found.differences["bbox/AP"].pairs == 4
    assert found.left_out["bbox/AP"] == "setsim has no value with seed 5; no partner for seed 5"


def test_the_main_metric_is_the_protocols_or_the_first_named(trials):
    values = [
        {"bbox/AP75": a + 6, "bbox/AP": a, "bbox/APs": a - 30, "bbox/AP50": a + 25} for a in A
    ]
    folders = trials("moco", values), trials("setsim", values)
    assert list(compared(*folders).differences) == ["bbox/AP", "bbox/AP50", "bbox/AP75"]
    named = compared(*folders, metrics=["bbox/APs", "bbox/AP"])
    assert named.main == "bbox/APs" and list(named.differences) == ["bbox/APs", "bbox/AP"]


def test_words_of_a_difference_that_the_spread_does_not_explain(trials):
    text = verdict(compared(trials("moco", A), trials("setsim", B)))
    low, high = paired(A, B).interval
    assert text == (
        "setsim is 0.78 points of bbox/AP above moco (57.02 against 56.24). With five trials each, "
        f"paired by seed, the 95 % interval is {low:.2f} to {high:.2f}, so the trials' spread does "
        "not explain the difference (p = 0.002). It is the difference between these two pretrained "
        "models, not between methods: it says nothing about other pretraining runs."
    )


def test_words_of_a_difference_that_may_be_chance(trials):
    text = verdict(compared(trials("a", (56.0, 57.0, 58.0)), trials("b", (57.0, 55.0, 57.5))))
    assert "b is 0.50 points of bbox/AP below a (56.50 against 57.00)" in text
    assert "is −4.23 to 3.23, which holds 0: the trials' spread may explain" in text
    assert "does not show that the two are equal" in text


def test_words_of_welchs_test(trials):
    a, b = trials("a", A, (1, 2, 3, 4, 5)), trials("b", B[:3], (11, 12, 13))
    assert "With five and three trials the 95 % interval is" in verdict(compared(a, b))


def test_words_where_nothing_can_be_said(trials):
    one = trials("one", [57.0])
    text = verdict(compared(one, trials("other", [58.0])))
    assert "Nothing can be said of chance: one trial of one and one of other has no spread" in text
    text = verdict(compared(one, trials("five", B)))
    assert "one trial of one has no spread" in text and "interval" not in text
    equal = verdict(compared(trials("x", (5.0, 5.0)), trials("y", (5.0, 5.0))))
    assert (
        "same bbox/AP in the mean, 5.00. Each trial equals its partner: there is nothing" in equal
    )
    shifted = verdict(compared(trials("v", (5.0, 6.0)), trials("w", (6.0, 7.0))))
    assert "Every pair differs by as much" in shifted and "p =" not in shifted


def test_words_of_a_protocol_without_chance(trials):
    knn = {"metric": "knn/top1", "protocol": "knn", "variant": "last"}
    text = verdict(compared(trials("dino", [64.0], **knn), trials("scfs", [65.5], **knn)))
    assert "1.50 points" in text and "trials of this protocol do not differ" in text
    assert "--trials" not in text


def test_numbers_have_a_true_minus_and_no_minus_zero():
    assert [points(-1.234), points(-0.001), points(0.5, "+"), points(-0.5, "+")] == [
        "−1.23",
        "0.00",
        "+0.50",
        "−0.50",
    ]


def test_two_models_of_one_method_are_called_by_their_folders(trials):
    found = compared(trials("run1", A, method="setsim"), trials("run2", B, method="setsim"))
    assert (found.a.name, found.b.name) == ("run1", "run2")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"SOLVER": {"BASE_LR": 0.1}}}, "SOLVER.BASE_LR is 0.02 and 0.1"),
        ({"mini": True}, "is a miniature and"),
        ({"protocol": "coco_mask_c4_1x"}, "no protocol and variant in common"),
        ({"variant": "other"}, "no protocol and variant in common"),
    ],
)
def test_what_does_not_compare_is_refused(trials, changes, said):
    with pytest.raises(InputError, match=said):
        compared(trials("moco", A), trials("setsim", B, **changes))


def test_mixed_configs_and_models_within_a_folder_are_refused(trials, tmp_path):
    other = trials("setsim", B)
    trials("moco", A[:2])
    trials("moco", A[:1], (9,), config={"SOLVER": {"BASE_LR": 0.1}})
    with pytest.raises(InputError, match="not run with one config"):
        compared(str(tmp_path / "moco"), other)
    trials("densecl", A)
    with pytest.raises(InputError, match="holds trials of 3 models"):
        compared(str(tmp_path), other)


def test_the_same_trials_twice_are_refused(trials, tmp_path):
    folder = trials("moco", A)
    with pytest.raises(InputError, match="hold the same trials"):
        compared(folder, str(tmp_path / "moco" / ".." / "moco"))


def test_a_variant_is_named_where_there_are_several(trials):
    for model, values in (("moco", A), ("setsim", B)):
        for variant in ("moco2fc", "4conv1fc"):
            folder = trials(model, values, variant=variant, protocol="coco_mask_fpn_1x")
    a, b = folder.replace("setsim", "moco"), folder
    with pytest.raises(InputError, match="moco2fc, .*--variant|4conv1fc, .*--variant"):
        compared(a, b)
    assert compared(a, b, variant="4conv1fc").variant == "4conv1fc"
    with pytest.raises(InputError, match="Did you mean '4conv1fc'"):
        compared(a, b, variant="4conv1f")
    with pytest.raises(InputError, match="Did you mean 'coco_mask_fpn_1x'"):
        compared(a, b, protocol="coco_mask_fpn_2x")


def test_the_one_variant_that_both_have_is_taken(trials):
    of = {"protocol": "coco_mask_fpn_1x"}
    a = trials("moco", A, variant="moco2fc", **of)
    trials("setsim", B, variant="moco2fc", **of)
    b = trials("setsim", B, variant="4conv1fc", **of)
    assert compared(a, b).variant == "moco2fc"


def test_unknown_and_undefined_metrics(trials):
    a, b = trials("moco", A), trials("setsim", [math.nan] * 5)
    with pytest.raises(InputError, match="Did you mean 'bbox/AP'"):
        compared(a, trials("ok", B), metrics=["bbox/ap"])
    with pytest.raises(InputError, match="undefined in every trial of setsim"):
        compared(a, b)


def test_a_metric_beside_the_main_one_that_a_side_has_not_is_said(trials):
    values = [{"bbox/AP": value, "bbox/AP50": value + 25} for value in A]
    without = [{"bbox/AP": value, "bbox/AP50": math.nan} for value in B]
    found = compared(trials("moco", values), trials("setsim", without))
    assert list(found.differences) == ["bbox/AP"]
    assert found.left_out["bbox/AP50"] == "undefined in every trial of setsim"
    for write in FORMATS.values():
        assert "bbox/AP50" in write(found) and "NaN" not in write(found)
    with pytest.raises(InputError, match="bbox/AP50.*undefined.* of d; --metric bbox/AP names"):
        compared(trials("c", values), trials("d", without), metrics=["bbox/AP50", "bbox/AP"])


def test_formats(trials):
    values = [{"bbox/AP": value, "bbox/AP50": value + 25} for value in A]
    better = [{"bbox/AP": value, "bbox/AP50": 81.0} for value in B]
    found = compared(trials("moco", values), trials("set_sim", better, method="set*sim"))
    texts = {name: write(found) for name, write in FORMATS.items()}
    told = json.loads(texts["json"])
    assert told["metrics"]["bbox/AP"]["p"] == pytest.approx(stats.ttest_rel(B, A).pvalue)
    assert told["a"]["seeds"] == [1, 2, 3, 4, 5] and told["main_metric"] == "bbox/AP"
    assert told["verdict"] == verdict(found)
    assert "| bbox/AP | 56.24 | 57.02 | +0.78 |" in texts["md"]
    assert "set\\*sim" in texts["md"] and "no Holm correction" in texts["md"]
    row = next(line for line in texts["terminal"].splitlines() if line.startswith("bbox/AP "))
    assert row.split()[1:4] == ["56.24", "57.02", "+0.78"] and row.endswith("5")
    assert max(map(len, texts["terminal"].split("\n\n", 2)[2].splitlines())) <= 88


def test_json_of_what_was_not_tested_is_null(trials):
    found = compared(trials("a", [57.0]), trials("b", [58.0]))
    metric = json.loads(FORMATS["json"](found))["metrics"]["bbox/AP"]
    assert metric["mean"] == 1.0 and metric["interval"] is None and metric["p"] is None


def test_the_verb_writes_and_refuses(trials, tmp_path, capsys):
    a, b = trials("moco", A), trials("setsim", B)
    assert verb.main([a, b]) == 0
    assert capsys.readouterr().out.startswith("### voc_det_c4\n")
    assert verb.main([a, b, "-o", str(tmp_path / "out" / "c.json")]) == 0
    assert json.loads((tmp_path / "out" / "c.json").read_text())["protocol"] == "voc_det_c4"
    with pytest.raises(InputError, match="'.jsn' names no format.*Allowed: .txt, .md, .json"):
        verb.main([a, b, "-o", "c.jsn"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no trial_<k>/result.json in or below"):
        verb.main([a, str(tmp_path / "empty")])
    with pytest.raises(InputError, match="no such folder"):
        verb.main([a, str(tmp_path / "nowhere")])


def test_a_damaged_record_is_skipped_and_named(trials, tmp_path, capsys):
    a, b = trials("moco", A), trials("setsim", B)
    (tmp_path / "setsim" / "trial_5" / "result.json").write_text("{")
    assert verb.main([a, b]) == 0
    out, said = capsys.readouterr()
    assert "no partner for seed 5" in out
    assert "skipped: " in said and "trial_5" in said
