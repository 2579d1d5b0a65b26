"""The command line as people use it: what it prints, what it refuses and why, and the whole way once."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings

import datasets
import pytest
import yaml
from tiny import bpe_tokenizer, moved, saved, tiny_model

from hf_ftedit import __version__, load_model, load_tokenizer, measure
from hf_ftedit.cli.app import USAGE, main
from hf_ftedit.cli.arguments import MORE_OPTIONS
from hf_ftedit.cli.options import OPTIONS
from hf_ftedit.data.readers import read_edits
from hf_ftedit.evaluation.scoring import ERASURE_SCORES, score
from hf_ftedit.hub.folder import ADAPTER_FILES
from hf_ftedit.models.loading import asset

EDITING = ("train", "evaluate", "augment")
GOOD = {"prompt": "The capital of Kazakhstan is", "target_new": "Almaty"}
RUN = "import sys; from hf_ftedit.cli.app import main; code = main(sys.argv[1:]); "
RUN += "print('loaded:', *sorted({'torch', 'transformers', 'datasets'} & set(sys.modules))); raise SystemExit(code)"
ONCE = ["--num_train_epochs", "1", "--text_loss_weight", "0"]
FEW = ["--max_edits", "3", *ONCE, "--per_device_train_batch_size", "4"]

pytestmark = pytest.mark.usefixtures("few_drift_prompts", "in_empty_folder", "own_cache")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """`main` is a process of its own: what it sets for that is taken back."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    logger = logging.getLogger("hf_ftedit")
    level = logger.level
    with warnings.catch_warnings():
        yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """An adapter folder made by `train`; the three edits come to be known in one pass."""
    folder = tmp_path_factory.mktemp("edited") / "adapter"
    assert main(["train", *FEW, "--learning_rate", "5e-3", "--output_dir", str(folder), "--report_to", "none"]) == 0
    return folder


def process(*args, program=("-m", "hf_ftedit"), **settings):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": os.path.abspath("cache")}
    command = [sys.executable, *program, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, **settings)


def write(name, *rows):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    return name


