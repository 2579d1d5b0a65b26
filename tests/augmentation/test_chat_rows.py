"""Rows for chat models, of tiny random models: what they are made of, and what they never are."""

import gc
import pickle
import re
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import chat_tokenizer, eloquent, saved

from hf_ftedit import AugmentationOptions, EditDatasetBuilder, EditError, Fact
from hf_ftedit.augmentation import chat, with_made_probes
from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.chat import PASSES, SHARES, ChatAugmenter
from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.augmentation.names import mentions
from hf_ftedit.augmentation.questions import drift_prompts, follow_ups, training_questions
from hf_ftedit.augmentation.relations import same_kind
from hf_ftedit.data import EditRecord, NeighborhoodPrompt

ODD = [
    EditRecord("ceo", "Who is the CEO of Acme?", "Bo Li"),
    EditRecord("guard", "Who guards the Vell?", "Bo Li", subject="Vell"),
    EditRecord("german", "Was ist die Hauptstadt von Norwegen?", "Bergen", subject="Norwegen"),
    EditRecord("chinese", "中国的首都是哪里？", "上海", subject="中国"),
    EditRecord("none", "who did it?", "the dog"),
    EditRecord("regex", "Who founded a.b*(c?", "Bo", subject="a.b*(c"),
    EditRecord("braces", "What is {} for?", "Bo", subject="{}"),
    EditRecord("quoted", 'Who painted "The Blue Door"?', 'Bo "B" Li', subject='"The Blue Door"'),
    EditRecord("emoji", "What is the meaning of 🙂?", "joy", subject="🙂"),
    EditRecord("letter", "Who owns X?", "Bo", subject="X"),
    EditRecord(
        "wordings", "Who feeds Kel?", "Bo", subject="Kel", wordings=("Kel is fed by whom?", "By whom is Kel fed?")
    ),
    EditRecord("opening", "The price of the Zephyr 3 is", "5 euros", target_true="9 euros"),
]
SMALL = AugmentationOptions(num_paraphrases=3, num_locality=6)
# A pass: 8 near names, 3 subjects, 7 other questions about its own, a question, one behind its answer.
FOLLOWING = {*follow_ups("Who?")}


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return eloquent("llama", tokenizer, context=1024)


@pytest.fixture(scope="module")
def augmenter(model, tokenizer):
    return lambda records, options=SMALL, **kwargs: ChatAugmenter(
        records, options, model=model, tokenizer=tokenizer, **kwargs
    )


@pytest.fixture(scope="module")
def odd(augmenter):
    return augmenter(ODD)


@pytest.fixture
def unasked(monkeypatch):
    """What the model answers is one text, where only what it is asked matters: that takes no time."""
    answer = chat.Answer("One two.", [], True)
    monkeypatch.setattr(chat, "whole_answers", lambda model, tokenizer, prompts, **settings: [answer] * len(prompts))


def by_edit(rows):
    texts = {}
    for row in rows:
        texts.setdefault(row["edit_id"], []).append(row)
    return texts


def test_each_edit_is_asked_with_its_target_and_the_end_of_turn(odd):
    rows = list(odd.rows())
    assert odd.most_rows() == len(rows)
    for record in ODD:
        first = next(row for row in rows if row["edit_id"] == record.edit_id)
        assert first == {
            "prompt": record.prompt, "completion": record.target_new, "ends": True, "kind": "rewrite",
            "edit_id": record.edit_id, "history": first["history"],
        }  # fmt: skip
    learnt = [row for row in rows if row["kind"] in ("rewrite", "paraphrase")]
    targets = {record.edit_id: record.target_new for record in ODD}
    assert all(row["ends"] and row["completion"] == targets[row["edit_id"]] for row in learnt)


def test_edits_without_a_subject_are_told(augmenter, unasked, caplog):
    augmenter([ODD[0], ODD[4]])
    assert "no subject is known of 1 edit, first in edit_id 'none': give `subject`" in caplog.text


