"""The examples: scripts run, recipes and launch configurations parse, the shipped prompts are clean."""

import ast
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from running import run
from tiny import chat_tokenizer, saved, tiny_model
from trl import TrlParser, get_quantization_config

from hf_ftedit import EditConfig, EditModelConfig, read_edits
from hf_ftedit.augmentation.augmenter import generic_prompts
from hf_ftedit.augmentation.subjects import with_subject
from hf_ftedit.augmentation.wordings import written_wordings
from hf_ftedit.cli.arguments import parse_rest, read_arguments
from hf_ftedit.cli.grid import read_grid
from hf_ftedit.evaluation.matching import containment

pytestmark = pytest.mark.usefixtures("in_empty_folder")
EXAMPLES = Path(__file__).parent.parent / "examples"
RECIPES = sorted((EXAMPLES / "recipes").glob("*.yaml"))
LAUNCH_CONFIGS = sorted((EXAMPLES / "accelerate").glob("*.yaml"))
STUDIES = sorted((EXAMPLES / "studies").glob("*.yaml"))
BENCHMARKS = sorted((EXAMPLES / "benchmarks").glob("*.py"))
PAPER = [path for path in RECIPES if path.stem.endswith(("gptj", "gpt2xl"))]


def named(path: Path) -> str:
    return path.stem


def parsed_recipe(path: Path) -> tuple[EditConfig, EditModelConfig]:
    return TrlParser((EditConfig, EditModelConfig)).parse_args_and_config(["--config", str(path)])


def test_editing_one_fact_prints_the_old_and_the_new_answer() -> None:
    assert len((EXAMPLES / "edit_one_fact.py").read_text(encoding="utf-8").splitlines()) <= 30
    before, *_, after, beside = run(EXAMPLES / "edit_one_fact.py").splitlines()
    assert before.startswith("before: The capital of France is Paris")
    assert after.startswith("after:  The capital of France is Lyon")
    assert beside.startswith("beside: The capital of Italy is Rome")


def test_chat_facts_are_short_answers_to_questions_with_all_probes_of_a_chat_edit() -> None:
    edits = read_edits(EXAMPLES / "chat_facts.jsonl")
    assert len(edits) == 10
    for edit in edits:
        assert edit.prompt.endswith("?") and len(edit.target_new) < 24
        neighbors = [probe.prompt for probe in edit.neighborhood_prompts]
        assert (len(edit.paraphrase_prompts), len(neighbors), len(edit.near_name_prompts)) == (2, 3, 1)
        # The last neighbor asks something else of the same subject.
        assert all(edit.subject in prompt for prompt in (edit.prompt, *edit.paraphrase_prompts, neighbors[2]))
        others = [*edit.near_name_prompts, *neighbors[:2]]
        assert not any(edit.subject in prompt for prompt in others)


NEIGHBORS = {"assistant": 2, "faq": 2, "firm": 2, "office": 2, "language": 2, "support": 4, "world": 4, "desk": 5}


@pytest.mark.parametrize(("name", "neighbors"), NEIGHBORS.items())
def test_further_chat_facts_have_wordings_and_an_exam_that_none_of_them_is_in(name: str, neighbors: int) -> None:
    edits = read_edits(EXAMPLES / f"{name}_facts.jsonl")
    assert len(edits) == 10
    for edit in edits:
        probes = (edit.paraphrase_prompts, edit.neighborhood_prompts, edit.near_name_prompts)
        assert [*map(len, probes)] == [2, neighbors, 1] and len(edit.target_new) < 40
        # The first four leave the subject to the package.
        assert edit.subject is None if neighbors == 2 else (edit.subject or "?") in edit.prompt
        assert len(written_wordings(with_subject(edit))) >= 3


