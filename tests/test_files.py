"""What is written is whole or not there; a file system that refuses is an `OSError` that names the folder."""

import errno
import os
import re
import resource
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import save_file

from hf_ftedit.cli.app import main
from hf_ftedit.errors import EditError
from hf_ftedit.files import (
    cached_map,
    claim,
    claims,
    moved_in,
    refusal_behind,
    require_empty,
    try_writing,
    write_text,
    writing,
)


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
        # A mounted folder is another file system than what stands beside it, from which nothing can be moved in.
        assert new.parent == (folder if exists else tmp_path)
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
    with pytest.raises(EditError, match=f"^output_dir {str(tmp_path / 'file')!r} is a file; give a folder$"):
        require_empty(tmp_path / "file")
    with pytest.raises(EditError, match="file' is a file; give a folder"), moved_in(tmp_path / "file"):
        pass
    for taken in (tmp_path / "full", str(tmp_path / "full")):
        expected = f"output_dir {str(taken)!r} exists and is not empty; give another --output_dir or remove it"
        with pytest.raises(EditError, match=f"^{re.escape(expected)}$"):
            require_empty(taken)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for check in (try_writing, require_empty):
        with pytest.raises(NotADirectoryError) as caught:
            check(tmp_path / "file" / "adapter")
        assert caught.value.filename == str(tmp_path / "file" / "adapter")


def test_a_link_to_nothing_and_a_name_that_is_too_long_are_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for folder in (tmp_path / "link", tmp_path / "link" / "out"):
        with pytest.raises(EditError, match="'link' is a link to nothing; give another --output_dir"):
            require_empty(folder)
    with pytest.raises(OSError) as caught:
        try_writing(tmp_path / ("é" * 128) / "out")
    assert caught.value.errno == errno.ENAMETOOLONG
    long = tmp_path / ("é" * 127)
    require_empty(long)
    assert names(tmp_path) == ["link"]
    with moved_in(long) as new:
        write_text(new / "a", "1")
    assert names(long) == ["a"]


def test_rows_of_a_damaged_cache_are_made_again(tmp_path):
    rows = datasets.Dataset.from_dict({"a": [1, 2, 3]})
    cache = tmp_path / "cache.arrow"

    def squared():
        settings = {"cache_file_name": str(cache), "new_fingerprint": "squares"}
        return cached_map(rows, lambda row: {"b": row["a"] ** 2}, tmp_path, **settings)["b"][:]

    assert squared() == [1, 4, 9]
    content = cache.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"rubbish"):
        cache.unlink()
        cache.write_bytes(damaged)
        assert squared() == [1, 4, 9]
    with pytest.raises(EditError, match="^a row$"):
        cached_map(rows, lambda row: (_ for _ in ()).throw(EditError("a row")), tmp_path)


def test_one_run_at_a_time_has_a_folder(tmp_path):
    folder = tmp_path / "a" / "out"
    with claims:
        claim(folder)
        with pytest.raises(EditError, match="another run writes to it; wait for it, or give another --output_dir"):
            claim(folder)
    assert names(tmp_path) == []  # nothing was written
    with claims:
        claim(folder)
        with moved_in(folder) as new:
            write_text(new / "b", "1")
            assert new.parent == folder.parent and names(folder) == []
        assert names(folder) == ["b"]
    with claims:
        claim(folder)
        claim(tmp_path / "c")
    assert names(folder) == ["b"] and names(tmp_path) == ["a"]


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
    assert refusal_behind(gone := FileNotFoundError(2, "the working folder")) is gone
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
    for other in (FileNotFoundError(2, "no file", "a"), ValueError("else"), OSError("no number")):
        assert refusal_behind(other) is None
        with pytest.raises(type(other), match=re.escape(str(other))), writing(tmp_path):
            raise other
