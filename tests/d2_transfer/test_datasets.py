"""The checks of the data sets, and Detectron2's catalogs pointed at a folder."""

import shutil

import pytest

from console.errors import InputError
from d2_transfer import compat, datasets, main
from d2_transfer.protocols import PROTOCOLS

compat.setup()  # before any test imports Detectron2
EVERY = [name for protocol in PROTOCOLS.values() for name in protocol.datasets]


def test_scenes_pass_for_every_protocol(scenes):
    assert datasets.check(EVERY, scenes) == scenes


def test_a_missing_folder_is_one_message_that_says_where_and_what(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(InputError) as caught:
        datasets.check(["voc_2007_test", "coco_2017_val"])
    message = str(caught.value)
    assert str(tmp_path / "nowhere") in message and "DETECTRON2_DATASETS" in message
    assert "VOC2007/{Annotations,ImageSets/Main/test.txt,JPEGImages}" in message
    assert "coco/annotations/instances_val2017.json" in message


@pytest.mark.parametrize(
    "name, lost",
    [
        ("voc_2007_test", "VOC2007/ImageSets/Main/test.txt"),
        ("voc_2012_trainval", "VOC2012/JPEGImages"),
        ("voc_2007_trainval", "VOC2007/Annotations"),
        ("coco_2017_train", "coco/annotations/instances_train2017.json"),
        ("coco_2017_val", "coco/val2017"),
    ],
)
def test_whatever_is_lost_is_named(scenes, tmp_path, name, lost):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    place = copy / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(InputError) as caught:
        datasets.check(EVERY, copy)
    assert f"{name}: {place} is not there" in str(caught.value)


def test_files_that_do_not_fit_together_are_named(scenes, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    (copy / "VOC2007/ImageSets/Main/test.txt").write_text("")
    (copy / "VOC2012/ImageSets/Main/trainval.txt").write_text("2008_999999\n")
    (copy / "coco/annotations/instances_val2017.json").write_text("<html>not found</html>")
    with pytest.raises(InputError) as caught:
        datasets.check(EVERY, copy)
    for words in ("lists no image", "lists 2008_999999", "not a JSON object"):
        assert words in str(caught.value)


def test_an_unknown_data_set_gets_the_nearest(scenes):
    with pytest.raises(InputError, match="'voc_2007_test'"):
        datasets.check(["voc_2007_tset"], scenes)


def test_the_flag_wins_over_the_variable(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert datasets.root_folder(scenes) == (scenes, "--data")
    assert datasets.root_folder() == (tmp_path, "DETECTRON2_DATASETS")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert datasets.root_folder()[0].name == "datasets"


def test_registration_moves_every_data_set_and_keeps_its_classes(scenes, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(scenes, elsewhere)
    for root in (scenes, elsewhere):
        datasets.register(root)
        for name, count in (
            ("voc_2007_trainval", None),
            ("voc_2007_test", 6),
            ("coco_2017_val", 6),
        ):
            entries = DatasetCatalog.get(name)
            assert entries and (count is None or len(entries) == count)
            assert all(entry["file_name"].startswith(str(root)) for entry in entries)
    assert len(MetadataCatalog.get("voc_2007_test").thing_classes) == 20
    assert MetadataCatalog.get("voc_2007_test").evaluator_type == "pascal_voc"
    coco = MetadataCatalog.get("coco_2017_train")
    assert len(coco.thing_classes) == 80 and coco.evaluator_type == "coco"
    assert len(coco.thing_dataset_id_to_contiguous_id) == 80


def test_the_command_stops_before_it_writes_anything(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    out = tmp_path / "out"
    with pytest.raises(InputError, match="data sets are missing"):
        main.main(["random", "--protocol", "voc_det_c4", "--mini", "-o", str(out)])
    assert not out.exists()


def test_too_little_disk_is_said_before_anything_runs(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(main.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 8, 1))
    words = ["random", "--protocol", "voc_det_c4", "--data", str(scenes)]
    with pytest.raises(InputError, match="0.0 GB free; 5 trials of voc_det_c4 need about 1.4 GB"):
        main.main([*words, "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
