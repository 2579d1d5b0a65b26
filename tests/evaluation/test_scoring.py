import itertools
import json
import math
import random
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.scoring import COLUMNS, KINDS, compare, edit_means, score

OTHER = {"new": "true", "true": "new"}
NO_PROBES = dict.fromkeys((*KINDS, "generation"), 0)


def probe(edit_id, kind, prompt, ours, other=None, accuracy=1.0):
    """The rows of one probe: its expected target's log-probability, and the other's where there is one."""
    expected = "true" if kind == "neighborhood" else "new"
    shared = {"edit_id": edit_id, "kind": kind, "probe": prompt}
    rows = [shared | {"role": expected, "logprob": ours, "match": accuracy == 1.0, "token_accuracy": accuracy}]
    if other is not None:
        rows.append(shared | {"role": OTHER[expected], "logprob": other, "match": False, "token_accuracy": 0.0})
    return rows


def two_edits():
    """
    By hand, probability: efficacy (1 + 0) / 2; generalization (1/2 + 1) / 2; locality (2/3 + 1) / 2.

    Accuracy: efficacy (1 + 0.5) / 2; generalization (0.75 + 1) / 2; locality (2/3 + 0) / 2.
    """
    return [
        *probe("a", "rewrite", "p", -0.1, -2.0),
        *probe("a", "paraphrase", "q", -0.1, -2.0, accuracy=0.5),
        *probe("a", "paraphrase", "r", -3.0, -2.0),
        *probe("a", "neighborhood", "s", -0.1, -2.0),
        *probe("a", "neighborhood", "t", -0.1, -2.0, accuracy=0.0),
        *probe("a", "neighborhood", "u", -5.0, -2.0),
        *probe("b", "rewrite", "v", -1.0, -1.0, accuracy=0.5),  # a tie is no success
        *probe("b", "paraphrase", "w", -0.5, -0.6),
        *probe("b", "neighborhood", "x", -0.5, -math.inf, accuracy=0.0),
    ]


def test_both_protocols_by_hand():
    result = score(two_edits())
    assert result["protocol"] == "probability"
    expected = {"efficacy": 50.0, "generalization": 75.0, "locality": 250 / 3}
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert result["edit_score"] == pytest.approx(3 / (1 / 50 + 1 / 75 + 3 / 250)) and result["edit_score_note"] is None
    accuracy = {"efficacy": 75.0, "generalization": 87.5, "locality": 100 / 3}
    assert {name: result["accuracy"][name] for name in accuracy} == pytest.approx(accuracy)
    assert result["accuracy"]["edit_score"] == pytest.approx(3 / (1 / 75 + 1 / 87.5 + 3 / 100))
    assert result["n_edits"] == 2
    assert result["n_probes"] == NO_PROBES | {"rewrite": 2, "paraphrase": 3, "neighborhood": 4}
    assert result["fluency"] is result["consistency"] is result["fluency_ci95"] is result["portability"] is None
    assert result["n_edits_scored"]["fluency"] == result["n_edits_scored"]["portability"] == 0
    assert "exact_match" not in result and "containment" not in result
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_one_probe_without_its_other_target_makes_it_the_accuracy_protocol():
    rows = two_edits() + probe("b", "neighborhood", "y", -0.1)
    result = score(rows)
    assert result["protocol"] == "accuracy"
    assert result["probability"]["locality"] == pytest.approx(250 / 3)  # over the probes that have both


def test_a_probe_whose_right_answer_is_the_new_target_can_neither_win_nor_lose():
    targets = {"new": "Rome", "true": "Paris"}
    rows = [row | {"target": targets[row["role"]]} for row in two_edits()]
    same = [row | {"target": "Rome"} for row in probe("b", "neighborhood", "y", -0.1, -0.1, accuracy=0.5)]
    result = score(rows + same)
    assert (result["protocol"], result["n_without_rival"]) == ("probability", 1)
    assert result["locality"] == pytest.approx(250 / 3) and "n_without_rival" not in score(rows)
    assert result["accuracy"]["locality"] == pytest.approx(100 * (2 / 3 + 0.25) / 2)
    # A tie of two different targets still is no success, and one probe alone leaves its score undefined.
    assert score(rows)["efficacy"] == 50.0
    alone = score([row for row in rows if row["kind"] != "neighborhood"] + same)
    assert (alone["protocol"], alone["locality"], alone["edit_score"]) == ("probability", None, None)
    assert alone["edit_score_note"] == "no neighborhood probe with two targets: locality is undefined"
    # Tables of 0.1.0, which call the role `target`, and the target `answer`.
    old = [{**row, "target": row["role"], "answer": row["target"]} for row in rows + same]
    assert score([{name: value for name, value in row.items() if name != "role"} for row in old]) == result