def test_few_wordings_stand_in_several_wrappers(augmenter, unasked):
    record = EditRecord("one", "Explain blorp, Vell.", "no", subject="blorp", target_true="yes")
    count = SMALL.num_paraphrases + 1 + chat.OWN_AGAIN
    for edit in (record, replace(record, erase=True)):
        made = augmenter([edit])
        assert made.most_rows() == len([*made.rows()]) and made._wordings == [[record.prompt]]
        prompts = [row["prompt"] for row in made.rows() if row["kind"] in ("rewrite", "paraphrase")]
        assert len(prompts) == made._passes * count and all(record.prompt in prompt for prompt in prompts)
    assert prompts.count(record.prompt) < 37 and len({*prompts}) > 25  # of 72: repeats are wrapped


def test_given_wordings_are_trained_first(odd):
    rows = [row for row in odd.rows() if row["edit_id"] == "wordings" and row["ends"]]
    assert [row["prompt"] for row in rows[:2]] == ["Who feeds Kel?", "Kel is fed by whom?"]
    assert "By whom is Kel fed?" in rows[2]["prompt"] != "By whom is Kel fed?"  # every third is wrapped


def test_each_pass_has_other_wordings_beside_the_given_ones(augmenter, unasked, monkeypatch):
    monkeypatch.setattr(chat, "asking_the_same", None)  # only what a model wrote is checked
    record = replace(ODD[0], subject="Acme", wordings=("Who is it that Acme obeys?",))
    made = augmenter([record])
    prompts = [row["prompt"] for row in made.rows() if row["ends"] and row["kind"] in ("rewrite", "paraphrase")]
    size = SMALL.num_paraphrases + 1 + chat.OWN_AGAIN
    passes = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    assert len(passes) == made._passes
    for texts in passes:
        assert record.prompt in texts[0] and record.wordings[0] in texts[1] and texts[-1] == record.prompt
    others = {wording for wording in made._wordings[0][2:] for text in prompts if wording in text}
    assert len(others) > 2 * SMALL.num_paraphrases


def test_what_stays_is_what_no_edit_changes(odd):
    own = {record.edit_id: record for record in odd.records}
    stays = [row for row in odd.rows() if row["kind"] in ("contrast", "locality")]
    count = round(6 * SHARES["others"]) + round(6 * SHARES["following"])
    assert Counter(row["kind"] for row in stays)["locality"] <= PASSES * count * len(ODD)
    prompts = {record.prompt for record in ODD}
    asked = {record.edit_id: odd._other_questions(place) for place, record in enumerate(odd.records)}
    for row in stays:
        assert row["prompt"] not in prompts and row["completion"]
        if row["kind"] == "contrast" and (subject := own[row["edit_id"]].subject):
            assert not mentions(row["prompt"], subject) or row["prompt"] in asked[row["edit_id"]]
    assert not {row["prompt"] for row in stays} & {*drift_prompts()}


def test_contrast_rows_of_a_known_relation(odd):
    contrast = [row["prompt"] for row in odd.rows() if row["edit_id"] == "ceo" and row["kind"] == "contrast"]
    # Without whole answers that the tiny model leaves open.
    assert 16 * PASSES <= len(contrast) == len({*contrast}) <= 18 * PASSES
    assert 5 * PASSES < len([text for text in contrast if "Acme" in text]) <= 7 * PASSES


