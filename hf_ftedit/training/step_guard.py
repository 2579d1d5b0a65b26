"""What is looked at in every step of training: whether all is still a number, and whether somebody wants to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_ftedit.errors import EditError
from hf_ftedit.models import whole_tensor
from hf_ftedit.training.signals import Stopped, wished

logger = logging.getLogger(__name__)

LONG = 2000  # steps from which on a run without checkpoints is told of
_NOT_FINITE = 1000  # beyond the numbers of signals


@dataclass(eq=False)
class StepGuard(TrainerCallback):
    """
    What is looked at in every step: whether all is still a number, and whether somebody wants to stop.

    Args:
        agree (`Callable`):
            Gives the greatest of all processes' numbers.
        n_processes (`int`):
            How many there are.
    """

    agree: Callable[[int], int]
    n_processes: int
    losses: list[torch.Tensor] = field(default_factory=list)
    norm: Any = None
    sampler: EpochSampler | None = None
    stop: int = 0  # the signal that all processes agreed on
    epoch_ends: bool = False  # whether what belongs to the end of the epoch comes behind this step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of what a kill would cost."""
        if args.save_strategy == "no" and state.max_steps >= LONG and state.is_world_process_zero:
            logger.warning(
                "%d steps without checkpoints: a run that is killed would begin again; --save_strategy steps writes "
                "one every --save_steps",
                state.max_steps,
            )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the sampler which epoch it is."""
        if self.sampler is not None:
            self.sampler.epoch = int(state.epoch or 0)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop on what is no number, before the weights take it in."""
        losses, self.losses = self.losses, []
        found = self.agree(wished() if _all_finite([*losses, self.norm]) else _NOT_FINITE)
        if found == _NOT_FINITE:
            raise not_finite(state.global_step + 1, losses, self.norm)
        self.stop = found

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint; behind an epoch's last step it is saved after what belongs to the epoch's end."""
        self.stop = self.stop or (wished() if self.n_processes == 1 else 0)
        self.epoch_ends = float(state.epoch or 0).is_integer()
        control.should_save |= bool(self.stop) and not self.epoch_ends

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint."""
        self.epoch_ends = False
        control.should_save |= bool(self.stop)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, now that it is saved."""
        if self.stop and not self.epoch_ends:
            raise stopped_at(self.stop, state.global_step, Path(args.output_dir) / f"checkpoint-{state.global_step}")


class EpochSampler(Sampler[int]):
    """
    A sampler of transformers whose order depends on the seed and the epoch alone.

    By itself it draws from the process's random numbers, and a run that goes on in the middle of a later epoch would
    see its rows in another order.

    Args:
        sampler ([`~transformers.trainer_pt_utils.LengthGroupedSampler`]):
            The sampler.
        seed (`int`):
            The seed.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int) -> None:
        self._sampler, self._seed, self.epoch = sampler, seed, 0

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        self._sampler.generator = torch.Generator().manual_seed(self._seed + self.epoch)
        return iter(self._sampler)


def stopped_at(number: int, step: int, checkpoint: Path | None) -> Stopped:
    """What to say of a run that a signal stopped."""
    saved = f"saved in {checkpoint}; add --resume_from_checkpoint to go on" if checkpoint else "nothing is saved"
    return Stopped(number, f"at step {step}; {saved}")


def not_finite(step: int, losses: list[torch.Tensor], norm: Any) -> EditError:
    """What to say of a loss or a gradient that is no number."""
    found = ", ".join(f"{float(loss):g}" for loss in losses[:4])
    gradient = "" if norm is None else f", the norm of its gradient {float(whole_tensor(norm)):g}"
    return EditError(
        f"step {step}: the loss is {found}{gradient}; training stopped before the weights changed. Lower "
        "--learning_rate, use --dtype float32 or bfloat16 instead of float16, or --fp16 false; checkpoints of earlier "
        "steps are kept"
    )


def _all_finite(values: list[Any]) -> bool:
    tensors = [
        torch.as_tensor(whole_tensor(value)).detach().float().reshape(()) for value in values if value is not None
    ]
    device = tensors[0].device if tensors else None
    return not tensors or bool(torch.stack([value.to(device) for value in tensors]).isfinite().all())