def test_edits_that_change_nothing_are_judged_by_accuracy():
    rows = [row | {"target": "Rome"} for row in probe("a", "rewrite", "p", -0.1, -0.1, accuracy=0.5)]
    result = score(rows)
    assert (result["protocol"], result["efficacy"], result["probability"]["efficacy"]) == ("accuracy", 50.0, None)


def test_an_undefined_score_is_none_and_says_why():
    result = score(probe("a", "rewrite", "p", -0.1, -2.0))
    assert result["efficacy"] == 100.0
    assert result["generalization"] is None and result["locality_ci95"] is None and result["edit_score"] is None
    assert result["edit_score_note"] == (
        "no paraphrase probe: generalization is undefined; no neighborhood probe: locality is undefined"
    )


def test_a_probe_that_stands_twice_counts_once_and_must_agree():
    rows = two_edits()
    assert score([*rows, rows[0]]) == score(rows)
    with pytest.raises(EditError, match="edit 'a', rewrite probe 'p'.*two different predictions"):
        score([*rows, rows[0] | {"logprob": -7.0}])


def test_of_several_answers_to_a_neighbor_the_best_one_counts():
    def answers(*logprobs):
        probes = [probe("a", "neighborhood", "n", one, -2.0, accuracy=float(one > -1)) for one in logprobs]
        targets = iter(("Norway", "Europe"))
        rows = itertools.chain(*probes)
        return [row | {"target": "Rome" if row["role"] == "new" else next(targets)} for row in rows]

    others = [row | {"target": row["role"]} for row in two_edits() if row["kind"] != "neighborhood"]
    for logprobs, expected in (((-3.0, -0.1), 100), ((-0.1, -3.0), 100), ((-3.0, -4.0), 0)):
        result = score(others + answers(*logprobs))
        assert result["locality"] == result["accuracy"]["locality"] == expected
        assert result["n_probes"]["neighborhood"] == 1
    with pytest.raises(EditError, match="edit 'a', neighborhood probe 'n': it has two different predictions"):
        score(others + [row | {"target": row["role"]} for row in answers(-3.0, -0.1)])


def test_a_missing_column_and_no_rows_are_errors():
    with pytest.raises(EditError, match="token_accuracy"):
        score([{name: value for name, value in row.items() if name != "token_accuracy"} for row in two_edits()])
    with pytest.raises(EditError, match="no predictions"):
        score([])


def test_rows_columns_and_their_order_do_not_matter():
    rows = two_edits()
    shuffled = random.Random(0).sample(rows, len(rows))
    columns = {name: [row[name] for row in shuffled] for name in COLUMNS}
    assert score(shuffled) == score(rows) == score(columns)


def test_an_edit_score_of_zero_has_an_interval_without_a_warning(recwarn):
    rows = two_edits() + probe("b", "paraphrase", "never", -9.0, -0.1)
    rows = [row | {"logprob": -99.0} if row["kind"] == "rewrite" and row["role"] == "new" else row for row in rows]
    result = score(rows)
    assert result["edit_score"] == 0.0 and result["edit_score_ci95"] == [0.0, 0.0]
    assert not recwarn.list


def answered(edit_id, kind, prompt, token_accuracy, exact_match, containment, aspect=None):
    """The row of a probe's expected target, of which the model's own answer was compared with it."""
    [row] = probe(edit_id, kind, prompt, -1.0, accuracy=token_accuracy)
    return row | {"aspect": aspect, "exact_match": exact_match, "containment": containment}


