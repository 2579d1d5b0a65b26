"""The only file that writes a folder or talks to the Hub; pushing an adapter will live here too."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_ftedit.card import dataset_card, model_card
from hf_ftedit.predictions import TYPES
from hf_ftedit.recipe import public_name
from hf_ftedit.records import EditError, EditRecord, write_jsonl

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedTokenizerBase

ADAPTER_FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "README.md",
    "edits.jsonl",
    "eval_results.json",
    "edit_config.yaml",
)
UNFINISHED = "unfinished"  # folder of an evaluation's journals, until its results are written
# What to do about the statuses that the Hub answers with.
REMEDIES = {
    401: "log in with `hf auth login`, or give a valid token",
    403: "give a token that may write there, or push to a namespace of your own",
    404: "check the name, and that the token may see it",
    412: "somebody else changed it meanwhile; push again",
    429: "too many requests; wait a while and push again",
}


def require_empty(folder: str | Path, *, resume: bool = False) -> None:
    """
    Raise [`~hf_ftedit.records.EditError`] where `folder` exists with content, or cannot be made or written to.

    Args:
        folder (`str` or `Path`):
            Where something is to be written.
        resume (`bool`, *optional*, defaults to `False`):
            Whether an unfinished evaluation may be there, and nothing else.
    """
    path = Path(folder)
    if path.is_dir() and [item.name for item in path.iterdir()] == [UNFINISHED]:
        if resume:
            return
        raise EditError(
            f"output_dir {str(folder)!r} holds an evaluation that was stopped; add --resume to go on with it, "
            "or remove the folder"
        )
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise EditError(f"output_dir {str(folder)!r} exists and is not empty; give another --output_dir or remove it")
    nearest = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise EditError(f"output_dir {str(folder)!r}: {nearest} is no folder that you may write to; give another one")


def save_edit_folder(
    folder: str | Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    records: Sequence[EditRecord],
    results: dict[str, Any],
    recipe: dict[str, Any],
    answers: Sequence[tuple[str, str]] = (),
    state_dict: dict[str, Any] | None = None,
) -> None:
    """
    Write an edited model: for an adapter exactly the files of `ADAPTER_FILES`.

    The files are written to a temporary folder and moved in when all are complete.

    Args:
        folder (`str` or `Path`):
            Where to; files of the same names are replaced.
        model ([`~peft.PeftModel`] or [`~transformers.PreTrainedModel`]):
            The edited model; a whole model is saved with its tokenizer.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            The edits.
        results (`dict`):
            Scores before and after, see [`~hf_ftedit.EditTrainer.edit_results`].
        recipe (`dict`):
            Settings that reproduce it, see [`~hf_ftedit.recipe.recipe_of`].
        answers (`Sequence[tuple[str, str]]`, *optional*):
            What the model said to the first edits' prompts before, and says after, for the card.
        state_dict (`dict`, *optional*):
            Gathered weights of a sharded model.
    """
    adapter = hasattr(model, "peft_config")
    with _moved_in(Path(folder)) as new:
        if adapter:
            model.save_pretrained(new, state_dict=state_dict, save_embedding_layers=False)
            _hide_local_base(new / "adapter_config.json")
        else:
            model.save_pretrained(new, state_dict=state_dict)
            tokenizer.save_pretrained(new)
        write_jsonl(records, new / "edits.jsonl")
        _write(new / "eval_results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        _write(new / "edit_config.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        _write(
            new / "README.md", model_card(records, results, recipe, adapter=adapter, answers=answers)
        )  # PEFT wrote one too


def save_dataset_folder(folder: str | Path, dataset: DatasetDict, config: dict[str, Any]) -> None:
    """
    Write an augmented dataset as one Parquet file a split, with its card; `load_dataset(folder)` reads it.

    Args:
        folder (`str` or `Path`):
            Where to.
        dataset (`DatasetDict`):
            The splits; empty ones are left out.
        config (`dict`):
            Settings of the augmentation, for the card.
    """
    splits = _filled(dataset)
    data_files = [{"split": name, "path": f"{name}.parquet"} for name in splits]
    metadata = {"configs": [{"config_name": "default", "data_files": data_files}]}
    with _moved_in(Path(folder)) as new:
        for name, split in splits.items():
            split.to_parquet(str(new / f"{name}.parquet"))
        _write(new / "README.md", _dataset_card(config, splits, metadata))


def push_dataset(
    dataset: DatasetDict,
    repo_id: str,
    settings: dict[str, Any],
    *,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """
    Push an augmented dataset to the Hub, with its card; `load_dataset(repo_id)` reads it.

    The rows go up in one commit, as [`~datasets.DatasetDict.push_to_hub`] does it, the card in a second one. The card
    keeps the metadata that stands in the repository: that of the rows, and what somebody added, such as a license.

    Args:
        dataset (`DatasetDict`):
            The splits; empty ones are left out.
        repo_id (`str`):
            Where to, such as `"user/my-edits"`; made when it is not there.
        settings (`dict`):
            Settings of the augmentation, for the card; see [`~hf_ftedit.EditDatasetBuilder.settings`].
        private (`bool`, *optional*):
            Whether only you may see the repository. By default a new one is as the namespace's own setting says.
        token (`str`, *optional*):
            Token of the Hub with write access; the one of `hf auth login` by default.

    Returns:
        `str`: address of the dataset's page.

    Raises:
        [`~hf_ftedit.records.EditError`]: there are no rows, the Hub refuses or cannot be reached, or `private` is
            asked for and the repository is there and public.

    Example:
    ```python
    push_dataset(builder.as_dataset(), "user/my-edits", builder.settings)
    ```
    """
    from huggingface_hub import HfApi, metadata_load

    splits = _filled(dataset)
    if not splits:
        raise EditError(f"{repo_id}: the dataset has no rows; nothing is pushed")
    api = HfApi(token=token)
    with _hub_errors(repo_id):
        page = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        name = page.repo_id
        if private and not api.dataset_info(name).private:
            raise EditError(f"{name}: exists and is public; make it private on the Hub first, or push elsewhere")
        commit = splits.push_to_hub(name, token=token)
        pushed = api.hf_hub_download(name, "README.md", repo_type="dataset", revision=commit.oid)
        api.upload_file(
            repo_id=name,
            repo_type="dataset",
            path_in_repo="README.md",
            path_or_fileobj=_dataset_card(settings, splits, metadata_load(pushed) or {}).encode(),
            commit_message="Write the dataset card",
            parent_commit=commit.oid,
        )
    return str(page)


def save_results_folder(
    folder: str | Path, results: dict[str, Any], predictions: dict[str, dict[str, list[Any]]]
) -> None:
    """
    Write scores as `eval_results.json`, and the predictions they come from as one Parquet file for each measurement.

    Args:
        folder (`str` or `Path`):
            Where to.
        results (`dict`):
            Scores by measurement, such as `"before"`.
        predictions (`dict`):
            Columns of predictions by measurement, see [`~hf_ftedit.evaluation.predict`].
    """
    from datasets import Dataset, Features, Value

    features = Features({name: Value(kind) for name, kind in TYPES.items()})
    with _moved_in(Path(folder)) as new:
        for when, columns in predictions.items():
            whole = {name: columns.get(name, [None] * len(columns["edit_id"])) for name in TYPES}
            Dataset.from_dict(whole, features).to_parquet(str(new / f"predictions-{when}.parquet"))
        _write(new / "eval_results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    shutil.rmtree(Path(folder) / UNFINISHED, ignore_errors=True)


def _filled(dataset: DatasetDict) -> DatasetDict:
    """The splits that have rows."""
    return type(dataset)({name: split for name, split in dataset.items() if len(split)})


def _dataset_card(settings: dict[str, Any], splits: DatasetDict, metadata: dict[str, Any]) -> str:
    public = {name: public_name(value) if isinstance(value, str) else value for name, value in settings.items()}
    return dataset_card(public, {name: len(split) for name, split in splits.items()}, metadata)


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Whatever the Hub refuses, or keeps from reaching it, as one line that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = " ".join((error.server_message or "no reason given").split()).rstrip(".")
        remedy = REMEDIES.get(status, "the Hub has a problem; push again later" if status >= 500 else "see the reason")
        raise EditError(f"{repo_id}: the Hub refuses with {status} ({said}); {remedy}") from error
    except HFValidationError as error:
        raise EditError(f"{repo_id!r} is not a name for a repository; give one such as 'user/my-edits'") from error
    except OfflineModeIsEnabled as error:
        raise EditError(f"{repo_id}: HF_HUB_OFFLINE is set; unset it to push") from error
    except HTTPError as error:
        reason = " ".join(str(error).split())
        raise EditError(f"{repo_id}: the Hub cannot be reached ({reason}); check the network, push again") from error


@contextmanager
def _moved_in(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, or in it where it exists, whose files move there if the block ends well."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Inside a folder that exists: its parent may be another file system, or not ours to write to.
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder if folder.is_dir() else folder.parent))
    try:
        yield new
        _open_to_others(new)
        if not folder.exists():
            new.rename(folder)
            return
        for file in sorted(new.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _open_to_others(folder: Path) -> None:
    """The usual permissions for what was made private as temporary files are."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)


def _hide_local_base(path: Path) -> None:
    """PEFT records where the base model was loaded from; a folder of this machine is nobody else's business."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = public_name(config["base_model_name_or_path"] or "")
    _write(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
