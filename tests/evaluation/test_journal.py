import copy
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import bpe_tokenizer, tiny_model

from hf_ftedit.data.records import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.journal import Journal, fingerprint
from hf_ftedit.evaluation.measurement import predict

FINDINGS = {
    "Rome is in": "Italy",
    ("Rome is in", "Italy"): [-1.25, 1.0, 0.5],
    ("edit", "0", "Astana, Нур-Султан, 阿斯塔纳"): 'two\nlines\r\nand\u2028a "quote" \\ 😀\x00\x85',
    "": "",
    ("", ""): None,
}


def written(path, findings=FINDINGS, fingerprint="abc", rank=0):
    """A journal of these findings, one after the other, closed."""
    journal = Journal(path, fingerprint, rank)
    for finding in findings.items():
        journal.add([finding])
    journal.close()


def found(path, fingerprint="abc", rank=0):
    journal = Journal(path, fingerprint, rank)
    journal.close()
    return journal.found


def test_findings_come_back(tmp_path):
    path = tmp_path / "scores" / "unfinished" / "after.jsonl"
    assert found(path) == {}
    written(path)
    assert found(path) == FINDINGS
    assert [file.name for file in path.parent.iterdir()] == ["after.0.jsonl"]


def test_findings_are_known_at_once_and_on_disk(tmp_path):
    journal = Journal(tmp_path / "after.jsonl", "abc")
    journal.add(FINDINGS.items())
    assert journal.found == FINDINGS
    assert found(tmp_path / "after.jsonl", rank=1) == FINDINGS  # the first has not been closed
    journal.close()


def test_a_journal_by_hand(tmp_path):
    written(tmp_path / "after.jsonl", {"é": "x\ny", ("a", "b"): [-0.5, 1.0, 1.0]})
    assert (tmp_path / "after.0.jsonl").read_bytes().decode() == (
        '{"fingerprint": "abc"}\n{"key": "é", "value": "x\\ny"}\n{"key": ["a", "b"], "value": [-0.5, 1.0, 1.0]}\n'
    )


def test_numbers_come_back_to_the_last_bit(tmp_path):
    numbers = [*np.random.default_rng(0).standard_normal(100).tolist(), -1e-300, float("-inf")]
    written(tmp_path / "after.jsonl", {"x": numbers})
    assert found(tmp_path / "after.jsonl")["x"] == numbers


def test_a_later_finding_holds(tmp_path):
    written(tmp_path / "after.jsonl", {"x": 1})
    written(tmp_path / "after.jsonl", {"x": 2})
    assert found(tmp_path / "after.jsonl") == {"x": 2}


