import doctest
from pathlib import Path

import evaluate
import pytest
from datasets import Dataset
from test_scoring import two_edits

from hf_ftedit.predictions import COLUMNS
from hf_ftedit.scoring import score

FOLDER = Path(__file__).parent.parent / "metrics" / "edit_score"


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(FOLDER))


def columns():
    return {name: [row[name] for row in two_edits()] for name in COLUMNS}


def test_compute_gives_the_numbers_of_scoring(metric):
    assert metric.compute(**columns()) == score(two_edits())
    assert metric.compute(**columns(), protocol="accuracy") == score(two_edits(), "accuracy")


def test_batches_add_up(metric):
    rows = two_edits()
    metric.add(**rows[0])
    metric.add_batch(**{name: [row[name] for row in rows[1:]] for name in COLUMNS})
    assert metric.compute() == score(rows)


def test_a_saved_predictions_file_gives_the_numbers_of_the_run(metric, tmp_path):
    Dataset.from_list(two_edits()).add_column("answer", ["x"] * len(two_edits())).to_parquet(tmp_path / "p.parquet")
    saved = Dataset.from_parquet(str(tmp_path / "p.parquet"), cache_dir=str(tmp_path))
    assert score(saved) == score(two_edits())
    assert metric.compute(**saved.select_columns(list(COLUMNS)).to_dict()) == score(two_edits())


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