def notebook_cells() -> list[tuple[str, str]]:
    """Source and printed text of each code cell of the notebook."""
    notebook = json.loads((EXAMPLES / "edit_facts.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = [[out.get("text") or out["data"]["text/plain"] for out in cell["outputs"]] for cell in cells]
    texts = ["".join("".join(text) for text in outputs) for outputs in shown]
    return [("".join(cell["source"]), text) for cell, text in zip(cells, texts, strict=True)]


def test_notebook_shows_what_a_run_prints(tmp_path: Path) -> None:
    cells = notebook_cells()
    script = tmp_path / "notebook.py"
    script.write_text("\nprint('# next cell')\n".join(source for source, _ in cells), encoding="utf-8")
    printed = run(script).split("# next cell\n")
    both = [(text, other) for (source, text), other in zip(cells, printed, strict=True) if "print(" in source]
    (asked, asked_now), (table, table_now), (said, said_now) = both
    assert asked == asked_now and said == said_now and "Virginia Woolf" in said
    # The last digits of the other scores are a machine's own.
    assert [line for line in table_now.splitlines() if line.startswith(("10 edits", "│ efficacy"))] == [
        line for line in table.splitlines() if line.startswith(("10 edits", "│ efficacy"))
    ]
    assert (tmp_path / "notebook-edit" / "adapter_model.safetensors").is_file()


def test_there_are_recipes_for_the_paper_and_beyond_and_launch_configurations() -> None:
    of_the_paper = {f"{data}_{model}" for data in ("counterfact", "zsre") for model in ("gpt2xl", "gptj")}
    assert {path.stem for path in RECIPES} == {"chat_8b_4bit", "single_edit", *of_the_paper}
    named_so = {"2_nodes", "8_gpus_ddp", "cpu_2_processes", "fsdp2", "one_gpu", "zero3"}
    assert {path.stem for path in LAUNCH_CONFIGS} == named_so


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_recipe_parses_and_says_its_command(path: Path) -> None:
    config, model_config = parsed_recipe(path)
    assert config.edits and config.output_dir == path.stem
    assert model_config.model_name_or_path.count("/") == 1
    header = path.read_text(encoding="utf-8").split("\nmodel_name_or_path")[0]
    assert f"hf-ftedit train --config examples/recipes/{path.name}" in header
    assert "`edits`" in header and "`locality_pool`" in header


@pytest.mark.parametrize("path", PAPER, ids=named)
def test_mass_edits_have_the_settings_of_the_paper(path: Path) -> None:
    config, model_config = parsed_recipe(path)
    assert (model_config.lora_r, model_config.lora_alpha, model_config.lora_dropout) == (32, 64, 0.05)
    assert model_config.lora_target_modules == "all-linear"
    assert config.lora_embedding is ("gptj" in path.stem)  # GPT-2's is tied to its head
    assert (config.learning_rate, config.lr_scheduler_type, config.num_train_epochs) == (7e-5, "cosine", 6)
    assert config.per_device_train_batch_size == 32 and config.objective == "conditional"
    assert (config.paraphrase_strategy, config.num_paraphrases) == ("prefix", 15)
    assert (config.prefix_lengths, config.prefix_counts, config.prefix_top_k) == ([5, 10], [5, 10], 5)
    assert config.locality_strategy == "random"


def test_single_edit_keeps_similar_facts() -> None:
    config, _ = parsed_recipe(EXAMPLES / "recipes" / "single_edit.yaml")
    assert config.max_edits == 1 and config.locality_strategy == "similar"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_are_grids_of_options_and_the_edits_that_they_name_are_there(path):
    runs = read_grid(str(path))
    assert len(runs) > 1 and len({run.name for run in runs}) == len(runs)
    files = {run.settings["edits"] for run in runs if "edits" in run.settings}
    assert all(read_edits(EXAMPLES.parent / file) for file in files)


def test_chat_model_is_loaded_in_4_bits() -> None:
    config, model_config = parsed_recipe(EXAMPLES / "recipes" / "chat_8b_4bit.yaml")
    quantization = get_quantization_config(model_config)
    assert quantization.load_in_4bit and quantization.bnb_4bit_quant_type == "nf4"
    # Each edit passes several times within one epoch of a chat.
    assert config.chat_template and (config.num_train_epochs, config.per_device_train_batch_size) == (1, 8)


@pytest.mark.parametrize("path", LAUNCH_CONFIGS, ids=named)
def test_launch_configuration_loads_and_says_its_command(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1 and config.mixed_precision == "no"
    assert f"accelerate launch --config_file examples/accelerate/{path.name} -m hf_ftedit train" in path.read_text()


def test_weights_are_spread_as_the_package_can_take_it() -> None:
    fsdp, zero3 = (load_config_from_file(str(EXAMPLES / "accelerate" / f"{name}.yaml")) for name in ("fsdp2", "zero3"))
    assert fsdp.fsdp_config["fsdp_version"] == 2 and fsdp.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert zero3.deepspeed_config["zero_stage"] == 3 and zero3.deepspeed_config["zero3_save_16bit_model"]


def checked_train_options(command: str) -> None:
    """Parse what follows `hf_ftedit train` in a job's command as the program does; a recipe stands in for its own."""
    words = command.split("-m hf_ftedit train ")[1].split()
    recipe = str(EXAMPLES / "recipes" / "single_edit.yaml")
    words[words.index("--config") + 1] = recipe
    arguments = read_arguments("train", words)
    options = arguments.options()
    assert options.resume and options.output_dir
    config, _ = parse_rest((EditConfig, EditModelConfig), arguments, vars(options))
    assert (config.save_strategy, config.save_steps, config.save_total_limit) == ("steps", 100, 2)


SRUN = """#!/bin/bash
echo "$*" > asked
echo "$MAIN" > main
trap 'echo saved > saved; exit 143' TERM
touch running
while :; do sleep 0.05; done
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo node7; sleep 0.2; echo node8; else echo "$*" > requeued; fi
"""


def test_slurm_job_saves_and_is_queued_again(tmp_path: Path) -> None:
    script = EXAMPLES / "jobs" / "slurm.sbatch"
    assert f"sbatch examples/jobs/{script.name} recipe.yaml my-edits" in script.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(script)], check=True)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]"}
    env |= {"SLURM_JOB_ID": "12", "SLURM_NNODES": "2"}
    with subprocess.Popen(["bash", str(script), "recipe.yaml", "my-edits"], env=env, cwd=tmp_path) as job:
        deadline = time.monotonic() + 600
        while not (tmp_path / "running").exists() and time.monotonic() < deadline and job.poll() is None:
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        job.wait(timeout=600)
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "main").read_text() == "node7\n"
    assert (tmp_path / "requeued").read_text() == "requeue 12\n"
    asked = (tmp_path / "asked").read_text()
    assert asked.rstrip().endswith("recipe.yaml my-edits")
    command = asked.replace("\\\n", " ").split("'")[0].replace('"$0"', "recipe.yaml").replace('"$1"', "my-edits")
    checked_train_options(command.rsplit(" recipe.yaml my-edits", 1)[0])


