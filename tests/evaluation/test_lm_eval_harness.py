import json
import sys
from contextlib import nullcontext
from math import exp, hypot, sqrt

import numpy as np
import pytest
import torch
import transformers
import yaml
from peft import LoraConfig, get_peft_model
from tiny import bpe_tokenizer, tiny_model

from hf_ftedit.cli import main
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation import lm_eval_harness
from hf_ftedit.evaluation.lm_eval_harness import check_tasks, compare_tasks
from hf_ftedit.models.loading import load_model, load_tokenizer

pytestmark = pytest.mark.usefixtures("own_cache")
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


def by_metric(rows):
    """The rows, by task and metric."""
    return {(row["task"], row["metric"]): row for row in rows}


def test_scores_are_those_of_the_models_own_likelihoods_without_and_with_the_adapter(folder):
    tokenizer = load_tokenizer(None)
    model = edited(load_model(None))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = {}
    for when in ("before", "after"):
        with model.disable_adapter() if when == "before" else nullcontext():
            gold = [logprob(model, tokenizer, doc["question"], doc["choices"][doc["label"]]) for doc in DOCS]
            expected[when] = (*accuracies(model, tokenizer), [value for value, _ in gold], [hit for _, hit in gold])
    rows = by_metric(compare_tasks(model, tokenizer, ["last", "choice", "last"], include_path=str(folder)))
    assert list(rows) == [("last", "perplexity"), ("last", "acc"), ("choice", "acc"), ("choice", "acc_norm")]
    for when, (plain, normalized, values, greedy) in expected.items():
        assert rows["last", "perplexity"][when] == pytest.approx(exp(-np.mean(values)), rel=1e-3)
        assert rows["last", "acc"][when] == pytest.approx(np.mean(greedy))
        assert rows["choice", "acc"][when] == pytest.approx(np.mean(plain))
        assert rows["choice", "acc_norm"][when] == pytest.approx(np.mean(normalized))
    choice = rows["choice", "acc"]
    assert choice["difference"] == choice["after"] - choice["before"] and choice["n"] == 5
    errors = [standard_error(expected[when][0]) for when in ("before", "after")]
    assert choice["difference_stderr"] == pytest.approx(hypot(*errors))
    assert rows["last", "perplexity"]["after"] > 1.5 * rows["last", "perplexity"]["before"]
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_generated_answers_are_scored_by_filter_and_a_model_without_adapter_once(folder, capfd):
    tokenizer = bpe_tokenizer(eos_token="<|endoftext|>")
    model = tiny_model("llama", tokenizer).train()
    rows = compare_tasks(model, tokenizer, ["answer"], include_path=folder, limit=3)
    assert [row["metric"] for row in rows] == ["exact_match (one-word)", "exact_match (names)"]
    for row in rows:
        assert 0 <= row["before"] <= 1 and row["n"] == 3
        assert row["after"] is row["difference"] is row["difference_stderr"] is None
    assert model.training and tokenizer.pad_token is None and "tie_weights" not in vars(model)
    assert capfd.readouterr().out == ""


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
    rows = by_metric(compare_tasks(model, tokenizer, ["last"], include_path=folder))
    assert rows["last", "perplexity"]["after"] == pytest.approx(exp(-np.mean(values)), rel=1e-3)
    assert set(model.state_dict()) == set(weights)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_examples_are_drawn_by_seed(folder):
    task = yaml.safe_load((folder / "last.yaml").read_text())
    (folder / "last.yaml").write_text(yaml.safe_dump(task | {"fewshot_split": "test"}))
    model, tokenizer = load_model(None), load_tokenizer(None)

    def perplexity(**settings):
        return compare_tasks(model, tokenizer, ["last"], include_path=folder, **settings)[0]["before"]

    first, again, other = (perplexity(num_fewshot=2, seed=seed) for seed in (1, 1, 2))
    assert first == again and len({first, other, perplexity()}) == 3


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"dataset_kwargs": {"data_files": {"test": "nowhere.jsonl"}}}, "FileNotFoundError: Unable to find"),
        ({"test_split": "train"}, "KeyError: 'train'"),
        ({"doc_to_text": "{{questions}}"}, "UndefinedError: 'questions' is undefined"),
    ],
)
def test_what_a_task_lacks_is_an_error_of_one_line(folder, change, reason):
    task = yaml.safe_load((folder / "last.yaml").read_text())
    (folder / "last.yaml").write_text(yaml.safe_dump(task | change))
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match=f"^lm-eval cannot run last, choice: {reason}") as caught:
        compare_tasks(tiny_model("gpt2", tokenizer), tokenizer, ["last", "choice"], include_path=folder)
    assert "\n" not in str(caught.value)


def test_unknown_tasks_are_named_before_a_model_is_loaded(folder, capsys, monkeypatch):
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: 1 / 0)
    index = lm_eval_harness._index(str(folder), True)  # once, for it takes long
    monkeypatch.setattr(lm_eval_harness, "_cached_index", lambda *given: index)
    check_tasks(["arc_easy", "mmlu"])
    with pytest.raises(EditError, match="^unknown task 'arc_esy'; did you mean 'arc_easy' or .*[?] for a task of yo"):
        check_tasks(["mmlu", "arc_esy"])
    with pytest.raises(EditError, match="^unknown task 'qqqqqqqq'; for a task of your own, give .* as --tasks_path$"):
        check_tasks(["qqqqqqqq"])
    tasks = ["--tasks", "last", "chioce", "--tasks_path", str(folder)]
    assert main(["evaluate", "--max_edits", "1", *tasks]) == 2
    error = capsys.readouterr().err
    assert "unknown task 'chioce'; did you mean 'choice'" in error and "? no valid YAML file in --ta" in error


def test_a_folder_that_is_none_is_named(tmp_path, folder):
    check_tasks(["choice"], folder)
    for path in (tmp_path / "nowhere", folder / "last.yaml"):
        with pytest.raises(EditError, match="no such folder; give the folder of your own task files") as caught:
            check_tasks(["choice"], path)
        assert repr(str(path)) in str(caught.value)


def test_the_missing_extra_is_named(monkeypatch):
    lm_eval_harness._cached_index.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"] + ["lm_eval", "lm_eval.tasks"]:
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: check_tasks(["mmlu"]), lambda: compare_tasks(None, None, ["mmlu"])):
        with pytest.raises(EditError, match=r"^tasks need lm_eval; .* pip install 'hf-ftedit\[lm-eval\]'$"):
            call()
