"""Probes for edits that bring none: other wordings, near questions and near names, held out of training."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import replace

from hf_ftedit.augmentation.near_names import near_names
from hf_ftedit.augmentation.relations import bare, filled, relation_of, renamed, with_subject
from hf_ftedit.augmentation.wordings import words_like, written_wordings
from hf_ftedit.data import EditRecord, NeighborhoodPrompt

N_PROBES = 2  # of each kind
SEED = 0  # not the run's: an edit is examined by the same probes whatever it is trained with


def with_made_probes(records: Iterable[EditRecord]) -> list[EditRecord]:
    """
    Give edits without a probe of any kind some, as questions to a chat model; `made_probes` says so.

    They are wordings that the package writes, the same question about well-known subjects, and about near names. An
    edit in whose prompt the package finds no subject stays as it is.
    """
    records = list(records)
    # The question about a subject that another edit changes has a new answer itself.
    edited = {bare(subject) for record in records if (subject := with_subject(record).subject)}
    return [record if _has_probes(record) else _with_probes(record, edited) for record in records]


def _has_probes(record: EditRecord) -> bool:
    return bool(
        record.paraphrase_prompts
        or record.neighborhood_prompts
        or record.near_name_prompts
        or record.portability_prompts
    )


def _with_probes(record: EditRecord, edited: Collection[str]) -> EditRecord:
    known, prompt = with_subject(record), record.prompt
    rng = random.Random(f"{SEED}/{prompt}")
    wordings = written_wordings(known)
    # Of few wordings at most half, so that there is something to learn from.
    count = min(N_PROBES, len(wordings) if record.wordings else len(wordings) // 2)
    paraphrases = rng.sample(wordings, count)
    subject = known.subject or ""
    names = near_names(subject, 2 * N_PROBES, rng, words_like(subject))
    named = [renamed(prompt, subject, name) for name in names if bare(name) not in edited]
    near = []
    if match := relation_of(prompt, subject):
        subjects = [other for other in match.relation.subjects if bare(other) not in edited]
        for other in rng.sample(subjects, min(len(subjects), N_PROBES)):
            text = renamed(prompt, match.phrase, other)
            near.append(text if text != prompt else filled(match.relation.questions[0], other))
    made = replace(
        record,
        paraphrase_prompts=tuple(paraphrases),
        neighborhood_prompts=tuple(NeighborhoodPrompt(text) for text in near),
        near_name_prompts=tuple([text for text in named if text != prompt][:N_PROBES]),
        made_probes=True,
    )
    return made if _has_probes(made) else record
