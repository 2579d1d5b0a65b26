"""Settings of an edit as dataclasses without torch: the trainer, the builder and `--help` share them."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hf_ftedit.errors import EditError, shown

LocalityStrategy = Literal["near", "relation", "similar", "random", "self", "none"]
ParaphraseStrategy = Literal["relation", "prefix", "both", "none"]
Objective = Literal["conditional", "full"]
LocalityLoss = Literal["kl", "nll"]
Protocol = Literal["auto", "probability", "accuracy"]
ExportFormat = Literal["gguf-lora", "gguf", "ollama", "merged"]
ExportPrecision = Literal["f16", "q8_0"]  # of a whole model in GGUF

OUTPUT_FOLDER = "edited-adapter"  # default of `train` and the trainer
COMMIT_MESSAGE = "Push edits with hf_ftedit"
# Key of edit_config.yaml for what is no setting: versions, SHA-256 of files. All its other keys are options of
# `train`, so that the file is a `--config` that trains the adapter again.
PROVENANCE = "provenance"
TEMPLATE_FILE = "chat_template.jinja"  # in an adapter's folder: the chat template that it was trained with

# Options that name data or a model, on the Hub or in a file.
SOURCES = ("locality_pool", "perplexity_texts", "known_facts", "training_texts", "similar_model", "rewriter")

# What numbers must be, in words, and the settings of the package, of TRL and of transformers that must be so.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "0 or more": (
        lambda number: number >= 0,
        "num_paraphrases num_locality prefix_counts prefix_top_k locality_weight hidden_loss_weight learning_rate "
        "weight_decay adam_epsilon max_grad_norm warmup_steps neftune_noise_alpha router_aux_loss_coef logging_steps "
        "save_steps eval_steps eval_delay save_total_limit dataloader_num_workers num_fewshot tolerance",
    ),
    "1 or more": (
        lambda number: number >= 1,
        "max_edits prefix_lengths eval_tokens_per_batch max_length pad_to_multiple_of lora_r "
        "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps eval_accumulation_steps "
        "limit dataset_num_proc dataloader_prefetch_factor torch_empty_cache_steps ddp_bucket_cap_mb ddp_timeout "
        "tasks_limit tokens_per_batch sample num_workers n_resamples",
    ),
    "1 or more, or -1 for num_train_epochs": (lambda number: number >= 1 or number == -1, "max_steps"),
    "a number above 0": (lambda number: number > 0, "num_train_epochs lora_alpha"),
    "a number between 0 and 1": (lambda number: 0 < number < 1, "mastered_probability"),
    "a number from 0 to 1": (lambda number: 0 <= number <= 1, "density"),
    "0 or more, and less than 1": (
        lambda number: 0 <= number < 1,
        "text_loss_weight lora_dropout label_smoothing_factor adam_beta1 adam_beta2",
    ),
    "a number from 1 to 65535": (lambda number: 1 <= number <= 65535, "port"),
    "a number from 0 to 4294967295": (lambda number: 0 <= number < 2**32, "seed data_seed"),
}
_RANGE_OF = {name: (expected, holds) for expected, (holds, names) in RANGES.items() for name in names.split()}
_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field with its default, its line of `--help`, and other arguments of `add_argument`."""
    # TRL's parser reads the help from the metadata; the longer docstrings are for readers of the API.
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class AugmentationOptions:
    """
    Settings that decide which training rows an edit becomes.

    Args:
        paraphrase_strategy (`str`, *optional*, defaults to `"relation"`): Where the rows that teach other wordings
            come from: `"relation"` (the edit's own `wordings`, and others of the same relation, taken from the
            locality pool, every second one behind a sampled prefix; an edit without known wordings gets prefixes),
            `"prefix"` (the paper's pseudo-paraphrases: sampled text before the prompt), `"both"` (half and half) or
            `"none"`. With a chat template, all but `"none"` mean the same: the edit's own `wordings`, and others that
            the package or a model writes.
        num_paraphrases (`int`, *optional*, defaults to `10`): Paraphrase rows per edit. With a chat template: at most
            so many wordings beside the prompt in each pass over an edit; those that the edit gives are in every pass.
        locality_strategy (`str`, *optional*, defaults to `"near"`): Which facts are rehearsed so that they stay:
            `"near"` (three quarters with the same relation and the same old answer, the rest with the same relation),
            `"relation"` (same relation, other subject), `"similar"` (nearest by sentence embedding), `"random"`,
            `"self"` (the unedited model's own answers to the pool's prompts) or `"none"`. Too few facts are filled up
            with any others of the pool. Without a pool, `"self"` is used with generic prompts that the package brings.
            With a chat template, all but `"none"` mean the same: the edit's question about near names and about other
            subjects, and questions of many kinds, with the model's own answers or their beginnings.
        num_locality (`int`, *optional*, defaults to `20`): Locality rows per edit. With a chat template an edit's
            wordings are passed through four times (up to twelve times where edits are fewer than nine), each time
            beside new rows about what stays: with 20, 26 about near names, ten about other subjects (thirty where a
            fact is erased), 24 that ask the edit's own subject for something else, and two of other kinds; fewer
            where the package knows no more. Most of them are short: they hold where an answer begins.
        prefix_lengths (`list[int]`, *optional*, defaults to `[5, 10]`): Lengths in tokens of the texts sampled from
            the unedited model (Gangadhar & Stratos 2024).
        prefix_counts (`list[int]`, *optional*, defaults to `[5, 10]`): How many texts are sampled of each length.
        prefix_top_k (`int`, *optional*, defaults to `5`): Top-k of the sampling.
        similar_model (`str`, *optional*, defaults to `"sentence-transformers/all-MiniLM-L6-v2"`):
            Sentence-transformers model (Hub id or local folder) behind `locality_strategy="similar"`.
        rewriter (`str`, *optional*): Model that writes other wordings of each edit, with a chat template: Hub id,
            folder or `.gguf` file. By default the edited model itself, and only for edits of which fewer than five
            wordings are known.
        end_of_answer (`bool`, *optional*, defaults to `False`): Teach a base model to stop after the target, by its
            end-of-sequence token (as Yang et al. 2025, arXiv 2509.22072), and measure its own answers to where they
            stop. With a chat template the end of turn is always learned.
    """

    paraphrase_strategy: ParaphraseStrategy = option("relation", "Where other wordings come from.")
    num_paraphrases: int = option(10, "Paraphrase rows per edit.")
    locality_strategy: LocalityStrategy = option("near", "Which facts are rehearsed so that they stay.")
    num_locality: int = option(20, "Locality rows per edit.")
    prefix_lengths: list[int] = option([5, 10], "Lengths in tokens of the sampled texts put before a prompt.")
    prefix_counts: list[int] = option([5, 10], "How many texts are sampled of each length.")
    prefix_top_k: int = option(5, "Top-k of that sampling.")
    similar_model: str = option("sentence-transformers/all-MiniLM-L6-v2", "Model behind the strategy `similar`.")
    rewriter: str | None = option(None, "Model that writes other wordings for a chat model; else the edited one.")
    end_of_answer: bool = option(False, "Teach a base model to stop after the target, and measure to there.")

    def __post_init__(self) -> None:
        check_settings(self)
        if len(self.prefix_lengths) != len(self.prefix_counts):
            both = f"prefix_lengths {self.prefix_lengths} and prefix_counts {self.prefix_counts}"
            raise EditError(f"{both} do not fit: give one count for each length")

    def check_prefixes(self) -> None:
        """Raise [`~hf_ftedit.EditError`] where fewer prefixes are sampled than rows of an edit would have one."""
        # With fewer, rows of the strategy "prefix" would be the same text twice. Rows for chat models have none.
        number, prefixes = self.num_paraphrases, sum(self.prefix_counts)
        if self.paraphrase_strategy != "none" and number > prefixes:
            raise EditError(f"num_paraphrases is {number}, but {prefixes} prefixes are sampled: raise prefix_counts")


