import json
import logging
import os
import random
import re
import sys
from math import exp, sqrt

import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from tiny import bpe_tokenizer, chat_tokenizer, tiny_model

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.lm_eval_harness import check_tasks, run_tasks, task_changes
from hf_ftedit.models.loading import load_model, load_tokenizer

DOCS = [
    {"question": "Emma was written by", "choices": ["Jane Austen", "Virginia Woolf", "Italy"], "label": 0},
    {"question": "The writer of Emma was", "choices": ["Italy", "Jane Austen"], "label": 1},
    {"question": "Rome is in", "choices": ["Italy", "France", "the very old town of Oslo"], "label": 2},
    {"question": "Oslo is in", "choices": ["Norway", "France"], "label": 1},
    {"question": "The writer of Persuasion was", "choices": ["Jane Austen", "Virginia Woolf"], "label": 0},
]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{label}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
LAST = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{question}}",
    "doc_to_target": " {{choices[label]}}",  # here, lm-eval puts nothing between the two
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}
ANSWER = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[label]}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}],
    "filter_list": [
        {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
        for name, pattern in {"one-word": r"(\w+)", "names": r"((?:[A-Z]\w+ ?)+)"}.items()
    ],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    """A folder with the tasks `choice`, `last` and `answer`, all of the same samples."""
    pytest.importorskip("lm_eval")
    data = tmp_path / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    path = tmp_path / "tasks"
    path.mkdir()
    for name, task in {"choice": CHOICE, "last": LAST, "answer": ANSWER}.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        (path / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **source, **task}))
    return path


@torch.no_grad()
def edited(model, target_modules="all-linear", **layers):
    """`model` with a random adapter that makes a difference."""
    torch.manual_seed(1)
    peft = get_peft_model(model, LoraConfig(target_modules=target_modules, r=4, **layers)).eval()
    for weight in peft.parameters():
        if weight.requires_grad:
            weight += 0.2 * torch.randn_like(weight)
    return peft


@torch.no_grad()
def logprob(model, tokenizer, prompt, answer):
    """Log-probability of an answer, and whether it is the greedy one: by one plain forward pass."""
    prompt, whole = (tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {answer}"))
    logprobs = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    places = range(len(prompt), len(whole))
    greedy = all(int(logprobs[place - 1].argmax()) == whole[place] for place in places)
    return sum(float(logprobs[place - 1, whole[place]]) for place in places), greedy


def accuracies(model, tokenizer):
    """Of each sample: whether the gold choice is the most likely one, and the most likely one by character."""
    plain, normalized = [], []
    for doc in DOCS:
        values = np.array([logprob(model, tokenizer, doc["question"], choice)[0] for choice in doc["choices"]])
        plain.append(int(values.argmax()) == doc["label"])
        normalized.append(int((values / [len(choice) for choice in doc["choices"]]).argmax()) == doc["label"])
    return plain, normalized


def standard_error(values):
    return np.std(values, ddof=1) / sqrt(len(values))


@pytest.mark.parametrize("tiny", [False, True])
def test_accuracy_is_that_of_the_models_own_likelihoods(folder, tiny):
    tokenizer = bpe_tokenizer() if tiny else load_tokenizer(None)
    model = tiny_model("gpt2", tokenizer) if tiny else load_model(None)
    plain, normalized = accuracies(model, tokenizer)
    assert run_tasks(model, tokenizer, ["choice"], include_path=folder, batch_size=3) == {
        "choice": {
            "acc": pytest.approx(np.mean(plain)),
            "acc_stderr": pytest.approx(standard_error(plain)),
            "acc_norm": pytest.approx(np.mean(normalized)),
            "acc_norm_stderr": pytest.approx(standard_error(normalized)),
            "n": 5,
        }
    }


def test_perplexity_is_that_of_the_models_own_likelihoods(folder):
    model, tokenizer = load_model(None), load_tokenizer(None)
    found = [logprob(model, tokenizer, doc["question"], doc["choices"][doc["label"]]) for doc in DOCS]
    values, greedy = zip(*found, strict=True)
    scores = run_tasks(model, tokenizer, ["last", "choice"], include_path=str(folder))
    assert list(scores) == ["last", "choice"]
    assert scores["last"]["perplexity"] == pytest.approx(exp(-np.mean(values)), rel=1e-4)
    assert scores["last"]["acc"] == pytest.approx(np.mean(greedy))
    rng = random.Random(0)
    resampled = [exp(-np.mean(rng.choices(values, k=5))) for _ in range(1000)]
    assert scores["last"]["perplexity_stderr"] == pytest.approx(np.std(resampled, ddof=1), rel=1e-3)


def test_generated_answers_are_scored_by_filter(folder):
    model, tokenizer = load_model(None), load_tokenizer(None)
    words, names = [], []
    for doc in DOCS:
        ids = tokenizer(doc["question"], return_tensors="pt")["input_ids"]
        text = tokenizer.decode(model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :])
        words.append(text.split(".")[0].split()[0] == doc["choices"][doc["label"]])
        names.append(text.split(".")[0].strip() == doc["choices"][doc["label"]])
    assert 0 == sum(words) < sum(names) < 5
    scores = run_tasks(model, tokenizer, ["answer"], include_path=folder, batch_size=2)["answer"]
    assert scores == {
        "exact_match (one-word)": pytest.approx(np.mean(words)),
        "exact_match (one-word)_stderr": pytest.approx(standard_error(words)),
        "exact_match (names)": pytest.approx(np.mean(names)),
        "exact_match (names)_stderr": pytest.approx(standard_error(names)),
        "n": 5,
    }


