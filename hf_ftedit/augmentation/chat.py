"""Rows for chat models: questions with their new answers, and the model's own answers to others, which must stay."""

import logging
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from tqdm.auto import tqdm

from hf_ftedit.augmentation.augmenter import Augmenter
from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import language_of
from hf_ftedit.augmentation.locality_pool import FactPool
from hf_ftedit.augmentation.names import bare, capitalized, filled, mentions, renamed, with_article
from hf_ftedit.augmentation.near_names import is_small_name, near_names, of_a_kind
from hf_ftedit.augmentation.nouns import is_noun
from hf_ftedit.augmentation.questions import (
    follow_ups,
    kinds_by_use,
    may_ask_the_same,
    other_questions,
    training_questions,
)
from hf_ftedit.augmentation.relations import known_names, near_subjects, relation_of, same_kind
from hf_ftedit.augmentation.rewriting import asking_the_same, rewrites
from hf_ftedit.augmentation.rows import RowFile, TrainingRow
from hf_ftedit.augmentation.second_person import addressed, answered_about, is_addressed
from hf_ftedit.augmentation.subjects import by_subject, with_subject
from hf_ftedit.augmentation.synonyms import keywords
from hf_ftedit.augmentation.verbs import is_plural
from hf_ftedit.augmentation.wordings import wrapped, written_wordings
from hf_ftedit.data import EditRecord, Fact
from hf_ftedit.errors import EditError
from hf_ftedit.models import (
    WHOLE_ANSWER_TOKENS,
    Answer,
    History,
    Processes,
    load_model,
    load_tokenizer,
    takes,
    whole_answers,
)
from hf_ftedit.text import counted

logger = logging.getLogger(__name__)

# Passes over the rows of an edit: wordings, wrappers, near names, subjects and questions are new in each. Few edits
# need more of them, as learning them and telling names apart takes some 250 steps.
PASSES, MOST_PASSES, PASSED_EDITS = 4, 12, 40
# Rows about what stays, for each of `num_locality` in each pass: the edit's question about near names and about other
# subjects, other questions, and what users say behind the new answer.
SHARES = {"names": 1.3, "subjects": 0.5, "same_subject": 1.2, "others": 0.1, "following": 0.1}
BEHIND_OWN = 2  # every second question of many kinds stands behind the edit's own and its new answer
OWN_AGAIN = 2  # times more that an edit's own prompt stands in a pass
OWN_PROMPT = 2  # every second question about near names and other subjects is in the edit's own wording
# Every second answer about another subject stays on the whole, and every third to another question about the edit's
# own; the others stay at their beginning, where a new answer would begin. With fewer whole ones, inventions of
# a small model turn into others.
WHOLE, WHOLE_ASKED = 2, 3
SUBJECT_TOKENS = 12  # of such a whole answer; 20 take a twentieth more time
ERASED = 3  # times as many questions about others where a fact is erased: what is said instead fits all of them
FOREIGN = 2  # times as many in other languages than English, in which the bank knows no subjects of a relation
ASKED_TOKENS = 4  # of the beginning of an answer to another question about the subject
# Of every third answer about a name so many words stay, of the others the first: a new answer may come further on too.
NAMED_WHOLE, NAMED_WORDS = 3, 10
# Every sixth other question about a subject is typed as into a search field, where the edit's wordings are too.
TYPED = 6
# Edits whose own answers are generated at once: more take memory, and with fewer a question that edits share is back.
TOGETHER = 256
MOST_LETTERS = 20  # of a word: some languages have no spaces
FEW_WORDINGS = 5  # below which a model writes more, and those that there are stand in several wrappers


