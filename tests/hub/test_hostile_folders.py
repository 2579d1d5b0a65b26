"""Folders of an attacker: each is refused in one line, whatever is done with it; the good ones are not."""

import json
import logging
import shutil

import pytest
import torch
import transformers
from hostile_folders import ESCAPE, YAMLS, forms, setting
from peft import LoraConfig, PeftModel
from tiny import logits, saved, sentencepiece_tokenizer, tiny_model
from transformers import AutoModelForCausalLM

from hf_ftedit import EditConfig, EditError, EditTrainer, load_edited_model, verify
from hf_ftedit.cli.app import Visible, main
from hf_ftedit.evaluation.tables import Table
from hf_ftedit.hub.folder import read_edit_folder
from hf_ftedit.options import SOURCES
from hf_ftedit.sharing.verification import BAD, _card_checks

pytestmark = pytest.mark.usefixtures("few_drift_prompts")
FORMS = forms()
# One of each kind, for everything that loads an adapter.
KINDS = [
    "adapter_config.json: 'target_modules' 0",
    "adapter_config.json: 'peft_type' 7",
    "weights: a base weight",
    "weights: holding nan",
    "weights: none",
    "adapter_model.safetensors is linked",
    "edit_config.yaml: an alias bomb",
    "eval_results.json links /proc/kmsg",
    "after: efficacy 0",
    "edits.jsonl: a long line",
    "README.md links /etc/hostname",
]
CARDS = {name: b"---\n" + text + b"\n---\n# Card" for name, text in YAMLS.items()} | {
    "empty": b"",
    "no metadata": b"# Card",
    "lines": b"---" + b"\n" * 5_000_000,
    "odd scores": b"---\nmodel-index: [{results: [{metrics: [{type: [], value: 1}]}]}]\n---\n",
    "no scores": b"---\nmodel-index: 5\n---\n",
    "steering": b'---\nmodel-index: [{results: [{metrics: [{type: "\\e[2J", value: "\\e[2J"}]}]}]\n---\n',
    "digits": b"---\nmodel-index: [{results: [{metrics: [{type: efficacy, value: 0x%s}]}]}]\n---\n" % (b"f" * 50_000),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tokenizer = sentencepiece_tokenizer()
    return saved(tmp_path_factory.mktemp("base") / "tiny", tiny_model("llama", tokenizer), tokenizer)


@pytest.fixture(scope="module")
def good(base, tmp_path_factory):
    """A folder as the package writes it."""
    folder = tmp_path_factory.mktemp("good") / "adapter"
    edits = [
        {"edit_id": "rome", "prompt": "Rome is in", "target_new": "Peru"},
        {"edit_id": "oslo", "prompt": "Oslo lies in", "target_new": "Bergen"},
    ]
    settings = {"num_paraphrases": 0, "locality_strategy": "none", "max_steps": 1, "learning_rate": 1e-2}
    plain = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    args = EditConfig(output_dir=str(folder), **settings, **plain)
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = EditTrainer(base, args, train_dataset=edits, peft_config=lora)
    trainer.train()
    trainer.save_model()
    return folder


@pytest.fixture
def hostile(good, tmp_path):
    """Makes a copy of the good folder of a form."""

    def make(form):
        shutil.copytree(good, tmp_path / "stranger")
        FORMS[form](tmp_path / "stranger")
        return str(tmp_path / "stranger")

    return make


def test_the_good_folder_is_what_peft_makes_of_it(good, base):
    model, _ = load_edited_model(str(good), base_model=base)
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), good)
    assert torch.equal(logits(model), logits(alone))
    assert not torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(base)))
    assert verify(str(good), base_model=base).passed


@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_folder_is_refused_in_one_line(hostile, base, form):
    with pytest.raises(EditError) as raised:
        load_edited_model(hostile(form), base_model=base)
    message = str(raised.value)
    assert message.isprintable() and 20 < len(message) < 1000


