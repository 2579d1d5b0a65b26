"""Models and tokenizers by name or folder: safetensors only, and no remote code unless asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from hf_ftedit.errors import EditError, first_line

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


def public_name(source: str) -> str:
    """A model or data source as others may know it: a Hub id as it is, a file or folder by its own name alone."""
    if Path(source) == Path(asset("model")):
        return EMBEDDED_NAME
    return Path(source).resolve().name if Path(source).exists() or Path(source).is_absolute() else source


def load_tokenizer(
    name: str | None, *, revision: str | None = None, trust_remote_code: bool = False, token: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of `name` (Hub id, folder, or `None` for the embedded model)."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, name, revision=revision, trust_remote_code=trust_remote_code, token=token)


def load_config(
    name: str | None, *, revision: str | None = None, trust_remote_code: bool = False, token: str | None = None
) -> PretrainedConfig:
    """The configuration of `name`, without its weights."""
    from transformers import AutoConfig

    return _load(AutoConfig, name, revision=revision, trust_remote_code=trust_remote_code, token=token)


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
        [`~hf_ftedit.EditError`]: there is no such model, or it has no safetensors weights.
    """
    from transformers import AutoModelForCausalLM

    from hf_ftedit.models.distributed import check_launch, loads_on_one, process_state

    check_launch()
    device = process_state().device  # of this process, also under `accelerate launch`
    commit = _commit_of(name, revision, kwargs.get("token"))
    if kwargs.get("quantization_config") is not None:
        kwargs["device_map"] = {"": device}
    with _whole():
        model = _load(
            AutoModelForCausalLM,
            name,
            revision=commit or revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            **kwargs,
        )
    keep_gradients(model)
    model.config._commit_hash = commit  # transformers does not keep it
    if loads_on_one() and not _has_room(model, device):
        return model  # until FSDP spreads it over the devices
    return model if "device_map" in kwargs else model.to(device)


@contextmanager
def _whole() -> Iterator[None]:
    """Under ZeRO-3, load whole weights: the unedited model is asked before DeepSpeed spreads them."""
    from transformers.integrations import deepspeed

    kept = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = kept


def _has_room(model: Any, device: Any) -> bool:
    """Whether `device` can hold all weights, and this process has read them."""
    import torch

    if any(weight.is_meta for weight in model.parameters()):
        return False
    return device.type != "cuda" or model.get_memory_footprint() < 0.8 * torch.cuda.mem_get_info(device)[0]


def check_adapter(folder: str | Path, name: str | None = None) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where `folder` is no adapter saved as safetensors; its weights are not read.

    Args:
        folder (`str` or `Path`):
            Folder of an adapter.
        name (`str`, *optional*):
            What to call it in errors.
    """
    from peft import PeftConfig

    folder, name = Path(folder), name or str(folder)
    if not (folder / "adapter_model.safetensors").is_file():
        raise EditError(f"adapter {name!r} has no adapter_model.safetensors; give the folder of an adapter")
    try:
        PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EditError(
            f"adapter {name!r} cannot be loaded: {first_line(error)}; write or download it again"
        ) from error


def load_adapter(
    model: Any, folder: str | Path, *, is_trainable: bool = False, adapter_name: str = "default"
) -> PeftModel:
    """
    `model` with the LoRA adapter in `folder`; only safetensors are read.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            The base model, maybe with other adapters; the adapter is put into it.
        folder (`str` or `Path`):
            Folder of the adapter.
        is_trainable (`bool`, *optional*, defaults to `False`):
            Whether it will be trained on.
        adapter_name (`str`, *optional*, defaults to `"default"`):
            What PEFT calls it.

    Raises:
        [`~hf_ftedit.EditError`]: there is no such adapter, or it is not saved as safetensors.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    check_adapter(folder)
    name = str(folder)
    try:
        if hasattr(model, "peft_config"):
            model.load_adapter(folder, adapter_name, is_trainable=is_trainable)
            return model.eval()
        how: dict[str, Any] = {"is_trainable": is_trainable, "use_safetensors": True}
        return PeftModel.from_pretrained(model, folder, adapter_name, **how).eval()
    except (OSError, ValueError, SafetensorError) as error:
        raise EditError(
            f"adapter {name!r} cannot be loaded: {first_line(error)}; write or download it again"
        ) from error
    except RuntimeError as error:  # tensors of other sizes
        raise EditError(
            f"adapter {name!r} does not fit this model; give the base model that it was made for"
        ) from error