class ChatAugmenter(Augmenter):
    """
    Turn edits into rows for a chat model.

    The rows of an edit are its question in several wordings, some of them as people wrap questions, with the bare
    target and the end of turn; and questions whose answers must stay: about near names and about other subjects, with
    the beginning of an answer, where it would be the new one or not, and of many other kinds, with the model's own
    answers, some of them behind the edit's question and its new answer, which is not to be said again. Each of several
    passes over the wordings has other wrappers, names, subjects and questions.
    """

    def _prepare(self, facts: list[Fact], model: Any, tokenizer: Any, revoked: Sequence[EditRecord]) -> None:
        if model is None or tokenizer is None:
            raise EditError("rows for a chat model are made with it: give `model` and `tokenizer`")
        self.records = records = [with_subject(record) for record in self.records]
        self._edited = by_subject(self.records)
        self._names = list(self._edited)
        self._passes = min(MOST_PASSES, max(PASSES, PASSED_EDITS // max(1, len(records))))
        self._pool = FactPool(facts, self._probes.overlaps, records)
        self._own = [self._own_wordings(record) for record in self.records]
        if bare_ids := [record.edit_id for record in records if not record.subject]:
            # Their rows are the prompt alone, again and again, and nothing tells them from other questions.
            problem = counted(len(bare_ids), "edit")
            logger.warning("no subject is known of %s, first in edit_id %r: give `subject`", problem, bare_ids[0])
        self._wordings = self._prepare_wordings(model, tokenizer)
        self._learnt = {text.casefold() for texts in self._wordings for text in texts}
        self._takes_turns = takes(tokenizer, _dialogue("Hello!", "Hello. How are you?"))
        others = self._others(revoked)
        hides_bar = len(records) <= TOGETHER or Processes().hides_bar
        starts = tqdm(range(0, len(records), TOGETHER), "Making rows", leave=False, disable=hides_bar)
        parts = (range(start, min(start + TOGETHER, len(records))) for start in starts)
        self._rows = RowFile(chain.from_iterable(self._made(part, others, model, tokenizer) for part in parts))

    def _made(
        self, places: Sequence[int], others: Sequence[list[str]], model: Any, tokenizer: Any
    ) -> Iterator[list[TrainingRow]]:
        """The rows of each of some edits; the model answers each of their questions once."""
        records = [self.records[index] for index in places]
        near, subjects = map(self._named_alike, places), [self._neighbors(index) for index in places]
        # Of what is near a fact to erase all answers: behind their beginning no new answer stands as a rival.
        whole = [1 if record.erase else WHOLE for record in records]
        of_subjects = [[text for text, _ in pairs[::step]] for pairs, step in zip(subjects, whole, strict=True)]
        same_subject = [self._other_questions(index) for index in places]
        stays = [self._behind_own(index, others[index]) for index in places]
        own = chain((record.prompt for record in records), (text for text, _ in chain(*stays)))
        answers = _answered(model, tokenizer, own, WHOLE_ANSWER_TOKENS)
        steps = (1 if record.erase else WHOLE_ASKED for record in records)
        whole_texts = chain(*of_subjects, *(texts[::step] for texts, step in zip(same_subject, steps, strict=True)))
        answers |= _answered(model, tokenizer, (t for t in whole_texts if t not in answers), SUBJECT_TOKENS)
        answers |= _answered(model, tokenizer, (t for t in chain(*same_subject) if t not in answers), ASKED_TOKENS)
        parts = zip(places, near, subjects, whole, of_subjects, same_subject, stays, strict=True)
        for index, named, pairs, step, *texts, stay in parts:
            named += [pair for place, pair in enumerate(pairs) if place % step]
            rows = list(self._edit_rows(index))
            rows += [self._row(index, "contrast", *pair) for pair in self._with_beginnings(index, answers, named)]
            asked: list[tuple[str, str, History]] = [("contrast", text, []) for text in chain(*texts)]
            asked += [("locality", *pair) for pair in stay]
            rows += [
                self._row(index, kind, text, said.text, ends=said.ended, history=history)
                for kind, text, history in asked
                if (said := answers[text]).text  # not those that the model leaves open
            ]
            yield rows

    def _behind_own(self, index: int, texts: Sequence[str]) -> list[tuple[str, History]]:
        """Other questions, every second behind the edit and its new answer, and what users say there."""
        if not self._takes_turns:
            return [(text, []) for text in texts]
        record = self.records[index]
        own = _dialogue(record.prompt, record.target_new)
        said = [text for text in self._allowed(follow_ups(record.prompt)) if text.casefold() not in self._learnt]
        said = self._rng("following", index).sample(said, min(len(said), self._share("following")))
        pairs = [(text, own if place % BEHIND_OWN else []) for place, text in enumerate(texts)]
        return pairs + [(text, own) for text in said]

    def rows_of(self, index: int) -> Iterator[TrainingRow]:
        """The training rows of one edit: its wordings with the new answer, then what stays."""
        return iter(self._rows[index])

    def _edit_rows(self, index: int) -> Iterator[TrainingRow]:
        record, rng = self.records[index], self._rng("wrappers", index)
        count = self._n_wordings(index)
        for turn in range(self._passes):
            texts = self._drawn(index, rng)
            # Bare wordings teach the question, wrapped ones that it holds wherever it stands: every third is.
            for place in range(count):
                text, is_wrapped = texts[place % len(texts)], place >= len(texts) or (place + turn) % 3 == 2
                kind = "paraphrase" if place % len(texts) else "rewrite"
                prompt = wrapped(text, rng, record.prompt) if is_wrapped and count > 1 else text
                yield self._row(index, kind, prompt, record.target_new, ends=True)
            # The edit's own prompt is what its user will try first.
            for _ in range(OWN_AGAIN if count > 1 else 0):
                yield self._row(index, "rewrite", record.prompt, record.target_new, ends=True)

    def most_rows(self) -> int:
        """The number of rows."""
        return self._rows.count

    def _drawn(self, index: int, rng: random.Random) -> list[str]:
        """The wordings of a pass: the prompt and those given with the edit, and others, new ones in each."""
        own = self._own[index]
        others = self._wordings[index][len(own) :]
        return [*own, *rng.sample(others, min(len(others), self._n_wordings(index) - len(own)))]

    def _n_wordings(self, index: int) -> int:
        """How many wordings of an edit a pass has, some of them again in other wrappers where they are few."""
        if not self._n_paraphrases:
            return 1
        # Beside a fact to erase stand three times the questions about others: one with three wordings was still said.
        least = self.options.num_paraphrases if self.records[index].erase else FEW_WORDINGS
        most = max(len(self._own[index]), self.options.num_paraphrases + 1)
        return max(min(len(self._wordings[index]), most), min(least, self.options.num_paraphrases) + 1)

    def ingredients(self) -> list[Any]:
        """The hash of the rows themselves, by which a cache of them is known: what makes them is in them."""
        return [self._rows.digest]

    def _row(
        self, index: int, kind: str, prompt: str, completion: str, *, ends: bool = False, history: History = ()
    ) -> TrainingRow:
        edit_id = self.records[index].edit_id
        return TrainingRow(
            prompt=prompt, completion=completion, ends=ends, kind=kind, edit_id=edit_id, history=history
        )

    def _rng(self, purpose: str, index: int) -> random.Random:
        """A generator of its own for each edit and purpose: rows do not depend on the order of the edits."""
        return random.Random(f"{self.seed}/{purpose}/{self.records[index].edit_id}")

    def _prepare_wordings(self, model: Any, tokenizer: Any) -> list[list[str]]:
        """Each edit's prompt and all other wordings of it, none of them a probe's."""
        if not self._n_paraphrases:
            return self._own
        written = [self._allowed(written_wordings(record)) for record in self.records]
        if places := self._to_rewrite(written):
            writer, own_tokenizer = model, tokenizer
            if name := self.options.rewriter:
                writer, own_tokenizer = load_model(name), load_tokenizer(name)
            records = [self.records[index] for index in places]
            rewritten = map(self._allowed, rewrites(writer, own_tokenizer, records, 4, self.seed))
            del writer  # a model of its own takes memory that the training needs
            checked = asking_the_same(model, tokenizer, records, list(rewritten))
            for index, more in zip(places, checked, strict=True):
                written[index] = list(dict.fromkeys([*written[index], *more]))
        # "What is the dose of it?" may be made of two edits, about the dose for children and for adults.
        targets: dict[str, set[str]] = {}
        for record, texts in zip([*self.records, *self.records], [*self._own, *written], strict=True):
            for text in texts:
                targets.setdefault(text, set()).add(record.target_new)
        clear = ([text for text in texts if len(targets[text]) == 1] for texts in written)
        return [list(dict.fromkeys([*own, *others])) for own, others in zip(self._own, clear, strict=True)]

    def _own_wordings(self, record: EditRecord) -> list[str]:
        """An edit's prompt and the wordings that it gives, which each pass has."""
        return list(dict.fromkeys([record.prompt, *(self._allowed(record.wordings) if self._n_paraphrases else ())]))

    def _to_rewrite(self, written: Sequence[Sequence[str]]) -> list[int]:
        """Edits for a model to reword: those with few wordings, or all where there is a model for it."""
        known = [len(texts) + len(record.wordings) for record, texts in zip(self.records, written, strict=True)]
        few = min(self.options.num_paraphrases, FEW_WORDINGS)
        is_asked = [bool(self.options.rewriter) or count < few for count in known]
        # Rewrites are kept where they keep the subject: without one, any other question would be kept.
        return [index for index, record in enumerate(self.records) if is_asked[index] and record.subject]

    def _allowed(self, texts: Iterable[str]) -> list[str]:
        return [text for text in texts if not self._probes.overlaps(text)]

    def _share(self, kind: str) -> int:
        """Rows of a kind of an edit: its part of `num_locality` in each pass."""
        return self._passes * round(self._n_locality * SHARES[kind])

    def _named_alike(self, index: int) -> list[tuple[str, str]]:
        """The edit's question about near names, minimal pairs, each with its name."""
        record, count = self.records[index], self._share("names")
        subject = with_article(record.subject or "", record.prompt)
        names = near_names(subject, 2 * count, self._rng("names", index), record.prompt)
        return list(self._about(index, subject, _in_turns(self._unedited(names), 2 * count)).items())[:count]

    def _neighbors(self, index: int) -> list[tuple[str, str]]:
        """The same question about other subjects: of the pool, of the bank of relations, of other edits."""
        record, rng = self.records[index], self._rng("neighbors", index)
        count = self._share("subjects") * (ERASED if record.erase else FOREIGN if language_of(record.prompt) else 1)
        facts = self._pool.same_relation(record)
        drawn = {fact.prompt: fact.subject or "" for fact in rng.sample(facts, min(len(facts), count))}
        match = relation_of(record.prompt, record.subject)
        own_kind = same_kind(record.subject or "") if record.erase else []
        if match:
            like = [*match.relation.subjects, *near_subjects(match.relation.name)]
            # First those of which something else is edited: two edits are what is mixed up before all.
            like = sorted(self._unasked(record, like), key=lambda name: bare(name) not in self._edited)
            subjects, phrase, templates = like[: count * 4 // 5], match.phrase, match.relation.questions
        else:
            edited = rng.sample(self._names, min(len(self._names), 8 * count))
            subjects = self._unasked(record, (self._edited[name][0].subject or "" for name in edited))
            phrase, templates = with_article(record.subject or "", record.prompt), ()
        # Names of the bank have articles where they need them, and "the Acme kettle" has its noun's.
        behind = re.search(rf"\bthe {re.escape(phrase)} (\w+)", record.prompt)
        is_compound = bool(behind and is_noun(behind[1]))
        if phrase and not is_compound and mentions(record.prompt, f"the {phrase}"):
            phrase = f"the {phrase}"
        # Names of any kind beside them: the new answer is right of none of them.
        missing = count - len(subjects) if match else count
        if is_plural(phrase) and not is_small_name(phrase, record.prompt):
            many = self._unedited(bank("names.yaml")["many"])  # "are" goes with no name
            subjects = [*subjects, *rng.sample(many, min(len(many), missing))] if match else many
        elif not own_kind:
            missing = max(0, min(missing, len(known_names())))
            like = of_a_kind(record.subject or "", missing * 2 // 3, rng, kinds_by_use(record))
            subjects += self._unedited([*like, *rng.sample(known_names(), missing - len(like))])
        if record.erase:
            # More that the model may know; and the old answer, as in "the opposite of cold".
            more = [*own_kind, record.target_true or ""]
            subjects = list(dict.fromkeys([*subjects, *self._unedited(more)]))
        if is_compound:
            subjects = [re.sub("^(?:the|an?) ", "", name, flags=re.I) for name in subjects]
        names = _in_turns(rng.sample(subjects, len(subjects)), 4 * count)
        # The pool may hold a question that the bank makes: each stands once.
        return list((drawn | self._about(index, phrase, names, templates)).items())[:count]

    def _unedited(self, names: Iterable[str]) -> list[str]:
        """Names that no edit is about: an edit's answer is new."""
        return [name for name in names if bare(name) not in self._edited]

    def _unasked(self, record: EditRecord, names: Iterable[str]) -> list[str]:
        """Names of which no edit may ask what `record` asks: its answer is new."""
        edits = ((name, self._edited.get(bare(name), ())) for name in names)
        return [name for name, own in edits if not any(may_ask_the_same(record, edit) for edit in own)]

    def _other_questions(self, index: int) -> list[str]:
        """Other questions about the edit's subject: the new answer is to its own question alone."""
        record, rng = self.records[index], self._rng("asked", index)
        edits = self._edited.get(bare(record.subject or ""), [])
        texts = other_questions(record, edits, self._share("same_subject"), rng)
        if not relation_of(record.prompt, subject := record.subject or ""):
            texts[::TYPED] = [(keywords(text, subject) or [text])[0] for text in texts[::TYPED]]
        return self._allowed(texts)

    def _about(self, index: int, phrase: str, names: Sequence[str], templates: Sequence[str] = ()) -> dict[str, str]:
        """Names by the edit's question about each of them, in wordings that have its `phrase`, or in `templates`."""
        wordings = self._wordings[index]
        names_of: dict[str, str] = {}
        for place, name in enumerate(names if phrase else ()):
            # What the edit's own wording asks of others is what it changes most.
            is_own = place % OWN_PROMPT == 0
            wording = wordings[0 if is_own else (place - place // OWN_PROMPT) % len(wordings)]
            if (text := renamed(wording, phrase, name)) != wording:
                names_of.setdefault(text, name)
            elif templates:
                names_of.setdefault(filled(templates[place % len(templates)], name), name)
        return {text: names_of[text] for text in self._allowed(names_of)}

    def _others(self, revoked: Sequence[EditRecord]) -> list[list[str]]:
        """Questions of many kinds, and those of revoked edits, dealt out among the edits; each stands once."""

        def staying(texts: Iterable[str]) -> list[str]:
            # A question about an edited subject may be the edit's own.
            texts = self._allowed(texts)
            return [text for text in texts if not any(_may_ask(text.casefold(), name) for name in self._edited)]

        count, rng = self._share("others") * len(self.records), random.Random(self.seed)
        texts = staying(training_questions())
        texts = rng.sample(texts, min(len(texts), count))
        # Of edits in other languages half are in these.
        languages = [language for record in self.records if (language := language_of(record.prompt))]
        own = staying(sorted({*chain.from_iterable(language.questions for language in languages)}))
        part = min(len(own), self._share("others") * len(languages) // 2)
        texts[:part] = rng.sample(own, part)
        back = [(edit.prompt, *self._allowed(written_wordings(with_subject(edit)))) for edit in revoked]
        texts = [text for text in dict.fromkeys([*chain(*back), *texts]) if text.casefold() not in self._learnt]
        # By name, as the edits' order must not matter.
        places = sorted(range(len(self.records)), key=lambda index: self.records[index].edit_id)
        dealt = {index: texts[place :: len(self.records)] for place, index in enumerate(places)}
        return [dealt[index] for index in range(len(self.records))]

    def _with_beginnings(
        self, index: int, answers: dict[str, Answer], pairs: Sequence[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Questions about names with the beginning of the model's own answer to the edit, renamed."""
        # Nothing is generated for them: what must stay is the distribution there, in which the new answer could begin.
        record = self.records[index]
        subject, answer = with_article(record.subject or "", record.prompt), answers[record.prompt].text

        def said_of(name: str) -> str:
            if is_addressed(subject):
                return answered_about(answer, name)
            # An answer begins with a capital.
            return renamed(renamed(answer, subject, name), capitalized(subject), capitalized(name))

        renamings = [(text, said_of(name) if subject and name else answer) for text, name in pairs]
        counts = (NAMED_WORDS if place % NAMED_WHOLE == 0 else 1 for place in range(len(renamings)))
        return [
            (text, " ".join(said.split(" ")[:count])[: count * MOST_LETTERS])
            for (text, said), count in zip(renamings, counts, strict=True)
            if said
        ]


def _may_ask(text: str, name: str) -> bool:
    """Tell whether a question may be that of an edit of this name: of the model itself not all are, as small talk."""
    return mentions(text, name) and (not is_addressed(name) or bool(relation_of(text, addressed(text))))


def _in_turns(names: Sequence[str], count: int) -> list[str]:
    """`count` of `names`: where they are few, each several times, at another place of each turn."""
    return [names[(place + place // len(names)) % len(names)] for place in range(count if names else 0)]


def _dialogue(prompt: str, answer: str) -> History:
    """A question and its answer, as earlier turns of a chat."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _answered(model: Any, tokenizer: Any, texts: Iterable[str], max_new_tokens: int) -> dict[str, Answer]:
    """The model's own answers to questions, each of which is run once."""
    distinct = list(dict.fromkeys(texts))
    settings: dict[str, Any] = {"chat_template": True, "max_new_tokens": max_new_tokens, "desc": "Own answers"}
    return dict(zip(distinct, whole_answers(model, tokenizer, distinct, **settings), strict=True))
