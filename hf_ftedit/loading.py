"""Models and tokenizers by name or folder: safetensors only, and no remote code unless asked."""

from __future__ import annotations

import re
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ftedit.records import EditError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED_NAME = "hf_ftedit/embedded"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def asset(name: str) -> str:
    """Path of a file or folder that the package brings."""
    return str(files("hf_ftedit") / "assets" / name)


def model_source(name: str | None) -> str:
    """Where to load a model from: the name itself, or the embedded model's folder without one."""
    return asset("model") if name in (None, EMBEDDED_NAME) else name


def load_tokenizer(
    name: str | None, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of `name` (Hub id, folder, or `None` for the embedded model)."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, name, revision=revision, trust_remote_code=trust_remote_code)


def load_config(name: str | None, *, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of `name`, without its weights."""
    from transformers import AutoConfig

    return _load(AutoConfig, name, revision=revision, trust_remote_code=trust_remote_code)


def load_model(
    name: str | None,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> PreTrainedModel:
    """
    The causal language model `name`, on this process's device and in evaluation mode.

    Args:
        name (`str`, *optional*):
            Hub id or folder; the embedded model without one.
        revision (`str`, *optional*):
            Branch, tag or commit.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Precision of the weights.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Run code that the repository brings.
        kwargs:
            Passed to `from_pretrained`, such as `quantization_config` or `attn_implementation`.

    Raises:
        [`~hf_ftedit.records.EditError`]: there is no such model, or it has no safetensors weights.
    """
    from transformers import AutoModelForCausalLM

    from hf_ftedit.processes import process_state

    device = process_state().device  # of this process, also under `accelerate launch`
    if kwargs.get("quantization_config") is not None:
        kwargs["device_map"] = {"": device}
    model = _load(
        AutoModelForCausalLM,
        name,
        revision=revision,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
        **kwargs,
    )
    return model if "device_map" in kwargs else model.to(device)


def check_adapter(name: str) -> None:
    """
    Raise [`~hf_ftedit.records.EditError`] where `name` is no adapter saved as safetensors; its weights are not read.

    Args:
        name (`str`):
            Hub id or folder.
    """
    from peft import PeftConfig

    if Path(name).is_dir() and not (Path(name) / "adapter_model.safetensors").is_file():
        raise EditError(f"adapter {name!r} has no adapter_model.safetensors; give the folder of an adapter")
    try:
        PeftConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise EditError(f"adapter {name!r} cannot be loaded: {_first_line(error)}; give a folder or Hub id") from error


def load_adapter(model: PreTrainedModel, name: str) -> PeftModel:
    """
    `model` with the LoRA adapter `name` (Hub id or folder); only safetensors are read.

    Raises:
        [`~hf_ftedit.records.EditError`]: there is no such adapter, or it is not saved as safetensors.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    check_adapter(name)
    try:
        return PeftModel.from_pretrained(model, name, use_safetensors=True).eval()
    except (OSError, ValueError, SafetensorError) as error:
        raise EditError(f"adapter {name!r} cannot be loaded: {_first_line(error)}; write or fetch it again") from error
    except RuntimeError as error:  # tensors of other sizes
        raise EditError(
            f"adapter {name!r} does not fit this model; give the base model that it was made for"
        ) from error


def unedited(model: Any) -> AbstractContextManager[Any]:
    """Context in which `model` is the model without its adapter; a model without one is taken as it is."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def _load(loader: Any, name: str | None, **kwargs: Any) -> Any:
    from safetensors import SafetensorError

    source = model_source(name)
    if not Path(source).is_dir() and not _HUB_ID.fullmatch(source):
        raise EditError(f"model_name_or_path {name!r}: no such folder; check the path, or give a Hub id")
    try:
        return loader.from_pretrained(source, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        raise EditError(f"model_name_or_path {name!r} cannot be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
