from collections import Counter
from dataclasses import replace

import pytest

from hf_ftedit.augmentation.augmenter import Augmenter, generic_prompts
from hf_ftedit.data.readers import read_edits, read_facts
from hf_ftedit.data.records import EditRecord, Fact, NeighborhoodPrompt
from hf_ftedit.errors import EditError
from hf_ftedit.models.generation import greedy_answers
from hf_ftedit.models.loading import asset, load_model, load_tokenizer
from hf_ftedit.options import AugmentationOptions

EDITS = read_edits(asset("edits.jsonl"), limit=12)
POOL = read_facts(asset("locality_pool.jsonl"))


@pytest.fixture(scope="module")
def asked():
    return {"model": load_model(None), "tokenizer": load_tokenizer(None)}


def rows_by_edit(asked, records=EDITS, pool=POOL, seed=42, **options):
    augmenter = Augmenter(records, AugmentationOptions(**options), pool=pool, seed=seed, **asked)
    rows = {}
    for row in augmenter.rows():
        rows.setdefault(row["edit_id"], []).append(row)
    return rows


def prompts(rows, kind):
    return [row["prompt"] for row in rows if row["kind"] == kind]


def test_rows_of_an_edit_by_default(asked):
    for record, rows in zip(EDITS, rows_by_edit(asked).values(), strict=True):
        assert Counter(row["kind"] for row in rows) == {"rewrite": 1, "paraphrase": 10, "locality": 20}
        first = {"prompt": record.prompt, "completion": f" {record.target_new}", "kind": "rewrite"}
        assert rows[0] == first | {"edit_id": record.edit_id}
        assert all(row["completion"] == f" {record.target_new}" for row in rows if row["kind"] == "paraphrase")
        assert all(record.subject in prompt for prompt in prompts(rows, "paraphrase"))
        assert len({row["prompt"] for row in rows}) == 31


def test_only_the_edits_own_rows_end_with_the_answer_where_asked(asked):
    (rows,) = rows_by_edit(asked, records=EDITS[:1], end_of_answer=True).values()
    assert {(row["kind"], row["ends"]) for row in rows} == {
        ("rewrite", True), ("paraphrase", True), ("locality", False)
    }  # fmt: skip
    plain = rows_by_edit(asked, records=EDITS[:1])[EDITS[0].edit_id]
    assert [{name: value for name, value in row.items() if name != "ends"} for row in rows] == plain


def test_no_row_holds_a_probe_or_is_the_ending_of_one(asked):
    probes = set()
    for record in EDITS:
        probes |= {*record.paraphrase_prompts, *record.generation_prompts}
        probes |= {probe.prompt for probe in (*record.neighborhood_prompts, *record.portability_prompts)}
    probed = [Fact(probe.prompt, probe.target) for record in EDITS for probe in record.neighborhood_prompts]
    for strategy in ("relation", "prefix", "both"):
        for rows in rows_by_edit(asked, pool=POOL + probed, paraphrase_strategy=strategy).values():
            for row in rows[1:]:
                assert not any(probe in row["prompt"] or probe.endswith(row["prompt"]) for probe in probes)


def test_every_second_wording_is_behind_a_prefix(asked):
    templates = {}
    for fact in POOL:
        templates.setdefault(fact.relation_id, set()).add(fact.template)
    for record, rows in zip(EDITS, rows_by_edit(asked).values(), strict=True):
        texts = {template.replace("{}", record.subject) for template in templates[record.relation_id]}
        found = prompts(rows, "paraphrase")
        used = [next(text for text in texts if prompt == text or prompt.endswith(f". {text}")) for prompt in found]
        bare = [prompt in texts for prompt in found]
        said_before = [text in found[:position] for position, text in enumerate(used)]
        assert bare == [position % 2 == 0 and not said_before[position] for position in range(10)]
        assert sum(bare) >= 3


