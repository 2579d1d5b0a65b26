"""Probes that the package makes for edits without any."""

from dataclasses import replace

from hf_ftedit.augmentation import untrained_probes, with_made_probes
from hf_ftedit.augmentation.wordings import written_wordings
from hf_ftedit.data import EditRecord, NeighborhoodPrompt

CEO = EditRecord("a", "Who is the CEO of Acme?", "Bo")


def made(*records):
    return with_made_probes(records)


def test_two_probes_of_each_kind():
    (record,) = made(CEO)
    assert record.made_probes and replace(record, made_probes=False).prompt == CEO.prompt
    neighbors = [probe.prompt for probe in record.neighborhood_prompts]
    assert len(record.paraphrase_prompts) == len(record.near_name_prompts) == 2 and len(neighbors) == 4
    assert all("Acme" in text for text in (*record.paraphrase_prompts, *neighbors[2:]))  # what else is asked of it
    assert not [text for text in neighbors[2:] if "CEO" in text or "chief" in text]
    others = [*neighbors[:2], *record.near_name_prompts]
    assert all(text.startswith("Who is the CEO of ") and "Acme" not in text for text in others)
    assert record.subject is None  # as the user gave it


def test_the_same_probes_whatever_stands_beside_it():
    other = EditRecord("b", "What is the capital of Ruritania?", "Bo")
    assert made(CEO)[0] == made(other, CEO)[1]


def test_probes_of_the_user_are_all_there_are():
    for probes in (
        {"paraphrase_prompts": ("Who runs Acme?",)},
        {"neighborhood_prompts": (NeighborhoodPrompt("Who runs Bolt?"),)},
        {"near_name_prompts": ("Who runs Agme?",)},
    ):
        record = replace(CEO, **probes)
        assert made(record) == [record]


def test_half_of_few_wordings_is_left_to_train_on():
    (record,) = made(EditRecord("a", "Who guards Acme?", "Bo"))  # six rephrasings
    assert len(record.paraphrase_prompts) == 2
    assert all("Acme" in probe.prompt for probe in record.neighborhood_prompts)  # the bank knows no other guarded one
    (record,) = made(EditRecord("a", "Does Acme moo?", "Bo"))  # one
    assert record.paraphrase_prompts == () and len(record.near_name_prompts) == 2


def test_no_subject_of_another_edit_is_a_neighbor():
    apples = [EditRecord(str(n), f"Who is the CEO of {name}?", "Bo") for n, name in enumerate(ALL_BUT_TWO)]
    record = made(CEO, *apples)[0]
    assert {probe.prompt for probe in record.neighborhood_prompts[:2]} == {
        "Who is the CEO of Starbucks?", "Who is the CEO of Spotify?"
    }  # fmt: skip


def test_an_article_is_not_doubled():
    (record,) = made(EditRecord("a", "When was the Eiffel Tower built?", "1900"))
    assert not [probe for probe in record.neighborhood_prompts if "the the " in probe.prompt.lower()]


def test_edits_without_a_known_subject_stay_as_they_are():
    for prompt in ("wer hat das gemacht?", "who did it?", "Who is {}?", "🙂?"):
        record = EditRecord("a", prompt, "Bo")
        assert made(record) == [record]
    record = EditRecord("a", "Who is X in this?", "Bo", subject="Y")
    assert made(record) == [record]


ALL_BUT_TWO = (
    "Apple Microsoft Amazon Netflix Nvidia Tesla IBM Intel Sony Siemens Toyota Volkswagen Nestlé Walmart".split()
)


def test_probes_that_nothing_else_of_the_run_holds():
    (exam,) = made(CEO)
    settings = {"count": 3, "seed": 1}
    (free,) = untrained_probes([exam], {}, [exam], **settings)
    rows = {"a": [f"Quick question: {text.upper()}" for text in (*free.paraphrase_prompts, *free.near_name_prompts)]}
    (other,) = untrained_probes([exam], rows, [exam], **settings)
    taken = {*free.paraphrase_prompts, *free.near_name_prompts, *exam.paraphrase_prompts, *exam.near_name_prompts}
    for record in (free, other):
        assert len({*record.paraphrase_prompts}) == len({*record.near_name_prompts}) == 3
        assert all("Acme" in text for text in record.paraphrase_prompts)
        assert not record.neighborhood_prompts
    assert len(taken) == 10 and not taken & {*other.paraphrase_prompts, *other.near_name_prompts}
    # Where every wording is trained, what is written around the prompt is new.
    rows = {"a": [CEO.prompt, *written_wordings(replace(CEO, subject="Acme"))]}
    (framed,) = untrained_probes([exam], rows, [exam], **settings)
    assert all(CEO.prompt in text and text != CEO.prompt for text in framed.paraphrase_prompts)
    assert len({*framed.paraphrase_prompts}) == 3
