"""The folder of an edited model: its files, written and read, and the SHA-256 of each of them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import UndefinedError

from hf_ftedit.data import EditRecord, read_edits, write_jsonl
from hf_ftedit.errors import EditError, shown
from hf_ftedit.evaluation import RESULTS_FILE
from hf_ftedit.files import moved_in, write_json, write_text
from hf_ftedit.hub.card import edits_dataset, leaderboard_entries, model_card, yaml_text
from hf_ftedit.hub.plot import scores_plot
from hf_ftedit.hub.schemas import provenance_rule, recipe_rule, results_rule
from hf_ftedit.models import ADAPTER_CONFIG, ADAPTER_WEIGHTS, plain_template, public_name, without_patterns
from hf_ftedit.options import PROVENANCE, TEMPLATE_FILE
from hf_ftedit.untrusted import (
    EVAL_FOLDER,
    REMEDY,
    check_lines,
    check_regular,
    explained,
    parse_json,
    parse_yaml,
    read_as,
    read_small,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CARD_FILE = "README.md"
RECIPE_FILE = "edit_config.yaml"
EDITS_FILE = "edits.jsonl"
PLOT_FILE = "scores.png"
ADAPTER_FILES = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, CARD_FILE, EDITS_FILE, RESULTS_FILE, RECIPE_FILE, PLOT_FILE)
_WEIGHTS = re.compile(
    r"adapter_model\.safetensors|(adapter_)?config\.json|model[\d-]*(of-\d+)?\.safetensors(\.index\.json)?"
)


class SavedEdits(NamedTuple):
    """
    A saved adapter folder without its weights: edits, scores, settings, provenance.

    Args:
        path (`Path`): The folder.
        records (`list[EditRecord]`): Its edits.
        results (`dict`): Its scores before and after.
        recipe (`dict`): The settings that reproduce it.
        provenance (`dict`): Versions, the files' SHA-256, parts that it was merged from: all of `edit_config.yaml`
            that is no setting.
    """

    path: Path
    records: list[EditRecord]
    results: dict[str, Any]
    recipe: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def is_adapter(self) -> bool:
        """`True` for an adapter, `False` for a whole model."""
        return (self.path / ADAPTER_CONFIG).is_file()

    @property
    def settings(self) -> dict[str, Any]:
        """Content of `edit_config.yaml`: the recipe with its provenance."""
        return {**self.recipe, PROVENANCE: self.provenance}


def save_edit_folder(
    folder: str | Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    records: Sequence[EditRecord],
    results: dict[str, Any],
    recipe: dict[str, Any],  # the settings with their provenance
    state_dict: dict[str, Any] | None = None,  # the gathered weights of a sharded model
) -> None:
    """Write an edited model whole or not at all; one that is in the folder is replaced, other files stay."""
    with moved_in(Path(folder), replaced=_written(Path(folder))) as new:
        save_weights(new, model, tokenizer, state_dict)
        if recipe.get("chat_template_path"):
            _write_template(new, tokenizer)
        write_jsonl(records, new / EDITS_FILE)
        write_json(new / RESULTS_FILE, results)
        (new / PLOT_FILE).write_bytes(scores_plot(results))
        settings = {name: value for name, value in recipe.items() if name != PROVENANCE}
        _write_account(new, SavedEdits(new, list(records), results, settings, recipe.get(PROVENANCE, {})))


def check_folder(folder: str | Path, *, with_card: bool = True) -> None:
    """Raise [`~hf_ftedit.EditError`] where `folder` holds files of an edited model that another program wrote."""
    folder = Path(folder)
    if folder.is_file():
        raise EditError(f"output_dir {str(folder)!r} is a file; give a folder")
    present = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    others = (EDITS_FILE, CARD_FILE) if with_card else (EDITS_FILE,)
    replaced = {name for name in present if name in others or _WEIGHTS.fullmatch(name)}
    if theirs := sorted(replaced - _written(folder).keys()):
        problem = f"holds {theirs[0]!r}, which hf-ftedit did not write"
        raise EditError(f"output_dir {str(folder)!r} {problem}; give another --output_dir")


def _written(folder: Path) -> Mapping[str, str]:
    """The files that the recipe in `folder` names: an adapter beside another model's weights would be put on those."""
    try:
        return read_recipe(folder, folder.name)[PROVENANCE]["files"]
    except EditError:
        return {}


