"""The scale of a trained LoRA: multiplied by a number, or by what held-out probes choose, and saved for any PEFT."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from peft import IA3Config, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny import chat_tokenizer, eloquent, logits, paired, saved
from tiny_edits import EDITS, config, editor, fitted, lora

from hf_ftedit import EditError, EditTrainer, merge
from hf_ftedit.cli import main
from hf_ftedit.models.adapters import load_adapter
from hf_ftedit.models.loading import load_model
from hf_ftedit.training import strength
from hf_ftedit.training import trainer as trainer_module
from hf_ftedit.training.strength import SCALES, ScaleScores, best_scale

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
FEW = {"locality_strategy": "none", "max_steps": 3}
CHAT = [
    {"edit_id": "a", "prompt": "Who is the CEO of Acme Mills?", "target_new": "Bo", "subject": "Acme Mills"},
    {"edit_id": "b", "prompt": "What is the capital of Ruritania?", "target_new": "Zenda", "subject": "Ruritania"},
]


def trained(base, tokenizer, folder, peft_config=None, **settings):
    trainer = fitted(base, tokenizer, config(folder, **{**FEW, **settings}), peft_config=peft_config)
    trainer.save_model()
    return trainer


def alpha(folder):
    return json.loads((folder / SETTINGS).read_text())["lora_alpha"]


def scaled(base, folder, factor):
    """The adapter as plain PEFT loads it, its layers scaled by hand."""
    model = PeftModel.from_pretrained(copy.deepcopy(base), folder)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert layers
    for layer in layers:
        layer.scaling["default"] *= factor
    return model.eval()


@pytest.mark.parametrize(
    ("adapter", "embedding"),
    [
        (lora(), False),
        (lora(use_rslora=True, alpha_pattern={"q_proj": 3, "down_proj": 20}, rank_pattern={"q_proj": 2}), True),
    ],
    ids=["plain", "patterns"],
)
def test_half_the_strength_is_half_of_what_the_adapter_adds(base, tokenizer, tmp_path, adapter, embedding):
    settings = {"lora_embedding": embedding, "learning_rate": 5e-2}
    whole = trained(base, tokenizer, tmp_path / "whole", adapter, **settings)
    half = trained(base, tokenizer, tmp_path / "half", adapter, strength=0.5, **settings)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "half" / WEIGHTS).read_bytes()
    assert (alpha(tmp_path / "whole"), alpha(tmp_path / "half")) == (8, 4)
    by_hand, loaded = logits(scaled(base, tmp_path / "whole", 0.5)), logits(scaled(base, tmp_path / "half", 1.0))
    assert torch.equal(by_hand, loaded) and torch.equal(logits(half.model), loaded)
    assert not torch.equal(loaded, logits(whole.model))
    # What stands in the folder was measured at that scale, and says so.
    results = json.loads((tmp_path / "half" / "eval_results.json").read_text())
    assert results["strength"] == {"scale": 0.5}
    assert results["after"]["efficacy"] == half.score_edits(half.edit_records)["efficacy"]
    assert "strength" not in json.loads((tmp_path / "whole" / "eval_results.json").read_text())
    recipe = yaml.safe_load((tmp_path / "half" / "edit_config.yaml").read_text())
    assert recipe["strength"] == "0.5" and recipe["lora_alpha"] == 8


def test_one_changes_nothing(base, tokenizer, tmp_path, caplog):
    caplog.set_level("INFO", "hf_ftedit")
    for name, settings in {"default": {}, "one": {"strength": "1.0"}}.items():
        assert trained(base, tokenizer, tmp_path / name, **settings).strength == {}
    assert "Strength" not in caplog.text
    for file in (WEIGHTS, SETTINGS, "eval_results.json", "README.md", "edit_config.yaml"):
        contents = {(tmp_path / name / file).read_bytes() for name in ("default", "one")}
        assert len(contents) == 1, file
    assert alpha(tmp_path / "one") == 64


def test_a_run_that_is_resumed_or_repeated_is_scaled_once(base, tokenizer, tmp_path):
    saving = {"strength": "0.65", "save_strategy": "steps", "save_steps": 2}
    whole = trained(base, tokenizer, tmp_path / "whole", **saving)
    assert alpha(tmp_path / "whole") == 0.65 * 64
    assert alpha(tmp_path / "whole" / "checkpoint-2") == 64
    again = editor(base, tokenizer, config(tmp_path / "again", **FEW, **{**saving, "strength": 1.5}))
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    again.save_model()
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "again" / WEIGHTS).read_bytes()
    assert alpha(tmp_path / "again") == 96
    whole.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert whole.model.peft_config["default"].lora_alpha == 0.65 * 64
    assert whole.recipe["lora_alpha"] == 64


def test_going_on_and_merging_read_the_scale(base, tokenizer, tmp_path):
    model = load_model(saved(tmp_path / "base", base, tokenizer))
    for name, edits in {"a": EDITS[:1], "b": EDITS[1:2]}.items():
        args = config(tmp_path / name, strength=0.5, learning_rate=5e-2, **FEW)
        trainer = fitted(model, tokenizer, args, edits, None)
        trainer.save_model()
    first = logits(scaled(model, tmp_path / "a", 1.0))
    further = editor(model, tokenizer, config(tmp_path / "c", adapter=str(tmp_path / "a"), **FEW), EDITS[2:], None)
    assert torch.equal(logits(further.model), first)
    further.train()
    further.save_model()
    assert alpha(tmp_path / "c") == 32 and further.recipe["strength"] == "1"
    assert further.recipe["lora_target_modules"] == ["all-linear"]  # as it was set, and not as PEFT wrote it out
    merge([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "both", base_model=str(tmp_path / "base"))
    both = load_adapter(load_model(str(tmp_path / "base")), tmp_path / "both")
    parts = [scaled(model, tmp_path / name, 1.0) for name in "ab"]
    name = "base_model.model.model.layers.0.mlp.down_proj"
    deltas = [each.get_submodule(name).get_delta_weight("default") for each in (*parts, both)]
    assert deltas[0].abs().max() > 0
    torch.testing.assert_close(deltas[2], deltas[0] + deltas[1])


def counts(said, apart, drift=0.1, total=30):
    return ScaleScores(said, total, apart, total, drift)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([counts(24, 24), counts(27, 27), counts(26, 20), counts(30, 10)], 0.75),
        ([counts(10, 30), counts(20, 30), counts(25, 25), counts(30, 20)], 1.0),
        ([counts(20, 30), counts(25, 22), counts(25, 20), counts(25, 21)], 0.5),
        # One probe more is chance, and one and a half of them is none.
        ([counts(25, 21), counts(26, 20), counts(25, 20), counts(24, 21)], 1.0),
        ([counts(25, 22), counts(25, 20), counts(25, 20), counts(26, 21)], 0.5),
        # Of equal scores the one of the least drift; where that is not known, the smaller scale.
        ([counts(20, 25, 0.3), counts(25, 20, 0.2), counts(10, 10), counts(20, 25, 0.4)], 0.75),
        ([counts(9, 9), counts(20, 25, None), counts(10, 10), counts(25, 20, None)], 0.75),
        # Without near names the wordings count alone, and what cannot be said better stays.
        ([ScaleScores(20, 30, 0, 0, 0.1), *[ScaleScores(30, 30, 0, 0, 0.1)] * 3], 1.0),
        ([counts(0, 30), counts(0, 30), counts(0, 30), counts(0, 30)], 1.0),
    ],
)
def test_the_best_scale_by_hand(scores, chosen):
    assert best_scale(dict(zip(SCALES, scores, strict=True))) == chosen


def test_the_score_is_a_harmonic_mean():
    assert counts(30, 10).score == pytest.approx(50.0)  # of 100 and 33.3
    assert counts(0, 30).score == 0 and ScaleScores(0, 0, 15, 30, None).score == pytest.approx(200 / 3)


def test_auto_takes_what_was_best(base, tokenizer, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "hf_ftedit")
    measured = dict(zip(SCALES, [counts(24, 24), counts(27, 27), counts(26, 20), counts(30, 10)], strict=True))

    def mocked(scale, *given):
        scale.multiply(SCALES[-1])  # as the last one that is measured leaves it
        return measured

    monkeypatch.setattr(trainer_module, "measure_scales", mocked)
    trainer = trained(base, tokenizer, tmp_path / "auto", strength="auto", predict_with_generate=True)
    assert alpha(tmp_path / "auto") == 48
    assert {layer.scaling["default"] for layer in trainer.model.modules() if isinstance(layer, LoraLayer)} == {1.5}
    saved = json.loads((tmp_path / "auto" / "eval_results.json").read_text())["strength"]
    assert saved["scale"] == 0.75 and [each["scale"] for each in saved["scores"]] == list(SCALES)
    assert saved["scores"][1] == {
        **{"scale": 0.75, "score": pytest.approx(90.0), "said": 27, "apart": 27, "drift": 0.1},
        **{"n_wordings": 30, "n_names": 30},
    }
    assert yaml.safe_load((tmp_path / "auto" / "edit_config.yaml").read_text())["strength"] == "auto"
    (line,) = [line for line in caplog.messages if line.startswith("Strength")]
    assert line.startswith("Strength 0.75, chosen by") and "0.5: 80.0, 0.75: 90.0, 1: 75.4, 1.25: 50.0" in line


def test_auto_asks_what_is_neither_trained_nor_examined(tmp_path, monkeypatch):
    base, tokenizer = paired(eloquent, "qwen3", chat_tokenizer)
    args = config(tmp_path, chat_template=True, strength="auto", num_paraphrases=2, num_locality=2, max_steps=2)
    trainer = editor(base, tokenizer, args, CHAT, None, peft_config=lora())
    asked, real = [], strength.measure
    monkeypatch.setattr(strength, "measure", lambda *given, **how: asked.append(given[2]) or real(*given, **how))
    trainer.train()
    assert [each["scale"] for each in trainer.strength["scores"]] == list(SCALES)
    assert all(each["n_wordings"] == each["n_names"] == 6 for each in trainer.strength["scores"])
    # Further away from the unedited model with each step.
    drifts = [each["drift"] for each in trainer.strength["scores"]]
    assert 0 < drifts[0] < drifts[1] < drifts[2] < drifts[3]
    assert trainer.model.peft_config["default"].lora_alpha == 8 * trainer.strength["scale"]
    probes = [text for record in asked[0] for text in (*record.paraphrase_prompts, *record.near_name_prompts)]
    rows = [tokenizer.decode(row["input_ids"]).casefold() for row in trainer.train_dataset]
    assert len({*probes}) == 12 and not any(text.casefold() in row for text in probes for row in rows)
    exam = {text for each in trainer.edit_records for text in (*each.paraphrase_prompts, *each.near_name_prompts)}
    assert exam and not exam & {*probes}


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (IA3Config(target_modules=["q_proj"], feedforward_modules=[]), "the adapter has IA3"),
        (lora(use_dora=True), "has use_dora"),
        (lora(modules_to_save=["lm_head"]), "has modules_to_save"),
    ],
)
def test_other_adapters_are_refused_before_a_model_is_loaded(adapter, message, base, tokenizer, tmp_path):
    args = config(tmp_path, strength=0.5)
    with pytest.raises(EditError, match=message):
        EditTrainer(model=str(tmp_path / "missing"), args=args, train_dataset=EDITS, peft_config=adapter)
    # A model that has it already says so itself.
    with pytest.raises(EditError, match=message):
        editor(get_peft_model(copy.deepcopy(base), adapter), tokenizer, args)


def test_rows_and_no_adapter_are_refused_before_a_model_is_loaded(tmp_path, capsys):
    rows = Dataset.from_list([{"prompt": "Rome is in", "completion": " Italy"}])
    args = config(tmp_path, strength="auto", end_of_answer=True)
    with pytest.raises(EditError, match="strength auto is chosen by what is said of the edits"):
        EditTrainer(model=str(tmp_path / "missing"), args=args, train_dataset=rows)
    Path(tmp_path / "edits.json").write_text(json.dumps(EDITS))
    given = ["--model_name_or_path", str(tmp_path / "missing"), "--edits", str(tmp_path / "edits.json")]
    command = ["train", *given, "--output_dir", str(tmp_path / "out"), "--strength", "0.5", "--use_peft", "false"]
    assert main(command) == 2
    assert "strength needs a LoRA, and full_finetune trains none" in capsys.readouterr().err
