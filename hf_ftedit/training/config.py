"""Training configuration: TRL's `SFTConfig` with the settings of an edit and the paper's defaults."""

import json
import logging
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from accelerate import ParallelismConfig
from accelerate.utils import get_int_from_env
from transformers import PretrainedConfig
from transformers.utils import is_torch_bf16_gpu_available, is_torch_xla_available
from trl import ModelConfig, SFTConfig

from hf_ftedit.errors import EditError, first_line, refusals_of_libraries, shown
from hf_ftedit.options import OUTPUT_FOLDER, EditOptions, check_settings, check_value, option
from hf_ftedit.text import without_secrets

logger = logging.getLogger(__name__)

LESS_IS_BETTER = ("drift", "perplexity", "old_answer_said", "old_answer_probability")  # of scores
BY_METRIC = ("reduce_lr_on_plateau", "greedy")  # schedules that follow `metric_for_best_model`


@dataclass
class EditConfig(EditOptions, SFTConfig):
    r"""
    Configuration of [`EditTrainer`]: all of [`~trl.SFTConfig`], all of [`EditOptions`], and these other defaults.

    - `lr_scheduler_type` cosine, `num_train_epochs` 6, `per_device_train_batch_size` 32: the paper's (Gangadhar &
      Stratos 2024); with `chat_template` 1 and 8, as its rows pass through the edits several times;
    - `learning_rate`: by the model's width, see [`learning_rate_for`]: the paper's 7e-5 for a LoRA on a model as wide
      as GPT-J or an 8B Llama, more for a narrower one;
    - `bf16`: where the hardware has it, instead of everywhere;
    - `max_length`: `None`. Nothing is cut: a row longer than this, or than the model's context, is an error;
    - `router_aux_loss_coef` 0: experts are not made to share the work;
    - `save_strategy`: `"no"`. The adapter is saved at the end; set `"steps"` or `"epoch"` to be able to resume;
    - `restore_callback_states_from_checkpoint`: `True`, as early stopping counts evaluations;
    - `output_dir` `"edited-adapter"`, `train_sampling_strategy` `"group_by_length"`, `activation_checkpointing` and
      `ddp_find_unused_parameters` `False`, `hub_strategy` `"end"`, and `use_cpu` with several processes and no
      accelerator.

    Several GPUs are used through `accelerate launch`, one process each; without it, one of them is.

    Raises:
        [`~hf_ftedit.EditError`]: an option has a value that it cannot take.
    """

    output_dir: str | None = option(OUTPUT_FOLDER, "Where the adapter folder is written.")
    learning_rate: float | None = option(  # type: ignore[assignment]
        None, "Peak learning rate; 0.287 / the model's hidden size if not given."
    )
    num_train_epochs: float | None = option(  # type: ignore[assignment]
        None, "Passes over the rows; 6 if not given, 1 with chat_template."
    )
    per_device_train_batch_size: int | None = option(  # type: ignore[assignment]
        None, "Rows of a batch on one device; 32 if not given, 8 with chat_template."
    )
    lr_scheduler_type: str = option("cosine", "Learning-rate schedule.")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length", "batch_rebalance"] = option(
        "group_by_length", "How batches are drawn; rows of similar length go together."
    )
    max_length: int | None = option(None, "Most tokens of a row; a longer one is an error, never cut.")
    # Rows of twenty tokens need no memory for time.
    activation_checkpointing: bool | None = option(None, "Recompute activations: less memory, a fifth more time.")
    gradient_checkpointing: bool | None = option(  # type: ignore[assignment]
        None,
        "Older name of activation_checkpointing.",  # by which TRL would turn it on
    )
    save_strategy: str = option("no", "When checkpoints are written; 'steps' or 'epoch' to resume.")
    restore_callback_states_from_checkpoint: bool = option(True, "Resume callbacks, such as early stopping, too.")
    hub_strategy: str = option("end", "When to push; only the finished adapter is.")
    router_aux_loss_coef: float | None = option(0.0, "Weight of the loss that spreads tokens over experts, if given.")
    # Every trained weight has a part in every batch, but for experts that no row is sent to.
    ddp_find_unused_parameters: bool | None = option(
        False, "Look for trained weights without a part in a batch (DDP)."
    )

    def __post_init__(self) -> None:
        # TRL's name for it: a script that was written for `SFTTrainer` keeps its meaning.
        if self.completion_only_loss is False:
            self.objective = "full"
        EditOptions.__post_init__(self)
        self.router_aux_loss_coef = self.router_aux_loss_coef or 0.0  # `None` would be the model's own
        if self.num_train_epochs is None:
            self.num_train_epochs = 1.0 if self.chat_template else 6.0
        if self.per_device_train_batch_size is None:
            self.per_device_train_batch_size = 8 if self.chat_template else 32
        if get_int_from_env(["WORLD_SIZE"], 1) > 1 and not torch.accelerator.is_available():
            # Without it `Trainer` joins no process group where there is no accelerator: each would train alone.
            self.use_cpu = True
        if self.bf16 is None:
            self.bf16 = not self.fp16 and not self.use_cpu and has_bf16()
        if not torch.accelerator.is_available():
            # There is nothing to pin memory for, and PyTorch would warn at every run.
            self.dataloader_pin_memory = False
        is_by_metric = self.lr_scheduler_type in BY_METRIC
        needs_metric = self.load_best_model_at_end or self.save_strategy == "best" or is_by_metric
        if needs_metric and self.metric_for_best_model is None:
            # `Trainer` would choose by the loss of the training rows, which falls while locality is lost.
            self.metric_for_best_model, self.greater_is_better = "edit_score", True
        if self.greater_is_better is None and str(self.metric_for_best_model).endswith(LESS_IS_BETTER):
            self.greater_is_better = False  # `Trainer` takes that of losses alone to be better where it is less
        if self.push_to_hub and self.hub_strategy != "end":
            raise EditError(
                f"hub_strategy is {str(self.hub_strategy)!r}: only what is finished is pushed; leave it at 'end'"
            )
        if self.bf16 and not (self.use_cpu or is_torch_bf16_gpu_available() or is_torch_xla_available()):
            raise EditError(
                "bf16 is on, and no accelerator here has it: leave it out, or set bf16=False (--bf16 false); to train "
                "in bfloat16 on the CPU, add use_cpu=True (--use_cpu)"
            )
        if self.activation_offloading and not torch.accelerator.is_available():
            raise EditError("activation_offloading needs an accelerator, and none is here; leave it out")
        if not isinstance(self.parallelism_config, ParallelismConfig | None):
            value = shown(self.parallelism_config)
            raise EditError(f"parallelism_config is {value}: give an accelerate.ParallelismConfig, or leave it out")
        self._check_texts()
        with refusals_of_libraries():
            SFTConfig.__post_init__(self)
            if is_by_metric:  # its own default would lower the rate while a score rises
                mode = "max" if self.greater_is_better else "min"
                self.lr_scheduler_kwargs = {"mode": mode, **(self.lr_scheduler_kwargs or {})}  # type: ignore[dict-item]
        if self.n_gpu > 1:
            # Without `accelerate launch`, `Trainer` would wrap the model in `DataParallel`, which tears our batches.
            logger.warning("one of %d GPUs is used; to use all: accelerate launch -m hf_ftedit train", self.n_gpu)
            self._n_gpu = 1

    def _check_texts(self) -> None:
        """Check settings that a command line gives as text: dictionaries in JSON, and a number or a word."""
        for name in self._VALID_DICT_FIELDS:
            value = getattr(self, name)
            if isinstance(value, str) and value.startswith("{"):
                try:
                    json.loads(value)
                except ValueError as error:
                    raise EditError(f"{name} is not valid JSON ({first_line(error)}); correct it") from error
        pad = self.pad_to_multiple_of
        if pad not in ("auto", "none", "null"):
            pad = int(pad) if isinstance(pad, str) and pad.lstrip("-").isdigit() else pad
            self.pad_to_multiple_of = check_value("pad_to_multiple_of", pad, int | None)

    # A token may stand in `model_init_kwargs` too; and a dataclass would show `hub_token`, which its parents hide.
    def __repr__(self) -> str:
        settings = without_secrets({field.name: getattr(self, field.name) for field in fields(self) if field.repr})
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    __str__ = __repr__

    def to_dict(self) -> dict[str, Any]:
        """The settings, such as they are logged with a run: `***` stands for what is secret."""
        return without_secrets(super().to_dict())


