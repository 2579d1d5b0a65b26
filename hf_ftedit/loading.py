"""Models and tokenizers by name or folder: safetensors only, and no remote code unless asked."""

from __future__ import annotations

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
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    device = PartialState().device  # of this process, also under `accelerate launch`
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


def load_adapter(model: PreTrainedModel, name: str) -> PeftModel:
    """
    `model` with the LoRA adapter `name` (Hub id or folder); only safetensors are read.

    Raises:
        [`~hf_ftedit.records.EditError`]: there is no such adapter, or it is not saved as safetensors.
    """
    from peft import PeftModel

    if Path(name).is_dir() and not (Path(name) / "adapter_model.safetensors").is_file():
        raise EditError(f"adapter {name!r} has no adapter_model.safetensors; give the folder of an adapter")
    try:
        return PeftModel.from_pretrained(model, name, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise EditError(f"adapter {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def unedited(model: Any) -> AbstractContextManager[Any]:
    """Context in which `model` is the model without its adapter; a model without one is taken as it is."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def _load(loader: Any, name: str | None, **kwargs: Any) -> Any:
    try:
        return loader.from_pretrained(model_source(name), **kwargs)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EditError(f"model_name_or_path {name!r} cannot be loaded: {reason}") from error
