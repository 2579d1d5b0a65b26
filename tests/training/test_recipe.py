"""The recipe of an adapter: it trains the same again, and tells nothing of the machine."""

import re

import pytest
import torch
import yaml
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tiny import paired, tiny_model
from trl import get_peft_config, get_quantization_config

from hf_ftedit import AugmentationOptions, EditConfig, EditDatasetBuilder, EditModelConfig, EditTrainer, Fact
from hf_ftedit.cli.arguments import parse_rest, read_arguments
from hf_ftedit.models.loading import asset, public_name
from hf_ftedit.options import EditOptions
from hf_ftedit.training.recipe import inherited, recipe_of

CANARY = "hf_canary"
LORA = ["r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "modules_to_save", "target_parameters"]
TRAINING = ["learning_rate", "num_train_epochs", "max_steps", "warmup_steps", "lr_scheduler_type", "optim"]
TRAINING += ["train_sampling_strategy", "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay"]
TRAINING += ["shuffle_dataset", "router_aux_loss_coef"]
TRAINING += ["max_length", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "bf16", "fp16", "seed"]
# No setting as it is by default.
OTHERS = {"objective": "full", "paraphrase_strategy": "both", "num_paraphrases": 3, "locality_strategy": "random"}
OTHERS |= {"prefix_lengths": [4], "prefix_counts": [5], "max_length": 64, "seed": 7}
OTHERS |= {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6, "train_sampling_strategy": "random"}
OTHERS |= {"learning_rate": 1.5e-3, "num_train_epochs": 2.5, "max_steps": 7, "warmup_steps": 3, "max_grad_norm": 0.5}
OTHERS |= {"lr_scheduler_type": "linear", "optim": "adamw_torch", "per_device_train_batch_size": 3}
OTHERS |= {"gradient_accumulation_steps": 2, "weight_decay": 0.125, "shuffle_dataset": True}
ROWS = Dataset.from_list([{"prompt": "Rome is in", "completion": " Italy"}])


def trainer_of(folder, lora=None, **settings):
    """A trainer on a tiny GPT-2 that stands in `folder`, with settings as somebody may have them."""
    model, tokenizer = paired(tiny_model, "gpt2")
    model.config._name_or_path = str(folder)
    args = EditConfig(output_dir=str(folder / "out"), use_cpu=True, report_to="none", **settings)
    config = None if args.full_finetune else get_peft_config(EditModelConfig(**{"lora_r": 4, **(lora or {})}))
    return EditTrainer(model, args, train_dataset=ROWS, processing_class=tokenizer, peft_config=config)


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home" / "somebody" / "base"
    folder.mkdir(parents=True)
    return folder


def parsed(recipe, folder):
    (folder / "edit_config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    flags = ["--config", str(folder / "edit_config.yaml"), "--output_dir", str(folder / "again"), "--use_cpu", "true"]
    arguments = read_arguments("train", flags)
    return parse_rest((EditConfig, EditModelConfig), arguments, vars(arguments.options()))


def test_no_path_and_no_token(home):
    (home / "facts.jsonl").write_text('{"prompt": "Oslo lies in", "target": "Norway"}')
    (home / "sentences").mkdir()
    recipe = trainer_of(
        home,
        hub_token=CANARY,
        hub_model_id="somebody/secret-project",
        edits=str(home / "edits.jsonl"),
        locality_pool=str(home / "facts.jsonl"),
        similar_model=str(home / "sentences"),
        rewriter=str(home / "writer.gguf"),
        run_name=str(home / "run"),
        model_init_kwargs={"token": CANARY},
    ).recipe
    text = yaml.safe_dump(recipe)
    for secret in (CANARY, "somebody", "secret-project", str(home), "/"):
        assert secret not in text, secret
    assert recipe["model_name_or_path"] == "base" and recipe["edits"] == "edits.jsonl"
    assert recipe["locality_pool"] == "facts.jsonl" and recipe["similar_model"] == "sentences"
    assert recipe["rewriter"] == "writer.gguf"


@pytest.mark.parametrize(
    ("settings", "lora"),
    [
        ({}, {}),
        (
            OTHERS,
            {"lora_r": 6, "lora_alpha": 5, "lora_dropout": 0.25, "use_rslora": True, "use_dora": True},
        ),
        ({}, {"lora_target_modules": ["c_attn", "c_proj"], "lora_modules_to_save": ["ln_f"]}),
    ],
)
def test_fed_back_it_gives_the_same_settings(home, settings, lora):
    trainer = trainer_of(home, lora, **settings)
    config, model_config = parsed(trainer.recipe, home)
    for name in TRAINING:
        assert getattr(config, name) == getattr(trainer.args, name), name
    for name in EditOptions.__dataclass_fields__:
        if name != "edits":
            assert getattr(config, name) == getattr(trainer.args, name), name
    assert config.edits == "edits.jsonl" and model_config.model_name_or_path == "base"
    assert model_config.dtype == "float32" and model_config.use_peft
    again, used = get_peft_config(model_config), get_peft_config(EditModelConfig(**{"lora_r": 4, **lora}))
    for name in LORA:
        assert getattr(again, name) == getattr(used, name), name
    assert again.target_modules == used.target_modules


@pytest.mark.parametrize(
    ("settings", "layers"), [({"lora_embedding": True}, {"wte", "0", "1"}), ({"lora_layers": [1]}, {"1"})]
)
def test_the_same_layers_are_adapted_again(home, settings, layers):
    trainer = trainer_of(home, **settings)
    config, model_config = parsed(trainer.recipe, home)
    model = tiny_model("gpt2", trainer.processing_class)
    given = {"processing_class": trainer.processing_class, "peft_config": get_peft_config(model_config)}
    again = EditTrainer(model, config, train_dataset=ROWS, **given)
    names = [name for name, _ in trainer.model.named_parameters() if "lora_" in name]
    assert {re.search(r"transformer\.(?:h\.)?(\w+)", name)[1] for name in names} == layers
    assert [name for name, _ in again.model.named_parameters() if "lora_" in name] == names


@pytest.mark.parametrize("by", [{"load_best_model_at_end": True}, {"lr_scheduler_type": "reduce_lr_on_plateau"}])
def test_what_follows_a_score_is_repeated(home, by):
    often = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    given = {**often, **by, "metric_for_best_model": "loss", "greater_is_better": False}
    model, plain = trainer_of(home).model, {"output_dir": str(home), "use_cpu": True}
    recipe = recipe_of(EditConfig(**plain, **given), model)
    config, _ = parsed(recipe, home)
    assert {name: getattr(config, name) for name in given} == given
    assert config.lr_scheduler_kwargs == recipe.get("lr_scheduler_kwargs")
    assert "eval_strategy" not in recipe_of(EditConfig(**plain, **often), model)


def test_precision_and_rank_are_those_of_what_is_trained(home):
    trainer = trainer_of(home)
    base = tiny_model("gpt2", trainer.processing_class).bfloat16()  # the configuration still says float32
    model = get_peft_model(base, LoraConfig(r=3, target_modules=["c_attn"]))
    model.add_adapter("edit", LoraConfig(r=5, lora_alpha=7, target_modules=["c_proj"]))
    model.set_adapter("edit")
    recipe = recipe_of(trainer.args, model)
    assert (recipe["dtype"], recipe["lora_r"], recipe["lora_alpha"]) == ("bfloat16", 5, 7)
    assert recipe["lora_target_modules"] == ["c_proj"] and recipe["provenance"]["rank"] == 5


def test_a_full_finetune_says_so(home):
    recipe = trainer_of(home, full_finetune=True).recipe
    assert recipe["full_finetune"] and not recipe["use_peft"] and "lora_r" not in recipe
    config, model_config = parsed(recipe, home)
    assert config.full_finetune and get_peft_config(model_config) is None


def test_what_is_undefined_is_left_out_and_a_revision_and_quantization_are_told(home):
    trainer = trainer_of(home)
    assert None not in trainer.recipe.values() and "model_revision" not in trainer.recipe
    trainer.model.config._commit_hash = "abc123"
    quantization = get_quantization_config(EditModelConfig(load_in_4bit=True, use_bnb_nested_quant=True))
    trainer.model.config.quantization_config = quantization
    trainer.model.config.dtype = torch.bfloat16
    trainer.args.router_aux_loss_coef = 0.5
    recipe = recipe_of(trainer.args, trainer.model)
    assert recipe["model_revision"] == "abc123" and recipe["dtype"] == "bfloat16"
    assert recipe["router_aux_loss_coef"] == 0.5
    assert recipe["load_in_4bit"] is True and recipe["load_in_8bit"] is False
    assert (recipe["bnb_4bit_quant_type"], recipe["use_bnb_nested_quant"]) == ("nf4", True)


def test_strength_is_not_inherited_as_the_scale_of_the_lora_has_it():
    assert inherited({"strength": "1.5", "lora_alpha": 96, "seed": 3}) == {"lora_alpha": 96, "seed": 3}


def test_public_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert public_name("user/model") == "user/model"
    assert public_name("gpt2") == "gpt2"
    assert public_name(str(tmp_path / "models" / "mine")) == "mine"
    assert public_name("models/mine") == public_name("./models/mine/") == "mine"
    assert public_name("/gone/since/model") == "model"
    assert public_name(".") == tmp_path.name
    for gone in ("customers/of/ours/model", "../model", "./ours/model"):
        assert public_name(gone) == "model"
    snapshot = tmp_path / "hub" / "models--user--my-model" / "snapshots" / "c1899de289a04d12100db370d81485cdf75e47ca"
    snapshot.mkdir(parents=True)
    assert public_name(f"{snapshot}/") == "user/my-model"
    assert public_name("user/facts:train") == "user/facts:train"
    assert public_name(asset("model")) == "hf_ftedit/embedded"


def test_a_builders_settings_are_the_recipes(tmp_path):
    model, tokenizer = paired(tiny_model, "gpt2")
    options = AugmentationOptions(paraphrase_strategy="none", locality_strategy="random", num_locality=1)
    edits, pool = [{"prompt": "Rome is in", "target_new": "Peru"}], [Fact("Oslo lies in", "Norway")]
    builder = EditDatasetBuilder(edits, model, tokenizer, locality_pool=pool, options=options, seed=5)
    args = EditConfig(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none")
    recipe = EditTrainer(model, args, train_dataset=builder, processing_class=tokenizer).recipe
    found = [recipe[name] for name in ("paraphrase_strategy", "locality_strategy", "num_locality", "seed")]
    assert found == ["none", "random", 1, 42]
    assert recipe["provenance"]["seed_of_rows"] == 5 and recipe["provenance"]["given_in_python"] == ["train_dataset"]
