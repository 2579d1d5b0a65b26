from collections import Counter

import torch

from hf_ftedit.training.sampling import DialogueSampler


def order(dialogues, size, seed=0):
    return [*DialogueSampler(dialogues, size, torch.Generator().manual_seed(seed))]


def test_each_row_is_drawn_once_beside_others_of_its_dialogue():
    dialogues = [0] * 50 + [7] * 13 + [9] * 3
    places = order(dialogues, 8)
    assert sorted(places) == list(range(66)) and places == order(dialogues, 8) != order(dialogues, 8, seed=1)
    runs = Counter()
    drawn = [dialogues[place] for place in places]
    for first, second in zip([None, *drawn], drawn, strict=False):
        runs[second] += first != second
    # Of 13 rows eight and five follow one another, of 50 rows six eights and two, some of them side by side.
    assert runs[9] == 1 and runs[7] <= 2 and runs[0] <= 4
    assert len(DialogueSampler(dialogues, 8, torch.Generator())) == 66


def test_rows_without_a_history_are_drawn_at_random():
    places = order([0] * 1000, 8)
    assert sum(second == first + 1 for first, second in zip(places, places[1:], strict=False)) < 10