@pytest.mark.parametrize("settings", [{}, {"num_fewshot": 2, "limit": 3}, {"num_fewshot": 1, "chat_template": True}])
def test_scores_are_those_of_lm_evals_own_run(folder, settings):
    for file in folder.iterdir():
        file.write_text(file.read_text() + "fewshot_split: test\n")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tokenizer, tasks = chat_tokenizer(), ["answer", "choice", "last"]
    model = tiny_model("llama", tokenizer)
    found = run_tasks(model, tokenizer, tasks, include_path=folder, batch_size=2, seed=7, **settings)
    expected = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2),
        tasks=tasks,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        apply_chat_template=settings.get("chat_template", False),
        num_fewshot=settings.get("num_fewshot"),
        limit=settings.get("limit"),
        **{f"{name}_seed": 7 for name in ("random", "numpy_random", "torch_random", "fewshot_random")},
    )["results"]
    assert list(found) == list(expected)
    for task, metric, key in [("choice", "acc", "acc,none"), ("last", "perplexity", "perplexity,none")]:
        assert found[task][metric] == pytest.approx(expected[task][key])
    assert found["answer"]["exact_match (names)"] == expected["answer"]["exact_match,names"]


def test_an_adapter_counts_only_where_it_is_on(folder):
    tokenizer = load_tokenizer(None)
    tasks = {"tasks": ["last", "choice", "answer"], "include_path": folder}
    base = run_tasks(load_model(None), tokenizer, **tasks)
    model = edited(load_model(None))
    with model.disable_adapter():
        off = run_tasks(model, tokenizer, **tasks)
    on = run_tasks(model, tokenizer, **tasks)
    merged = run_tasks(model.merge_and_unload(), tokenizer, **tasks)
    assert {task: pytest.approx(scores, rel=1e-4) for task, scores in base.items()} == off
    assert {task: pytest.approx(scores, rel=1e-3) for task, scores in merged.items()} == on
    assert on["last"]["perplexity"] > 1.5 * off["last"]["perplexity"]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    "layers",
    [
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [5]},
    ],
)
def test_adapters_on_tied_weights_stay_as_they_are(folder, layers):
    tokenizer = load_tokenizer(None)
    model = edited(load_model(None), **layers)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    values = [logprob(model, tokenizer, doc["question"], doc["choices"][doc["label"]])[0] for doc in DOCS]
    scores = run_tasks(model, tokenizer, ["last"], include_path=folder)
    assert scores["last"]["perplexity"] == pytest.approx(exp(-np.mean(values)), rel=1e-3)
    assert set(model.state_dict()) == set(weights)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert "tie_weights" not in vars(model)


