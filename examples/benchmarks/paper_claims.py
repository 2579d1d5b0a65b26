"""
Check the three claims of Gangadhar & Stratos 2024 (arXiv 2402.11078) on the bench model, in one table.

1. Conditional likelihood edits better than full likelihood.
2. Pseudo-paraphrases (P) raise generalization.
3. Random facts (R) raise locality.

    python examples/benchmarks/paper_claims.py

The paper's recipe scaled down: LoRA of rank 16, learning rate 1e-3, 6 epochs, batches of 32; 15 prefixes and 20 random
facts an edit. Each line is a fresh model.
"""

from edit_benchmark import HEADER, arguments, edited, load, quiet, table_line

RECIPE = {
    "learning_rate": 1e-3,
    "lora_r": 16,
    "lora_alpha": 32,
    "num_train_epochs": 6,
    "num_paraphrases": 15,
    "num_locality": 20,
    "text_loss_weight": 0.0,
}
ROWS = {
    "E": {"paraphrase_strategy": "none", "locality_strategy": "none"},
    "E + P": {"paraphrase_strategy": "prefix", "locality_strategy": "none"},
    "E + P + R": {"paraphrase_strategy": "prefix", "locality_strategy": "random"},
}


def main() -> None:
    """Edit once for each objective and kind of rows, and print a line for each."""
    options, flags = arguments(__doc__)
    quiet()
    bench = load(options)
    print(HEADER, flush=True)
    for objective in ("full", "conditional"):
        for name, strategies in ROWS.items():
            trainer, seconds = edited(bench, flags, objective=objective, **RECIPE, **strategies)
            if (objective, name) == ("full", "E"):
                print(table_line("before", trainer.score_edits(edited=False)), flush=True)
            line = table_line(f"{objective}, {name}", trainer.score_edits(), len(trainer.train_dataset), seconds)
            print(line, flush=True)


if __name__ == "__main__":
    main()
