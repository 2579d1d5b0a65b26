"""What is written is whole or not there; a file system that refuses is an `OSError` that names the folder."""

import errno
import os
import re
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_ftedit.cli.app import main
from hf_ftedit.errors import EditError
from hf_ftedit.files import moved_in, refusal_behind, require_empty, try_writing, write_text, writing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exists", [False, True])
def test_files_move_in_together(tmp_path, exists):
    folder = tmp_path / "out"
    if exists:
        folder.mkdir()
        for name in ("old", "mine"):
            write_text(folder / name, name)
    with moved_in(folder, replaced=["old", "new"]) as new:
        write_text(new / "new", "1\n")
        assert [item.name for item in folder.glob("new")] == []
    assert names(folder) == (["mine", "new"] if exists else ["new"]) and names(tmp_path) == ["out"]
    with pytest.raises(KeyError), moved_in(folder) as new:
        write_text(new / "new", "2\n")
        raise KeyError("a fault")
    assert (folder / "new").read_bytes() == b"1\n" and names(tmp_path) == ["out"]


def test_a_folder_with_content_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for free in (tmp_path / "new", tmp_path / "empty", tmp_path / "a" / "b" / "c", str(tmp_path / "new")):
        require_empty(free)
    assert names(tmp_path) == ["empty"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").touch()
    (tmp_path / "file").touch()
    for taken in (tmp_path / "full", tmp_path / "file", str(tmp_path / "full")):
        expected = f"output_dir {str(taken)!r} exists and is not empty; give another --output_dir or remove it"
        with pytest.raises(EditError, match=f"^{re.escape(expected)}$"):
            require_empty(taken)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for check in (try_writing, require_empty):
        with pytest.raises(NotADirectoryError) as caught:
            check(tmp_path / "file" / "adapter")
        assert caught.value.filename == str(tmp_path / "file" / "adapter")


def test_a_folder_that_takes_no_files_is_refused_to_root_too(capsys):
    if not Path("/sys/kernel").is_dir():
        pytest.skip("needs a file system that takes no files")
    with pytest.raises(OSError, match="/sys/kernel") as caught:
        require_empty("/sys/kernel/adapter")
    assert caught.value.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    assert main(["augment", "--output_dir", "/sys/kernel/adapter"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"hf-ftedit: /sys/kernel/adapter: {caught.value.strerror}; ") and line.count("\n") == 1


@pytest.fixture
def small_files():
    """Beyond this size a write fails as on a full disk, in Python, PyTorch and safetensors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITES = {
    "Python": lambda file: file.write_bytes(bytes(100_000)),
    "PyTorch": lambda file: torch.save(torch.zeros(100_000), file),
    "safetensors": lambda file: save_file({"a": torch.zeros(100_000)}, file),
}


@pytest.mark.parametrize("library", WRITES)
def test_a_disk_that_fills_up_is_one_error_whichever_library_writes(tmp_path, small_files, library):
    with pytest.raises(Exception) as caught, moved_in(tmp_path / "out") as new:
        WRITES[library](new / "weights")
    refusal = refusal_behind(caught.value)
    assert (refusal.errno, refusal.filename) == (errno.EFBIG, str(tmp_path / "out"))
    assert names(tmp_path) == []


def test_only_refusals_of_the_file_system_are_taken_for_such(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert refusal_behind(full) is full
    with pytest.raises(ValueError, match="a library says") as caught:
        try:
            raise full
        except OSError as error:
            raise ValueError("a library says") from error
    assert refusal_behind(caught.value) is full
    with pytest.raises(KeyError) as caught:  # a fault of ours, on the way of handling one of the disk
        try:
            raise PermissionError(13, "Permission denied")
        except PermissionError:
            {}["name"]
    assert refusal_behind(caught.value) is None
    for other in (FileNotFoundError(2, "no file"), ValueError("else"), OSError("no number")):
        assert refusal_behind(other) is None
        with pytest.raises(type(other), match=re.escape(str(other))), writing(tmp_path):
            raise other