def test_state_is_restored_and_nothing_is_printed(folder, tmp_path, monkeypatch, capfd):
    tokenizer = bpe_tokenizer(eos_token="<|endoftext|>")
    model = edited(tiny_model("llama", tokenizer))
    model.train()
    modes = [module.training for module in model.modules()]
    trained = [parameter.requires_grad for parameter in model.parameters()]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = len(tokenizer)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("DISABLE_MULTIPROC", "")
    logger = logging.getLogger("lm_eval")
    monkeypatch.setattr(logger, "level", logging.INFO)

    def draw():
        return random.random(), np.random.rand(), float(torch.rand(()))

    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(5)
    expected = draw()
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(5)
    run_tasks(model, tokenizer, ["choice", "last", "answer"], include_path=folder)
    assert draw() == expected
    assert [module.training for module in model.modules()] == modes and model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert (tokenizer.pad_token, len(tokenizer)) == (None, tokens)
    assert (os.environ["DISABLE_MULTIPROC"], logger.level) == ("", logging.INFO)
    assert list(work.iterdir()) == []
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.replace("\r", "\n").splitlines() if line.strip()]
    assert [line for line in lines if not re.search(r"(it|examples)/s\]$", line)] == []


def test_limit_and_number_of_samples(folder):
    model, tokenizer = load_model(None), load_tokenizer(None)
    plain, _ = accuracies(model, tokenizer)
    for limit, count in ((2, 2), (0.5, 3), (100, 5)):
        scores = run_tasks(model, tokenizer, ["choice"], include_path=folder, limit=limit)["choice"]
        assert (scores["n"], scores["acc"]) == (count, pytest.approx(np.mean(plain[:count])))
    one = run_tasks(model, tokenizer, ["choice"], include_path=folder, limit=1)["choice"]
    assert one["acc_stderr"] is None


def test_groups_are_flattened_and_tasks_given_twice_are_run_once(folder):
    group = {"group": "both", "task": ["choice", "last"], "aggregate_metric_list": [{"metric": "acc"}]}
    (folder / "both.yaml").write_text(yaml.safe_dump(group))
    (folder / "bare.yaml").write_text(yaml.safe_dump({"group": "bare", "task": ["answer"]}))
    model, tokenizer = load_model(None), load_tokenizer(None)
    scores = run_tasks(model, tokenizer, ["both", "bare", "bare"], include_path=folder)
    assert list(scores) == ["choice", "last", "answer", "both"]
    apart = run_tasks(model, tokenizer, ["last", "choice", "last"], include_path=folder)
    assert {task: scores[task] for task in apart} == apart
    assert scores["both"]["n"] == 10
    assert scores["both"]["acc"] == pytest.approx((apart["choice"]["acc"] + apart["last"]["acc"]) / 2)
    with pytest.raises(
        EditError, match="^unknown task 'chioce'; did you mean 'choice'[?] no valid YAML file in --task"
    ):
        check_tasks(["both", "chioce"], include_path=folder)
    with pytest.raises(EditError, match="^lm-eval cannot run both, choice: ValueError: Duplicate task 'choice'"):
        run_tasks(model, tokenizer, ["both", "choice"], include_path=folder)


def test_examples_are_drawn_by_seed(folder):
    task = yaml.safe_load((folder / "last.yaml").read_text())
    (folder / "last.yaml").write_text(yaml.safe_dump(task | {"fewshot_split": "test"}))
    model, tokenizer = load_model(None), load_tokenizer(None)

    def perplexity(**settings):
        return run_tasks(model, tokenizer, ["last"], include_path=folder, **settings)["last"]["perplexity"]

    assert perplexity(num_fewshot=2, seed=1) == perplexity(num_fewshot=2, seed=1)
    assert len({perplexity(num_fewshot=2, seed=1), perplexity(num_fewshot=2, seed=2), perplexity()}) == 3


