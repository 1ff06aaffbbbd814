"""The published numbers and the papers' layouts: complete, in our terms, each with its place."""

import math
from collections import Counter

import pytest

from densessl.configs import presets
from densessl.core.errors import DenseSSLError, InputError
from densessl.d2_transfer.protocols import PROTOCOLS
from densessl.d2_transfer.tables import from_paper, layouts, published

NUMBERS = published.read()


def number(source, table, method, metric, **more):
    """The one published value of that place."""
    found = [
        each
        for each in NUMBERS
        if (each.source, each.table, each.method, each.metric) == (source, table, method, metric)
        and all(getattr(each, name) == value for name, value in more.items())
    ]
    assert len(found) == 1, found
    return found[0]


def test_the_file_holds_every_number_of_the_four_papers():
    assert len(NUMBERS) == 846
    sources = Counter(each.source for each in NUMBERS)
    assert sources == {"SetSim": 196, "SCFS": 365, "HoughCL": 99, "ReSim": 186}


def test_key_numbers_are_those_of_the_papers():
    voc = {"protocol": "voc_det_c4", "dataset": "IN-1K"}
    assert number("SetSim", "Table4", "SetSim", "bbox/AP", **voc).value == 59.1
    assert number("SetSim", "Table5", "SetSim", "sem_seg/mIoU", protocol="voc_semseg").value == 70.9
    assert number("SetSim", "Table6", "DenseCL", "keypoints/AP").value == 66.6
    assert number("SCFS", "Table1", "SCFS", "knn/top1", epochs=800).value == 68.5
    assert number("SCFS", "Table2", "SCFS", "cls/top1", protocol="semisup_10pct").value == 70.5
    assert number("SCFS", "Table5", "SCFS", "cls/top1", variants=("pets",)).value == 91.9
    assert number("HoughCL", "VOC det", "HoughCL", "bbox/AP75", dataset="COCO").value == 63.0
    assert number("ReSim", "COCO (b) 2x", "ReSim-FPN^T", "segm/AP").value == 37.5


def test_the_suspect_numbers_are_the_poster_s_coco_ones_and_all_say_why():
    suspect = [each for each in NUMBERS if each.suspect]
    assert len(suspect) == 66
    assert {(each.source, each.table) for each in suspect} == {
        ("HoughCL", "COCO det"),
        ("HoughCL", "COCO inst"),
    }
    voc = {
        (each.method, each.dataset, each.metric.split("/")[1]): each.value
        for each in NUMBERS
        if (each.source, each.table) == ("HoughCL", "VOC det")
    }
    for each in suspect:  # what is wrong with them
        assert each.value == voc[each.method, each.dataset, each.metric.split("/")[1]]
        assert "repeats the VOC numbers" in each.notes[0]


def test_a_paper_s_differences_are_those_of_its_numbers():
    """Every printed difference against the layout's baseline, to the digits printed."""
    seen = 0
    for name in layouts.names():
        layout = layouts.find(name)
        for row in layout.rows:
            base = next(
                (r for r in layout.rows if r.label == layout.baselines[row.section]),
                None,
            )
            for each in row.numbers:
                if math.isnan(each.delta) or math.isnan(each.value):
                    continue
                (of,) = [n for n in base.numbers if n.metric == each.metric]
                assert each.delta == pytest.approx(each.value - of.value, abs=1e-6), (name, row)
                seen += 1
    assert seen == 127


def test_every_number_stands_at_exactly_one_place_of_one_layout():
    places = Counter()
    for name in layouts.names():
        layout = layouts.find(name)
        for row in layout.rows:
            for each in row.numbers:
                assert layouts.column_of(each, layout.columns) is not None, (name, each)
                places[each] += 1
    assert set(places) == set(NUMBERS)
    assert set(places.values()) == {1}


def test_no_two_numbers_of_a_row_share_a_column():
    for name in layouts.names():
        layout = layouts.find(name)
        for row in layout.rows:
            columns = [layouts.column_of(each, layout.columns).key for each in row.numbers]
            assert len(set(columns)) == len(columns), (name, row.label)


def test_labels_and_baselines_are_of_their_section_once():
    for name in layouts.names():
        layout = layouts.find(name)
        for section, baseline in enumerate(layout.baselines):
            rows = [row for row in layout.rows if row.section == section]
            labels = Counter((row.label, row.epochs) for row in rows)
            assert set(labels.values()) == {1}, name
            assert not baseline or [row.label for row in rows].count(baseline) == 1, name


