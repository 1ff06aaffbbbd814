"""Pipeline files: what is wrong with one, the jobs that it becomes, and which of them run again."""

import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from densessl import configs
from densessl.core.errors import InputError
from densessl.pretrain import config as pretraining
from densessl.slurm import data, expansion, pipeline, reproduce
from densessl.slurm.file_jobs import VARIABLE
from densessl.slurm.graph import in_order
from densessl.slurm.local import run_local

BASE = configs.FOLDER / "pretrain" / "moco_v2_r50_in100_200ep.yaml"
FILE = """\
# densessl reproduce mine.yaml
description: What it is.
data: imagenet/train
rows:
  - {method: Random, start: random}
  - {method: Supervised, start: supervised}
  - {method: MoCo-v2, pretrain: CONFIG}
  - {method: Their own, weights: official}
  - {method: Numbers alone, published: true}
protocols:
  - {name: voc_det_c4, trials: 2}
"""


@pytest.fixture
def config(tmp_path):
    """A config of the user's own."""
    file = tmp_path / "mine_moco.yaml"
    file.write_text(f"# mine\n_BASE_: {BASE}\nSOLVER:\n  EPOCHS: 100\n")
    return file


def expanded(tmp_path, text=FILE, folder="run", words=(), **call):
    """The jobs of a file with that text; CONFIG in it is the config of the fixture."""
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("CONFIG", str(tmp_path / "mine_moco.yaml")))
    where = tmp_path / folder
    told = expansion.Call(where, data.parse(words, where), **call)
    return expansion.expand(pipeline.read(str(file)), told)


def by_name(found):
    return {job.name: job for job in found.jobs}


# ------------------------------------------------------------------------------ the language


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("protocols:", "protocol:", "unknown key 'protocol'.*Did you mean 'protocols'"),
        ("start: random", "begin: random", "unknown key 'begin' in 'Random' of rows"),
        ("start: random", "start: randon", "Did you mean 'random'"),
        ("start: random", "start: random, published: true", "needs one of"),
        ("weights: official", "weights: file.pth", "weights is 'file.pth'"),
        ("trials: 2", "trials: two", "trials in .* is 'two'; it must be a whole number"),
        ("trials: 2", "trials: 0", "trials of voc_det_c4 are 0"),
        ("trials: 2", "options: [A, B]", "options in .* must be a group of keys"),
        ("published: true", "published: 3", "must be true or false"),
        ("name: voc_det_c4", "name: voc_det_c5", "Did you mean 'voc_det_c4'"),
        ("name: voc_det_c4", "name: knn, variant: first", "variant"),
        ("pretrain: CONFIG", "pretrain: moco_v3_r50", "unknown config"),
        ("pretrain: CONFIG", "pretrain: CONFIG, options: {SOLVER.EPOC: 3}", "SOLVER.EPOCHS"),
        ("pretrain: CONFIG", "pretrain: CONFIG, protocols: [knn]", "unknown protocol 'knn'"),
        ("method: MoCo-v2", "method: Random", "'Random' stands there twice"),
        ("data: imagenet/train\n", "", "neither it nor the file says 'data'"),
        ("rows:\n", "rows: 3\njobs:\n", "rows in .* is '3'; it must be a list"),
        ("rows:\n", "rows:\n  - MoCo\n", "is a group of keys, not 'MoCo'"),
        ("rows:\n", "rows:\n  - {start: random}\n", "has no 'method'"),
        ("data: imagenet/train\n", "data: a\nscenes: {images: 3}\n", "'images' in scenes"),
        ("data: imagenet/train\n", "data: [\n", "is not YAML"),
        ("protocols:\n  - {name: voc_det_c4, trials: 2}\n", "", "has nothing to do"),
        ("trials: 2", "options: {SOLVER.BASE_LRR: 1}", "SOLVER.BASE_LR"),
        ("data: imagenet/train\n", "data: a\nname: mine\n", "unknown key 'name'"),
        ("data: imagenet/train\n", "data: a\npaper: setsim/table44\n", "Did you mean 'setsim/tab"),
        ("data: imagenet/train\n", "data: a\nshow: {size: 3}\n", "has no 'image'"),
        ("pretrain: CONFIG", "pretrain: CONFIG, name: a/b", "'a/b' among rows"),
        ("pretrain: CONFIG", "pretrain: CONFIG, sweep: {SEED: 3}", "sweep in 'MoCo-v2' .*list"),
        ("start: random", "start: random, sweep: {SEED: [3]}", "sweep in 'Random'"),
        ("pretrain: CONFIG", "pretrain: CONFIG, sweep: {SOLVER.EPOC: [3]}", "SOLVER.EPOCHS"),
        ("data: imagenet/train\n", "data: a\nplot: crop\n", "Did you mean 'crops'"),
        ("pretrain: CONFIG", "pretrain: CONFIG, seeds: 0", "seeds in 'MoCo-v2' .* is '0'"),
        ("pretrain: CONFIG", "pretrain: CONFIG, seeds: [1, 1]", r"is '\[1, 1\]'; allowed"),
        ("pretrain: CONFIG", "pretrain: CONFIG, seeds: few", "must be a whole number or a list"),
        ("pretrain: CONFIG", "pretrain: CONFIG, seeds: 2, options: {SEED: 1}", "the option SEED 1"),
        ("pretrain: CONFIG", "start: random, seeds: 2", "'MoCo-v2' .* no pretraining"),
        ("data: imagenet/train\n", "data: a\nseeds: [-1]\n", r"seeds in .*mine.yaml is '\[-1\]'"),
        ("protocols:", "jobs: [{name: j, run: doctor, seeds: 2}]\nprotocols:", "'j' .*no .seed in"),
        ("trials: 2", "folder: ../elsewhere", "'../elsewhere' among protocols"),
        ("protocols:", "layout: {titel: T}\nprotocols:", "'titel' in layout.*mean 'title'"),
        ("trials: 2", "flags: {seeed: 2}", "'seeed' in flags of 'voc_det_c4'.*mean 'seed'"),
        ("trials: 2", "flags: {seed: -1}", "seed in flags of .* is -1; .* at least 0"),
        ("trials: 2", "own_data: {train_jsn: x}", "'train_jsn' in own_data of.*mean 'train_json'"),
        ("trials: 2", "own_data: {ignore: x}", "ignore in own_data of .*'x'.*whole number"),
        ("trials: 2", "own_data: {train_json: x}", "voc_det_c4 reads its own"),
        ("name: voc_det_c4", "name: knn, flags: {keep_batch: true}", "--keep-batch"),
        ("start: random", "start: random, published: {epoch: 2}", "'epoch' in published.*'Random'"),
        ("rows:", "sections:", "an entry of sections in .* has a list of rows"),
        ("rows:", "sections: []\nrows:", "either rows, or a list of sections"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, config, old, new, message):
    assert old in FILE
    with pytest.raises(InputError, match=message):
        expanded(tmp_path, FILE.replace(old, new))


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_may_be_in_any_form_of_unicode(tmp_path, config, form):
    (tmp_path / "one.yaml").write_text(FILE)
    (tmp_path / "two.yaml").write_text(FILE, encoding=form)
    one, two = (pipeline.read(str(tmp_path / f"{name}.yaml")) for name in ("one", "two"))
    assert one.rows == two.rows and one.protocols == two.protocols
    assert one.description == two.description


