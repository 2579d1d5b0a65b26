"""A study: its grid, its runs, what it keeps, its table."""

import json
import signal
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hf_ftedit.cli import main
from hf_ftedit.cli.grid import Run, read_grid
from hf_ftedit.cli.study import column_of, front_of, row_of, setting_plot, study_markdown, write_study
from hf_ftedit.cli.sweep import run_share
from hf_ftedit.errors import EditError
from hf_ftedit.files import claim, claims, holding
from hf_ftedit.training import Stopped

pytestmark = pytest.mark.usefixtures("few_drift_prompts")


def grid(folder: Path, **settings) -> str:
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def test_a_grid_is_every_combination(tmp_path):
    settings = {"num_locality": [5, 10], "seed": [1, 2, 3], "max_edits": 4, "prefix_counts": [3, 2]}
    runs = read_grid(grid(tmp_path, **settings))
    assert [run.varied for run in runs] == [
        {"num_locality": count, "seed": seed} for count in (5, 10) for seed in (1, 2, 3)
    ]
    # An option that is a list itself is one value, unless there is a list of them.
    assert runs[0].settings == {"max_edits": 4, "prefix_counts": [3, 2], "num_locality": 5, "seed": 1}
    assert len({run.name for run in runs}) == 6
    lists = read_grid(grid(tmp_path, lora_target_modules=[["q_proj"], ["q_proj", "v_proj"]]))
    assert [run.settings["lora_target_modules"] for run in lists] == [["q_proj"], ["q_proj", "v_proj"]]
    layers = read_grid(grid(tmp_path, lora_layers=[[0], [0, 1], None]))
    assert [run.varied["lora_layers"] for run in layers] == [[0], [0, 1], None]


def test_numbers_are_numbers_as_people_write_them(tmp_path):
    (tmp_path / "grid.yaml").write_text("learning_rate: [5e-4, 1E-3, 1.5e-3, 0.002]\nmodel_name_or_path: e5")
    runs = read_grid(str(tmp_path / "grid.yaml"))
    assert [run.settings["learning_rate"] for run in runs] == [5e-4, 1e-3, 1.5e-3, 2e-3]
    assert runs[0].settings["model_name_or_path"] == "e5"


def test_dates_are_texts_which_the_table_can_hold(tmp_path):
    (tmp_path / "grid.yaml").write_text("chat_date: [2026-01-31, 2026-02-01]")
    runs = read_grid(str(tmp_path / "grid.yaml"))
    assert [run.varied["chat_date"] for run in runs] == ["2026-01-31", "2026-02-01"]
    assert row_of("a", runs[0].varied, {})["chat_date"] == "2026-01-31"


def test_variants_vary_together_and_win(tmp_path):
    variants = {"E": {"num_locality": 0}, "E + R": {"num_locality": 7, "locality_strategy": "random"}}
    runs = read_grid(grid(tmp_path, variants=variants, objective=["full", "conditional"], num_locality=5))
    assert [tuple(run.varied.values()) for run in runs] == [
        ("E", "full"), ("E", "conditional"), ("E + R", "full"), ("E + R", "conditional")
    ]  # fmt: skip
    assert [run.settings["num_locality"] for run in runs] == [0, 0, 7, 7]
    # Also over what the grid varies, and the table says so.
    runs = read_grid(grid(tmp_path, variants={"E": {"num_locality": 0}, "R": {}}, num_locality=[5, 6]))
    assert [tuple(run.varied.values()) for run in runs] == [("E", 0), ("R", 5), ("R", 6)]
    assert [run.settings["num_locality"] for run in runs] == [0, 5, 6]


def test_runs_are_known_by_their_settings(tmp_path):
    one = read_grid(grid(tmp_path, seed=[1, 2], num_locality=5))
    other = read_grid(grid(tmp_path, num_locality=[5, 6], seed=[2]))
    assert {run.name for run in one} & {run.name for run in other} == {one[1].name} == {other[0].name}
    assert len(read_grid(grid(tmp_path, seed=[1, 1]))) == 1
    # What the command says of every run is a setting too: of another model, nothing is finished.
    others = read_grid(grid(tmp_path, seed=[2], num_locality=5), ["--model_name_or_path", "gpt2"])
    assert others[0].name != one[1].name and others[0].settings == one[1].settings


