"""``densessl prepare``: label images derived from the originals, which stay as they are."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import densessl
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer import datasets
from densessl.d2_transfer.datasets.prepare import work
from densessl.d2_transfer.datasets.prepare.main import NAMES, main

REPOSITORY = Path(__file__).parents[2]
DERIVED = {  # what prepare writes, as patterns below the data sets
    "voc_aug": ["voc_aug/**/*"],
    "cityscapes": ["cityscapes/gtFine/*/*/*_labelTrainIds.png"],
    "ade20k": ["ADEChallengeData2016/annotations_detectron2/*/*"],
    "coco_panoptic": ["coco/panoptic_stuff_*/*"],
}
DATA_SETS = {
    "voc_aug": ["voc_2012_aug_semseg_train", "voc_2012_semseg_val"],
    "cityscapes": ["cityscapes_fine_sem_seg_train", "cityscapes_fine_sem_seg_val"],
    "ade20k": ["ade20k_sem_seg_train", "ade20k_sem_seg_val"],
    "coco_panoptic": [f"coco_2017_{split}_panoptic_separated" for split in ("train", "val")],
}
ADE = "ADEChallengeData2016"
OTHERS = ("imagenet", "VOC2007", "Annotations", "SegmentationObject", "*_color.png")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def derived(root: Path, name: str) -> dict[str, np.ndarray | str]:
    """What prepare writes, by its path: pixels or text."""
    found = [path for pattern in DERIVED[name] for path in sorted(root.glob(pattern))]
    return {
        str(path.relative_to(root)): pixels(path) if path.suffix == ".png" else path.read_text()
        for path in found
        if path.is_file()
    }


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def states(root: Path) -> dict[Path, tuple[int, int]]:
    """Every file's time and size."""
    found = {path: path.stat() for path in root.rglob("*") if path.is_file()}
    return {path: (each.st_mtime_ns, each.st_size) for path, each in found.items()}


def run(name: str, root: Path, *more: str) -> int:
    return main([name, "--data", str(root), "--workers", "1", *more])


@pytest.fixture
def bare(scenes, tmp_path) -> Path:
    """The scenes as the real data sets are published: nothing derived."""
    root = tmp_path / "bare"
    shutil.copytree(scenes, root, ignore=shutil.ignore_patterns(*OTHERS))
    for name in NAMES:
        for path in derived(root, name):
            (root / path).unlink()
    return root


@pytest.mark.parametrize("name", NAMES)
def test_prepare_gives_what_the_scenes_come_with_and_touches_nothing_else(name, scenes, bare):
    before = states(bare)
    assert not derived(bare, name)
    with pytest.raises(InputError, match=f"fix it with: densessl prepare {name} --data {bare}"):
        datasets.check(DATA_SETS[name], bare)
    assert run(name, bare) == 0
    assert same(derived(bare, name), derived(scenes, name)) and derived(bare, name)
    assert {path: state for path, state in states(bare).items() if path in before} == before
    assert datasets.check(DATA_SETS[name], bare) == bare


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_has_nothing_to_do(name, bare, capsys):
    run(name, bare)
    assert "wrote" in capsys.readouterr().out
    before = states(bare)
    assert run(name, bare) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert states(bare) == before


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_written_again_and_only_that(name, scenes, bare):
    run(name, bare)
    lost = [bare / path for path in derived(bare, name) if path.endswith(".png")][::3]
    before = states(bare)
    for path in lost:
        path.unlink()
    assert run(name, bare) == 0
    assert same(derived(bare, name), derived(scenes, name))
    after = states(bare)
    assert {path for path in after if after[path] != before[path]} == set(lost)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["pixel", "cut", "colour"])
