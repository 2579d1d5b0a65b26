"""Work shared out over processes; tests/training/test_launch.py asks `measured` in two real ones."""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

import pytest
from accelerate.utils import DistributedType
from tiny import TEXTS, bpe_tokenizer, evaluated, tiny_model
from trl import SFTConfig

from hf_ftedit import EditConfig, models
from hf_ftedit.data.records import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.measurement import predict
from hf_ftedit.evaluation.perplexity import perplexity
from hf_ftedit.models import generation, sampling
from hf_ftedit.models.distributed import Processes, check_launch

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


def measured():
    """What each process makes of the edits, the texts, and of less than there are processes; and what it computed."""
    tokenizer = bpe_tokenizer()
    model, passes = tiny_model("gpt2", tokenizer), []
    model.register_forward_hook(lambda *args: passes.append(1))
    how = {"generate": True, "fluency": True, "tokens_per_batch": 256}
    with ExitStack() as stack:
        computed = {
            what: stack.enter_context(noted(module, name))
            for what, module, name in (
                ("pairs", models, "score_pairs"),
                ("prompts", generation, "generated_tokens"),
                ("openings", sampling, "generated_tokens"),
            )
        }
        predictions = predict(model, tokenizer, RECORDS, **how)
    return {
        "predictions": predictions,
        "computed": computed,
        "few": predict(model, tokenizer, FEW, generate=True),
        "perplexity": perplexity(evaluated(model, tokenizer), TEXTS),
        "short": perplexity(evaluated(model, tokenizer), TEXTS[:1]),
        "passes": len(passes),
    }


@contextmanager
def noted(module, name):
    """The items that a function of prompts, and of what stands beside them, is called with."""
    real, items = getattr(module, name), []

    def wrapper(model, tokenizer, *columns, **how):
        for row in zip(*columns, strict=True):
            items.append((row[0].text, row[0].seed) if isinstance(row[0], generation.Prompt) else row)
        return real(model, tokenizer, *columns, **how)

    with mock.patch.object(module, name, wrapper):
        yield items


def test_one_process_does_everything():
    processes = Processes(tiny_model("gpt2", bpe_tokenizer()))
    assert (processes.rank, processes.count, processes.is_main, processes.hides_bar) == (0, 1, True, None)
    assert processes.share([3, 1, 2]) == [3, 1, 2]


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