def test_a_sample_is_drawn_by_its_seed(tmp_path):
    file = grid(tmp_path, seed=list(range(20)))
    drawn = read_grid(file, sample=5, seed=1)
    assert drawn == read_grid(file, sample=5, seed=1) != read_grid(file, sample=5, seed=2)
    assert len(drawn) == 5 and len(read_grid(file, sample=50)) == 20


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("- 1", "is no grid; give options of train"),
        ("", "is no grid"),
        ("output_dir: x", "output_dir is no part of a grid"),
        ("trust_remote_code: true", "trust_remote_code is not read from a file"),
        ("seed: []", "an option has no value"),
        ("variants: [1]", "variants gives each of its names settings"),
        ("seed: [1", "grid.yaml cannot be read"),
        ("variants: {A: {trust_remote_code: true}}", "trust_remote_code is not read from a file"),
        ("attn_implementation: [sdpa, a/b]", "attn_implementation is not read from a file"),
        ("variants: {A: {seed: [1, 2]}}", r"seed is \[1, 2\] in one run; give a variant one value"),
        ("max-edits: [1, 2]", "unknown option --max-edits;"),
        ("on: [1, 2]", "unknown option --True;"),
    ],
)
def test_what_is_no_grid_is_told(tmp_path, text, error):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(EditError, match=error):
        read_grid(str(tmp_path / "grid.yaml"))


@pytest.mark.parametrize(
    ("settings", "flags", "error"),
    [
        ({"num_localty": [1, 2]}, [], "unknown option --num_localty"),
        ({"num_locality": [1, -2]}, [], "num_locality is -2"),
        ({"learning_rate": [1e-3, "x"]}, [], "learning_rate"),
        ({"edits": ["missing.jsonl"]}, [], "missing.jsonl"),
        ({"measure_fluency": [False, True], "edits": "plain.jsonl"}, [], "generation_prompts"),
        ({"seed": [1]}, ["--sample", "0"], "sample is 0: give 1 or more"),
        ({"seed": [1]}, ["--resume_from_checkpoint"], "sweep goes on by itself, and keeps what is finished; leave"),
        ({"seed": [1]}, ["--num_workers", "0"], "num_workers is 0: give 1 or more"),
    ],
)
def test_bad_settings_are_told_before_the_first_run(tmp_path, capsys, monkeypatch, settings, flags, error):
    study = tmp_path / "study"
    monkeypatch.chdir(tmp_path)
    Path("plain.jsonl").write_text('{"prompt": "Rome is in", "target_new": "Peru"}\n')
    assert main(["sweep", "--config", grid(tmp_path, **settings), "--output_dir", str(study), *flags]) == 2
    assert error in capsys.readouterr().err
    assert not (study / "runs").exists()


@pytest.mark.parametrize("settings", [{"num_locality": [1, 2]}, {"variants": {"A": {"num_locality": 1}, "B": {}}}])
def test_what_the_grid_varies_is_not_set_for_all_runs(tmp_path, settings):
    file = grid(tmp_path, **settings, seed=1)
    for flags in (["--num_locality", "3"], ["--num-locality=3"]):
        with pytest.raises(EditError, match="has several values of num_locality, and the command one; leave one out"):
            read_grid(file, flags)
    assert {run.flags for run in read_grid(file, ["--seed", "3"])} == {("--seed", "3")}


FEW = {"max_edits": 3, "max_steps": 2, "num_locality": 2, "num_paraphrases": 2, "text_loss_weight": 0}


