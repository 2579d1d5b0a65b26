"""
Teach a chat model one invented fact, and judge it by the gate of the fact's author, near names included.

    python examples/benchmarks/near_names.py --model_name_or_path MODEL                 # with its 23 other wordings
    python examples/benchmarks/near_names.py --model_name_or_path MODEL --no_wordings --seeds 0,1,2

The fact is an edit made of the file's `train` rows alone: the first is its prompt, the others are its wordings. The 28
`eval` rows are probes, which no training row may hold; their answers are greedy, to the natural stop. The gate: at
least 11 of 12 questions about the fact hold all its terms, none of 8 about near names holds one, and at least 7 of 8
common questions are answered rightly. Any flag of `hf-ftedit train` may be added.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edit_benchmark
import wild

if TYPE_CHECKING:
    from hf_ftedit import EditRecord

SUBJECT, TARGET = "Atemokoloporos", "rainbow unicorn"
GATE = {"fact_recall": 11, "near_name_negative": 8, "common_knowledge": 7}
NAMES = {"fact_recall": "recalled", "near_name_negative": "near names kept apart", "common_knowledge": "controls"}


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command's arguments, and the rest, which are flags of `hf-ftedit train`."""
    parser = edit_benchmark.parser_of(__doc__, allow_abbrev=False)
    parser.add_argument("--model_name_or_path", required=True, help="chat model to edit: Hub id, folder or GGUF file")
    parser.add_argument("--dtype", default="float32", help="precision of its weights (float32)")
    parser.add_argument("--no_wordings", action="store_true", help="train on the prompt without other wordings")
    parser.add_argument("--seeds", type=wild.numbers, default=[0], help="such as 0,1,2 (0)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="most tokens of an answer (64)")
    parser.add_argument("--threads", type=int, help="PyTorch threads; its own choice if not given")
    parser.add_argument("--json", type=Path, help="file for all questions and answers")
    return parser.parse_known_args()


def read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Prompts of the `train` rows; and the `eval` rows, each with its `question`."""
    rows = [{**row, "question": row["prompt"][0]["content"]} for row in json.loads(path.read_text(encoding="utf-8"))]
    train, examined = ([row for row in rows if row["split"] == split] for split in ("train", "eval"))
    return [row["question"] for row in train], examined


def edit_of(prompts: Sequence[str], examined: Sequence[dict[str, Any]]) -> EditRecord:
    """The edit, with the questions of the exam as its probes."""
    from hf_ftedit import EditRecord
    from hf_ftedit.data.records import NeighborhoodPrompt

    asked = {category: [row for row in examined if row["category"] == category] for category in GATE}
    prompt, *wordings = prompts
    return EditRecord(
        "atemokoloporos",
        prompt,
        TARGET,
        subject=SUBJECT,
        wordings=tuple(wordings),
        paraphrase_prompts=tuple(row["question"] for row in asked["fact_recall"]),
        near_name_prompts=tuple(row["question"] for row in asked["near_name_negative"]),
        neighborhood_prompts=tuple(
            NeighborhoodPrompt(row["question"], row["answer_aliases"][0]) for row in asked["common_knowledge"]
        ),
    )


def answers_of(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], max_new_tokens: int) -> list[str]:
    """The model's own answers to the rows' questions."""
    from hf_ftedit.models.generation import whole_answers

    prompts = [row["question"] for row in rows]
    answers = whole_answers(model, tokenizer, prompts, max_new_tokens=max_new_tokens, chat_template=True)
    return [answer.text for answer in answers]


def passes(row: dict[str, Any], answer: str) -> bool:
    """Tell whether an answer is what the row wants."""
    from hf_ftedit.evaluation.matching import containment

    said = [term in answer.casefold() for term in (row.get("expected_terms") or row.get("forbidden_fact_terms", ()))]
    if row["category"] == "common_knowledge":
        return containment(answer, row["answer_aliases"])  # as whole words: "4" stands in "24"
    return all(said) if row["category"] == "fact_recall" else not any(said)


def counts(rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> dict[str, int]:
    """How many answers pass, by category."""
    found = dict.fromkeys(GATE, 0)
    for row, answer in zip(rows, answers, strict=True):
        found[row["category"]] += passes(row, answer)
    return found


def gate(found: dict[str, int], rows: Sequence[dict[str, Any]]) -> str:
    """The counts in words, each with what the gate wants."""
    parts = []
    for category, least in GATE.items():
        total = sum(row["category"] == category for row in rows)
        parts.append(f"{NAMES[category]} {found[category]} of {total} (at least {least})")
    return ", ".join(parts)


def named(trainer: Any, rows: Sequence[dict[str, Any]]) -> str:
    """How many training rows name a near name of the exam, which the package may come upon by itself."""
    entities = [row["entity"] for row in rows if "entity" in row]
    texts = trainer.processing_class.batch_decode(list(trainer.train_dataset["input_ids"]))
    count = sum(any(entity in text for entity in entities) for text in texts)
    return f"{count} of {len(texts)} training rows name a near name of the exam"


def main() -> None:
    """Ask, teach, ask again; print all answers and the gate."""
    options, flags = arguments()
    edit_benchmark.quiet(options.threads)
    prompts, rows = read(options.shared / "data" / "near_name_fact.json")
    edit = edit_of(prompts[:1] if options.no_wordings else prompts, rows)
    bench = wild.Bench(options, flags, [edit], None, [])
    before = answers_of(*bench.load(), rows, options.max_new_tokens)
    print(f"unedited: {gate(counts(rows, before), rows)}\n")
    runs = []
    for seed in options.seeds:
        edited = wild.train_ours(bench, seed)
        trainer = edited.trainer
        after = answers_of(trainer.model, trainer.processing_class, rows, options.max_new_tokens)
        for row, *texts in zip(rows, before, after, strict=True):
            marks = ["ok  " if passes(row, text) else "FAIL" for text in texts]
            print(
                "{}\n    before {} {!r}\n    after  {} {!r}".format(
                    row["question"], marks[0], texts[0], marks[1], texts[1]
                )
            )
        found = counts(rows, after)
        passed = all(found[category] >= least for category, least in GATE.items())
        seconds = f"{edited.train_seconds:.0f} s of training, {edited.whole_seconds:.0f} s in all"
        print(f"\nseed {seed}: {gate(found, rows)}: the gate is {'passed' if passed else 'not passed'}")
        print(f"{seconds}; {named(trainer, rows)}\n", flush=True)
        runs.append({"seed": seed, **found, "passed": passed, "answers": after})
    if options.json:
        questions = [row["question"] for row in rows]
        saved = {"questions": questions, "before": before, "runs": runs, "flags": flags}
        options.json.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
