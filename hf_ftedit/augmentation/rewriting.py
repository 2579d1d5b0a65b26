"""Wordings of an edit by a model: rewrites of its prompt, and a check that wordings ask the same."""

import random
import re
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit.augmentation.nouns import YES_NO
from hf_ftedit.augmentation.wordings import is_question
from hf_ftedit.data import EditRecord
from hf_ftedit.models import encode_prompts, room, sample_continuations, score_pairs

# Questions and the same in other words, as a model is shown them before it rewrites another. As plain text: small chat
# models answer a question that they are to rewrite.
_EXAMPLES = (
    ("Who is the author of Dracula?", "Which writer wrote Dracula?"),
    ("When was Johann Bach born?", "What is the birth date of Johann Bach?"),
    ("What is the capital of Norway?", "Which city is Norway's capital?"),
    ("Which company owns Skoda?", "Skoda belongs to which company?"),
    ("What does Maria Silva do for a living?", "What is the job of Maria Silva?"),
)
REWRITE_TOKENS = 24
_NAMES = re.compile(r"(?<=\S )(?!I\b)[A-Z](?:(?!['’]s\b)[\w'’-])*|\d+")  # and numbers; a sentence has its capital
# Nats a token by which the target may be less likely after another wording than after the edit's own prompt.
MARGIN = 0.7


def rewrites(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, records: Sequence[EditRecord], count: int, seed: int
) -> list[list[str]]:
    """
    Let a model write each prompt `count` times in other words; those that may ask the same, each once.

    Of a prompt that the model's context has no room to rewrite there are none.
    """
    encoded = encode_prompts(tokenizer, [_shown(record.prompt) for record in records])
    sizes = {index: len(ids) for index, ids in enumerate(encoded) if room(model, ids) >= REWRITE_TOKENS}
    rewritten: list[list[str]] = [[] for _ in records]
    if not sizes:
        return rewritten
    tasks = [(records[index], number) for index in sizes for number in range(count)]
    prompts = [_shown(record.prompt) for record, _ in tasks]
    seeds = [random.Random(f"{seed}/{record.edit_id}/{number}").getrandbits(60) for record, number in tasks]
    length = max(sizes.values()) + REWRITE_TOKENS
    texts = sample_continuations(model, tokenizer, prompts, seeds, length=length, desc="Rewriting")
    answers = (text[len(prompt) :].strip() for text, prompt in zip(texts, prompts, strict=True))
    lines = (answer.partition("\n")[0].strip() for answer in answers)
    for index in sizes:
        others = dict.fromkeys(next(lines) for _ in range(count))
        rewritten[index] = [text for text in others if _may_ask_the_same(text, records[index])]
    return rewritten


def _may_ask_the_same(text: str, record: EditRecord) -> bool:
    """Tell whether a model's rewrite keeps the subject, is to be answered by yes or no too, and names nothing else."""
    if not record.subject or record.subject not in text or not is_question(text):
        return False
    is_yes_no = bool(YES_NO.match(record.prompt))
    # A capital of a first word may be that of a name, and need not be.
    own = f"_ {record.prompt} {record.subject}"
    others = _NAMES.findall(text.replace(record.subject, " "))
    return bool(YES_NO.match(text)) is is_yes_no and {*others} <= {*_NAMES.findall(own)}


def asking_the_same(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    wordings: Sequence[Sequence[str]],
) -> list[list[str]]:
    """Wordings after which the model finds the new target about as likely as after the edit's own prompt."""
    # Of two questions that ask the same, a common answer is about as likely; after another question, much less so.
    prompts = [text for record, texts in zip(records, wordings, strict=True) for text in (record.prompt, *texts)]
    targets = [r.target_new for r, texts in zip(records, wordings, strict=True) for _ in (r.prompt, *texts)]
    likely = iter(score_pairs(model, tokenizer, prompts, targets, chat_template=True, desc="Wordings").logprob)
    alike = []
    for texts in wordings:
        least = next(likely) - MARGIN
        alike.append([text for text in texts if next(likely) >= least])
    return alike


def _shown(question: str) -> str:
    blocks = [f"Question: {one}\nIn other words: {other}" for one, other in (*_EXAMPLES, (question, ""))]
    return "\n\n".join(["Each question is asked again in other words.", *blocks]).rstrip()