def save_weights(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, state_dict: dict[str, Any] | None = None
) -> None:
    """Save the weights of an adapter, or a whole model with its tokenizer, without paths of this machine."""
    if not hasattr(model, "peft_config"):
        model.save_pretrained(folder, state_dict=state_dict)
        tokenizer.save_pretrained(folder)
        _write_template(folder, tokenizer)  # without the date of this run
        return
    # `save_embedding_layers`: else PEFT looks the vocabulary up on the Hub, and may save an embedding nobody trained.
    active = model.active_adapter
    model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False, selected_adapters=[active])
    # PEFT puts any other one into a folder of its name.
    if active != "default":
        for file in (folder / active).iterdir():
            file.rename(folder / file.name)
        (folder / active).rmdir()
    (folder / CARD_FILE).unlink(missing_ok=True)  # PEFT's; it names the folder of the base model
    _finish_config(folder / ADAPTER_CONFIG, model)


def _write_template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    if isinstance(template := plain_template(tokenizer), str):
        write_text(folder / TEMPLATE_FILE, template)


def _finish_config(path: Path, model: Any) -> None:
    """Replace the base model's folder, which PEFT records, by its public name, add its commit, write out patterns."""
    config = json.loads(path.read_text(encoding="utf-8"))
    # As the recipe has it. A model that was made in memory has no name; that of "" would be the working directory's.
    name = getattr(model.config, "_name_or_path", "") or config["base_model_name_or_path"]
    config["base_model_name_or_path"] = public_name(name) if name else None
    config["revision"] = getattr(model.config, "_commit_hash", None) or config.get("revision")
    config |= without_patterns(model, config)
    # A set of PEFT's, in another order in every process: the same training is to give the same file.
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _write_account(new: Path, saved: SavedEdits, *, write_card: bool = True) -> None:
    """Write card and leaderboard entries, then `edit_config.yaml` with the SHA-256 of these and all other files."""
    if write_card:
        card = model_card(saved.records, saved.results, saved.recipe, saved.provenance, adapter=saved.is_adapter)
        write_text(new / CARD_FILE, card)
    if dataset := edits_dataset(saved.recipe, saved.provenance):
        (new / EVAL_FOLDER).mkdir()
        entries = leaderboard_entries(dataset, saved.results, saved.provenance)
        write_text(new / EVAL_FOLDER / f"{dataset.partition('/')[2]}.yaml", yaml_text(entries) + "\n")
    # The recipe comes last and is not in its own list: it cannot hold its own SHA-256.
    provenance = {**saved.provenance, "files": {**saved.provenance.get("files", {}), **digests(new)}}
    write_text(new / RECIPE_FILE, yaml_text(saved._replace(provenance=provenance).settings) + "\n")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, and in those below it, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_edit_folder(folder: str | Path, name: str | None = None) -> SavedEdits:
    """Read a folder without its weights; raises [`~hf_ftedit.EditError`] where this package did not write it."""
    folder = Path(folder)
    name = name or folder.absolute().name  # "." has none
    recipe = read_recipe(folder, name)
    provenance = recipe.pop(PROVENANCE)
    results = _loaded(folder / RESULTS_FILE, name, parse_json)
    results_rule(results, f"{shown(name)}: {RESULTS_FILE}")
    if not (folder / EDITS_FILE).is_file():
        raise EditError(f"{shown(name)} has no {EDITS_FILE}; give a folder that hf-ftedit train or merge wrote")
    check_lines(folder / EDITS_FILE)
    try:
        edits = read_edits(folder / EDITS_FILE)
    except EditError as error:
        raise EditError(f"{shown(name)}: {error}") from error
    return SavedEdits(folder, edits, results, recipe, provenance)


def read_recipe(folder: Path, name: str) -> dict[str, Any]:
    """Content of `edit_config.yaml`; `provenance.files` is there in any case. Raises as [`read_edit_folder`]."""
    recipe, place = _loaded(folder / RECIPE_FILE, name, parse_yaml), f"{shown(name)}: {RECIPE_FILE}"
    provenance = recipe.pop("record", None) or recipe.pop(PROVENANCE, None) or {}  # "record" is 0.1.0's name
    recipe_rule(recipe, place)
    provenance_rule(provenance, f"{place}: {PROVENANCE}")
    return {**recipe, PROVENANCE: {**provenance, "files": provenance.get("files", {})}}