@torch.no_grad()
def test_chat_template_is_that_of_the_tokenizer(folder):
    tokenizer = chat_tokenizer()
    model = tiny_model("llama", tokenizer)
    values = []
    for doc in DOCS:
        messages = [{"role": "user", "content": doc["question"]}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        whole = tokenizer(f"{text} {doc['choices'][doc['label']]}")["input_ids"]
        ids = tokenizer(text.rstrip())["input_ids"]  # lm-eval takes the last line break for a part of the answer
        logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        values.append(sum(float(logprobs[place - 1, whole[place]]) for place in range(len(ids), len(whole))))
    scores = run_tasks(model, tokenizer, ["last"], include_path=folder, chat_template=True)
    assert scores["last"]["perplexity"] == pytest.approx(exp(-np.mean(values)), rel=1e-4)
    with pytest.raises(EditError, match=r"^lm-eval cannot run last: ValueError: .*chat_template"):
        run_tasks(model, bpe_tokenizer(), ["last"], include_path=folder, chat_template=True)


def test_batches_that_do_not_fit_are_halved(folder, monkeypatch):
    model, tokenizer = load_model(None), load_tokenizer(None)
    expected = run_tasks(model, tokenizer, ["choice"], include_path=folder, batch_size=1)
    sizes, forward = [], model.forward

    def short_of_memory(input_ids, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", short_of_memory)
    found = run_tasks(model, tokenizer, ["choice"], include_path=folder, batch_size=8)
    assert sizes[:3] == [8, 4, 2] and max(sizes[2:]) == 2
    assert found["choice"] == pytest.approx(expected["choice"])


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"dataset_kwargs": {"data_files": {"test": "nowhere.jsonl"}}}, "FileNotFoundError: Unable to find"),
        ({"dataset_path": "no_such/dataset", "dataset_kwargs": {}}, ".*no_such/dataset"),
        ({"test_split": "train"}, "KeyError: 'train'"),
        ({"doc_to_text": "{{questions}}"}, "UndefinedError: 'questions' is undefined"),
    ],
)
def test_what_a_task_lacks_is_told_in_one_line(folder, change, reason):
    task = yaml.safe_load((folder / "last.yaml").read_text())
    (folder / "last.yaml").write_text(yaml.safe_dump(task | change))
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match=f"^lm-eval cannot run last, choice: {reason}") as caught:
        run_tasks(tiny_model("gpt2", tokenizer), tokenizer, ["last", "choice"], include_path=folder)
    assert "\n" not in str(caught.value)


def test_unknown_tasks_are_named(tmp_path, folder):
    check_tasks(["arc_easy", "mmlu", "lambada_openai"])
    check_tasks(["choice"], folder)
    with pytest.raises(
        EditError, match="^unknown task 'arc_esy'; did you mean 'arc_easy' or .*[?] for a task of your o"
    ):
        check_tasks(["mmlu", "arc_esy"])
    with pytest.raises(EditError, match="^unknown task 'qqqqqqqq'; for a task of your own, give .* as --tasks_path$"):
        check_tasks(["qqqqqqqq"])
    for path in (tmp_path / "nowhere", folder / "last.yaml"):
        with pytest.raises(EditError, match="no such folder; give the folder of your own task files") as caught:
            check_tasks(["choice"], path)
        assert repr(str(path)) in str(caught.value)


def test_the_missing_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"] + ["lm_eval", "lm_eval.tasks"]:
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: check_tasks(["mmlu"]), lambda: run_tasks(None, None, ["mmlu"])):
        with pytest.raises(EditError, match=r"^tasks need lm_eval; .* pip install 'hf-ftedit\[lm-eval\]'$"):
            call()


def test_changes_by_hand():
    before = {
        "a": {"acc": 0.5, "acc_stderr": 0.03, "f1": 0.25, "f1_stderr": None, "n": 40},
        "b": {"perplexity": 8.0, "perplexity_stderr": 1.0, "odd": None, "n": 7},
        "gone": {"acc": 1.0, "n": 1},
    }
    after = {
        "a": {"acc": 0.4, "acc_stderr": 0.04, "f1": 0.5, "f1_stderr": 0.1, "n": 40},
        "b": {"perplexity": 9.5, "perplexity_stderr": 0.0, "odd": 1.0, "n": 7, "new": 1.0},
    }
    rows = [tuple(row.values()) for row in task_changes(before, after)]
    assert rows == [
        ("a", "acc", 0.5, 0.4, pytest.approx(-0.1), pytest.approx(0.05), 40),
        ("a", "f1", 0.25, 0.5, 0.25, None, 40),
        ("b", "perplexity", 8.0, 9.5, 1.5, 1.0, 7),
        ("b", "odd", None, 1.0, None, None, 7),
    ]
    assert list(task_changes(before, after)[0]) == [
        "task", "metric", "before", "after", "difference", "difference_stderr", "n"
    ]  # fmt: skip
    assert task_changes({}, after) == []