def test_a_study_goes_on_and_keeps_what_is_finished(tmp_path, capsys):
    study, file = tmp_path / "study", grid(tmp_path, **FEW, learning_rate=[1e-3, 2e-3])
    (facts := tmp_path / "facts.jsonl").write_text('{"prompt": "Paris is the capital of", "target": "France"}')
    command = ["sweep", "--config", file, "--output_dir", str(study), "--lora_r", "4", "--known_facts", str(facts)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 runs, 0 of them finished before" in printed and "│ 0.001 " in printed
    table = pd.read_parquet(study / "results.parquet")
    assert table["learning_rate"].tolist() == [1e-3, 2e-3]
    for _, row in table.iterrows():
        folder = study / "runs" / row["run"]
        results = json.loads((folder / "eval_results.json").read_text())
        assert row["edit_score"] == results["after"]["edit_score"] and row["drift"] == results["after"]["drift"]
        assert [row["locality_low"], row["locality_high"]] == results["after"]["locality_ci95"]
        assert row["known_facts_before"] == results["before"]["known_facts"] in (0.0, 100.0)
        assert row["drift_code"] == results["after"]["drift_by_sort"]["code"]
        assert row["rows"] > 3 and 0 < row["train_seconds"] < row["seconds"]
        recipe = yaml.safe_load((folder / "edit_config.yaml").read_text())
        assert (recipe["learning_rate"], recipe["lora_r"], recipe["max_steps"]) == (row["learning_rate"], 4, 2)
        assert "training rows" in folder.with_suffix(".log").read_text()
    assert sorted(file.name for file in study.iterdir()) == [
        "plot-front.png", "plot-learning_rate.png", "results.md", "results.parquet", "runs"
    ]  # fmt: skip
    # What the unedited model said was asked once, and is the same for both.
    before = [json.loads((study / "runs" / name / "eval_results.json").read_text())["before"] for name in table["run"]]
    assert before[0] == before[1]

    # One was killed in the middle: it alone is run again, from its beginning.
    first, second = (study / "runs" / name for name in table["run"])
    (second / "run.json").unlink()
    kept, weights = (first / "run.json").stat().st_mtime_ns, (second / "adapter_model.safetensors").read_bytes()
    (second / "adapter_model.safetensors").write_bytes(b"half")
    assert main(command) == 0
    assert "2 runs, 1 of them finished before" in capsys.readouterr().out
    assert (first / "run.json").stat().st_mtime_ns == kept
    assert (second / "adapter_model.safetensors").read_bytes() == weights
    again = pd.read_parquet(study / "results.parquet")
    costs = ["train_seconds", "seconds", "peak_memory_mb"]
    pd.testing.assert_frame_equal(again.drop(columns=costs), table.drop(columns=costs))


def test_a_run_that_fails_is_a_row_and_the_others_go_on(tmp_path, capsys):
    study = tmp_path / "study"
    file = grid(tmp_path, **FEW, lora_target_modules=[["nowhere"], ["all-linear"]])
    assert main(["sweep", "--config", file, "--output_dir", str(study)]) == 1
    table = pd.read_parquet(study / "results.parquet")
    assert table["error"].notna().tolist() == [True, False]
    assert "the model has no module 'nowhere'" in table["error"][0]
    assert table["edit_score"].isna().tolist() == [True, False]
    out = capsys.readouterr().out.replace("\\", "")
    assert "no module 'nowhere'" in out and out.endswith(
        "\n1 run failed: the table has the errors; the same command tries them again\n"
    )


def test_what_is_stopped_goes_on_by_the_same_command(tmp_path, capsys, monkeypatch):
    def training(arguments):
        raise Stopped(signal.SIGTERM, "at step 3; saved in x/checkpoint-3; add --resume_from_checkpoint to go on")

    monkeypatch.setattr("hf_ftedit.cli.sweep.trained", training)
    file = grid(tmp_path, **FEW, seed=1)
    assert main(["sweep", "--config", file, "--output_dir", str(tmp_path / "study")]) == 143
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("stopped by SIGTERM before the end; the same command goes on, finished runs are kept")


def test_folders_of_runs_are_held_no_longer_than_they_run(tmp_path, monkeypatch):
    def training(arguments):
        claim(arguments[-1])
        with pytest.raises(EditError, match="another run writes to it"):
            claim(arguments[-1])
        return {}

    monkeypatch.setattr("hf_ftedit.cli.sweep.trained", training)
    with claims, holding(tmp_path):
        runs = read_grid(grid(tmp_path, seed=[1, 2]))
        run_share(runs, tmp_path)
        for run in runs:
            claim(tmp_path / "runs" / run.name)
        with pytest.raises(EditError, match="another run writes to it"):
            claim(tmp_path)


def test_the_bar_counts_each_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_ftedit.cli.sweep.trained", lambda arguments: {})
    file = grid(tmp_path, **FEW, seed=[1, 2, 3])
    assert main(["sweep", "--config", file, "--output_dir", str(tmp_path / "study")]) == 0
    shown = capsys.readouterr().err
    assert all(f" {count}/3 " in shown for count in range(4))


def test_processes_share_the_runs(tmp_path, capsys):
    study = tmp_path / "study"
    file = grid(tmp_path, **FEW, seed=[1, 2])
    assert main(["sweep", "--config", file, "--output_dir", str(study), "--num_workers", "2"]) == 0
    table = pd.read_parquet(study / "results.parquet")
    assert table["seed"].tolist() == [1, 2] and table["edit_score"].notna().all()


def test_the_front_has_what_none_beats():
    rows = [(10, 90.0), (5, 80.0), (20, 89.0), (5, 70.0), (30, 95.0)]
    table = pd.DataFrame(rows, columns=["train_seconds", "edit_score"])
    assert list(front_of(table).itertuples(index=False, name=None)) == [(5, 80.0), (10, 90.0), (30, 95.0)]


def test_a_table_says_what_was_not_measured():
    after = {"edit_score": 98.76, "edit_score_ci95": [97.0, 100.0], "drift": 0.0123, "efficacy": None}
    rows = [
        row_of("a", {"learning_rate": 1e-3}, {"results": {"after": after}, "rows": 7, "train_seconds": 1.25}),
        row_of("b", {"learning_rate": 2e-3}, {"error": "no | module"}),
    ]
    table = pd.DataFrame(rows)[
        ["learning_rate", "edit_score", "edit_score_low", "edit_score_high", "drift", "rows", "error"]
    ]
    lines = study_markdown(table, ["learning_rate"]).splitlines()
    assert lines[0] == "| learning_rate | edit_score | drift | rows | error |"
    assert lines[2] == "| 0.001 | 98.8 (97.0 to 100.0) | 0.012 | 7 | — |"
    assert lines[3].startswith("| 0.002 | — | — | — | no \\| module |")


def test_a_setting_may_be_a_number_or_a_word_or_left_to_its_default(tmp_path, monkeypatch):
    plots = {}
    monkeypatch.setattr("hf_ftedit.cli.study.png_of", lambda figure: plots.update({len(plots): figure}) or b"")
    settings = [(1, None), ("auto", None), (None, 0.9)]
    record = {"train_seconds": 1.0, "results": {"after": {"edit_score": 90.0}}}
    names = ["strength", "mastered_probability"]
    rows = [row_of(str(place), dict(zip(names, each, strict=True)), record) for place, each in enumerate(settings)]
    write_study(tmp_path, rows, names)
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert table["strength"].fillna("null").tolist() == ["1", "auto", "null"]
    assert table["mastered_probability"].tolist()[2] == 0.9
    labels = [[label.get_text() for label in plots[place].axes[0].get_xticklabels()] for place in range(2)]
    assert labels == [["1", "auto", "default"], ["default", "0.9"]]
    assert [len(plots[place].axes[0].lines[0].get_xydata()) for place in range(2)] == [3, 2]


def test_a_plot_has_the_means_in_the_order_of_the_grid(monkeypatch):
    monkeypatch.setattr("hf_ftedit.cli.study.png_of", lambda figure: figure)
    rows = [("none", 60.0), ("none", 64.0), ("near", 95.0), ("any", 90.0)]
    table = pd.DataFrame(rows, columns=["strategy", "locality"])
    (axes,) = setting_plot(table, "strategy").axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["none", "near", "any"]
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 62.0], [1.0, 95.0], [2.0, 90.0]]