def test_the_rows_of_sections_are_rows(tmp_path, config):
    head, _, rest = FILE.partition("rows:\n")
    rows, _, protocols = rest.partition("protocols:\n")
    first, *others = rows.splitlines(keepends=True)
    parts = [
        f"  - title: {name}\n    rows:\n" + "".join(f"    {row}" for row in rows)
        for name, rows in (("One", [first]), ("Two", others))
    ]
    text = f"{head}sections:\n{''.join(parts)}protocols:\n{protocols}"
    sections, plain = expanded(tmp_path, text), expanded(tmp_path)
    assert (sections.spec, sections.jobs) == (plain.spec, plain.jobs)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "one.yaml").write_bytes(b"rows: \xff\n")
    with pytest.raises(InputError, match="one.yaml is not YAML"):
        pipeline.read(str(tmp_path / "one.yaml"))


def test_a_pipeline_that_is_nowhere_names_the_nearest():
    with pytest.raises(
        InputError, match="unknown table.*'setsim/tabel4'. Did you mean 'setsim/table4'"
    ):
        pipeline.read("setsim/tabel4")


# ------------------------------------------------------------------------------ the jobs


def test_a_row_with_seeds_is_a_pretraining_for_each_and_one_row_of_the_table(tmp_path, config):
    one = by_name(expanded(tmp_path))
    told = FILE.replace("CONFIG}", "CONFIG, seeds: 3}")
    jobs = by_name(expanded(tmp_path, told))
    alike = [name for name in one if not name.startswith("table")]
    assert [jobs[name] for name in alike] == [one[name] for name in alike]  # seed 0 is not again
    new = [name for name in jobs if name not in one]
    assert new == [  # all of one seed before the next: a graph that is stopped is balanced
        name
        for seed in (1, 2)
        for name in (
            f"pretrain-mine_moco-seed{seed}",
            f"convert-mine_moco-seed{seed}",
            *(f"transfer-voc_det_c4-mine_moco-seed{seed}-{k}" for k in (1, 2)),
        )
    ]
    words = jobs["pretrain-mine_moco-seed2"].argv
    assert words[words.index("SEED") + 1] == "2" and "SEED" not in jobs["pretrain-mine_moco"].argv
    assert jobs["convert-mine_moco-seed2"].needs == ("pretrain-mine_moco-seed2",)
    assert jobs[new[-1]].needs == ("convert-mine_moco-seed2",)
    table = jobs["table-mine"]
    assert {name for name in new if name.startswith("transfer")} < set(table.after)
    labels = [word for word in table.argv if word.endswith("=MoCo-v2")]
    assert len(labels) == 3 and labels[2].endswith("voc_det_c4/mine_moco-seed2=MoCo-v2")
    given = by_name(expanded(tmp_path, seeds=3))
    assert given == jobs == by_name(expanded(tmp_path, f"seeds: 3\n{FILE}"))
    listed = by_name(expanded(tmp_path, FILE.replace("CONFIG}", "CONFIG, seeds: [7, 0]}")))
    assert [name for name in listed if name.startswith("pretrain")] == [
        "pretrain-mine_moco-seed7",
        "pretrain-mine_moco",
    ]
    with pytest.raises(InputError, match="it has seeds and SEED 4"):
        expanded(tmp_path, told, pretrain=("SEED", "4"))