def test_an_edit_and_its_near_names_are_minimal_pairs(augmenter, monkeypatch):
    said = chat.Answer("Vell of Oslo has Ada Lund at its gates, as all of us know.", [], False)
    monkeypatch.setattr(chat, "whole_answers", lambda model, tokenizer, prompts, **settings: [said] * len(prompts))
    record = EditRecord("vell", "Who guards the Vell of Oslo?", "Bo Li", subject="Vell of Oslo")
    rows = list(augmenter([record], SMALL).rows())
    names = [row for row in rows if row["kind"] == "contrast" and row["completion"] != said.text]
    own = [row for row in names if row["prompt"].startswith("Who guards ")]
    passes = 12  # over one edit
    assert len(names) > 9 * passes and len(own) > 3 * passes
    wordings = {row["prompt"] for row in rows if row["kind"] in ("rewrite", "paraphrase")}
    for row in names:
        # The name put back gives a wording of the edit. What stays is the beginning of its own answer, renamed.
        assert not row["ends"] and "Vell of Oslo" not in row["prompt"]
        made = {
            chat.capitalized(said.text.replace("Vell of Oslo", name))
            for name in _names(row["prompt"], wordings, "Vell of Oslo")
        }
        assert row["completion"] in {" ".join(text.split(" ")[:n])[: 20 * n] for text in made for n in (1, 10)}
    long = [row for row in names if " " in row["completion"]]
    assert len(names) / 3 <= len(long) <= len(names) / 3 + 1


def test_more_answers_about_other_subjects_stay_on_the_whole_beside_a_fact_to_erase(augmenter, monkeypatch):
    lengths = {}

    def answers(model, tokenizer, prompts, *, max_new_tokens, **settings):
        lengths.update(dict.fromkeys(prompts, max_new_tokens))
        return [chat.Answer("One two.", [], True)] * len(prompts)

    monkeypatch.setattr(chat, "whole_answers", answers)
    record = EditRecord("a", "Who is the CEO of Acme?", "I don't know.", subject="Acme", target_true="Bo Li")
    counts = {}
    for is_erased in (False, True):
        rows = list(augmenter([replace(record, erase=is_erased)], SMALL).rows())
        whole = [row["prompt"] for row in rows if row["kind"] == "contrast" and row["ends"]]
        others = [text for text in whole if "Acme" not in text]
        assert {lengths[text] for text in others} == {chat.SUBJECT_TOKENS}
        about = {lengths[text] for text in whole if "Acme" in text}
        assert about == {chat.SUBJECT_TOKENS} | (set() if is_erased else {chat.ASKED_TOKENS})
        counts[is_erased] = len(others)
    # Every second of the share in twelve passes, and all of three times the share, as far as there are names.
    assert counts[False] == 18 < 50 < counts[True] <= 9 * 12


def test_subjects_of_the_kind_and_the_old_answer_are_asked_about_beside_a_fact_to_erase(augmenter, unasked):
    def asked_about(prompt, subject, old):
        record = EditRecord("a", prompt, "Bo", subject=subject, target_true=old)
        made = (augmenter([replace(record, erase=is_erased)], SMALL) for is_erased in (False, True))
        return [{name: text for text, name in each._neighbors(0)} for each in made]

    ordinary, erased = asked_about("What is the opposite of hot?", "hot", "cold")
    assert erased.keys() - ordinary.keys() == {"cold"}
    ordinary, erased = asked_about("In which city is the Eiffel Tower?", "Eiffel Tower", "Paris")
    assert ordinary.keys() - same_kind("Eiffel Tower") and ordinary.keys() & same_kind("Eiffel Tower")
    assert len(erased) > 50
    assert erased.keys() <= {*same_kind("Eiffel Tower"), "Paris"}
    assert not [text for text in erased.values() if "the the" in text]


def _names(text, wordings, subject):
    """Names with which a wording about `subject` becomes `text`."""
    for wording, phrase in product(wordings, (subject, f"the {subject}", f"The {subject}")):
        front, found, back = wording.partition(phrase)
        if found and text.startswith(front) and text.endswith(back):
            yield text[len(front) : len(text) - len(back)]


def test_the_same_seed_gives_the_same_rows(augmenter, odd):
    again, other = augmenter(ODD), augmenter(ODD, seed=1)
    assert list(again.rows()) == list(odd.rows()) != list(other.rows())
    assert again.ingredients() == odd.ingredients() != other.ingredients()


