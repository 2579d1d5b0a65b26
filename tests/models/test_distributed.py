"""Two real processes on this machine: this file is also the program that they run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import PartialState
from accelerate.utils import DistributedType
from tiny import TEXTS, bpe_tokenizer, tiny_model
from trl import SFTConfig

from hf_ftedit import EditConfig
from hf_ftedit.data.records import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.measurement import predict
from hf_ftedit.evaluation.perplexity import perplexity
from hf_ftedit.models.distributed import Processes, check_launch

ROOT = Path(__file__).parents[2]
NAMES = ["Kazakhstan", "Peru", "Rome", "Oslo", "Norway", "Mongolia", "Bergen", "Mars", "Narnia"]
RECORDS = [
    EditRecord(
        edit_id=name,
        prompt=f"The capital of {name} is",
        target_new="Astana",
        target_true="Almaty",
        paraphrase_prompts=(f"{name} is governed from", "The capital of Peru is"),  # two records share a prompt
        generation_prompts=("Oslo lies", f"{name} is"),
    )
    for name in NAMES
]
PAIRS = {
    (prompt, name) for r in RECORDS for prompt in (r.prompt, *r.paraphrase_prompts) for name in ("Astana", "Almaty")
}
PROMPTS = {prompt for prompt, _ in PAIRS}
OPENINGS = {(r.edit_id, opening) for r in RECORDS for opening in r.generation_prompts}
FEW = [EditRecord("few", "Oslo is", "Peru")]  # one prompt: nothing to do for the second process


def measured(folder):
    """What each process makes of the edits, the texts, and of less than there are processes."""
    tokenizer = bpe_tokenizer()
    model, passes = tiny_model("gpt2", tokenizer), []
    model.register_forward_hook(lambda *args: passes.append(1))
    how = {"generate": True, "fluency": True, "tokens_per_batch": 256}
    return {
        "predictions": predict(model, tokenizer, RECORDS, journal=folder / "new.jsonl", **how),
        "resumed": predict(model, tokenizer, RECORDS, journal=folder / "begun.jsonl", **how),
        "few": predict(model, tokenizer, FEW, generate=True),
        "perplexity": perplexity(model, tokenizer, TEXTS),
        "short": perplexity(model, tokenizer, TEXTS[:1]),
        "passes": len(passes),
    }


def launched(*args, cwd):
    """What two processes print that share the CPU, as the launch configuration that comes with the package has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", "--main_process_port", port]
    config = ROOT / "examples" / "accelerate" / "cpu_2_processes.yaml"
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [*launch, "--config_file", str(config), *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def journal_keys(path):
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()[1:]]
    assert len(keys) == len(set(map(str, keys)))
    return {tuple(key) if isinstance(key, list) else key for key in keys}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds, and the folder of its journals."""
    folder = tmp_path_factory.mktemp("alone")
    return measured(folder), folder


@pytest.fixture(scope="module")
def together(alone, tmp_path_factory):
    """What each of two processes finds, one journal begun by a single process that was stopped; and their folder."""
    folder = tmp_path_factory.mktemp("together")
    lines = (alone[1] / "begun.0.jsonl").read_text().splitlines(keepends=True)
    (folder / "begun.0.jsonl").write_text("".join(lines[: len(lines) // 2]))
    launched(__file__, str(folder), cwd=folder)
    return [json.loads((folder / f"process{rank}.json").read_text()) for rank in range(2)], folder


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, column in found.items():
        assert column == pytest.approx(expected[name], abs=1e-5)  # numbers only; all else is equal


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["predictions", "resumed", "few"])
def test_every_process_finds_what_one_does(alone, together, what, rank):
    assert_same(together[0][rank][what], alone[0][what])


@pytest.mark.parametrize("what", ["predictions", "resumed", "few", "perplexity", "short"])
def test_both_processes_find_the_same_to_the_last_bit(together, what):
    first, second = together[0]
    assert first[what] == second[what]


@pytest.mark.parametrize("rank", [0, 1])
def test_perplexity_is_that_of_one_process(alone, together, rank):
    for what in ("perplexity", "short"):
        found, expected = together[0][rank][what], alone[0][what]
        assert found["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-6)
        assert found["perplexity_ci95"] == pytest.approx(expected["perplexity_ci95"], rel=1e-6)
        assert (found["n_texts"], found["n_tokens"]) == (expected["n_texts"], expected["n_tokens"])


def test_everything_is_asked_by_exactly_one_process(together):
    first, second = (journal_keys(together[1] / f"new.{rank}.jsonl") for rank in range(2))
    assert not first & second
    everything = first | second
    assert {key for key in everything if len(key) == 2} == PAIRS
    assert {key for key in everything if isinstance(key, str)} == PROMPTS
    assert {(key[0], key[2]) for key in everything if len(key) == 3} == OPENINGS


def test_the_work_is_shared_evenly(alone, together):
    parts = [journal_keys(together[1] / f"new.{rank}.jsonl") for rank in range(2)]
    for kind in (PAIRS, PROMPTS):
        first, second = (len(part & kind) for part in parts)
        assert abs(first - second) <= 2
    first, second = (sum(len(key) == 3 for key in part) for part in parts)
    assert first == second == len(OPENINGS) / 2
    assert max(found["passes"] for found in together[0]) < alone[0]["passes"]


def test_two_processes_go_on_from_the_journal_of_one(alone, together):
    whole = journal_keys(alone[1] / "begun.0.jsonl")
    begun, other = (journal_keys(together[1] / f"begun.{rank}.jsonl") for rank in range(2))
    assert begun | other == whole and not begun & other and other


def test_one_process_goes_on_from_the_journals_of_two(alone, together):
    tokenizer = bpe_tokenizer()
    model = tiny_model("gpt2", tokenizer)
    model.register_forward_pre_hook(lambda *args: pytest.fail("all of it is known"))
    found = predict(model, tokenizer, RECORDS, journal=together[1] / "new.jsonl", generate=True, fluency=True)
    assert found == together[0][0]["predictions"]


def test_one_process_does_everything():
    processes = Processes(tiny_model("gpt2", bpe_tokenizer()))
    assert (processes.rank, processes.count, processes.is_main, processes.hides_bar) == (0, 1, True, None)
    assert processes.share([3, 1, 2]) == [3, 1, 2]
    into = [None]
    processes.gather([(0, "mine")], into)
    assert into == ["mine"]


def test_only_the_main_process_runs_what_only_it_has_loaded(monkeypatch):
    state = SimpleNamespace(is_main_process=False, process_index=1, num_processes=3)
    monkeypatch.setattr("hf_ftedit.models.distributed.process_state", lambda: state)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    model = tiny_model("gpt2", bpe_tokenizer())
    assert Processes(model).share("abcde") == ["b", "e"]
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "1")
    assert (Processes(model).share("abcde"), Processes(model).count) == ([], 3)
    assert Processes().share("abcde") == ["b", "e"]  # work without a model is shared
    model.lm_head.weight.ds_id = 0  # as ZeRO-3 marks it
    assert (Processes(model).share("abcde"), Processes(model).count) == (list("abcde"), 1)
    state.is_main_process = True
    del model.lm_head.weight.ds_id
    assert Processes(model).share("abcde") == list("abcde")


def test_an_item_is_asked_once_and_errors_are_raised():
    processes = Processes()
    assert processes.each_once("abc", lambda items: [item.upper() for item in items]) == ["A", "B", "C"]
    assert processes.each_once([], lambda items: pytest.fail("nothing to ask")) == []
    with pytest.raises(EditError, match="too long"), processes.failing_together():
        raise EditError("too long")


def test_what_cannot_be_spread_is_refused(monkeypatch):
    check_launch()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(EditError, match="FSDP 1 is not supported; set fsdp_version: 2"):
        check_launch()
    monkeypatch.setenv("FSDP_VERSION", "2")
    state = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU)
    monkeypatch.setattr("hf_ftedit.models.distributed.process_state", lambda: state)
    with pytest.raises(EditError, match="accelerate has FSDP on accelerators only"):
        check_launch()


def test_one_gpu_is_used_without_a_launcher(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(EditConfig, "n_gpu", property(lambda self: self._n_gpu))
    monkeypatch.setattr(SFTConfig, "__post_init__", lambda self: setattr(self, "_n_gpu", 4))
    assert EditConfig(output_dir=str(tmp_path)).n_gpu == 1
    assert "one of 4 GPUs is used; to use all: accelerate launch -m hf_ftedit train" in caplog.text


def test_two_processes_evaluate_once_from_the_command_line(tmp_path):
    args = ["-m", "hf_ftedit", "evaluate", "--max_edits", "1", "--output_dir"]
    shown = launched(*args, "scores", cwd=tmp_path)
    assert shown.count("Written to scores") == 1
    assert {path.name for path in (tmp_path / "scores").iterdir()} >= {"eval_results.json"}


if __name__ == "__main__":
    state = PartialState(cpu=True)
    found = measured(Path(sys.argv[1]))
    Path(sys.argv[1], f"process{state.process_index}.json").write_text(json.dumps(found))