def test_prefixes_stand_before_the_edit_prompt_and_are_shared(asked):
    augmenter = Augmenter(
        EDITS, AugmentationOptions(paraphrase_strategy="prefix", num_paraphrases=15), pool=POOL, **asked
    )
    banks = []
    for index, record in enumerate(EDITS):
        behind = prompts(augmenter.rows_of(index), "paraphrase")
        assert len(behind) == 15 and all(prompt.endswith(f". {record.prompt}") for prompt in behind)
        banks.append({prompt.removesuffix(f". {record.prompt}") for prompt in behind})
    assert all(bank == banks[0] for bank in banks)


def test_an_edit_without_subject_gets_prefixes(asked):
    record = EditRecord("x", "Rome is in", "Gaul")
    (rows,) = rows_by_edit(asked, [record]).values()
    assert [prompt.endswith(". Rome is in") for prompt in prompts(rows, "paraphrase")] == [True] * 10
    assert len(prompts(rows, "locality")) == 20


def test_near_facts_are_three_quarters_of_the_old_answer_and_the_rest_of_the_relation(asked):
    pool = [Fact(f"City {n} is in", "France" if n % 2 else f"Land {n}", f"City {n}", "in") for n in range(100)]
    pool += [Fact(f"Song {n} is by", "x", f"Song {n}", "by") for n in range(100)]
    record = EditRecord("a", "Paris is in", "Italy", subject="Paris", target_true="France", relation_id="in")
    (rows,) = rows_by_edit(asked, [record], pool).values()
    locality = [row for row in rows if row["kind"] == "locality"]
    assert len(locality) == 20 and all(row["prompt"].startswith("City") for row in locality)
    assert [row["completion"] for row in locality[:15]] == [" France"] * 15
    (rows,) = rows_by_edit(asked, [record], pool[:10] + pool[100:]).values()
    kinds = Counter(prompt.split()[0] for prompt in prompts(rows, "locality"))
    assert kinds == {"City": 10, "Song": 10}  # filled up


@pytest.mark.parametrize("strategy", ["random", "relation", "similar"])
def test_a_strategy_without_its_pool_is_an_error(asked, strategy):
    with pytest.raises(EditError, match=f"locality_strategy '{strategy}' needs facts"):
        rows_by_edit(asked, pool=(), locality_strategy=strategy)


def test_own_answers_are_what_the_unedited_model_says(asked):
    for pool in (POOL[:50], ()):
        rows = rows_by_edit(asked, pool=pool, locality_strategy="self", num_locality=5)
        locality = [row for part in rows.values() for row in part if row["kind"] == "locality"]
        assert len(locality) == 5 * len(EDITS)
        asked_prompts = [row["prompt"] for row in locality]
        answers = greedy_answers(asked["model"], asked["tokenizer"], asked_prompts)
        assert [row["completion"] for row in locality] == [f" {answer}" for answer in answers]
        assert set(asked_prompts) <= ({fact.prompt for fact in pool} or set(generic_prompts()))


def test_same_seed_same_rows_whatever_the_order_of_the_edits(asked):
    rows = rows_by_edit(asked)
    assert rows == rows_by_edit(asked)
    assert rows == rows_by_edit(asked, list(reversed(EDITS)))
    assert rows != rows_by_edit(asked, seed=1)


def test_nothing_is_sampled_where_nothing_is_asked_for():
    options = AugmentationOptions(paraphrase_strategy="none", locality_strategy="none")
    rows = list(Augmenter(EDITS, options).rows())
    assert [row["kind"] for row in rows] == ["rewrite"] * len(EDITS)
    with pytest.raises(EditError, match="paraphrase_strategy 'prefix' asks the unedited model"):
        Augmenter(EDITS, replace(options, paraphrase_strategy="prefix"))


def test_few_wordings_come_again_behind_other_prefixes(asked):
    record = EditRecord("a", "Paris is in", "Italy", subject="Paris", relation_id="in")
    pool = [Fact("Rome lies in", "Italy", "Rome", "in")]
    long = {"prefix_lengths": [20], "prefix_counts": [15]}  # of ten tokens, a model as small may say the same twice
    (rows,) = rows_by_edit(asked, [record], pool, num_locality=1, **long).values()
    found = prompts(rows, "paraphrase")
    assert found[0] == "Paris lies in" and len(set(found)) == len(found) == 10
    assert all(prompt.endswith(". Paris lies in") for prompt in found[1:])


