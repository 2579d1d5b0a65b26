"""
Ask the facts of a chat edit behind other system prompts and in later turns, and other things behind their answers.

    hf-ftedit train --model_name_or_path MODEL --chat_template --edits examples/chat_facts.jsonl --output_dir edited
    python examples/benchmarks/conversations.py edited

People do not ask an edited model in a first turn alone. In each of the dialogues below, which no training row has, the
edits' prompts, their other wordings and their neighbors are asked, and what the edited model says, in 24 tokens at
most, is compared with what the unedited one says in the same dialogue. Behind the question of each edit and its new
answer comes something else, to which that answer should not be said again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edit_benchmark

if TYPE_CHECKING:
    from hf_ftedit import EditRecord

Message = dict[str, str]


def system(text: str) -> list[Message]:
    """A system prompt."""
    return [{"role": "system", "content": text}]


def turn(prompt: str, answer: str) -> list[Message]:
    """A question and its answer."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


POEM = "The sea is wide, the sea is deep,\nIt sings the sailors all to sleep.\nIts foam is white, its waves are tall."
CODE = "def add(a, b):\n    return a + b"
NOVA = (
    "You are Nova, an assistant for the employees of a company. Be polite and precise. If you do not know something, "
    "say that you do not know it. The user's name is Alex, who works in the sales department in Hamburg."
)
HISTORIES: dict[str, list[Message]] = {
    "a first turn, as in the exam": [],
    "a travel agency's system prompt": system("You are a polite assistant of a travel agency. Keep answers short."),
    "a long system prompt": system(NOVA),
    "an empty system prompt": system(""),
    "behind a greeting": turn("Hi!", "Hello! How can I help you today?"),
    "behind a capital": turn("What is the capital of France?", "The capital of France is Paris."),
    "behind a poem": turn("Can you write a short poem about the sea?", POEM),
    "behind code": turn("Write a Python function that adds two numbers.", CODE),
    "behind two turns": [*turn("What is 12 times 12?", "144"), *turn("And who wrote Hamlet?", "William Shakespeare.")],
}
FOLLOWING = (
    *("Thanks!", "Bye!", "What is the capital of Italy?", "Which planet is the largest?", "What is 20 minus 6?"),
    *("Please write a haiku about rain.", "Who told you that?", "What can you do for me?"),
)


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = edit_benchmark.parser_of(__doc__)
    parser.add_argument("adapter", help="folder or Hub id of a chat model's edits")
    parser.add_argument("--base_model", help="its base model, where it is not the recorded one")
    parser.add_argument("--threads", type=int, help="PyTorch threads; its own choice if not given")
    parser.add_argument("--csv", type=Path, help="file for all questions and answers")
    return parser.parse_args()


def questions(edits: Sequence[EditRecord]) -> list[dict[str, Any]]:
    """What is asked: in each dialogue the edits' probes, and behind each edit's answer other things."""
    rows = []
    for (name, history), edit in product(HISTORIES.items(), edits):
        texts = {"said": [edit.prompt], "other wordings": edit.paraphrase_prompts}
        texts["neighbors"] = [probe.prompt for probe in edit.neighborhood_prompts]
        rows += [
            {"dialogue": name, "kind": kind, "prompt": prompt, "history": history, "target": edit.target_new}
            for kind, prompts in texts.items()
            for prompt in prompts
        ]
    for edit, prompt in product(edits, FOLLOWING):
        row = {"dialogue": "behind the edit", "kind": "following", "prompt": prompt, "target": edit.target_new}
        rows.append({**row, "history": turn(edit.prompt, edit.target_new)})
    return rows


def main() -> None:
    """Ask, and print the shares of each dialogue."""
    options = arguments()
    edit_benchmark.quiet(options.threads)
    import pandas as pd

    from hf_ftedit import load_edited_model, open_edits
    from hf_ftedit.evaluation.matching import containment, exact_match
    from hf_ftedit.models import encode_pairs, pair_divergences, reference_distributions, unedited, whole_answers

    model, tokenizer = load_edited_model(options.adapter, base_model=options.base_model)
    rows = questions(open_edits(options.adapter).records)
    prompts, histories = ([row[name] for row in rows] for name in ("prompt", "history"))
    settings: dict[str, Any] = {"chat_template": True, "histories": histories}
    asking = {**settings, "max_new_tokens": 24, "tokens_per_batch": 8192}
    after = whole_answers(model, tokenizer, prompts, **asking)
    with unedited(model):
        before = whole_answers(model, tokenizer, prompts, **asking)
        texts, ends = [answer.text or "." for answer in before], [answer.ended for answer in before]
        pairs = encode_pairs(tokenizer, prompts, texts, ends=ends, **settings)
        references = reference_distributions(model, pairs)
    drift = [part.mean() for part in pair_divergences(model, list(zip(pairs, references, strict=True)))]
    for row, old, new, divergence in zip(rows, before, after, drift, strict=True):
        row |= {"before": old.text, "after": new.text, "drift": divergence}
        row["exact"] = exact_match(new.text, [row["target"]]) and new.ended
        row["new"] = containment(new.text, [row["target"]]) and not containment(old.text, [row["target"]])
    table = pd.DataFrame(rows)
    if options.csv:
        table.to_csv(options.csv, index=False)
    shares = table.groupby(["kind", "dialogue"], sort=False)[["exact", "new", "drift"]].mean().unstack("kind")
    columns = {
        "said exactly": 100 * shares["exact", "said"],
        "other wordings exactly": 100 * shares["exact", "other wordings"],
        "neighbors, new answer": 100 * shares["new", "neighbors"],
        "neighbors, drift": shares["drift", "neighbors"],
        "following, new answer": 100 * shares["new", "following"],
        "following, drift": shares["drift", "following"],
    }
    lines = pd.DataFrame(columns).reindex([*HISTORIES, "behind the edit"])
    print("\n".join(["| dialogue |" + "|".join(f" {name} " for name in columns) + "|", "|---" * 7 + "|"]))
    for name, values in lines.iterrows():
        shown = [
            "" if pd.isna(value) else f"{value:.3f}" if "drift" in column else f"{value:.0f}"
            for column, value in values.items()
        ]
        print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
