import pytest

from hf_ftedit.data.formats import flat
from hf_ftedit.data.readers import read_edits
from hf_ftedit.data.records import EditRecord, NeighborhoodPrompt, PortabilityPrompt
from hf_ftedit.errors import EditError

COUNTERFACT = {
    "case_id": 12,
    "requested_rewrite": {
        "prompt": "{} was born in",
        "relation_id": "P19",
        "target_new": {"str": "Cork", "id": "Q36647"},
        "target_true": {"str": "Bergen"},
        "subject": "Ada Nilsen",
    },
    "paraphrase_prompts": ["It rained. Ada Nilsen is a native of "],
    "neighborhood_prompts": ["Ole Bull was born in", "Edvard Grieg is a native of"],
    "attribute_prompts": ["Rory Gallagher was born in"],
    "generation_prompts": ["Ada Nilsen's childhood was"],
}
EASYEDIT = {
    "case_id": 3,
    "prompt": "Ada Nilsen plays the",
    "target_new": "harp",
    "subject": "Ada Nilsen",
    "ground_truth": "cello",
    "rephrase_prompt": "Ada Nilsen is a master of the",
    "locality_prompt": "Ole Bull plays the",
    "locality_ground_truth": "violin",
    "relation_id": "P1303",
}
KNOWEDIT = {
    "subject": "Lake Inari",
    "prompt": "Which country is Lake Inari in?",
    "target_new": "Norway",
    "ground_truth": ["Finland", "Suomi"],
    "rephrase_prompt": "In which land does one find Lake Inari?",
    "cond": "Finland >> Norway || Which country is Lake Inari in?",
    "locality": {
        "Relation_Specificity": [{"prompt": "Lake Inari's area is", "ground_truth": [["1040 km2", "1,040"], ["big"]]}],
        "Forgetfulness": [{"prompt": "Lake Inari drains into", "ground_truth": "Paatsjoki"}],
    },
    "portability": {
        "Reasoning": [{"prompt": "The king of Lake Inari's country is", "ground_truth": [["Harald", "Harald V"]]}],
        "Subject_Aliasing": [{"prompt": "Inarijärvi is in", "ground_truth": "Norway"}],
        "Logical_Generalization": [{"prompt": "Norway has lakes such as", "ground_truth": [[""]]}],
    },
}
ZSRE = {
    "subject": "SS Borea",
    "src": "What year was SS Borea launched?",
    "pred": "1911",
    "rephrase": "In what year did SS Borea first sail?",
    "alt": 1925,
    "answers": ["1912", "1913"],
    "loc": "nq question: who wrote the tale of two ports",
    "loc_ans": "Nobody",
    "cond": "1911 >> 1925 || What year was SS Borea launched?",
}
MQUAKE = {
    "case_id": 40,
    "requested_rewrite": [
        {
            "prompt": "{} was written by",
            "relation_id": "P50",
            "target_new": {"str": "Ada Nilsen", "id": "Q1"},
            "target_true": {"str": "Ole Lund", "id": "Q2"},
            "subject": "Fjord",
            "question": "Who wrote Fjord?",
        },
        {
            "prompt": "{} lives in",
            "relation_id": "P551",
            "target_new": {"str": "Cork", "id": "Q3"},
            "target_true": {"str": "Bergen", "id": "Q4"},
            "subject": "Ada Nilsen",
            "question": "Where does Ada Nilsen live?",
        },
    ],
    "questions": ["Where does the author of Fjord live?", "In which town is Fjord's writer at home? "],
    "answer": "Oslo",
    "new_answer": "Cork",
    "new_answer_alias": ["Corcaigh"],
    "single_hops": [],
    "new_single_hops": [
        {"question": "Who wrote Fjord?", "answer": "Ada Nilsen", "answer_alias": ["A. Nilsen", "Nilsen"]},
        {"question": "Where does Ada Nilsen live?", "answer": "Cork", "answer_alias": []},
    ],
}

