"""The front door: verbs, messages and exit codes."""

import subprocess
import sys

import pytest

import densessl
from densessl.cli import VERBS
from densessl.core.errors import InputError, StoppedEarly


def test_unknown_verb_names_the_nearest(capsys):
    assert densessl.main(["convrt"]) == 2
    assert "Did you mean 'convert'?" in capsys.readouterr().err


def test_no_verb_shows_all_and_fails(capsys):
    assert densessl.main([]) == 2
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_and_refuses_an_unknown_flag(verb, capsys):
    try:
        code = densessl.main([verb, "--help"])
    except SystemExit as leaving:
        code = leaving.code
    assert code == 0
    assert f"densessl {verb}" in capsys.readouterr().out
    assert densessl.main([verb, "--no-such-flag"]) == 2
    assert capsys.readouterr().err.startswith(f"densessl {verb}: ")


@pytest.mark.parametrize(("error", "code"), [(InputError("x"), 2), (StoppedEarly("x"), 75)])
def test_errors_become_exit_codes_without_a_traceback(error, code, capsys, monkeypatch):
    from densessl.d2_transfer import doctor

    def fail(argv):
        raise error

    monkeypatch.setattr(doctor, "main", fail)
    assert densessl.main(["doctor"]) == code
    assert capsys.readouterr().err == "densessl doctor: x\n"


def test_a_path_that_cannot_be_written_is_one_message(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert densessl.main(["scenes", str(tmp_path / "file" / "below")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"densessl scenes: {tmp_path}/file/below") and "not a directory" in line
    assert densessl.main(["status", str(tmp_path / "file")]) == 2
    assert "not a directory" in capsys.readouterr().err


def test_help_does_not_load_torch():
    """A person who asks for help does not wait for a deep-learning library."""
    command = "import densessl, sys; densessl.main(['--help']); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert shown.stdout.splitlines()[-1] == "False"


def test_a_closed_pipe_is_no_error():
    run = subprocess.Popen(
        [sys.executable, "-m", "densessl", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run.stdout.close()
    assert b"Traceback" not in run.stderr.read()
    run.wait()


def test_python_m_densessl_is_the_command():
    run = subprocess.run([sys.executable, "-m", "densessl"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stdout.startswith("usage: densessl VERB")
