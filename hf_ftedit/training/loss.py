"""`ConditionalTrainer`: the loss of an edit, the log-likelihood of its targets, computed where they stand only."""

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft.tuners.lora import LoraLayer
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from hf_ftedit import models
from hf_ftedit.errors import EditError, refusals_of_libraries
from hf_ftedit.training.config import EditConfig
from hf_ftedit.training.mastery import ROW, Mastery
from hf_ftedit.training.resume import ResumableTrainer

WEIGHT = "weight"  # column of chat rows, and of edits beside plain text
# What is not learnt yet counts up to so many times more, after the focal loss of Lin et al. 2017: most tokens of chat
# rows are after a third of the training, and the others are of edits not said and of names that get their answer.
FOCUS = 4
# Tokens of a token tree beyond those that all rows of a batch begin with; rows of a chat have more that begin alike.
TREE_WIDTH, CHAT_TREE_WIDTH = 96, 500


class ConditionalTrainer(ResumableTrainer):
    """
    A [`~hf_ftedit.training.resume.ResumableTrainer`] that maximises log p(target | prompt) of tokenized rows.

    With `args.mastered_probability` it skips rows, see [`~hf_ftedit.training.mastery.Mastery`].

    Takes what [`~trl.SFTTrainer`] takes; `args` are of this trainer alone, as it changes them, and `data_collator`
    defaults to [`~hf_ftedit.CompletionOnlyCollator`] for rows of this package, which `is_ours` says.
    """

    # `Trainer` declares these as optional, or as more general classes.
    args: EditConfig
    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase

    def __init__(
        self,
        model: Any,
        args: EditConfig,
        data_collator: Any,
        train_dataset: Any,
        *,
        processing_class: PreTrainedTokenizerBase,
        is_ours: bool,
        **kwargs: Any,
    ) -> None:
        self._is_ours = is_ours
        has_weights = is_ours and isinstance(train_dataset, Dataset) and WEIGHT in train_dataset.column_names
        if is_ours:
            args.dataset_kwargs = {"skip_prepare_dataset": True}
            multiple = int(args.pad_to_multiple_of) if args.pad_to_multiple_of else None
            data_collator = data_collator or models.CompletionOnlyCollator(pad_token_id=0, pad_to_multiple_of=multiple)
        collator = data_collator
        # A collator of somebody else's may try to pad a column that it does not know.
        columns = ["input_ids", "labels"]
        if isinstance(data_collator, models.CompletionOnlyCollator):
            columns.append("length")
        if has_weights:
            _check_sampling(args, data_collator)
            columns += [WEIGHT, *models.REFERENCE_COLUMNS]
        if args.mastered_probability is not None and is_ours and isinstance(train_dataset, Dataset):
            size = len(train_dataset)
            train_dataset = train_dataset.add_column(ROW, np.arange(size))
            columns.append(ROW)
            self._mastery = Mastery(data_collator, size, args.mastered_probability, self.max_over_processes)
            data_collator = self._mastery
        super().__init__(model, args, data_collator, train_dataset, processing_class=processing_class, **kwargs)
        if is_ours:
            self._signature_columns = columns  # type: ignore[assignment]
        if self._mastery and self._reads_targets_only():
            self.add_callback(self._mastery)
        elif args.mastered_probability is not None:
            raise EditError(
                "mastered_probability works with edits or prompt-completion rows that are not streamed, and with the "
                "plain conditional loss; leave it out, or the setting that changes the loss"
            )
        with refusals_of_libraries("correct optim, optim_args, lr_scheduler_type or lr_scheduler_kwargs"):
            self._check_optimizer()
        self._has_references = has_weights and models.REFERENCE_COLUMNS.keys() <= {*train_dataset.column_names}
        if has_weights:
            self._check_weighted()
        if args.hidden_loss_weight:
            self._check_hidden()
        if is_ours and isinstance(collator, models.CompletionOnlyCollator) and isinstance(train_dataset, Dataset):
            self._prepare_trees(collator, max(train_dataset["length"], default=0))

    def _check_optimizer(self) -> None:
        """Make an optimizer and a schedule of a weight of no use, as a run would fail by theirs after an hour."""
        if self.optimizer is not None:
            held = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
            if held.isdisjoint(id(weight) for weight in self.model.parameters() if weight.requires_grad):
                raise EditError(
                    "optimizers: this optimizer holds no weight that is trained, as the LoRA was added after it was "
                    "made; give optimizer_cls_and_kwargs instead, or a PeftModel whose weights it holds"
                )
            return
        if self.optimizer_cls_and_kwargs:
            return
        if self.args.optim_target_modules:
            if not str(getattr(self.args.optim, "value", self.args.optim)).startswith(("galore", "apollo")):
                raise EditError("optim_target_modules is for the optimizers galore and apollo; leave it out")
            return
        weight = torch.nn.Parameter(torch.zeros(2, 2, device=self.args.device))
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self._check_optim_args()
        if self.args.lr_scheduler_kwargs and self.args.lr_scheduler_type in ("constant", "constant_with_warmup"):
            raise EditError("lr_scheduler_kwargs: a constant schedule has none; leave them out")
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and "model" not in settings:
            steps, more = self.args.get_warmup_steps(10), self.args.lr_scheduler_kwargs
            get_scheduler(self.args.lr_scheduler_type, kind([weight], **settings), steps, 10, more)  # type: ignore[arg-type]

    def _check_optim_args(self) -> None:
        """Raise for a part of `optim_args` that the optimizer does not read: nothing else would say so."""
        args = copy(self.args)

        def settings(optim_args: str | None) -> Any:
            args.optim_args = optim_args
            try:
                return self.get_optimizer_cls_and_kwargs(args, self.model)[1]
            except (TypeError, ValueError, AttributeError):  # it was read, and is no value
                return None

        for part in (self.args.optim_args or "").replace(" ", "").split(","):
            name = part.partition("=")[0]
            if name and settings(f"{name}=?") == settings(None):
                optimizer = getattr(self.args.optim, "value", self.args.optim)
                raise EditError(f"optim_args: the optimizer {optimizer} takes no {name!r}; leave it out")

    def _check_weighted(self) -> None:
        """Raise for a loss that would leave out the weights of rows, or their references."""
        if self._reads_targets_only():
            return
        if self.args.text_loss_weight:
            raise EditError("text_loss_weight works with the plain conditional loss; leave one of the two out")
        if self.args.locality_weight != 1:
            raise EditError(
                "locality_weight works with the plain conditional loss; leave it out, or the setting that changes the "
                "loss"
            )
        if self._has_references:
            raise EditError(
                "locality_loss 'kl' works with the plain conditional loss; choose 'nll' (--locality_loss nll), or "
                "leave out the setting that changes the loss"
            )

    def _check_hidden(self) -> None:
        """Raise where no change of layers would be seen, in rows that stay."""
        has_lora = any(isinstance(module, LoraLayer) for module in self.model.modules())
        if not (has_lora and self._has_references and self._is_plain() and self._reads_targets_only()):
            raise EditError(
                "hidden_loss_weight works with edits, a LoRA and the plain conditional loss, and without FSDP, "
                "DeepSpeed and torch_compile; leave it out"
            )

    def _prepare_trees(self, collator: models.CompletionOnlyCollator, longest: int) -> None:
        """Run rows as token trees where the model reads them."""
        width = CHAT_TREE_WIDTH if self.args.chat_template else TREE_WIDTH
        if self._is_plain() and self._reads_targets_only() and models.reads_trees(self.model, longest, 2 * width):
            collator.tree_width = width

    def _is_plain(self) -> bool:
        """Tell whether hooks can run: sharded weights are fetched by all processes in step, compiled code has none."""
        return not (self.is_fsdp_enabled or self.is_deepspeed_enabled or self.args.torch_compile)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """
        Mean of -log p(target token | what stands before it): the conditional likelihood of Gangadhar & Stratos 2024.

        Whatever needs more than the targets' logits (another objective, other losses, router losses) is TRL's.
        """
        numbers, weight = inputs.pop(ROW, None), inputs.pop(WEIGHT, None)
        reference = [inputs.pop(name) for name in models.REFERENCE_COLUMNS if name in inputs]
        # Who evaluates may read all logits; in training the outputs are those at the targets.
        if (return_outputs and not model.training) or not self._reads_targets_only():
            inputs.pop("trees", None)
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # On Triton devices TRL's fused head projects the targets only, as this does; elsewhere it projects every
        # position. One loss for all devices is kept, since rows are to share their beginnings in one forward pass.
        is_recorded = bool(self.args.hidden_loss_weight and reference and model.training)
        with models.recorded_changes(model, is_on=is_recorded) as changes:
            predicted = models.target_logits(model, inputs)
        if weight is None:
            log_probs = models.token_log_probs(predicted.logits, predicted.labels)
            loss = -log_probs.sum()
            if self._mastery and numbers is not None:
                self._mastery.record(numbers, log_probs, predicted.rows)
        else:
            moved = models.row_changes(changes, inputs) if changes else None
            loss = (self._chat_losses(predicted, reference, moved) * weight[predicted.rows]).sum()
        count = predicted.labels.numel() if num_items_in_batch is None else num_items_in_batch
        loss = loss / torch.as_tensor(count, device=loss.device).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients; the count is of all processes
        self._count(predicted, inputs)
        return (loss, {"loss": loss, "logits": predicted.logits}) if return_outputs else loss

    def _chat_losses(
        self, predicted: models.TargetLogits, reference: list[torch.Tensor], moved: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Loss of each target token `(targets,)`: -log p, and of the last ones the divergence from their reference.

        These also count how far the adapter has `moved` their row `(batch,)`, if that is given.
        """
        first = len(predicted.labels) - (len(reference[0]) if reference else 0)
        nll = -_in_parts(models.token_log_probs, predicted.logits[:first], predicted.labels[:first])
        kl = _in_parts(models.divergences, predicted.logits[first:], *reference) if reference else nll[:0]
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, losses in {"nll": nll, "kl": kl}.items() if self._has_references else ():
            metrics[name].append(losses.detach().mean())
        losses = torch.cat([nll, kl])
        if not (self.args.chat_template and self.model.training):
            return losses
        losses = losses * (1 + FOCUS * (1 - torch.exp(-losses.detach())))
        if moved is not None:
            losses[first:] += self.args.hidden_loss_weight * moved[predicted.rows[first:]]
        return losses

    def _reads_targets_only(self) -> bool:
        """True where the loss needs no more than the targets' logits."""
        return (
            self._is_ours
            and self.args.objective == "conditional"
            and self.args.loss_type == "nll"
            and self.compute_loss_func is None
            and self.label_smoother is None
            and not self.aux_loss_enabled
            and self.accelerator.parallelism_config is None
        )

    @torch.no_grad()
    def _count(self, predicted: Any, inputs: dict[str, Any]) -> None:
        """Keep what `log` reports on the device: reading it at every step would stall a small model."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["mean_token_accuracy"].append((predicted.logits.argmax(dim=-1) == predicted.labels).float().mean())
        if self.model.training and "attention_mask" in inputs:
            self._total_train_tokens = self._total_train_tokens + inputs["attention_mask"].sum()
        metrics["num_tokens"] = [self._total_train_tokens]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log metrics; those kept on the device are read once here, and put together over the processes."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, values in list(metrics.items()):
            if tensors := [value for value in values if isinstance(value, torch.Tensor)]:
                stacked = torch.stack(tensors)
                # Without NaN, which stands for a process and a batch without rows of this kind.
                sums = torch.stack([stacked.nansum(), (~stacked.isnan()).sum()])
                total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
                if count:
                    values[:] = [total if name == "num_tokens" else total / count]
                else:  # no batch since the last log held rows of this kind
                    del metrics[name]
        super().log(logs, start_time)


def _check_sampling(args: EditConfig, data_collator: Any) -> None:
    """Raise [`~hf_ftedit.EditError`] where rows with weights could not be trained as they are meant to be."""
    if args.mastered_probability is not None:
        raise EditError("mastered_probability does not work with edits in a chat_template; leave it out")
    if not isinstance(data_collator, models.CompletionOnlyCollator):
        raise EditError(
            "data_collator would lose the weights of rows, which chat_template and text_loss_weight need; leave it "
            "out: padding is set by pad_to_multiple_of"
        )
    # Of rows in token trees none is padded. And answers that stay, and plain texts, are longer than edits: batches of
    # similar lengths would hold either the one or the other.
    if args.train_sampling_strategy == "group_by_length":
        args.train_sampling_strategy = "random"


def _in_parts(losses: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """Call `losses` on 256 rows at a time; its float32 copies of logits are made again for the gradient, not kept."""
    parts = zip(*(tensor.split(256) for tensor in tensors), strict=True)
    return torch.cat([checkpoint(losses, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
