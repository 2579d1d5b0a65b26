"""`ResumableTrainer`: an `SFTTrainer` that ends with the same weights, whether or not it was killed on the way."""

import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash
from datasets import Dataset
from transformers import TrainerCallback, TrainerState
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import rotate_checkpoints
from trl import SFTTrainer

from hf_ftedit.errors import EditError, refusals_of_libraries
from hf_ftedit.files import writing
from hf_ftedit.models import REFERENCE_COLUMNS, fast_kernels, from_main
from hf_ftedit.options import PROVENANCE
from hf_ftedit.training.checkpoints import (
    STATE_FILE,
    check_checkpoint,
    check_run,
    mark_complete,
    newest_checkpoint,
    reading,
    remove_checkpoint,
    remove_leftovers,
)
from hf_ftedit.training.mastery import Mastery
from hf_ftedit.training.recipe import MEASURING, peft_settings
from hf_ftedit.training.signals import Stopped, deferred_signals, pending_signal

logger = logging.getLogger(__name__)

WARN_STEPS = 2000  # warn where a run this long saves no checkpoints
_TRAINING_STATE = "edit_state.pt"
# Settings of a recipe with others of which a run may be resumed: the scale is changed after the last checkpoint.
_OTHERS = {*MEASURING, "strength", PROVENANCE}


@dataclass(eq=False)
class StepGuard(TrainerCallback):
    """Stops a run in good order: on a NaN or infinite loss or gradient, and after a signal once the step is saved."""

    # The greatest of all processes' numbers: on a signal to one of them, all stop at the same step.
    agree: Callable[[int], int]
    losses: list[torch.Tensor] = field(default_factory=list)  # of the micro-batches of a step
    grad_norm: Any = None
    order: torch.Generator | None = None  # that rows are sorted by length with
    best: str | None = None  # path of the best checkpoint of a run that is resumed
    signal: int = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Correct the path of the best checkpoint; warn of what a kill would cost."""
        state.best_model_checkpoint = self.best or state.best_model_checkpoint
        if args.save_strategy == "no" and state.max_steps >= WARN_STEPS and state.is_world_process_zero:
            logger.warning(
                "%d steps without checkpoints: a run that is killed would begin again; --save_strategy steps writes "
                "one every --save_steps",
                state.max_steps,
            )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the order of the rows by seed and epoch alone, so that a run resumed in a later one has the same."""
        if self.order is not None:
            seed = args.seed if args.data_seed is None else args.data_seed
            self.order.manual_seed(seed + int(state.epoch or 0))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop on a NaN or infinite loss or gradient, before the weights change."""
        # No process has to hear of another's loss: the norm is of the gradient that all of them share.
        norms = (x.full_tensor() if hasattr(x, "full_tensor") else x for x in (*self.losses, self.grad_norm))
        scalars = [torch.as_tensor(x) for x in norms if x is not None]
        # Read in one transfer: each of its own would wait for the accelerator again.
        values = torch.stack([x.detach().float().reshape(()).to(scalars[0].device) for x in scalars]).tolist()
        losses = ", ".join(f"{value:g}" for value in values[: min(4, len(self.losses))])
        gradient = f", the norm of its gradient {values[-1]:g}" if len(values) > len(self.losses) else ""
        self.losses.clear()
        if not all(map(math.isfinite, values)):
            raise EditError(
                f"step {state.global_step + 1}: the loss is {losses}{gradient}; training stopped before the weights "
                "changed. Lower --learning_rate, use --dtype float32 or bfloat16 instead of float16, or --fp16 false; "
                "checkpoints of earlier steps are kept"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the step where a signal came."""
        # Behind the last step of an epoch comes its evaluation, which a run resumed from here would miss.
        if not float(state.epoch or 0).is_integer():
            self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the last step of an epoch where a signal came."""
        self.signal = self.agree(pending_signal())
        control.should_save |= bool(self.signal)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after a signal, now that the step is saved."""
        if self.signal:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            saved = f"saved in {checkpoint}; add --resume_from_checkpoint to go on"
            raise Stopped(self.signal, f"at step {state.global_step}; {saved}")


