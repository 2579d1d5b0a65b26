import doctest
import json
from pathlib import Path

import evaluate
import pytest
from datasets import Dataset
from test_measurement import RECORDS
from test_scoring import probe, two_edits
from tiny import bpe_tokenizer, paired, tiny_model

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.measurement import predict
from hf_ftedit.evaluation.scoring import COLUMNS, compare, save_results_folder, score
from hf_ftedit.evaluation.tables import results_table

FOLDER = Path(__file__).parents[2] / "metrics" / "edit_score"


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(FOLDER))


def columns():
    return {name: [row[name] for row in two_edits()] for name in COLUMNS}


def test_compute_gives_the_numbers_of_scoring(metric):
    assert metric.compute(**columns()) == score(two_edits())
    assert metric.compute(**columns(), protocol="accuracy") == score(two_edits(), "accuracy")


def test_a_probe_without_a_rival_is_left_out_and_counted(metric):
    texts = {"new": "Rome", "true": "Paris"}
    same = [row | {"target": "Rome"} for row in probe("b", "neighborhood", "y", -0.1, -0.1, accuracy=0.5)]
    rows = [row | {"target": texts[row["role"]]} for row in two_edits()] + same
    table = {name: [row[name] for row in rows] for name in (*COLUMNS, "target")}
    assert metric.compute(**table) == score(rows) and score(rows)["n_without_rival"] == 1
    full = evaluate.load(str(FOLDER), "full")
    texts = {"aspect": [""] * len(rows)}
    full.add_batch(**{name: (table | texts).get(name, [None] * len(rows)) for name in full.features})
    found = full.compute()
    assert (found["n_without_rival"], found["locality"]) == (1, score(rows)["locality"])


def test_batches_add_up(metric):
    rows = two_edits()
    metric.add(**rows[0])
    metric.add_batch(**{name: [row[name] for row in rows[1:]] for name in COLUMNS})
    assert metric.compute() == score(rows)


def test_a_saved_predictions_file_gives_the_numbers_of_the_run(metric, tmp_path):
    model, tokenizer = paired(tiny_model, "gpt2")
    plain = predict(model, tokenizer, RECORDS)
    whole = predict(model, tokenizer, RECORDS, generate=True, fluency=True)
    ended = predict(model, tokenizer, RECORDS, end_of_answer=True)
    measured = {"before": plain, "after": whole, "ended": ended}
    save_results_folder(tmp_path / "scores", {}, measured)
    files = {when: str(tmp_path / "scores" / f"predictions-{when}.parquet") for when in measured}
    saved = {when: Dataset.from_parquet(file, cache_dir=str(tmp_path)) for when, file in files.items()}
    full = evaluate.load(str(FOLDER), "full")
    tables = {when: rows.select_columns(list(full.features)).to_dict() for when, rows in saved.items()}
    for when, predictions in measured.items():
        assert score(files[when]) == score(saved[when]) == score(predictions)
        assert full.compute(**tables[when]) == score(predictions)
        probes = saved[when].filter(lambda row: row["kind"] != "generation").select_columns(list(COLUMNS))
        assert metric.compute(**probes.to_dict())["accuracy"] == score(predictions)["accuracy"]
        (tmp_path / f"{when}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in saved[when]))
        assert score(tmp_path / f"{when}.jsonl") == score(predictions)
    assert full.compute(**tables["after"], protocol="containment") == score(whole, "containment")
    assert score(ended)["whole_answers"] and score(ended)["protocol"] == "containment"


def test_the_page_of_the_metric_shows_the_report_of_the_files(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from app import report

    tokenizer = bpe_tokenizer()
    before, after = (predict(tiny_model("gpt2", tokenizer), tokenizer, RECORDS[:n]) for n in (3, 3))
    after["logprob"] = [
        value / (9 if role == "new" else 1) for value, role in zip(after["logprob"], after["role"], strict=True)
    ]
    save_results_folder(tmp_path / "scores", {}, {"before": before, "after": after})
    files = [str(tmp_path / "scores" / f"predictions-{when}.parquet") for when in ("before", "after")]
    scores = {"before": score(before), "after": score(after), "change": compare(before, after)}
    assert report(*files) == (results_table(scores), scores)
    assert report(None, files[1]) == (results_table({"before": score(after)}), {"before": score(after)})
    assert report(None, None)[1] == {} and "Upload" in report(None, None)[0]
    assert report(*files, "containment") == (
        "protocol 'containment' needs generated answers; predict with `generate=True`",
        {},
    )


def test_metrics_are_combined(metric):
    both = evaluate.combine({"one": metric, "other": evaluate.load(str(FOLDER))}, force_prefix=True)
    expected = score(two_edits())
    for result in (both.compute(**columns()), both.add_batch(**columns()) or both.compute()):
        assert result == {f"{name}_{key}": value for name in ("one", "other") for key, value in expected.items()}


def test_an_unknown_configuration_is_refused():
    with pytest.raises(ValueError, match="'default' and 'full', not 'fuller'"):
        evaluate.load(str(FOLDER), "fuller")


def test_impossible_values_are_named(metric):
    n = len(two_edits())
    for name, values, message in (
        ("logprob", [0.5] * n, "logprob is above 0; give log-probabilities, not losses"),
        ("token_accuracy", [75.0] * n, "token_accuracy is not from 0 to 1; give shares, not percent"),
        ("match", ["False"] * n, "the column match holds text; give numbers"),
    ):
        with pytest.raises(EditError, match=message):
            metric.compute(**columns() | {name: values})


def test_optional_columns_may_be_left_out_and_edits_may_have_numbers(metric):
    table = columns() | {"edit_id": [ord(row["edit_id"]) for row in two_edits()]}
    full = evaluate.load(str(FOLDER), "full")
    expected = score(two_edits())
    for some in (table, table | {"target": [None] * len(two_edits())}):
        found = full.compute(**some)
        assert (found["edit_score"], found["n_edits"]) == (expected["edit_score"], 2)
    for row in two_edits():
        full.add(**{name: row[name] for name in COLUMNS})
    assert full.compute()["edit_score"] == metric.compute(**table)["edit_score"] == expected["edit_score"]


def test_columns_that_are_missing_are_named(metric):
    table = {name: values for name, values in columns().items() if name != "role"}
    for add in (metric.compute, metric.add_batch):
        with pytest.raises(EditError, match="edit_score lacks the columns role; give those that `predict` returns"):
            add(**table)


def test_the_documented_examples_run(metric, monkeypatch):
    monkeypatch.chdir(FOLDER.parent.parent)
    example = doctest.DocTestParser().get_doctest(
        metric.inputs_description, {"evaluate": evaluate}, "edit_score", None, 0
    )
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_card_of_the_metric_runs(monkeypatch, capsys):
    monkeypatch.chdir(FOLDER.parent.parent)
    block = (FOLDER / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(block, {})
    assert capsys.readouterr().out.strip() == "accuracy 75.0"


def test_the_metric_says_where_it_comes_from(metric):
    assert "Gangadhar" in metric.citation and "2402.11078" in metric.info.reference_urls[0]
    assert set(metric.features) == set(COLUMNS)