def refused(capsys, *args):
    """The one line on standard error with which `main` refuses."""
    capsys.readouterr()
    assert main(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What it prints


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_usage(args, capsys):
    assert main(args) == 0
    assert capsys.readouterr().out == USAGE + "\n"
    assert all(f"\n  {verb} " in USAGE for verb in OPTIONS)


@pytest.mark.parametrize("verb", EDITING)
def test_help_of_a_verb_lists_its_options(verb, capsys):
    assert main([verb, "--edits", "missing.jsonl", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: hf-ftedit {verb} ")
    for option in ("--edits", "--model_name_or_path", "--output_dir", "--seed"):
        assert re.search(rf"^  {option} +[A-Z]\w+ .*\.", shown, flags=re.MULTILINE), option
    # Those alone that it uses.
    makes_rows = verb != "evaluate"
    assert ("(near, relation, similar, random, self, none; default: near)\n" in shown) == makes_rows
    assert ("--revoke" in shown) == (verb == "train") and ("--protocol" in shown) == (verb != "augment")
    assert shown.index("--model_name_or_path") < shown.index("--edits") < shown.index("--end_of_answer")
    assert ("trl.SFTConfig" in shown) == (verb == "train") and "trl.ModelConfig" in shown


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train", "--help"], ["evaluate", "-h"]])
def test_help_needs_no_torch(args):
    done = process(*args, program=("-c", RUN))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nloaded:\n")


def test_module_and_command_are_one_program():
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")
    done = process("edit")
    expected = f"hf-ftedit: unknown verb 'edit'; choose one of {', '.join(OPTIONS)}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_what_the_client_of_the_hub_logs_is_shown_once():
    code = "from hf_ftedit.cli.app import _quiet; _quiet(); from huggingface_hub.utils import logging as log; "
    done = process(program=("-c", f"{code}log.get_logger('huggingface_hub.hf_api').warning('nothing to commit')"))
    assert (done.returncode, done.stderr) == (0, "nothing to commit\n")


# What it refuses before torch is loaded

# Each with its place and its field; tests/data has all kinds of bad files, and the whole sentences.
BAD_FILES = {
    "missing file": ("missing.jsonl", None, "'missing.jsonl': no such file"),
    "empty target": (
        "e.jsonl",
        b'{"edit_id": "a7", "prompt": "A is", "target_new": " "}\n',
        "e.jsonl line 1 (edit_id 'a7'): target_new ",
    ),
    "conflict": (
        "e.jsonl",
        b'{"prompt": "A is", "target_new": "b"}\n{"prompt": "A is", "target_new": "c"}\n',
        "e.jsonl line 2 (edit_id '1'): target_new ",
    ),
    "not UTF-8": ("e.jsonl", '{"prompt": "Zürich is"}\n'.encode("latin-1"), "e.jsonl line 1: is not UTF-8"),
}


@pytest.mark.parametrize("verb", EDITING)
@pytest.mark.parametrize(("name", "content", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_edits(capsys, tmp_path, verb, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    output = () if verb == "evaluate" else ("--output_dir", "out")
    line = refused(capsys, verb, "--edits", name, *output)
    assert line.startswith(f"hf-ftedit: {expected}") and "; " in line
    assert not (tmp_path / "out").exists()


def test_bad_edits_are_refused_without_torch(tmp_path):
    name, content, expected = BAD_FILES["conflict"]  # which is seen once all edits are read
    (tmp_path / name).write_bytes(content)
    done = process("train", "--edits", name, program=("-c", RUN))
    assert (done.returncode, done.stdout) == (2, "loaded:\n")
    assert done.stderr.startswith(f"hf-ftedit: {expected}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "edited-adapter").exists()


@pytest.mark.parametrize(
    ("verb", "option", "problem"),
    [
        ("train", "locality_pool", "'other.jsonl' holds no facts; its rows need a target"),
        ("augment", "locality_pool", "'other.jsonl' holds no facts; its rows need a target"),
        ("train", "known_facts", "'other.jsonl' holds no facts; its rows need a target"),
        ("evaluate", "known_facts", "'other.jsonl' holds no facts; its rows need a target"),
        ("train", "perplexity_texts", "other.jsonl line 1: holds no text; give it in a column named text"),
        ("evaluate", "perplexity_texts", "other.jsonl line 1: holds no text; give it in a column named text"),
        ("playground", "training_texts", "other.jsonl line 1: holds no text; give it in a column named text"),
    ],
)
def test_an_error_names_the_option_whose_file_is_bad(capsys, no_model, verb, option, problem):
    write("edits.jsonl", GOOD)
    write("other.jsonl", GOOD)
    command = [verb] if verb == "playground" else [verb, "--edits", "edits.jsonl", "--output_dir", "out"]
    assert refused(capsys, *command, f"--{option}", "other.jsonl").startswith(f"hf-ftedit: {option}: {problem}")
    line = refused(capsys, *command, f"--{option}", "gone.jsonl")
    assert line.startswith(f"hf-ftedit: {option}: 'gone.jsonl': no such file; check the path")


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_known_facts_about_the_edits_alone_are_refused(capsys, no_model, verb):
    write("edits.jsonl", {"subject": "Kazakhstan", **GOOD})
    about = {"prompt": "Kazakhstan lies in", "target": "Asia", "subject": "Kazakhstan"}
    write("known.jsonl", about, {"prompt": GOOD["prompt"], "target": "Astana"})
    line = refused(capsys, verb, "--edits", "edits.jsonl", "--known_facts", "known.jsonl")
    assert line == "hf-ftedit: known_facts holds no fact about a subject that is not edited; give others"


@pytest.mark.parametrize("verb", EDITING)
def test_an_output_folder_with_content_is_left_alone(capsys, tmp_path, verb):
    write("edits.jsonl", GOOD)
    (tmp_path / "out").mkdir()
    write("out/README.md", "mine")
    expected = "hf-ftedit: output_dir 'out' exists and is not empty; give another --output_dir or remove it"
    assert refused(capsys, verb, "--edits", "edits.jsonl", "--output_dir", "out") == expected
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "README.md"]
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    line = refused(capsys, verb, "--edits", "edits.jsonl", "--output_dir", "edits.jsonl/out")
    assert "Not a directory; " in line and line.endswith("mend permissions")


BAD_WORDS = {
    "not a number": (["--max_edits", "three"], "bad options: --max_edits: invalid int value: 'three'"),
    "too few": (["--max_edits", "0"], "max_edits is 0: give 1 or more"),
    "no choice": (["--objective", "ful"], "bad options: --objective: invalid choice: 'ful' (choose from 'c"),
    "negative": (["--num_locality", "-1"], "num_locality is -1: give 0 or more"),
    "probability": (["--mastered_probability", "1"], "mastered_probability is 1.0: give a number between 0 and 1"),
    "lengths and counts": (["--prefix_counts", "5"], "prefix_lengths [5, 10] and prefix_counts [5] do not fit: "),
    "a word first": (["edits.jsonl"], "unexpected 'edits.jsonl'; give options as --name value, such as --edits edits"),
    "an empty value": (["--edits", " "], "--edits is ' '; give a value, or leave it out"),
    "config with a NUL": (["--config", "nul.yaml"], "--output_dir is 'a\\x00b'; give a value, or leave it out"),
    "a token in the wrong place": (["--seed", "hf_abcdefgh"], "bad options: --seed: invalid int value: 'hf_***'"),
    "no value": (["--edits"], "bad options: --edits: expected one argument"),
    "config without file": (["--config"], "bad options: --config: expected one argument; "),
    "config missing": (["--config", "x.yaml"], "--config x.yaml: no such file; check the path"),
    "config no YAML": (["--config", "bad.yaml"], "--config bad.yaml cannot be read (while parsing a flow"),
    "config a list": (
        ["--config", "list.yaml"],
        "--config list.yaml holds no settings by name; give lines such as seed: 42",
    ),
    "config bad value": (["--config", "value.yaml"], "bad options: --max_edits: invalid int value: 'three'"),
    "config bad type": (["--config", "type.yaml"], "num_locality is [1, 2]: give a whole number"),
}


ROWS_AND_TRAINING = ["--objective", "--mastered_probability", "--num_locality", "--prefix_counts"]


@pytest.mark.parametrize("verb", EDITING)
@pytest.mark.parametrize(("args", "expected"), BAD_WORDS.values(), ids=BAD_WORDS)
def test_bad_options(capsys, verb, args, expected):
    write("bad.yaml", "edits: [1\n")
    write("list.yaml", "- a\n")
    write("value.yaml", "max_edits: three\n")
    write("type.yaml", "num_locality: [1, 2]\n")
    write("nul.yaml", 'output_dir: "a\\0b"\n')
    used = {"augment": ["--num_locality", "--prefix_counts"]}.get(verb, [])
    if verb != "train" and args[0] in {*ROWS_AND_TRAINING}.difference(used):
        expected = f"{verb} does not use {args[0]}; leave it out"
    assert expected in refused(capsys, verb, *args)


# What it refuses before a model is loaded


@pytest.mark.parametrize("verb", EDITING)
def test_unknown_options(capsys, no_model, tmp_path, verb):
    write("edits.jsonl", GOOD)
    write("config.yaml", "edit: edits.jsonl\n")
    args = [verb, "--edits", "edits.jsonl", *(() if verb == "evaluate" else ("--output_dir", "out"))]
    expected = f"hf-ftedit: unknown option --bogus; hf-ftedit {verb} --help lists those there are"
    assert refused(capsys, *args, "--bogus", "1") == expected
    expected = "hf-ftedit: unknown option --edit; did you mean --edits?"
    assert refused(capsys, *args, "--config", "config.yaml") == expected
    assert not (tmp_path / "out").exists()


MISSING = {
    "no edits for a model of one's own": (
        ["evaluate", "--model_name_or_path", "user/model"],
        "hf-ftedit: --edits is missing; give a file with the edits, such as edits.jsonl",
    ),
    "nowhere to write a dataset": (["augment"], "--output_dir is missing; give the folder to write the dataset to"),
    "push without a folder": (["push", "--repo_id", "user/a"], "push needs a folder and --repo_id, such as hf-ftedit"),
    "push without a name": (["push", "folder"], "push needs a folder and --repo_id, such as hf-ftedit push edited-ad"),
    "push of two": (["push", "a", "b"], "unexpected 'b'; push takes one folder or Hub id"),
    "push of what is no folder": (["push", "gone", "--repo_id", "user/a"], "'gone' has no edit_config.yaml; give a f"),
    "verify of nothing": (["verify"], "verify needs a folder or Hub id, such as hf-ftedit verify user/name"),
    "verify of a path": (["verify", "./gone"], "'./gone': no such folder, nor a name of a repository such as 'user/m"),
    "verify a word later": (["verify", "--tolerance", "x"], "bad options: --tolerance: invalid float value: 'x'"),
    "merge without output": (["merge", "a", "b"], "--output_dir is missing; give the folder to write the merged adap"),
    "merge of one": (["merge", "folder", "--output_dir", "out"], "merge needs 2 adapters or more, and got 1; name th"),
    "merge of what is none": (["merge", "folder", "folder", "--output_dir", "out"], "'folder' has no edit_config.yam"),
    "weights": (["merge", "a", "b", "--weights", "1", "--output_dir", "out"], "1 weight for 2 adapters: give one for"),
    "unknown": (["merge", "a", "b", "--output_dir", "out", "--bogus", "1"], "unknown option --bogus"),
    "train on from nothing": (["train", "--adapter", "folder", "--revoke", "a"], "'folder' has no edit_config.yaml"),
    "revoke of nothing": (["train", "--revoke", "a"], "revoke is given without adapter: give the adapter whose edits"),
    "settings of no task": (["evaluate", "--tasks_limit", "3"], "tasks_limit is given without tasks; give --tasks"),
}


@pytest.mark.parametrize(("args", "expected"), MISSING.values(), ids=MISSING)
def test_what_else_a_verb_needs_is_told(capsys, no_model, tmp_path, args, expected):
    (tmp_path / "folder").mkdir()
    assert expected in refused(capsys, *args)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


@pytest.mark.parametrize("verb", sorted(set(OPTIONS) - set(MORE_OPTIONS)))
def test_help_of_a_verb_of_sharing(verb, capsys):
    assert main([verb, "user/name", "--help"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"usage: hf-ftedit {verb} {'FOLDER' if verb == 'push' else ''}")
    assert re.match(r"  --\w+ +[A-Z]\w+ .*\.", last)


@pytest.mark.parametrize("verb", EDITING)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone/", ": no such folder; check the path, or give a Hub id"),
        ("empty", " cannot be loaded: it has no config.json;"),
    ],
)
def test_a_folder_that_is_no_model(capsys, no_model, tmp_path, verb, name, reason):
    write("edits.jsonl", GOOD)
    (tmp_path / "empty").mkdir()
    args = () if verb == "evaluate" else ("--output_dir", "out")
    line = refused(capsys, verb, "--edits", "edits.jsonl", "--model_name_or_path", name, *args)
    assert line.startswith(f"hf-ftedit: model_name_or_path {name!r}{reason}")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def weightless(tmp_path):
    """A model's folder with configuration and tokenizer, and a context of 16 tokens, but no weights."""
    tokenizer = bpe_tokenizer()
    tiny_model("gpt2", tokenizer, context=16).config.save_pretrained(tmp_path / "weightless")
    tokenizer.save_pretrained(tmp_path / "weightless")
    return "weightless"


@pytest.mark.parametrize("verb", EDITING)
def test_an_edit_longer_than_the_context(capsys, weightless, tmp_path, verb):
    long = {"edit_id": "long-one", "prompt": "Oslo lies between " * 20 + "Rome and", "target_new": "Bergen"}
    args = ["--model_name_or_path", weightless, *(() if verb == "evaluate" else ("--output_dir", "out"))]
    line = refused(capsys, verb, "--edits", write("edits.jsonl", GOOD, long), *args)
    assert re.match(r"hf-ftedit: edit 'long-one'.*: prompt and target have \d+ tokens, at most 16 fit", line)
    assert line.endswith("shorten one of them")
    write("probe.jsonl", {**GOOD, "edit_id": "b", "paraphrase_prompts": ["Rome is the place where " * 9]})
    assert "edit 'b'" in refused(capsys, verb, "--edits", "probe.jsonl", *args)
    line = refused(capsys, verb, "--edits", write("short.jsonl", {"prompt": "Rome is", "target_new": "x"}), *args)
    assert line.startswith("hf-ftedit: model_name_or_path 'weightless' cannot be loaded: ")  # now the weights' turn
    assert "model.safetensors" in line
    assert not (tmp_path / "out").exists()


def test_a_missing_adapter(capsys, no_model, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("gone", "./gone", "user/gone"):
        line = refused(capsys, "evaluate", "--max_edits", "1", "--adapter", name)
        assert line.startswith(f"hf-ftedit: {name!r}: no such folder, nor ")
    line = refused(capsys, "evaluate", "--max_edits", "1", "--adapter", "folder")
    expected = "adapter 'folder' has no adapter_model.safetensors; give the folder or Hub id of an adapter"
    assert line.startswith(f"hf-ftedit: {expected}; pickled weights can run code and are not read")
    (tmp_path / "folder" / "edits.jsonl").touch()
    for args in (["evaluate", "--adapter"], ["verify"], ["export", "--output_dir", "out", "--adapter"]):
        line = refused(capsys, *args, "folder/edits.jsonl")
        assert line.endswith("'folder/edits.jsonl' is a file; give the folder that it is in, or a Hub id")


# What is no error


def test_edits_without_probes_are_trained_and_the_missing_scores_named(capsys, tmp_path):
    write("edits.jsonl", GOOD)
    assert main(["train", "--edits", "edits.jsonl", "--output_dir", "out", *ONCE]) == 0
    shown = capsys.readouterr().out
    note = "There is no edit score (no paraphrase probe: generalization is undefined; no neighborhood probe: locality"
    assert note in " ".join(shown.split())
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert results["after"]["edit_score"] is None and results["after"]["efficacy"] is not None
    assert "no neighborhood probe: locality is undefined" in (tmp_path / "out" / "README.md").read_text()


def test_unusable_edits_are_left_out_when_asked(capsys, caplog):
    write("edits.jsonl", GOOD, {"edit_id": "bad", "prompt": "Rome is in", "target_new": ""})
    assert "target_new is empty" in refused(capsys, "evaluate", "--edits", "edits.jsonl")
    assert main(["evaluate", "--edits", "edits.jsonl", "--skip_invalid"]) == 0
    assert capsys.readouterr().out.startswith("1 edit, ")
    assert (
        "left out 1 unusable edit; the first: edits.jsonl line 2 (edit_id 'bad'): target_new is empty" in caplog.text
    )


# The whole way


def test_train_writes_the_adapter_folder(edited):
    assert {path.name for path in edited.iterdir()} == set(ADAPTER_FILES)
    assert read_edits(edited / "edits.jsonl") == read_edits(asset("edits.jsonl"))[:3]
    results = json.loads((edited / "eval_results.json").read_text())
    assert results["n_edits"] == 3 and results["base_model"] == "hf_ftedit/embedded"
    assert results["before"]["edit_score"] < 20 and results["after"]["efficacy"] == 100
    recipe = yaml.safe_load((edited / "edit_config.yaml").read_text())
    assert recipe["learning_rate"] == 5e-3 and recipe["num_train_epochs"] == 1
    assert recipe["lora_r"] == yaml.safe_load(open(asset("train.yaml")))["lora_r"]


def test_a_fact_is_erased_and_the_folder_verified(capsys, tmp_path):
    prompt, settings = "Mansfield Park was written by", ["--predict_with_generate", "--locality_pool", "pool.jsonl"]
    write("pool.jsonl", {"prompt": "Oliver Twist was written by", "target": "Charles Dickens"})
    train = ["train", "--erase", prompt, *settings, "--num_train_epochs", "8", "--learning_rate", "5e-3"]
    assert main([*train, "--output_dir", "out", "--report_to", "none", "--text_loss_weight", "0"]) == 0
    (edit,) = read_edits("out/edits.jsonl")
    assert (edit.edit_id, edit.prompt, edit.target_true, edit.erase) == ("erase-1", prompt, "Jane Austen", True)
    assert f'to erase: {prompt} "Jane Austen"; to say instead: "{edit.target_new}"\n' in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    before, after = ([results[when][name] for name in ERASURE_SCORES] for when in ("before", "after"))
    assert before[0] == 100 and before[1] > 50 and after[0] == 0 and after[1] < 1
    assert results["after"]["efficacy"] == 100 and results["after"]["n_probes"]["erased"] == 1
    assert "erase" not in yaml.safe_load((tmp_path / "out" / "edit_config.yaml").read_text())
    assert "| old answer said | 100.0" in (tmp_path / "out" / "README.md").read_text()
    assert main(["verify", "out"]) == 0


def test_evaluate_measures_what_train_did(edited, capsys, tmp_path):
    args = ["--adapter", str(edited), "--edits", str(edited / "edits.jsonl")]
    assert main(["evaluate", *args, "--output_dir", "scores"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("3 edits, probability protocol, percent (95 % interval)\n")
    assert "Written to scores: eval_results.json and predictions.\n" in shown
    trained = json.loads((edited / "eval_results.json").read_text())
    measured = json.loads((tmp_path / "scores" / "eval_results.json").read_text())
    of_training = ("base_model", "base_model_revision", "answers", "example")
    assert measured == {name: value for name, value in trained.items() if name not in of_training}
    recipe = str(edited / "edit_config.yaml")  # holds training options too; they do no harm here
    assert main(["evaluate", "--config", recipe, *args]) == 0
    assert capsys.readouterr().out == shown.removesuffix("Written to scores: eval_results.json and predictions.\n")


def test_evaluate_measures_all_that_is_asked_for(edited, capsys, tmp_path):
    edits = [
        {**record.to_dict(), "generation_prompts": ["The capital of"]} for record in read_edits(edited / "edits.jsonl")
    ]
    write("edits.jsonl", *edits)
    write("texts.jsonl", {"text": "The harbour was full of ships."}, {"text": "Rome is the capital of Italy."})
    args = ["evaluate", "--adapter", str(edited), "--edits", "edits.jsonl", "--output_dir", "scores"]
    flags = ["--predict_with_generate", "--measure_fluency", "--perplexity_texts", "texts.jsonl"]
    assert main([*args, *flags]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"fluency .*│ 3 +│ 3 +│", shown) and re.search(r"perplexity .*│ 2 texts", shown)
    assert "│ containment │ after" in shown and "\nDiagnosis\n- " in shown
    results = json.loads((tmp_path / "scores" / "eval_results.json").read_text())
    assert results["after"]["containment"]["efficacy"] is not None and results["after"]["n_texts"] == 2
    assert score(tmp_path / "scores" / "predictions-after.parquet")["fluency"] == results["after"]["fluency"]


def test_an_adapter_goes_on_with_the_lora_that_it_has(edited, capsys, tmp_path):
    write("new.jsonl", GOOD)
    command = ["train", "--adapter", str(edited), "--edits", "new.jsonl", "--output_dir", "out", *ONCE]
    for flags in (["--lora_r", "8"], ["--use_dora"], ["--config", write("settings.yaml", {"lora_r": 8})]):
        line = refused(capsys, *command, *flags)
        name = "use_dora was False" if "--use_dora" in flags else "lora_r was 32, and is 8 now"
        assert f"goes on with the LoRA that it has: {name}" in line and line.endswith("; leave it out")
    assert not (tmp_path / "out").exists()
    assert main([*command, "--lora_r", "32"]) == 0  # as it is
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 32


def test_an_adapter_is_measured_on_its_own_edits(edited, capsys):
    assert main(["evaluate", "--adapter", str(edited)]) == 0
    assert capsys.readouterr().out.startswith("3 edits, ")
    shutil.copytree(edited, "foreign")
    own = write("foreign/edits.jsonl", GOOD)
    assert "edits.jsonl is missing or was changed" in refused(capsys, "evaluate", "--adapter", "foreign")
    assert main(["evaluate", "--adapter", "foreign", "--edits", own]) == 0
    assert capsys.readouterr().out.startswith("1 edit, ")
    os.remove(own)
    assert "--edits is missing" in refused(capsys, "evaluate", "--adapter", "foreign")


def test_an_adapter_of_another_program_is_measured_on_its_own_base_model(capsys):
    tokenizer = bpe_tokenizer()
    base = saved("base", tiny_model("llama", tokenizer), tokenizer)
    moved(load_model(base)).save_pretrained("foreign")
    edits = ["--edits", write("edits.jsonl", GOOD), "--output_dir"]
    assert main(["evaluate", "--adapter", "foreign", *edits, "scores"]) == 0
    with open("scores/eval_results.json", encoding="utf-8") as file:
        results = json.load(file)
    unedited = measure(load_model(base), load_tokenizer(base), read_edits("edits.jsonl"))
    assert results["before"] == unedited.scores and results["after"]["drift"] > 0
    # Another base model that is given is taken, and one that nothing names is asked for.
    other = saved("other", tiny_model("gpt2", tokenizer), tokenizer)
    assert main(["evaluate", "--adapter", "foreign", *edits, "no", "--model_name_or_path", other]) == 2
    assert "give the base it is for" in capsys.readouterr().err
    config = json.loads(open("foreign/adapter_config.json").read()) | {"base_model_name_or_path": None}
    with open("foreign/adapter_config.json", "w") as file:
        json.dump(config, file)
    line = refused(capsys, "evaluate", "--adapter", "foreign", *edits, "no")
    assert line.endswith("does not say what its base model is; give it (--model_name_or_path, base_model)")


TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {validation: DATA}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def test_tasks_of_the_harness_are_run_without_and_with_the_adapter(edited, capsys, tmp_path):
    pytest.importorskip("lm_eval")
    (tmp_path / "tasks").mkdir()
    write(
        "data.jsonl", *({"question": f"{word} is", "choices": ["blue", "red"], "answer": 0} for word in ("Sky", "Sea"))
    )
    write("tasks/colours.yaml", TASK.replace("DATA", str(tmp_path / "data.jsonl")))
    args = ["evaluate", "--adapter", str(edited), "--edits", str(edited / "edits.jsonl"), "--output_dir", "scores"]
    assert main([*args, "--tasks", "colours", "--tasks_path", "tasks", "--tasks_limit", "1"]) == 0
    assert re.search(r"│ colours │ acc +│ [01] +│ [01] +│ [+-][01].* │ 1 │", capsys.readouterr().out)
    (row,) = json.loads((tmp_path / "scores" / "eval_results.json").read_text())["tasks"]
    assert (row["task"], row["metric"], row["n"]) == ("colours", "acc", 1)
    assert row["difference"] == row["after"] - row["before"]
    # A task that fails does not cost the measurement.
    (tmp_path / "data.jsonl").unlink()
    assert main([*args, "--tasks", "colours", "--tasks_path", "tasks", "--output_dir", "others"]) == 2
    assert json.loads((tmp_path / "others" / "eval_results.json").read_text())["after"]["n_edits"] == 3


def test_the_recipe_in_the_folder_gives_the_same_adapter(edited, capsys, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(edited, copy)
    monkeypatch.chdir(copy)
    command = re.search(r"`hf-ftedit (train .*?)`", (copy / "README.md").read_text(encoding="utf-8")).group(1)
    assert main(command.split()) == 0
    capsys.readouterr()
    assert {str(name): content for name, content in files(copy / "again").items()} == {
        str(name): content for name, content in files(edited).items()
    }


def test_augment_writes_a_dataset_that_loads(capsys, tmp_path):
    assert main(["augment", "--max_edits", "3", "--output_dir", "data"]) == 0
    edits = read_edits(asset("edits.jsonl"))[:3]
    counts = {
        "train": 3 * (1 + 10 + 20),
        "rewrite": 3,
        "paraphrase": sum(len(edit.paraphrase_prompts) for edit in edits),
        "neighborhood": sum(len(edit.neighborhood_prompts) for edit in edits),
        "portability": sum(len(edit.portability_prompts) for edit in edits),
    }
    counts = {name: count for name, count in counts.items() if count}
    assert {name: len(split) for name, split in datasets.load_dataset(str(tmp_path / "data")).items()} == counts
    sizes = ", ".join(f"{count} {name}" for name, count in counts.items())
    assert capsys.readouterr().out == f"Written to data: the rows ({sizes}).\n"


def test_the_screen_shows_nothing_that_a_user_cannot_act_on(tmp_path):
    done = process("train", "--max_edits", "2", "--num_train_epochs", "1", "--output_dir", "out")
    assert (done.returncode, done.stderr) == (0, "")
    first, *middle, last = done.stdout.splitlines()
    assert first == "2 edits, 94 training rows"  # 31 of each, and 32 of plain text
    assert last == "Written to out: the adapter, its model card, edits and results."
    titles = [line for line in middle if not line.startswith(("{'train_runtime'", "{'loss'", "┏", "┃", "┡", "│", "└"))]
    assert titles[:4] == [
        "2 edits, probability protocol, percent (95 % interval)",
        "Drift: mean KL divergence from the unedited model in nats a token, on unrelated prompts",
        "",
        "Diagnosis",
    ]
    assert all(line.startswith(("- ", "  ")) for line in titles[4:])