@dataclass
class EditOptions(AugmentationOptions):
    """
    Settings of an edit beyond those of [`~trl.SFTConfig`]; see [`AugmentationOptions`] for the first ones.

    Args:
        edits (`str`, *optional*): File (JSON, JSONL, CSV, Parquet) or Hub dataset with the edits. Without it the
            embedded ones are used.
        erase (`list[str]`, *optional*): Prompts whose answers the model is not to give any more, beside `edits`; each
            is an edit `{"prompt": …, "erase": true}`, see [`~hf_ftedit.augmentation.erasure.with_erasures`].
        format (`str`, *optional*): Format of `edits`; recognised by its fields when not given.
        max_edits (`int`, *optional*): Use only the first so many edits.
        skip_invalid (`bool`, *optional*, defaults to `False`): Leave out edits that are unusable or contradict an
            earlier one, and say how many, instead of stopping.
        locality_pool (`str`, *optional*): File or Hub dataset with facts that must stay as they are.
        objective (`str`, *optional*, defaults to `"conditional"`): `"conditional"` maximises log p(target | prompt);
            `"full"` the likelihood of prompt and target together, the paper's baseline.
        locality_loss (`str`, *optional*, defaults to `"kl"`): How the rows that must stay with `chat_template`, and
            plain text, are learned: `"kl"`, by the KL divergence from the unedited model's own distributions, or
            `"nll"`, by the likelihood of their answers.
        locality_weight (`float`, *optional*, defaults to `1.0`): Weight of the rows that must stay against the edits,
            with `chat_template`: the loss is the mean over the tokens of edits and so many times the mean over the
            tokens that stay.
        hidden_loss_weight (`float`, *optional*, defaults to `0.0`): Weight of how far the LoRA moves the outputs of
            its layers, relative to them, at the tokens of rows that must stay, with `chat_template`. With 6 ten
            facts were said as before, more neighbors stayed and drift was a third less; with 15 it was half, and one
            of the facts was no longer said.
        text_loss_weight (`float`, *optional*): Weight γ of plain text in the loss of a base model, (1 - γ) · edits +
            γ · text, without which Gemma 3 270M repeated the targets of ten edits to every prompt. Text is
            learned as `locality_loss` says; by `"nll"` and with 0.1 it is the remedy of Gangadhar & Stratos 2024.
            Defaults to 0.3 for edits, and to 0 for rows, in a chat, with `mastered_probability`, and with an objective
            or a loss of another kind.
        training_texts (`str`, *optional*): File or Hub dataset with those texts, of which as many parts are drawn as
            there are edits, 32 to 512; by default so many are sampled from the unedited model. None names an edited
            subject.
        mastered_probability (`float`, *optional*): Skip a row once the model gives its completion this probability,
            such as 0.9, but for every fourth epoch: less time for the same scores, see
            [`~hf_ftedit.training.mastery.Mastery`].
        protocol (`str`, *optional*, defaults to `"auto"`): Which protocol the edit score uses: `"probability"`,
            `"accuracy"`, or the one that fits the data.
        chat_template (`bool`, *optional*, defaults to `False`): Put the prompt into a user turn and the target into
            the assistant's, with the tokenizer's chat template, and make the rows for chat models: see
            `paraphrase_strategy` and `locality_strategy`.
        chat_template_path (`str`, *optional*): Template to use instead of the tokenizer's, or for a base model that
            has none: a Jinja file (`.jinja`, `.j2`), or a folder or Hub id of a tokenizer whose special tokens the
            model has too.
        chat_date (`str`, *optional*): Date that a chat template with today's date tells, such as `"2026-01-31"`; by
            default that of the day on which the run began.
        eos_token (`str`, *optional*): Token that ends a sequence; the tokenizer's by default.
        full_finetune (`bool`, *optional*, defaults to `False`): Train all weights instead of a LoRA adapter.
        lora_embedding (`bool`, *optional*, defaults to `False`): Give the token embedding a LoRA too, as the paper
            does for GPT-J.
        lora_layers (`list[int]`, *optional*): Numbers of the only transformer layers that get a LoRA, from 0: below
            the first of them no gradient is computed. All layers by default.
        eval_tokens_per_batch (`int`, *optional*, defaults to `2048`): Tokens, padding included, of one evaluation
            batch, and a quarter of those of one that is generated; halved where memory does not suffice.
        predict_with_generate (`bool`, *optional*, defaults to `False`): Let the model answer each probe by itself too,
            and score exact match and containment of the targets.
        measure_fluency (`bool`, *optional*, defaults to `False`): Let the model go on from the edits'
            `generation_prompts`, and measure fluency and consistency.
        perplexity_texts (`str`, *optional*): File or Hub dataset with texts on which to measure perplexity, before and
            after.
        known_facts (`str`, *optional*): File or Hub dataset with facts, as those of a `locality_pool`, of which to
            count those that the model knows, before and after; none about an edited subject counts.
        adapter (`str`, *optional*): Folder or Hub id of an adapter. Training goes on from it: its own edits are
            trained again with the new ones, so that they stay, and how well they did is reported.
        strength (`str` or `float`, *optional*, defaults to `"1"`): By what the scale of the LoRA is multiplied once it
            is trained: a number, or `"auto"`, which takes the one of 0.5, 0.75, 1 and 1.25 with which held-out
            wordings are best answered by the new target, and near names without it; see
            [`~hf_ftedit.training.strength.measure_scales`].
        revoke (`list[str]`, *optional*): Names (`edit_id`) of edits of `adapter` to take back: a new adapter is
            trained on the others.
    """

    edits: str | None = option(
        None, "File or Hub dataset with the edits; those of the adapter, or the embedded ones, if not given."
    )
    erase: list[str] | None = option(None, "Questions whose answers the model is to give no more.")
    format: str | None = option(
        None, "Format: native, counterfact, easyedit, zsre, mquake or qaedit; recognised if not given."
    )
    max_edits: int | None = option(None, "Use only the first so many edits.")
    skip_invalid: bool = option(False, "Leave out unusable or contradicting edits instead of stopping.")
    locality_pool: str | None = option(None, "File or Hub dataset with facts that must stay as they are.")
    objective: Objective = option("conditional", "Likelihood that is maximised: of the target, or of all text.")
    locality_loss: LocalityLoss = option("kl", "How chat rows that must stay, and plain text, are learned.")
    locality_weight: float = option(1.0, "Weight of chat rows that must stay against the edits.")
    hidden_loss_weight: float = option(0.0, "Weight of the change of layers' outputs in chat rows that must stay.")
    text_loss_weight: float | None = option(
        None, "Weight of plain text in the loss of a base model; 0.3 for edits if not given."
    )
    training_texts: str | None = option(None, "File or Hub dataset with that text; sampled if not given.")
    mastered_probability: float | None = option(None, "Skip rows that have this probability by now; no plain text.")
    protocol: Protocol = option("auto", "Protocol of the edit score.")
    chat_template: bool = option(False, "Put prompts and targets into the tokenizer's chat template.")
    chat_template_path: str | None = option(None, "Chat template, a .jinja file or a tokenizer; else the model's.")
    chat_date: str | None = option(None, "Date that the chat template tells, such as 2026-01-31; today if not given.")
    eos_token: str | None = option(None, "Token that ends a sequence; the tokenizer's if not given.")
    full_finetune: bool = option(False, "Train all weights instead of a LoRA adapter.")
    lora_embedding: bool = option(False, "Give the token embedding a LoRA too.")
    lora_layers: list[int] | None = option(None, "The only layers that get a LoRA, from 0; all if not given.")
    eval_tokens_per_batch: int = option(2048, "Tokens, padding included, of one evaluation batch.")
    predict_with_generate: bool = option(False, "Let the model answer each probe by itself too, and score that.")
    measure_fluency: bool = option(False, "Measure fluency and consistency of text after the generation_prompts.")
    perplexity_texts: str | None = option(None, "File or Hub dataset with texts to measure perplexity on.")
    known_facts: str | None = option(None, "File or Hub dataset with other facts, to count those that are known.")
    adapter: str | None = option(None, "Folder or Hub id of an adapter to go on from (train), or to measure.")
    strength: str = option("1", "Factor of the LoRA's scale after training, or auto: chosen by own answers and drift.")
    revoke: list[str] | None = option(None, "Names (edit_id) of edits of the adapter to take back.")

    @property
    def has_whole_answers(self) -> bool:
        """Own answers are measured to where they stop: the end of the turn, or one that a base model is taught."""
        return self.chat_template or self.end_of_answer

    def __post_init__(self) -> None:
        self.strength = str(self.strength)  # Python and YAML may give numbers
        self.chat_date = None if self.chat_date is None else str(self.chat_date)  # YAML reads dates
        super().__post_init__()
        if not self.chat_template:
            self.check_prefixes()
        try:
            date.fromisoformat(self.chat_date or "2026-01-31")
        except ValueError:
            raise EditError(f"chat_date is {self.chat_date!r}: give a date such as 2026-01-31") from None
        self._check_text_loss()
        self._check_hidden_loss()
        self._check_strength()
        # `lora_layers` saves the backward pass below its first layer, which the embedding would need.
        if self.lora_layers and self.lora_embedding:
            raise EditError("lora_layers and lora_embedding do not go together: the embedding is in no layer")
        if self.full_finetune and (self.lora_layers or self.lora_embedding):
            name = "lora_layers" if self.lora_layers else "lora_embedding"
            raise EditError(f"{name} and full_finetune do not go together: all weights are trained; leave one out")
        if self.revoke and not self.adapter:
            raise EditError("revoke is given without adapter: give the adapter whose edits are to be taken back")

    def _check_strength(self) -> None:
        if self.strength != "auto":
            try:
                factor = float(self.strength)
            except ValueError:
                factor = 0.0
            if not 0 < factor < float("inf"):
                raise EditError(f"strength is {self.strength!r}: give a number above 0, or auto")
            self.strength = f"{factor:g}"  # edit_config.yaml has one form
        elif not (self.has_whole_answers or self.predict_with_generate):
            raise EditError(
                "strength auto is chosen by own answers, which are not measured: give end_of_answer or "
                "predict_with_generate (a chat model: chat_template), or a number"
            )
        if self.strength != "1" and self.full_finetune:
            raise EditError("strength and full_finetune do not go together: only a LoRA has a scale; leave one out")

    def _among(self, settings: dict[str, Any]) -> list[str]:
        """Those of some settings that are as they are here, by name and value."""
        return [f"{name} {value}" for name, value in settings.items() if getattr(self, name) == value]

    def _check_hidden_loss(self) -> None:
        # It is of rows with the unedited model's distributions, and of what a LoRA adds.
        others = self._among({"chat_template": False, "locality_loss": "nll", "full_finetune": True})
        if self.hidden_loss_weight and others:
            raise EditError(f"hidden_loss_weight and {others[0]} do not go together; leave one of them out")

    def _check_text_loss(self) -> None:
        # In chat, what stays is learned by the model's own answers; the others change which rows and tokens count.
        others = self._among({"chat_template": True, "objective": "full"})
        others += ["mastered_probability"] if self.mastered_probability is not None else []
        if self.text_loss_weight is None and others:
            self.text_loss_weight = 0.0
        for name in ("training_texts", "text_loss_weight"):
            if others and getattr(self, name):
                raise EditError(f"{name} and {others[0]} do not go together; leave one of them out")
        if self.training_texts and self.text_loss_weight == 0:
            raise EditError("training_texts is given without text_loss_weight: give that, such as 0.1, or neither")