def test_a_wrong_label_image_is_named_and_never_overwritten(name, damage, bare):
    run(name, bare)
    path = bare / next(path for path in derived(bare, name) if path.endswith(".png"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    else:
        values = pixels(path).copy()
        values[0, 0] = (values[0, 0] + 1) % 19
        Image.fromarray(values).convert("L" if damage == "pixel" else "RGB").save(path)
    before = states(bare)
    with pytest.raises(InputError) as caught:
        run(name, bare)
    assert str(path) in str(caught.value) and "remove it and run" in str(caught.value)
    assert states(bare) == before


def test_several_processes_write_the_same(bare, scenes):
    assert main(["ade20k", "--data", str(bare), "--workers", "2"]) == 0
    assert same(derived(bare, "ade20k"), derived(scenes, "ade20k"))


# VOC --------------------------------------------------------------------------------------------


def voc(root: Path) -> tuple[Path, Path]:
    return root / "VOC2012", root / "benchmark_RELEASE" / "dataset"


def test_the_list_is_vocs_train_and_sbd_without_vocs_val(bare):
    run("voc_aug", bare)
    base, sbd = voc(bare)
    lists = base / "ImageSets" / "Segmentation"
    train, val = ((lists / f"{split}.txt").read_text().split() for split in ("train", "val"))
    in_sbd = {
        name for split in ("train", "val") for name in (sbd / f"{split}.txt").read_text().split()
    }
    assert in_sbd & set(val) and in_sbd - set(train)  # or the rule would not show
    augmented = (bare / "voc_aug" / "train_aug.txt").read_text().split()
    assert augmented == sorted((set(train) | in_sbd) - set(val))
    assert (bare / "voc_aug" / "val.txt").read_text().split() == val


def test_vocs_own_masks_win_and_sbds_fill_the_rest(bare):
    run("voc_aug", bare)
    base, _ = voc(bare)
    train = (base / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    for path in (bare / "voc_aug" / "labels").iterdir():
        with Image.open(path) as picture:
            assert picture.mode == "L"
        void = (pixels(path) == 255).any()
        evaluated = len(path.stem) > len("2012_000001")
        assert void == (path.stem in train or evaluated)  # SBD's masks have no void
        if void:
            assert np.array_equal(pixels(path), pixels(base / "SegmentationClass" / path.name))


@pytest.mark.parametrize("below", ["", "SBD", "elsewhere"])
@pytest.mark.parametrize("ready", [False, True])
def test_sbd_is_found_below_the_data_or_where_the_flag_says(below, ready, bare, scenes, tmp_path):
    """``ready``: a folder SegmentationClassAug with PNGs, as others have made it of SBD and VOC."""
    _, sbd = voc(bare)
    place = tmp_path / "elsewhere" if below == "elsewhere" else bare / below
    place.mkdir(exist_ok=True)
    if ready:
        shutil.copytree(scenes / "voc_aug" / "labels", place / "SegmentationClassAug")
    elif below:
        shutil.copytree(sbd, place / "dataset")
    if ready or below:
        shutil.rmtree(sbd)
    flag = ["--sbd", str(place)] if below == "elsewhere" else []
    assert run("voc_aug", bare, *flag) == 0
    assert same(derived(bare, "voc_aug"), derived(scenes, "voc_aug"))


def test_without_sbd_the_message_says_how_to_name_it(bare):
    shutil.rmtree(voc(bare)[1])
    with pytest.raises(InputError, match=r"neither SBD .* --sbd DIR"):
        run("voc_aug", bare)
    with pytest.raises(InputError, match=r"neither SBD .* --sbd DIR"):
        datasets.check(DATA_SETS["voc_aug"], bare)


def spoil_voc(root: Path, fault: str) -> str:
    """Make something wrong in VOC or SBD; what the message has to say."""
    base, sbd = voc(root)
    mask = sorted((base / "SegmentationClass").iterdir())[0]
    mat = sorted((sbd / "cls").glob("*.mat"))[1]
    if fault == "colours":
        Image.open(mask).convert("RGB").save(mask)
        return f"{mask} is a picture in colour (RGB)"
    if fault == "value":
        values = pixels(mask).copy()
        values[0, 0] = 38
        Image.fromarray(values).save(mask)
        return f"{mask} has pixels of value 38; allowed: 0 to 20 and 255"
    if fault == "mask":
        mask.unlink()
        return f"lists {mask.stem}, not in {mask.parent}"
    if fault == "list":
        (base / "ImageSets/Segmentation/val.txt").write_text("\n")
        return "val.txt lists no image"
    if fault == "image":
        (base / "JPEGImages" / f"{mat.stem}.jpg").unlink()
        return f"{mat.stem}, not in {base / 'JPEGImages'}"
    if fault == "mat absent":
        mat.unlink()
        return f"lists {mat.stem}, not in {sbd / 'cls'}"
    if fault == "sbd list":
        (sbd / "train.txt").unlink()
        return f"{sbd / 'train.txt'} is not there"
    if fault == "mat damaged":
        mat.write_bytes(mat.read_bytes()[:200])
        return f"{mat} is not a mask of SBD"
    if fault == "mat other":
        savemat(mat, {"GTinst": {"Segmentation": np.zeros((64, 64), np.uint8)}})
        return f"{mat} is not a mask of SBD"
    labels = np.zeros((64, 63) if fault == "mat size" else (64, 64), np.uint8)
    labels[0, 0] = 21 if fault == "mat value" else 0
    savemat(mat, {"GTcls": {"Segmentation": labels}})
    return "is 63×64 pixels, but its image" if fault == "mat size" else "pixels of value 21"


@pytest.mark.parametrize(
    "fault",
    [
        "colours",
        "value",
        "mask",
        "list",
        "image",
        "sbd list",
        "mat absent",
        "mat damaged",
        "mat other",
        "mat size",
        "mat value",
    ],
)
def test_faults_of_voc_and_sbd_are_named(bare, fault, capsys):
    words = spoil_voc(bare, fault)
    assert densessl.main(["prepare", "voc_aug", "--data", str(bare), "--workers", "1"]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not (bare / "voc_aug" / "train_aug.txt").exists()  # what says that all is there


# Cityscapes and ADE20K --------------------------------------------------------------------------


def test_train_ids_are_those_of_cityscapes_own_tool(bare):
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    run("cityscapes", bare)
    compared = 0
    for path in bare.glob("cityscapes/gtFine/*/*/*_polygons.json"):
        annotation = Annotation()
        annotation.fromJsonFile(str(path))
        painted = np.asarray(createLabelImage(annotation, "trainIds"))
        target = Path(str(path).replace("polygons.json", "labelTrainIds.png"))
        assert np.array_equal(pixels(target), painted)
        compared += 1
    assert compared == 18


def test_a_label_id_that_cityscapes_has_not_is_named(bare, capsys):
    path = next(bare.glob("cityscapes/gtFine/val/*/*_labelIds.png"))
    values = pixels(path).copy()
    values[3, 3] = 34
    Image.fromarray(values).save(path)
    assert densessl.main(["prepare", "cityscapes", "--data", str(bare), "--workers", "1"]) == 2
    assert f"{path} has pixels of value 34" in capsys.readouterr().err
    assert not Path(str(path).replace("labelIds", "labelTrainIds")).exists()


def test_a_missing_label_file_is_named_before_anything_is_written(bare, capsys):
    path = next(bare.glob("cityscapes/gtFine/val/*/*_labelIds.png"))
    path.unlink()
    assert densessl.main(["prepare", "cityscapes", "--data", str(bare), "--workers", "1"]) == 2
    name = path.name.removesuffix("_gtFine_labelIds.png")
    assert f"{name} have no *_gtFine_labelIds.png" in capsys.readouterr().err
    assert not derived(bare, "cityscapes")


@pytest.mark.parametrize(
    "fault, words",
    [
        ("value", "has pixels of value 151; allowed: 0 to 150"),
        ("void", "has pixels of value 255; allowed: 0 to 150"),
        ("colours", "is a picture in colour (RGB)"),
        ("size", "is 50×64 pixels, but its image"),
        ("picture", "not in"),
        ("folder", "images/training is not there"),
    ],
)
def test_faults_of_ade20k_are_named(bare, fault, words, capsys):
    path = sorted((bare / ADE / "annotations" / "training").iterdir())[2]
    values = pixels(path).copy()
    if fault in ("value", "void"):
        values[0, 0] = 151 if fault == "value" else 255
        Image.fromarray(values).save(path)
    elif fault == "colours":
        Image.fromarray(values).convert("RGB").save(path)
    elif fault == "size":
        Image.fromarray(values[:, :50]).save(path)
    elif fault == "picture":
        (bare / ADE / "images" / "training" / f"{path.stem}.jpg").unlink()
    else:
        shutil.rmtree(bare / ADE / "images" / "training")
    assert densessl.main(["prepare", "ade20k", "--data", str(bare), "--workers", "1"]) == 2
    said = capsys.readouterr().err
    assert words in said and (fault == "folder" or path.stem in said)


# The command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["ade"], "Did you mean 'ade20k'?"),
        (["ade20k", "--sbd", "."], "only voc_aug reads it"),
        (["voc_aug", "--sbd", "nowhere"], "which is no folder"),
        (["ade20k", "--workers", "0"], "--workers: the value is 0; it must be at least 1"),
        (["ade20k", "--data", "nowhere"], "nowhere is not there (from --data)"),
        ([], "NAME"),
        (["ade20k", "--date", "x"], "Did you mean '--data'?"),
    ],
)
def test_bad_arguments_are_named(arguments, words, capsys):
    assert densessl.main(["prepare", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_too_little_disk_is_said_before_anything_is_written(bare, monkeypatch):
    monkeypatch.setattr(work.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(EnvironmentLacks, match="18 label images need about"):
        run("ade20k", bare)
    assert not derived(bare, "ade20k")


def test_a_folder_that_cannot_be_written_is_said(bare):
    shutil.rmtree(bare / "voc_aug")
    (bare / "voc_aug").write_text("in the way")
    with pytest.raises(EnvironmentLacks, match="cannot be written"):
        main(["voc_aug", "--data", str(bare), "--workers", "2"])


def many_labels(root: Path, count: int) -> Path:
    """An ADE20K of ``count`` noisy label images, which take a while to write."""
    rng = np.random.default_rng(0)
    for split, number in (("training", count), ("validation", 1)):
        for n in range(number):
            values = rng.integers(0, 151, (300, 300), dtype=np.uint8)
            for folder, ending in (("annotations", "png"), ("images", "jpg")):
                path = root / ADE / folder / split / f"ADE_{n:04d}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return root


def stopped(root, number):
    """A ``densessl prepare ade20k`` that is told to stop when it has begun to write."""
    targets = root / ADE / "annotations_detectron2" / "training"
    command = [sys.executable, "-m", "densessl", "prepare", "ade20k", "--data", str(root)]
    process = subprocess.Popen(
        [*command, "--workers", "2"], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    while not targets.is_dir() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    _, said = process.communicate()
    return process, said


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_stop_leaves_whole_files_and_the_same_command_goes_on(tmp_path, number):
    for attempt in range(5):  # on a busy machine it may be done before the signal is sent
        root = many_labels(tmp_path / str(attempt), 160 << attempt)
        process, said = stopped(root, number)
        if process.returncode != 0:
            break
    targets = root / ADE / "annotations_detectron2" / "training"
    count = len(list((root / ADE / "annotations" / "training").iterdir()))
    assert process.returncode == 75, said
    assert "resumes" in said and "Traceback" not in said
    written = sorted(targets.iterdir())
    assert 0 < len(written) < count
    assert all(path.suffix == ".png" for path in written)  # no half files
    before = {path: path.stat().st_mtime_ns for path in written}
    assert run("ade20k", root) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == before
    for path in sorted((root / ADE / "annotations").glob("*/*.png")):
        labels = pixels(path).astype(int)
        target = root / ADE / "annotations_detectron2" / path.parent.name / path.name
        assert np.array_equal(pixels(target), np.where(labels == 0, 255, labels - 1))


def test_the_front_door_lists_the_verb(capsys):
    assert densessl.main(["--help"]) == 0
    assert "prepare" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        densessl.main(["prepare", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)


def test_another_number_of_images_is_a_warning(bare, capsys):
    assert densessl.main(["prepare", "ade20k", "--data", str(bare), "--workers", "1"]) == 0
    assert "ade20k_sem_seg_train has 12, not 20210" in capsys.readouterr().err