def written(edit_id, prompt, fluency, consistency):
    """The row of a generated text: it has neither target nor log-probability."""
    empty = dict.fromkeys(("role", "logprob", "match", "token_accuracy", "aspect", "exact_match", "containment"))
    shared = {"edit_id": edit_id, "kind": "generation", "probe": prompt}
    return shared | empty | {"fluency": fluency, "consistency": consistency}


def everything():
    """Three edits, of which the second has no portability and no locality, and the third no text and no paraphrase."""
    return [
        answered("a", "rewrite", "p", 1.0, True, True),
        answered("a", "paraphrase", "q", 1.0, True, True),
        answered("a", "paraphrase", "r", 0.5, False, True),
        answered("a", "neighborhood", "s", 1.0, True, True),
        answered("a", "neighborhood", "t", 0.0, False, False),
        answered("a", "portability", "u", 0.25, False, False, "reasoning"),
        answered("a", "portability", "u", 0.75, False, True, "reasoning"),  # another answer to the same probe
        answered("a", "portability", "v", 0.0, False, False, "reasoning"),
        answered("a", "portability", "w", 1.0, True, True, "alias"),
        written("a", "g", 5.0, 0.5),
        written("a", "h", 4.0, 0.5),
        written("a", "i", None, 0.5),  # too short to have an entropy
        answered("b", "rewrite", "p", 0.5, False, True),
        answered("b", "paraphrase", "q", 0.5, False, False),
        written("b", "g", 6.0, None),
        answered("c", "rewrite", "p", 0.0, False, False),
        answered("c", "neighborhood", "s", 1.0, False, True),
        answered("c", "portability", "u", 0.5, True, True, "reasoning"),
    ]


def rounded(result, names):
    return {name: result[name] if result[name] is None else round(result[name], 4) for name in names}


SUMS = ("edit_score", "efficacy", "generalization", "locality", "portability")
BY_HAND = {
    # Edits a, b, c: efficacy 1, 1/2, 0; generalization 3/4, 1/2, none; locality 1/2, none, 1; portability
    # (3/4 + 0 + 1) / 3, none, 1/2. Edit score 3 / (1/50 + 1/62.5 + 1/75).
    "accuracy": (60.8108, 50.0, 62.5, 75.0, 54.1667),
    # 1, 0, 0; 1/2, 0; 1/2, 0; (0 + 0 + 1) / 3, 1
    "exact_match": (27.2727, 33.3333, 25.0, 25.0, 66.6667),
    # 1, 1, 0; 1, 0; 1/2, 1; (1 + 0 + 1) / 3, 1
    "containment": (62.069, 66.6667, 50.0, 75.0, 83.3333),
}


@pytest.mark.parametrize("protocol", BY_HAND)
def test_protocols_of_generated_answers_by_hand(protocol):
    expected = dict(zip(SUMS, BY_HAND[protocol], strict=True))
    result = score(everything(), protocol)
    assert result["protocol"] == protocol
    assert rounded(result, SUMS) == rounded(result[protocol], SUMS) == expected
    assert result["edit_score_ci95"] == result[protocol]["edit_score_ci95"]
    for name in BY_HAND:  # whatever is chosen, all are there
        assert result[name] == score(everything())[name]


def test_counts_by_hand():
    result = score(everything())
    assert result["protocol"] == "accuracy"
    assert result["n_edits"] == 3
    counted = {"rewrite": 3, "paraphrase": 3, "neighborhood": 3, "portability": 4, "generation": 4}
    assert result["n_probes"] == NO_PROBES | counted
    scored = {"efficacy": 3, "generalization": 2, "locality": 2, "portability": 2, "fluency": 2, "consistency": 1}
    assert result["n_edits_scored"] == scored | {"said_exactly": 0, "near_names": 0}


def chat():
    """By hand, own answers: efficacy (1 + 1) / 2, exactly (1 + 0) / 2; near names of one edit only (1 + 0) / 2."""
    rows = [
        answered("a", "rewrite", "p", 1.0, True, True),
        answered("b", "rewrite", "q", 1.0, False, True),
        answered("a", "near_name", "r", 1.0, False, True),
        answered("a", "near_name", "s", 0.0, True, False),
    ]
    return [row | {"stopped": True} for row in rows]


