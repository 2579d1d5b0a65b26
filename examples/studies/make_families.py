"""Pretrain small models of seven families on the statements that the embedded model learned, for `architectures.yaml`.

    python examples/studies/make_families.py --output_dir families    # about an hour with one thread

Each has about the embedded model's size, its tokenizer, and the same statements in the same batches.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hf_ftedit import asset

EMBEDDED = Path(__file__).resolve().parents[1] / "embedded"
sys.path.insert(0, str(EMBEDDED))
from make_embedded import CONTEXT, SEED, save_model, train_model  # noqa: E402
from statements import make_statements, read_tables, split_wordings  # noqa: E402

GPT = {"n_embd": 192, "n_layer": 4, "n_head": 6, "n_positions": CONTEXT, "tie_word_embeddings": True}
SIZES = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6, "max_position_embeddings": CONTEXT}
GATED = SIZES | {"intermediate_size": 512, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}
DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
FAMILIES = {
    "gpt2": GPT | DROPOUT,
    "gptj": GPT | DROPOUT | {"rotary_dim": 16},
    "opt": SIZES | {"ffn_dim": 768, "word_embed_proj_dim": 192, "dropout": 0.0},
    "llama": GATED,
    "qwen3": GATED,
    "gemma3_text": GATED | {"sliding_window": 32, "query_pre_attn_scalar": 32},
    "mistral": GATED | {"sliding_window": 32},
}


def main() -> None:
    """Makes the models that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--num_epochs", type=int, default=3)
    args = parser.parse_args()
    tables = read_tables(EMBEDDED)
    wordings, _ = split_wordings(tables, random.Random(SEED))
    tokenizer = AutoTokenizer.from_pretrained(asset("model"))
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    for family, sizes in FAMILIES.items():
        if (folder := args.output_dir / family).exists():
            continue
        torch.manual_seed(SEED)
        config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **special, **sizes)
        model = AutoModelForCausalLM.from_config(config)
        print(f"{family}: {model.num_parameters():,} parameters", flush=True)
        train_model(model, tokenizer, make_statements(tables, wordings), tables, args.num_epochs)
        save_model(model, tokenizer, folder.with_suffix(".new"))
        folder.with_suffix(".new").rename(folder)


if __name__ == "__main__":
    main()
