"""The papers' figures: which records become which points, and what is not drawn."""

import math

import pytest
import yaml

from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.plots import drawing, layers, main, options, sweeps
from densessl.d2_transfer.plots.model import in_legend
from densessl.d2_transfer.plots.trials import Choice

IN100 = {"dataset": "imagenet/train (imagenet100)", "images": 126689, "epochs": 200.0}


@pytest.fixture
def model(tmp_path):
    """A function that writes the trials of one pretrained model, one for each dict of metrics."""

    def write(folder, metrics, pretrain=None, config=None, seeds=None, **changes):
        for nth, values in enumerate(metrics):
            seed = seeds[nth] if seeds else nth + 1
            own = {"SEED": seed, "KNN": {"K": 20}} | (config or {})
            known = {
                "method": "setsim",
                "weights": {"path": folder, "sha256": folder.encode().hex().ljust(64, "0")},
                "protocol": "voc_det_c4",
                "variant": "",
                "config_sha256": results.config_fingerprint(own),
                "versions": {},
                "started": results.now(),
                "finished": results.now(),
            }
            place = tmp_path / folder / f"trial_{seed}"
            record = results.Record(
                **(known | changes), seed=seed, metrics=values, pretrain=pretrain or {}
            )
            results.save(place, record)
            (place / "config.yaml").write_text(yaml.safe_dump(own))

    return write


def ap(*values):
    return [{"bbox/AP": value, "bbox/AP50": value + 25} for value in values]


def setsim(value):
    name = "" if value == 7 else f"_threshold0{value}"
    return IN100 | {"config_name": [f"setsim{name}_r50_in100_200ep"]}


def scfs(count):
    name = "" if count == 8 else f"_crops{count:02d}"
    return IN100 | {"config_name": [f"scfs{name}_r50_in100_200ep"]}


def threshold(tmp_path, **choice):
    return sweeps.threshold(results.collect([tmp_path]), Choice(**choice))


def points(line):
    return dict(zip(line.x, line.y, strict=True))


def test_thresholds_come_from_the_config_that_a_record_names(tmp_path, model):
    model("a", ap(54.0, 56.0), setsim(1))
    model("b", ap(56.0), setsim(7))
    ours = threshold(tmp_path).panels[0].lines[0]
    assert points(ours) == {0.1: 55.0, 0.7: 56.0} and ours.counts == [2, 1]
    assert ours.low == pytest.approx([55 - math.sqrt(2), math.nan], nan_ok=True)
    assert ours.label == "setsim" and not ours.published


def test_a_fact_of_the_record_goes_before_the_configs_name(tmp_path, model):
    model("a", ap(54.0), setsim(1) | {"setsim_threshold": 0.35})
    model("b", ap(56.0), {"setsim_threshold": 0.7} | IN100, method="other")
    lines = threshold(tmp_path).panels[0].lines
    assert [points(line) for line in lines] == [{0.35: 54.0}, {0.7: 56.0}]
    assert [line.label for line in lines] == ["setsim", "other"]


def test_a_run_of_ones_own_options_is_told_by_the_fact(tmp_path, model):
    for value in (0.2, 0.5):
        facts = {"dataset": "mine", "config_name": [], "setsim_threshold": value}
        model(f"t{value}", ap(50.0 + value), facts)
    (line,) = threshold(tmp_path).panels[0].lines
    assert points(line) == {0.2: 50.2, 0.5: 50.5} and line.label == "setsim"


def test_a_run_that_papers_name_twice_is_one_model(tmp_path, model):
    names = ["setsim_r50_in100_200ep_of_another_table", "setsim_r50_in100_200ep"]
    model("a", ap(56.0), IN100 | {"config_name": names})
    model("b", ap(55.0), setsim(1))
    ours = threshold(tmp_path).panels[0].lines[0]
    assert points(ours) == {0.1: 55.0, 0.7: 56.0}


def test_published_differences_stand_on_our_trials_at_their_base(tmp_path, model):
    for value, found in ((1, 55.2), (7, 56.0)):
        model(f"t{value}", ap(found - 0.5, found + 0.5), setsim(value))
    ours, published = threshold(tmp_path).panels[0].lines
    assert published.published and "published" in published.label
    assert points(published) == pytest.approx({0.1: 56.0 - 1.13, 0.9: 56.0 - 0.35})
    assert len(threshold(tmp_path, metric="bbox/AP50").panels[0].lines) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrain": {"dataset": "coco/train2017", "images": 118287}},
        {"pretrain": {"epochs": 100.0}},
        {"mini": True},
        {"protocol": "coco_mask_c4_1x"},
    ],
)
def test_nothing_published_stands_beside_what_is_not_the_papers(tmp_path, model, changes):
    for value in (1, 7):
        facts = setsim(value) | changes.get("pretrain", {})
        model(
            f"t{value}",
            ap(55.0 + value),
            facts,
            **{k: v for k, v in changes.items() if k != "pretrain"},
        )
    assert [line.published for line in threshold(tmp_path).panels[0].lines] == [False]