def test_whole_answers_of_a_chat_model_by_hand():
    result = score(chat())
    assert (result["protocol"], result["whole_answers"]) == ("containment", True)
    names = ("efficacy", "said_exactly", "near_names")
    assert [result[name] for name in names] == [100, 50, 50]
    assert [result["n_edits_scored"][name] for name in names] == [2, 2, 1]
    assert result["n_probes"]["near_name"] == 2 and result["near_names_ci95"] == [50, 50]
    # They are no part of another protocol, and stand beside each.
    assert "near_names" not in result["accuracy"]
    by_accuracy = score(chat(), "accuracy")
    assert [by_accuracy[name] for name in names] == [100, 50, 50]
    change = compare([row | {"containment": False, "exact_match": False} for row in chat()], chat())
    assert [change[name]["difference"] for name in names] == [100, 50, 50]


def test_answers_up_to_a_sentence_are_scored_as_before():
    rows = [{name: value for name, value in row.items() if name != "stopped"} for row in chat()]
    result = score(rows)
    assert (result["protocol"], result["whole_answers"]) == ("accuracy", False)
    assert (result["said_exactly"], result["near_names"]) == (None, 50)


def test_aspects_of_portability_by_hand():
    aspects = score(everything())["portability_aspects"]
    assert list(aspects) == ["alias", "reasoning"]
    alias = {"portability": 100.0, "exact_match": 100.0, "containment": 100.0, "n_edits": 1, "n_probes": 1}
    assert aspects["alias"] == alias | {"portability_ci95": [100.0, 100.0]}
    # Of edit a: (3/4 + 0) / 2 by accuracy, (0 + 0) / 2 and (1 + 0) / 2 by what was said; of edit c: 1/2, 1, 1
    reasoning = {"portability": 43.75, "exact_match": 50.0, "containment": 75.0, "n_edits": 2, "n_probes": 3}
    assert aspects["reasoning"] == reasoning | {"portability_ci95": [37.5, 50.0]}


def test_portability_without_aspects_has_none():
    rows = [row for row in everything() if row["kind"] != "generation"]
    plain = score([{name: value for name, value in row.items() if name != "aspect"} for row in rows])
    unnamed = score([row | {"aspect": ""} for row in rows])
    assert plain["portability_aspects"] == unnamed["portability_aspects"] == {}
    assert plain["portability"] == unnamed["portability"] == pytest.approx(100 * (1.75 / 3 + 0.5) / 2)


def test_a_probe_of_two_aspects_counts_in_both():
    first, second = (answered("a", "portability", "u", 0.5, True, True, aspect) for aspect in ("alias", "reasoning"))
    result = score([*two_edits(), first, second])
    # By accuracy, whatever the protocol, which it does not decide.
    assert (result["protocol"], result["portability"]) == ("probability", 50)
    assert [result["portability_aspects"][name]["n_probes"] for name in ("alias", "reasoning")] == [1, 1]
    assert result["n_probes"]["portability"] == 2


@pytest.mark.parametrize("best", ["first", "last"])
def test_any_answer_to_a_portability_probe_counts(best):
    rows = [answered("a", "portability", "u", accuracy, said, said) for accuracy, said in ((1.0, True), (0.0, False))]
    result = score([answered("a", "rewrite", "p", 1.0, True, True), *(rows if best == "first" else rows[::-1])])
    assert result["portability"] == result["exact_match"]["portability"] == 100.0
    assert result["n_probes"]["portability"] == 1


def test_texts_are_averaged_by_record_then_over_records():
    result = score(everything())
    assert result["fluency"] == pytest.approx(100 * ((5 + 4) / 2 + 6) / 2)
    assert result["fluency_ci95"] == [450.0, 600.0]
    assert result["consistency"] == pytest.approx(50.0)
    assert result["consistency_ci95"] == [50.0, 50.0]


def test_texts_alone_have_only_their_own_scores():
    result = score([row for row in everything() if row["kind"] == "generation"])
    assert result["fluency"] == 525.0
    assert result["edit_score"] is None and result["n_edits"] == 2
    assert result["n_probes"] == dict.fromkeys(KINDS, 0) | {"generation": 4}


