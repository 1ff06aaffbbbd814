import os
import re
import subprocess
import sys

import pytest

import densessl
from densessl.core import install
from densessl.d2_transfer import doctor

WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
import densessl
sys.exit(densessl.main(["doctor"]))
"""


def doctor_without(*names: str) -> subprocess.CompletedProcess:
    """``densessl doctor`` in a process of its own where these packages cannot be imported."""
    code = WITHOUT.format(names=names)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def lines_of(output: str) -> dict[str, str]:
    """part -> state, of the plain lines."""
    lines = [line for line in output.splitlines() if not line.startswith(" ")]
    return {line[9:28].strip(): line[:9].strip() for line in lines}


def test_here_the_main_job_can_run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert densessl.main(["doctor"]) == 0
    output = capsys.readouterr().out
    states = lines_of(output)
    for part in (
        "Python",
        "torch",
        "torchvision",
        "libraries",
        "Detectron2",
        "PointRend, DeepLab",
        "pycocotools",
        "readers",
    ):
        assert states[part] == "ok"
    assert states["VOC"] == states["COCO"] == "optional"
    assert "\x1b" not in output  # no colours when piped


def test_a_data_set_that_detectron2_cannot_read_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "shapely", None)  # importing it now fails
    monkeypatch.delitem(
        sys.modules, "densessl.d2_transfer.datasets.cityscapes_objects", raising=False
    )
    (found,) = doctor._reading()
    assert (found.part, found.state, found.fix) == ("readers", doctor.OPTIONAL, "make setup")
    named = re.findall(r"(\w+): ModuleNotFoundError: import of shapely", found.detail)
    assert named == [f"cityscapes_fine_instance_seg_{split}" for split in ("train", "val")]
    assert "coco" not in found.detail


def test_every_line_that_is_not_ok_and_can_be_mended_says_how(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = {finding.part: finding for finding in doctor.examine()}
    assert findings["Slurm"].state == doctor.OPTIONAL and "apt-get" in findings["Slurm"].fix
    for finding in findings.values():
        assert finding.fix or finding.state == doctor.OK or finding.part == "CUDA", finding


def test_without_detectron2_and_torchvision_it_says_so_and_exits_3():
    done = doctor_without("detectron2", "torchvision")
    assert done.returncode == 3, done.stderr
    states = lines_of(done.stdout)
    assert states["Detectron2"] == states["torchvision"] == "missing"
    assert states["torch"] == "ok"
    assert "make setup" in done.stdout and "make detectron2-main" in done.stdout
    assert "torchvision, Detectron2" in done.stderr


def test_without_the_extra_it_says_that_pretraining_runs():
    names = [name for name, extra in install.EXTRAS.items() if extra == "transfer"]
    done = doctor_without(*names, "detectron2")
    assert done.returncode == 3, done.stderr
    states = lines_of(done.stdout)
    assert states["extra 'transfer'"] == states["Detectron2"] == states["pycocotools"] == "missing"
    assert "libraries" not in states
    assert done.stderr.strip().startswith("pretrain can run; transfer")


def test_without_anything_it_still_runs():
    done = doctor_without(
        *("torch", "torchvision", "detectron2", "numpy", "PIL", "rich", "fvcore", "iopath"),
        *("pycocotools", "faster_coco_eval", "cityscapesscripts", "submitit", "yaml"),
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    states = lines_of(done.stdout)
    assert states["torch"] == states["libraries"] == states["pycocotools"] == "missing"
    assert states["faster-coco-eval"] == states["submitit"] == "optional"
    assert "rich" in done.stdout and "fvcore" in done.stdout


def test_optional_parts_do_not_stop_the_main_job(capsys, monkeypatch):
    for name in ("faster_coco_eval", "cityscapesscripts", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    assert doctor.main([]) == 0
    states = lines_of(capsys.readouterr().out)
    assert states["submitit"] == states["cityscapesScripts"] == "optional"
    assert states["faster-coco-eval"] == "optional"


@pytest.fixture
def coco(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("instances_train2017", "instances_val2017"):
        file = tmp_path / "coco" / "annotations" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    for split in ("train2017", "val2017"):
        (tmp_path / "coco" / split).mkdir()
        (tmp_path / "coco" / split / "1.jpg").write_bytes(b"")
    return tmp_path / "coco"


def found(part: str) -> doctor.Finding:
    return {finding.part: finding for finding in doctor._data_sets()}[part]


def test_a_data_set_is_found(coco):
    assert found("COCO").state == doctor.OK
    assert found("VOC").state == doctor.OPTIONAL


def test_an_incomplete_data_set_names_what_is_absent(coco):
    (coco / "val2017" / "1.jpg").unlink()  # an empty folder is no data
    finding = found("COCO")
    assert finding.state == doctor.OPTIONAL and "1 of 4" in finding.detail
    assert "coco/val2017" in finding.fix and "train2017" not in finding.fix


def test_little_disk_stops_the_main_job(monkeypatch):
    usage = type("usage", (), {"free": 0.5e9})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert [finding.state for finding in doctor._disk()] == [doctor.MISSING]


TERMINAL = """
import pty, sys
show = (
    "from densessl.d2_transfer import doctor; "
    "doctor._show([doctor.Finding('ops', doctor.MISSING, 'kept [0], not [0, 2]', 'make setup')])"
)
sys.exit(pty.spawn([sys.executable, "-c", show]) >> 8)
"""


def test_a_terminal_gets_a_table():
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm-256color"}
    done = subprocess.run([sys.executable, "-c", TERMINAL], capture_output=True, env=environment)
    assert done.returncode == 0
    screen = done.stdout.decode()
    assert "\x1b[" in screen and "densessl doctor" in screen
    assert "kept [0], not [0, 2]" in screen and "make setup" in screen


def test_beside_a_wheel_pip_installs_what_is_missing(monkeypatch):
    monkeypatch.setattr("densessl.core.install.CHECKOUT", False)
    for name in ("timm", "submitit", "cityscapesscripts", "torchvision", "detectron2.modeling"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    findings = doctor.examine()
    fixes = {finding.part: finding.fix for finding in findings}
    assert fixes["timm (for ViTs)"] == "pip install 'densessl[vit]'"
    assert fixes["submitit"] == "pip install 'densessl[cluster]'"
    assert fixes["cityscapesScripts"] == "pip install 'densessl[transfer]'"
    assert fixes["torchvision"] == "pip install densessl"
    assert "'densessl[transfer]' && pip" in fixes["Detectron2"]
    assert not any("make " in finding.fix for finding in findings)


def test_every_data_set_tells_which_protocols_read_it():
    readers = {name: doctor._readers(facts[1]) for name, facts in doctor.DATA_SETS.items()}
    assert readers["COCO"] == (
        "coco_mask_c4_*, coco_mask_fpn_*, coco_retinanet_*, coco_fcos_*, coco_cascade_mask_fpn_*, "
        "coco_panoptic_fpn_*, coco_pointrend_*, coco_vitdet_b_100ep"
    )
    assert readers["Cityscapes"] == "cityscapes_inst, cityscapes_semseg, dense probes"
    assert all(readers.values())
