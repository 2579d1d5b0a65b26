"""Files that anybody may have written, read as data: regular, small, flat, and of the types that a schema names."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from hf_ftedit.errors import EditError, one_line, shown

MOST_BYTES = 10 * 2**20  # of a file of settings or scores
MOST_BYTES_OF_LINE, MOST_BYTES_OF_EDITS = 2**20, 2**28  # of edits.jsonl
MOST_NODES = 200_000  # keys and values of a file, those behind YAML's aliases counted each time
LONGEST = 100_000  # characters of a value in YAML, of which some are read as numbers to the base 60
DEEPEST = 20  # levels of one value inside another
EVAL_FOLDER = ".eval_results"  # what the Hub reads scores from
TEMPLATES_FOLDER = "additional_chat_templates"  # what transformers has a tokenizer's further templates in
REMEDY = "write or download it again"
# Of a module, a setting or a file: as a regular expression it is harmless too, which PEFT makes of it.
NAME = re.compile(r"[\w.-]{1,300}", re.ASCII)
# What YAML is read with; the parser in C where PyYAML has it, as the other one takes a second for 100 kB.
_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TOO_LARGE = f"it is nested too deeply, or holds more than {MOST_NODES} values"

# A rule of a schema: raises an `EditError` for a value that it does not allow, with the value's place.
Rule: TypeAlias = Callable[[Any, str], None]


def check_regular(folder: str | Path, name: str) -> None:
    """Raise [`~hf_ftedit.EditError`] where the folder `name` holds a link out of it, a device or a pipe."""
    folder = Path(folder).absolute()
    # The Hub's cache links its own copies.
    blobs = folder.resolve().parents[1] / "blobs" if folder.parent.name == "snapshots" else None
    # A folder that is not there is said by whoever misses a file in it.
    below = (folder.glob(f"{name}/*") for name in (EVAL_FOLDER, TEMPLATES_FOLDER))
    for file in itertools.chain(folder.glob("*"), *below):
        if file.is_symlink() and (blobs is None or file.resolve().parent != blobs):
            raise EditError(f"{shown(name)}: {file.name} is a link; put the file itself there")
        if not (file.is_file() or file.is_dir()):
            raise EditError(f"{shown(name)}: {file.name} is no regular file; remove it")


def read_small(file: Path, most: int = MOST_BYTES) -> str:
    """The text of a file; an error where it has more than `most` bytes, or is not UTF-8."""
    with open(file, "rb") as opened:
        content = opened.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most // 2**20} MB")
    return content.decode("utf-8-sig")  # some editors put a byte order mark in front


def check_lines(file: Path) -> None:
    """Raise [`~hf_ftedit.EditError`] where a file is longer than a set of edits can be, or a line than an edit can."""
    if file.stat().st_size > MOST_BYTES_OF_EDITS:
        raise EditError(f"{file.name} is larger than {MOST_BYTES_OF_EDITS // 2**20} MB; {REMEDY}")
    with open(file, "rb") as opened:
        for number in itertools.count(1):
            if len(line := opened.readline(MOST_BYTES_OF_LINE + 1)) > MOST_BYTES_OF_LINE:
                raise EditError(f"{file.name} line {number} is longer than {MOST_BYTES_OF_LINE // 2**20} MB; {REMEDY}")
            if not line:
                return


def parse_json(text: str) -> Any:
    """The value of JSON text; a `ValueError` where it is nested too deeply, or too large."""
    try:
        value = json.loads(text)
        if sum(1 for _ in _nodes(value)) > MOST_NODES:
            raise ValueError(f"it holds more than {MOST_NODES} values")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def parse_yaml(text: str) -> Any:
    """The value of YAML text, as [`parse_json`]; references count as what they stand for, and no key comes twice."""
    level = 0
    for number, event in enumerate(yaml.parse(text, Loader=_YAML)):  # before nodes are made of them
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > DEEPEST or number > 2 * (MOST_NODES + 2):
            raise ValueError(_TOO_LARGE)
    loader = _YAML(text)
    if (node := loader.get_single_node()) is None:
        return None
    _check_node(node, itertools.count(1))
    try:
        return loader.construct_document(node)
    except (LookupError, AttributeError) as error:
        raise ValueError(f"a value does not fit its tag ({one_line(error)})") from error


def _check_node(node: Any, numbers: Iterator[int], level: int = 1) -> None:
    """Raise a `ValueError` for too much in a node of YAML, and for a key that comes twice: PyYAML would drop one."""
    if level > DEEPEST or next(numbers) > MOST_NODES:
        raise ValueError(_TOO_LARGE)
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > LONGEST:
            raise ValueError(f"it holds a text of more than {LONGEST} characters")
        return
    keys: set[str] = set()
    for inner in node.value:
        if isinstance(node, yaml.MappingNode):
            key, inner = inner
            _check_node(key, numbers, level + 1)
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise ValueError(f"line {key.start_mark.line + 1} gives {shown(key.value)} a second time")
                keys.add(key.value)
        _check_node(inner, numbers, level + 1)


def _nodes(value: Any, level: int = 0) -> Iterator[Any]:
    """All values inside `value`, itself among them."""
    if level > DEEPEST:
        raise RecursionError
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _nodes(inner, level + 1)


def rule(expected: str, holds: Callable[[Any], bool]) -> Rule:
    """The rule that `holds` of a value, in words what is `expected`."""

    def check(value: Any, place: str) -> None:
        if not holds(value):
            raise EditError(f"{place} is {shown(value)}, not {expected}; {REMEDY}")

    return check


def whole(low: int, high: int) -> Rule:
    """A whole number from `low` to `high`."""
    return rule(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def number(low: float, high: float) -> Rule:
    """A number from `low` to `high`, neither NaN nor endless."""
    expected = f"a number from {low:g} to {high:g}"
    return rule(expected, lambda value: type(value) in (int, float) and low <= value <= high)


def text(most: int = 10_000, pattern: str = r".*", expected: str = "text") -> Rule:
    """Text of at most so many characters, which fits a pattern of ours."""
    fits = re.compile(pattern, re.DOTALL | re.ASCII).fullmatch
    return rule(
        f"{expected} of at most {most} characters",
        lambda value: isinstance(value, str) and len(value) <= most and fits(value) is not None,
    )


def choice(*values: Any) -> Rule:
    """One of some values, by their types too: 1 is not `True`."""
    names = ", ".join(map(repr, values))
    return rule(f"one of {names}", lambda value: any(type(value) is type(one) and value == one for one in values))


def listed(item: Rule, most: int = MOST_NODES, of: str = "values") -> Rule:
    """A list of at most so many values of one rule."""
    is_list = rule(f"a list of at most {most} {of}", lambda value: isinstance(value, list) and len(value) <= most)

    def check(value: Any, place: str) -> None:
        is_list(value, place)
        for position, each in enumerate(value):
            item(each, f"{place}[{position}]")

    return check


def mapped(
    known: Mapping[str, Rule] = {}, other: Rule | None = None, *, needed: Sequence[str] = (), names: Rule | None = None
) -> Rule:
    """Names to values: those `known` by a rule each, others by `other` where there is one, with a rule for `names`."""
    is_mapping = rule("names with values", lambda value: isinstance(value, dict))

    def check(value: Any, place: str) -> None:
        is_mapping(value, place)
        if missing := [name for name in needed if name not in value]:
            raise EditError(f"{place} has no {missing[0]}; {REMEDY}")
        for name, each in value.items():
            if (allowed := known.get(name, other)) is None:
                raise EditError(f"{place}: {shown(name)} is not known; {REMEDY}")
            if name not in known:
                (names or plain_name)(name, f"{place}: a name")
            allowed(each, f"{place}: {name}")

    return check


def either(*rules: Rule) -> Rule:
    """A value that one of some rules allows; the error is the last one's."""

    def check(value: Any, place: str) -> None:
        for each in rules[:-1]:
            with suppress(EditError):
                return each(value, place)
        rules[-1](value, place)

    return check


def maybe(allowed: Rule) -> Rule:
    """Nothing, or a value of a rule."""
    return lambda value, place: None if value is None else allowed(value, place)


flag = choice(True, False)
plain_name = rule("a name", lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value)
    if isinstance(value, int | float):
        return -1e300 < value < 1e300
    return value is None or isinstance(value, str | list)


# What is read and passed on without being used: text, and numbers that take part in sums.
plain_value = rule("names, texts and numbers", lambda value: all(map(_is_plain, _nodes(value))))


def read_as(file: Path, place: str, parse: Callable[[str], Any] = str) -> Any:
    """What `parse` makes of the text of a small file; an error that names its `place` where it cannot be read."""
    try:
        return parse(read_small(file))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise explained(place, error) from error


def explained(place: str, error: Exception) -> EditError:
    """The error for a file at `place` that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return EditError(f"{place}: no such file; check the path")
    return EditError(f"{place} cannot be read ({one_line(error)[:300]}); {REMEDY}")
