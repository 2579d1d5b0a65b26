"""Facts to erase: what the model says of them, what it is to say instead, and what cannot be erased."""

import random
from dataclasses import replace

import pytest

from hf_ftedit import EditDatasetBuilder, EditError, EditOptions, load_model, load_tokenizer
from hf_ftedit.augmentation import erasure, with_erasures
from hf_ftedit.augmentation.near_names import invented_names
from hf_ftedit.augmentation.subjects import new_words
from hf_ftedit.data import EditRecord, edits_of
from hf_ftedit.models import greedy_answers

PARK = EditRecord("park", "Mansfield Park was written by", "", erase=True)
CAPITAL = EditRecord("paris", "What is the capital of France?", "", subject="France", erase=True)


@pytest.fixture(scope="module")
def embedded():
    return load_model(None), load_tokenizer(None)


def test_the_old_answer_is_the_models_and_the_new_one_is_of_what_nobody_knows(embedded):
    edits = [EditRecord("other", "Emma was written by", "Bo"), PARK, replace(PARK, edit_id="own", target_new="nobody")]
    other, open_one, own = with_erasures(edits, *embedded)
    assert other is edits[0] and own == replace(edits[2], target_true="Jane Austen")
    assert (open_one.target_true, open_one.subject) == ("Jane Austen", None)
    names = invented_names("Mansfield Park", 8, random.Random(f"invented/{PARK.prompt}"))
    answers = greedy_answers(*embedded, [f"{name} was written by" for name in names], max_new_tokens=32)
    most = max(answers, key=answers.count)
    is_agreed = 2 * answers.count(most) >= len(answers) and "Jane Austen" not in most
    assert open_one.target_new == (most if is_agreed else "not known")
    finished = with_erasures([open_one], *embedded)
    assert finished == [open_one]  # nothing is open any more
    assert EditDatasetBuilder([PARK], *embedded).records == [open_one]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["I have not heard of Abo."] * 2 + ["Abo is Oslo.", "It is Rome."], "I have not heard of France."),
        (["I cannot tell."] * 4, "I cannot tell."),
        (["Abo's is Oslo.", "It is Rome.", "It is Bern.", "It is Abo."], None),  # made up
        (["It is Paris."] * 4, None),  # the old answer
        (["", "", "", ""], None),
        ([], None),  # no names: another script
    ],
)
def test_what_is_said_of_most_invented_subjects_alike(said, expected):
    names = ["Abo", "Aba", "Abi", "Abe"]
    replies = {name: text.replace("Abo", name) for name, text in zip(names, said, strict=False)}
    assert erasure._own_reply(CAPITAL, "Paris", replies) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "who did it?"}, "edit 'park': subject is '', and none stands in the prompt 'who did it?'; give"),
        ({"subject": "Emma"}, "edit 'park': subject is 'Emma', and none stands in the prompt 'Mansfield Park was"),
        (
            {"target_true": "Bo Li"},
            "edit 'park': target_true is 'Bo Li', and the model says 'Jane Austen': nothing to erase; correct",
        ),
        (
            {"prompt": "Who made you?", "subject": None},
            "edit 'park': the prompt 'Who made you?' asks about the model its",
        ),
    ],
)
def test_what_cannot_be_erased(embedded, change, message):
    with pytest.raises(EditError) as error:
        with_erasures([replace(PARK, **change)], *embedded)
    assert str(error.value).startswith(message)
    with pytest.raises(EditError, match="is what the model says: give `model` and `tokenizer`"):
        with_erasures([PARK], None, None)


@pytest.mark.parametrize(
    ("sentence", "question", "expected"),
    [
        ("The language spoken in Brazil is mostly Portuguese", "What language is spoken in Brazil?", "Portuguese"),
        ("It was built by Bo Li in 1887", "When was the Eiffel Tower built?", "Bo Li"),
        ("Paris is the capital of France", "What is the capital of France?", "Paris"),
        ("The opposite of hot is cold", "What is the opposite of hot?", "cold"),
        ("What is the capital?", "What is the capital?", None),
    ],
)
def test_words_in_which_a_sentence_answers(sentence, question, expected):
    assert new_words(sentence, question) == expected


def test_invented_names_look_like_the_subject():
    names = invented_names("The Glass Orchard of 1984", 8, random.Random(0))
    assert len(set(names)) == 8
    for name in names:
        assert [len(word) for word in name.split()] == [3, 5, 7, 2, 4] and " of " in name
        assert name.split()[-1].isdecimal() and all(word[0].isupper() for word in name.split()[:3])
        assert not set(zip(name, "The Glass Orchard of 1984", strict=True)) & {(c, c) for c in "GlasOrchrd1984"}
    assert invented_names("東京", 8, random.Random(0)) == []


def test_prompts_to_erase_stand_beside_the_edits():
    options = EditOptions(erase=["Where is Rome?", "Where is Oslo?"], max_edits=1)
    rows = [{"prompt": "Where is Bern?", "target_new": "Peru"}, {"prompt": "Where is Nice?", "target_new": "Chad"}]
    assert [edit.edit_id for edit in edits_of(options, rows)] == ["0", "erase-1", "erase-2"]
    assert edits_of(options, None)[0] == EditRecord("erase-1", "Where is Rome?", "", erase=True)
