"""The files of the papers' tables: one for each, right names, one way to measure, honest costs."""

import re
from collections import Counter

import pytest

from densessl.d2_transfer.protocols import PROTOCOLS
from densessl.d2_transfer.tables import layouts, published
from densessl.pretrain import config as pretraining
from densessl.slurm import cost, data, expansion, pipeline
from densessl.slurm.graph import in_order

PAPERS = ("SetSim", "SCFS", "HoughCL", "ReSim")
TABLES = list(layouts.names())
FIGURES = ["scfs/fig4", "scfs/fig5"]  # that print no numbers


@pytest.fixture(scope="module")
def expanded(tmp_path_factory):
    """``expanded(name, mini)``: the jobs of a table, on a cluster or in miniature on a CPU."""
    folder = tmp_path_factory.mktemp("papers")
    done = {}

    def expand(name, mini=False):
        if (name, mini) not in done:
            told = {"mini": True, "gpus": 0} if mini else {}
            call = expansion.Call(folder, data.parse(["/datasets"], folder), **told)
            call = expansion.Call(folder, data.parse([], folder), **told) if mini else call
            done[name, mini] = expansion.expand(pipeline.read(name), call)
        return done[name, mini]

    return expand


def of_verb(found, verb):
    return [job for job in found.jobs if job.argv[0] == verb]


def option(job, flag):
    return job.argv[job.argv.index(flag) + 1] if flag in job.argv else None


def test_every_results_table_of_the_papers_has_a_file():
    tables = {(each.source, each.table) for each in published.read() if each.source in PAPERS}
    files = {
        (number.source, number.table)
        for name in TABLES
        for row in layouts.find(name).rows
        for number in row.numbers
    }
    assert files == tables
    evidence = {"evidence/scenes", "evidence/photos"}
    assert {*TABLES, *FIGURES, *evidence, "demo"} == set(pipeline.built_in())


@pytest.mark.parametrize("name", TABLES)
def test_a_table_becomes_jobs_in_full_and_in_miniature(name, expanded):
    full, mini = expanded(name), expanded(name, mini=True)
    for found in (full, mini):
        assert in_order(found.jobs)
        last = found.jobs[-1]
        assert last.argv[0] == "table" and last.after == tuple(
            job.name for job in of_verb(found, "transfer")
        )
    assert option(full.jobs[-1], "--paper") == name
    assert option(mini.jobs[-1], "--paper") is None
    assert {job.argv[2] for job in of_verb(full, "pretrain")} <= set(pretraining.built_in())
    wanted = {config for row in full.spec.rows for config in (row.pretrain, row.start_from)} - {""}
    assert sorted(wanted) == sorted(job.argv[2] for job in of_verb(full, "pretrain"))
    twins = {f"{job.argv[2]}_scenes" for job in of_verb(full, "pretrain")}
    assert {job.argv[2] for job in of_verb(mini, "pretrain")} == twins
    assert all("--mini" in job.argv for job in of_verb(mini, "transfer"))


@pytest.mark.parametrize("name", TABLES)
def test_what_is_run_is_what_the_papers_table_has(name):
    spec, layout = pipeline.read(name), layouts.find(name)
    assert spec.paper == name and len(spec.rows) == len(layout.rows)
    for ours, theirs in zip(spec.rows, layout.rows, strict=True):
        if not theirs.configs:  # others' methods: brought along, or published alone
            start = theirs.known_as if theirs.known_as in pipeline.STARTS else ""
            assert ours.start == start, ours.method
            assert ours.weights == ("" if start else "official"), ours.method
        required = {key: value for key, value in theirs.options if value}
        assert required.items() <= ours.transfer.items(), ours.method
        known = {number.protocol for number in theirs.numbers}
        if known and ours.protocols:  # what the paper has no number of is not measured
            assert known == set(ours.protocols), ours.method
        classes = pretraining.load(ours.pretrain).DATA.CLASSES if ours.pretrain else ""
        if ours.pretrain:
            reads = {
                "IN-1K": ("imagenet/train", ""),
                "IN-100": ("imagenet/train", "imagenet100"),
                "COCO": ("coco/train2017", ""),
                "TinyImageNet": ("tiny-imagenet-200/train", ""),
            }
            assert (ours.data or spec.data, classes) == reads[theirs.data], ours.method
    measured = Counter(
        (each.name, each.variant or PROTOCOLS[each.name].variants[0]) for each in spec.protocols
    )
    assert max(measured.values()) == 1
    for each in spec.protocols:  # a trial as it is run may stand in the columns
        required = each.requires or each.options
        assert {key: value for key, value in required.items() if value} == each.options