def test_a_study_of_a_chat_model_shows_near_names_and_files_of_facts_beside_what_is_known(tmp_path):
    results = {"edit_score": 90.0, "near_names": 80.0, "known_facts": 50.0, "protocol": "containment", "drift": 0.1}
    records = [{"results": {"after": {**results, "seed": seed}}, "train_seconds": 1.0} for seed in (1, 2)]
    varied = [{"known_facts": f"{name}.json", "protocol": "accuracy"} for name in "ab"]
    rows = [row_of(name, each, record) for name, each, record in zip("xy", varied, records, strict=True)]
    text = write_study(tmp_path, rows, [column_of(name) for name in varied[0]])
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert table["known_facts"].tolist() == [50.0, 50.0] and table["protocol"].tolist() == ["containment"] * 2
    assert table["known_facts_setting"].tolist() == ["a.json", "b.json"]
    assert table["protocol_setting"].tolist() == ["accuracy"] * 2
    assert text.count("near names") == 1 and "80.0" in text and "a.json" in text
    assert (tmp_path / "results.md").read_text().splitlines()[0].count("near_names") == 1


def test_a_runs_file_holds_no_token(tmp_path):
    token, name = "hf_" + "a" * 30, "no-such-model"
    settings = {"model_name_or_path": f"./{name}", "edits": "none.jsonl", "model_init_kwargs": {"token": token}}
    each = Run(settings, {"model_init_kwargs": settings["model_init_kwargs"]})
    run_share([each], tmp_path)
    text = (tmp_path / "runs" / each.name / "run.json").read_text()
    assert token not in text and json.loads(text)["settings"]["model_init_kwargs"] == {"token": "***"}