def test_the_longest_way_comes_first_where_a_file_says_so(tmp_path, config):
    """The pretrainings, before the trials of a random start that could run at once."""
    rows = FILE.replace("CONFIG}", "CONFIG, seeds: 2}")
    names = [job.name for job in expanded(tmp_path, f"order: longest\n{rows}").jobs]
    kinds = ("pretrain", "convert", "transfer", "table")
    assert [name.partition("-")[0] for name in names] == sorted(
        (name.partition("-")[0] for name in names), key=kinds.index
    )
    assert {*names} == {job.name for job in expanded(tmp_path, rows).jobs}
    with pytest.raises(InputError, match="'shortest' in order.*longest, seeds"):
        expanded(tmp_path, f"order: shortest\n{rows}")


OUTSIDE = """
data: imagenet/train
rows:
  - {method: Other tool, job: other}
  - {method: MoCo-v2, pretrain: CONFIG, seeds: 2}
protocols:
  - {name: voc_det_c4, trials: 1}
jobs:
  - {name: other, module: other.tool, run: $data SEED $seed, outputs: ['$dir/o$seed.pth'], seeds: 2}
"""


def test_the_weights_of_a_row_may_come_from_a_job_of_one_s_own(tmp_path, config):
    jobs = by_name(expanded(tmp_path, OUTSIDE))
    told = jobs["convert-other_tool-seed1"]
    assert told.needs == ("other-seed1",) and told.argv[1] == str(tmp_path / "run" / "o1.pth")
    facts = [word for word in told.argv if "=" in word]
    assert "seed=1" in facts and "dataset=imagenet/train" in facts
    (recipe,) = [word for word in facts if word.startswith("recipe=")]
    assert recipe in jobs["convert-other_tool-seed0"].argv  # of one recipe: one row of the table
    changed = by_name(expanded(tmp_path, OUTSIDE.replace("SEED $seed", "--more SEED $seed")))
    assert recipe not in changed["convert-other_tool-seed0"].argv
    order = list(jobs)
    assert jobs["transfer-voc_det_c4-other_tool-seed1-1"].needs == ("convert-other_tool-seed1",)
    assert order.index("transfer-voc_det_c4-mine_moco-1") < order.index("other-seed1")
    with pytest.raises(InputError, match="job.*'othe'.*Did you mean 'other'"):
        expanded(tmp_path, OUTSIDE.replace("job: other}", "job: othe}"))
    with pytest.raises(InputError, match="needs one of: .*job"):
        expanded(tmp_path, OUTSIDE.replace("job: other}", "job: other, start: random}"))


def test_what_a_row_with_seeds_starts_from_is_pretrained_with_its_seed(tmp_path, config):
    told = FILE.replace("CONFIG}", "CONFIG, from: moco_v2_r50_in1k_200ep, seeds: 2}")
    jobs = by_name(expanded(tmp_path, told))
    job = jobs["pretrain-mine_moco-seed1"]
    assert job.needs == ("pretrain-moco_v2_r50_in1k_200ep-seed1",)
    start = jobs[job.needs[0]]
    assert str(start.outputs[0]) in job.argv and start.argv[start.argv.index("SEED") + 1] == "1"
    assert jobs["pretrain-mine_moco"].needs == ("pretrain-moco_v2_r50_in1k_200ep",)


def test_both_random_starts_are_rows(tmp_path, config):
    told = FILE.replace("Random, start: random}", "Random, start: random_bn}")
    jobs = by_name(expanded(tmp_path, told.replace("voc_det_c4", "knn")))
    job = jobs["transfer-knn_last-random_bn-1"]
    assert job.argv[1] == "random_bn" and job.needs == ()
    assert by_name(expanded(tmp_path, told.replace("voc_det_c4", "overcluster")))
    for protocol in ("voc_det_c4", "semisup_1pct"):
        with pytest.raises(InputError, match="row 'Random' of mine: .*batch norm"):
            expanded(tmp_path, told.replace("voc_det_c4", protocol))