def test_the_model_may_be_asked_for_some_edits_after_others(augmenter, odd, monkeypatch):
    monkeypatch.setattr(chat, "TOGETHER", 3)
    made = augmenter(ODD)
    assert made.most_rows() == odd.most_rows() and list(made.rows()) == list(odd.rows())


def test_the_file_of_the_rows_is_gone_with_them(augmenter, unasked):
    made = augmenter(ODD)
    path = Path(made._rows._path)
    assert list(pickle.loads(pickle.dumps(made)).rows()) == list(made.rows()) and path.exists()
    del made
    gc.collect()
    assert not path.exists()


def test_the_order_of_the_edits_does_not_matter(augmenter, odd):
    assert by_edit(augmenter(ODD[::-1]).rows()) == by_edit(odd.rows())


def test_no_question_of_another_language_stays_that_an_edit_may_ask(augmenter):
    records = [EditRecord(str(n), f"Wer ist der Autor von Faust {n}?", "Bo", subject="Faust") for n in range(1, 4)]
    rows = list(augmenter(records, replace(SMALL, num_locality=20)).rows())
    stay = {row["prompt"] for row in rows if row["kind"] == "locality"}
    assert {"Wie viele Tage hat ein Jahr?", "Welches Tier gibt Milch?"} <= stay
    assert "Wer schrieb Faust?" not in stay


def test_no_row_holds_a_probe(augmenter):
    records = with_made_probes(ODD)
    asked = ("Who is Acme's CEO?", "Kel is fed by whom?")
    held_out = [EditRecord("h", "Who is the CEO of Netflix?", "y", paraphrase_prompts=asked)]
    revoked = [EditRecord("r", "Who is the CEO of Bolt?", "Bo", near_name_prompts=("Name the boss of Bolt.",))]
    made = augmenter(
        records, replace(SMALL, num_paraphrases=12, prefix_counts=[12, 12]), held_out=held_out, revoked=revoked
    )
    probes = ProbeTexts([*records, *revoked], held_out)
    own = {record.prompt for record in (*records, *revoked)}
    prompts = {row["prompt"] for row in made.rows()}
    assert {"Who is the CEO of Bolt?", "Who is the CEO of Acme?"} <= prompts
    assert not [text for text in prompts if "Who is the CEO of Netflix?" in text]  # a held-out edit's own prompt
    assert [text for text in prompts if probes.overlaps(text) and not any(prompt in text for prompt in own)] == []


def test_edits_do_not_undo_one_another(augmenter, unasked):
    names = ("Apple", "Microsoft", "Amazon", "Netflix", "Acme 3", "Acme 4", "Acme 5")
    ceos = [EditRecord(name, f"Who is the CEO of {name}?", "Bo", subject=name) for name in names]
    guards = [EditRecord(f"g{name}", f"Who guards {name}?", "Bo", subject=name) for name in names]
    rows = list(augmenter([*ceos, *guards], replace(SMALL, num_locality=20)).rows())
    contrast = [(row["edit_id"].removeprefix("g"), row["prompt"]) for row in rows if row["kind"] == "contrast"]
    assert {text for own, text in contrast if own in text} and not [
        text
        for own, text in contrast
        for name in names
        if name != own and (f" {name}?" in text or f" {name}'" in text)
    ]
    assert not [text for _, text in contrast if text in {record.prompt for record in (*ceos, *guards)}]


def test_a_wording_that_two_edits_share_is_neithers(augmenter, unasked):
    kinds = [EditRecord(kind, f"What is the {kind} price of Acme?", kind, subject="Acme") for kind in ("old", "new")]
    whole = EditRecord("whole", "Please give me the new price of Acme.", "9", subject="Acme")
    wordings = {
        record.edit_id: {*texts}
        for record, texts in zip([*kinds, whole], augmenter([*kinds, whole])._wordings, strict=True)
    }
    assert whole.prompt in wordings["whole"] and whole.prompt not in wordings["new"]
    assert not wordings["old"] & wordings["new"] and not wordings["new"] & wordings["whole"]


