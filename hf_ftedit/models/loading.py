"""Models, tokenizers and adapters by Hub id or folder: safetensors only, remote code only with `trust_remote_code`."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import xxhash

from hf_ftedit.errors import NO_MEMORY, EditError, first_line, is_out_of_memory, shown

# The libraries are imported in the functions that need them: `asset` and `public_name` must not load torch.
if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Function = TypeVar("Function", bound=Callable[..., Any])

EMBEDDED_NAME = "hf_ftedit/embedded"
ADAPTER = "it is an adapter, or holds one; give its base model, and it as adapter (--adapter)"
# Any other name is a path, and one that does not exist must not be looked for on the Hub.
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def asset(name: str) -> str:
    """Path of the file or folder `name` in the package's assets, such as `"model"`, the embedded model's folder."""
    if not (path := Path(str(files("hf_ftedit") / "assets" / name))).exists():
        raise EditError(f"asset {shown(name)} is not in the package; hf_ftedit/assets lists what is")
    return str(path)


def model_source(name: str | None) -> str:
    """Source for `from_pretrained`: the name itself, or the embedded model's folder without one."""
    return asset("model") if name in (None, EMBEDDED_NAME) else name


def gguf_source(name: str | None, gguf_file: str | None = None) -> tuple[str | None, str | None]:
    """
    Name of a model and its GGUF file, `None` of any other: of a file on disk its folder and its own name.

    Either may be the file's path; a file that a recipe names, without a path, may also lie in the working directory.
    Raises [`EditError`] where there is no such file, or transformers would read something else or more.
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if gguf_file is None and (name is None or not name.endswith(".gguf") or Path(name).is_dir()):
        return name, None
    path, own = Path(name or "", gguf_file or ""), Path(gguf_file or "")
    if name and gguf_file and not Path(name).exists():
        path = own
        if "/" in name and _HUB_ID.fullmatch(name):
            if path.exists():
                raise EditError(f"gguf_file {gguf_file!r} is here too, and would be read instead; give it alone")
            return name, gguf_file
    elif name and Path(name).is_dir() and not path.is_file() and own.parent.name and own.is_file():
        path = own  # the folder is the one that an adapter's recipe names, and a user gives the file's whole path
    if not path.is_file():
        raise EditError(f"gguf_file {str(path)!r}: no such file; give its path, or a Hub id and its name there")
    if path.with_name("adapter_config.json").exists():
        raise EditError(f"gguf_file {str(path)!r}: the adapter beside it would be loaded too; put it elsewhere")
    return str(path.parent), path.name


def public_name(source: str) -> str:
    """A name that is safe to publish: Hub ids as they are, local paths cut to their last part."""
    # A path may hold the name of a user, a customer or a project.
    if Path(source) == Path(asset("model")):
        return EMBEDDED_NAME
    # A folder of the Hub's cache is called by a commit, which names nothing; those above it have the repository's id.
    cached = re.search(r"(?:models|datasets)--([^/]+)/snapshots/\w+$", Path(source).as_posix())
    if cached:
        return cached[1].replace("--", "/", 1)
    path, is_no_id = Path(source), source.startswith(".") or source.count("/") > 1
    return path.resolve().name if is_no_id or path.exists() or path.is_absolute() else source


def load_tokenizer(name: str | None, *, gguf_file: str | None = None, **kwargs: Any) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer of a model.

    Args:
        name (`str`, *optional*): Hub id or folder of the model, or path of a GGUF file; the embedded model without
            one.
        gguf_file (`str`, *optional*): Name of the GGUF file there that holds the model.
        kwargs:
            Passed to `from_pretrained`: `revision` (branch, tag or commit), `token` (of the Hub; the one of `hf auth
            login` by default), `trust_remote_code` (run code that the repository brings; `False` by default).

    Raises:
        [`EditError`]: there is no such model, or it has no tokenizer.
    """
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, name, gguf_file, **kwargs)


def load_config(name: str | None, *, gguf_file: str | None = None, **kwargs: Any) -> PretrainedConfig:
    """Load the configuration of a model without its weights; arguments as of [`load_tokenizer`]."""
    from transformers import AutoConfig

    return _load(AutoConfig, name, gguf_file, **kwargs)


