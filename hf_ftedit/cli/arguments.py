"""Flags and the file of `--config` to options, each read once; `--help` without torch."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_type_hints

from hf_ftedit.cli.options import OPTIONS, UNUSED
from hf_ftedit.errors import EditError, refusals_of_libraries, shown
from hf_ftedit.options import PROVENANCE, check_settings, check_value, choices_of
from hf_ftedit.untrusted import parse_yaml, read_as

MORE_OPTIONS = {
    "train": "all options of trl.SFTConfig (--learning_rate, by default 0.287 / the model's hidden size;\n"
    "in a chat twice that; --num_train_epochs, 6, in a chat 1, for the embedded model 3;\n"
    "--per_device_train_batch_size, 32, in a chat 8; ...)\n"
    "and of trl.ModelConfig (--lora_r, by default 32; --load_in_4bit, --dtype, --attn_implementation, ...)",
    "evaluate": "all options of trl.ModelConfig (--dtype, --load_in_4bit, --model_revision, ...)",
    "sweep": "all options of train, the same for every run",
    "playground": "all options of train (--num_train_epochs, --lora_r, ...), with which visitors' facts are trained,\n"
    "but those of edits and folder (--edits, --adapter, --output_dir, ...), --full_finetune and --push_to_hub",
    "augment": "all options of trl.ModelConfig (--dtype, --model_revision, ...)",
}
HELP = "see hf-ftedit VERB --help"
# In the list of `--help`.
FIRST = ("model_name_or_path", "gguf_file", "edits", "locality_pool", "adapter", "output_dir")
# Options without their flag: the name, how many, and how `--help` shows them.
WORDS = {
    "push": ("folder", "?", "FOLDER "),
    "verify": ("name", "?", "NAME "),
    "merge": ("adapters", "*", "ADAPTER ADAPTER ... "),
    "export": ("adapter", "?", "ADAPTER "),
    "playground": ("adapters", "*", "[ADAPTER ...] "),
}
# Settings of 0.1.0 that an edit_config.yaml may hold, and the remedy where they were on. Off, they change nothing.
GONE = {
    "prefix_per_edit": "all edits share the sampled prefixes; raise prefix_counts for more of them",
    "merge_into_base": "train the adapter, then run hf-ftedit merge --merge_into_base",
}
# What could run code, send a token elsewhere or publish. `model_init_kwargs` go to `from_pretrained`, which takes
# kernels of any repository, proxies and more; dtype, attn_implementation and the like are options too.
OF_THE_COMMAND = (
    *("trust_remote_code", "model_init_kwargs", "tasks_path", "push_to_hub", "hub_model_id", "hub_token"),
    *("trackio_space_id", "trackio_static_space_id"),
)


class Arguments(NamedTuple):
    """A verb's options that were set."""

    verb: str
    values: dict[str, Any]  # of the verb's own options
    flags: list[str]  # left for `parse_rest`
    config: dict[str, Any]  # settings of `--config` left for `parse_rest`

    def options(self, defaults: Mapping[str, Any] | None = None) -> Any:
        """The verb's own options as its dataclass; `defaults`, such as a recipe's, may hold other settings too."""
        names = {option.name for option in fields(OPTIONS[self.verb])}
        settings = {name: value for name, value in (defaults or {}).items() if name in names}
        with refusals_of_libraries(HELP):
            options = OPTIONS[self.verb](**{**settings, **self.values})
        check_settings(options)
        return options