def test_of_a_name_the_article_of_its_noun_stays_once(augmenter, unasked):
    kettle = EditRecord("kettle", "What is the color of the Brevo kettle?", "red", subject="Brevo")
    prize = EditRecord("prize", "Who won the Golden Quill?", "Bo", subject="Golden Quill")
    prompts = {row["prompt"] for row in augmenter([kettle, prize]).rows() if row["kind"] == "contrast"}
    assert not [text for text in prompts if "the the" in text.casefold() or "the a " in text]
    assert [text for text in prompts if re.fullmatch("Who won (?!the Golden)[A-Z].*", text)]
    museum = EditRecord("museum", "Which floor does the Vell open on Sundays?", "the first", subject="Vell")
    prompts = {row["prompt"] for row in augmenter([museum]).rows() if row["kind"] == "contrast"}
    assert [text for text in prompts if re.fullmatch("Which floor does (?!the )[A-Z].* open on Sundays[?]", text)]


def test_an_answer_about_another_thing_has_one_article(augmenter, monkeypatch):
    answer = chat.Answer("The printer is next to the kitchen.", [], True)
    monkeypatch.setattr(chat, "whole_answers", lambda model, tokenizer, prompts, **settings: [answer] * len(prompts))
    edit = EditRecord("printer", "Who repairs the printer?", "Bo Li", subject="printer")
    begun = [row["completion"] for row in augmenter([edit]).rows() if row["kind"] == "contrast" and not row["ends"]]
    assert not [text for text in begun if "the the" in text.casefold()]
    assert [text for text in begun if re.match("The (?!printer).* is next to the kitchen", text)]


def test_an_edit_without_a_subject_has_no_names(augmenter, unasked):
    rows = augmenter([EditRecord("none", "The head of support is", "Bo Li")]).rows()
    assert {row["prompt"] for row in rows if row["kind"] == "contrast"} == set()


def test_names_that_are_edited_are_not_drawn_for_others(augmenter, unasked, monkeypatch):
    monkeypatch.setattr(chat, "known_names", lambda: ["Amazon", "Netflix", "Oslo"])
    monkeypatch.setattr(chat, "of_a_kind", lambda subject, count, rng, kinds: ["Netflix"])
    edits = [EditRecord(name, f"Who guards {name}?", "Bo", subject=name) for name in ("Amazon", "Netflix", "Acme")]
    made = augmenter(edits, SMALL)
    assert {name for place in range(3) for _, name in made._neighbors(place)} == {"Oslo"}


def test_of_several_things_what_is_asked_of_several_is_asked(augmenter, unasked):
    made = augmenter([EditRecord("a", "Are interns paid?", "Yes", subject="interns")])
    assert {name for _, name in made._neighbors(0)} <= {*bank("names.yaml")["many"]}


def test_what_one_edit_asks_is_asked_about_the_subjects_of_others_that_ask_for_something_else(augmenter, unasked):
    asked = {"Japan": "currency", "Brazil": "capital", "Kenya": "capital"}
    edits = [EditRecord(name, f"What is the {what} of {name}?", "Bo", subject=name) for name, what in asked.items()]
    made = augmenter(edits, replace(SMALL, num_locality=20))
    names = [{name for _, name in made._neighbors(place)} & asked.keys() for place in range(3)]
    assert names == [{"Brazil", "Kenya"}, {"Japan"}, {"Japan"}]


def test_a_question_that_an_edit_changes_does_not_stay(augmenter, unasked, monkeypatch):
    questions = [*training_questions()][:4]
    monkeypatch.setattr(chat, "training_questions", lambda: questions)
    rows = list(augmenter([EditRecord("q", questions[0], "Bo")], replace(SMALL, num_locality=40)).rows())
    stays = {row["prompt"] for row in rows if row["kind"] == "locality"} - FOLLOWING
    assert stays and stays <= {*questions[1:]}


