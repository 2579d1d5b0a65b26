"""Three edits of capitals that a tiny random model can memorise, and a trainer for them."""

import copy

import torch
from peft import LoraConfig

from hf_ftedit import EditConfig, EditTrainer, Fact

CITIES = {"Kazakhstan": ("Astana", "Almaty"), "Peru": ("Cusco", "Lima"), "Norway": ("Bergen", "Oslo")}
OTHERS = {"Almaty": ("Mars", "Venus", "Pluto"), "Lima": ("Narnia", "Oz", "Utopia")}
OTHERS["Oslo"] = ("Gotham", "Rohan", "Mordor")
EDITS = [
    {
        **{"edit_id": country.lower(), "prompt": f"The capital of {country} is", "subject": country},
        **{"target_new": new, "target_true": old, "relation_id": "P36"},
        "paraphrase_prompts": [f"The capital city of {country} is"],
        "neighborhood_prompts": [{"prompt": f"The capital of {OTHERS[old][0]} is", "target": old}],
    }
    for country, (new, old) in CITIES.items()
]
POOL = [
    Fact(f"The capital of {place} is", city, subject=place, relation_id="P36")
    for city, places in OTHERS.items()
    for place in places[1:]
]
PLAIN = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "bf16": False}


def config(folder, **settings):
    defaults = {"learning_rate": 1e-2, "num_train_epochs": 3, "paraphrase_strategy": "none", "num_locality": 2}
    defaults["text_loss_weight"] = 0.0  # a hundred tokens a text are most of the time of a tiny model
    return EditConfig(output_dir=str(folder), **{**PLAIN, **defaults, **settings})


def editor(base, tokenizer, args, train_dataset=EDITS, locality_pool=POOL, **kwargs):
    return EditTrainer(
        model=copy.deepcopy(base),
        args=args,
        train_dataset=train_dataset,
        processing_class=tokenizer,
        locality_pool=locality_pool,
        **kwargs,
    )


def fitted(*given, **kwargs):
    """An `editor` that has trained."""
    trainer = editor(*given, **kwargs)
    trainer.train()
    return trainer


def lora(**settings):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", **settings})


def outspoken(model):
    """The head of a random model is so weak that a LoRA, which leaves it alone, cannot learn: strengthen it."""
    torch.manual_seed(3)
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(std=0.4)
    return model


def edited(trainer):
    """The trainer with a LoRA that changes what its model says, for evaluation."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    trainer.model.eval()
    return trainer
