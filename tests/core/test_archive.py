"""Archives that unfold to far more than they are."""

import io
import zipfile

import numpy as np
import pytest

from densessl.core import archive
from densessl.core.errors import EnvironmentLacks, InputError

ZEROS = bytes(2**20)


def bomb(path, members: int = 300, shared: bool = False):
    """A zip of 0.3 MB whose directory says ``members`` MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(1 if shared else members):
            made.writestr(f"archive/data/{number}", ZEROS)
        made.writestr("archive/data.pkl", b"\x80\x02}.")
        if shared:  # every further entry of the directory points to the bytes of the first
            made.filelist += [made.filelist[0]] * members
    return path


def test_a_bomb_is_told_by_its_directory(tmp_path):
    with pytest.raises(InputError, match=r"b\.zip: its .* kB unfold to 314\.6 MB"):
        archive.check_file(bomb(tmp_path / "b.zip"))


def test_members_that_share_their_bytes(tmp_path):
    bomb(tmp_path / "b.zip", members=100, shared=True)
    with pytest.raises(InputError, match="zip bomb"):
        archive.check_file(tmp_path / "b.zip")


def test_ordinary_archives_pass(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", queue=np.zeros(2**20))  # 8 MB of zeros
    np.savez(tmp_path / "plain.npz", values=np.arange(1000))
    (tmp_path / "text").write_text("no archive")
    for name in ("zeros.npz", "plain.npz", "text", "absent"):
        archive.check_file(tmp_path / name)


def test_a_damaged_directory_is_left_to_who_reads_it(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, values=np.arange(1000))
    data = bytearray(stream.getvalue())
    data[data.rindex(b"PK\x01\x02")] = 0
    (tmp_path / "c.npz").write_bytes(data)
    archive.check_file(tmp_path / "c.npz")


def test_more_than_the_memory_is_the_environments_lack(monkeypatch):
    monkeypatch.setattr(archive, "available_memory", lambda: 10**6)
    with pytest.raises(EnvironmentLacks, match="2.0 MB, and 1.0 MB of memory are free"):
        archive.check_size(2 * 10**6, 2 * 10**6)
    archive.check_size(2 * 10**6, 2 * 10**6, in_memory=False)
    assert archive.check_size(10**5, 10**5) is None


def test_the_system_tells_its_memory():
    assert archive.available_memory() > 2**20
