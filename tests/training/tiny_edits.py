"""Three edits of capitals that a tiny random model can memorise, and a trainer for them."""

import copy

import torch
from peft import LoraConfig

from hf_ftedit import EditConfig, EditTrainer, Fact
from hf_ftedit.models import unedited

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
BEST_EPOCH = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
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


def history(trainer, name):
    """What a trainer logged under a name."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def start_of(row):
    """Place of the first token that a tokenized row teaches."""
    return sum(label == -100 for label in row["labels"])


def token_losses(model, ids, start):
    """-log p of each token from `start` on."""
    logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return torch.stack([-logprobs[place - 1, ids[place]] for place in range(start, len(ids))])


def token_divergences(model, ids, start):
    """KL divergence of the edited model from the unedited one where each token from `start` on is predicted."""
    edited = model(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)
    with torch.no_grad(), unedited(model):
        kept = model(torch.tensor([ids[:-1]])).logits[0].double().softmax(-1)
    top = kept.topk(min(64, kept.shape[-1])).indices
    p, q = (x.gather(1, top) for x in (kept, edited.exp()))
    p, q = (torch.cat([x, 1 - x.sum(1, keepdim=True)], 1) for x in (p, q))
    return (p * (p.clamp(min=1e-30) / q).log()).sum(-1)[start - 1 :]