def read_arguments(verb: str, argv: Sequence[str]) -> Arguments:
    """Read flags and the file of `--config`, and parse the verb's own options; torch is not loaded."""
    # A parser of its own, since TRL's reads the file into its dataclasses alone, and makes strings of the rest.
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config")
    before.error = _bad_options  # type: ignore[method-assign]
    file, flags = before.parse_known_args(argv)
    parser = _parser((OPTIONS[verb],))
    _check_flags(verb, argv, {action.dest for action in parser._actions if action.nargs == "+"})
    config: dict[str, Any] = {}
    if file.config is not None:  # that of `sweep` has several values for an option
        config = {"grid": file.config} if verb == "sweep" else _read_config(verb, file.config)
    # Only options that were set come out, as an adapter's recipe may set the rest. TRL sets defaults this way too;
    # `set_defaults` would also return names that are no options.
    for action in parser._actions:
        action.default = config.get(action.dest, argparse.SUPPRESS)
    name, count, _ = WORDS.get(verb, ("", "", ""))
    if name and verb in MORE_OPTIONS:
        # Only the words in front: argparse would take values of options that it does not know for more of them.
        number = next((place for place, word in enumerate(flags) if word.startswith("-")), len(flags))
        flags = [*flags[number:], f"--{name}", *flags[:number]] if number else flags
    elif name:
        # SUPPRESS: without the word, the option of the same name keeps its value.
        parser.add_argument(name, nargs=count, default=argparse.SUPPRESS)
    values, rest = parser.parse_known_args(flags)
    hints = get_type_hints(OPTIONS[verb])
    for name, value in vars(values).items():
        if isinstance(value, str) and (not value.strip() or "\0" in value):
            raise EditError(f"--{name} is {shown(value)}; give a value, or leave it out")
        if name in (*FIRST, *(word for word, _, _ in WORDS.values())):  # read before the others are checked
            check_value(name, value, hints[name])
    if rest and not rest[0].startswith("-"):
        advice = f"give options as --name value, such as --edits {rest[0]}; one file an option"
        raise EditError(f"unexpected {rest[0]!r}; {f'{verb} takes one folder or Hub id' if verb in WORDS else advice}")
    others = {name: value for name, value in config.items() if name not in vars(values)}
    if verb not in MORE_OPTIONS and (rest or others):
        raise _unknown_options(verb, [*rest, *(f"--{name}" for name in others)], vars(OPTIONS[verb]()))
    return Arguments(verb, vars(values), rest, others)


def parse_rest(
    types: Sequence[Any], arguments: Arguments, defaults: Mapping[str, Any], ignored: Sequence[Any] = ()
) -> list[Any]:
    """Parse what [`read_arguments`] left, as dataclasses that load torch, such as [`~hf_ftedit.EditConfig`]."""
    parser = _parser(types)
    parser.set_defaults_with_config(**{**defaults, **arguments.config})
    with refusals_of_libraries(HELP):
        *parsed, rest = parser.parse_args_into_dataclasses(
            arguments.flags, return_remaining_strings=True, look_for_args_file=False
        )
    # A recipe of `train` serves `evaluate` too. The dataclasses `ignored` are not made: training arguments would set
    # up the process as if it were to train.
    known, passed_over = ({option.name for each in part for option in fields(each)} for part in (types, ignored))
    names, flags = known | passed_over, [word for word in rest if word.startswith("--")]
    unknown = [flag for flag in flags if option_name(flag) not in names]
    if idle := [flag for flag in flags if option_name(flag) in passed_over]:
        raise _unused(arguments.verb, idle[0])
    # A flag may have hyphens or a "no_" in front; the parser knows names of a file as they are spelled, or not at all.
    unknown += [f"--{name}" for name in arguments.config if name not in names]
    if unknown or rest:
        raise _unknown_options(arguments.verb, unknown or rest, names)
    return parsed


def _check_flags(verb: str, argv: Sequence[str], lists: set[str]) -> None:
    """Raise for an option that the verb does not use, and for a list that stands twice: the last one alone counts."""
    seen = set[str]()
    for flag in (word for word in argv if word.startswith("--")):
        if (name := option_name(flag)) in UNUSED.get(verb, "").split():
            raise _unused(verb, flag)
        if name in seen & lists:
            raise EditError(f"--{name} stands twice; keep one, with all its values behind it")
        seen.add(name)


def _unused(verb: str, flag: str) -> EditError:
    return EditError(f"{verb} does not use {flag.partition('=')[0]}; leave it out")