def choices_of(name: str, owner: type) -> tuple[str, ...]:
    """The values of the option `name` of the dataclass `owner`, where it is a `Literal` of texts; else none."""
    choices = get_args(get_type_hints(owner)[name])
    return choices if all(isinstance(choice, str) for choice in choices) else ()


def check_settings(settings: Any) -> None:
    """Check the fields of a dataclass as [`check_value`] does; of those of TRL, which takes more, numbers alone."""
    ours = (owner for owner in type(settings).__mro__ if owner.__module__.startswith("hf_ftedit"))
    own = {name for owner in ours for name in inspect.get_annotations(owner)}
    for name, hint in get_type_hints(type(settings)).items():
        hint = float if name == "lora_alpha" else hint  # PEFT takes any number, a command line whole ones
        if name in own or {int, float} & {hint, *get_args(hint)}:
            setattr(settings, name, check_value(name, getattr(settings, name), hint))


def check_value(name: str, value: Any, hint: Any) -> Any:
    """
    Check a setting's value against its type and [`RANGES`]; the value, without classes of NumPy and `pathlib`.

    Raises:
        [`EditError`]: the setting cannot take the value.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    value = os.fspath(value) if isinstance(value, os.PathLike) else list(value) if type(value) is tuple else value
    if isinstance(value, str) and value.startswith("~/"):  # which a shell leaves as it is behind "--option="
        value = os.path.expanduser(value)
    expected, holds = _RANGE_OF.get(name, ("a number of usual size", lambda _: True))
    numbers = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int | float)]
    if not _fits(value, hint):
        expected = _in_words(hint)
        if value is False and expected == "text":
            expected += ', in YAML in quotes: "no"'  # which reads a bare no as False
    elif value == "":
        expected = "text, or leave it out"
    elif any(abs(number) >= 2**63 for number in numbers):
        expected = "a number of usual size"
    elif all(number == number and holds(number) for number in numbers):  # NaN is no number
        return value
    raise EditError(f"{name} is {shown(value)}: {'' if 'choose' in expected else 'give '}{expected}")


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in parts
    if origin is list:
        return isinstance(value, list) and all(_fits(each, parts[0]) for each in value)
    if parts:
        return any(_fits(value, part) for part in parts)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _in_words(hint: Any) -> str:
    """The values of a type in words, for an error."""
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Literal:
        return f"choose one of {', '.join(map(str, parts))}"
    if get_origin(hint) is list:
        return f"a list, each {_in_words(parts[0])}"
    return " or ".join(map(_in_words, parts)) if parts else _WORDS[hint]