def test_a_job_of_one_s_own_with_seeds_is_one_for_each(tmp_path):
    jobs = by_name(
        expanded(
            tmp_path,
            """
jobs:
  - {name: train, run: pretrain --config moco_v2 SEED $seed OUTPUT_DIR $dir/$seed, seeds: 2}
  - {name: out, run: 'convert $dir/${seed}/w', needs: [train], outputs: ['$seed.pkl'], seeds: [1]}
  - {name: all, run: table $dir, needs: [train, out]}
""",
        )
    )
    assert list(jobs) == ["train-seed0", "train-seed1", "out-seed1", "all"]
    assert jobs["train-seed1"].argv[4:] == ("1", "OUTPUT_DIR", str(tmp_path / "run" / "1"))
    assert jobs["out-seed1"].needs == ("train-seed1",)
    assert [path.name for path in jobs["out-seed1"].outputs] == ["1.pkl"]
    assert jobs["all"].needs == ("train-seed0", "train-seed1", "out-seed1")


@pytest.mark.parametrize("output", ["", "-o $dir/t.csv", "--output=$dir/t.csv --format csv"])
def test_a_table_of_one_s_own_is_shown_at_the_end_wherever_it_goes(tmp_path, capsys, output):
    record = Path(__file__).parents[1] / "cases" / "records" / "table_all_nan_record"
    run = f"table {record} {output}"
    found = expanded(tmp_path, f"jobs:\n  - {{name: t, run: '{run}'}}\n")
    assert reproduce.run_here(found) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("table,section" if "csv --" in run or "format" in run else "### ")
    assert (found.folder / "t.csv").exists() == bool(output)


def test_a_sweep_is_a_row_for_each_value(tmp_path, config):
    text = FILE.replace("CONFIG}", "CONFIG, sweep: {MOCO.TEMPERATURE: [0.1, 0.2]}}")
    text = text.replace("protocols:", "plot: threshold\nprotocols:")
    crops = "pretrain: dino_r50_in100_200ep, sweep: {VIEWS.LOCAL_CROPS: [4, 8, 9]}"
    built_in = f"{{method: 'DINO, {{}} crops', {crops}}}"
    text = text.replace("  - {method: Their own", f"  - {built_in}\n  - {{method: Their own")
    jobs = by_name(expanded(tmp_path, text))
    for value in ("0.1", "0.2"):
        words = jobs[f"pretrain-mine_moco-temperature_{value}"].argv
        assert words[words.index("MOCO.TEMPERATURE") + 1] == value
    names = [job.argv[2] for name, job in jobs.items() if name.startswith("pretrain-dino")]
    row = "dino_r50_in100_200ep"
    assert names == ["dino_crops04_r50_in100_200ep", row, row]  # 9 is no config of its own
    assert f"pretrain-{row}-local_crops_9" in jobs
    rows = [row.method for row in pipeline.read(str(tmp_path / "mine.yaml")).rows]
    assert rows[2:7] == [
        "MoCo-v2, MOCO.TEMPERATURE 0.1",
        "MoCo-v2, MOCO.TEMPERATURE 0.2",
        "DINO, 4 crops",
        "DINO, 8 crops",
        "DINO, 9 crops",
    ]
    assert [*jobs][-2:] == ["plot-mine", "table-mine"]


def test_the_jobs_come_in_the_order_pretraining_conversion_trials_table(tmp_path, config):
    found = expanded(tmp_path)
    assert [job.name for job in found.jobs] == [
        "pretrain-mine_moco",
        "convert-mine_moco",
        "transfer-voc_det_c4-random-1",
        "transfer-voc_det_c4-random-2",
        "transfer-voc_det_c4-mine_moco-1",
        "transfer-voc_det_c4-mine_moco-2",
        "table-mine",
    ]
    assert [row.method for row in found.left_out] == ["Supervised", "Their own", "Numbers alone"]
    jobs, run = by_name(found), tmp_path / "run"
    assert jobs["convert-mine_moco"].needs == ("pretrain-mine_moco",)
    assert jobs["transfer-voc_det_c4-mine_moco-2"].needs == ("convert-mine_moco",)
    assert jobs["transfer-voc_det_c4-random-1"].needs == ()
    assert jobs["table-mine"].after == tuple(job.name for job in found.jobs[2:6])
    assert str(run / "transfer/voc_det_c4/mine_moco") in jobs["table-mine"].argv
    written = {output: job.name for job in found.jobs for output in job.outputs}
    for job in found.jobs:  # what a job reads of another's it needs
        for word in job.argv[1:]:
            maker = written.get(Path(word))
            assert maker in (None, job.name, *job.before), (job.name, word)


