"""GGUF files as llama.cpp reads them: a whole model, a LoRA, and a model with a LoRA added."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import lazy_loader
import numpy as np
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedTokenizerBase

from hf_ftedit.errors import EditError, one_line, shown
from hf_ftedit.evaluation import EvaluatedModel
from hf_ftedit.models import end_of_turn, front_tokens, plain_template

gguf = lazy_loader.load("gguf")  # an extra, which may not be installed

# By transformers' type of model, the architecture of llama.cpp.
ARCHITECTURES = {
    **{"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2"},
    **{"gemma2": "gemma2", "gemma3_text": "gemma3"},
}
DESCRIBED = ("llama", "mistral", "qwen2", "qwen3", "gpt2")  # whose settings are written here too
CONVERT = "export --to merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py"
OTHERS = f"{CONVERT}, or give a GGUF file of the same model (--gguf_file), whose settings and tokenizer are kept"
# What llama.cpp calls the way to cut a text into words, by the expression for numbers in that of the tokenizer.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {WORDS.replace("NUMBER", r"\p{N}{1,3}"): "llama-bpe", WORDS.replace("NUMBER", r"\p{N}"): "qwen2"}
ALPHA = "adapter.lora.alpha"
TEMPLATE = "tokenizer.chat_template"
# Settings of a file that are written anew.
WRITTEN = ("general.architecture", "general.alignment", "general.file_type", "general.quantization_version")


class Layout:
    """Names of a model's weights in GGUF, and their order, which for some is not that of transformers."""

    def __init__(self, config: Any) -> None:
        if config.model_type not in ARCHITECTURES:
            problem = f"weights of the architecture {config.model_type!r} are not written as GGUF"
            raise EditError(f"{problem}, those of {', '.join(ARCHITECTURES)} are; {CONVERT}")
        self.architecture = ARCHITECTURES[config.model_type]
        kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture)
        self._names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
        self._heads = {}
        if self.architecture == "llama":
            self._heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    def name(self, weight: str) -> str:
        """The name of a weight."""
        module, _, suffix = weight.rpartition(".")
        if (name := self._names.get_name(module)) is None:
            raise EditError(f"{shown(weight)} has no name in GGUF; export --to merged instead")
        return f"{name}.{suffix}"

    def values(self, name: str, values: np.ndarray) -> np.ndarray:
        """The values of the weight of this `name` as llama.cpp reads them."""
        if self.architecture.startswith("gemma") and name.endswith("norm.weight"):
            return values + 1  # transformers adds it at every run
        if self.architecture == "gpt2" and name.startswith("blk.") and values.ndim == 2:
            return values.T  # transformers multiplies from the other side
        return self.rows(name, values)

    def rows(self, name: str, values: np.ndarray) -> np.ndarray:
        """`values`, whose first axis is the output of the weight, in llama.cpp's order of it."""
        # Rotary embeddings: llama.cpp turns neighbors, transformers the two halves of a head.
        if heads := self._heads.get(name.split(".")[-2]):
            return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        return values

    def weights(self, model: Any) -> Iterator[tuple[str, np.ndarray]]:
        """All weights of `model` by name, in float32; one that has two places, as a tied output head, once."""
        for name, weight in model.named_parameters():
            tensor = self.name(name)
            yield tensor, self.values(tensor, weight.detach().float().cpu().numpy())


