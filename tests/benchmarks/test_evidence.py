"""``make evidence``: its pipelines, what its page says of records, and its checks of the data."""

import json
import shutil
import statistics
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.evidence import __main__ as command
from benchmarks.evidence import contrasts, document, lightly_pretrain, measured, shortcuts
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer import results
from densessl.slurm import data, expansion, pipeline
from densessl.slurm.spec import seeds_of

NAMES = ("evidence/scenes", "evidence/photos")


def expanded(name, folder, words=()):
    call = expansion.Call(folder, data.parse(words, folder), gpus=0, local=True)
    return expansion.expand(pipeline.read(name), call)


# ------------------------------------------------------------------------------ the pipelines


@pytest.mark.parametrize("name", NAMES)
def test_the_pipelines_resolve_and_come_seed_by_seed(name, tmp_path):
    words = [] if name.endswith("scenes") else ["photos=a", "camvid=b"]
    jobs = [job.name for job in expanded(name, tmp_path, words).jobs]
    ours = [job for job in jobs if job.startswith("pretrain-")]
    assert len(ours) == 3 * len(measured.METHODS)
    seeds = [job.rpartition("-seed")[2] for job in ours]
    assert seeds == sorted(seeds)
    last_probe = max(place for place, job in enumerate(jobs) if job.endswith("pixpro-seed1"))
    assert last_probe < jobs.index("pretrain-moco_v2-seed2")


def test_both_pipelines_have_one_recipe():
    scenes, photos = (pipeline.read(name) for name in NAMES)

    def recipes(spec):
        return {row.method: (row.pretrain, dict(row.options)) for row in spec.rows if row.pretrain}

    assert recipes(scenes) == recipes(photos)
    assert list(recipes(scenes)) == list(measured.METHODS)
    assert scenes.seeds == photos.seeds


def test_lightly_has_the_recipe_of_our_methods():
    spec = pipeline.read("evidence/scenes")
    ours = next(row.options for row in spec.rows if row.method == "DenseCL")
    for job in (job for job in spec.jobs if job.module == lightly_pretrain.__name__):
        args = lightly_pretrain._parser().parse_args(job.run.replace("$seed", "1").split())
        assert args.steps == int(ours["SOLVER.MAX_STEPS"])
        assert args.batch == int(ours["SOLVER.BATCH_SIZE"])
        scale = args.batch / int(ours["SOLVER.REFERENCE_BATCH"])
        assert args.rate == pytest.approx(float(ours["SOLVER.BASE_LR"]) * scale)
        assert args.decay == float(ours["SOLVER.WEIGHT_DECAY"])
        assert args.size == int(ours["VIEWS.SIZE"])
        assert str(tuple(args.scale)) == ours["VIEWS.SCALE"]
        assert args.queue == int(ours["MOCO.QUEUE"])
        assert args.momentum == float(ours["MOCO.MOMENTUM"])
        assert int(ours["MOCO.HIDDEN"]) == int(ours["DENSE.HIDDEN"]) == lightly_pretrain.HIDDEN
        assert seeds_of(job.seeds) == seeds_of(spec.seeds)


# ------------------------------------------------------------------------------ the statistics