def test_texts_do_not_change_other_scores():
    texts_only = ("fluency", "fluency_ci95", "consistency", "consistency_ci95", "n_edits_scored", "n_probes")
    results = [score(rows) for rows in (everything(), [row for row in everything() if row["kind"] != "generation"])]
    first, second = ({name: value for name, value in found.items() if name not in texts_only} for found in results)
    assert first == second


def test_a_protocol_that_does_not_exist_or_was_not_measured_is_an_error():
    with pytest.raises(EditError, match="protocol is 'exact'; choose one of auto, accuracy, probability, exact_match"):
        score(everything(), "exact")
    for protocol in ("exact_match", "containment"):
        with pytest.raises(EditError, match=f"'{protocol}' needs generated answers; predict with `generate=True`"):
            score(two_edits(), protocol)


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("kind", "locality", "edit 'a', locality probe 'r': its kind is none of rewrite, paraphrase, neighborhood"),
        ("kind", None, "edit 'a',  probe 'r': its kind is none of"),
        ("role", "old", "edit 'a', paraphrase probe 'r': role is neither 'new' nor 'true'"),
        ("role", None, "edit 'a', paraphrase probe 'r': role is neither 'new' nor 'true'"),
        ("logprob", None, "edit 'a', paraphrase probe 'r': logprob is not a number"),
        ("logprob", math.nan, "edit 'a', paraphrase probe 'r': logprob is not a number"),
        ("token_accuracy", math.nan, "edit 'a', paraphrase probe 'r': token_accuracy is not a number"),
    ],
)
def test_an_unknown_value_is_an_error_that_names_the_probe(column, value, message):
    rows = two_edits()
    rows[4][column] = value
    with pytest.raises(EditError, match=message):
        score(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_without_its_expected_target_is_an_error(kind):
    expected, other = probe("b", kind, "lost", -0.1, -2.0)
    with pytest.raises(EditError, match=f"edit 'b', {kind} probe 'lost': there is no prediction of its expected"):
        score([*two_edits(), other])
    assert score([*two_edits(), other, expected])["n_probes"][kind] == score(two_edits())["n_probes"][kind] + 1


@pytest.mark.parametrize("rows", [two_edits(), everything()])
def test_a_file_is_scored_as_its_rows_are(tmp_path, rows):
    names = dict.fromkeys(name for row in rows for name in row)
    lines, table = tmp_path / "after.jsonl", tmp_path / "after.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), table)
    assert score(lines) == score(str(lines)) == score(table) == score(rows)
    assert compare(lines, table) == compare(rows, rows)


def test_tables_of_0_1_0_are_read(tmp_path):
    rows = everything()
    old = [{"target" if name == "role" else name: value for name, value in row.items()} for row in rows]
    old = [row | {"answer": "new" if row["kind"] != "generation" else None} for row in old]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old), encoding="utf-8")
    columns = {name: [row.get(name) for row in old] for name in dict.fromkeys(name for row in old for name in row)}
    pq.write_table(pa.table(columns), tmp_path / "old.parquet")
    assert score(old) == score(columns) == score(rows)
    assert score(tmp_path / "old.jsonl") == score(tmp_path / "old.parquet") == score(rows)
    with pytest.raises(EditError, match="predictions lack the columns role"):
        score([row | {"target": "Paris"} for row in old])


def test_edit_means_by_hand():
    found = edit_means(sorted(everything(), key=lambda row: "bca".index(row["edit_id"])))
    assert found.edit_ids == ["a", "b", "c"]
    assert found.values["accuracy", "efficacy"] == pytest.approx([1, 0.5, 0])
    assert found.values["containment", "portability"] == pytest.approx([2 / 3, math.nan, 1], nan_ok=True)
    assert found.values["accuracy", "portability/alias"] == pytest.approx([1, math.nan, math.nan], nan_ok=True)
    assert found.values["text", "fluency"] == pytest.approx([4.5, 6, math.nan], nan_ok=True)
    assert found.protocol == "accuracy"
    for rows in (two_edits(), everything()):
        for protocol in ("auto", "accuracy"):
            assert score(edit_means(rows), protocol) == score(rows, protocol)