class ModelFile:
    """
    A GGUF file of a whole model that is to be written.

    All but the weights is taken from the GGUF file `base`, which holds the same model, or written from the model
    `evaluated` and its tokenizer, and checked at once: [`~hf_ftedit.EditError`] where llama.cpp would run another one.
    """

    def __init__(self, evaluated: EvaluatedModel, base: Path | None, dtype: str) -> None:
        model, tokenizer, options, _ = evaluated
        own_template = bool(options.chat_template_path)
        self._layout, self._base, self._dtype = Layout(model.config), base, dtype
        self._reader = _reader_of(base, self._layout.architecture) if base else None
        self._writer = gguf.GGUFWriter(None, self._layout.architecture)
        if self._reader is None:
            _write_settings(self._writer, model.config)
            size = model.get_input_embeddings().num_embeddings
            _write_tokenizer(self._writer, tokenizer, size, chat=options.chat_template)
        else:
            _copy_fields(self._writer, self._reader, (*WRITTEN, TEMPLATE) if own_template else WRITTEN)
        if (base is None or own_template) and isinstance(template := plain_template(tokenizer), str):
            self._writer.add_chat_template(template)
        self._writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{dtype.upper()}"])
        self._writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def write(self, path: Path, model: Any) -> None:
        """Write it to `path` with the weights of `model`; those that `base` has too stay as they are there."""
        tensors = {tensor.name: tensor for tensor in self._reader.tensors} if self._reader else {}
        for name, values in self._layout.weights(model):
            old = tensors.pop(name, None)
            if old is not None and _is_same(values, old, str(self._base)):
                self._writer.add_tensor(name, old.data, raw_dtype=old.tensor_type)
            else:
                kind = _type_for(values, self._dtype)
                self._writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
        for name, tensor in tensors.items():  # such as factors of the rotary embedding, or an output head of its own
            self._writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
        _finish(self._writer, path)


def write_lora(path: Path, model: PeftModel) -> None:
    """Write the active adapter of `model`, pairs of matrices alone, as a LoRA of llama.cpp, in float32."""
    base: Any = model.get_base_model()
    layout, name, config = Layout(base.config), model.active_adapter, cast(Any, model.peft_config)
    alpha = float(config[name].lora_alpha) or 1.0  # 0 would mean a scale of 1
    writer = gguf.GGUFWriter(None, layout.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32(ALPHA, alpha)
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    layers: Any = ((module, layer) for module, layer in base.named_modules() if isinstance(layer, LoraLayer))
    for module, layer in layers:
        tensor = layout.name(f"{module}.weight")
        if name in layer.lora_embedding_A or (tied and tensor in ("output.weight", "token_embd.weight")):
            problem = f"the adapter changes {module}, which llama.cpp does not load from a LoRA"
            raise EditError(f"{problem}; export the whole model (--to gguf) instead")
        first, second = (part[name].weight.detach().float().cpu().numpy() for part in (layer.lora_A, layer.lora_B))
        # llama.cpp knows one alpha and multiplies by alpha / rank: what a layer's scale is beyond that goes in here.
        second = layout.rows(tensor, second * (layer.scaling[name] * len(first) / alpha))
        writer.add_tensor(f"{tensor}.lora_a", first)
        writer.add_tensor(f"{tensor}.lora_b", np.ascontiguousarray(second))
    _finish(writer, path)


def write_with_lora(path: Path, base: Path, lora: Path) -> None:
    """Write the model in the file `base` with the LoRA in the file `lora` in its weights, as llama.cpp adds it."""
    adapter = gguf.GGUFReader(lora)
    architecture, alpha = (_value(adapter, name) for name in ("general.architecture", ALPHA))
    reader = _reader_of(base, architecture)
    pairs = {tensor.name: tensor.data for tensor in adapter.tensors}
    writer = gguf.GGUFWriter(None, architecture)
    _copy_fields(writer, reader, ("general.architecture", "general.alignment"))
    for tensor in reader.tensors:
        if (first := pairs.get(f"{tensor.name}.lora_a")) is None:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            change = alpha / len(first) * pairs[f"{tensor.name}.lora_b"] @ first
            if values.shape != change.shape:
                raise _of_another_model(tensor, str(base))
            writer.add_tensor(tensor.name, values + change)
    _finish(writer, path)


def _finish(writer: Any, path: Path) -> None:
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_for(values: np.ndarray, dtype: str) -> Any:
    """The type of a weight in a file of `dtype`: of vectors float32, of rows that no 32 divides float16."""
    types = gguf.GGMLQuantizationType
    if values.ndim == 1:
        return types.F32
    return types.Q8_0 if dtype == "q8_0" and values.shape[-1] % 32 == 0 else types.F16


def _is_same(values: np.ndarray, old: Any, file: str) -> bool:
    """`True` where a tensor of a file has these values; raises where it is one of another model."""
    there = gguf.dequantize(old.data, old.tensor_type)
    # Edits and quantization add to what is there: where little of that is left, the names or the order do not fit.
    if there.shape != values.shape or np.vdot(there, values) < 0.5 * np.vdot(there, there):
        raise _of_another_model(old, file)
    return np.array_equal(there, values)


def _of_another_model(tensor: Any, file: str) -> EditError:
    return EditError(f"gguf_file {file!r}: its {tensor.name} is not that of the base model; give another file")


def _value(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


def _reader_of(file: Path, architecture: str) -> Any:
    """Open a GGUF file; raises where it is none, or one of another architecture."""
    try:
        reader = gguf.GGUFReader(file)
        there = _value(reader, "general.architecture")
    except (ValueError, LookupError) as error:  # by the place where a file is cut
        problem = f"it is damaged or no GGUF file ({one_line(error)})"
        raise EditError(f"gguf_file {str(file)!r}: {problem}; give another file") from error
    if there != architecture:
        problem = f"its architecture is {there!r}, and that of the base model {architecture!r}"
        raise EditError(f"gguf_file {str(file)!r}: {problem}; give a file of the same model")
    return reader


def _copy_fields(writer: Any, reader: Any, without: Sequence[str]) -> None:
    for field in reader.fields.values():
        if field.name not in without and not field.name.startswith("GGUF."):  # those are of the reader
            kind, *_, part = field.types[0], field.types[-1]
            part = part if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, part)


def _write_settings(writer: Any, config: Any) -> None:
    """The settings of an architecture; raises for what llama.cpp would run otherwise."""
    rope = getattr(config, "rope_parameters", None) or {"rope_type": "default", "rope_theta": None}
    unlike = {
        "model_type": config.model_type not in DESCRIBED,
        "rope_parameters": rope.get("rope_type") != "default",
        "hidden_act": getattr(config, "hidden_act", "silu") != "silu",
        "activation_function": getattr(config, "activation_function", "gelu_new") != "gelu_new",
        "layer_types": "sliding_attention" in (getattr(config, "layer_types", None) or ()),
    }
    for name in (name for name, is_unlike in unlike.items() if is_unlike):
        raise EditError(f"{name} {shown(getattr(config, name))} of the base model is not written as GGUF; {OTHERS}")
    width, heads = config.hidden_size, config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or config.n_inner or 4 * width)
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    size = getattr(config, "head_dim", None) or width // heads
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(size)


