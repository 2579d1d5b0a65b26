"""What the command line prints: once among the processes, and without the user's folder."""

from pathlib import Path

import pytest

from hf_ftedit.cli.console import is_first_process, without_home, written_to


@pytest.mark.parametrize(("rank", "expected"), [(None, True), ("0", True), ("1", False)])
def test_one_process_prints(monkeypatch, rank, expected):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_process() is expected


def test_the_users_folder_is_not_told(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert without_home("/home/ann/out: no such folder") == "~/out: no such folder"
    assert written_to("/home/ann/out", "the adapter") == "Written to ~/out: the adapter."


def test_a_home_at_the_root_hides_nothing(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert without_home("/tmp/out") == "/tmp/out"
