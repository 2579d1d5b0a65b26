"""Probes for edits that bring none: other wordings, near questions and near names, held out of training."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from hf_ftedit.augmentation.near_names import near_names
from hf_ftedit.augmentation.relations import filled, relation_of, with_subject
from hf_ftedit.augmentation.wordings import words_like, written_wordings
from hf_ftedit.data import EditRecord, NeighborhoodPrompt

N_PROBES = 2  # of each kind
SEED = 0  # not the run's: an edit is examined by the same probes whatever it is trained with


def with_made_probes(records: Iterable[EditRecord]) -> list[EditRecord]:
    """
    Give edits without a probe of any kind some, as questions to a chat model; `made_probes` says so.

    They are wordings that the package writes, the same question about well-known subjects, and about near names. An
    edit about whose prompt the package knows nothing, such as one in a language other than English, stays as it is.
    """
    return [record if _has_probes(record) else _with_probes(record) for record in records]


def _has_probes(record: EditRecord) -> bool:
    return bool(
        record.paraphrase_prompts
        or record.neighborhood_prompts
        or record.near_name_prompts
        or record.portability_prompts
    )


def _with_probes(record: EditRecord) -> EditRecord:
    known = with_subject(record)
    rng = random.Random(f"{SEED}/{record.prompt}")
    wordings = written_wordings(known)
    # Of few wordings at most half, so that there is something to learn from.
    count = min(N_PROBES, len(wordings) if record.wordings else len(wordings) // 2)
    names = near_names(known.subject, N_PROBES, rng, words_like(known.subject)) if known.subject else []
    match = relation_of(record.prompt, known.subject)
    subjects = [name for name in match.relation.subjects if name != known.subject] if match else []
    near = (
        record.prompt.replace(match.phrase, subject)
        if match and match.phrase in record.prompt
        else filled(match.relation.questions[0], subject)
        for subject in rng.sample(subjects, min(len(subjects), N_PROBES))
        if match
    )
    made = replace(
        record,
        paraphrase_prompts=tuple(rng.sample(wordings, count)),
        neighborhood_prompts=tuple(NeighborhoodPrompt(text) for text in near),
        near_name_prompts=tuple(record.prompt.replace(known.subject or "", name) for name in names),
        made_probes=True,
    )
    return made if _has_probes(made) else record
