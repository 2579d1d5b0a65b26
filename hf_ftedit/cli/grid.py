"""A grid of settings: a YAML file of options of `train`, some with several values, to the runs of a study."""

import functools
import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from hf_ftedit import training
from hf_ftedit.cli.arguments import check_file, option_name
from hf_ftedit.cli.options import OPTIONS
from hf_ftedit.errors import EditError, shown
from hf_ftedit.untrusted import parse_yaml, read_as

VARIANTS = "variants"  # the one name of a grid that is no option: named groups of settings that vary together
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_OF_THE_STUDY = {"output_dir", "config", "resume_from_checkpoint"}


class Run(NamedTuple):
    """One run of a study."""

    settings: dict[str, Any]  # options of `train`
    varied: dict[str, Any]  # the values, of those of which the grid has several, or the variant's name
    flags: tuple[str, ...] = ()  # of the command, the same for every run

    @property
    def name(self) -> str:
        """A name by which a finished run is known: twelve hexadecimal digits of its settings' SHA-256."""
        text = json.dumps([self.settings, *self.flags], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def arguments(self) -> list[str]:
        """The settings as arguments of `train`, before those of the command, which win."""
        words: list[str] = ["--disable_tqdm", "true", "--report_to", "none"]
        for name, value in self.settings.items():
            if value is None:
                continue
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(json.dumps(one) if isinstance(one, dict | bool) else str(one) for one in values)]
        return [*words, *self.flags]


def read_grid(path: str, flags: Sequence[str] = (), *, sample: int | None = None, seed: int = 0) -> list[Run]:
    """
    The runs of a grid: every combination of its values, or `sample` of them drawn with `seed`, each with the `flags`.

    Raises [`~hf_ftedit.EditError`] where it is no grid, or names what is the study's own.
    """
    place = f"--config {path}"
    grid = read_as(Path(path), place, parse_yaml)
    if not isinstance(grid, dict) or not grid:
        raise EditError(f"{place} is no grid; give options of train, such as learning_rate: [1e-3, 2e-3]")
    grid = _as_meant(grid)
    variants = grid.pop(VARIANTS, {"": {}})
    if not isinstance(variants, dict) or not all(isinstance(each, dict) for each in variants.values()):
        raise EditError(f"{place}: {VARIANTS} gives each of its names settings, such as plain: {{num_locality: 0}}")
    runs = list(_combined(grid, variants))
    if not runs:
        raise EditError(f"{place}: an option has no value; give one, or leave it out")
    for run in runs:
        _check(run.settings, place)
    # A flag wins: all runs would have its value, and the table that of the grid.
    of_command = {option_name(flag) for flag in flags if flag.startswith("--")}
    # It would be a setting, and all runs others than those that are finished.
    if "resume_from_checkpoint" in of_command:
        raise EditError("sweep goes on by itself, and keeps what is finished; leave --resume_from_checkpoint out")
    for name in sorted(of_command):
        if len({repr(run.settings.get(name)) for run in runs}) > 1:
            raise EditError(f"{place} has several values of {name}, and the command one; leave one out")
    # The same settings by two ways are one run.
    runs = list({run.name: run._replace(flags=tuple(flags)) for run in runs}.values())
    return runs if sample is None else random.Random(seed).sample(runs, min(sample, len(runs)))


def _as_meant(value: Any) -> Any:
    """`value` with numbers for texts such as "1e-3", which YAML takes for a text, and with texts for its dates."""
    if isinstance(value, list):
        return [_as_meant(each) for each in value]
    if isinstance(value, dict):
        return {name: _as_meant(each) for name, each in value.items()}
    if isinstance(value, date):
        return str(value)
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _check(settings: Mapping[str, Any], place: str) -> None:
    """Raise [`~hf_ftedit.EditError`] for settings of a run that are the study's own, none at all, or several."""
    check_file(settings, place)
    if wrong := _OF_THE_STUDY & {*settings}:
        raise EditError(f"{place}: {min(wrong)} is no part of a grid; leave it out, or give it to the command")
    known, lists = _options()
    if unknown := [name for name in settings if name not in known]:
        raise EditError(f"{place}: unknown option --{unknown[0]}; hf-ftedit train --help lists them")
    for name, value in settings.items():
        if isinstance(value, list) and name not in lists:
            raise EditError(f"{place}: {name} is {shown(value)} in one run; give a variant one value")


@functools.cache
def _options() -> tuple[set[str], set[str]]:
    """Names of the options of `train`, and of those that are lists themselves."""
    owners: Sequence[Any] = (OPTIONS["train"], training.EditConfig, training.EditModelConfig)
    types = [(option.name, str(option.type)) for owner in owners for option in fields(owner)]
    return {name for name, _ in types}, {name for name, type_ in types if "list[" in type_}


def _combined(grid: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> Iterator[Run]:
    # Of an option that is a list itself, only a list of lists is several values; null is its default.
    _, lists = _options()
    several = {
        name: values
        for name, values in grid.items()
        if isinstance(values, list) and (name not in lists or all(isinstance(value, list | None) for value in values))
    }
    fixed = {name: value for name, value in grid.items() if name not in several}
    for variant, settings in variants.items():
        for values in itertools.product(*several.values()):
            chosen = dict(zip(several, values, strict=True))
            varied = {name: settings.get(name, value) for name, value in chosen.items() if len(several[name]) > 1}
            named = {"variant": str(variant)} if len(variants) > 1 else {}
            yield Run({**fixed, **chosen, **settings}, {**named, **varied})
