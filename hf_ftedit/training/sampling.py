"""The order of a chat's training rows: those behind the same earlier turns stand together, to be run once a batch."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class DialogueSampler(Sampler[int]):
    """
    Rows in a random order in which those of one dialogue follow one another, as many of them as a batch has.

    Args:
        dialogues (`Sequence[int]`): What stands before each row, as a number.
        batch_size (`int`): Rows of a batch.
        generator (`torch.Generator`): Where the order is drawn from.
    """

    def __init__(self, dialogues: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self.dialogues, self.batch_size, self.generator = dialogues, batch_size, generator

    def __len__(self) -> int:
        return len(self.dialogues)

    def __iter__(self) -> Iterator[int]:
        places: dict[int, list[int]] = {}
        for place in self._drawn(len(self)):
            places.setdefault(self.dialogues[place], []).append(place)
        size = self.batch_size
        runs = [same[start : start + size] for same in places.values() for start in range(0, len(same), size)]
        for number in self._drawn(len(runs)):
            yield from runs[number]

    def _drawn(self, count: int) -> list[int]:
        return torch.randperm(count, generator=self.generator).tolist()