def load_model(
    name: str | None,
    *,
    revision: str | None = None,
    gguf_file: str | None = None,
    dtype: str = "float32",
    **kwargs: Any,
) -> PreTrainedModel:
    """
    Load a causal language model onto this process's device, in evaluation mode.

    Args:
        name (`str`, *optional*): Hub id or folder, or path of a GGUF file; the embedded model without one.
        revision (`str`, *optional*): Branch, tag or commit.
        gguf_file (`str`, *optional*): Name of the GGUF file there that holds the model: its quantized weights are
            unpacked into `dtype`.
        dtype (`str`, *optional*, defaults to `"float32"`): Precision of the weights.
        kwargs:
            Passed to `from_pretrained`, such as `quantization_config`, `attn_implementation`, `token`, or
            `trust_remote_code` (run code that the repository brings; `False` by default).

    Raises:
        [`EditError`]: there is no such model, or it has neither safetensors nor GGUF weights.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    from hf_ftedit.models.distributed import check_launch, loads_on_main, process_state

    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise EditError(f"dtype is {shown(dtype)}: give auto, bfloat16, float16 or float32")
    check_launch()
    device = process_state().device
    name, gguf_file = gguf_source(name, gguf_file)
    # The commit rather than the branch: an adapter's recipe must name weights that stay the same.
    commit = _commit_of(name, revision, kwargs.get("token"))
    kwargs |= {"revision": commit or revision, "dtype": dtype}
    if kwargs.get("quantization_config") is not None:
        kwargs.setdefault("device_map", {"": device})
    elif gguf_file:
        # By default weights stay packed where there is a kernel for that, and in any case the model counts as a
        # quantized one, which can be neither trained nor saved.
        kwargs["quantization_config"] = GgufConfig(dequantize=True)
    with _without_zero3():
        # `use_safetensors=None`, the default, may fall back to pickled weights, which can run code.
        model = _load(AutoModelForCausalLM, name, gguf_file, use_safetensors=True, **kwargs)
    if gguf_file:
        model.gguf_file = gguf_file  # not in its configuration, which is saved
    keep_gradients(model)
    model.config._commit_hash = commit  # transformers does not keep it
    if loads_on_main():
        # Until FSDP shards it, the model stays where it is, unless this process has read it, and its device can hold
        # it with some room to run.
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
        if any(weight.is_meta for weight in model.parameters()) or model.get_memory_footprint() >= 0.8 * free:
            return model
    return model if "device_map" in kwargs else model.to(device)


@contextmanager
def _without_zero3() -> Iterator[None]:
    """Load whole weights under ZeRO-3."""
    # `from_pretrained` would shard them at once, and a sharded model cannot be run before DeepSpeed has prepared it
    # for training; the unedited model is measured earlier.
    from transformers.integrations import deepspeed

    config = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = config


def weights_fingerprint(model: Any, *, whole: bool = False) -> str | None:
    """
    Hash elements of every weight of the unedited model; `None` where weights are quantized, sharded or not read.

    All of them are hashed with `whole`, where what is kept of one model must not be taken for another's.
    """
    import torch

    from hf_ftedit.models.distributed import is_sharded_weight

    digest = xxhash.xxh3_128()
    # Those of adapters have such names, and PEFT puts others around those of the base model.
    own = [
        (re.sub(r"\.(token_adapter|base_layer|original_module)\b", "", name), weight)
        for name, weight in base_model(model).named_parameters()
        if not re.search(r"\.(lora_\w+|ia3_\w+|modules_to_save|trainable_tokens_\w+)\.", name)
    ]
    for name, weight in sorted(own):
        if not weight.is_floating_point() or is_sharded_weight(weight) or weight.is_meta:
            return None
        # A sample tells two models apart, at no cost that a large one would make felt.
        flat = weight.detach().reshape(-1)
        sample = flat if whole else flat[:: max(1, len(flat) // 64)][:64].clone()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        # In bfloat16, so that it is the same in whatever precision the model was loaded.
        digest.update(sample.bfloat16().to("cpu").view(torch.int16).numpy())
    return digest.hexdigest()


def keep_gradients(model: Any) -> None:
    """Keep 4-bit weights in the layout that gradients go through, or raise [`~hf_ftedit.EditError`]."""
    # On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks them at the first pass in evaluation mode, for a kernel
    # without gradient that is then used in training too: all layers below would learn nothing, silently.
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
                raise EditError(
                    "the model was run in 4 bits on this CPU before, and bitsandbytes has packed it for inference; "
                    "give its name, or load it again"
                )
            module.support_avx512bf16_for_cpu = False


_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # by base model


def turn(model: Any) -> AbstractContextManager[Any]:
    """Context in which no other thread runs `model`: its adapter is switched, and its head hooked, for all of them."""
    if isinstance(model, str):
        raise EditError(f"model is the name {shown(model)}; load it, as with load_model")
    return _locks.setdefault(base_model(model), threading.RLock())


def in_turn(function: Function) -> Function:
    """Decorate a function whose first argument is a model: threads take turns with it."""

    @wraps(function)
    def alone(model: Any, *args: Any, **kwargs: Any) -> Any:
        with turn(model):
            return function(model, *args, **kwargs)

    return cast(Function, alone)


def base_model(model: Any) -> Any:
    """The model inside PEFT's wrapper, where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def unedited(model: Any) -> Iterator[Any]:
    """Switch off the adapter of `model` within the context; a model without one is unedited already."""
    with turn(model), model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
        yield model


