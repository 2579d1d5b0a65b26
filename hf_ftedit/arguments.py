"""Words of the command line and of a `--config` file to options: what each verb takes, and `--help` without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

import yaml

from hf_ftedit.options import EditOptions
from hf_ftedit.records import EditError

MORE_OPTIONS = {
    "train": "all options of trl.SFTConfig (--learning_rate, --num_train_epochs, --seed, --eval_strategy, ...)\n"
    "and of trl.ModelConfig (--lora_r, --load_in_4bit, --dtype, --attn_implementation, ...)",
    "evaluate": "all options of trl.ModelConfig (--dtype, --load_in_4bit, --model_revision, ...)",
    "augment": "all options of trl.ModelConfig (--dtype, --model_revision, ...)",
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
        default="edited-adapter", metadata={"help": "Folder to write; must not exist with content."}
    )
    resume_from_checkpoint: str | None = field(default=None, metadata={"help": "Checkpoint folder to go on from."})


@dataclass
class EvaluateOptions(CommonOptions):
    """Options of `evaluate`."""

    adapter: str | None = field(default=None, metadata={"help": "Adapter to measure: Hub id or folder."})
    resume: bool = field(default=False, metadata={"help": "Go on with the evaluation that was stopped in output_dir."})
    tasks: list[str] | None = field(
        default=None, metadata={"help": "Tasks of lm-evaluation-harness to run, without and with the adapter."}
    )
    tasks_path: str | None = field(default=None, metadata={"help": "Folder with task files of your own."})
    tasks_limit: int | None = field(default=None, metadata={"help": "Use only the first so many samples of a task."})
    num_fewshot: int | None = field(default=None, metadata={"help": "Examples before each sample of a task."})


OPTIONS: dict[str, type[CommonOptions]] = {
    "train": TrainOptions,
    "evaluate": EvaluateOptions,
    "augment": CommonOptions,
}


def check_words(args: list[str]) -> None:
    """Refuse what the parser would let pass or trip over: a word that is no option, and `--config` without a file."""
    if args and not args[0].startswith("-"):
        raise EditError(f"unexpected {args[0]!r}; give options as --name value, such as --edits {args[0]}")
    if args[-1:] == ["--config"]:
        raise EditError("--config is without its file; give a YAML file with options after it")


def help_text(verb: str) -> str:
    """The options of a verb, from the settings that load no torch."""
    lines = [f"usage: hf-ftedit {verb} [--config FILE.yaml] [--OPTION VALUE ...]", "", "options:"]
    defaults = OPTIONS[verb]()
    for option in fields(defaults):
        default = getattr(defaults, option.name)
        shown = "" if default is None else f" (default: {default})"
        lines.append(f"  --{option.name:<24} {option.metadata['help']}{shown}")
    return "\n".join([*lines, "", f"and {MORE_OPTIONS[verb]}"])


def parsed(
    types: tuple[Any, ...], args: list[str], *, partly: bool = False, defaults: dict[str, Any] | None = None
) -> tuple[Any, ...]:
    """`args`, and the file of `--config`, as instances of `types`; with `partly`, options of others are let pass."""
    from trl import TrlParser

    parser = TrlParser(types, allow_abbrev=False)
    parser.error = _bad_options  # type: ignore[method-assign] # argparse's own prints all options and ends the process
    parser.set_defaults_with_config(**(defaults or {}))
    try:
        *found, unknown = parser.parse_args_and_config(args, return_remaining_strings=True)
    except EditError:
        raise
    except yaml.YAMLError as error:
        raise EditError(f"--config: not valid YAML: {' '.join(str(error).split())}; correct it there") from error
    except (OSError, ValueError, TypeError) as error:
        _bad_options(str(error))
    if unknown and not partly:
        raise _unknown_options(unknown)
    return (*found, unknown) if partly else tuple(found)


def check_known(types: Sequence[Any], args: list[str]) -> None:
    """
    Raise [`~hf_ftedit.records.EditError`] about an option, given or in the file of `--config`, that no type has.

    Only the first type is made: training arguments would set up the process as if it were to train.
    """
    first, *others = types
    known = {option.name for other in others for option in fields(other)}
    words = [word for word in parsed((first,), args, partly=True)[-1] if word.startswith("--")]
    names = {word: word.removeprefix("--").partition("=")[0].removeprefix("no_") for word in words}
    if unknown := [word for word, name in names.items() if name not in known]:
        raise _unknown_options(unknown)


def _bad_options(message: str) -> NoReturn:
    raise EditError(f"bad options: {' '.join(message.split())}; see hf-ftedit VERB --help")


def _unknown_options(words: Sequence[str]) -> EditError:
    names = [word for word in words if word.startswith("--")] or words
    return EditError(f"unknown option {', '.join(names)}; hf-ftedit VERB --help lists those there are")
