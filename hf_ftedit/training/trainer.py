"""`EditTrainer`: TRL's `SFTTrainer` for edits. Thin wiring of the other modules."""

import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from peft import PeftConfig
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import speed_metrics

from hf_ftedit import hub, models
from hf_ftedit.data import EditRecord, Fact, read_edits
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation import RESULTS_FILE, SCORES, EvaluatedModel, Measurement, measure, results_of
from hf_ftedit.models import greedy_answers, process_state, unedited
from hf_ftedit.options import COMMIT_MESSAGE, OUTPUT_FOLDER, check_value
from hf_ftedit.training.checkpoints import check_own, date_of_run, is_finished
from hf_ftedit.training.config import EditConfig, learning_rate_for
from hf_ftedit.training.lora import adapter_for
from hf_ftedit.training.loss import WEIGHT, ConditionalTrainer
from hf_ftedit.training.measurements import Measurements, asks_unedited, retention, revocation, scores_of
from hf_ftedit.training.plain_text import default_text_weight
from hf_ftedit.training.recipe import peft_settings, recipe_of
from hf_ftedit.training.setup import (
    as_edit_config,
    brings_template,
    check_task,
    follow_edit_score,
    load_for,
    make_rows,
    tokenized,
)
from hf_ftedit.training.strength import AdapterScale, check_strength, measure_scales, set_strength, strength_text
from hf_ftedit.training.task import EditTask, are_edits, check_rows, check_tokenized, read_task, without_builders

logger = logging.getLogger(__name__)

NOTHING_TO_PUSH = "there are no edit records to push; train on edits, or give them as eval_dataset"