def is_unedited(model: Any) -> bool:
    """Tell whether no adapter of `model` is switched on; false of adapters that do not show it."""
    if not hasattr(model, "peft_config"):
        return True
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    return bool(layers) and all(layer.disable_adapters for layer in layers)


def _commit_of(name: str | None, revision: str | None, token: str | None) -> str | None:
    """The commit that a Hub id's revision stands for now; none of a folder, or where loading will name the cause."""
    from huggingface_hub import resolve_revision
    from huggingface_hub.errors import RevisionResolutionError

    source = model_source(name)
    if Path(source).is_dir() or not _HUB_ID.fullmatch(source):
        return None
    try:
        return resolve_revision(source, revision=revision, token=token).resolved
    except (OSError, ValueError, RevisionResolutionError):
        return None


def _load(loader: Any, name: str | None, gguf_file: str | None, **kwargs: Any) -> Any:
    from transformers.utils.peft_utils import find_adapter_config_file

    name, gguf_file = gguf_source(name, gguf_file)
    source = model_source(name)
    if not Path(source).is_dir() and not _HUB_ID.fullmatch(source):
        raise EditError(f"model_name_or_path {name!r}: no such folder; check the path, or give a Hub id")
    try:
        if gguf_file and Path(source).is_dir():
            # Of its bare name, transformers would first look for the weights in the working directory.
            gguf_file = str(Path(source, gguf_file).absolute())
        # With `None`, transformers would ask on the screen whether to trust a repository's code.
        kwargs = {"trust_remote_code": False, **kwargs}
        place: dict[str, Any] = {key: kwargs.get(key) for key in ("revision", "token")}
        if "use_safetensors" in kwargs and find_adapter_config_file(source, **place):
            # transformers would load it without a look, and its base model from wherever it says.
            raise ValueError(ADAPTER)
        index = Path(source, "model.safetensors.index.json")
        if index.is_file() and any("/" in str(file) for file in json.loads(index.read_bytes())["weight_map"].values()):
            raise ValueError(f"{index.name} names a file that is not in its folder")
        return loader.from_pretrained(source, **kwargs, **({"gguf_file": gguf_file} if gguf_file else {}))
    # Of every kind: anybody may have written its files, and its settings may need what is not installed.
    except Exception as error:
        if is_out_of_memory(error):
            raise EditError(f"model_name_or_path {name!r}: {NO_MEMORY}") from error
        if gguf_file and not find_spec("gguf"):
            message = "gguf_file needs the package gguf; install it with pip install 'hf-ftedit[gguf]'"
            raise EditError(message) from error
        problem = first_line(error)
        if Path(source).is_dir() and not gguf_file and not Path(source, "config.json").is_file():
            is_adapter = Path(source, "adapter_config.json").is_file()
            problem = ADAPTER if is_adapter else "it has no config.json; give the folder of a model"
        if "/" not in source and not Path(source).exists():  # the recipe of an adapter has no more of a folder's path
            problem = f"{problem.rstrip('.')}; if it is a folder elsewhere, give its path"
        raise EditError(f"model_name_or_path {name!r} cannot be loaded: {problem}") from error