def test_without_records_the_published_differences_alone():
    plot = sweeps.threshold([], Choice())
    (line,) = plot.panels[0].lines
    assert points(line) == {0.1: -1.13, 0.7: 0.0, 0.9: -0.35} and line.published
    assert "minus AP at 0.7" in plot.panels[0].y_label and "no record of ours" in plot.notes[0]


def test_other_data_is_another_line(tmp_path, model):
    for value in (1, 7):
        model(f"a{value}", ap(55.0 + value), setsim(value))
        model(f"b{value}", ap(50.0 + value), setsim(value) | {"dataset": "coco", "images": 9})
    ours = [line for line in threshold(tmp_path).panels[0].lines if not line.published]
    assert [points(line) for line in ours] == [{0.1: 56.0, 0.7: 62.0}, {0.1: 51.0, 0.7: 57.0}]
    assert ours[1].label == "setsim_r50_in100_200ep, coco, 200 epochs"


def test_a_series_of_one_point_is_left_out_beside_a_sweep(tmp_path, model, caplog):
    for value in (1, 7):
        model(f"t{value}", ap(55.0), setsim(value))
    model("geo", ap(55.2), IN100 | {"config_name": ["setsim_geo_r50_in100_200ep"]})
    with caplog.at_level("WARNING", "densessl"):
        lines = threshold(tmp_path).panels[0].lines
    assert len([line for line in lines if not line.published]) == 1
    assert "setsim_geo_r50_in100_200ep" in caplog.text and "left out" in caplog.text


def test_two_models_with_one_value_are_refused(tmp_path, model):
    model("a", ap(55.0), setsim(1))
    model("b", ap(55.5), setsim(1))
    with pytest.raises(InputError, match="have SETSIM.THRESHOLD 0.1: .*a.* and .*b"):
        threshold(tmp_path)


def test_records_that_do_not_tell_are_left_out_and_counted(tmp_path, model, caplog):
    model("a", ap(55.0), setsim(1))
    model("b", ap(54.0, 54.1), IN100 | {"config_name": ["moco_v2_r50_in100_200ep"]}, method="moco")
    with caplog.at_level("WARNING", "densessl"):
        assert len(threshold(tmp_path).panels[0].lines) == 1
    assert "2 of 3 records are left out" in caplog.text
    with pytest.raises(InputError, match="no record tells VIEWS.LOCAL_CROPS"):
        sweeps.crops([r for r in results.collect([tmp_path]) if r.method == "setsim"], Choice())


@pytest.mark.parametrize("name", ["../pretrain/setsim_paper", "/etc/passwd", "setsim.yaml", ""])
def test_a_records_text_is_never_a_path(name):
    assert options.built_in(name) == {}


def test_configs_are_read_with_what_they_stand_on():
    assert options.built_in("setsim_r50_in100_200ep")["SETSIM.THRESHOLD"] == 0.7
    assert options.built_in("setsim_threshold03_r50_in100_200ep")["SETSIM.THRESHOLD"] == 0.3
    assert options.built_in("scfs_r50_in100_200ep")["VIEWS.LOCAL_CROPS"] == 8
    assert "SETSIM.THRESHOLD" not in options.built_in("moco_v2_r50_in100_200ep")


def test_trials_that_do_not_compare_are_refused(tmp_path, model):
    model("a", ap(55.0), setsim(1))
    model("b", ap(55.0), setsim(7), mini=True)
    with pytest.raises(InputError, match="is a miniature and"):
        threshold(tmp_path)


def test_a_protocol_is_named_where_the_usual_one_is_not_there(tmp_path, model):
    model("a", ap(55.0), setsim(1), protocol="coco_mask_c4_1x")
    model("b", ap(55.0), setsim(7), protocol="coco_mask_c4_2x")
    with pytest.raises(InputError, match="coco_mask_c4_1x, coco_mask_c4_2x; name one"):
        threshold(tmp_path)
    panel = threshold(tmp_path, protocol="coco_mask_c4_2x").panels[0]
    assert panel.y_label == "bbox/AP (coco_mask_c4_2x)" and points(panel.lines[0]) == {0.7: 55.0}
    with pytest.raises(InputError, match="Did you mean 'coco_mask_c4_2x'"):
        threshold(tmp_path, protocol="coco_mask_c4_2xx")