@dataclass
class EditModelConfig(ModelConfig):
    """[`~trl.ModelConfig`] with the paper's LoRA on by default: rank 32, alpha 64, dropout 0.05, all linear layers."""

    use_peft: bool = option(True, "Train a LoRA adapter; see also `full_finetune`.")
    lora_r: int = option(32, "Rank of the LoRA.")
    lora_alpha: int = option(64, "Scale of the LoRA, times 1/rank.")
    lora_target_modules: list[str] | None = option(["all-linear"], "Layers to adapt; all linear ones by default.")
    dtype: str | None = option(
        None,
        "Precision of the weights: bfloat16 for a LoRA on a GPU that has it, else float32, unless given.",
        choices=["auto", "bfloat16", "float16", "float32"],
    )

    def __post_init__(self) -> None:
        if self.dtype is None:
            self.dtype = "bfloat16" if self.use_peft and has_bf16() else "float32"
        check_settings(self)
        if self.lora_task_type != "CAUSAL_LM":
            raise EditError(f"lora_task_type is {shown(self.lora_task_type)}: leave it out; only CAUSAL_LM is edited")
        with refusals_of_libraries():
            super().__post_init__()


def learning_rate_for(config: PretrainedConfig, *, full_finetune: bool = False, chat: bool = False) -> float:
    """
    Peak learning rate for a model: 7e-5 at a hidden size of 4096, and in inverse proportion to it at others.

    7e-5 is what Gangadhar & Stratos (2024) train a LoRA on GPT-J with. That Adam's best learning rate is inversely
    proportional to the width is from Yang et al. (2022, arXiv 2203.03466, table 3). At a hidden size of 256 half and
    twice the rate were worse, and so was more than a tenth of it for all weights: see examples/benchmarks/README.md.
    In a chat, where few steps must do, twice as much: at the plain rate one of ten edits was not learned in time.
    """
    width = getattr(config.get_text_config(), "hidden_size", 4096)
    return float(f"{7e-5 * 4096 / width / (10 if full_finetune else 1) * (2 if chat else 1):.2g}")


def has_bf16() -> bool:
    """Tell whether there is an accelerator with bfloat16; one that computes it by way of float32 is slower by it."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