def _write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, size: int, *, chat: bool) -> None:
    """A byte-level BPE tokenizer, with a token for each of the `size` rows of the embedding."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    splits, front = _splits(parts), front_tokens(tokenizer)
    if splits is None or front not in ([], [tokenizer.bos_token_id]):
        raise EditError(f"the tokenizer {type(tokenizer).__name__} of the base model is not written as GGUF; {OTHERS}")
    words, added = {place: word for word, place in tokenizer.get_vocab().items()}, tokenizer.added_tokens_decoder
    types = gguf.TokenType
    kinds = dict.fromkeys(words, types.NORMAL)
    kinds |= {place: types.CONTROL if token.special else types.USER_DEFINED for place, token in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list([words.get(place, f"[PAD{place}]") for place in range(size)])
    writer.add_token_types([kinds.get(place, types.UNUSED) for place in range(size)])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in parts["model"]["merges"]])
    special = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    special["eot"] = end_of_turn(tokenizer) if chat else None
    for name, token in special.items():
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(bool(front))


def _splits(parts: dict[str, Any]) -> str | None:
    """What llama.cpp calls the way in which a byte-level BPE tokenizer cuts words; `None` of any other tokenizer."""
    model, before = parts.get("model", {}), parts.get("pre_tokenizer") or {}
    *first, last = before.get("pretokenizers") or [before]
    is_bytes = last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    if not is_bytes or model["type"] != "BPE" or (parts["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        return None
    name = None
    if last["use_regex"] and not first:
        name = "gpt-2"
    elif last["use_regex"] and first == [{"type": "Digits", "individual_digits": True}]:
        name = "smollm"
    elif len(first) == 1 and first[0]["type"] == "Split" and first[0]["behavior"] == "Isolated":
        name = SPLITS.get(first[0]["pattern"].get("Regex"))
    return name if bool(model.get("ignore_merges")) == (name == "llama-bpe") else None