def test_points_under_other_configs_are_said_to_be(tmp_path, model, caplog):
    model("a", ap(55.0), setsim(1))
    model("b", ap(56.0), setsim(7), config={"SOLVER": {"BASE_LR": 0.1}})
    with caplog.at_level("WARNING", "densessl"):
        assert "not all measured under one config" in threshold(tmp_path).notes
    assert "SOLVER.BASE_LR" in caplog.text
    model("a", ap(55.0), setsim(1), config={"SOLVER": {"BASE_LR": 0.1}}, seeds=[9])
    with pytest.raises(InputError, match="not run with one config"):
        threshold(tmp_path)


def test_crops_are_a_line_over_their_number(tmp_path, model):
    for count, top1 in ((0, 79.7), (2, 82.0), (8, 84.8), (10, 84.9)):
        model(
            f"c{count}",
            [{"knn/top1": top1, "knn/top5": 95.0}],
            scfs(count),
            method="scfs",
            protocol="knn",
            variant="last",
        )
    plot = sweeps.crops(results.collect([tmp_path]), Choice())
    (line,) = plot.panels[0].lines
    assert points(line) == {0: 79.7, 2: 82.0, 8: 84.8, 10: 84.9}
    assert (plot.panels[0].x_label, plot.panels[0].y_label) == (
        "local crops",
        "knn/top1 (knn, last)",
    )
    assert (line.low, plot.notes) == ([], [])


def test_dino_and_scfs_are_a_line_each_down_to_no_local_crops(tmp_path, model):
    """Without local crops they are Table 7's "w/o MC", which a record names, too."""
    for method in ("dino", "scfs"):
        for count, top1 in ((0, 79.7), (4, 82.0), (8, 84.8)):
            name = "" if count == 8 else f"_crops{count:02d}"
            names = [f"{method}{name}_r50_in100_200ep"]
            names += [f"{method}_wo_mc_r50_in100_200ep"] if count == 0 else []
            facts = IN100 | {"config_name": names, "local_crops": count}
            values = [{"knn/top1": top1, "knn/top5": 95.0}]
            how = {"method": method, "protocol": "knn", "variant": "last"}
            model(f"{method}{count}", values, facts, **how)
    lines = sweeps.crops(results.collect([tmp_path]), Choice()).panels[0].lines
    assert [line.label for line in lines] == ["dino", "scfs"]
    assert all(points(line) == {0: 79.7, 4: 82.0, 8: 84.8} for line in lines)


def stages(*top1, k=(10, 20), names=("res2", "res3", "res4", "res5")):
    found = {"knn/top1": top1[-1], "knn/top5": 99.0}
    for stage, value in zip(names, top1, strict=True):
        for each in k:
            found[f"knn/top1_{stage}_k{each}"] = value - each / 100
            found[f"knn/top5_{stage}_k{each}"] = value + 5
    return found


KNN = {"protocol": "knn", "variant": "stages"}


def test_an_undefined_point_is_a_gap_and_said(tmp_path, model, caplog):
    for value, metric in ((1, 54.0), (3, math.nan), (7, 56.0)):
        model(f"a{value}", ap(metric, metric), setsim(value))
    plot = threshold(tmp_path)
    line = plot.panels[0].lines[0]
    assert line.x == [0.1, 0.3, 0.7] and line.y == pytest.approx(
        [54.0, math.nan, 56.0], nan_ok=True
    )
    assert line.counts == [2, 0, 2] and "undefined in every trial at 0.3" in caplog.text
    drawing.draw(plot, tmp_path / "plot.png")
    assert in_legend([line])["setsim"] == "setsim (n = 2)"


def test_a_line_that_is_undefined_is_left_out_and_alone_it_is_an_error(tmp_path, model, caplog):
    for value in (1, 7):
        model(f"nothing{value}", ap(math.nan), setsim(value), method="other")
    with pytest.raises(InputError, match="bbox/AP is undefined in every trial"):
        threshold(tmp_path)
    for value in (1, 7):
        model(f"a{value}", ap(50.0 + value), setsim(value))
    lines = threshold(tmp_path).panels[0].lines
    assert [line.label for line in lines if not line.published] == ["setsim"]
    assert "other" in caplog.text


def by_stage(tmp_path, k=None, **choice):
    return layers.layers(results.collect([tmp_path]), Choice(**choice), k)