def test_the_configs_of_all_rows_exist_and_none_is_two_rows_of_a_table():
    there = set(presets.built_in())
    for name in layouts.names():
        used = Counter()
        for row in layouts.find(name).rows:
            assert set(row.configs) <= there, (name, set(row.configs) - there)
            used.update((config, row.options) for config in row.configs)
        assert all(count == 1 for count in used.values()), name


def test_the_data_and_the_length_of_a_row_are_those_of_its_config():
    parts = {"IN-1K": "_in1k_", "IN-100": "_in100_", "COCO": "_coco_", "TinyImageNet": "_tiny"}
    for name in layouts.names():
        for row in layouts.find(name).rows:
            for config in row.configs:
                assert parts[row.data] in config, (name, row.label)
                if row.epochs and config != "scfs_r50_coco_500ep":  # the text's number of epochs
                    assert config.endswith(f"_{row.epochs}ep"), (name, row.label)


def test_columns_are_protocols_variants_and_metrics_that_exist():
    for name in layouts.names():
        for column in layouts.find(name).columns:
            protocol = PROTOCOLS[column.protocol]
            assert column.variant in protocol.variants, name
            assert column.metric in protocol.metrics, name


def test_the_groups_of_setsim_s_coco_table_are_the_paper_s():
    columns = layouts.find("setsim/table6").columns
    groups = [(column.group, column.head) for column in columns]
    assert groups == [
        (group, head)
        for group in ("Object Det.", "Instance Seg.", "Keypoint")
        for head in ("AP", "AP50", "AP75")
    ]


def test_an_unknown_table_is_named_with_the_nearest():
    with pytest.raises(InputError, match="unknown table 'setsim/tabel4'.*'setsim/table4'"):
        layouts.find("setsim/tabel4")


def test_a_variant_moves_the_columns_that_have_it_and_no_others():
    columns = layouts.find("setsim/table6", "4conv1fc").columns
    assert [column.variant for column in columns] == ["4conv1fc"] * 6 + [""] * 3
    with pytest.raises(InputError, match="unknown variant 'moco3fc'.*Did you mean 'moco2fc'"):
        layouts.find("setsim/table6", "moco3fc")
    with pytest.raises(InputError, match="setsim/table4 has no protocol with variants"):
        layouts.find("setsim/table4", "moco2fc")
    with pytest.raises(InputError, match="scfs/table5 has no protocol with variants"):
        layouts.find("scfs/table5", "pets")  # its variants are data sets


def test_the_rows_of_a_table_without_records_are_the_paper_s_in_its_order():
    table, placed = from_paper.build(layouts.find("setsim/table7"))
    assert [row.label for row in table.rows] == [
        "Random init.",
        "IN-1K sup.",
        "MoCo-v1",
        "MoCo-v2",
        "SwAV",
        "DenseCL",
        "PixPro",
        "ReSim-C4",
        "SetSim",
    ]
    assert {row.kind for row in table.rows} == {"published"}
    assert placed.messages == []


GOOD = "SetSim,Table4,SetSim,IN-1K,200,voc_det_c4,,,,bbox/AP,59.1,,0,"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (GOOD.replace("voc_det_c4", "voc_det"), "unknown protocol 'voc_det'.*'voc_det_c4'"),
        (GOOD.replace("bbox/AP", "bbox/mAP"), "unknown metric 'bbox/mAP'"),
        (GOOD.replace("c4,,", "c4,moco2fc,"), "unknown variant 'moco2fc'"),
        (GOOD.replace("59.1", "591"), "not per cent"),
        (GOOD.replace("59.1", "high"), "could not convert"),
        (GOOD.replace("59.1", ""), "neither a value nor a difference"),
        (GOOD.replace(",0,", ",1,"), "suspect, but no note"),
        (GOOD.replace(",0,", ",2,"), "'suspect' is '2'"),
        (GOOD.replace(",,,bbox", ",,sort,bbox"), "not NAME=VALUE: 'sort'"),
        (GOOD + "\n" + GOOD, "line 3: the same number stands there twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    file = tmp_path / "published.csv"
    file.write_text(",".join(published.COLUMNS) + f"\n{line}\n")
    with pytest.raises(DenseSSLError, match=said) as error:
        published.read(file)
    assert f"{file}, line " in str(error.value)