def test_many_rows_and_one_very_long_probe_need_little_memory():
    count = 20_000
    columns = {
        "edit_id": [f"edit {number // 10}" for number in range(count)],
        "kind": [KINDS[number % 3] for number in range(count)],
        "probe": [f"probe {number}" for number in range(count - 1)] + ["long " * 200_000],
        "role": ["true" if number % 3 == 2 else "new" for number in range(count)],
        "logprob": [-1.0] * count,
        "match": [True] * count,
        "token_accuracy": [1.0] * count,
    }
    tracemalloc.start()
    result = score(columns)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result["edit_score"] == 100.0 and sum(result["n_probes"].values()) == count
    assert peak < 60e6  # as arrays of texts of one width it would be twenty billion


def three_edits(*rewrites, paraphrases=(1, 1), extra=()):
    """Accuracies of the rewrites of edits a, b and c, and of the paraphrases of a and b."""
    rows = [
        probe(edit_id, "rewrite", "p", -1.0, accuracy=value) for edit_id, value in zip("abc", rewrites, strict=True)
    ]
    rows += [probe(edit_id, "paraphrase", "q", -1.0, accuracy=x) for edit_id, x in zip("ab", paraphrases, strict=True)]
    rows += [probe("a", "neighborhood", "s", -1.0, accuracy=0.5)]
    return [*(row for part in rows for row in part), *extra]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1: give a number from 0 to 4294967295"),
        ({"seed": 0.5}, "seed is 0.5: give a whole number"),
        ({"n_resamples": 0}, "n_resamples is 0: give 1 or more"),
        ({"n_resamples": 1.5}, "n_resamples is 1.5: give a whole number"),
        ({"n_resamples": "5"}, "n_resamples is '5': give a whole number"),
    ],
)
def test_resamples_and_their_seed_are_checked(settings, message):
    rows = three_edits(1, 0.75, 1)
    for call in (lambda: score(rows, **settings), lambda: compare(rows, rows, **settings)):
        with pytest.raises(EditError) as error:
            call()
        assert str(error.value) == message
    assert score(rows, n_resamples=np.int64(5), seed=np.int64(3)) == score(rows, n_resamples=5, seed=3)


def test_a_change_by_hand():
    before, after = three_edits(0, 0.25, 1, paraphrases=(0.5, 0)), three_edits(1, 0.75, 1, paraphrases=(1, 0.5))
    change = compare(before, after, n_resamples=20_000)
    assert list(change) == ["edit_score", "efficacy", "generalization", "locality"]
    expected = {"efficacy": 50.0, "generalization": 50.0, "locality": 0.0}
    assert {name: change[name]["difference"] for name in expected} == pytest.approx(expected)
    first, second = 3 / (1 / (125 / 3) + 1 / 25 + 1 / 50), 3 / (1 / (275 / 3) + 1 / 75 + 1 / 50)
    assert change["edit_score"]["difference"] == pytest.approx(second - first)
    counts = {"edit_score": 1, "efficacy": 3, "generalization": 2, "locality": 1}
    assert {name: found["n_edits"] for name, found in change.items()} == counts
    # Efficacy changes by 1, 1/2 and 0: 4 of 8 exchanges give 3/2 or -3/2. Generalization by 1/2 twice: 2 of 4.
    p_values = {"efficacy": 0.5, "generalization": 0.5, "locality": 1.0}
    assert {name: change[name]["p_value"] for name in p_values} == pytest.approx(p_values, abs=0.015)
    assert change["efficacy"]["difference_ci95"] == [0.0, 100.0]  # 1 of 27 resamples each
    assert change["generalization"]["difference_ci95"] == pytest.approx([50.0, 50.0])


@pytest.mark.parametrize("protocol", ["auto", "accuracy", "exact_match", "containment"])
def test_nothing_changed(protocol):
    change = compare(everything(), random.Random(0).sample(everything(), len(everything())), protocol)
    assert list(change) == [*SUMS, "fluency", "consistency"]
    for found in change.values():
        assert found["difference"] == pytest.approx(0.0, abs=1e-9)
        assert found["difference_ci95"] == pytest.approx([0.0, 0.0], abs=1e-9)
        assert found["p_value"] == 1.0
    assert json.loads(json.dumps(change, allow_nan=False)) == change