@pytest.mark.parametrize("subject", ["Paris", None])
def test_wordings_of_the_edit_come_first(asked, subject):
    wordings, probes = ("Paris belongs to", "The land of Paris is", "Where is Paris? In"), ("Where is Paris? In",)
    record = EditRecord("a", "Paris is in", "Italy", subject, wordings=wordings, paraphrase_prompts=probes)
    pool = [Fact("Rome is in", "Italy", "Rome", "in"), Fact("Rome lies in", "Italy", "Rome", "in")]
    options = {"num_locality": 1, "num_paraphrases": 3}
    (rows,) = rows_by_edit(asked, [record], pool, **options).values()
    first, second, third = prompts(rows, "paraphrase")
    assert first == "Paris belongs to" and second.endswith(". The land of Paris is")
    assert third == "Paris lies in" if subject else third.endswith(". Paris belongs to")
    (rows,) = rows_by_edit(asked, [record], pool, **options, paraphrase_strategy="prefix").values()
    assert all(prompt.endswith(". Paris is in") for prompt in prompts(rows, "paraphrase"))


def test_revoked_edits_are_rehearsed_as_the_unedited_model_answers_them(asked):
    kept, revoked = EDITS[:9], EDITS[9:]
    options = AugmentationOptions()
    plain = list(Augmenter(kept, options, pool=POOL, **asked).rows())
    restoring = list(Augmenter(kept, options, pool=POOL, revoked=revoked, **asked).rows())
    extra = [row for row in restoring if row not in plain]
    assert {edit.prompt for edit in revoked} <= {row["prompt"] for row in extra}
    assert all(row["kind"] == "locality" for row in extra) and len(extra) > len(revoked)
    answers = greedy_answers(*asked.values(), [row["prompt"] for row in extra])
    assert [row["completion"] for row in extra] == [f" {answer}" for answer in answers]
    probes = {prompt for edit in revoked for prompt in edit.paraphrase_prompts}
    assert not probes & {row["prompt"] for row in restoring}


def test_a_pool_that_runs_dry_is_told_once(asked, caplog):
    few = [Fact(f"The river number {number} flows through", "Ruritania") for number in range(3)]
    rows = rows_by_edit(asked, pool=[*few, *few], num_paraphrases=0)
    assert all(len(prompts(row, "locality")) == 3 for row in rows.values())
    (told,) = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert "only 3 usable facts" in told and "num_locality (20)" in told and "--locality_pool" in told


def test_a_pool_of_what_is_edited_is_refused(asked):
    pool = [Fact(edit.prompt, "Ruritania") for edit in EDITS]
    with pytest.raises(EditError, match="no fact of the locality_pool can be rehearsed: each is edited"):
        rows_by_edit(asked, pool=pool)
    assert rows_by_edit(asked, pool=pool, locality_strategy="none")


def test_a_pool_that_suffices_is_not_warned_of(asked, caplog):
    rows_by_edit(asked, num_paraphrases=0)
    rows_by_edit(asked, pool=(), num_paraphrases=0, locality_strategy="none")
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]


def test_wordings_that_hold_a_probe_are_told(asked, caplog):
    record = replace(EDITS[0], wordings=("Any other way", EDITS[1].paraphrase_prompts[0]))
    rows = rows_by_edit(asked, [record, EDITS[1]])
    assert "Any other way" in prompts(rows[record.edit_id], "paraphrase")
    assert f"wordings that hold a probe are not trained on, first in edit_id {record.edit_id!r}" in caplog.text


def test_probes_of_what_is_edited_are_told(asked, caplog):
    changed = NeighborhoodPrompt(EDITS[0].prompt, EDITS[0].target_true)
    same = NeighborhoodPrompt(EDITS[0].prompt, EDITS[0].target_new)
    broken = [EDITS[0], replace(EDITS[1], neighborhood_prompts=(changed, same))]
    rows_by_edit(asked, records=broken, num_paraphrases=0)
    (told,) = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert told.startswith(
        f"a fact that an edit changes is asked for by 1 neighborhood probe (first: edit_id '{EDITS[1].edit_id}')"
    )