class ResumableTrainer(SFTTrainer):
    """
    An [`~trl.SFTTrainer`] that resumes exactly where its newest checkpoint is, and stops in good order.

    - `train(resume_from_checkpoint=True)` resumes from the newest complete checkpoint, and begins where there is none;
      a checkpoint of another run (other rows, base model or settings) is an error.
    - The order of the rows is the same after resuming, with `train_sampling_strategy="group_by_length"` too.
    - A NaN or infinite loss or gradient stops training before the weights change.
    - Within [`~hf_ftedit.training.signals.stoppable`], SIGTERM and Ctrl-C save a checkpoint at the end of the step,
      and raise [`~hf_ftedit.training.signals.Stopped`].
    """

    recipe: dict[str, Any]
    _mastery: Mastery | None = None  # of a subclass; a checkpoint holds its state

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with refusals_of_libraries():
            super().__init__(*args, **kwargs)
        self._limit: int | None = None
        self._guard = StepGuard(lambda number: int(self.max_over_processes(torch.tensor(number))))
        self.add_callback(self._guard)

    @cached_property
    def _run(self) -> dict[str, Any]:
        """What decides the weights that this run comes to: settings, and hashes of rows and base model."""
        # Only where a checkpoint is written or read: rows by the thousand take their time.
        fingerprint = self.recipe[PROVENANCE].get("base_fingerprint")
        settings = {name: value for name, value in self.recipe.items() if name not in _OTHERS}
        hashes = {"base_fingerprint": fingerprint, "rows": rows_hash(self.train_dataset)}
        model = self.accelerator.unwrap_model(self.model)
        lora = peft_settings(getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", None)))
        return {**settings, **lora, **hashes, "number of processes": self.accelerator.num_processes}

    def train(
        self, resume_from_checkpoint: str | os.PathLike[str] | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As [`~transformers.Trainer`]'s; what the class says is an error is an [`~hf_ftedit.EditError`]."""
        self._guard.best, self._guard.signal = None, 0
        self.__dict__.pop("_run", None)  # settings may have changed since an earlier run
        checkpoint = self._checkpoint(resume_from_checkpoint) if resume_from_checkpoint else None
        # `Trainer` would remove old checkpoints before the new one is marked: a kill between the two would leave none.
        self._limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            # After a step it is no setting that a library refuses, such as a mode of `torch.compile`.
            with deferred_signals(), refusals_of_libraries(when=lambda: self.state.global_step == 0):
                return super().train(checkpoint, *args, **kwargs)
        finally:
            self.args.save_total_limit = self._limit

    def _checkpoint(self, resume: str | os.PathLike[str] | bool) -> str | None:
        """The folder to resume from, the same one in every process, after the state of this class is restored."""
        output_dir = Path(self.args.output_dir or ".")
        folder: Path | None = None
        if self.is_world_process_zero():
            remove_leftovers(output_dir)
            folder = newest_checkpoint(output_dir) if isinstance(resume, bool) else check_checkpoint(os.fspath(resume))
            start = "Resuming from %s" if folder else "%s holds no complete checkpoint: training begins"
            logger.info(start, folder or output_dir)
        if (folder := from_main(folder)) is None:
            return None
        with reading(folder):
            self._restore(folder)
        return str(folder)

    def _restore(self, folder: Path) -> None:
        check_run(folder, self._run)
        state = TrainerState.load_from_json(str(folder / STATE_FILE))
        if not 0 < state.global_step <= state.max_steps:
            raise ValueError(f"{STATE_FILE} has no step")
        if best := state.best_model_checkpoint:
            # `Trainer` looks for it where it was, and would end with other weights where it is not.
            path = folder.parent / Path(best).name
            if self.args.load_best_model_at_end and not path.is_dir():
                raise EditError(f"{path}, the best checkpoint so far, is missing; put it back, or begin elsewhere")
            self._guard.best = str(path) if path.is_dir() else None
        if self._mastery and (file := folder / _TRAINING_STATE).is_file():
            self._mastery.load_state(torch.load(file, map_location="cpu", weights_only=True)["mastery"])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with reading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(checkpoint):
            super()._load_rng_state(checkpoint)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """As [`~transformers.Trainer`]'s, but none for a run that was resumed at its last step."""
        # `Trainer` compares with `max_steps` behind each step only, and would take one more.
        is_over = self.state.global_step >= self.state.max_steps
        return super().get_batch_samples(epoch_iterator, 0 if is_over else num_batches, device)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As [`~trl.SFTTrainer`]'s; the losses of a step are kept until they are seen to be finite."""
        with fast_kernels(self.model):
            loss = super().training_step(*args, **kwargs)
        self._guard.losses.append(loss)
        return loss

    def max_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """The greatest of all processes' values, element by element."""
        if self.accelerator.num_processes == 1:
            return values
        return self.accelerator.gather(values[None].to(self.args.device)).amax(dim=0)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # With a gradient scaler (fp16) infinite gradients are usual: it skips such a step by itself.
        self._guard.grad_norm = None if getattr(self.accelerator, "scaler", None) else norm
        return norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            # `Trainer` makes it without a generator, so that it draws from the process's random numbers.
            self._guard.order = sampler.generator = torch.Generator()
            # As a list: a column that stays on the disk is slow to index row by row.
            sampler.lengths = list(sampler.lengths[:])
        return sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint and mark it as complete; only then remove the oldest beyond `save_total_limit`."""
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            remove_checkpoint(folder)  # half-written, or of a run that was resumed at an earlier step
        self.accelerator.wait_for_everyone()
        if self._guard.signal:
            self.args.save_only_model = False  # what is left to do needs the optimizer
        with writing(folder):
            super()._save_checkpoint(model, trial)
        mastered = self._mastery.state() if self._mastery else None  # all processes call it
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            if mastered:
                torch.save({"mastery": mastered}, folder / _TRAINING_STATE)
            if not self.args.save_only_model:  # without the optimizer nothing can be resumed
                mark_complete(folder, self._run)
            rotate_checkpoints(str(folder.parent), self._limit, self.state.best_model_checkpoint, use_mtime=True)


def rows_hash(rows: Any) -> str | None:
    """Hash all training rows; `None` for streamed ones."""
    if not isinstance(rows, Dataset):
        return None
    # References are the base model's, which has a fingerprint: made anew, the last bits of its float16 may differ.
    rows = rows.remove_columns([name for name in REFERENCE_COLUMNS if name in rows.column_names])
    digest = xxhash.xxh3_128(json.dumps(rows.column_names).encode())
    for batch in rows.with_format("arrow").iter(1000):
        digest.update(json.dumps(batch.to_pydict(), default=str).encode())
    return digest.hexdigest()
