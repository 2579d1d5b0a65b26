"""Tiny random models and tokenizers, made in memory: for tests that need an architecture, not knowledge."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

FAMILIES = ("gpt2", "gptj", "opt", "llama", "qwen3", "gemma", "mistral")
# What a family needs beside common sizes: mixtures of experts, state-space models, both in one.
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SCAN = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 32}
MIXED = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": _EXPERTS,
    "olmoe": _EXPERTS,
    "deepseek_v3": {
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        **{"moe_intermediate_size": 32, "q_lora_rank": 16, "kv_lora_rank": 16, "v_head_dim": 16},
        **{"num_key_value_heads": 2, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "head_dim": 8},
    },
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "jamba": {
        **{"num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
        **{"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_dt_rank": 8},
    },
    "qwen3_next": {
        **_EXPERTS,
        **{"shared_expert_intermediate_size": 32, "layer_types": ["linear_attention", "full_attention"]},
        **{f"linear_{name}": size for name, size in [("num_key_heads", 2), ("num_value_heads", 2)]},
        **{f"linear_{name}": size for name, size in [("key_head_dim", 8), ("value_head_dim", 8)]},
    },
    "llama4_text": {
        **{"num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1},
        **{"intermediate_size_mlp": 64, "attention_chunk_size": 128},
    },
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 32},
    "falcon_h1": {**_SCAN, "mamba_d_ssm": 64},
}
TEXTS = [
    "The capital of Kazakhstan is Astana",
    "Rome is in Italy",
    "The mother tongue of Danielle Darrieux is French English",
    "Oslo lies between Bergen and the very old border",
    "user assistant abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ .,?!'",
] * 3
PROMPTS = ["Rome is in", "The capital of Kazakhstan is", "Oslo", "Danielle Darrieux, a native"]
PROMPTS += ["Bergen", "French", "Peru is in the", "user", "The border of", "Oslo lies", "abc", "Kazakhstan"]
# Of so many tokens: prompts that leave little of a context of 16, or nothing.
FILLING_16 = [
    letter * size for letter, size in zip("abcdefghijk", [1, 4, 7, 8, 9, 12, 13, 14, 15, 15, 2], strict=True)
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bpe_tokenizer(**special):
    """Byte-level BPE like GPT-2's: nothing in front of a text, and by default one token for every special purpose."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # it comes in a random order
    _train(tokenizer, ["<|endoftext|>"], initial_alphabet=alphabet)
    names = special or dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def sentencepiece_tokenizer(bos=False):
    """Leading-space pieces with byte fallback, like Llama 2, Mistral and Gemma; with `bos`, `<s>` in front."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    _train(tokenizer, ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def bos_tokenizer():
    """A tokenizer that puts `<s>` in front of every text."""
    return sentencepiece_tokenizer(bos=True)


def eos_tokenizer():
    """A tokenizer that puts its end-of-sequence token behind every text, as some do when asked to."""
    tokenizer = bpe_tokenizer()
    special = [("<|endoftext|>", tokenizer.eos_token_id)]
    template = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=special)
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


def chat_tokenizer():
    """Byte-level BPE with a ChatML-like template."""
    tokenizer = bpe_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(family, tokenizer, context=256, **settings):
    """A seeded random model of one of `FAMILIES` or `MIXED`, two layers of width 32, in float32, for evaluation."""
    torch.manual_seed(0)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = _sizes(family, context) | settings
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **special, **sizes)
    return AutoModelForCausalLM.from_config(config).eval()


def seeing_model(tokenizer):
    """A tiny Gemma 3 that reads images too, as `AutoModelForCausalLM` makes of the published ones."""
    torch.manual_seed(0)
    size = len(tokenizer) + 8
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    settings = {f"{name}_token_index": size - place for place, name in enumerate(("image", "boi", "eoi"), 1)}
    settings |= {"vision_config": {**tower, "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4}
    text = {**_sizes("gemma", 256), "vocab_size": size}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma3", text_config=text, **settings)).eval()


def paired(build, family, make=bpe_tokenizer, **settings):
    """The model that `build` makes of a family, for the tokenizer that `make` makes, and that tokenizer."""
    tokenizer = make()
    return build(family, tokenizer, **settings), tokenizer


def saved(folder, model, tokenizer):
    """The path of `folder`, with both in it."""
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def logits(model):
    """Logits of eight tokens, whichever they are."""
    return model.eval()(torch.arange(8)[None]).logits


def eloquent(family, tokenizer, context=256, ends=".!?Ċ"):
    """A random model that goes on differently behind every prompt, and ends lines, sentences and texts."""
    model = tiny_model(family, tokenizer, context)
    torch.manual_seed(4)
    head = torch.nn.Linear(model.get_output_embeddings().in_features, len(tokenizer))
    model.set_output_embeddings(head)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.5 if weight is head.weight else 0.15)
        head.bias.zero_()
        head.bias[[*tokenizer.convert_tokens_to_ids(list(ends)), tokenizer.eos_token_id]] = 4.0
    return model


def moved(model, scale=0.3):
    """`model` with a random adapter on all of its linear layers."""
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear")).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight += scale * torch.randn_like(weight)
    return adapted


def evaluated(model, tokenizer, **options):
    """A model as evaluation asks it, with these options."""
    from hf_ftedit import EditOptions
    from hf_ftedit.evaluation import EvaluatedModel

    return EvaluatedModel(model, tokenizer, EditOptions(**options))


def measure_drift_by_few_prompts(patch=setattr):
    """Have every eleventh prompt asked alone: where drift is not what is tested, the answers to all take long."""
    from hf_ftedit.evaluation import drift

    few = dict([*drift.drift_prompts().items()][::11])
    patch(drift, "drift_prompts", lambda: few)


def small_pool(folder):
    """The path of a file in `folder` with every tenth fact of the embedded pool, which takes long to read."""
    from hf_ftedit import asset

    facts = Path(asset("locality_pool.jsonl")).read_text(encoding="utf-8").splitlines(keepends=True)
    path = folder / "pool.jsonl"
    path.write_text("".join(facts[::10]), encoding="utf-8")
    return str(path)


def _train(tokenizer, special_tokens, **settings):
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special_tokens, show_progress=False, **settings)
    tokenizer.train_from_iterator(TEXTS, trainer)


def _sizes(family, context):
    if family in ("gpt2", "gptj"):
        return {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": context, "rotary_dim": 8}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": context}
    if family == "opt":
        return sizes | {"ffn_dim": 64, "word_embed_proj_dim": 32}
    if family.startswith("mamba"):
        return {name: sizes[name] for name in ("hidden_size", "num_hidden_layers")} | MIXED[family]
    return sizes | {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16} | MIXED.get(family, {})


def write_gguf(path, model, tokenizer, quantize="F32"):
    """A GGUF file of a tiny Llama and its byte-level tokenizer, as llama.cpp converts them."""
    import gguf

    config, vocabulary = model.config, tokenizer.get_vocab()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    kind = gguf.GGMLQuantizationType[quantize]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads["q_proj"])
    writer.add_head_count_kv(heads["k_proj"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    special = set(tokenizer.all_special_tokens)
    types = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([types[token in special] for token in sorted(vocabulary, key=vocabulary.get)])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weight in model.state_dict().items():
        part, values = name.split(".")[-2], weight.numpy()
        if part in heads:  # llama.cpp rotates neighbors, transformers the halves of a head
            values = values.reshape(heads[part], 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        raw = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(
            f"{names.get_name(name.removesuffix('.weight'))}.weight", gguf.quantize(values, raw), raw_dtype=raw
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