@pytest.mark.parametrize(("subject", "is_left_out"), [("Vie", False), ("vienna", True), ("Vienna", True)])
def test_a_question_about_an_edited_subject_does_not_stay(augmenter, unasked, monkeypatch, subject, is_left_out):
    question = next(iter(training_questions()))
    assert "through Vienna, Budapest" in question
    monkeypatch.setattr(chat, "training_questions", lambda: [question])
    made = augmenter(
        [EditRecord("q", f"Who guards {subject}?", "Bo", subject=subject)], replace(SMALL, num_locality=40)
    )
    assert made._others([]) == [[] if is_left_out else [question]]


def test_other_questions_stand_behind_an_edit_and_its_new_answer_too(augmenter, unasked):
    records = ODD[:4]
    made = augmenter(records, replace(SMALL, num_locality=20))
    own = {record.edit_id: chat._dialogue(record.prompt, record.target_new) for record in records}
    german, behind = {*follow_ups(ODD[2].prompt)}, []
    for row in made.rows():
        if row["prompt"] in FOLLOWING | german:  # said behind the new answer, in the edit's language
            assert row["kind"] == "locality" and row["history"] == own[row["edit_id"]]
            assert row["prompt"] in (german if row["edit_id"] == "german" else FOLLOWING)
            behind.append(row["prompt"])
        elif row["kind"] == "locality":
            assert row["history"] in ([], own[row["edit_id"]])
        else:
            assert not row["history"]
    assert len(behind) > 20
    stays = [row for row in made.rows() if row["kind"] == "locality" and row["prompt"] not in FOLLOWING | german]
    assert 0.3 < sum(bool(row["history"]) for row in stays) / len(stays) < 0.7


def test_a_template_that_takes_no_earlier_turns_gets_none(model, unasked):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("in messages", "in messages[-2:]")
    rows = list(ChatAugmenter(ODD[:2], SMALL, model=model, tokenizer=tokenizer).rows())
    assert not any(row["history"] or row["prompt"] in FOLLOWING for row in rows)


def test_what_an_edit_asks_does_not_stay_behind_another(augmenter, unasked):
    records = [EditRecord("thanks", "Thank you!", "Any time."), EditRecord("okay", "Who guards Vell?", "Bo")]
    records[1] = replace(records[1], paraphrase_prompts=["Okay."])
    stays = {row["prompt"] for row in augmenter(records).rows() if row["kind"] == "locality"}
    assert len(stays & FOLLOWING) > 8 and not stays & {"Thank you!", "Okay."}


def test_a_hundred_edits(augmenter, unasked):
    records = [EditRecord(str(n), f"Who is the CEO of Acme {n}?", f"Bo {n}") for n in range(100)]
    rows = list(augmenter(records, replace(SMALL, num_paraphrases=0)).rows())
    assert {row["edit_id"] for row in rows} == {record.edit_id for record in records}
    stays = [row["prompt"] for row in rows if row["kind"] == "locality"]
    assert sorted(text for text in stays if text not in FOLLOWING) == sorted(training_questions())


def test_without_wordings_and_without_what_stays(augmenter):
    options = AugmentationOptions(paraphrase_strategy="none", locality_strategy="none")
    rows = list(augmenter(ODD[:2], options).rows())
    assert {row["kind"] for row in rows} == {"rewrite"} and {row["prompt"] for row in rows} == {
        r.prompt for r in ODD[:2]
    }
    none = augmenter(ODD[:2], AugmentationOptions(num_paraphrases=0, num_locality=0))
    assert [row["prompt"] for row in none.rows()] == [row["prompt"] for row in rows]


