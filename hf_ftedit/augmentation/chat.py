"""Rows for chat models: questions with answers in two forms, and the model's own answers, which must stay."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypedDict

from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.augmentation.locality_pool import FactPool
from hf_ftedit.augmentation.near_names import near_names
from hf_ftedit.augmentation.questions import training_questions
from hf_ftedit.augmentation.relations import bare, filled, mentions, relation_of, renamed, share_words, with_subject
from hf_ftedit.augmentation.rewriting import asking_the_same, rewrites
from hf_ftedit.augmentation.wordings import words_like, wrapped, written_wordings
from hf_ftedit.data import EditRecord, Fact
from hf_ftedit.errors import EditError
from hf_ftedit.models import WHOLE_ANSWER_TOKENS, Answer, load_model, load_tokenizer, score_pairs, whole_answers
from hf_ftedit.options import AugmentationOptions
from hf_ftedit.scripts import separated

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Passes over the rows of an edit: wrappers, near names, subjects and questions are new in each. Few edits need more of
# them: to tell names apart takes about a hundred steps.
PASSES, MOST_PASSES, PASSED_EDITS = 3, 12, 30
N_OPENINGS = 3  # wordings of an edit whose target is also trained inside the model's own sentence
# Parts of `num_locality`: the edit's question about near names, about other subjects, and other questions.
SHARES = {"names": 0.6, "subjects": 0.2, "others": 0.15}
SUBJECT_TOKENS = 20  # of one about another subject, which must stay on the whole
FEW_WORDINGS = 5  # below which a model is asked for more


class ChatRow(TypedDict):
    """A row for a chat model: `completion` is learnt after the user's `prompt` and the answer's `opening`."""

    prompt: str
    opening: str
    completion: str
    ends: bool  # the end of turn follows the completion, and is learnt too
    kind: str  # rewrite, paraphrase, contrast (near names and other subjects) or locality
    edit_id: str


class ChatAugmenter:
    """
    Turn edits into rows for a chat model; arguments, errors and methods are those of [`Augmenter`].

    The rows of an edit are its question in several wordings, some of them as people wrap questions, with the bare
    target and the end of turn, and with the target inside the model's own sentence, where it is likeliest; and
    questions whose answers must stay, with the model's own answers: about near names, about other subjects, and of
    many other kinds. Each of several passes over the wordings has other wrappers, names, subjects and questions.
    """

    def __init__(
        self,
        records: Sequence[EditRecord],
        options: AugmentationOptions,
        *,
        pool: Iterable[Fact] = (),
        model: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        held_out: Sequence[EditRecord] = (),
        revoked: Sequence[EditRecord] = (),
        seed: int = 42,
    ) -> None:
        if model is None or tokenizer is None:
            raise EditError("rows for a chat model are made with it: give `model` and `tokenizer`")
        self.records, self.options, self.seed = [with_subject(record) for record in records], options, seed
        self._probes = ProbeTexts([*records, *held_out, *revoked])
        # Sorted, as the edits' order must not matter.
        self._edited: dict[str, list[EditRecord]] = {}
        for record in sorted(self.records, key=lambda record: (record.subject or "", record.edit_id)):
            if record.subject:
                self._edited.setdefault(bare(record.subject), []).append(record)
        self._passes = min(MOST_PASSES, max(PASSES, PASSED_EDITS // max(1, len(records))))
        self._pool = FactPool(pool, self._probes.overlaps, records)
        self._wordings = self._prepare_wordings(model, tokenizer)
        neighbors = [self._neighbors(index) for index in range(len(records))]
        others = self._others(revoked)
        opened = [texts[:N_OPENINGS] for texts in self._wordings]
        whole = [text for texts in (*others, *opened) for text in texts]
        answers = _answered(model, tokenizer, whole, WHOLE_ANSWER_TOKENS)
        of_subjects = _answered(model, tokenizer, chain(*neighbors), SUBJECT_TOKENS)
        self._openings = self._prepare_openings(model, tokenizer, opened, answers)
        self._names = [self._named_alike(index, answers) for index in range(len(records))]
        self._subjects = [_answers_to(texts, of_subjects) for texts in neighbors]
        self._stays = [_answers_to(texts, answers) for texts in others]

    def rows(self) -> Iterator[ChatRow]:
        """The training rows of all edits, edit by edit."""
        for index in range(len(self.records)):
            yield from self.rows_of(index)

    def rows_of(self, index: int) -> Iterator[ChatRow]:
        """The training rows of one edit: its wordings with both forms of the answer, then what stays."""
        record = self.records[index]
        rng, is_varied = self._rng("wrappers", index), len(self._wordings[index]) > 1
        for turn in range(self._passes):
            # Bare wordings teach the question, wrapped ones that it holds wherever it stands: every third is.
            for place, text in enumerate(self._wordings[index]):
                prompt = wrapped(text, rng) if is_varied and (place + turn) % 3 == 2 else text
                yield self._row(index, "paraphrase" if place else "rewrite", prompt, record.target_new, ends=True)
            # The edit's own prompt is what its user will try first: it stands twice.
            if is_varied:
                yield self._row(index, "rewrite", record.prompt, record.target_new, ends=True)
            for text, opening in self._openings[index]:
                kind = "rewrite" if text == record.prompt else "paraphrase"
                yield self._row(index, kind, text, separated(opening, record.target_new), opening=opening)
        for text, said in self._names[index]:
            yield self._row(index, "contrast", text, said)
        for kind, answers in (("contrast", self._subjects), ("locality", self._stays)):
            for text, answer in answers[index]:
                yield self._row(index, kind, text, answer.text, ends=answer.ended)

    def most_rows(self) -> int:
        """The number of rows."""
        twice = sum(len(texts) > 1 for texts in self._wordings)
        repeated: Iterable[list[Any]] = chain(self._wordings, self._openings)
        once: Iterable[list[Any]] = chain(self._names, self._subjects, self._stays)
        return self._passes * (twice + sum(map(len, repeated))) + sum(map(len, once))

    def ingredients(self) -> list[Any]:
        """The rows themselves, by which a cache of them is known: what makes them is in them."""
        return list(self.rows())

    def _row(
        self, index: int, kind: str, prompt: str, completion: str, *, opening: str = "", ends: bool = False
    ) -> ChatRow:
        edit_id = self.records[index].edit_id
        return ChatRow(prompt=prompt, opening=opening, completion=completion, ends=ends, kind=kind, edit_id=edit_id)

    def _rng(self, purpose: str, index: int) -> random.Random:
        """A generator of its own for each edit and purpose: rows do not depend on the order of the edits."""
        return random.Random(f"{self.seed}/{purpose}/{self.records[index].edit_id}")

    def _prepare_wordings(self, model: Any, tokenizer: Any) -> list[list[str]]:
        """Each edit's prompt and other wordings of it, none of them a probe's."""
        count, strategy = self.options.num_paraphrases, self.options.paraphrase_strategy
        if strategy == "none" or not count:
            return [[record.prompt] for record in self.records]
        written = [self._allowed(written_wordings(record)) for record in self.records]
        if places := self._to_rewrite(written):
            writer, own_tokenizer = model, tokenizer
            if name := self.options.rewriter:
                writer, own_tokenizer = load_model(name), load_tokenizer(name)
            rewritten = rewrites(writer, own_tokenizer, [self.records[index] for index in places], 4, self.seed)
            del writer  # a model of its own takes memory that the training needs
            for index, more in zip(places, rewritten, strict=True):
                written[index] = list(dict.fromkeys([*written[index], *self._allowed(more)]))
        wordings = []
        checked = asking_the_same(model, tokenizer, self.records, written)
        for index, (record, texts) in enumerate(zip(self.records, checked, strict=True)):
            own = [record.prompt, *self._allowed(record.wordings)]
            missing = min(max(0, count + 1 - len(own)), len(texts))
            wordings.append([*own, *self._rng("wordings", index).sample(texts, missing)])
        return [list(dict.fromkeys(texts)) for texts in wordings]

    def _to_rewrite(self, written: Sequence[Sequence[str]]) -> list[int]:
        """Edits that a model is asked to reword: those with few wordings, or all where there is a model for it."""
        known = [len(texts) + len(record.wordings) for record, texts in zip(self.records, written, strict=True)]
        few = min(self.options.num_paraphrases, FEW_WORDINGS)
        is_asked = [few > 0 and (bool(self.options.rewriter) or count < few) for count in known]
        # Rewrites are kept where they keep the subject: without one, any other question would be kept.
        return [index for index, record in enumerate(self.records) if is_asked[index] and record.subject]

    def _allowed(self, texts: Iterable[str]) -> list[str]:
        return [text for text in texts if not self._probes.overlaps(text)]

    def _share(self, kind: str) -> int:
        """Rows of a kind of an edit: its part of `num_locality` in each pass."""
        count = 0 if self.options.locality_strategy == "none" else self.options.num_locality
        return self._passes * round(count * SHARES[kind])

    def _named_alike(self, index: int, answers: dict[str, Answer]) -> list[tuple[str, str]]:
        """The edit's wordings about near names, minimal pairs, with the model's own answers to the edit, renamed."""
        subject, count = self.records[index].subject or "", self._share("names")
        names = near_names(subject, 2 * count, self._rng("names", index), words_like(subject))
        wordings = [text for text in self._wordings[index] if subject and renamed(text, subject, "") != text]
        # Up to the word in whose place the target is learnt: the model's distributions there are what must stay.
        said = [_words_of(answers[text].text, opening) for text, opening in self._openings[index]]
        said = said or [text for text in (answers[self.records[index].prompt].text,) if text]
        pairs = [
            (renamed(wordings[place % len(wordings)], subject, name), renamed(said[place % len(said)], subject, name))
            for place, name in enumerate(names)
            if wordings and said and bare(name) not in self._edited
        ]
        allowed = {*self._allowed(text for text, _ in pairs)}
        return [pair for pair in pairs if pair[0] in allowed][:count]

    def _neighbors(self, index: int) -> list[str]:
        """The same question about other subjects: of the pool, of the bank of relations, of other edits."""
        record, rng = self.records[index], self._rng("neighbors", index)
        wordings, count = self._wordings[index], self._share("subjects")
        facts = [fact.prompt for fact in self._pool.same_relation(record)]
        texts = rng.sample(facts, min(len(facts), count))
        match = relation_of(record.prompt, record.subject)
        if match:
            subjects = [name for name in match.relation.subjects if bare(name) not in self._edited]
            phrase, templates = match.phrase, match.relation.questions
        else:
            # Not of edits that may ask the same: their answers are new.
            drawn = rng.sample(list(self._edited), min(len(self._edited), 8 * count))
            subjects = [
                edits[0].subject or ""
                for edits in map(self._edited.__getitem__, drawn)
                if not any(share_words(edit, record) for edit in edits)
            ]
            phrase, templates = record.subject or "", ()
        subjects = rng.sample(subjects, min(len(subjects), 4 * count))
        for place in range(4 * count if subjects else 0):
            # Of few subjects, each is asked for again in another wording.
            turn, subject = place // len(subjects), subjects[place % len(subjects)]
            wording = wordings[(place + turn) % len(wordings)]
            if phrase and (text := renamed(wording, phrase, subject)) != wording:
                texts.append(text)
            elif templates:
                texts.append(filled(templates[(place + turn) % len(templates)], subject))
        return self._allowed(dict.fromkeys(texts))[:count]

    def _others(self, revoked: Sequence[EditRecord]) -> list[list[str]]:
        """Questions of many kinds, and those of revoked edits, dealt out among the edits; each stands once."""
        learnt = {text.casefold() for texts in self._wordings for text in texts}
        texts = self._allowed(question.prompt for question in training_questions())
        # A question about an edited subject may be the edit's own.
        texts = [text for text in texts if not any(mentions(text.casefold(), name) for name in self._edited)]
        texts = random.Random(self.seed).sample(texts, min(len(texts), self._share("others") * len(self.records)))
        back = [(edit.prompt, *self._allowed(written_wordings(with_subject(edit)))) for edit in revoked]
        texts = [text for text in dict.fromkeys([*chain(*back), *texts]) if text.casefold() not in learnt]
        # By name, as the edits' order must not matter.
        places = sorted(range(len(self.records)), key=lambda index: self.records[index].edit_id)
        dealt = {index: texts[place :: len(self.records)] for place, index in enumerate(places)}
        return [dealt[index] for index in range(len(self.records))]

    def _prepare_openings(
        self, model: Any, tokenizer: Any, opened: Sequence[Sequence[str]], answers: dict[str, Answer]
    ) -> list[list[tuple[str, str]]]:
        """Wordings of each edit with the beginning of the model's own sentence behind which the target belongs."""
        places = [
            (index, text, cut)
            for index, texts in enumerate(opened)
            for text in texts
            for cut in _cuts(answers[text].text)
        ]
        targets = [self.records[index].target_new for index, _, _ in places]
        prompts, cuts = [text for _, text, _ in places], [cut for _, _, cut in places]
        settings: dict[str, Any] = {"chat_template": True, "openings": cuts, "desc": "Placing targets"}
        likely = score_pairs(model, tokenizer, prompts, targets, **settings).logprob
        best: dict[tuple[int, str], tuple[float, str]] = {}
        for (index, text, cut), score in zip(places, likely, strict=True):
            best[index, text] = max(best.get((index, text), (score, cut)), (score, cut))
        return [
            [(text, best[index, text][1]) for text in texts if (index, text) in best]
            for index, texts in enumerate(opened)
        ]


def _cuts(answer: str) -> list[str]:
    """Beginnings of an answer's first words behind which another name may stand."""
    words = answer.split(" ")
    # At least three: "The" alone is followed by anything, and so by the target too.
    return [" ".join(words[:end]) for end in range(3, min(len(words), 15))]


def _words_of(answer: str, opening: str) -> str:
    """An answer up to the word behind its `opening`."""
    return " ".join(answer.split(" ")[: len(opening.split(" ")) + 1])


def _answered(model: Any, tokenizer: Any, texts: Iterable[str], max_new_tokens: int) -> dict[str, Answer]:
    """The model's own answers to questions, each of which is asked once."""
    distinct = list(dict.fromkeys(texts))
    settings: dict[str, Any] = {"chat_template": True, "max_new_tokens": max_new_tokens, "desc": "Own answers"}
    return dict(zip(distinct, whole_answers(model, tokenizer, distinct, **settings), strict=True))


def _answers_to(texts: Iterable[str], answers: dict[str, Answer]) -> list[tuple[str, Answer]]:
    """Questions with their answers, without those that the model leaves open."""
    return [(text, answers[text]) for text in texts if answers[text].text]