def test_a_contrast_of_equal_groups_of_one_method_each_is_welch_s_test():
    from scipy import stats

    a, b = [1.0, 2.0, 4.0], [3.0, 5.5, 6.0, 7.0]
    found = contrasts.of_methods({"a": a}, {"b": b})
    expected = stats.ttest_ind(b, a, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.mean == pytest.approx(statistics.fmean(b) - statistics.fmean(a))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((interval.low, interval.high))


def test_a_contrast_is_of_the_means_of_methods_and_spread_within_them():
    rng = np.random.default_rng(0)
    a = {name: list(rng.normal(0, 1, 3)) for name in "ab"}
    b = {name: list(rng.normal(10 * place, 1, 3)) for place, name in enumerate("cdef")}
    found = contrasts.of_methods(a, b)
    rows = [*a.values(), *b.values()]
    weights = np.array([-1 / 2] * 2 + [1 / 4] * 4)
    variances = np.array([np.var(row, ddof=1) for row in rows]) / 3 * weights**2
    assert found.mean == pytest.approx(weights @ [np.mean(row) for row in rows])
    assert found.degrees == pytest.approx(variances.sum() ** 2 / (variances**2 / 2).sum())
    half = (found.interval[1] - found.interval[0]) / 2
    assert half < 5  # that dense methods differ by tens from each other is no part of it
    assert contrasts.of_groups(a, b).interval[0] < 0 < contrasts.of_groups(a, b).interval[1]
    assert contrasts.of_methods(a, {}) is None
    assert contrasts.of_methods({"a": [1.0]}, {"b": [2.0, 3.0]}).p is None


# ------------------------------------------------------------------------------ the page


def recorded(folder, probe, place, seed, value):
    record = results.Record(
        method="any",
        weights={"path": "random", "sha256": ""},
        pretrain={},
        protocol=probe,
        variant="",
        seed=seed,
        metrics={measured.METRIC: value},
        config_sha256="0" * 64,
        versions={"torch": "2"},
        started=results.now(),
        finished=results.now(),
    )
    trial = folder / "transfer" / probe / place / f"trial_{seed}"
    trial.mkdir(parents=True)
    results.save(trial, record)


@pytest.fixture
def run(tmp_path):
    """Records of evidence/scenes: by the linear layer dense methods are far above, by the others
    nothing is; lightly's DenseCL is far from ours by the linear layer."""
    spec = pipeline.read("evidence/scenes")
    rng = np.random.default_rng(0)
    for protocol in spec.protocols:
        probe = protocol.folder
        for row in spec.rows:
            if row.protocols and protocol.name not in row.protocols:
                continue
            if row.start:
                for seed in range(1, row.trials + 1):
                    recorded(tmp_path / "scenes", probe, row.start, seed, 20 + rng.normal(0, 0.5))
                continue
            height = 20 + 10 * (probe == "linear" and row.method in measured.DENSE)
            for seed in (1, 2, 3):
                value = height + rng.normal(0, 0.5)
                recorded(tmp_path / "scenes", probe, f"{row.name}-seed{seed}", 1, value)
    return tmp_path


def page(folder, capsys):
    assert command.main([str(folder)]) == 0
    return capsys.readouterr()


def line(text, *words):
    """The first line with all the words."""
    return next(each for each in text.splitlines() if all(word in each for word in words))


def test_the_page_answers_each_measure_with_its_interval(run, capsys):
    said = page(run, capsys)
    text = said.out
    assert said.err == ""
    assert "| **yes** |" in line(text, "| Scenes | linear layer |")
    assert f"| **{document.UNSEEN}** |" in line(text, "| Scenes | clusters |")
    told = line(text, "**linear layer: yes.**")
    assert "12 against 6 pretrainings" in told and "p < 0.001" in told and "interval" in told
    assert "cannot be seen" in line(text, "**clusters: not to be seen")
    sets = measured.read("evidence/scenes", run / "scenes")
    values = sets.values["linear"]["DenseCL"]
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert f"| DenseCL | {mean:.2f} ± {deviation:.2f} |" in text
    assert "not distinguishable" in line(text, "| linear layer | MoCo-v2 | random |")
    assert "not distinguishable" not in line(text, "| linear layer | SCFS | random_bn |")
    assert "above random and random_bn: DenseCL" in line(text, "*Scenes, linear layer*")
    assert "0 of 3 | **differs** |" in line(text, "| lightly DenseCL | linear layer |")
    assert "**differs**" not in line(text, "| lightly MoCo-v2 | linear layer |")
    assert "`SOLVER.MAX_STEPS 600`" in text and "$" not in text
    assert "CAMVID=DIR" in text.partition("## Photographs")[2]


def test_a_method_between_the_random_starts_is_said_to_be_there(run, capsys):
    for number in range(1, 7):
        place = run / "scenes" / "transfer" / "linear" / "random" / f"trial_{number}"
        shutil.rmtree(place)
        recorded(run / "scenes", "linear", "random", number, 40 + number / 10)
    text = page(run, capsys).out
    assert "above random_bn, below random: DenseCL" in line(text, "*Scenes, linear layer*")
    assert "above random and" not in text


def pretrained(folder, name, accuracy, steps=400, **more):
    """The folder of a pretraining with what its last lines say."""
    place = folder / "scenes" / "pretrain" / name
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("METHOD: {NAME: moco}\nSOLVER: {MAX_STEPS: 400}\n")
    lines = [
        {"iteration": step, "stat/accuracy": accuracy, "stat/chance": 0.03125, "loss": 1.0} | more
        for step in range(steps - 40, steps + 1, 10)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (place / "metrics.jsonl").write_text(text)


def test_the_page_says_which_pretrainings_show_no_life(run, capsys):
    pretrained(run, "moco_v2-seed1", 0.5)
    pretrained(run, "moco_v2-seed2", 0.3)
    pretrained(run, "scfs-seed1", 0.03, **{"collapse/accuracy": 231})
    pretrained(run, "pixpro-seed1", 0.5, steps=390)  # not at its end
    text = page(run, capsys).out.partition("### Signs of life")[2].partition("###")[0]
    assert "| MoCo-v2 | 40 (3) | – | 0 of 2 |" in text
    assert "| SCFS | 3 (3) | – | 1 of 1 |" in text
    assert "PixPro" not in text


@pytest.mark.parametrize("chance, older", [(0.2, True), (0.5, False)])
def test_records_of_the_older_sign_of_positions_are_said_to_be_so(chance, older, run, capsys):
    positions = {"stat/positions_accuracy": 0.13, "stat/positions_chance": chance}
    pretrained(run, "setsim-seed1", 0.3, **positions, **{"collapse/positions_accuracy": 231})
    text = page(run, capsys).out.partition("### Signs of life")[2].partition("###")[0]
    assert f"| SetSim | 30 (3) | 13 ({100 * chance:.0f}) | 1 of 1 |" in text
    assert ("of an older sign" in text) == older


def test_what_is_missing_is_said(run, capsys):
    for gone in (run / "scenes/transfer/knn").glob("scfs-seed2/trial_1/result.json"):
        gone.unlink()
    said = page(run, capsys)
    assert "scenes: knn/SCFS, seed 2" in said.err
    assert "**Not complete**: 1 measurements are missing (knn/SCFS, seed 2)" in said.out
    assert "11 against 6" in line(said.out, "**nearest neighbours:")


def test_a_page_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="no records"):
        command.main([str(tmp_path)])


def test_the_page_goes_to_a_file(run, tmp_path, capsys):
    output = tmp_path / "evidence.md"
    assert command.main([str(run), "-o", str(output)]) == 0
    assert output.read_text("utf-8") == page(run, capsys).out


# ------------------------------------------------------------------------------ the data


def images(count, seed, told):
    """Images of two classes side by side; ``told``: each has a colour of its own."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        labels = np.zeros((32, 64), np.uint8)
        labels[:, 32:] = 1
        if rng.random() < 0.5:
            labels = labels[:, ::-1].copy()
        image = rng.uniform(0, 0.3, (32, 64, 3)).astype(np.float32)
        image[..., 0] += 0.6 * (labels if told else rng.integers(0, 2))
        found.append((image, labels))
    return found


def test_a_floor_of_colour_is_found_where_it_is_and_not_where_it_is_not():
    told = shortcuts.cells(images(40, 0, True), images(20, 1, True))
    assert told["mIoU"]["value"] > 99 > 70 > told["shuffled"]["value"]
    none = shortcuts.cells(images(40, 0, False), images(20, 1, False))["mIoU"]
    assert none["low"] <= none["value"] <= none["high"] < 60


def test_repeated_images_are_found():
    train, test = images(40, 0, False), images(20, 1, False)
    alike = shortcuts.duplicates(train, train[:20])
    assert alike["most"] == pytest.approx(1, abs=1e-5)  # sums of single precision
    assert alike["median"] == pytest.approx(1, abs=1e-5)
    assert alike["share_above_99_per_cent_of_training"] == 100
    assert shortcuts.duplicates(train, test)["most"] < 0.9


def test_the_class_of_an_object_is_told_only_by_what_tells_it():
    rng = np.random.default_rng(0)

    def objects(count):
        for image in range(count):
            kind = int(rng.integers(0, 2))
            noise = rng.normal(0, 1, 6)
            yield {
                "image": image,
                "class": kind,
                "yes": noise + 4 * kind,
                "no": rng.normal(0, 1, 6),
            }

    train, test = list(objects(200)), list(objects(100))
    found = shortcuts._told("yes", train, test)
    assert found["low"] > 90 and found["low"] <= found["value"] <= found["high"]
    assert shortcuts._told("no", train, test)["low"] < 55


# ------------------------------------------------------------------------------ lightly


def test_without_lightly_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightly", None)
    with pytest.raises(EnvironmentLacks, match="evidence"):
        lightly_pretrain.main(["moco_v2", str(tmp_path), "--steps", "1", "-o", "out.pth"])


@pytest.mark.parametrize("method", lightly_pretrain.METHODS)
def test_lightly_s_methods_train_and_leave_a_resnet(tmp_path, method):
    pytest.importorskip("lightly")
    import torchvision

    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    output = tmp_path / "out.pth"
    words = [method, str(tmp_path), "--steps", "3", "--batch", "4", "--queue", "8"]
    assert lightly_pretrain.main([*words, "-o", str(output)]) == 0
    state = torch.load(output, weights_only=True)["state_dict"]
    resnet = torchvision.models.resnet18()
    missing, unexpected = resnet.load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    assert not torch.equal(resnet.layer4[1].bn2.running_var, torch.ones(512))
    with pytest.raises(InputError, match="5 images"):
        lightly_pretrain.main([*words[:4], "--batch", "6", "-o", str(output)])


def test_missing_data_are_a_message_before_anything_is_read(tmp_path):
    argv = [str(tmp_path), "--train", "ade20k_sem_seg_train", "--test", "ade20k_sem_seg_val"]
    with pytest.raises(InputError, match="annotations_detectron2"):
        shortcuts.main([*argv, "-o", str(tmp_path / "found.json")])
    assert not (tmp_path / "found.json").exists()
