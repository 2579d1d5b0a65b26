"""What the embedded model knows: whether it completes prompts, and the lines of its card that say so."""

import random

import torch
from statements import Tables, Wording
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MINIMUM_RECALL = {"trained wordings": 0.95, "held-out wordings": 0.90, "paraphrases": 0.90, "neighborhood": 0.90}


def pad(batch: list[list[int]], value: int) -> torch.Tensor:
    """Token ids filled up on the right, shape (batch, length)."""
    length = max(map(len, batch))
    return torch.tensor([ids + [value] * (length - len(ids)) for ids in batch])


@torch.no_grad()
def is_known(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]) -> list[bool]:
    """For each (prompt, answer): whether every token of the answer is the argmax, teacher-forced."""
    starts = [len(ids) for ids in tokenizer([prompt for prompt, _ in pairs])["input_ids"]]
    encoded = tokenizer([f"{prompt} {answer}" for prompt, answer in pairs])["input_ids"]
    known = [False] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda i: len(encoded[i]))
    for chunk in (order[i : i + 256] for i in range(0, len(order), 256)):
        best = model(input_ids=pad([encoded[i] for i in chunk], tokenizer.pad_token_id)).logits.argmax(-1).tolist()
        for i, row in zip(chunk, best, strict=True):
            known[i] = encoded[i][starts[i] :] == row[starts[i] - 1 : len(encoded[i]) - 1]
    return known


class Recall:
    """Measures groups of (prompt, answer) and keeps a line of the card's table for each."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.share: dict[str, float] = {}
        self.lines: dict[str, str] = {}

    def measure(self, name: str, pairs: list[tuple[str, str]]) -> list[bool]:
        """Returns whether each is known; raises where the share is under what the model must reach."""
        flags = is_known(self.model, self.tokenizer, pairs)
        share = sum(flags) / len(flags)
        self.lines[name] = f"| {name} | {100 * share:.1f} % | {len(flags)} |"
        print(self.lines[name], flush=True)
        if share < MINIMUM_RECALL.get(name, 0):
            raise RuntimeError(f"recall of {name} is {share:.3f}, less than {MINIMUM_RECALL[name]}: train longer")
        return flags


def measure_facts(
    recall: Recall, tables: Tables, groups: dict[str, list[Wording]], rng: random.Random
) -> dict[Wording, bool]:
    """Measures each group of wordings, as they are and behind another statement."""
    known = {}
    for name, wordings in groups.items():
        pairs = tables.pairs(wordings)
        known |= dict(zip(wordings, recall.measure(name, pairs), strict=True))
        behind = [(f"{' '.join(rng.choice(pairs))}. {prompt}", answer) for prompt, answer in pairs]
        recall.measure(f"{name}, behind another statement", behind)
    consequences = [(prompt, answer) for _, prompt, answer in tables.consequence_pairs()]
    recall.measure("statements that follow from two facts (trained)", consequences)
    return known


def measure_probes(recall: Recall, records: list[dict]) -> None:
    """Measures what the unedited model answers to the probes of the edit set."""
    edits = [(record["prompt"], record["target_true"]) for record in records]
    paraphrases = [(p, record["target_true"]) for record in records for p in record["paraphrase_prompts"]]
    neighbors = [(p["prompt"], p["target"]) for record in records for p in record["neighborhood_prompts"]]
    for name, pairs in {"edit prompts": edits, "paraphrases": paraphrases, "neighborhood": neighbors}.items():
        recall.measure(name, pairs)


def relation_lines(tables: Tables, groups: dict[str, list[Wording]], known: dict[Wording, bool]) -> list[str]:
    """One line of the card a relation: its facts, and the recall of each group."""
    lines = []
    for relation, table in tables.facts.items():
        flags = [[known[wording] for wording in group if wording[0] == relation] for group in groups.values()]
        shares = [f"{100 * sum(group) / len(group):.1f} %" for group in flags]
        lines.append("| " + " | ".join([relation, str(len(table)), *shares]) + " |")
    return lines