def many(efficacy, seed, *, lacking=(), **texts):
    """Forty edits; efficacy and the others are true of that share of them on average."""
    rng = np.random.default_rng(seed)
    found = [
        probe(f"{n}", kind, "p", -1.0, accuracy=float(rng.random() < 0.8)) for n in range(40) for kind in KINDS[1:]
    ]
    found += [
        probe(f"{number}", "rewrite", "p", -1.0, accuracy=float(rng.random() < efficacy)) for number in range(40)
    ]
    rows = [row for part in found for row in part if row["kind"] not in lacking]
    noise = {number: {name: mean + rng.normal() for name, mean in texts.items()} for number in range(40)}
    return rows + [
        written(f"{n}", "g", values.get("fluency"), values.get("consistency")) for n, values in noise.items()
    ]


def test_a_clear_change_is_no_chance_and_an_unclear_one_may_be():
    change = compare(many(0.1, 0, fluency=6.0), many(0.9, 1, fluency=3.0))
    assert change["efficacy"]["p_value"] == change["edit_score"]["p_value"] == change["fluency"]["p_value"] == 1 / 2001
    assert change["efficacy"]["difference_ci95"][0] > 40 and change["fluency"]["difference_ci95"][1] < -200
    for name in ("generalization", "locality", "portability"):
        assert change[name]["p_value"] > 0.05
        assert change[name]["difference_ci95"][0] <= 0 <= change[name]["difference_ci95"][1]


def test_what_only_one_of_them_has_is_left_out():
    change = compare(many(0.5, 0, fluency=6.0), many(0.5, 1, lacking=("portability",), consistency=0.3))
    assert list(change) == ["edit_score", "efficacy", "generalization", "locality"]


def test_answers_that_were_generated_once_only_are_not_compared():
    after = [row | {"exact_match": True, "containment": True} for row in two_edits()]
    assert compare(two_edits(), after, "exact_match") == {}
    assert compare(two_edits(), after) == compare(two_edits(), two_edits())


def test_a_change_of_one_edit_says_nothing_about_others(recwarn):
    kinds = KINDS[:3]
    before, after = ([row for kind in kinds for row in probe("a", kind, "p", -1.0, accuracy=x)] for x in (0.0, 1.0))
    change = compare(before, after)
    assert list(change) == ["edit_score", "efficacy", "generalization", "locality"]
    for found in change.values():
        assert found == {"difference": 100.0, "difference_ci95": [100.0, 100.0], "p_value": 1.0, "n_edits": 1}
    assert list(compare(before[:1], after[:1])) == ["efficacy"]  # of no edit score there is no change
    assert not recwarn.list


def test_changes_are_compared_over_edits_that_have_both():
    before, after = three_edits(0, 0, 0, paraphrases=(0, 0)), three_edits(1, 1, 1, paraphrases=(1, 0))
    only_after = probe("c", "paraphrase", "q", -1.0, accuracy=0.0)
    change = compare(before, [*after, *only_after])
    assert change["generalization"]["difference"] == pytest.approx(50.0)  # not 100 / 3
    assert change["generalization"]["n_edits"] == 2


def test_other_edits_cannot_be_compared():
    rows = two_edits()
    fewer, renamed = probe("a", "rewrite", "p", -0.1), [row | {"edit_id": f"{row['edit_id']}2"} for row in rows]
    for others in (fewer, renamed):
        with pytest.raises(EditError, match="before and after are not about the same edits"):
            compare(rows, others)


def test_the_protocol_of_a_change_is_that_of_after():
    both, one = two_edits(), [row for row in two_edits() if row["probe"] != "s" or row["role"] == "true"]
    worse = [row | {"token_accuracy": 0.0} for row in one]
    assert compare(both, worse)["locality"]["difference"] == pytest.approx(-100 / 3)  # by accuracy
    assert compare(both, worse, "probability")["locality"]["difference"] == pytest.approx(100 * (1 / 2 - 2 / 3) / 2)
    with pytest.raises(EditError, match="'containment' needs generated answers"):
        compare(both, one, "containment")
