"""The options of each verb; flags and the file of `--config` are read once, and `--help` loads no torch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import yaml

from hf_ftedit.errors import EditError, one_line
from hf_ftedit.options import COMMIT_MESSAGE, OUTPUT_FOLDER, PROVENANCE, EditOptions, choices_of

if TYPE_CHECKING:
    from trl import TrlParser

MORE_OPTIONS = {
    "train": "all options of trl.SFTConfig (--learning_rate, by default 0.287 / the model's hidden size;\n"
    "--num_train_epochs, 6; --per_device_train_batch_size, 32; --save_strategy, --eval_strategy, ...)\n"
    "and of trl.ModelConfig (--lora_r, by default 32; --load_in_4bit, --dtype, --attn_implementation, ...)",
    "evaluate": "all options of trl.ModelConfig (--dtype, --load_in_4bit, --model_revision, ...)",
    "augment": "all options of trl.ModelConfig (--dtype, --model_revision, ...)",
}
FIRST = ("model_name_or_path", "edits", "locality_pool", "adapter", "output_dir")  # what nearly every call gives
WORDS = {"push": ("folder", "?"), "verify": ("name", "?"), "merge": ("adapters", "*")}  # options without their flag
# Settings of 0.1.0 that an edit_config.yaml may hold, and what to do instead where they were on.
GONE = {
    "prefix_per_edit": "all edits share the sampled prefixes; raise prefix_counts for more of them",
    "merge_into_base": "train the adapter, then run hf-ftedit merge --merge_into_base",
}


@dataclass
class CommonOptions(EditOptions):
    """What every verb reads and checks before it loads anything heavy."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the base model; the embedded one if not given."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder to write; must not exist with content."})
    seed: int = field(default=42, metadata={"help": "Seed of everything drawn."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that the model's repository brings."})


@dataclass
class TrainOptions(CommonOptions):
    """Options of `train` that must be checked first."""

    output_dir: str | None = field(
        default=OUTPUT_FOLDER, metadata={"help": "Folder to write; must not exist with content."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Go on with a run that was stopped; alone, or with the checkpoint folder to go on from.",
            "nargs": "?",
            "const": "True",
        },
    )

    @property
    def resume(self) -> bool | str:
        """The checkpoint folder to go on from, or whether to go on from the newest one, by flag or YAML."""
        value = self.resume_from_checkpoint or ""
        return {"true": True, "false": False, "none": False, "": False}.get(str(value).lower(), value)


@dataclass
class EvaluateOptions(CommonOptions):
    """Options of `evaluate`."""

    tasks: list[str] | None = field(
        default=None, metadata={"help": "Tasks of lm-evaluation-harness to run, without and with the adapter."}
    )
    tasks_path: str | None = field(default=None, metadata={"help": "Folder with task files of your own."})
    tasks_limit: int | None = field(default=None, metadata={"help": "Use only the first so many samples of a task."})
    num_fewshot: int | None = field(default=None, metadata={"help": "Examples before each sample of a task."})


@dataclass
class PushOptions:
    """Options of `push`."""

    folder: str | None = field(default=None, metadata={"help": "Folder that `train` or `merge` wrote."})
    repo_id: str | None = field(default=None, metadata={"help": "Repository to push to, such as user/my-edits."})
    private: bool = field(default=False, metadata={"help": "Let only you see it; by default as your account says."})
    revision: str | None = field(default=None, metadata={"help": "Branch to push to; main by default."})
    commit_message: str = field(default=COMMIT_MESSAGE, metadata={"help": "Title of the commit."})


@dataclass
class SharedOptions:
    """What the verbs that load somebody's edits have in common."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Base model, where it is not the recorded one, such as a copy on your disk."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that the model's repository brings."})


@dataclass
class VerifyOptions(SharedOptions):
    """Options of `verify`."""

    name: str | None = field(default=None, metadata={"help": "Hub id or folder of the edits to verify."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of them."})
    tolerance: float = field(
        default=1.0, metadata={"help": "Most that a score may differ, in points: other hardware rounds otherwise."}
    )


@dataclass
class MergeOptions(SharedOptions):
    """Options of `merge`."""

    adapters: list[str] = field(default_factory=list, metadata={"help": "Hub ids or folders of the adapters."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder to write; must not exist with content."})
    combination_type: str = field(
        default="cat", metadata={"help": "How PEFT combines them: cat (exact), ties, dare_ties, dare_linear, svd, ..."}
    )
    weights: list[float] | None = field(default=None, metadata={"help": "Weight of each adapter; 1 by default."})
    density: float = field(default=0.5, metadata={"help": "Share of the weights that ties and dare keep."})
    merge_into_base: bool = field(
        default=False, metadata={"help": "Save a whole model with the edits in its weights; one adapter may do."}
    )


OPTIONS: dict[str, type[Any]] = {
    "train": TrainOptions,
    "evaluate": EvaluateOptions,
    "augment": CommonOptions,
    "push": PushOptions,
    "verify": VerifyOptions,
    "merge": MergeOptions,
}


class Arguments(NamedTuple):
    """
    The arguments of a verb: its own options parsed, those of TRL's settings left for [`parse_rest`].

    Args:
        values (`dict`):
            Options that were set, by name; a flag wins over the file of `--config`.
        flags (`list[str]`):
            The other flags with their values.
        config (`dict`):
            The other settings of the file.
    """

    values: dict[str, Any]
    flags: list[str]
    config: dict[str, Any]


def read_arguments(verb: str, argv: Sequence[str]) -> Arguments:
    """
    Read flags and the file of `--config`, and parse the verb's own options; torch is not loaded.

    Raises:
        [`~hf_ftedit.EditError`]: the file cannot be read, or an option has a value that it cannot take.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.error = _bad_options  # type: ignore[method-assign]
    file, flags = first.parse_known_args(argv)
    config = _read_config(verb, file.config) if file.config is not None else {}
    parser = _parser((OPTIONS[verb],))
    for action in parser._actions:  # only what is set comes out: an adapter's recipe may set the rest
        action.default = config.get(action.dest, argparse.SUPPRESS)
    if verb in WORDS:
        name, count = WORDS[verb]
        parser.add_argument(name, nargs=count, default=argparse.SUPPRESS)
    values, rest = parser.parse_known_args(flags)
    if rest and not rest[0].startswith("-"):
        advice = (
            f"{verb} takes one folder or Hub id"
            if verb in WORDS
            else f"give options as --name value, such as --edits {rest[0]}"
        )
        raise EditError(f"unexpected {rest[0]!r}; {advice}")
    others = {name: value for name, value in config.items() if name not in vars(values)}
    if verb not in MORE_OPTIONS and (rest or others):
        raise _unknown_options([*rest, *(f"--{name}" for name in others)])
    return Arguments(vars(values), rest, others)


def options_of(verb: str, arguments: Arguments, defaults: Mapping[str, Any] | None = None) -> Any:
    """The options of a verb as its dataclass; `defaults`, such as a recipe's, may hold other settings too."""
    names = {option.name for option in fields(OPTIONS[verb])}
    settings = {name: value for name, value in (defaults or {}).items() if name in names}
    with _bad_values():
        return OPTIONS[verb](**{**settings, **arguments.values})


def parse_rest(
    types: Sequence[Any], arguments: Arguments, defaults: Mapping[str, Any], ignored: Sequence[Any] = ()
) -> list[Any]:
    """
    Parse what [`read_arguments`] left as dataclasses that load torch, such as [`~hf_ftedit.EditConfig`].

    Args:
        types (`Sequence[type]`):
            The dataclasses.
        arguments ([`Arguments`]):
            The arguments of the verb.
        defaults (`Mapping`):
            Other defaults than the dataclasses': options that were parsed, an adapter's recipe.
        ignored (`Sequence[type]`, *optional*):
            Dataclasses whose options are let pass: a recipe of `train` serves `evaluate` too.

    Raises:
        [`~hf_ftedit.EditError`]: an option is of none of them, or has a value that it cannot take.
    """
    parser = _parser(types)
    parser.set_defaults_with_config(**{**defaults, **arguments.config})
    with _bad_values():
        *parsed, rest = parser.parse_args_into_dataclasses(
            arguments.flags, return_remaining_strings=True, look_for_args_file=False
        )
    names = {option.name for each in (*types, *ignored) for option in fields(each)}
    flags = [word for word in rest if word.startswith("--")] + [f"--{name}" for name in arguments.config]
    unknown = [flag for flag in flags if _option_name(flag) not in names]
    if unknown or (rest and not ignored):
        raise _unknown_options(unknown or rest)
    return parsed


def help_text(verb: str) -> str:
    """The options of a verb, from the settings that load no torch."""
    words = {"push": "FOLDER ", "verify": "NAME ", "merge": "ADAPTER ADAPTER ... "}.get(verb, "")
    lines = [f"usage: hf-ftedit {verb} {words}[--config FILE.yaml] [--OPTION VALUE ...]", "", "options:"]
    defaults = OPTIONS[verb]()
    by_name = {option.name: option for option in fields(defaults)}
    for name in dict.fromkeys([*filter(by_name.get, FIRST), *by_name]):
        default = getattr(defaults, name)
        notes = [", ".join(choices_of(name, OPTIONS[verb])), "" if default is None else f"default: {default}"]
        shown = "; ".join(filter(None, notes))
        lines.append(f"  --{name:<24} {by_name[name].metadata['help']}{shown and f' ({shown})'}")
    return "\n".join([*lines, "", f"and {MORE_OPTIONS[verb]}"] if verb in MORE_OPTIONS else lines)


def _option_name(flag: str) -> str:
    return flag.removeprefix("--").partition("=")[0].replace("-", "_").removeprefix("no_")


def _read_config(verb: str, path: str) -> dict[str, Any]:
    """The settings of a YAML file; an `edit_config.yaml` of 0.1.0 is one too."""
    with _bad_values(), open(path, encoding="utf-8") as file:
        config = yaml.safe_load(file)
        if not isinstance(config, dict):
            raise ValueError(f"Config file {path} must contain a YAML mapping.")
        os.environ.update({name: str(value) for name, value in config.pop("env", {}).items()})  # as TRL's scripts do
    if verb in MORE_OPTIONS:
        for name in (PROVENANCE, "record"):  # the block that is no setting, by its name now and in 0.1.0
            config.pop(name, None)
        for name, remedy in GONE.items():
            if config.pop(name, False):
                raise EditError(f"{path}: {name} is no option of {verb} any more; {remedy}")
    return config


def _parser(types: Sequence[Any]) -> TrlParser:
    from trl import TrlParser

    parser = TrlParser(types, allow_abbrev=False)
    parser.error = _bad_options  # type: ignore[method-assign] # argparse's own prints all options and ends the process
    return parser


@contextmanager
def _bad_values() -> Iterator[None]:
    """Errors of YAML, dataclasses and files as one line each."""
    try:
        yield
    except EditError:
        raise
    except yaml.YAMLError as error:
        raise EditError(f"--config: not valid YAML: {one_line(error)}; correct it there") from error
    except (OSError, ValueError, TypeError) as error:
        _bad_options(str(error))


def _bad_options(message: str) -> NoReturn:
    raise EditError(f"bad options: {' '.join(message.split())}; see hf-ftedit VERB --help")


def _unknown_options(words: Sequence[str]) -> EditError:
    names = [word for word in words if word.startswith("--")] or words
    return EditError(f"unknown option {', '.join(names)}; hf-ftedit VERB --help lists those there are")
