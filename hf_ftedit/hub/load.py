"""Load shared edits from the Hub or a folder: the account of an adapter, and the base model with the adapter on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from hf_ftedit import models
from hf_ftedit.errors import EditError, shown
from hf_ftedit.hub.errors import hub_errors, may_pass, retried
from hf_ftedit.hub.folder import ADAPTER_FILES, RECIPE_FILE, SavedEdits, check_unchanged, read_edit_folder
from hf_ftedit.options import PROVENANCE, TEMPLATE_FILE
from hf_ftedit.untrusted import check_regular, read_as

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FETCHED = (*ADAPTER_FILES, TEMPLATE_FILE, "config.json")  # the last one marks a whole model


def open_edits(name: str, *, revision: str | None = None, token: str | None = None) -> SavedEdits:
    """
    Read the edits, scores and settings in a folder or a repository of the Hub; no model is loaded.

    Args:
        name (`str`): Folder, or Hub id such as `"user/my-edits"`.
        revision (`str`, *optional*): Branch, tag or commit.
        token (`str`, *optional*): Token of the Hub; the one of `hf auth login` by default.

    Raises:
        [`~hf_ftedit.EditError`]: there is no such folder or repository, it was not written by this package, or its
            edits or results are not as they were written.

    Example:
    ```python
    edits = open_edits("user/my-edits")
    print(len(edits.records), edits.results["after"]["edit_score"])
    ```
    """
    saved = read_edit_folder(fetch_folder(name, revision=revision, token=token), name)
    check_unchanged(saved.path, saved.provenance["files"], name)
    return saved


def load_edited_model(
    name: str,
    *,
    revision: str | None = None,
    merge: bool = False,
    base_model: str | None = None,
    gguf_file: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    token: str | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load an edited model and its tokenizer: the base model at the recorded commit, with the adapter on it.

    Args:
        name (`str`): Folder, or Hub id such as `"user/my-edits"`, of an adapter, or of a whole edited model.
        revision (`str`, *optional*): Branch, tag or commit of it.
        merge (`bool`, *optional*, defaults to `False`): Put the adapter into the weights: a plain model of
            transformers, without PEFT.
        base_model (`str`, *optional*): Hub id or folder of the base model, or path of its GGUF file, where it is not
            the recorded one.
        gguf_file (`str`, *optional*): Name of the GGUF file in `base_model`, where it is not the recorded one.
        dtype (`str`, *optional*): Precision of the weights; the one in which the edits were measured by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that the base model's repository brings.
        token (`str`, *optional*): Token of the Hub; the one of `hf auth login` by default.
        kwargs:
            Passed to `from_pretrained` of the base model, such as `quantization_config`.

    Raises:
        [`~hf_ftedit.EditError`]: no such adapter or base model, no safetensors, or it was made for other weights.

    Example:
    ```python
    model, tokenizer = load_edited_model("user/my-edits", merge=True)
    ```
    """
    folder = fetch_folder(name, revision=revision, token=token)
    # Not by the recipe: adapters and whole models of others are loaded too, they only have no account to check.
    is_whole = (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()
    saved = read_edit_folder(folder, name) if (folder / RECIPE_FILE).is_file() and not is_whole else None
    if not is_whole:
        models.check_adapter(folder, name)
    source, place = (name, {"revision": revision}) if is_whole else base_of(folder, saved, base_model, gguf_file)
    settings: dict[str, Any] = {"trust_remote_code": trust_remote_code, "token": token, **place}
    tokenizer = models.load_tokenizer(source, **settings)
    if saved and saved.recipe.get("chat_template_path"):  # the adapter's own, which nobody runs here
        tokenizer.chat_template = read_as(saved.path / TEMPLATE_FILE, f"{shown(name)}: {TEMPLATE_FILE}")
    recorded = saved and saved.recipe.get("dtype")
    model: Any = models.load_model(source, dtype=dtype or recorded or "auto", **settings, **kwargs)
    if saved:
        check_base(model, saved.settings, name)
    if not is_whole:
        model = models.load_adapter(model, folder)
    return (models.merged(model) if merge and not is_whole else model), tokenizer


def fetch_folder(
    name: str,
    patterns: tuple[str, ...] = FETCHED,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | None = None,
    most_bytes: int | None = None,
) -> Path:
    """
    The folder `name`, or the one in the cache with files of a repository of the Hub, whose commit is its name.

    With `token=False` no token is sent to the Hub. Files of more than `most_bytes` together are not downloaded.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise EditError(f"{shown(name)} is a folder, which has no revision {revision!r}; leave it out")
        check_regular(name, name)
        return Path(name)
    if Path(name).is_file():  # `my-edits/edits.jsonl` would be looked up on the Hub
        raise EditError(f"{shown(name)} is a file; give the folder that it is in, or a Hub id")

    def fetch() -> Path:
        settings: dict[str, Any] = {"allow_patterns": list(patterns), "token": token, "cache_dir": cache_dir}
        commit = revision if most_bytes is None else _small_commit(name, patterns, revision, token, most_bytes)
        try:
            return Path(snapshot_download(name, revision=commit, **settings))
        except LocalEntryNotFoundError as error:
            # Neither in the cache: the Hub was busy, or the connection broke, and another try may help.
            if error.__cause__ and may_pass(error.__cause__):
                raise error.__cause__ from None
            raise

    with hub_errors(name):
        return retried(fetch)


def _small_commit(
    name: str, patterns: tuple[str, ...], revision: str | None, token: str | bool | None, most_bytes: int
) -> str | None:
    """The commit that is to be downloaded, so that it is the one whose files were seen to have no more bytes."""
    info = model_info(name, revision=revision, files_metadata=True, token=token)
    files = filter_repo_objects(info.siblings or (), allow_patterns=list(patterns), key=lambda file: file.rfilename)
    if (size := sum(file.size or 0 for file in files)) > most_bytes:
        most = f"the {most_bytes / 10**6:,.1f} MB that may be downloaded from here"
        raise EditError(f"{name}: its files have {size / 10**6:,.1f} MB, more than {most}; give a smaller adapter")
    return info.sha


def base_of(
    folder: Path, saved: SavedEdits | None, base_model: str | None = None, gguf_file: str | None = None
) -> tuple[str, dict[str, Any]]:
    """An adapter's base model, and its commit and GGUF file: `base_model` as it is now, or the recorded one."""
    if saved:
        recipe = recipe_for(saved.recipe, base_model)
        place = {"revision": recipe.get("model_revision"), "gguf_file": gguf_file or recipe.get("gguf_file")}
        return base_model or recipe.get("model_name_or_path", ""), place
    if base_model is not None:
        return base_model, {"revision": None, "gguf_file": gguf_file}
    settings = models.adapter_settings(folder)
    if not (name := settings.get("base_model_name_or_path")):
        remedy = "give it (--model_name_or_path, base_model)"
        raise EditError(f"{shown(folder.name)} does not say what its base model is; {remedy}")
    return name, {"revision": settings.get("revision"), "gguf_file": gguf_file}


def own_template(folder: Path, recipe: Mapping[str, Any], name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The setting for the chat template that the adapter `name` was trained with and brings, if none is `chosen`."""
    if chosen.get("chat_template_path") or not recipe.get("chat_template_path"):
        return {}
    # A program, in a sandbox that bounds neither its time nor its memory; that of the base model is the user's choice.
    if not chosen.get("trust_remote_code"):
        remedy = f"read its {TEMPLATE_FILE}, and add --trust_remote_code (trust_remote_code=True) to run it"
        raise EditError(f"{shown(name)} brings its own chat template, which is a program: {remedy}")
    return {"chat_template_path": str(folder / TEMPLATE_FILE)}


def recipe_for(recipe: Mapping[str, Any], base_model: str | None) -> dict[str, Any]:
    """The settings of a recipe that hold for `base_model` too, where it is not the recorded one."""
    if base_model in (None, recipe.get("model_name_or_path")):
        return dict(recipe)
    # Another copy has other commits, so that the recorded one says nothing of it, and may hold no such GGUF file.
    is_there = Path(base_model, recipe.get("gguf_file") or "").is_file()
    gone = ("model_revision",) if is_there else ("model_revision", "gguf_file")
    return {name: value for name, value in recipe.items() if name not in gone}


def check_base(model: PreTrainedModel, settings: Mapping[str, Any], name: str) -> None:
    """Raise [`~hf_ftedit.EditError`] where the adapter `name`, of these `settings`, was made for other weights."""
    # By the weights, not the name: a name says nothing of a copy on disk, nor of a branch that went on.
    recorded = (settings.get(PROVENANCE) or {}).get("base_fingerprint")
    actual = models.weights_fingerprint(model)
    if recorded and actual and recorded != actual:
        commit = settings.get("model_revision")
        base = shown(settings.get("model_name_or_path")) + (f" at commit {shown(commit)}" if commit else "")
        remedy = f"give that one, {base} (--model_name_or_path, base_model)"
        raise EditError(f"{shown(name)} was trained on another base model (the weights differ); {remedy}")
