import pytest

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.diagnosis import diagnose
from hf_ftedit.evaluation.scoring import compare, score

BEFORE = {"protocol": "probability", "efficacy": 5.0, "generalization": 10.0, "locality": 95.0, "fluency": 600.0}
BEFORE |= {"n_edits": 100, "edit_score_note": None, "perplexity": 20.0}
AFTER = BEFORE | {"efficacy": 99.0, "generalization": 95.0, "locality": 94.0}
AFTER |= {"accuracy": {"efficacy": 99.0, "locality": 90.0}, "containment": {"efficacy": 95.0}}
SETTINGS = {
    "num_train_epochs": 6.0,
    "learning_rate": 7e-05,
    "lora_r": 8,
    "num_paraphrases": 15,
    "paraphrase_strategy": "relation",
    "num_locality": 20,
    "locality_strategy": "near",
    "objective": "conditional",
}
SIGNS = {
    "efficacy": "Efficacy is low",
    "generalization": "Generalization is low",
    "erased": "Old answers that were to be erased are still said (5.1 %)",
    "locality": "facts near the edited ones changed too",
    "locality before": " before training: the unedited model does not know all that the probes ask for",
    "near names": "Near names are low",
    "more said": "The new answers are said, but only",
    "drift": "Drift is",
    "said": "The model would go on with the new answers",
    "first choice": "Of the near facts",
    "perplexity": "Perplexity rose",
    "fluency": "Fluency fell",
    "held before": "of the edits held before training already",
    "chance": "The change of the edit score could be chance",
    "few": "Only ",
    "same": "The right answer is the new target itself in 2 probes",
    "undefined": "There is no edit score",
    "good": "Efficacy, generalization and locality are all 90 or more: nothing stands out.",
}


def results(before=(), after=(), p_value=0.0):
    change = {"edit_score": {"difference": 80.0, "p_value": p_value}}
    return {"before": BEFORE | dict(before), "after": AFTER | dict(after), "change": change}


def names(found):
    """Which sentences were said, in their order."""
    return [next(name for name, sign in SIGNS.items() if sign in line) for line in found]


@pytest.mark.parametrize("settings", [None, SETTINGS])
def test_where_all_is_well_that_is_said(settings):
    assert diagnose(results(), settings) == [SIGNS["good"]]


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ({}, {"efficacy": 90.0}, "good"),
        ({}, {"efficacy": 89.9, "containment": None}, "efficacy"),
        ({}, {"efficacy": 0.0, "containment": None}, "efficacy"),
        ({}, {"efficacy": 89.9, "generalization": 10.0, "containment": None}, "efficacy"),  # the cause, not its effect
        ({}, {"generalization": 90.0}, "good"),
        ({}, {"generalization": 89.9}, "generalization"),
        ({}, {"old_answer_said": 5.0}, "good"),
        ({}, {"old_answer_said": 5.1}, "erased"),
        ({}, {"locality": 90.0}, "good"),
        ({}, {"locality": 89.9}, "locality"),
        ({"locality": 95.0}, {"locality": 89.9}, "locality"),
        ({"locality": None}, {"locality": 89.9}, "locality"),
        ({"locality": 60.0}, {"locality": 60.0}, "locality before"),
        ({}, {"locality": 89.99999999999999}, "good"),  # as the mean of 80, 100 and 90 may be
        ({}, {"near_names": 90.0, "said_exactly": 90.0, "drift": 0.1}, "good"),
        ({}, {"near_names": 89.9}, "near names"),
        ({}, {"said_exactly": 89.9}, "more said"),
        ({}, {"efficacy": 80.0, "said_exactly": 10.0}, "efficacy"),
        ({}, {"drift": 0.101}, "drift"),
        ({}, {"near_names": None, "said_exactly": None, "drift": None}, "good"),
        ({}, {"containment": {"efficacy": 84.0}}, "good"),  # 15 points less than accuracy
        ({}, {"containment": {"efficacy": 83.9}}, "said"),
        ({}, {"containment": {"efficacy": None}}, "good"),
        ({}, {"accuracy": {"efficacy": 99.0, "locality": 79.0}}, "good"),  # 15 points less than by probability
        ({}, {"accuracy": {"efficacy": 99.0, "locality": 78.9}}, "first choice"),
        ({}, {"accuracy": {"efficacy": 99.0, "locality": 78.9}, "protocol": "accuracy"}, "good"),
        ({}, {"accuracy": {"efficacy": 99.0, "locality": None}}, "good"),
        ({}, {"perplexity": 22.0}, "good"),
        ({}, {"perplexity": 22.1}, "perplexity"),
        ({}, {"perplexity": 10.0}, "good"),
        ({}, {"perplexity": None}, "good"),
        ({"perplexity": None}, {"perplexity": 99.0}, "good"),
        ({}, {"fluency": 540.0}, "good"),
        ({}, {"fluency": 539.9}, "fluency"),
        ({}, {"fluency": 0.0}, "fluency"),  # the same word again and again
        ({}, {"fluency": 900.0}, "good"),
        ({}, {"fluency": None}, "good"),
        ({"fluency": None}, {"fluency": 1.0}, "good"),
        ({"efficacy": 50.0}, {}, "good"),
        ({"efficacy": 50.6}, {}, "held before"),
        ({"efficacy": None}, {}, "good"),
        ({}, {"n_without_rival": 2}, "same"),
        ({}, {"n_without_rival": 2, "protocol": "accuracy"}, "good"),
        ({}, {"n_edits": 30}, "good"),
        ({}, {"n_edits": 29}, "few"),
        ({}, {"edit_score_note": "no paraphrase probe: generalization is undefined"}, "undefined"),
    ],
)
def test_each_sentence_is_said_where_it_holds_and_nowhere_else(before, after, expected):
    assert names(diagnose(results(before, after))) == [expected]


