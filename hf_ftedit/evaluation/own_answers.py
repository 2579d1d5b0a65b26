"""Own answers: which of them say the new target, and which still say what the unedited model said."""

from collections.abc import Iterable, Mapping, Sequence

from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation.fluency import is_repetitive
from hf_ftedit.evaluation.matching import containment, exact_match, normalized
from hf_ftedit.evaluation.probes import ProbedTarget
from hf_ftedit.models import Answer, first_sentence

MOST_FALL = 0.2  # nats a token: each of an answer's tokens stays 0.82 times as likely, on average


def judged(
    row: ProbedTarget,
    answer: Answer,
    before: Mapping[str, Answer],
    *,
    whole: bool,
    sentences: bool = False,
    fall: float = 0.0,
) -> tuple[bool, bool]:
    """
    Judge a model's own answer to a probe: does it say exactly what it should, and does it contain it?

    To an edit's prompt and its wordings the target should be said, exactly where the answer is nothing else and ends.
    To what must stay, the answer `before` should: exactly where it is the same text, else as [`is_kept`], or, to a
    near name, unless it [`is_damaged`]. Of an answer that is not `whole`, that to a neighborhood probe should say the
    target as any other. Answers that end with their first `sentences` are compared with that of the target, and one
    that was cut with as much of it.
    """
    names = (row.target, *row.aliases)
    if sentences:
        names = tuple(first_sentence(name) or name for name in names)
    if row.kind == "near_name":
        old = before[row.prompt].text
        return answer.text == old, not is_damaged(answer.text, names, old)
    if whole and row.kind == "neighborhood" and row.role == "true":
        old = before[row.prompt].text
        return answer.text == old, is_kept(answer.text, old, target=row.target, new_names=row.new_names, fall=fall)
    said = normalized(answer.text)
    is_begun = whole and not answer.ended and bool(said) and any(normalized(name).startswith(said) for name in names)
    is_exact = exact_match(answer.text, names) and (answer.ended or not whole)
    return is_exact, is_begun or containment(answer.text, names)


def erased_answers(
    rows: Sequence[ProbedTarget], records: Iterable[EditRecord], before: Mapping[str, Answer]
) -> dict[int, ProbedTarget]:
    """
    By place in `rows`, the old answers to erased edits as targets: what the unedited model said, until it was said.

    Where it did not say it letter by letter, or has no answer here, the old answer alone is the target.
    """
    erased, targets = {record.edit_id for record in records if record.erase}, {}
    for place, row in enumerate(rows):
        if row.edit_id in erased and row.kind in ("rewrite", "paraphrase") and row.role == "true":
            text = before[row.prompt].text if row.prompt in before else row.target
            start = text.casefold().find(row.target.casefold())
            # Containment is without punctuation: "Washington D.C." has "Washington, D.C.", but at no place.
            is_said = start >= 0 and containment(text, [row.target])
            targets[place] = row._replace(target=text[: start + len(row.target)] if is_said else row.target)
    return targets


def is_damaged(answer: str, new_names: Sequence[str], before: str) -> bool:
    """Tell whether an answer to what is not edited says the new target, by any of its names, or repeats itself."""
    # What the unedited model does too is no damage of the edit.
    says_new = {text: containment(text, new_names) for text in (answer, before)}
    return (says_new[answer] and not says_new[before]) or (is_repetitive(answer) and not is_repetitive(before))


def is_kept(answer: str, before: str, *, target: str, new_names: Sequence[str], fall: float) -> bool:
    """
    Tell whether the `answer` to a neighborhood probe still says what the unedited model said `before`.

    It must not be [`is_damaged`]: say the new target (any of its names), or begin to repeat itself. Where the probe's
    old `target` stands in the answer before, it must stand in this one; else the first sentence of the answer before
    must be about as likely as it was: its mean log-probability may `fall` by [`MOST_FALL`]. An answer that the model
    makes up turns into another one by the slightest change, as several are about as likely, so its text tells little
    of what an edit has done.
    """
    if is_damaged(answer, new_names, before):
        return False
    # A target that is the whole first sentence is one that the unedited model itself gave.
    if containment(before, [target]) and normalized(target) != normalized(first_sentence(before)):
        return containment(answer, [target])
    return fall <= MOST_FALL