def card_metadata(folder: Path) -> dict[str, Any]:
    """The YAML in front of a card; empty where there is none."""
    card = read_small(folder / CARD_FILE).replace("\r\n", "\n")
    # Not by the Hub's client: its pattern takes hours for some texts, and so does YAML that refers to itself.
    head, end, _ = card.removeprefix("---").partition("\n---")
    metadata = parse_yaml(head) if end and card.startswith("---\n") else {}
    return metadata if isinstance(metadata, dict) else {}


def _loaded(file: Path, name: str, load: Callable[[str], Any]) -> dict[str, Any]:
    if not file.is_file():
        raise EditError(f"{shown(name)} has no {file.name}; give a folder that hf-ftedit train or merge wrote")
    content = read_as(file, f"{shown(name)}: {file.name}", load)
    if not isinstance(content, dict):
        raise EditError(f"{shown(name)}: {file.name} holds no settings or scores; {REMEDY}")
    return content


def changed_files(folder: Path, files: Mapping[str, str]) -> dict[str, str | None]:
    """SHA-256 of each file that differs from the stated one; `None` where the file is missing."""
    now = {name: sha256(folder / name) if (folder / name).is_file() else None for name in files}
    return {name: digest for name, digest in now.items() if digest != files[name]}


def check_unchanged(folder: Path, files: Mapping[str, str], name: str) -> None:
    """Raise where the edits or results of an adapter are not those that were written, as in half a copy."""
    stated = {file: files[file] for file in (ADAPTER_CONFIG, EDITS_FILE, RESULTS_FILE) if file in files}
    for file, digest in changed_files(folder, stated).items():
        # PEFT's settings may be edited (where the base model is), but without them it would seem a whole model.
        if (digest is None) == (file == ADAPTER_CONFIG):
            raise EditError(f"{shown(name)}: {file} is missing or was changed; copy or download the folder again")


def published_files(folder: str | Path) -> list[Path]:
    """The files to push: `edit_config.yaml` and those that it names, unchanged but for the card."""
    # A folder from elsewhere may link a file of this machine under a harmless name.
    folder = Path(folder).absolute()
    check_regular(folder, folder.name)
    saved = read_edit_folder(folder)
    names, label = [*saved.provenance["files"], RECIPE_FILE], shown(folder.name)
    for name, digest in changed_files(saved.path, saved.provenance["files"]).items():
        # Edited by hand, as authors do; `verify` compares its numbers, not its text.
        if name == CARD_FILE and digest:
            continue
        what = "is missing" if digest is None else "was changed after it was written"
        raise EditError(f"{label}: {name} {what}; write the folder again, then push it")
    needed = ADAPTER_FILES if saved.is_adapter else (CARD_FILE, EDITS_FILE, RESULTS_FILE)
    if missing := [name for name in needed if name not in names]:
        raise EditError(f"{label}: {RECIPE_FILE} does not name {missing[0]}; write the folder again")
    return [saved.path / name for name in names]


def finish_folder(folder: str | Path, repo_id: str) -> None:
    """Write the card for the repository `repo_id`, named in its commands; one edited by hand stays as it is."""
    saved = read_edit_folder(folder)
    is_changed = sha256(saved.path / CARD_FILE) != saved.provenance["files"][CARD_FILE]
    if saved.provenance.get("repo_id") == repo_id and not is_changed:
        return
    # A push puts the SHA-256 of what was edited into the recipe, so that the next one could not tell.
    by_hand = is_changed or saved.provenance.get("card_by_hand", False)
    # Only these two are written: weights are large, and stay where they are.
    with moved_in(saved.path) as new:
        if by_hand:
            shutil.copy(saved.path / CARD_FILE, new)  # its new SHA-256 goes into the recipe
        provenance = {**saved.provenance, "repo_id": repo_id} | ({"card_by_hand": True} if by_hand else {})
        try:
            _write_account(new, saved._replace(provenance=provenance), write_card=not by_hand)
        except (LookupError, TypeError, ValueError, UndefinedError) as error:
            raise explained(f"{shown(saved.path.absolute().name)}: {RESULTS_FILE}", error) from error