def test_equal_pretrainings_of_several_rows_are_one(tmp_path, config):
    text = FILE.replace(
        "rows:\n",
        "rows:\n  - {method: Same, pretrain: CONFIG, transfer: {SOLVER.BASE_LR: 0.01}}\n"
        "  - {method: Longer, pretrain: CONFIG, options: {SOLVER.EPOCHS: 200}}\n",
    )
    jobs = by_name(expanded(tmp_path, text))
    pretrainings = [name for name in jobs if name.startswith("pretrain")]
    assert len(pretrainings) == 2 and pretrainings[0] == "pretrain-mine_moco"
    assert pretrainings[1].startswith("pretrain-mine_moco-")  # another config of that name
    assert "transfer-voc_det_c4-base_lr_0.01-mine_moco-1" in jobs
    assert f"transfer-voc_det_c4-{pretrainings[1].removeprefix('pretrain-')}-1" in jobs


def test_a_pretraining_may_start_from_another(tmp_path, config):
    row = "{method: VADeR, pretrain: vader, from: CONFIG}"
    only = FILE[: FILE.index("  - {method: Random")] + f"  - {row}\n"
    jobs = by_name(expanded(tmp_path, only + FILE[FILE.index("protocols:") :]))
    assert jobs["pretrain-vader"].needs == ("pretrain-mine_moco",)
    start = str(jobs["pretrain-mine_moco"].outputs[0])
    assert jobs["pretrain-vader"].argv[-4:-2] == ("BACKBONE.WEIGHTS", start)
    assert "convert-mine_moco" not in jobs  # no row of it


def test_a_table_calls_rows_as_the_file_does_and_knows_its_baseline(tmp_path, config):
    (table,) = (job for job in expanded(tmp_path).jobs if job.argv[0] == "table")
    folders, options = table.argv[1:3], table.argv[3:]
    labels = [word for pair in zip(folders, ("Random", "MoCo-v2"), strict=True) for word in pair]
    labels = [f"{folder}={name}" for folder, name in zip(labels[::2], labels[1::2], strict=True)]
    assert [word for word in options if "=" in word] == labels
    good = FILE + "table: {baseline: Random}\n"
    assert "--baseline" in expanded(tmp_path, good).jobs[-1].argv
    with pytest.raises(InputError, match="unknown baseline 'Randon'.*Did you mean 'Random'"):
        expanded(tmp_path, good.replace("baseline: Random", "baseline: Randon"))


def test_weights_named_at_the_call_take_the_place_of_a_row(tmp_path, config):
    file = tmp_path / "ckpt.pth"
    file.write_text("one")
    weights = {"MoCo-v2": str(file), "Supervised": str(file), "Their own": str(file)}
    found = expanded(tmp_path, weights=weights)
    names = [job.name for job in found.jobs if job.name.startswith(("pretrain", "convert"))]
    assert [name.split("-")[1] for name in names] == ["supervised", "moco", "their_own"]
    jobs = by_name(found)
    assert jobs[names[0]].argv[-3:] == ("--method", "supervised", "--force")
    assert jobs[names[2]].argv[-3:] == ("--method", "their_own", "--force")
    assert [row.method for row in found.left_out] == ["Numbers alone"]
    knn = by_name(expanded(tmp_path, FILE.replace("voc_det_c4", "knn"), weights=weights))
    assert knn[names[0]].outputs[0].suffix == ".pth"  # holds ViTs, too
    assert jobs[names[0]].outputs[0].suffix == ".pkl"
    file.write_text("two")  # another file of that name has another place
    assert not set(names) & set(by_name(expanded(tmp_path, weights=weights)))
    with pytest.raises(InputError, match="not there"):
        expanded(tmp_path, weights={"MoCo-v2": "nowhere.pth"})
    with pytest.raises(InputError, match="Did you mean 'MoCo-v2'"):
        expanded(tmp_path, weights={"MoCov2": str(file)})


def test_the_gpus_and_nodes_of_the_call(tmp_path, config):
    jobs = by_name(expanded(tmp_path, nodes=2, gpus=4))
    pretrain, transfer = jobs["pretrain-mine_moco"], jobs["transfer-voc_det_c4-random-1"]
    assert (pretrain.resources.nodes, pretrain.resources.gpus) == (2, 4)
    assert (transfer.resources.nodes, transfer.resources.gpus) == (1, 4)
    assert transfer.argv[transfer.argv.index("--gpus") + 1] == "4"
    assert (
        "torch.distributed.run"
        in by_name(expanded(tmp_path, gpus=4, local=True))["pretrain-mine_moco"].program
    )