class EditTrainer(ConditionalTrainer):
    """
    Edit facts in a causal language model by fine-tuning: a drop-in for [`~trl.SFTTrainer`].

    It differs in what an edit needs (Gangadhar & Stratos 2024, arXiv 2402.11078): the loss covers the completion's
    tokens by position, and the end of sequence only with `args.end_of_answer`; edit records are augmented; logits are
    computed at the target positions only; `evaluate` measures the edit score; without a `peft_config` a LoRA adapter
    is trained. A killed run goes on exactly where its newest checkpoint is, see
    [`~hf_ftedit.training.resume.ResumableTrainer`].

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Model to edit, or its Hub id or folder. With `args.adapter`, defaults to that adapter's base model.
        args ([`EditConfig`], *optional*):
            Settings. An [`~trl.SFTConfig`] or `TrainingArguments` is taken over.
        data_collator (`Callable`, *optional*):
            Defaults to [`CompletionOnlyCollator`] for prompt-completion rows.
        train_dataset (`Dataset`, [`EditDatasetBuilder`], `Sequence`, `str` or [`EditTask`], *optional*):
            Prompt-completion rows; or a builder; or edits (records, dicts, or a file of any known format), which are
            augmented with the settings of `args`; defaults to `args.edits`. Any other dataset that `SFTTrainer` takes
            is trained as it would. A task, see [`~hf_ftedit.training.task.read_task`], brings the next ones too.
        eval_dataset (`Dataset`, [`EditDatasetBuilder`], `Sequence`, `str` or `dict` of them, *optional*):
            Edits whose probes `evaluate` measures (records, dicts, or a file of any known format); defaults to the
            edits trained on. A dataset of rows gives the loss. Several sets in a dictionary are evaluated one by one,
            and the adapter folder has the scores of the edits trained on.
        processing_class (`PreTrainedTokenizerBase`, *optional*):
            Tokenizer; defaults to the model's.
        peft_config (`PeftConfig`, *optional*):
            Adapter to train; defaults to the paper's LoRA, unless `args.full_finetune`. Not beside
            `args.adapter`, which goes on with the LoRA that it has, unless edits are revoked.
        quantization_config (`BitsAndBytesConfig`, *optional*):
            How to quantize a model given by name.
        locality_pool (`str` or `Iterable[Fact]`, *optional*):
            Facts that must stay; defaults to `args.locality_pool`.
        kwargs:
            Passed to [`~trl.SFTTrainer`].

    Raises:
        [`~hf_ftedit.EditError`]: bad edits or settings, named; with `args.push_to_hub`, a repository that
            cannot be pushed to.

    Example:
    ```python
    trainer = EditTrainer(
        model="Qwen/Qwen3-0.6B",
        train_dataset=[{"prompt": "The capital of Kazakhstan is", "target_new": "Astana"}],
    )
    trainer.train()
    trainer.save_model("astana")
    ```
    """

    _tag_names = ["hf-ftedit", "model-editing", "knowledge-editing"]

    def __init__(
        self,
        model: Any = None,
        args: EditConfig | TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        peft_config: PeftConfig | None = None,
        quantization_config: Any = None,
        locality_pool: str | Iterable[Fact] | None = None,
        **kwargs: Any,
    ) -> None:
        # A copy: some settings are changed below, and the caller may make another trainer with the same ones.
        passed, args = args, copy(as_edit_config(args))
        # Hours of training should not end with a repository that cannot be written to.
        if args.push_to_hub and process_state().is_main_process:
            hub.check_pushable(repo_name(args), args.hub_token)
        if isinstance(locality_pool, str | os.PathLike):  # a name is an option, which the recipe tells
            args.locality_pool, locality_pool = check_value("locality_pool", locality_pool, str), None
        is_read = isinstance(train_dataset, EditTask)
        self.task = train_dataset if is_read else read_task(args, train_dataset, eval_dataset, locality_pool)
        if not isinstance(passed, EditConfig):
            follow_edit_score(args, self.task)
        if args.push_to_hub and not self.task.measured:
            raise EditError(NOTHING_TO_PUSH)
        check_task(args, self.task, kwargs)
        check_strength(args, self.task, peft_config)
        if process_state().is_main_process:
            check_own(args.output_dir or OUTPUT_FOLDER)
        args.chat_date = args.chat_date or date_of_run(args)
        model, tokenizer, self.task = load_for(self.task, model, processing_class, args, quantization_config)
        self._own_template = brings_template(model, processing_class, args)
        if peft_settings(peft_config):
            self.task = replace(self.task, given_in_python=[*self.task.given_in_python, "peft_config"])
        peft_config = adapter_for(model, args, peft_config)
        if hasattr(model, "peft_config"):
            check_strength(args, self.task, model.peft_config[model.active_adapter])
        if args.text_loss_weight is None:
            is_plain = data_collator is None and kwargs.get("compute_loss_func") is None
            args.text_loss_weight = default_text_weight(args, self.task, is_plain=is_plain)
        rows = make_rows(self.task, model, tokenizer, args)
        if args.learning_rate is None:
            args.learning_rate = learning_rate_for(
                model.config, full_finetune=args.full_finetune, chat=args.chat_template
            )
        self.measurements = Measurements(self.task.measured)
        self.strength: dict[str, Any] = {}  # of the finished adapter, where `args.strength` set it
        self._row_settings, self._prompts = rows.settings, rows.prompts
        self._lora_targets = self._recorded_targets(peft_config)
        self._folder: str | None = None  # where the finished adapter was written
        template, args.chat_template_path = args.chat_template_path, None  # used: TRL would take it once more
        kwargs |= {"eval_dataset": rows.evaluation, "processing_class": tokenizer, "peft_config": peft_config}
        super().__init__(model, args, data_collator, rows.train, is_ours=rows.are_tokenized, **kwargs)
        # Used by now, or warned of; a token may stand in them, and what logs a run logs its settings.
        args.model_init_kwargs, args.chat_template_path = None, template
        self._scale = AdapterScale(self.model) if args.strength != "1" else None
        self.recipe = self._recipe_now()

    @property
    def edit_records(self) -> list[EditRecord]:
        """Edits whose probes are measured, as they were read."""
        return self.task.measured

    def _recorded_targets(self, peft_config: PeftConfig | None) -> Any:
        """The modules that get a LoRA as a recipe names them, which may be by one word."""
        prior = self.task.continuation
        if prior and not prior.is_anew and prior.saved.recipe.get("lora_target_modules") == ["all-linear"]:
            return "all-linear"
        return getattr(peft_config, "target_modules", None)

    def _recipe_now(self) -> dict[str, Any]:
        return recipe_of(
            self.args,
            self.accelerator.unwrap_model(self.model),
            lora_targets=self._lora_targets,
            row_settings=self._row_settings,
            given_in_python=self.task.given_in_python,
            own_template=self._own_template,
            processes=self.accelerator.num_processes,
        )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """
        Measure the edits: edit score, efficacy, generalization, locality (0 to 100), and portability where probed.

        `eval_dataset` holds other edits than the trainer's, in any known form; or rows, whose loss is evaluated as TRL
        does. The rest is as in [`~transformers.Trainer`]: metrics are named `eval_edit_score` and so on, of several
        sets in a dictionary `eval_{name}_edit_score`.
        """
        eval_dataset = without_builders(eval_dataset)
        if eval_dataset is None and self.task.sets:
            eval_dataset = self.task.sets
        if isinstance(eval_dataset, dict) and any(map(are_edits, eval_dataset.values())):
            sets = ((part, ignore_keys, f"{metric_key_prefix}_{name}") for name, part in eval_dataset.items())
            return {key: value for each in sets for key, value in self.evaluate(*each).items()}
        if eval_dataset is None:
            means_rows = self.task.eval_rows is not None or not self.task.measured
        else:
            # `Trainer` evaluates several named sets one by one, and then gives the name instead of the rows.
            named = self.eval_dataset if isinstance(self.eval_dataset, dict) else {}
            is_name = isinstance(eval_dataset, str) and eval_dataset in named
            means_rows = is_name or not are_edits(eval_dataset)
            if means_rows and not is_name:
                check_rows(eval_dataset)
        if means_rows:
            eval_dataset = tokenized(eval_dataset, self.processing_class, self.model, self.args)
            if self._is_ours:
                check_tokenized(eval_dataset)
            # The weights of training rows are of the whole set, and a loss that is evaluated is a mean of batches.
            weighted = {WEIGHT, *models.REFERENCE_COLUMNS} & {*(getattr(eval_dataset, "column_names", None) or ())}
            eval_dataset = eval_dataset.remove_columns(sorted(weighted)) if weighted else eval_dataset
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        start = time.time()
        # As `Trainer` does: `log` tells evaluation from training by the mode.
        self.model.eval()
        records = self.edit_records if eval_dataset is None else read_edits(eval_dataset, self.args.format)
        scores = self.score_edits(None if eval_dataset is None else records)
        metrics = {f"{metric_key_prefix}_{name}": scores[name] for name in SCORES if scores.get(name) is not None}
        metrics |= speed_metrics(metric_key_prefix, start, num_samples=len(records))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Predictions for rows, as [`~transformers.Trainer`] gives them; for edits see `predict_edits`."""
        if are_edits(test_dataset):
            raise EditError(
                "predict is for rows: predict_edits gives the predictions for edits, evaluate their scores"
            )
        return super().predict(tokenized(test_dataset, self.processing_class, self.model, self.args), *args, **kwargs)

    def predict_edits(self, records: Any = None, *, edited: bool = True) -> dict[str, list[Any]]:
        """
        Predictions for all probes of `records` (the trainer's by default), see [`~hf_ftedit.predict`].

        They are [`~hf_ftedit.EditRecord`] objects, or edits in any form that [`~hf_ftedit.read_edits`] takes.
        With `edited=False` those of the unedited model: an error where, without an adapter, training began.
        """
        return self._measure(records, edited=edited).predictions

    def score_edits(self, records: Any = None, *, edited: bool = True) -> dict[str, Any]:
        """
        Scores of `records` (the trainer's by default), see [`~hf_ftedit.score`]; arguments as `predict_edits`.

        The measurement of the trainer's own records is cached: a second call at the same step computes nothing.
        """
        return self._measure(records, edited=edited).scores

    def _measure(self, records: Any = None, *, edited: bool) -> Measurement:
        if records is not None:
            is_read = isinstance(records, Sequence) and all(isinstance(record, EditRecord) for record in records)
            records = records if is_read else read_edits(records, self.args.format)
            return self._measure_now(records, edited=edited, drift=False)
        cache, state = self.measurements, (self.state.global_step, self._weights_now())
        if not edited:
            cache.before = cache.before or self._measure_now(cache.records, edited=False)
            return cache.before
        if cache.after is None or (cache.step, cache.weights) != state:
            before = self._measure(edited=False)
            cache.after = self._measure_now(cache.records, edited=True, before=before)
            cache.step, cache.weights = state
        return cache.after

    def _weights_now(self) -> tuple[float, ...]:
        """What tells the trained weights from what they were before, by a callback's or a user's hand too."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        if any(map(models.is_sharded_weight, weights)):
            return ()
        return tuple(float(weight.detach().float().norm()) for weight in weights)

    def _measure_now(
        self, records: Sequence[EditRecord], *, edited: bool, before: Measurement | None = None, drift: bool = True
    ) -> Measurement:
        if before is None and asks_unedited(records, self.args):
            # Raises where the unedited model is gone, and could not say what must stay.
            self._run_edited(False)
        settings: dict[str, Any] = {"texts": self.task.texts, "known": self.task.known, "seed": self.args.seed}
        with self._run_edited(edited) as model:
            return measure(model, self.processing_class, records, self.args, before=before, drift=drift, **settings)

    def _run_edited(self, edited: bool) -> AbstractContextManager[Any]:
        """Context with the model, edited or not; without an adapter no unedited one is left once training began."""
        model = self.accelerator.unwrap_model(self.model)
        if edited:
            return nullcontext(model)
        if self.state.global_step and not hasattr(model, "disable_adapter"):
            raise EditError(
                "the unedited model is gone after full_finetune: measure it before training, "
                "and give every neighborhood probe its target"
            )
        return unedited(model)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as [`~transformers.Trainer`] does; a full finetune measures the unedited model first."""
        if self.task.measured and not hasattr(self.model, "disable_adapter"):
            self._measure(edited=False)
        prior = self.task.continuation
        if prior and not prior.is_anew and not self.measurements.earlier:
            earlier = prior.still_measured(self.measurements.records)
            self.measurements.earlier = self.score_edits(earlier) if earlier else {}
        self._forget_edited()
        if self._scale:
            self._scale.multiply(1)  # of an earlier run
        # Settings may have changed since; and once FSDP has sharded the weights, they have no fingerprint.
        self.recipe = self._recipe_now()
        output = super().train(*args, **kwargs)
        if self.args.load_best_model_at_end or self._scale:
            self._forget_edited()
        if self._scale:
            settings = self.processing_class, self.task, self._prompts, self.args
            model, is_auto = self.accelerator.unwrap_model(self.model), self.args.strength == "auto"
            scores = measure_scales(self._scale, model, *settings) if is_auto else {}
            self.strength = set_strength(self._scale, self.args.strength, scores)
            # Logged, as a screen that takes no more must not cost the adapter before it is saved.
            if self.is_world_process_zero():
                logger.info("%s", strength_text(self.strength))
        return output

    def _forget_edited(self) -> None:
        """Drop measurements of other weights: of an earlier run, or of the last step where the best one is loaded."""
        self._folder = self.measurements.after = None

    def edit_results(self) -> dict[str, Any]:
        """Scores before and after, as `eval_results.json` holds them; also of the edits of `args.adapter`."""
        after = self._measure(edited=True)
        results = results_of({"before": self._measure(edited=False), "after": after})
        results["base_model"] = self.recipe["model_name_or_path"]
        results["base_model_revision"] = self.recipe.get("model_revision")
        if self.strength:
            results["strength"] = self.strength
        prior = self.task.continuation
        if prior and prior.revoked:
            prompts = [[edit.prompt, *edit.paraphrase_prompts] for edit in prior.revoked]
            answers = []
            for edited in (False, True):
                with self._run_edited(edited) as model:
                    parts = (self.processing_class, [*chain(*prompts)])
                    answers.append(greedy_answers(model, *parts, chat_template=self.args.chat_template))
            efficacy = self.score_edits(prior.revoked)["efficacy"]
            results["revoked"] = revocation(prompts, answers, efficacy, prior.name)
        elif prior and self.measurements.earlier:
            ids = [edit.edit_id for edit in prior.still_measured(after.records)]
            now = scores_of(after.predictions, ids, results["protocol"])
            results["retention"] = retention(self.measurements.earlier, now, prior.name)
        return results

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Write the adapter folder: weights, model card, edits, results, recipe; with `args.push_to_hub`, push it too.

        Edits that were not measured yet are measured now. Without edit records, and in checkpoints, only the weights
        are written. The folder is whole or not there: files are written aside and moved in.
        """
        if _internal_call or not self.task.measured:
            return super().save_model(output_dir, _internal_call)
        self.write_folder(output_dir)
        if self.args.push_to_hub:
            self.push_to_hub()
        return None

    def write_folder(self, output_dir: str | None = None) -> dict[str, Any]:
        """Write the adapter folder as [`~EditTrainer.save_model`] does, without a push; the results in it."""
        folder = output_dir or self.args.output_dir or OUTPUT_FOLDER
        if folder != self.args.output_dir and self.is_world_process_zero():  # that one was looked at before
            check_own(folder)
        model, tokenizer = self.accelerator.unwrap_model(self.model), self.processing_class
        prompts = [edit.prompt for edit in (self.task.edits or self.task.measured)[: hub.SHOWN_EDITS]]
        old, new = (self._measure(edited=edited).predictions for edited in (False, True))
        evaluated, before = EvaluatedModel(model, tokenizer, self.args), None
        if hasattr(model, "disable_adapter"):
            with self._run_edited(False):
                before = hub.card_answers(evaluated, prompts, old)
        results = {**self.edit_results(), **hub.examples(evaluated, prompts, before, new)}
        # Sharded weights are gathered by all processes together, before the first one writes.
        is_spread = self.is_fsdp_enabled or (self.is_deepspeed_enabled and self.model_wrapped is not self.model)
        state_dict = self.accelerator.get_state_dict(self.model_wrapped) if is_spread else None
        if self.args.should_save:
            content: dict[str, Any] = {"records": self.task.saved_records(self.measurements.records)}
            content |= {"results": results, "recipe": self.recipe, "state_dict": state_dict}
            hub.save_edit_folder(folder, model, tokenizer, **content)
        self.accelerator.wait_for_everyone()
        self._folder = folder
        return results

    def push_to_hub(  # type: ignore[override] # it gives the page's address, and `Trainer` a commit's
        self,
        commit_message: str | None = COMMIT_MESSAGE,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> str | None:
        """
        Push the adapter folder to `args.hub_model_id` in one commit, and wait for it; see [`~hf_ftedit.push_folder`].

        `token`, `revision` and `private` default to those of `args`; the card needs nothing of `kwargs`, such as the
        `dataset_name` that [`~transformers.Trainer`] takes. Returns the address of the model's page, `None` on other
        processes than the first. Where the Hub refuses, an [`~hf_ftedit.EditError`] names the folder, which is whole.
        """
        if not self.task.measured:
            raise EditError(NOTHING_TO_PUSH)
        if self._folder is None:
            self.write_folder()
        url = None
        if self.is_world_process_zero():
            folder, name, args = str(self._folder), repo_name(self.args), self.args
            settings: dict[str, Any] = {"private": args.hub_private_repo if private is None else private}
            settings |= {"token": token or args.hub_token, "revision": revision or args.hub_revision}
            try:
                url = hub.push_folder(folder, name, commit_message=commit_message or COMMIT_MESSAGE, **settings)
            except EditError as error:
                again = f"hf-ftedit push {folder} --repo_id {name}"
                raise EditError(f"{error}; {folder} is complete, to push it later: {again}") from error
            logger.info("Pushed to %s", url)
        self.accelerator.wait_for_everyone()
        return url

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Nothing: a repository is made when there is something to push."""

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """
        Write metrics as [`~transformers.Trainer`] does: `train_results.json` and so on, and all in `all_results.json`.

        Only `eval_results.json` of a finished adapter folder, which has these scores and more, stays as it is: the
        metrics go to `evaluate_results.json` there.
        """
        # Scripts of transformers end with it, and a folder whose results were replaced could not be pushed any more.
        if f"{split}_results.json" == RESULTS_FILE and is_finished(Path(self.args.output_dir or OUTPUT_FOLDER)):
            split = "evaluate"
        super().save_metrics(split, metrics, combined)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights of a checkpoint, without the pickled arguments that `Trainer` adds: a token stands in them."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir or OUTPUT_FOLDER)
            hub.save_weights(folder, self.accelerator.unwrap_model(self.model), self.processing_class, state_dict)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the card is written with the adapter folder, when there are results to show."""


def repo_name(args: EditConfig) -> str:
    """The repository to push to: `hub_model_id`, or the name of the folder that is written."""
    return args.hub_model_id or Path(args.output_dir or OUTPUT_FOLDER).absolute().name