def test_a_torn_line_is_dropped_wherever_it_was_torn(tmp_path):
    written(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.0.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(len(whole)):
        path, own = tmp_path / f"{end}.jsonl", tmp_path / f"{end}.0.jsonl"
        own.write_bytes(whole[:end])
        kept = max(0, whole[:end].count(b"\n") - 1)
        other = found(path, rank=1)
        assert list(other.items()) == list(FINDINGS.items())[:kept]
        written(path, {"new": "line"})
        assert found(path) == dict(list(FINDINGS.items())[:kept]) | {"new": "line"}
        assert (
            own.read_bytes()
            == whole[: max(first, whole[:end].rfind(b"\n") + 1)] + b'{"key": "new", "value": "line"}\n'
        )


def test_the_findings_of_other_processes_are_read(tmp_path):
    path = tmp_path / "after.jsonl"
    parts = [{"a": "1"}, {("b", "c"): [2.0]}, {"d": "3"}]
    for rank, part in enumerate(parts):
        written(path, part, rank=rank)
    assert {file.name for file in tmp_path.iterdir()} == {"after.0.jsonl", "after.1.jsonl", "after.2.jsonl"}
    everything = parts[0] | parts[1] | parts[2]
    assert found(path) == found(path, rank=2) == found(path, rank=7) == everything


@pytest.mark.parametrize("rank", [0, 1])
def test_findings_of_another_model_are_an_error_that_names_the_file(tmp_path, rank):
    written(tmp_path / "after.jsonl", rank=rank)
    before = (tmp_path / f"after.{rank}.jsonl").read_bytes()
    with pytest.raises(EditError, match=rf"after\.{rank}\.jsonl is of another model or of other settings"):
        Journal(tmp_path / "after.jsonl", "other")
    assert (tmp_path / f"after.{rank}.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["before.jsonl", "after.again.jsonl", "after[0].jsonl", "after", "after.txt", "a.jsonl"]
)
def test_journals_beside_each_other_are_told_apart(tmp_path, name):
    for each in ("after.jsonl", name):
        written(tmp_path / each, {each: each}, fingerprint=each)
    for each in ("after.jsonl", name):
        assert found(tmp_path / each, fingerprint=each) == {each: each}


@pytest.mark.parametrize("damage", [b"not json", b"[]", b"\xff", b'{"key": "a"}', b""])
@pytest.mark.parametrize("before", [b"", b'{"fingerprint": "abc"}\n'])
def test_a_damaged_journal_is_an_error_that_names_the_file(tmp_path, before, damage):
    (tmp_path / "after.0.jsonl").write_bytes(before + damage + b"\n")
    with pytest.raises(EditError, match=r"after\.0\.jsonl"):
        Journal(tmp_path / "after.jsonl", "abc")


TOKENIZER = bpe_tokenizer()


def lora_model():
    return get_peft_model(tiny_model("llama", TOKENIZER), LoraConfig(target_modules="all-linear")).eval()


def test_equal_models_have_equal_fingerprints():
    torch.manual_seed(0)
    model = lora_model()
    again = copy.deepcopy(model)
    assert fingerprint(model, seed=0, chat_template=False) == fingerprint(again, chat_template=False, seed=0)
    assert fingerprint(model.train()) == fingerprint(again)
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert fingerprint(model) == fingerprint(again)


def test_the_fingerprint_tells_settings_apart():
    model = tiny_model("gpt2", TOKENIZER)
    settings = [{}, {"seed": 0}, {"seed": 1}, {"chat_template": False}, {"seed": 0, "chat_template": False}]
    assert len({fingerprint(model, **some) for some in settings}) == len(settings)


def test_the_fingerprint_sees_every_tensor_of_a_lora():
    torch.manual_seed(0)
    model, names = lora_model(), set()
    prints = {fingerprint(model)}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight += 1e-4
                prints.add(fingerprint(model))
                names.add(name)
    assert len(prints) == len(names) + 1 > 20


def test_the_fingerprint_tells_models_apart():
    base = tiny_model("llama", TOKENIZER)
    models = [base, tiny_model("gpt2", TOKENIZER), lora_model(), copy.deepcopy(base).to(torch.bfloat16)]
    assert len({fingerprint(model) for model in models}) == len(models)


def test_the_fingerprint_tells_whether_the_adapter_is_on():
    model = lora_model()
    on = fingerprint(model)
    with model.disable_adapter():
        assert fingerprint(model) != on
    assert fingerprint(model) == on


RECORDS = [  # no two begin with the same token, so that nothing is shared between them
    EditRecord(letter, f"{letter}{letter} lies in the far north of", "Peru, by the sea", target_true="Rome")
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
]
RECORDS[1] = replace(RECORDS[1], generation_prompts=("Oslo lies", "Peru was", "Oslo lies"))


def asked(model, **settings):
    return predict(model, TOKENIZER, RECORDS, generate=True, fluency=True, tokens_per_batch=256, **settings)


@contextmanager
def watched(model, interrupt_at=None):
    """The tokens, without fillers, of each pass of `model` over trees, over prompts, and over one token a row."""
    passes = {"question": [], "trees": [], "prompts": [], "steps": []}

    def hook(module, args, inputs, output):
        ids = inputs["input_ids"]
        if inputs["use_cache"] is False:  # a tree and two rows ask whether the model reads trees
            kind = "trees" if len(passes["question"]) == 2 else "question"
        else:
            kind = "prompts" if ids.shape[1] > 1 else "steps"
        passes[kind].append(int((ids != TOKENIZER.pad_token_id).sum()))
        if sum(map(len, passes.values())) == interrupt_at:
            raise KeyboardInterrupt

    handle = model.register_forward_hook(hook, with_kwargs=True)
    yield passes
    handle.remove()


def keys(path):
    return [json.dumps(json.loads(line)["key"]) for line in path.read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def uninterrupted():
    model = tiny_model("gpt2", TOKENIZER)
    with watched(model) as passes:
        return asked(model), passes


@pytest.mark.parametrize(("interrupt_at", "lost"), [(4, "trees"), (60, "prompts"), (350, "prompts")])
def test_an_interrupted_evaluation_goes_on_from_there(tmp_path, uninterrupted, interrupt_at, lost):
    model, path = tiny_model("gpt2", TOKENIZER), tmp_path / "after.jsonl"
    expected, whole = uninterrupted
    with watched(model, interrupt_at) as first, pytest.raises(KeyboardInterrupt):
        asked(model, journal=path)
    known = keys(tmp_path / "after.0.jsonl")
    with watched(model) as second:
        predictions = asked(model, journal=path)
    assert predictions.keys() == expected.keys()
    for name, column in predictions.items():
        assert column == pytest.approx(expected[name], abs=1e-5)  # numbers only; all else is equal
    for kind in ("trees", "prompts"):  # the batch that was interrupted is read twice, and nothing else
        again = first[kind][-1] if kind == lost else 0
        assert sum(first[kind]) + sum(second[kind]) == sum(whole[kind]) + again
    after = keys(tmp_path / "after.0.jsonl")
    assert after[: len(known)] == known and 0 < len(known) < len(after)
    assert len(after) == len(set(after)) == 3 * len(RECORDS) + 3


def test_a_finished_evaluation_is_read_from_its_journal(tmp_path):
    model, path = tiny_model("gpt2", TOKENIZER), tmp_path / "after.jsonl"
    expected = asked(model, journal=path)
    with watched(model) as passes:
        assert asked(model, journal=path) == expected
    assert not any(passes.values())


@pytest.mark.parametrize("settings", [{"seed": 1}, {"chat_template": True}])
def test_a_journal_of_other_settings_is_refused(tmp_path, settings):
    model, tokenizer = tiny_model("gpt2", TOKENIZER), copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    predict(model, tokenizer, RECORDS[:1], journal=tmp_path / "after.jsonl")
    with pytest.raises(EditError, match="other settings"):
        predict(model, tokenizer, RECORDS[:1], journal=tmp_path / "after.jsonl", **settings)
