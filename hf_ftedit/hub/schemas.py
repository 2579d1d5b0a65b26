"""What `edit_config.yaml` and `eval_results.json` may hold: anybody may have written them."""

import re
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hf_ftedit.evaluation import PROTOCOLS, SCORES
from hf_ftedit.options import SOURCES, TEMPLATE_FILE, EditOptions
from hf_ftedit.untrusted import (
    EVAL_FOLDER,
    TEMPLATES_FOLDER,
    Rule,
    choice,
    either,
    flag,
    listed,
    mapped,
    maybe,
    number,
    plain_name,
    plain_value,
    rule,
    text,
    whole,
)

names = maybe(listed(plain_name))
count = whole(0, 10**9)
amount = number(0, 1e9)
words, prose = text(), text(2**20)
revision = text(200, r"\w[\w./-]*", "a branch, tag or commit")
# A Hub id or the name of a folder: no path, which would lead to whatever is on this machine.
source = text(300, r"(?!(.*/)?\.\.(/|$))[^/\\~\0-\x1f][^/\\\0-\x1f]*(/[^/\\\0-\x1f]+)?", "a Hub id or a name")
# An allow-list of what may be pushed: an adapter's files, or a whole model's and its tokenizer's, with the code of a
# model that brings its own. Nothing pickled, and in folders below nothing but scores and chat templates.
publishable = text(
    300,
    r"[\w.-]+\.(safetensors|json|jsonl|yaml|md|png|txt|model|jinja|py)"
    rf"|{re.escape(EVAL_FOLDER)}/[\w.-]+\.yaml|{TEMPLATES_FOLDER}/[\w.-]+\.jinja",
    "the name of a file that may be published",
)


def _rule_of(hint: Any) -> Rule:
    """The rule for an option of this type."""
    plain = {bool: flag, int: whole(-(10**9), 10**9), float: number(-1e9, 1e9), str: words}
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return choice(*parts)
    if origin is list:
        return listed(_rule_of(parts[0]))
    return plain[hint] if hint in plain else either(*(_rule_of(part) for part in parts if part is not NoneType))


def _each(names: str, allowed: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), allowed)


OPTIONS = {name: maybe(_rule_of(hint)) for name, hint in get_type_hints(EditOptions).items()}
SETTINGS: dict[str, Rule] = {
    **OPTIONS,
    **dict.fromkeys((*SOURCES, "adapter"), maybe(source)),
    "chat_template_path": maybe(choice(TEMPLATE_FILE)),
    "model_name_or_path": source,
    "model_revision": maybe(revision),
    "gguf_file": maybe(source),
    "dtype": choice("auto", "bfloat16", "float16", "float32", "float64"),
    **_each("learning_rate num_train_epochs warmup_steps weight_decay max_grad_norm router_aux_loss_coef", amount),
    **_each("adam_beta1 adam_beta2 adam_epsilon label_smoothing_factor", amount),
    **_each("lora_alpha lora_dropout neftune_noise_alpha", maybe(amount)),
    **_each("per_device_train_batch_size gradient_accumulation_steps lora_r", count),
    **_each("seed data_seed", whole(0, 2**64)),
    "max_steps": whole(-1, 10**9),
    "max_length": maybe(count),
    **_each("lora_target_modules lora_modules_to_save lora_target_parameters optim_target_modules", names),
    **_each("lr_scheduler_type optim train_sampling_strategy loss_type", plain_name),
    "lr_scheduler_kwargs": maybe(mapped(other=plain_value)),
    "optim_args": maybe(words),
    **_each("bf16 fp16 dataloader_drop_last average_tokens_across_devices shuffle_dataset", flag),
    **_each("use_peft use_rslora use_dora load_in_4bit load_in_8bit use_bnb_nested_quant", flag),
    "bnb_4bit_quant_type": choice("nf4", "fp4"),
}
part = mapped(
    {
        "name": text(300),
        "revision": maybe(revision),
        "n_edits": count,
        "weight": number(-1e9, 1e9),
        **_each("efficacy_alone efficacy", maybe(number(0, 100))),
    },
    needed=("name", "n_edits", "weight", "efficacy_alone", "efficacy"),
)
PROVENANCE_RULES: dict[str, Rule] = {
    "made_with": mapped(other=text(100)),
    **_each("changed given_in_python", listed(plain_name)),
    "files": mapped(other=text(64, "[0-9a-f]{64}", "a SHA-256"), names=publishable),
    "datasets": listed(text(300)),
    **_each("rank processes seed_of_rows", count),
    "base_fingerprint": text(32, "[0-9a-f]{32}", "a fingerprint"),
    "card_by_hand": flag,
    "repo_id": text(200, r"[\w.-]+(/[\w.-]+)?", "the name of a repository"),
    "combination": plain_name,
    "parts": listed(part, 1000),
}
recipe_rule = mapped(SETTINGS, plain_value, needed=("model_name_or_path",))
provenance_rule = mapped(PROVENANCE_RULES, plain_value)


def _two_numbers(value: Any, place: str) -> None:
    listed(number(-1e9, 1e9))(value, place)
    rule("two numbers", lambda value: len(value) == 2)(value, place)


protocol = choice(*PROTOCOLS)
score = maybe(number(-1e9, 1e9))
ends = maybe(_two_numbers)
SCORE_RULES = dict.fromkeys(SCORES, score) | dict.fromkeys((f"{name}_ci95" for name in SCORES), ends)
NUMBERS = ("efficacy", "generalization", "locality")  # of which the diagnosis speaks
aspects = mapped(other=mapped(SCORE_RULES, plain_value, needed=("n_edits", "n_probes")), names=words)
scores_rule = mapped(
    {
        **SCORE_RULES,
        **dict.fromkeys(PROTOCOLS, mapped(SCORE_RULES, plain_value)),
        **_each("n_edits n_texts n_drift_prompts n_known_facts n_made_probes n_without_rival", count),
        "drift_by_sort": mapped(other=amount),
        **_each("n_probes n_edits_scored", mapped(other=count)),
        "protocol": protocol,
        # Ours alone: it stands in the card as it is.
        "edit_score_note": maybe(text(300, r"[\w :;]*", "a note")),
        "whole_answers": flag,
        "portability_aspects": aspects,
    },
    plain_value,
    needed=("protocol", "n_edits", "n_probes", "edit_score_note", *NUMBERS),
)
change = mapped(
    {"difference": number(-1e9, 1e9), "p_value": number(0, 1)}, plain_value, needed=("difference", "p_value")
)
both = _each("before after", mapped(SCORE_RULES, plain_value))
retention = mapped({"adapter": text(300), "n_edits": count, **both}, needed=("adapter", "n_edits", "before", "after"))
revoked = mapped(
    {"adapter": text(300), "n_edits": count, "n_probes": count, "back": amount, "back_ci95": ends},
    plain_value,
    needed=("adapter", "n_edits", "n_probes", "back"),
)
results_rule = mapped(
    {
        **_each("before after", scores_rule),
        "protocol": protocol,
        "n_edits": count,
        "change": mapped(other=change),
        "base_model": source,
        "base_model_revision": maybe(revision),
        "answers": listed(mapped({"before": prose, "after": prose}, needed=("before", "after"))),
        "example": mapped({"prompt": prose, "text": prose, "output": maybe(prose)}, needed=("prompt", "output")),
        "retention": retention,
        "revoked": revoked,
    },
    plain_value,
    needed=("before", "after", "protocol", "base_model"),
)