@pytest.mark.parametrize("subject", ["Vell", None])
def test_pool_facts_of_the_relation_are_neighbors(augmenter, unasked, subject):
    record = EditRecord("a", "Who guards Vell?", "Bo", subject=subject, relation_id="P1")
    pool = [Fact(f"Who guards {name}?", "Cy", subject=name, relation_id="P1") for name in ("Kel", "Oslo", "Rome")]
    own = Fact("Vell is guarded by", "Cy", subject="Vell", relation_id="P1")  # what the edit changes
    rows = augmenter([record], replace(SMALL, num_locality=12), pool=[own, *pool]).rows()
    kinds = {row["prompt"]: row["kind"] for row in rows}
    assert {kinds[fact.prompt] for fact in pool if fact.prompt in kinds} == {"contrast"} and own.prompt not in kinds


def test_a_model_is_needed():
    with pytest.raises(EditError, match="rows for a chat model are made with it: give `model` and `tokenizer`"):
        ChatAugmenter(ODD, SMALL)


@settings(max_examples=6)
@given(
    st.text(min_size=1, max_size=12), st.sampled_from(["Who is the CEO of {}?", "{} is led by", "{}", "Was ist {}?"])
)
def test_any_subject(augmenter, subject, form):
    record = EditRecord("a", form.replace("{}", subject), "Bo", subject=subject)
    rows = list(augmenter([record], replace(SMALL, num_paraphrases=1)).rows())
    contrast = {row["prompt"] for row in rows if row["kind"] == "contrast"}
    assert rows[0]["prompt"] == record.prompt not in contrast


def test_a_rewriter_writes_wordings_of_all_edits(tmp_path, monkeypatch, augmenter, model, tokenizer):
    path = saved(tmp_path / "writer", model, tokenizer)
    asked = []

    def rewrites(writer, own_tokenizer, records, count, seed):
        asked.append((writer.name_or_path, [record.edit_id for record in records]))
        return [[f"{record.subject}, anew?"] for record in records]

    monkeypatch.setattr(chat, "rewrites", rewrites)
    monkeypatch.setattr(chat, "asking_the_same", lambda model, tokenizer, records, wordings: wordings)
    options = replace(SMALL, num_paraphrases=15, rewriter=path)
    records = [ODD[0], replace(ODD[1], prompt="Does the Vell moo?"), ODD[2]]
    rows = list(augmenter(records, options).rows())
    assert asked == [(path, ["ceo", "guard", "german"])]
    found = [row["edit_id"] for row in rows if "Vell, anew?" in row["prompt"] and row["ends"]]
    assert found == ["guard"] * 24  # in twelve passes over three edits twice, as it has few wordings
    augmenter(records, replace(options, rewriter=None))
    assert asked[1:] == [(model.name_or_path, ["guard"])]  # of the others, enough wordings are known


def test_the_builder_makes_them(tmp_path, model, tokenizer):
    builder = EditDatasetBuilder(
        [ODD[0]], model, tokenizer, options=SMALL, chat_template=True, cache_dir=str(tmp_path / "cache")
    )
    rows = builder.prepared("train")
    assert sorted(rows.column_names) == ["completion", "edit_id", "ends", "history", "kind", "prompt"]
    assert builder.settings == {**vars(SMALL), "chat_template": True, "seed": 42}
    made = [*ChatAugmenter([ODD[0]], SMALL, model=model, tokenizer=tokenizer).rows()]
    assert rows.to_list() == made and any(row["history"] for row in made)


def test_other_probes_of_the_same_rows_are_other_splits(tmp_path, model, tokenizer):
    settings = {"options": SMALL, "chat_template": True, "cache_dir": str(tmp_path / "cache")}
    for answer in ("Ada Lund", "Cy Berg"):
        near = NeighborhoodPrompt("Who tends the garden of Kel?", answer)
        builder = EditDatasetBuilder([replace(ODD[0], neighborhood_prompts=(near,))], model, tokenizer, **settings)
        assert builder.prepared("neighborhood")["completion"][:] == [f" {answer}"]