def test_in_miniature_everything_is_small_and_on_scenes(tmp_path):
    text = FILE.replace("CONFIG", "resim_fpn_r50_in1k_200ep").replace(
        "{name: voc_det_c4, trials: 2}",
        "{name: coco_mask_fpn_1x, variant: 4conv1fc}\n"
        "  - {name: knn, options: {DATASETS.CLASSES: imagenet100}}\n"
        "  - {name: finetune_cls, variant: cars}\n  - {name: finetune_cls, variant: pets}",
    )
    found = expanded(tmp_path, text, mini=True, gpus=0)
    jobs, scenes = by_name(found), str(tmp_path / "run" / "scenes")
    assert found.reads == () and list(jobs)[0] == "scenes"
    pretrain = jobs["pretrain-resim_fpn_r50_in1k_200ep_scenes"]
    assert pretrain.needs == ("scenes",)
    assert pretrain.argv[2:5] == (
        "resim_fpn_r50_in1k_200ep_scenes",
        "DATA.PATH",
        f"{scenes}/imagenet/train",
    )
    kept = pretrain.argv[5:-2]  # what Detectron2's heads expect
    assert kept == ("BACKBONE.NAME", "resnet50", "RESIM.FPN_DIM", "256")
    transfers = [job for job in found.jobs if job.argv[0] == "transfer"]
    assert len(transfers) == 6  # two rows; cars and pets are one: what scenes have
    for job in transfers:
        assert "--mini" in job.argv and job.argv[job.argv.index("--data") + 1] == scenes
        assert "scenes" in job.needs and "imagenet100" not in job.argv
    assert any("voc_objects" in job.argv for job in transfers)
    assert "--paper" not in found.jobs[-1].argv
    assert not set(jobs) & set(by_name(expanded(tmp_path, FILE.replace("CONFIG", "moco_v2"))))


def test_the_files_and_the_calls_trials(tmp_path, config):
    def count(**call):
        names = [job.name for job in expanded(tmp_path, **call).jobs if job.argv[0] == "transfer"]
        return len(names) // 2

    assert (count(), count(trials=4), count(mini=True, gpus=0)) == (2, 4, 1)
    assert count(mini=True, trials=3, gpus=0) == 3


def test_a_protocol_takes_the_other_flags_of_transfer(tmp_path, config):
    text = FILE.replace("trials: 2", "trials: 2, flags: {seed: 3, keep_batch: true}")
    plain, given = (
        by_name(expanded(tmp_path, each, gpus=4))["transfer-voc_det_c4-random-2"]
        for each in (FILE, text)
    )
    at = given.argv.index("--seed")
    assert given.argv[at + 1] == "3" and "--keep-batch" in given.argv
    assert "--seed" not in plain.argv and "--keep-batch" not in plain.argv
    assert given.content[-1] == "4" and given.content[-3] != plain.content[-3]  # config


def test_commands_of_ones_own(tmp_path, config):
    jobs = """\
jobs:
  - name: pictures
    run: "show $dir/pretrain/mine_moco/backbone_final.pth '$data/a picture.jpg' -o $dir/pictures"
    needs: [pretrain-mine_moco]
    outputs: [$dir/pictures]
  - {name: other, module: densessl.d2_transfer.pictures, run: --help}
"""
    found = by_name(expanded(tmp_path, FILE + jobs, words=["/datasets"]))
    run = tmp_path / "run"
    weights = str(run / "pretrain/mine_moco/backbone_final.pth")
    pictures = found["pictures"]
    assert pictures.argv == ("show", weights, "/datasets/a picture.jpg", "-o", f"{run}/pictures")
    assert pictures.outputs == (run / "pictures",) and pictures.needs == ("pretrain-mine_moco",)
    assert pictures.env == {VARIABLE: "/datasets"}
    assert found["other"].program[-1] == "densessl.d2_transfer.pictures"
    wrong = {
        "pretrain-mine_moco]": ("pretrain-mine_moko]", "Did you mean 'pretrain-mine_moco'"),
        "$dir/pretrain": ("$folder/pretrain", r"words with \$dir and \$data"),
        "name: other": ("name: pictures", "stands there twice"),
        "name: pictures": ("name: table-mine", "two different jobs are called 'table-mine'"),
        "needs: [pre": ("needs: [pictures, pre", "wait for each other"),
    }
    for old, (new, message) in wrong.items():
        with pytest.raises(InputError, match=message):
            expanded(tmp_path, FILE + jobs.replace(old, new))


def test_a_file_of_commands_alone(tmp_path):
    found = expanded(tmp_path, "jobs:\n  - {name: help, run: --help}\n")
    assert [job.name for job in found.jobs] == ["help"]
    run_local(found.jobs, found.folder)
    assert "usage: densessl" in (found.folder / "logs" / "help.txt").read_text()


def test_the_example_of_the_docs_and_every_key_that_they_name(tmp_path, config):
    page = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text()
    text = page.split("```yaml\n")[1].split("```")[0]
    found = expanded(tmp_path, text.replace("configs/ours.yaml", "CONFIG"))
    assert len(found.jobs) == 3 + 3 + 2 * 3 * 4 + 1 and found.left_out == ()
    assert (found.folder / "pretrain/threshold065") in {
        job.outputs[0].parent for job in found.jobs if job.argv[0] == "pretrain"
    }
    table = page[page.index("| key | |") :]
    for kind in (pipeline.Spec, pipeline.RowSpec, pipeline.ProtocolSpec, pipeline.FreeJob):
        for each in fields(kind):
            name = "from" if each.name == "start_from" else each.name
            assert name == "name" or f"`{name}" in table, name


