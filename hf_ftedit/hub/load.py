"""Edits that somebody shared: what their folder says, and the base model with them, from the Hub or from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ftedit.errors import EditError, shown
from hf_ftedit.hub.edit_folder import ADAPTER_FILES, SavedEdits, read_edit_folder
from hf_ftedit.hub.push import fetch_folder, listed_files
from hf_ftedit.models import check_adapter, load_adapter, load_model, load_tokenizer, weights_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FETCHED = (*ADAPTER_FILES, "config.json")  # the last is what tells a whole model


def open_edits(name: str, *, revision: str | None = None, token: str | None = None) -> SavedEdits:
    """
    What a folder, or a repository of the Hub, says of its edits; no model is loaded.

    Args:
        name (`str`):
            Folder, or Hub id such as `"user/my-edits"`.
        revision (`str`, *optional*):
            Branch, tag or commit.
        token (`str`, *optional*):
            Token of the Hub; the one of `hf auth login` by default.

    Raises:
        [`~hf_ftedit.EditError`]: there is no such folder or repository, or it was not written by this package.

    Example:
    ```python
    edits = open_edits("user/my-edits")
    print(len(edits.records), edits.results["after"]["edit_score"])
    ```
    """
    return read_edit_folder(fetch_folder(name, FETCHED, revision=revision, token=token), name)


def fetch_adapter(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """
    The folder of an adapter, from the Hub where it is not here.

    Raises:
        [`~hf_ftedit.EditError`]: there is no such adapter, or it is not saved as safetensors.
    """
    folder = fetch_folder(name, FETCHED, revision=revision, token=token)
    _check_weights(folder, name, revision, token)
    return folder


def _check_weights(folder: Path, name: str, revision: str | None, token: str | None) -> None:
    if not (folder / "adapter_model.safetensors").is_file():
        if "adapter_model.bin" in listed_files(name, revision=revision, token=token):
            raise EditError(
                f"{shown(name)} has its weights in adapter_model.bin alone, which can run code when it is read; "
                "ask its author for safetensors"
            )
        raise EditError(f"{shown(name)} has no adapter_model.safetensors; give a folder or Hub id of an adapter")
    check_adapter(folder, name)


def load_edited_model(
    name: str,
    *,
    revision: str | None = None,
    merge: bool = False,
    base_model: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    token: str | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    An edited model and its tokenizer: the base model at the recorded commit, with the adapter on it.

    Args:
        name (`str`):
            Folder, or Hub id such as `"user/my-edits"`, of an adapter, or of a whole edited model.
        revision (`str`, *optional*):
            Branch, tag or commit of it.
        merge (`bool`, *optional*, defaults to `False`):
            Put the adapter into the weights: a plain model of transformers, without PEFT.
        base_model (`str`, *optional*):
            Hub id or folder of the base model, where it is not the recorded one, such as a copy on your disk.
        dtype (`str`, *optional*):
            Precision of the weights; the one in which the edits were measured by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Run code that the base model's repository brings.
        token (`str`, *optional*):
            Token of the Hub; the one of `hf auth login` by default.
        kwargs:
            Passed to `from_pretrained` of the base model, such as `quantization_config`.

    Raises:
        [`~hf_ftedit.EditError`]: there is no such adapter or base model, it is not saved as safetensors, or
            the base model's weights are not those that it was made for.

    Example:
    ```python
    model, tokenizer = load_edited_model("user/my-edits", merge=True)
    ```
    """
    how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "token": token}
    folder = fetch_folder(name, FETCHED, revision=revision, token=token)
    told = read_edit_folder(folder, name) if (folder / "edit_config.yaml").is_file() else None
    if not (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file():
        how |= {"revision": revision}
        return load_model(name, dtype=dtype or "auto", **how, **kwargs), load_tokenizer(name, **how)
    _check_weights(folder, name, revision, token)
    source, base_revision = base_of(folder, told, base_model)
    how |= {"revision": base_revision}
    dtype = dtype or (told.recipe.get("dtype") if told else None) or "auto"
    tokenizer = load_tokenizer(source, **how)
    model = load_model(source, dtype=dtype, **how, **kwargs)
    if told:
        check_base(model, told.provenance, name)
    adapted: Any = load_adapter(model, folder)
    return (adapted.merge_and_unload() if merge else adapted), tokenizer


def base_of(folder: Path, told: SavedEdits | None, given: str | None = None) -> tuple[str, str | None]:
    """
    Name and commit of the base model of an adapter: the one that is given, or the recorded one.

    Args:
        folder (`Path`):
            The adapter's folder.
        told ([`SavedEdits`], *optional*):
            What it says of itself, where this package wrote it.
        given (`str`, *optional*):
            Another name of the base model; it is then taken as it is now.

    Raises:
        [`~hf_ftedit.EditError`]: none is recorded.
    """
    from peft import PeftConfig

    if given is not None:
        return given, None
    if told:
        return told.recipe.get("model_name_or_path", ""), told.recipe.get("model_revision")
    config = PeftConfig.from_pretrained(str(folder))
    if not config.base_model_name_or_path:
        raise EditError(f"{shown(folder.name)} does not say what its base model is; give it as base_model")
    return config.base_model_name_or_path, config.revision


def check_base(model: PreTrainedModel, provenance: Mapping[str, Any], name: str) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where the model's weights are not those that the adapter was made for.

    Args:
        model (`PreTrainedModel`):
            A base model.
        provenance (`Mapping`):
            What the `edit_config.yaml` of the adapter `name` holds under `provenance`.
        name (`str`):
            The adapter.
    """
    recorded, found = provenance.get("base_fingerprint"), weights_fingerprint(model)
    if recorded and found and recorded != found:
        raise EditError(
            f"{shown(name)} was trained on another base model (the weights differ); give that one "
            "(--model_name_or_path, base_model)"
        )
