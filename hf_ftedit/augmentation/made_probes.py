"""Probes that the package makes: for edits that bring none, and such that no row holds, to choose settings by."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.augmentation.names import bare, filled, renamed
from hf_ftedit.augmentation.near_names import near_names
from hf_ftedit.augmentation.questions import other_questions
from hf_ftedit.augmentation.relations import relation_of
from hf_ftedit.augmentation.subjects import by_subject, with_subject
from hf_ftedit.augmentation.wordings import wrapped, written_wordings
from hf_ftedit.data import EditRecord, NeighborhoodPrompt

PROBES = ("paraphrase_prompts", "neighborhood_prompts", "near_name_prompts", "portability_prompts")
N_PROBES = 2  # of each kind
SEED = 0  # not the run's: an edit is examined by the same probes whatever it is trained with


def with_made_probes(records: Iterable[EditRecord]) -> list[EditRecord]:
    """
    Give edits without a probe of any kind some, as questions to a chat model; `made_probes` says so.

    They are wordings that the package writes, the same question about well-known subjects and about near names, and
    other questions about the subject. An edit in whose prompt the package finds no subject stays as it is.
    """
    records = list(records)
    edited = by_subject(records)
    return [record if _has_probes(record) else _with_probes(record, edited) for record in records]


def untrained_probes(
    records: Iterable[EditRecord], rows: Mapping[str, list[str]], others: list[EditRecord], *, count: int, seed: int
) -> list[EditRecord]:
    """
    Give edits wordings and near names as their only probes, at most `count` each, which nothing else of the run holds.

    `rows` are the prompts that each edit is trained with, by `edit_id`; `others` all edits of the run, with the probes
    of its exam.
    """
    exam, edited = ProbeTexts(others), by_subject(others)

    def probed(record: EditRecord) -> EditRecord:
        trained = [text.casefold() for text in rows.get(record.edit_id, ())]
        known, rng = with_subject(record), random.Random(f"{seed}/untrained/{record.edit_id}")

        def is_new(text: str) -> bool:
            return not exam.overlaps(text) and not any(text.casefold() in row for row in trained)

        written = [text for text in written_wordings(known) if is_new(text)]
        # Where all wordings are trained, what people write around the prompt may still be new.
        frames = dict.fromkeys(wrapped(record.prompt, rng) for _ in range(4 * count))
        wordings = [*rng.sample(written, min(len(written), count)), *filter(is_new, frames)]
        names = _near_names(known, 40 * count, rng)  # most of the nearest are trained
        near = [text for name, text in names.items() if bare(name) not in edited and is_new(name) and is_new(text)]
        none: dict[str, Any] = dict.fromkeys(PROBES, ())
        probes = {"paraphrase_prompts": tuple(wordings[:count]), "near_name_prompts": tuple(near[:count])}
        return replace(record, **none | probes)

    return list(map(probed, records))


def _near_names(record: EditRecord, count: int, rng: random.Random) -> dict[str, str]:
    """Near names with the edit's question about each of them."""
    subject = record.subject or ""
    names = near_names(subject, count, rng, record.prompt)
    texts = {name: renamed(record.prompt, subject, name) for name in names}
    return {name: text for name, text in texts.items() if text != record.prompt}


def _has_probes(record: EditRecord) -> bool:
    return any(getattr(record, name) for name in PROBES)


def _with_probes(record: EditRecord, edited: Mapping[str, Sequence[EditRecord]]) -> EditRecord:
    known, prompt = with_subject(record), record.prompt
    rng = random.Random(f"{SEED}/{prompt}")
    wordings = written_wordings(known)
    # Of few wordings at most half, so that there is something to learn from.
    count = min(N_PROBES, len(wordings) if record.wordings else len(wordings) // 2)
    paraphrases = rng.sample(wordings, count)
    named = [text for name, text in _near_names(known, 2 * N_PROBES, rng).items() if bare(name) not in edited]
    near = []
    if match := relation_of(prompt, known.subject):
        subjects = [other for other in match.relation.subjects if bare(other) not in edited]
        for other in rng.sample(subjects, min(len(subjects), N_PROBES)):
            text = renamed(prompt, match.phrase, other)
            near.append(text if text != prompt else filled(match.relation.questions[0], other))
    near += other_questions(known, edited.get(bare(known.subject or ""), ()), N_PROBES, rng)
    probes: dict[str, Any] = {"paraphrase_prompts": tuple(paraphrases), "near_name_prompts": tuple(named[:N_PROBES])}
    probes["neighborhood_prompts"] = tuple(map(NeighborhoodPrompt, near))
    made = replace(record, **probes, made_probes=True)
    return made if _has_probes(made) else record