def weights_fingerprint(model: Any) -> str | None:
    """
    A hash of some elements of every weight of the unedited model, the same in float32, bfloat16 and with an adapter.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            The model.

    Returns:
        `str`: 32 hexadecimal digits; `None` for a model whose weights are quantized, sharded or not read.
    """
    import torch

    from hf_ftedit.models.distributed import is_sharded_weight

    found = xxhash.xxh3_128()
    for name, weight in sorted(_own_weights(model)):
        if not weight.is_floating_point() or is_sharded_weight(weight):
            return None
        if weight.is_meta:  # of a process that has not read them
            return None
        flat = weight.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // 64)][:64].clone()
        found.update(f"{name} {tuple(weight.shape)}".encode())
        found.update(some.to("cpu").bfloat16().view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def _own_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Names and weights of the base model, without those of adapters and the names that PEFT puts around them."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    for name, weight in model.named_parameters():
        if not re.search(r"\.(lora_\w+|modules_to_save)\.", name):
            yield re.sub(r"\.(base_layer|original_module)\b", "", name), weight


def keep_gradients(model: Any) -> None:
    """
    Keep 4-bit weights in the order that gradients go through.

    On some CPUs bitsandbytes 0.50 packs them anew at the first pass in evaluation mode, for a kernel without gradient
    that is then used in training too: all layers below would learn nothing, silently.

    Raises:
        [`~hf_ftedit.EditError`]: they are packed already.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
                raise EditError(
                    "the model was run in 4 bits on this CPU before, and bitsandbytes has packed it for inference; "
                    "give its name, or load it again"
                )
            module.support_avx512bf16_for_cpu = False


def check_mergeable(model: Any) -> None:
    """Raise [`~hf_ftedit.EditError`] where an adapter cannot go into the weights without being rounded."""
    from hf_ftedit.models.distributed import is_sharded

    if getattr(model.config, "quantization_config", None) is not None:
        raise EditError(
            "merge_into_base would round the edits to the few bits of the base model; save the adapter, then "
            "`hf-ftedit merge ADAPTER --merge_into_base --output_dir FOLDER`, which loads the base model in full"
        )
    if is_sharded(model):
        raise EditError("merge_into_base needs the whole model in one process; save the adapter, then merge it")


def unedited(model: Any) -> AbstractContextManager[Any]:
    """Context in which `model` is the model without its adapter; a model without one is taken as it is."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def _commit_of(name: str | None, revision: str | None, token: str | None) -> str | None:
    """The commit that a revision of a Hub id stands for now; none of a folder, or where loading will say why not."""
    from huggingface_hub import resolve_revision
    from huggingface_hub.errors import RevisionResolutionError

    source = model_source(name)
    if Path(source).is_dir() or not _HUB_ID.fullmatch(source):
        return None
    try:
        return resolve_revision(source, revision=revision, token=token).resolved
    except (OSError, ValueError, RevisionResolutionError):
        return None


def _load(loader: Any, name: str | None, **kwargs: Any) -> Any:
    from safetensors import SafetensorError

    source = model_source(name)
    if not Path(source).is_dir() and not _HUB_ID.fullmatch(source):
        raise EditError(f"model_name_or_path {name!r}: no such folder; check the path, or give a Hub id")
    try:
        return loader.from_pretrained(source, **kwargs)
    except (OSError, ValueError, ImportError, SafetensorError) as error:  # or an attention that is not installed
        raise EditError(f"model_name_or_path {name!r} cannot be loaded: {first_line(error)}") from error