def test_layers_are_stages_in_the_networks_order(tmp_path, model):
    model("dino", [stages(30.0, 52.0, 74.0, 81.0)], IN100, method="dino", **KNN)
    model("scfs", [stages(33.0, 60.0, 79.0, 84.8)], IN100, method="scfs", **KNN)
    panel = by_stage(tmp_path).panels[0]
    assert panel.ticks == ("res2", "res3", "res4", "res5")
    assert panel.y_label == "k-NN top-1 (%), k = 20"
    assert {line.label: line.y for line in panel.lines} == {
        "dino": pytest.approx([29.8, 51.8, 73.8, 80.8]),
        "scfs": pytest.approx([32.8, 59.8, 78.8, 84.6]),
    }
    assert by_stage(tmp_path, k=10).panels[0].lines[0].y[0] == pytest.approx(29.9)
    assert by_stage(tmp_path, metric="knn/top5").panels[0].lines[0].y[0] == 35.0
    with pytest.raises(InputError, match="Allowed: knn/top1, knn/top5"):
        by_stage(tmp_path, metric="knn/top")
    with pytest.raises(InputError, match="k is 50, but .* at k = 10, 20"):
        by_stage(tmp_path, k=50)


def test_stages_without_a_defined_accuracy_are_said(tmp_path, model):
    undefined = dict.fromkeys(("knn/top5", "knn/top5_res4_k20", "knn/top5_res5_k20"), math.nan)
    model("few", [undefined | {"knn/top1_res4_k20": 50.0}], IN100, method="few", **KNN)
    with pytest.raises(InputError, match="knn/top5 is undefined at every stage"):
        by_stage(tmp_path, metric="knn/top5")


def test_blocks_of_a_transformer_are_sorted_by_number(tmp_path, model):
    names = ("block12", "block4", "block8")
    model("vit", [stages(74.0, 40.0, 60.0, names=names)], IN100, method="dino", **KNN)
    panel = by_stage(tmp_path).panels[0]
    assert panel.ticks == ("block4", "block8", "block12")
    assert panel.lines[0].y == pytest.approx([39.8, 59.8, 73.8])
    model("r50", [stages(30.0, 52.0, 74.0, 81.0)], IN100, method="scfs", **KNN)
    with pytest.raises(InputError, match="ResNets and of vision transformers"):
        by_stage(tmp_path)


def test_the_ks_default_is_the_records_own(tmp_path, model):
    model("dino", [stages(30.0, 52.0, 74.0, 81.0)], IN100, config={"KNN": {"K": 10}}, **KNN)
    assert by_stage(tmp_path).panels[0].y_label.endswith("k = 10")
    model("scfs", [stages(30.0, 52.0, 74.0, 81.0)], IN100, method="scfs", **KNN)
    with pytest.raises(InputError, match="KNN.K are 10, 20; name one: --k"):
        by_stage(tmp_path)


def test_a_random_start_has_a_spread(tmp_path, model):
    found = [stages(10.0, 11.0, 12.0, 13.0), stages(12.0, 11.0, 12.0, 15.0)]
    model("random", found, method="random", **KNN)
    plot = by_stage(tmp_path, spread="range")
    (line,) = plot.panels[0].lines
    assert line.y == pytest.approx([10.8, 10.8, 11.8, 13.8]) and line.counts == [2] * 4
    assert (line.low[0], line.high[0]) == pytest.approx((9.8, 11.8))
    assert plot.notes == ["points: mean of n trials; bars: minimum to maximum"]


def test_models_of_one_method_are_told_apart(tmp_path, model):
    values = stages(30.0, 52.0, 74.0, 81.0)
    model("a", [values], IN100, method="dino", **KNN)
    model("b", [values], IN100 | {"epochs": 100.0}, method="dino", **KNN)
    labels = [line.label for line in by_stage(tmp_path).panels[0].lines]
    data = "dino, imagenet/train (imagenet100)"
    assert labels == [f"{data}, 200 epochs", f"{data}, 100 epochs"]


def test_records_without_stages_are_refused(tmp_path, model):
    model("a", [{"knn/top1": 64.0, "knn/top1_k20": 64.0}], IN100, protocol="knn", variant="last")
    with pytest.raises(InputError, match="no record has knn/top1 by stage; measure it"):
        by_stage(tmp_path)


def test_the_verb_draws_each(tmp_path, model):
    for value in (1, 7):
        model(f"t{value}", ap(55.0, 55.5 + value), setsim(value))
    model("dino", [stages(30.0, 52.0, 74.0, 81.0)], IN100, method="dino", **KNN)
    for kind in ("threshold", "layers"):
        out = tmp_path / f"{kind}.svg"
        assert main.main([kind, str(tmp_path), "-o", str(out)]) == 0
        assert ("published differences" in out.read_text()) == (kind == "threshold")
    with pytest.raises(InputError, match="--metric is for records"):
        main.main(["threshold", "--metric", "bbox/AP50"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no trial_<k>/result.json in or below"):
        main.main(["layers", str(tmp_path / "empty")])