@pytest.mark.parametrize("name", TABLES)
def test_no_two_rows_of_a_table_are_one_run(name):
    """Two published numbers cannot come from one pretraining that is fine-tuned in one way."""
    spec, layout = pipeline.read(name), layouts.find(name)
    runs = [
        (row.pretrain, row.options, row.start_from, row.data or spec.data, row.transfer)
        for row in spec.rows
        if row.pretrain
    ]
    runs = [(resolved(config, options), *rest) for config, options, *rest in runs]
    assert [run for run in runs if runs.count(run) > 1] == []
    shown = [
        (resolved(config), row.data, row.options) for row in layout.rows for config in row.configs
    ]
    assert [run for run in shown if shown.count(run) > 1] == []


def resolved(config, options=()):
    """The options of a pretraining."""
    words = [str(word) for pair in dict(options).items() for word in pair]
    return pretraining.flat(pretraining.load(config, words))


def different(one, other):
    """The options that two configs do not share."""
    one, other = resolved(one), resolved(other)
    return {key for key in one if one[key] != other[key]}


def test_the_rows_of_setsims_table_3_differ_by_what_their_names_say():
    base = "setsim_r50_in100_200ep"  # Set + Geo + Sym, with the nearest neighbours
    config = {row.method: row.pretrain for row in pipeline.read("setsim/table3").rows}
    assert config["Set + Geo + Sym"] == base
    sym, geo, set_ = "MOCO.SYMMETRIC", "SETSIM.GEOMETRY_THRESHOLD", "SETSIM.SET"
    assert different(config["Set + Geo"], base) == {sym}
    assert different(config["Set"], base) == {sym, geo}
    assert different(config["Geo"], base) == {sym, set_, "SETSIM.NEAREST"}
    assert resolved(base)["SETSIM.NEAREST"] and resolved(config["Set"])["SETSIM.NEAREST"]
    assert different("setsim_set2set_r50_in100_200ep", base) == {"SETSIM.NEAREST"}  # Table 2


def test_dino_and_scfs_stand_side_by_side_with_the_same_settings():
    """But for the method and SCFS's own options; on ViTs with 8 local crops, too."""
    configs = [row.pretrain for row in pipeline.read("scfs/table10").rows]
    pairs = list(zip(configs[::2], configs[1::2], strict=True))
    for table in ("scfs/table7", "scfs/table9"):
        found = {row.method: row.pretrain for row in pipeline.read(table).rows}
        pairs += [
            (found[name], found[name.replace("DINO", "SCFS")])
            for name in found
            if name.startswith("DINO") and name.replace("DINO", "SCFS") in found
        ]
    assert len(pairs) == 3 + 2 + 4
    own = {"METHOD.NAME", "SCFS.LEVELS", "SCFS.LEVEL_GLOBAL", "DINO.GLOBAL_PAIRS"}
    for dino, scfs in pairs:
        assert different(dino, scfs) <= own, (dino, scfs)
    assert {resolved(each)["VIEWS.LOCAL_CROPS"] for pair in pairs[:3] for each in pair} == {8}
    assert {resolved(each)["SOLVER.BASE_LR"] for each in pairs[2]} == {0.0005}


def test_without_local_crops_scfs_searches_in_the_other_view_and_does_nothing_else():
    """Table 7's "w/o MC" ticks G_d2G_f alone; Figure 5's 0 local crops are the same run."""
    row = resolved("scfs_wo_mc_r50_in100_200ep")
    assert not (row["VIEWS.LOCAL_CROPS"] or row["DINO.GLOBAL_PAIRS"] or row["SCFS.LEVEL_GLOBAL"])
    assert different("scfs_wo_mc_r50_in100_200ep", "scfs_crops00_r50_in100_200ep") == set()
    assert different("dino_wo_mc_r50_in100_200ep", "dino_crops00_r50_in100_200ep") == set()


@pytest.mark.parametrize("name", TABLES)
def test_no_variants_of_one_protocol_are_mixed(name, expanded):
    variants = {}
    for job in of_verb(expanded(name), "transfer"):
        protocol = option(job, "--protocol")
        if protocol != "finetune_cls":  # whose variants are data sets
            variants.setdefault(protocol, set()).add(option(job, "--variant"))
    assert all(len(each) == 1 for each in variants.values())


