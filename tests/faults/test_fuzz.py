"""Whatever is written on the command line or lies in a file: one message, never a traceback."""

import re
import sys

import pytest

import densessl

from . import fuzzing

SEEDS = 2000
FAST = 200  # of them are among the fast tests
CODES = (0, 2, 3)
ADVICE = ("weights_only=False", "arbitrary code", "trusted source")  # PyTorch's: to unpickle it
KEY = re.compile(r"\b[A-Z][A-Z0-9_]+(\.[A-Z0-9_]+)*\b")  # an option of a config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        fuzzing.cluster(root / "bin", patch)
        fuzzing.prepare(root)
        yield root


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)
def test_one_message_and_no_traceback(made, tmp_path, monkeypatch, capsys, seed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(made / "scenes"))
    case = fuzzing.case(seed, made, tmp_path)
    capsys.readouterr()
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python has it, and pytest not
    try:
        code = densessl.main(case.words)
    except SystemExit as leaving:
        code = leaving.code
    shown = capsys.readouterr()
    told = f"{case.words} {shown.err[-3000:]}"
    assert code in CODES, told
    assert "Traceback" not in shown.out + shown.err, told
    if code:
        check_message(case, shown.err, told)


def check_message(case, err, told):
    verb = "".join(case.words[:1])
    _, begin, message = f"\n{err}".rpartition("\ndensessl")
    assert begin and message.startswith((f" {verb}: ", ": unknown verb")), told
    assert "\n\n" not in message and not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028]", message), told
    assert not any(words in message for words in ADVICE), told
    if case.damaged and not (case.damaged.suffix == ".yaml" and KEY.search(message)):
        places = (
            case.damaged.name,
            f"of {case.damaged.stem}: ",
            *(str(folder) for folder in case.damaged.parents[:2]),
        )
        assert any(place in message for place in places), told