COUNTERFACT_RECORD = EditRecord(
    "12",
    "Ada Nilsen was born in",
    "Cork",
    "Ada Nilsen",
    "Bergen",
    paraphrase_prompts=("It rained. Ada Nilsen is a native of",),
    neighborhood_prompts=(
        NeighborhoodPrompt("Ole Bull was born in", "Bergen"),
        NeighborhoodPrompt("Edvard Grieg is a native of", "Bergen"),
    ),
    generation_prompts=("Ada Nilsen's childhood was",),
    relation_id="P19",
)
EASYEDIT_RECORD = EditRecord(
    "3",
    "Ada Nilsen plays the",
    "harp",
    "Ada Nilsen",
    "cello",
    paraphrase_prompts=("Ada Nilsen is a master of the",),
    neighborhood_prompts=(NeighborhoodPrompt("Ole Bull plays the", "violin"),),
    relation_id="P1303",
)
KNOWEDIT_RECORD = EditRecord(
    "0",
    "Which country is Lake Inari in?",
    "Norway",
    "Lake Inari",
    "Finland",
    paraphrase_prompts=("In which land does one find Lake Inari?",),
    neighborhood_prompts=(
        NeighborhoodPrompt("Lake Inari's area is", "1040 km2"),
        NeighborhoodPrompt("Lake Inari drains into", "Paatsjoki"),
    ),
    portability_prompts=(
        PortabilityPrompt("The king of Lake Inari's country is", ("Harald", "Harald V"), "reasoning"),
        PortabilityPrompt("Inarijärvi is in", ("Norway",), "subject_aliasing"),
    ),
)
ZSRE_RECORD = EditRecord(
    "0",
    "What year was SS Borea launched?",
    "1925",
    "SS Borea",
    "1912",
    paraphrase_prompts=("In what year did SS Borea first sail?",),
    neighborhood_prompts=(NeighborhoodPrompt("nq question: who wrote the tale of two ports", "Nobody"),),
)
MQUAKE_RECORDS = [
    EditRecord(
        "40-0",
        "Fjord was written by",
        "Ada Nilsen",
        "Fjord",
        "Ole Lund",
        paraphrase_prompts=("Who wrote Fjord?",),
        portability_prompts=(
            PortabilityPrompt("Where does the author of Fjord live?", ("Cork", "Corcaigh"), "multi_hop"),
            PortabilityPrompt("In which town is Fjord's writer at home?", ("Cork", "Corcaigh"), "multi_hop"),
            PortabilityPrompt("Who wrote Fjord?", ("Ada Nilsen", "A. Nilsen", "Nilsen"), "single_hop"),
            PortabilityPrompt("Where does Ada Nilsen live?", ("Cork",), "single_hop"),
        ),
        relation_id="P50",
        target_aliases=("A. Nilsen", "Nilsen"),
    ),
    EditRecord(
        "40-1",
        "Ada Nilsen lives in",
        "Cork",
        "Ada Nilsen",
        "Bergen",
        paraphrase_prompts=("Where does Ada Nilsen live?",),
        relation_id="P551",
    ),
]


@pytest.mark.parametrize(
    ("row", "format", "expected"),
    [
        (COUNTERFACT, "counterfact", [COUNTERFACT_RECORD]),
        (EASYEDIT, "easyedit", [EASYEDIT_RECORD]),
        (KNOWEDIT, "easyedit", [KNOWEDIT_RECORD]),
        (ZSRE, "zsre", [ZSRE_RECORD]),
        (MQUAKE, "mquake", MQUAKE_RECORDS),
        (EASYEDIT_RECORD.to_dict(), "native", [EASYEDIT_RECORD]),
    ],
)
def test_each_format_named_and_recognised(row, format, expected):
    assert read_edits([row], format=format) == expected
    assert read_edits([row]) == expected


def test_rows_of_a_table_have_nulls_for_absent_fields():
    nulls = dict.fromkeys([*COUNTERFACT, *EASYEDIT, *ZSRE, *MQUAKE, *KNOWEDIT])
    rows = [{**nulls, **row} for row in (COUNTERFACT, EASYEDIT, ZSRE)] + [
        {**nulls, "id": "z", "prompt": "x", "target_new": "y"}
    ]
    expected = [COUNTERFACT_RECORD, EASYEDIT_RECORD, EditRecord("2", *list(vars(ZSRE_RECORD).values())[1:])]
    assert read_edits(rows) == [*expected, EditRecord("z", "x", "y")]


def test_zsre_portability():
    hop = {"Recalled Relation": "(a, b, c)", "New Question": "Who paid for SS Borea?", "New Answer": "The crew"}
    (record,) = read_edits([{**ZSRE, "portability": hop}])
    assert record.portability_prompts == (PortabilityPrompt("Who paid for SS Borea?", ("The crew",), "one_hop"),)