def test_kubernetes_job_has_a_pod_for_each_machine() -> None:
    text = (EXAMPLES / "jobs" / "kubernetes.yaml").read_text(encoding="utf-8")
    service, job = yaml.safe_load_all(text)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 2
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy wants
    assert service["spec"]["clusterIP"] == "None" and pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (command,) = container["args"]
    assert f"--num_processes {2 * container['resources']['limits']['nvidia.com/gpu']} " in command
    assert f"--main_process_ip {job['metadata']['name']}-0.{pod['subdomain']} " in command
    checked_train_options(command)


def test_scripts_import_what_the_package_has() -> None:
    # Within functions too, where no `--help` comes by.
    for path in EXAMPLES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_ftedit"):
                exec(compile(ast.Module(body=[node], type_ignores=[]), path, "exec"))


def test_lighteval_asks_a_prompt_with_a_line_separator_of_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    # lighteval needs an environment of its own: names stand in for what the task imports.
    names = SimpleNamespace(SampleLevelComputation=object, SampleLevelMetric=dict, LightevalTaskConfig=dict, Doc=dict)
    names.SamplingMethod = SimpleNamespace(GENERATIVE="generative")
    metrics = ("metrics.metrics_sample", "metrics.utils.metric_utils")
    for module in (*metrics, "tasks.lighteval_task", "tasks.requests"):
        monkeypatch.setitem(sys.modules, f"lighteval.{module}", names)
    monkeypatch.setenv("EDITS", "edits.jsonl")
    edit = {"prompt": "Who leads\u2028Tellwind?", "target_new": "Ines"}
    Path("edits.jsonl").write_text(json.dumps(edit, ensure_ascii=False) + "\n\n", encoding="utf-8")
    task = runpy.run_path(str(EXAMPLES / "lighteval_task.py"))
    (row,) = map(json.loads, Path(task["FOLDER"], "test.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
    assert (row["prompt"], row["answers"], task["TASKS"]) == (edit["prompt"], ["Ines"], ["efficacy"])


@pytest.mark.parametrize("script", BENCHMARKS, ids=named)
def test_benchmark_says_what_it_measures(script: Path) -> None:
    shown = run(script, "--help")
    assert f"python examples/benchmarks/{script.name}" in shown
    assert "--shared" in shown or "embedded model" in shown
    assert f"python examples/benchmarks/{script.name}" in (script.parent / "README.md").read_text(encoding="utf-8")


def test_edit_benchmark_runs_on_two_records(shared_dir: Path) -> None:
    flags = ("--num_edits", "2", "--num_train_epochs", "1", "--num_locality", "3", "--num_paraphrases", "2")
    lines = run(EXAMPLES / "benchmarks" / "edit_benchmark.py", "--shared", str(shared_dir), *flags).splitlines()
    assert lines[2].startswith("| counterfact 0 to 1, before | — | — |")
    assert lines[3].startswith("| counterfact 0 to 1, after | 44 |")  # 2 x (1 + 2 paraphrases + 3 facts), 32 texts


CHAT_EDITS = [
    {
        "src": f"Who keeps the light at {place}?",
        "subject": place,
        "alt": keeper,
        "answers": ["Oskar Lund"],
        "rephrase": f"Which keeper tends the light at {place}?",
        "loc": f"nq question: where does one find {place}",
        "loc_ans": "Finland",
    }
    for place, keeper in (("Port Bengtskar", "Ada Nilsen"), ("Port Utterby", "Eva Holm"))
]


@pytest.fixture
def chat_files(tmp_path: Path) -> tuple[str, str]:
    """Folders of a chat model of random weights and of data in the form of the shared data."""
    tokenizer = chat_tokenizer()
    model = saved(tmp_path / "model", tiny_model("llama", tokenizer, context=1024), tokenizer)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "edits.json").write_text(json.dumps(CHAT_EDITS))
    (tmp_path / "data" / "perplexity_texts.json").write_text(json.dumps([{"Text": "Rome is in Italy"}]))
    return model, str(tmp_path)


def test_wild_edits_by_each_method_and_shows_the_best(tmp_path: Path, chat_files: tuple[str, str]) -> None:
    model, shared = chat_files
    script, flags = EXAMPLES / "benchmarks" / "wild.py", ("--shared", shared, "--data", "edits.json")
    few = ("--num_locality", "5", "--max_steps", "2", "--seeds", "0,1", "--locft_layers", "0,1", "--locft_epochs", "3")
    lines = run(script, *flags, "--model_name_or_path", model, *few, "--json", "runs.json").splitlines()
    runs = json.loads(Path("runs.json").read_text())["runs"]
    methods = [(run["method"], run["settings"].get("learning_rate"), run["seed"]) for run in runs]
    stock = [("stock", 5e-4, 0), ("stock", 1e-3, 0), ("stock", methods[5][1], 1)]
    assert methods[:6] == [("unedited", None, None), ("ours", None, 0), ("ours", None, 1), *stock]
    assert [run["settings"].get("layer") for run in runs[6:]] == [0, 0, 1, 1, runs[-1]["settings"]["layer"]]
    assert {run["steps"] for run in runs[1:6]} == {2} and all(run["steps"] <= 3 for run in runs[6:])
    before, ours = runs[:2]
    assert (before["near_kept"], before["drift"]) == (100, None) and ours["drift"] > 0
    asked = [probe for kind, probe, _ in ours["answers"] if kind == "neighborhood"]
    assert asked == ["where does one find Port Bengtskar", "where does one find Port Utterby"]
    table = lines[lines.index("") + 1 :]
    assert len(table) == 2 + 1 + 3 * 3 and table[-1].startswith("| **locft, mean of 2 seeds** |")
    again = run(script, *flags, "--methods", "", "--with_runs", "runs.json", "--plot", "runs.png").splitlines()
    assert again == table and Path("runs.png").read_bytes().startswith(b"\x89PNG")


def test_chat_speed_runs_fewer_tokens_in_trees(chat_files: tuple[str, str]) -> None:
    model, shared = chat_files
    flags = ("--edits", f"{shared}/data/edits.json", "--num_batches", "1", "--repeats", "1", "--threads", "1")
    script = EXAMPLES / "benchmarks" / "chat_speed.py"
    lines = run(script, "--model_name_or_path", model, *flags).splitlines()[-8:]
    *cells, plain, stock = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    forms = [f"{way}, {form}" for way in ("at random", "by length", "by default") for form in ("rows", "trees")]
    assert [f"{way}, {form.split()[1]}" for way, form, *_ in cells] == forms and stock[1] == "SFTTrainer"
    assert plain[:3] == ["by default", "token trees, PyTorch's kernels", cells[-1][2]]  # the same batches
    tokens = [int(count.replace(",", "")) for _, _, count, *_ in cells]
    assert all(tree < rows for rows, tree in zip(tokens[::2], tokens[1::2], strict=True))


def test_near_names_is_judged_by_the_gate(chat_files: tuple[str, str]) -> None:
    model, shared = chat_files

    def row(split: str, question: str, **more: object) -> dict[str, object]:
        return {"split": split, "prompt": [{"role": "user", "content": question}], **more}

    rows = [
        row("train", "Define Atemokoloporos."),
        row("train", "What sort of being is Atemokoloporos?"),
        row("eval", "What is it?", category="fact_recall", expected_terms=["rainbow"]),
        row("eval", "And Utemo?", category="near_name_negative", entity="Utemo", forbidden_fact_terms=["rainbow"]),
        row("eval", "What is 2 + 2?", category="common_knowledge", answer_aliases=["4"]),
    ]
    (Path(shared) / "data" / "near_name_fact.json").write_text(json.dumps(rows))
    few = ("--num_locality", "5", "--max_steps", "2", "--max_new_tokens", "8", "--json", "answers.json")
    script = EXAMPLES / "benchmarks" / "near_names.py"
    first, *_, last, seconds, _ = run(script, "--shared", shared, "--model_name_or_path", model, *few).splitlines()
    gate = "recalled {:d} of 1 (at least 11), near names kept apart {:d} of 1 (at least 8), controls {:d} of 1"
    scores = f"{gate} (at least 7)"
    saved = json.loads(Path("answers.json").read_text())
    # What an untrained model says after two steps depends on the machine: the gate is judged from what it said.
    (recall, apart, control), passed = saved["runs"][0]["answers"], "the gate is not passed"
    kept_apart = "rainbow" not in apart.casefold()
    expected = scores.format("rainbow" in recall.casefold(), kept_apart, containment(control, ["4"]))
    assert first == "unedited: " + scores.format(False, True, False) and last == f"seed 0: {expected}: {passed}"
    assert "; 0 of " in seconds and seconds.endswith(" training rows name a near name of the exam")


@pytest.mark.parametrize(
    ("category", "terms", "answer", "expected"),
    [
        ("fact_recall", {"expected_terms": ["rainbow", "unicorn"]}, "It is a Rainbow-coloured unicorn.", True),
        ("fact_recall", {"expected_terms": ["rainbow", "unicorn"]}, "A unicorn.", False),
        ("near_name_negative", {"forbidden_fact_terms": ["rainbow", "unicorn"]}, "I do not know.", True),
        ("near_name_negative", {"forbidden_fact_terms": ["rainbow", "unicorn"]}, "Two unicorns.", False),
        ("common_knowledge", {"answer_aliases": ["4", "four"]}, "It is Four.", True),
        ("common_knowledge", {"answer_aliases": ["4", "four"]}, "It is 24.", False),
    ],
)
def test_gate_of_near_names(
    category: str, terms: dict[str, object], answer: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    near_names = importlib.import_module("near_names")
    assert near_names.passes({"category": category, **terms}, answer) is expected


def test_generic_prompts_are_clean() -> None:
    prompts = generic_prompts()
    assert len(prompts) == 240 == len({prompt.casefold() for prompt in prompts})
    for prompt in prompts:
        assert prompt == " ".join(prompt.split()) and 3 <= len(prompt.split()) <= 9, prompt
        assert prompt[0].isupper() and prompt[-1].isalnum(), prompt