@pytest.mark.parametrize(
    ("name", "kind", "methods"),
    [
        ("scfs/fig4", "layers", {"dino": 1, "scfs": 1}),
        ("scfs/fig5", "crops", {"dino": 6, "scfs": 6}),
    ],
)
def test_a_figure_is_drawn_of_dino_and_scfs_alike(name, kind, methods, expanded):
    for found in (expanded(name), expanded(name, mini=True)):
        (plot,) = of_verb(found, "plot")
        assert plot.argv[:2] == ("plot", kind) and plot.argv[-1].endswith(".png")
        assert plot.after == tuple(job.name for job in of_verb(found, "transfer"))
        folders = {str(job.outputs[0].parent.parent) for job in of_verb(found, "transfer")}
        assert set(plot.argv[2:-2]) == folders and len(folders) == sum(methods.values())
        configs = [
            pretraining.load(job.argv[2], list(job.argv[3:])) for job in of_verb(found, "pretrain")
        ]
        assert Counter(cfg.METHOD.NAME for cfg in configs) == methods
        if kind == "crops":
            for method in methods:
                crops = [cfg.VIEWS.LOCAL_CROPS for cfg in configs if method == cfg.METHOD.NAME]
                assert sorted(crops) == [0, 2, 4, 6, 8, 10]
    shared = {job.name for job in of_verb(expanded("scfs/table7"), "pretrain")}
    assert len(shared & {job.name for job in of_verb(expanded("scfs/fig5"), "pretrain")}) == 4


@pytest.mark.parametrize("name", TABLES + FIGURES)
def test_a_table_says_what_it_is_and_its_true_cost(name, expanded):
    found = expanded(name)
    assert found.spec.description
    hours = [cost.gpu_hours(job) for job in found.jobs]
    known, lacking = sum(filter(None, hours)), hours.count(None)
    assert known > 0
    assert all(cost.gpu_hours(job) > 0 for job in of_verb(found, "pretrain"))
    said = re.fullmatch(
        r"(at least )?([\d,]+) V100-hours: (\d+) pretrainings [\d,]+, (\d+) (?:\w|-)+ .+\.",
        found.spec.cost,
    )
    assert said, found.spec.cost
    assert bool(said[1]) == bool(lacking) == ("no figure" in found.spec.cost)
    assert said[2] == f"{known:,.0f}"
    counts = (len(of_verb(found, "pretrain")), len(of_verb(found, "transfer")))
    assert (int(said[3]), int(said[4])) == counts


def test_tables_in_one_folder_share_what_they_have_in_common(expanded):
    first, second = expanded("setsim/table4"), expanded("setsim/table5")
    shared = {job.name: job for job in first.jobs if job in second.jobs}
    configs = ("moco_v2", "swav", "densecl", "pixpro", "resim_c4", "setsim")
    for config in configs:
        name = f"{config}_r50_in1k_200ep"
        assert {f"pretrain-{name}", f"convert-{name}"} <= set(shared)
    assert len(shared) == 2 * len(configs)
    det, inst = expanded("houghcl/coco_det"), expanded("houghcl/coco_inst")
    assert {job.name for job in det.jobs[:-1]} == {job.name for job in inst.jobs[:-1]}
    names = {job.name: job for name in TABLES for job in expanded(name).jobs}
    for name in TABLES:  # one name is one job, in whatever table
        for job in expanded(name).jobs:
            assert names[job.name].content == job.content, job.name


@pytest.mark.parametrize(
    "name, method, facts",
    [
        ("setsim/table4", "InfoMin", ["dataset=imagenet", "epochs=200"]),
        ("setsim/table1", "MoCo-v2", ["dataset=imagenet100 (imagenet100)", "epochs=200"]),
        ("scfs/table6", "ORL", ["dataset=coco", "epochs=800"]),
    ],
)
def test_weights_from_elsewhere_carry_what_the_paper_says_of_them(tmp_path, name, method, facts):
    file = tmp_path / "official.pth"
    file.write_text("weights")
    call = expansion.Call(
        tmp_path, data.parse(["/datasets"], tmp_path), weights={method: str(file)}
    )
    converts = of_verb(expansion.expand(pipeline.read(name), call), "convert")
    (job,) = (job for job in converts if str(file) in job.argv)
    place = job.argv.index("--pretrain")
    assert list(job.argv[place + 1 : place + 1 + len(facts)]) == facts
    assert facts[-1].startswith("epochs") and not any(
        "--pretrain" in other.argv for other in converts if other is not job
    )