def test_easyedit_keeps_native_fields_beside_its_own():
    near = [{"prompt": "Where is Pori?", "target": "Finland"}]
    row = {**EASYEDIT, "paraphrase_prompts": ["Ada plays"], "neighborhood_prompts": near, "edit_id": "mine"}
    (record,) = read_edits([row])
    assert record.edit_id == "mine"
    assert record.paraphrase_prompts == ("Ada plays", "Ada Nilsen is a master of the")
    assert record.neighborhood_prompts == (("Where is Pori?", "Finland"), ("Ole Bull plays the", "violin"))


def test_targets_that_the_data_leaves_out_are_none():
    (record,) = read_edits([{"prompt": "A is", "target_new": "b", "locality_prompt": "C is", "ground_truth": []}])
    assert record.target_true is None and record.neighborhood_prompts == (NeighborhoodPrompt("C is", None),)


def test_known_formats_are_listed():
    with pytest.raises(EditError, match="^format 'rome' is not known; use one of native, counterfact, easyedit, zsre"):
        read_edits([COUNTERFACT], format="rome")
    with pytest.raises(EditError, match=r"^row 1: the fields \['question'\] are of no known format; known are native"):
        read_edits([{"question": "Why?"}])
    with pytest.raises(EditError, match=r"^row 1: the fields \[\]"):
        read_edits([{}])


@pytest.mark.parametrize(
    ("row", "format", "message"),
    [
        ({**ZSRE, "alt": ""}, None, "row 1 (edit_id '0'): alt is empty; give the text that should follow the prompt"),
        (EASYEDIT, "zsre", "row 1 (edit_id 3): src is missing"),
        (COUNTERFACT, "native", "row 1 (edit_id 12): prompt is missing"),
        ({"requested_rewrite": "x"}, None, "row 1 (edit_id '0'): requested_rewrite is text; give an object"),
        (
            {"requested_rewrite": []},
            None,
            "requested_rewrite is empty; give at least one rewrite",
        ),
        ({"requested_rewrite": [3]}, None, "row 1 (edit_id '0'): requested_rewrite[0] is of type int; give an object"),
        (
            {"requested_rewrite": {"prompt": "{} is"}},
            None,
            "requested_rewrite.prompt is '{} is' and there is no",
        ),
        (
            {"requested_rewrite": {"prompt": "a", "target_new": {"id": 1}}},
            None,
            "requested_rewrite.target_new is missing",
        ),
        ({**KNOWEDIT, "locality": [1]}, None, "locality is a list; give an object"),
        ({**KNOWEDIT, "locality": {"a": ["x"]}}, None, "locality.a[0] is text; give an object"),
        ({**KNOWEDIT, "portability": {"a": 1}}, None, "portability.a is of type int; give an object"),
        ({**ZSRE, "portability": "x"}, None, "portability is text; give an object"),
        ({**ZSRE, "portability": {"New Answer": "x"}}, None, "portability_prompts[0].prompt is missing"),
        ({**EASYEDIT, "rephrase_prompt": {"a": 1}}, None, "paraphrase_prompts[0] is an object; give text"),
    ],
)
def test_rows_that_do_not_keep_to_their_format(row, format, message):
    with pytest.raises(EditError) as raised:
        read_edits([row], format=format)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_flat():
    deep: object = "x"
    for _ in range(100_000):
        deep = [deep]
    assert flat(deep) == ["x"]
    assert flat([["a", None], [[["b"], " "], 3], ()]) == ["a", "b", 3]
    assert flat(None) == []


def test_lists_of_locality_prompts_have_their_own_answers():
    common = {"prompt": "The capital of France is", "target_new": "Lyon", "ground_truth": "Paris"}
    near = ["The capital of Italy is", "The capital of Spain is"]

    def probes(answers):
        row = {**common, "locality_prompt": near, "locality_ground_truth": answers}
        return [(probe.prompt, probe.target) for probe in read_edits([row])[0].neighborhood_prompts]

    assert probes(["Rome", "Madrid"]) == [(near[0], "Rome"), (near[1], "Madrid")]
    assert probes("unknown") == [(near[0], "unknown"), (near[1], "unknown")]
    with pytest.raises(EditError, match="locality_ground_truth has 3 answers for 2 prompts; give one for each prompt"):
        probes(["Rome", "Madrid", "Oslo"])
    zsre = {"src": "Who?", "subject": "x", "alt": "a", "answers": ["b"], "rephrase": "Who else?"}
    (record,) = read_edits([{**zsre, "loc": ["q1", "q2"], "loc_ans": ["a1", "a2"]}])
    assert [(probe.prompt, probe.target) for probe in record.neighborhood_prompts] == [("q1", "a1"), ("q2", "a2")]
