"""The files of the papers' tables: one for each, right names, one way to measure, honest costs."""

import re
from collections import Counter

import pytest

from d2_transfer.protocols import PROTOCOLS
from d2_transfer.tables import layouts, published
from pretrain import config as pretraining
from slurm import cost, data, expansion, pipeline
from slurm.graph import in_order

PAPERS = ("SetSim", "SCFS", "HoughCL", "ReSim")
TABLES = [name for name in pipeline.built_in() if name != "demo"]


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
    assert set(TABLES) == set(layouts.names())


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
def test_rows_and_protocols_are_those_of_the_papers_table(name):
    spec, layout = pipeline.read(name), layouts.find(name)
    assert spec.paper == name and len(spec.rows) == len(layout.rows)
    for ours, theirs in zip(spec.rows, layout.rows, strict=True):
        assert ours.pretrain in (theirs.configs or ("",)), ours.method
        if not theirs.configs:  # others' methods: brought along, or published alone
            start = theirs.known_as if theirs.known_as in pipeline.STARTS else ""
            assert ours.start == start, ours.method
            assert ours.weights == ("" if start else "official"), ours.method
        told = {key: value for key, value in theirs.options if value}
        assert told.items() <= ours.transfer.items(), ours.method
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
    assert set(measured) == {(each.protocol, each.variant) for each in layout.columns}
    assert max(measured.values()) == 1
    for each in spec.protocols:  # their options, too: which classes, say
        options = [dict(c.options) for c in layout.columns if c.protocol == each.name]
        assert {key: value for key, value in options[0].items() if value} == each.options


@pytest.mark.parametrize("name", TABLES)
def test_no_variants_of_one_protocol_are_mixed(name, expanded):
    variants = {}
    for job in of_verb(expanded(name), "transfer"):
        protocol = option(job, "--protocol")
        if protocol != "finetune_cls":  # whose variants are data sets
            variants.setdefault(protocol, set()).add(option(job, "--variant"))
    assert all(len(each) == 1 for each in variants.values())


@pytest.mark.parametrize("name", TABLES)
def test_the_head_says_the_command_and_the_cost(name, expanded):
    found = expanded(name)
    head = found.spec.head.splitlines()
    assert head[0] == f"densessl reproduce {name} -o DIR --data DATA"
    hours = [cost.gpu_hours(job) for job in found.jobs]
    known, lacking = sum(filter(None, hours)), hours.count(None)
    assert known > 0
    assert all(cost.gpu_hours(job) > 0 for job in of_verb(found, "pretrain"))
    said = re.fullmatch(
        r"Cost: (at least )?([\d,]+) V100-hours: (\d+) pretrainings [\d,]+, (\d+) (?:\w|-)+ .+\.",
        head[-1],
    )
    assert said, head[-1]
    assert bool(said[1]) == bool(lacking) == ("no figure" in head[-1])
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
