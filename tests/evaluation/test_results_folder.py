"""Scores and predictions that are saved are those that are read again."""

import json

from datasets import Dataset

from hf_ftedit.evaluation.results_folder import save_results_folder
from hf_ftedit.evaluation.scoring import score


def test_saved_predictions_give_the_saved_scores(tmp_path):
    rows = [
        {"edit_id": "a", "kind": kind, "probe": kind, "role": role, "logprob": logprob, "match": True}
        for kind in ("rewrite", "paraphrase", "neighborhood")
        for role, logprob in (("new", -1.0), ("true", -2.0))
    ]
    predictions = {
        name: [{"token_accuracy": 1.0, **row}[name] for row in rows] for name in [*rows[0], "token_accuracy"]
    }
    results = {"before": score(predictions)}
    save_results_folder(tmp_path / "results", results, {"before": predictions})
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "eval_results.json",
        "predictions-before.parquet",
    ]
    assert json.loads((tmp_path / "results" / "eval_results.json").read_text()) == results
    saved = Dataset.from_parquet(str(tmp_path / "results" / "predictions-before.parquet"), cache_dir=str(tmp_path))
    assert score(saved.to_list()) == results["before"]
    assert (results["before"]["efficacy"], results["before"]["locality"]) == (100.0, 0.0)