@pytest.mark.parametrize("empty", [{}, None, [], {"before": {}, "after": {}}, {"before": BEFORE, "after": 3}])
def test_what_are_no_results_is_told(empty):
    with pytest.raises(EditError, match="^results are none: .*; give what eval_results.json holds"):
        diagnose(empty)
    assert diagnose({"before": BEFORE}) == []


@pytest.mark.parametrize("p_value, expected", [(0.05, "good"), (0.051, "chance"), (1.0, "chance")])
def test_a_change_that_could_be_chance(p_value, expected):
    assert names(diagnose(results(p_value=p_value))) == [expected]


def test_of_five_edits_no_change_can_be_more_than_chance():
    """All flips but two of thirty-two are less extreme at best: p is 0.06, and that is no reproach."""
    assert names(diagnose(results(after={"n_edits": 5}, p_value=0.06))) == ["few"]
    assert names(diagnose(results(after={"n_edits": 6}, p_value=0.06))) == ["chance", "few"]


@pytest.mark.parametrize("change", [{}, {"efficacy": {"p_value": 1.0}}])
def test_a_change_of_no_edit_score_is_no_chance(change):
    assert names(diagnose(results() | {"change": change})) == ["good"]
    assert names(diagnose({"before": BEFORE, "after": AFTER})) == ["good"]


def test_results_of_older_runs_lack_what_was_not_measured():
    """Without accuracy, generated answers, texts and perplexity."""
    lean = {"protocol", "efficacy", "generalization", "locality", "n_edits", "edit_score_note"}
    before, after = ({name: scores[name] for name in lean} for scores in (BEFORE, AFTER))
    assert names(diagnose({"before": before, "after": after})) == ["good"]


def test_several_sentences_keep_their_order():
    bad = {"efficacy": 50.0, "locality": 80.0, "accuracy": {"efficacy": 60.0, "locality": 40.0}, "n_edits": 6}
    bad |= {"containment": {"efficacy": 20.0}, "perplexity": 400.0, "fluency": 100.0, "edit_score_note": "x"}
    found = names(diagnose(results({"efficacy": 50.6}, bad, p_value=0.5)))
    others = ["locality", "said", "first choice", "perplexity", "fluency", "held before", "chance", "few", "undefined"]
    assert found == ["efficacy", *others]
    found = names(diagnose(results({"efficacy": 50.6}, bad | {"efficacy": 95.0, "generalization": 50.0}, p_value=0.5)))
    assert found == ["generalization", *others]


def test_sentences_name_the_present_values_of_settings():
    bad = {"efficacy": 50.0, "locality": 80.0, "containment": None, "perplexity": 30.0, "fluency": 300.0}
    assert diagnose(results({}, bad), SETTINGS) == [
        "Efficacy is low (50.0): the edits themselves were not learnt. Train longer (`num_train_epochs` (now 6.0)) or "
        "with a larger `learning_rate` (now 7e-05).",
        "Locality is low (80.0): facts near the edited ones changed too. Rehearse more facts (`num_locality` (now 20))"
        " or nearer ones (`locality_strategy` (now near); `near` needs a locality pool with relation_id).",
        "Perplexity rose from 20.0 to 30.0: the model as a whole was changed. Lower the `learning_rate` (now 7e-05), "
        "the `lora_r` (now 8) or the `num_train_epochs` (now 6.0).",
        "Fluency fell from 600 to 300: generated text repeats itself. Lower the `learning_rate` (now 7e-05) or the "
        "`num_train_epochs` (now 6.0).",
    ]
    assert diagnose(results({}, {"generalization": 70.0}), SETTINGS) == [
        "Generalization is low (70.0) while efficacy is 99.0: the wording was learnt rather than the fact. Give more "
        "paraphrases (`num_paraphrases` (now 15)) or more varied ones (`paraphrase_strategy` (now relation); "
        "`relation` needs subjects and a locality pool)."
    ]


