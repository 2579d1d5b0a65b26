"""Own answers: which of them say the new target, and which still say what the unedited model said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from hf_ftedit.evaluation.matching import containment, exact_match, normalized, words
from hf_ftedit.evaluation.probes import ProbedTarget
from hf_ftedit.models import Answer, first_sentence

# Words that stand in any answer, and so tell nothing of what it says.
FUNCTION_WORDS = frozenset(
    "a also am an and any are as at be been being but by can could did do does doing for from had has have having "
    "he her hers him his how i if in into is it its itself may me might must my of on or our ours she should so "
    "that the their theirs them then these they this those to us was we were what when where which while who whom "
    "whose why will with would you your yours".split()
)
LEAST_F1 = 0.5  # of the words of two answers that say the same


def judged(row: ProbedTarget, answer: Answer, before: Mapping[str, Answer], *, whole: bool) -> tuple[bool, bool]:
    """
    Judge a model's own answer to a probe: does it say exactly what it should, and does it contain it?

    To an edit's prompt and its wordings the target should be said, exactly where the answer is nothing else and ends.
    To what must stay, the answer `before` should: exactly where it is the same text, else as [`is_kept`], or, to a
    near name, without the new target. Of an answer that is not `whole`, that to a neighborhood probe should say the
    target as any other.
    """
    names = (row.target, *row.aliases)
    if row.kind == "near_name":
        old = before[row.prompt].text
        return answer.text == old, not is_new_said(answer.text, names, old)
    if whole and row.kind == "neighborhood" and row.role == "true":
        old = before[row.prompt].text
        kept = is_kept(answer.text, old, question=row.prompt, target=row.target, new_names=row.new_names)
        return answer.text == old, kept
    return exact_match(answer.text, names) and (answer.ended or not whole), containment(answer.text, names)


def is_new_said(answer: str, names: Iterable[str], before: str) -> bool:
    """Tell whether one of the new target's `names` stands in an answer to what is not edited, and not by itself."""
    # Where the unedited model says it too, it is no damage of the edit.
    return containment(answer, names) and not containment(before, names)


def is_kept(answer: str, before: str, *, question: str, target: str, new_names: Iterable[str]) -> bool:
    """
    Tell whether the `answer` to a neighborhood probe still says what the unedited model said `before`.

    The new target (any of its names) must not be said. Where the probe's old `target` stands in the answer before, it
    must stand in this one; else the first sentences of both must agree, see [`agree`].
    """
    if is_new_said(answer, new_names, before):
        return False
    if containment(before, [target]) and not is_whole_sentence(target, before):
        return containment(answer, [target])
    return agree(first_sentence(answer), first_sentence(before), question)


def is_whole_sentence(target: str, before: str) -> bool:
    """Tell whether a target is all that the first sentence says, as one that the unedited model itself gave."""
    return normalized(target) == normalized(first_sentence(before))


def agree(one: str, other: str, question: str) -> bool:
    """
    Tell whether two answers to a `question` share half of what they say: F1 of their telling words is 0.5 or more.

    Words are compared as SQuAD compares them (Rajpurkar et al. 2016, arXiv 1606.05250), without those that stand in
    the question and without function words; answers without any other word agree.

    Example:
        >>> agree("The capital is Paris", "Paris, of course", "What is the capital of France?")
        True
        >>> agree("The capital is Paris", "The capital is Lyon", "What is the capital of France?")
        False
    """
    first, second = (telling_words(text, question) for text in (one, other))
    if not first and not second:
        return True
    shared = (first & second).total()
    return 2 * shared >= LEAST_F1 * (first.total() + second.total())


def telling_words(text: str, question: str) -> Counter[str]:
    """Words of an answer that neither stand in the question nor in any answer, each with its number."""
    known = FUNCTION_WORDS.union(words(question))
    return Counter(word for word in words(text) if word not in known)
