"""Truncated JPEGs, used as far as they go where the user says so."""

import io

import numpy as np
import pytest
from PIL import Image

from densessl.decoding import UnreadableImage, decode
from densessl.decoding.truncated import ended
from densessl.pretrain import config
from densessl.pretrain.views import build_source
from densessl.pretrain.views.dataset import build_dataset


def jpeg(**options) -> bytes:
    """A ramp from black to white, from above to below."""
    ramp = np.repeat(np.arange(0, 256, 2, np.uint8)[:, None], 96, 1)
    stream = io.BytesIO()
    Image.fromarray(ramp).convert("RGB").save(stream, "jpeg", quality=95, **options)
    return stream.getvalue()


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_keeps_what_it_has(progressive, share, tmp_path):
    whole = jpeg(progressive=progressive)
    (tmp_path / "cut.jpg").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "cut.jpg")
    found = np.asarray(decode(ended(tmp_path / "cut.jpg")).image).astype(int)
    expected = np.asarray(Image.open(io.BytesIO(whole))).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found[:32] - expected[:32]).max() <= 8 * (1 + progressive)


def test_other_files_have_no_end_to_add(tmp_path):
    for name, data in (
        ("whole.jpg", jpeg()),
        ("head.jpg", jpeg()[:100]),
        ("a.png", b"\x89PNG\r\n"),
        ("empty.jpg", b""),
    ):
        (tmp_path / name).write_bytes(data)
        assert ended(tmp_path / name) is None, name
    assert ended(tmp_path / "absent.jpg") is None


def test_pretraining_takes_them_if_it_is_told_to(tmp_path):
    whole = jpeg()
    (tmp_path / "a.jpg").write_bytes(whole)
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    cfg = config.defaults()
    cfg.DATA.PATH = str(tmp_path)
    unread = []
    for cfg.DATA.TRUNCATED in (False, True):
        unread.append(build_dataset(cfg, build_source(cfg), None)[0, 1].unreadable)
    assert unread == [[1], []]