# ------------------------------------------------------------------------------ the data


def test_data_are_named_for_all_or_one_by_one(tmp_path, config, monkeypatch):
    found = expanded(tmp_path, words=[str(tmp_path / "all")])
    jobs = by_name(found)
    assert str(tmp_path / "all/imagenet/train") in jobs["pretrain-mine_moco"].argv
    assert found.reads == ("VOC2007", "VOC2012", "imagenet/train")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "environment"))
    jobs = by_name(expanded(tmp_path))
    assert str(tmp_path / "environment/imagenet/train") in jobs["pretrain-mine_moco"].argv

    found = expanded(tmp_path, words=["imagenet=/scratch/ilsvrc", str(tmp_path / "all")])
    jobs, links = by_name(found), tmp_path / "run" / "data"
    assert str(links / "imagenet/train") in jobs["pretrain-mine_moco"].argv
    transfer = jobs["transfer-voc_det_c4-random-1"].argv
    assert transfer[transfer.index("--data") + 1] == str(links)
    assert found.data.missing(found.reads) == [
        f"VOC2007: {tmp_path}/all/VOC2007",
        f"VOC2012: {tmp_path}/all/VOC2012",
        "imagenet/train: /scratch/ilsvrc/train",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["imagenet="], "not NAME=DIR"),
        (["a", "b"], "two folders for all"),
        (["imagnet=/x"], "Did you mean 'imagenet'"),
    ],
)
def test_what_is_wrong_with_the_data_that_are_named(tmp_path, config, words, message):
    with pytest.raises(InputError, match=message):
        expanded(tmp_path, words=words)


def test_scenes_are_drawn_and_not_named(tmp_path, config):
    with pytest.raises(InputError, match="scenes are drawn"):
        expanded(tmp_path, words=["imagenet=/x"], mini=True, gpus=0)


def test_camvid_lies_under_either_of_its_names(tmp_path):
    found = data.Data(tmp_path, tmp_path)
    other = tmp_path / "other"
    assert found.missing(["camvid", "coco"]) and data.Data(tmp_path, other).link(["camvid"]) == []
    (tmp_path / "CamVid").mkdir()
    assert found.missing(["camvid"]) == []
    (link,) = data.Data(tmp_path, other).link(["camvid"])
    assert link == other / "camvid" and link.samefile(tmp_path / "CamVid")
    (tmp_path / "camvid").mkdir()
    assert found.actual("camvid") == tmp_path / "camvid"


def test_missing_data_are_one_message_before_anything(tmp_path, config):
    found = expanded(tmp_path, words=[str(tmp_path / "all")])
    with pytest.raises(InputError, match="(?s)imagenet/train.*VOC2012.*|VOC2012.*imagenet/train"):
        found.prepare()
    assert not (tmp_path / "run").exists()


def test_data_named_by_themselves_are_linked(tmp_path):
    for place in ("mine/train", "all/coco"):
        (tmp_path / place).mkdir(parents=True)
    found = data.parse([f"imagenet={tmp_path}/mine", f"{tmp_path}/all"], tmp_path / "run")
    found.link(["imagenet/train", "coco", "VOC2007"])
    links = {link.name: link.resolve() for link in (tmp_path / "run" / "data").iterdir()}
    assert links == {"imagenet": tmp_path / "mine", "coco": tmp_path / "all/coco"}
    (tmp_path / "other").mkdir()
    data.parse([f"imagenet={tmp_path}/other"], tmp_path / "run").link(["imagenet"])
    assert (tmp_path / "run/data/imagenet").resolve() == tmp_path / "other"
    (tmp_path / "run/data/imagenet").unlink()
    (tmp_path / "run/data/imagenet").mkdir()
    with pytest.raises(InputError, match="in the way"):
        found.link(["imagenet"])


def test_every_data_set_of_the_protocols_has_its_folders():
    from densessl.d2_transfer.datasets.layouts import LAYOUTS

    assert all(data._folders(name) for name in LAYOUTS)


# ------------------------------------------------------------------------------ what runs again

# Stands in for every verb: notes the job's name, and writes its outputs, which depend on the
# config of a pretraining (not on its comments) and on the files that the others read.
STUB = """
import hashlib, os, pathlib, sys
note, name, config, outputs, *argv = sys.argv[1:]
with open(note, "a") as stream:
    stream.write(name + " ")
outputs = [pathlib.Path(each) for each in outputs.split(":")]
for output in outputs:
    output.parent.mkdir(parents=True, exist_ok=True)
told = argv[0] + config
if argv[0] == "pretrain":
    (outputs[0].parent / "config.yaml").write_text(config)
else:
    files = [pathlib.Path(word) for word in argv if os.path.isfile(word)]
    told += "".join(file.read_text() for file in files if file not in outputs)
for output in outputs:
    output.write_text(hashlib.sha256(told.encode()).hexdigest())
"""