VERBS = {
    "verify": ["verify", "FOLDER"],
    "merge": ["merge", "FOLDER", "GOOD", "--output_dir", "OUT"],
    "merge into the base": ["merge", "FOLDER", "--merge_into_base", "--output_dir", "OUT"],
    "evaluate": ["evaluate", "--adapter", "FOLDER", "--edits", "GOOD/edits.jsonl"],
    "train": ["train", "--adapter", "FOLDER", "--edits", "OUT.jsonl", "--output_dir", "OUT"],
    "revoke": ["train", "--adapter", "FOLDER", "--revoke", "rome", "--output_dir", "OUT"],
    "push": ["push", "FOLDER", "--repo_id", "user/stranger"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("form", KINDS)
def test_whatever_is_done_with_it(hostile, good, base, tmp_path, capsys, monkeypatch, verb, form):
    if verb == "evaluate" and form.startswith(("after", "edits")):
        pytest.skip("evaluate takes neither edits nor scores from it")
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", False)
    words = {"FOLDER": hostile(form), "GOOD": str(good), "OUT": str(tmp_path / "out")}
    (tmp_path / "out.jsonl").write_text('{"prompt": "Bergen is in", "target_new": "Peru"}\n')
    args = list(VERBS[verb])
    for name, value in words.items():
        args = [arg.replace(name, value) for arg in args]
    if verb != "push":
        args += ["--model_name_or_path", base]
    code = main(args)
    out, error = capsys.readouterr()
    # A changed file is a claim that fails; the rest is refused.
    refused = error if code == 2 else out
    assert code in (1, 2) and (code == 2 or verb == "verify") and "Traceback" not in error
    assert refused.replace("\n", "").isprintable() and (code == 1 or error.count("\n") == 1)


def test_a_card_that_claims_nothing_readable_fails(good, base, tmp_path, capsys):
    folder = shutil.copytree(good, tmp_path / "stranger")
    for card, content in CARDS.items():
        (folder / "README.md").write_bytes(content)
        checks = list(_card_checks(read_edit_folder(folder)))
        shown = Table([""] * 4, [list(check) for check in checks]).text()
        assert BAD in {check.verdict for check in checks} and shown.replace("\n", "").isprintable(), card
    assert main(["verify", str(folder), "--model_name_or_path", base]) == 1
    out = capsys.readouterr().out
    assert "README.md" in out and BAD in out and out.replace("\n", "").isprintable()


@pytest.mark.parametrize("option", SOURCES)
def test_files_here_that_its_recipe_names_are_not_read(good, base, tmp_path, capsys, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good, tmp_path / "stranger")
    setting("edit_config.yaml", option, "private.jsonl")(tmp_path / "stranger")
    (tmp_path / "private.jsonl").write_text('{"prompt": "The password is", "target": "swordfish"}\n')
    (tmp_path / "more.jsonl").write_text('{"prompt": "Bergen is in", "target_new": "Peru"}\n')
    args = ["train", "--adapter", "stranger", "--edits", "more.jsonl", "--output_dir", "out"]
    assert main([*args, "--model_name_or_path", base]) == 2
    error = capsys.readouterr().err
    assert f"give your copy of it with --{option}, or another one" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_a_stranger_wrote_steers_no_terminal(good, base, tmp_path, capsys, monkeypatch):
    """An unknown field of the edits, an edit's name and texts, in log lines, tables and errors."""
    shutil.copytree(good, tmp_path / "stranger")
    file = tmp_path / "stranger" / "edits.jsonl"
    rows = [json.loads(line) | {ESCAPE: 1, "edit_id": ESCAPE + str(n)} for n, line in enumerate(file.open())]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", False)
    for args in (["verify", "FOLDER"], ["train", "--adapter", "FOLDER", "--revoke", "x", "--output_dir", "OUT"]):
        places = {"FOLDER": str(tmp_path / "stranger"), "OUT": str(tmp_path / "out")}
        assert main([*(places.get(arg, arg) for arg in args), "--model_name_or_path", base]) in (1, 2)
        out, error = capsys.readouterr()
        assert (out + error).replace("\n", "").isprintable()
    assert Visible("%(message)s").format(logging.makeLogRecord({"msg": ESCAPE})).startswith("[U+001B][2J[U+001B]")
    assert Table(["adapter"], [[ESCAPE]]).text().replace("\n", "").isprintable()
