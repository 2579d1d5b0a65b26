import pytest

import hf_ftedit
from hf_ftedit import errors
from hf_ftedit.errors import EditError, first_line, is_out_of_memory, one_line, shown


def test_there_is_one_error_wherever_it_is_imported_from():
    assert hf_ftedit.EditError is errors.EditError
    assert issubclass(EditError, ValueError)


def test_what_is_shown_of_a_value_is_short_and_on_one_line():
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    for value in ("x" * 10_000, "a\nb\u2028c", nested, {"k" * 5000: list(range(5000))}):
        assert len(shown(value)) < 400 and shown(value).isprintable()


@pytest.mark.parametrize(
    ("text", "first", "whole"),
    [
        ("no such file", "no such file", "no such file"),
        ("\n  bad header\r\n  at byte 3\n", "bad header", "bad header at byte 3"),
        ("bad\theader\u2028at byte 3", "bad\theader", "bad header at byte 3"),
        ("", "OSError", "OSError"),
        (" \n ", "OSError", "OSError"),
    ],
)
def test_what_a_library_says_is_put_on_one_line(text, first, whole):
    assert first_line(OSError(text)) == first
    assert one_line(OSError(text)) == whole


def test_an_error_without_a_message_is_told_by_its_type():
    assert first_line(KeyError()) == one_line(KeyError()) == "KeyError"


def test_an_error_is_one_line_that_steers_no_terminal():
    assert str(EditError("a\x1b[2J\nb\u202ec")) == "a[U+001B][2J b[U+202E]c"
    assert str(EditError("Zürich, 東京 and ‘x’")) == "Zürich, 東京 and ‘x’"
    assert shown(int("9" * 4000) ** 2) == "a number of thousands of digits"


def test_too_little_memory_is_known_by_what_libraries_say():
    for text in (
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried",
        "unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)",
    ):
        assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape '[2]' is invalid for input of size 3"))
