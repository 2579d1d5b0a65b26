"""What the command line prints: once among the processes, and without the user's folder."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from hf_ftedit.cli.console import is_first_process, screens, without_home, written_to
from hf_ftedit.errors import NO_MEMORY


@pytest.mark.parametrize(("rank", "expected"), [(None, True), ("0", True), ("1", False)])
def test_one_process_prints(monkeypatch, rank, expected):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_process() is expected


def test_the_users_folder_is_not_told(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert without_home("/home/ann/out: no such folder") == "~/out: no such folder"
    assert without_home("/home/anna and /home/ann, /home/ann.old") == "/home/anna and ~, /home/ann.old"
    assert written_to("/home/ann/out", "the adapter") == "Written to ~/out: the adapter."


def test_a_home_at_the_root_hides_nothing(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert without_home("/tmp/out") == "/tmp/out"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where there is neither HOME nor a user
    assert without_home("/tmp/out") == "/tmp/out"


@contextmanager
def piped(text=False):
    """Standard output into a pipe, by its number, as a process has it."""
    reader, writer = os.pipe()
    stream = open(writer, "w", encoding="ascii" if text else "utf-8")  # noqa: SIM115
    yield reader, stream
    stream.close()


def test_a_reader_that_goes_away_stops_nothing(monkeypatch):
    with piped() as (reader, stream):
        monkeypatch.setattr(sys, "stdout", stream)
        with screens() as out:
            os.close(reader)
            for _ in range(3):
                print("x" * 10_000, flush=True)
            os.write(stream.fileno(), b"of a library in C")
        assert isinstance(out.error, BrokenPipeError) and sys.stdout is stream


def test_what_a_terminal_cannot_show_is_escaped_and_secrets_are_masked(monkeypatch):
    with piped(text=True) as (reader, stream):
        monkeypatch.setattr(sys, "stdout", stream)
        with screens():
            print("┃ Zürich │ 東 --token=abc")
        assert os.read(reader, 1000) == b"| Z\\xfcrich | \\u6771 --token=***\n"
        os.close(reader)


RUN = "import os, sys; from hf_ftedit.cli import main; {}; raise SystemExit(main({}))"


def ended(args, before="pass", **settings):
    """The exit code of the command line, and what it said on standard error."""
    command = [sys.executable, "-c", RUN.format(before, args)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=600, **settings)
    return done.returncode, done.stderr


def test_standard_streams_that_are_full_closed_or_broken():
    reader, writer = os.pipe()
    os.close(reader)
    assert ended(["--help"], stdout=writer) == (141, "")
    os.close(writer)
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            code, line = ended(["--help"], stdout=full)
            assert code == 2 and line.startswith("hf-ftedit: standard output: ") and line.count("\n") == 1
            done = subprocess.run([sys.executable, "-c", RUN.format("pass", ["edit"])], stderr=full, timeout=600)
            assert done.returncode == 2
    for closed in ("os.close(1), setattr(sys, 'stdout', None)", "os.close(2), setattr(sys, 'stderr', None)"):
        assert ended(["edit"], before=closed)[0] == 2
    assert ended(["--help"], before="os.close(2), setattr(sys, 'stderr', None)", stdout=subprocess.DEVNULL)[0] == 0


def test_a_fault_of_ours_has_its_own_exit_code_and_a_traceback_without_secrets():
    before = "import hf_ftedit.cli.verify as v; v.run = lambda args: {}['hf_abcdefgh\\x1b']"
    code, shown = ended(["verify", "x"], before=before, stdout=subprocess.DEVNULL)
    assert code == 70 and shown.startswith("Traceback ") and "KeyError: 'hf_***" in shown and "\x1b" not in shown
    before = "import hf_ftedit.cli.verify as v; v.run = lambda args: bytearray(10**18)"
    code, line = ended(["verify", "x"], before=before, stdout=subprocess.DEVNULL)
    assert (code, line) == (2, f"hf-ftedit: {NO_MEMORY}\n")
    before = (
        "import tempfile as t; t._candidate_tempdir_list = lambda: ['/nowhere']; import hf_ftedit.cli.verify as v; "
    )
    before += "v.run = lambda args: t.mkdtemp()"
    code, line = ended(["verify", "x"], before=before, stdout=subprocess.DEVNULL)
    assert code == 2 and "No usable temporary directory found in ['/nowhere']; " in line and line.count("\n") == 1