def test_a_chat_model_needs_no_pool():
    """Its settings say that it is one, or that its own answers are whole."""
    low = {"generalization": 70.0, "locality": 80.0}
    of_chat = [(low, SETTINGS | {"chat_template": True}), (low | {"whole_answers": True}, None)]
    for after, settings in of_chat:
        first, second = diagnose(results({}, after), settings)
        assert first.endswith("Give the edits `wordings`, or a larger `rewriter` that makes some.")
        assert second.endswith("Rehearse more facts (`num_locality`" + (" (now 20))." if settings else ")."))
    stopping = diagnose(results({}, low | {"whole_answers": True}), SETTINGS | {"chat_template": False})
    assert all("locality pool" in line for line in stopping)


def test_sentences_name_the_values_that_disagree():
    bad = {"containment": {"efficacy": 40.0}, "accuracy": {"efficacy": 98.0, "locality": 60.0}, "n_edits": 20}
    found = diagnose(results({"efficacy": 87.6}, bad, p_value=0.123))
    for line, said in zip(found, ["accuracy 98.0", "94.0", "88 % of", "p = 0.12", "20 edits"], strict=True):
        assert said in line
    assert "(40.0)" in found[0] and "(60.0 by accuracy)" in found[1]


def test_settings_that_are_not_known_are_named_without_a_value():
    [line] = diagnose(results({}, {"efficacy": 50.0, "containment": None}), {"learning_rate": 0.001})
    assert line.endswith("Train longer (`num_train_epochs`) or with a larger `learning_rate` (now 0.001).")
    assert "now" not in diagnose(results({}, {"locality": 50.0}))[0]


def test_the_full_objective_is_named_where_it_was_used():
    bad = results({}, {"efficacy": 50.0, "containment": None})
    [line] = diagnose(bad, SETTINGS | {"objective": "full"})
    assert line.endswith("(now 7e-05), and use `objective` conditional rather than full.")
    assert "objective" not in diagnose(bad, SETTINGS)[0] + diagnose(bad)[0]


@pytest.mark.parametrize("kinds", [["rewrite"], ["paraphrase"], ["neighborhood"], ["paraphrase", "neighborhood"]])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_what_score_and_compare_return_is_read(kinds, value):
    """Two edits without probes of some kinds."""
    shared = {"probe": "p", "logprob": -1.0, "match": False, "token_accuracy": value}
    expected = {kind: "true" if kind == "neighborhood" else "new" for kind in kinds}
    rows = [shared | {"edit_id": i, "kind": kind, "role": expected[kind]} for i in "ab" for kind in kinds]
    scores = score(rows, n_resamples=10)
    found = diagnose({"before": scores, "after": scores, "change": compare(rows, rows, n_resamples=10)})
    assert names(found)[-2:] == ["few", "undefined"]
    assert found[-2].startswith("Only 2 edits were measured")


def test_edits_that_a_merge_lost_were_learnt():
    alone = [(100.0, 99.0), (100.0, 66.7), (95.0, 50.04), (None, 0.0)]
    parts = [{"efficacy_alone": before, "efficacy": here} for before, here in alone]
    bad = results({}, {"efficacy": 60.0, "generalization": 50.0, "locality": 80.0, "containment": None})
    first, second, third = diagnose(bad, SETTINGS | {"provenance": {"parts": parts}})
    assert first.startswith(
        "Edits were lost in the merge: the efficacy of one part was 95.0 alone and is 50.0 here. Tr"
    )
    assert names([second]) == ["locality"]
    # Who merged set none of the settings that the advice names.
    assert third == "A merge trains nothing: these settings are for training all the edits at once instead."
    well = diagnose(results({}, {"locality": 94.0}), SETTINGS | {"provenance": {"parts": parts[:1] * 2}})
    assert well == [SIGNS["good"]]
    assert names(diagnose(bad, SETTINGS | {"provenance": {"parts": parts[:1]}})) == ["efficacy", "locality"]


def test_one_edit_is_singular():
    [line] = diagnose(results({}, {"n_edits": 1}))
    assert line.startswith("Only 1 edit was measured")


@pytest.mark.parametrize(("steps", "setting"), [(3, "max_steps` (now 3)"), (-1, "num_train_epochs` (now 6.0)")])
def test_the_setting_that_ends_a_run_is_named(steps, setting):
    [line] = diagnose(results({}, {"efficacy": 50.0, "containment": None}), {**SETTINGS, "max_steps": steps})
    assert f"Train longer (`{setting})" in line