def help_text(verb: str) -> str:
    """The options of a verb, from the settings that load no torch."""
    *_, words = WORDS.get(verb, ("",))
    lines = [f"usage: hf-ftedit {verb} {words}[--config FILE.yaml] [--OPTION VALUE ...]", "", "options:"]
    defaults = OPTIONS[verb]()
    for name, option in used_options(verb).items():
        default = getattr(defaults, name)
        notes = [", ".join(choices_of(name, OPTIONS[verb])), "" if default is None else f"default: {default}"]
        shown = "; ".join(filter(None, notes))
        lines.append(f"  --{name:<24} {option.metadata['help']}{shown and f' ({shown})'}")
    return "\n".join([*lines, "", f"and {MORE_OPTIONS[verb]}"] if verb in MORE_OPTIONS else lines)


def used_options(verb: str) -> dict[str, Field[Any]]:
    """The options of a verb by name, in the order of `--help`, without those of `train` that it does not use."""
    unused = UNUSED.get(verb, "").split()
    by_name = {option.name: option for option in fields(OPTIONS[verb]) if option.name not in unused}
    return {name: by_name[name] for name in dict.fromkeys([*filter(by_name.get, FIRST), *by_name])}


def check_file(settings: Mapping[str, Any], place: str) -> None:
    """Raise [`~hf_ftedit.EditError`] for a setting that only a command may have; the file may be a stranger's."""
    name = next(filter(settings.get, OF_THE_COMMAND), None)
    # transformers runs the code of a repository where the attention's name has a slash.
    if "/" in str(settings.get("attn_implementation")):
        name = "attn_implementation"
    if name:
        raise EditError(f"{place}: {name} is not read from a file; on the command line, add --{name}")


def option_name(flag: str) -> str:
    """The name of the option that a flag sets, such as `seed` of `--seed=1`."""
    return flag.removeprefix("--").partition("=")[0].replace("-", "_").removeprefix("no_")


def _read_config(verb: str, path: str) -> dict[str, Any]:
    """The settings of a YAML file; an `edit_config.yaml` of 0.1.0 is one too."""
    place = f"--config {path}"
    config = read_as(Path(path), place, parse_yaml)  # it may be a stranger's edit_config.yaml
    if not isinstance(config, dict) or not all(isinstance(name, str) for name in config):
        raise EditError(f"{place} holds no settings by name; give lines such as seed: 42")
    check_file(config, place)
    config.pop("trust_remote_code", None)
    if "env" in config:  # of TRL's scripts
        raise EditError(f"{place}: environment variables (env) are not read from a file; set them in the shell")
    if verb in MORE_OPTIONS:
        # The block that is no setting, by its name now and in 0.1.0.
        for name in (PROVENANCE, "record"):
            config.pop(name, None)
        for name, remedy in GONE.items():
            if config.pop(name, False):
                raise EditError(f"{path}: {name} is no option of {verb} any more; {remedy}")
    return config


def _parser(types: Sequence[Any]) -> Any:
    from trl import TrlParser

    parser: Any = TrlParser(types, allow_abbrev=False)
    # argparse's own prints all options, a few hundred, and ends the process.
    parser.error = _bad_options
    return parser


def _bad_options(message: str) -> NoReturn:
    message = re.sub(r"^argument (--\w+)[^:]*", r"\1", message)  # it names the hyphened form too
    raise EditError(f"bad options: {message}; {HELP}")


def _unknown_options(verb: str, words: Sequence[str], known: Iterable[str]) -> EditError:
    # Without values: what stands behind a name that was typed wrong may be a token.
    names = [word.partition("=")[0] for word in words if word.startswith("--")] or words
    meant = get_close_matches(option_name(names[0]), known, n=1, cutoff=0.8)
    remedy = f"did you mean --{meant[0]}?" if meant else f"hf-ftedit {verb} --help lists those there are"
    return EditError(f"unknown option {', '.join(names)}; {remedy}")