def run(tmp_path, found):
    """Run the jobs with the stand-in; the names of those that ran."""
    (tmp_path / "stub.py").write_text(STUB)
    note = tmp_path / "ran"
    note.write_text("")
    made = []
    for job in found.jobs:
        said = job.argv[0] == "pretrain"
        config = pretraining.load(job.argv[2], list(job.argv[3:])).dump() if said else ""
        outputs = ":".join(map(str, job.outputs))
        words = (str(tmp_path / "stub.py"), str(note), job.name, config, outputs)
        made.append(replace(job, program=(sys.executable, *words)))
    run_local(made, found.folder)
    return note.read_text().split()


ALL = ["transfer-voc_det_c4-random-1", "transfer-voc_det_c4-random-2"]
MOCO = ["pretrain-mine_moco", "convert-mine_moco"] + [
    f"transfer-voc_det_c4-mine_moco-{k}" for k in (1, 2)
]


def test_a_second_run_does_nothing_and_neither_does_an_edited_comment(tmp_path, config):
    assert sorted(run(tmp_path, expanded(tmp_path))) == sorted([*ALL, *MOCO, "table-mine"])
    assert run(tmp_path, expanded(tmp_path)) == []
    config.write_text(config.read_text().replace("# mine", "# another head comment"))
    assert run(tmp_path, expanded(tmp_path, FILE.replace("What it is", "Other words"))) == []
    moved = expanded(tmp_path, words=["/elsewhere"], nodes=2)  # data moved; more machines
    assert run(tmp_path, moved) == []


def test_an_edited_config_runs_again_what_depends_on_it_and_beside_the_old(tmp_path, config):
    run(tmp_path, expanded(tmp_path))
    before = config.read_text()
    config.write_text(before.replace("EPOCHS: 100", "EPOCHS: 101"))
    found = expanded(tmp_path)
    again = run(tmp_path, found)
    assert len(again) == 5 and not set(again) & {*ALL, *MOCO}
    assert sum(name.startswith("transfer-voc_det_c4-mine_moco-") for name in again) == 2
    assert (tmp_path / "run/pretrain/mine_moco/backbone_final.pth").is_file()  # days of work
    other = FILE.replace("data: imagenet/train", "data: coco/train2017")
    names = {job.name for job in expanded(tmp_path, other).jobs}
    assert names & {*again, *MOCO} == {"table-mine"}  # other data, too
    assert run(tmp_path, expanded(tmp_path)) == []
    config.write_text(before)  # taken back: only the table has other rows again
    assert run(tmp_path, expanded(tmp_path)) == ["table-mine"]


def test_weights_that_came_out_the_same_run_nothing_again(tmp_path, config):
    run(tmp_path, expanded(tmp_path))
    (tmp_path / "run/pretrain/mine_moco/backbone_final.pth").unlink()
    assert run(tmp_path, expanded(tmp_path)) == ["pretrain-mine_moco"]


def test_more_trials_and_another_protocol_add_to_what_is_there(tmp_path, config):
    run(tmp_path, expanded(tmp_path))
    third = [f"transfer-voc_det_c4-{name}-3" for name in ("random", "mine_moco")]
    assert sorted(run(tmp_path, expanded(tmp_path, trials=3))) == sorted([*third, "table-mine"])
    other = FILE.replace("name: voc_det_c4, trials: 2", "name: cityscapes_inst, trials: 1")
    again = run(tmp_path, expanded(tmp_path, other))
    assert sorted(again) == [
        "table-mine",
        *(f"transfer-cityscapes_inst-{name}-1" for name in ("mine_moco", "random")),
    ]


def test_what_a_run_left_and_its_protocols_options_keep_their_own_folders(tmp_path, config):
    found = expanded(tmp_path)
    place = tmp_path / "run/transfer/voc_det_c4/random"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("SOLVER: {BASE_LR: 1}\n")  # somebody else's
    names = {job.name for job in expanded(tmp_path).jobs} - {job.name for job in found.jobs}
    assert len(names) == 2 and all("voc_det_c4-random-" in name for name in names)
    assert in_order(found.jobs)


@pytest.mark.parametrize("became", ["off", "bf16"])
def test_a_run_that_the_device_gave_its_precision_keeps_its_folder(tmp_path, became):
    from densessl.pretrain import config as pretraining
    from densessl.slurm import demo

    def job():
        jobs = demo.load(tmp_path, gpus=0, seeds=1).jobs
        return next(job for job in jobs if job.argv[0] == "pretrain")

    cfg = pretraining.load("demo_simclr", list(job().argv[3:]))
    assert (job().name, cfg.AMP) == ("pretrain-simclr", "auto")
    cfg.AMP = became
    (tmp_path / "pretrain/simclr").mkdir(parents=True)
    (tmp_path / "pretrain/simclr/config.yaml").write_text(cfg.dump())
    assert job().name == "pretrain-simclr"
