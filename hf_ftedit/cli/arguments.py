"""Words of the command line and of a `--config` file to options: what each verb takes, and `--help` without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

import yaml

from hf_ftedit.errors import EditError, one_line
from hf_ftedit.options import COMMIT_MESSAGE, OUTPUT_FOLDER, PROVENANCE, EditOptions, choices_of

MORE_OPTIONS = {
    "train": "all options of trl.SFTConfig (--learning_rate, by default 0.287 / the model's hidden size;\n"
    "--num_train_epochs, 6; --per_device_train_batch_size, 32; --save_strategy, --eval_strategy, ...)\n"
    "and of trl.ModelConfig (--lora_r, by default 32; --load_in_4bit, --dtype, --attn_implementation, ...)",
    "evaluate": "all options of trl.ModelConfig (--dtype, --load_in_4bit, --model_revision, ...)",
    "augment": "all options of trl.ModelConfig (--dtype, --model_revision, ...)",
}
FIRST = ("model_name_or_path", "edits", "locality_pool", "adapter", "output_dir")  # what nearly every call gives
# Words that may stand before the options, and the option that they are then given to.
WORDS = {"push": "--folder", "verify": "--name", "merge": "--adapters"}
RESUME = "--resume_from_checkpoint"  # an option that may stand alone


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
        metadata={"help": "Go on with a run that was stopped; alone, or with the checkpoint folder to go on from."},
    )


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


def with_words(verb: str, args: list[str]) -> list[str]:
    """
    The arguments of a verb, words before the options given to their option.

    Refuses what the parser would let pass or trip over: a word that is no option, and `--config` without a file. An
    option that may stand alone gets the value that this means.
    """
    first = next((place for place, word in enumerate(args) if word.startswith("-")), len(args))
    if first and verb not in WORDS:
        raise EditError(f"unexpected {args[0]!r}; give options as --name value, such as --edits {args[0]}")
    if first > 1 and verb != "merge":
        raise EditError(f"unexpected {args[1]!r}; {verb} takes one folder or Hub id")
    if args[-1:] == ["--config"]:
        raise EditError("--config is without its file; give a YAML file with options after it")
    given = [WORDS[verb], *args] if first else args
    if verb != "train":
        return given
    behind = [*given[1:], "--"]
    is_alone = [word == RESUME and behind[place].startswith("--") for place, word in enumerate(given)]
    return [f"{word}=True" if alone else word for word, alone in zip(given, is_alone, strict=True)]


def resume_wish(value: Any) -> bool | str:
    """What `resume_from_checkpoint` asks for, as given on the command line or in YAML: whether to, or the folder."""
    plain = {"true": True, "false": False, "none": False, "": False}
    return plain.get(str("" if value is None else value).lower(), value)


def help_text(verb: str) -> str:
    """The options of a verb, from the settings that load no torch."""
    words = {"push": "FOLDER ", "verify": "NAME ", "merge": "ADAPTER ADAPTER ... "}.get(verb, "")
    lines = [f"usage: hf-ftedit {verb} {words}[--config FILE.yaml] [--OPTION VALUE ...]", "", "options:"]
    defaults = OPTIONS[verb]()
    by_name = {option.name: option for option in fields(defaults) if option.name != PROVENANCE}
    for name in dict.fromkeys([*filter(by_name.get, FIRST), *by_name]):
        default = getattr(defaults, name)
        notes = [", ".join(choices_of(name, OPTIONS[verb])), "" if default is None else f"default: {default}"]
        shown = "; ".join(filter(None, notes))
        lines.append(f"  --{name:<24} {by_name[name].metadata['help']}{shown and f' ({shown})'}")
    return "\n".join([*lines, "", f"and {MORE_OPTIONS[verb]}"] if verb in MORE_OPTIONS else lines)


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
        raise EditError(f"--config: not valid YAML: {one_line(error)}; correct it there") from error
    except (OSError, ValueError, TypeError) as error:
        _bad_options(str(error))
    if unknown and not partly:
        raise _unknown_options(unknown)
    return (*found, unknown) if partly else tuple(found)


def check_known(types: Sequence[Any], args: list[str]) -> None:
    """
    Raise [`~hf_ftedit.EditError`] about an option, given or in the file of `--config`, that no type has.

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
