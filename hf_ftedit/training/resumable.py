"""`ResumableTrainer`: an `SFTTrainer` that can be killed, stopped or run out of disk, and goes on where it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xxhash
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from hf_ftedit.errors import EditError
from hf_ftedit.files import writing
from hf_ftedit.models import Processes
from hf_ftedit.options import PROVENANCE
from hf_ftedit.training.checkpoints import (
    ASIDE,
    RUN_FILE,
    STATE_FILE,
    check_checkpoint,
    check_run,
    move_in,
    newest_checkpoint,
    problem_of,
    remove_leftovers,
    rotate,
    written_aside,
)
from hf_ftedit.training.signals import Stopped, deferred, ignoring_signals, wished
from hf_ftedit.training.step_guard import EpochSampler, StepGuard, stopped_at

logger = logging.getLogger(__name__)

# Settings of a recipe that change nothing about the weights: a run may be gone on from with others.
MEASURING = (
    "protocol",
    "eval_tokens_per_batch",
    "predict_with_generate",
    "measure_fluency",
    "perplexity_texts",
    "skip_invalid",
)
STATE = "edit_state.pt"
GO_ON = "free some space, then add --resume_from_checkpoint to go on from the last one that is whole"


class ResumableTrainer(SFTTrainer):
    """
    An [`~trl.SFTTrainer`] whose runs can be gone on from exactly, and that stops in good order.

    - A checkpoint is whole or not there: it is written aside, checked, and moved to its place.
    - `train(resume_from_checkpoint=True)` goes on from the newest complete one, and from the beginning where there is
      none; a checkpoint of another run (other rows, base model or settings) is an error.
    - The order of the rows is the same after going on, with `train_sampling_strategy="group_by_length"` too.
    - A loss or a gradient that is no number stops training before the weights take it in.
    - Within [`~hf_ftedit.training.signals.stoppable`], SIGTERM and Ctrl-C save a checkpoint at the end of the step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._writes_aside = False
        self._run: dict[str, Any] = {}
        self._guard = StepGuard(self._agreed, self.accelerator.num_processes)
        self.add_callback(self._guard)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        Train as [`~transformers.Trainer`] does.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                A checkpoint folder to go on from; `True` for the newest complete one in `output_dir`, or the beginning
                where there is none.
            args:
                Passed to [`~transformers.Trainer`].
            kwargs:
                Passed to [`~transformers.Trainer`].

        Raises:
            [`~hf_ftedit.EditError`]: the checkpoint is incomplete or of another run; the loss became no
                number.
            [`~hf_ftedit.training.signals.Stopped`]: a signal asked for it, and a checkpoint was saved.
        """
        if resume_from_checkpoint or self.args.save_strategy != "no":
            self._run = run_of(self)  # before the weights are sharded
        checkpoint = self._checkpoint(resume_from_checkpoint)
        with deferred():
            output = super().train(checkpoint, *args, **kwargs)
            # A signal that came after the last step, as in the evaluation behind it.
            if number := self._agreed(wished()):
                raise self._stopped_at_the_end(number)
        return output

    @contextmanager
    def saving_when_stopped(self) -> Iterator[None]:
        """Context for what comes after training: a signal saves the last step first, where that is not saved."""
        try:
            yield
        except Stopped as stopped:
            if self.accelerator.num_processes > 1:  # stopped at different places, they cannot save together
                raise
            raise self._stopped_at_the_end(stopped.number) from None

    def _stopped_at_the_end(self, number: int) -> Stopped:
        """Save the last step, where that is not saved and its weights are still there; what to say of it."""
        output_dir = self.args.output_dir or "."
        folder: Path | None = Path(output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.load_best_model_at_end:  # the weights are the best step's now
            folder, _ = newest_checkpoint(output_dir)
        elif folder and not folder.is_dir():
            self._guard.stop = number
            self._save_checkpoint(self.model, None)
        return stopped_at(number, self.state.global_step, folder)

    def training_state(self) -> dict[str, Any]:
        """
        What else a checkpoint must hold to go on exactly, such as what a sampler learned; nothing here.

        Tensors, numbers, text, and lists and dicts of them, not pickled objects. All processes ask for it, and the
        main one's is saved.
        """
        return {}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what [`~ResumableTrainer.training_state`] gave, before the first step after going on."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As [`~trl.SFTTrainer`]'s; the losses of a step are kept until they are seen to be numbers."""
        loss = super().training_step(*args, **kwargs)
        self._guard.losses.append(loss)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # With a gradient scaler (fp16) infinite gradients are usual: it skips such a step by itself.
        self._guard.norm = None if getattr(self.accelerator, "scaler", None) else norm
        return norm

    def _agreed(self, number: int) -> int:
        """The greatest of all processes' numbers: what one of them found, all act on at the same step."""
        return number if self.accelerator.num_processes == 1 else int(self._most(torch.tensor(number)))

    def _most(self, values: torch.Tensor) -> torch.Tensor:
        """The greatest of all processes' values, element by element."""
        return self.accelerator.gather(values[None].to(self.args.device)).amax(dim=0)

    def _checkpoint(self, asked: str | bool | None) -> str | None:
        """The folder to go on from, the same one on every process."""
        if isinstance(asked, str):
            check_checkpoint(asked)
        found: Path | None = Path(asked) if isinstance(asked, str) else None
        output_dir = self.args.output_dir or "."
        if asked and self.is_world_process_zero():
            remove_leftovers(output_dir)
        if asked is True:
            found, passed = newest_checkpoint(output_dir)
            for name, problem in passed.items() if self.is_world_process_zero() else ():
                logger.warning("%s is passed over: %s", name, problem)
        chosen = [found]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(chosen)
        tells = chosen[0] is None or check_run(chosen[0], self._run)
        if asked and self.is_world_process_zero():
            at_start = "%s holds no complete checkpoint: training starts from the beginning"
            logger.info("Going on from %s" if found else at_start, found or output_dir)
            if not tells:
                logger.warning(
                    "%s has no edit_run.json: whether its settings are those of this run cannot be checked", found
                )
        return None if chosen[0] is None else str(chosen[0])

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.lengths = list(sampler.lengths[:])  # a column that stays on the disk is slow to ask one by one
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            sampler = self._guard.sampler = EpochSampler(sampler, seed)
        return sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """As [`~trl.SFTTrainer`]'s; its workers outlive a signal until the main process has saved."""
        loader: Any = super().get_train_dataloader()
        init = partial(ignoring_signals, loader.worker_init_fn)
        for part in (loader, getattr(loader, "base_dataloader", loader)):  # accelerate's own around PyTorch's
            part.worker_init_fn = init
        return loader

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # `Trainer` asks whether it is at its end behind each step only, and would take one more.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / ASIDE) if self._writes_aside else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A whole checkpoint, or none; then the oldest beyond `save_total_limit` go."""
        self._run = self._run or run_of(self)
        folder = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        self._writes_aside = True
        if self._guard.stop:
            self.args.save_only_model = False  # what is left to do needs the optimizer
        processes = Processes()
        try:
            with written_aside(folder, is_main=self.args.should_save) as aside:
                with processes.failing_together(), writing(folder / name):  # each has random numbers to save
                    super()._save_checkpoint(model, trial)
                    self._name_best(folder)
                    if self.args.should_save:
                        self.state.save_to_json(str(aside / name / STATE_FILE))
                        (aside / name / RUN_FILE).write_text(json.dumps(self._run, indent=2) + "\n", encoding="utf-8")
                with processes.failing_together(), writing(folder / name):
                    if self.args.should_save:
                        move_in(folder, name, GO_ON)
                        rotate(folder, self.args.save_total_limit, folder / name, self.state.best_model_checkpoint)
        finally:
            self._writes_aside = False

    def _name_best(self, folder: Path) -> None:
        """The best checkpoint by the name that it will have, not by where it is written."""
        best = self.state.best_global_step
        if best and self.args.save_strategy != "no":
            path = folder / f"checkpoint-{best}"
            if best == self.state.global_step or path.is_dir():
                self.state.best_model_checkpoint = str(path)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = self.training_state()
        if self.args.should_save and state:
            torch.save(state, Path(output_dir) / STATE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and self.args.load_best_model_at_end and (best := self.state.best_global_step):
            # `Trainer` looks for it where it was, and ends with another model where it is not.
            path = Path(checkpoint).parent / f"checkpoint-{best}"
            if problem := problem_of(path):
                remedy = "put it back, or begin again in another --output_dir"
                raise EditError(f"{path}, the best checkpoint so far, cannot be used: {problem}; {remedy}")
            self.state.best_model_checkpoint = str(path)
        if checkpoint and (file := Path(checkpoint) / STATE).is_file():
            self.load_training_state(torch.load(file, map_location="cpu", weights_only=True))


def run_of(trainer: Any) -> dict[str, Any]:
    """What decides the weights that a trainer comes to: settings by name, and hashes of rows and base model."""
    provenance = trainer.recipe[PROVENANCE]
    settings = {name: value for name, value in trainer.recipe.items() if name not in (*MEASURING, PROVENANCE)}
    return {
        **settings,
        "base_fingerprint": provenance.get("base_fingerprint"),
        "rows": rows_hash(trainer.train_dataset),
        "number of processes": trainer.accelerator.num_processes,
    }


def rows_hash(rows: Any) -> str | None:
    """A hash of all training rows; `None` of those that come one by one."""
    if not isinstance(rows, Dataset):
        return None
    found = xxhash.xxh3_128(json.dumps(rows.column_names).encode())
    for batch in rows.with_format("arrow").iter(1000):
        found.update(json.dumps(batch.to_pydict(), default=str).encode())
    return found.hexdigest()
