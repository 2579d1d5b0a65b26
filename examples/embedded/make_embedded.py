"""Make the embedded model, its edit set and its locality pool from the tables in this folder.

A byte-level BPE tokenizer and a small Llama are trained from scratch on true statements: every fact of `facts/` in the
wordings of `relations.json`, two wordings a fact held out. The weights are saved in bfloat16, loaded back in float32
and measured; then edits are chosen among the facts that the model knows, and all is put in `hf_ftedit/assets/`.

    python examples/embedded/make_embedded.py                # trains: about 10 minutes on 2 free CPU cores
    python examples/embedded/make_embedded.py --keep_model   # measures the weights that are there, chooses edits anew
"""

import argparse
import json
import math
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from string import Template

import torch
from edit_set import EditSetBuilder
from recall import Recall, measure_facts, measure_probes, pad, relation_lines
from statements import END, Tables, make_documents, make_statements, read_tables, split_wordings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parents[1] / "hf_ftedit" / "assets"
SEED = 20241123
CONTEXT = 128
EPOCHS = 14
TOKENS_PER_BATCH = 1536
LEARNING_RATE = 2e-3


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with 4,096 entries and one special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((document.replace(END, "") for document in documents), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, model_max_length=CONTEXT
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of about 2.6 million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def make_batches(
    documents: list[str], tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> list[list[list[int]]]:
    """Documents of like length together, so that little is padding."""
    encoded = sorted((ids[:CONTEXT] for ids in tokenizer(documents)["input_ids"]), key=lambda ids: (len(ids), ids))
    batches, batch = [], []
    for ids in encoded:
        if batch and len(ids) * (len(batch) + 1) > TOKENS_PER_BATCH:
            batches.append(batch)
            batch = []
        batch.append(ids)
    batches.append(batch)
    rng.shuffle(batches)
    return batches


def train_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    statements: list[tuple[str, str]],
    tables: Tables,
    num_epochs: int = EPOCHS,
) -> PreTrainedModel:
    """Plain language modelling of the statements: AdamW, warm-up and cosine, no dropout."""
    model.train()
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    norms = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    rng = random.Random(SEED + 1)
    epochs = [make_batches(make_documents(statements, tables, rng), tokenizer, rng) for _ in range(num_epochs)]
    total = sum(map(len, epochs))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / total)))
    )
    start = time.time()
    for number, batches in enumerate(epochs, 1):
        losses = 0.0
        for batch in batches:
            loss = model(input_ids=pad(batch, tokenizer.pad_token_id), labels=pad(batch, -100)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses += loss.item()
        print(f"epoch {number}: loss {losses / len(batches):.3f}, {time.time() - start:.0f} s", flush=True)
    return model.eval()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights in bfloat16 safetensors, with no path of this machine in the configs."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    for path in folder.glob("*config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        for key in ("_name_or_path", "name_or_path", "is_local", "local_files_only"):
            config.pop(key, None)
        if path.name == "tokenizer_config.json":  # the name that transformers 4 knows too
            config = {key: value for key, value in config.items() if key != "backend"}
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_card(folder: Path, values: dict[str, object]) -> None:
    """The model card beside the weights, with the numbers that were just measured."""
    text = Template((HERE / "model_card.md").read_text(encoding="utf-8")).substitute(values)
    (folder / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Train, measure, choose, write; the new assets take the place of the old ones at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep_model", action="store_true", help="do not train: use the weights in the assets")
    keep_model = parser.parse_args().keep_model
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    tables = read_tables(HERE)
    trained, held_out = split_wordings(tables, rng)
    groups = {"trained wordings": trained, "held-out wordings": held_out}

    new = ASSETS.with_name("assets.new")
    shutil.rmtree(new, ignore_errors=True)
    if keep_model:
        shutil.copytree(ASSETS / "model", new / "model")
    else:
        statements = make_statements(tables, trained)
        tokenizer = train_tokenizer(make_documents(statements, tables, rng))
        save_model(train_model(new_model(tokenizer), tokenizer, statements, tables), tokenizer, new / "model")

    model = LlamaForCausalLM.from_pretrained(new / "model", dtype=torch.float32, use_safetensors=True).eval()
    recall = Recall(model, AutoTokenizer.from_pretrained(new / "model"))
    known = measure_facts(recall, tables, groups, random.Random(SEED + 2))
    builder = EditSetBuilder(tables, {wording for wording, flag in known.items() if flag}, random.Random(SEED + 3))
    records, pool = builder.build(HERE / "updates.csv")
    measure_probes(recall, records)
    write_jsonl(new / "edits.jsonl", records)
    write_jsonl(new / "locality_pool.jsonl", pool)
    kinds = Counter(record["edit_id"].split("-")[0] for record in records)
    write_card(
        new / "model",
        {
            "parameters": f"{model.num_parameters():,}",
            "megabytes": f"{(new / 'model' / 'model.safetensors').stat().st_size / 1e6:.1f}",
            "facts": f"{sum(map(len, tables.facts.values())):,}",
            "relations": len(tables.facts),
            "layers": model.config.num_hidden_layers,
            "width": model.config.hidden_size,
            "heads": model.config.num_attention_heads,
            "context": CONTEXT,
            "vocabulary": f"{model.config.vocab_size:,}",
            "recall_table": "\n".join(recall.lines.values()),
            "relation_table": "\n".join(relation_lines(tables, groups, known)),
            "edits": len(records),
            "edited_relations": len({record["relation_id"] for record in records}),
            "counterfactuals": kinds["counterfactual"],
            "updates": kinds["update"],
            "portable": sum(bool(record["portability_prompts"]) for record in records),
            "pool_rows": f"{len(pool):,}",
            "pool_facts": f"{len({(row['relation_id'], row['subject']) for row in pool}):,}",
        },
    )
    replace_assets(new)


def replace_assets(new: Path) -> None:
    """Puts the finished files in place, one rename each, so that the assets are complete at all times."""
    for path in sorted(p for p in new.rglob("*") if p.is_file()):
        target = ASSETS / path.relative_to(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(new)


if __name__ == "__main__":
    main()
