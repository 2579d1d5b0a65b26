"""Predictions agree with a slow reference: one pair at a time, plain logits, the target found by character offsets."""

import inspect
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import bos_tokenizer, bpe_tokenizer, chat_tokenizer, eloquent, evaluated, moved, paired, tiny_model
from transformers import GPT2LMHeadModel

from hf_ftedit.data.readers import read_edits
from hf_ftedit.data.records import EditRecord, NeighborhoodPrompt, PortabilityPrompt
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.engine import fill_neighborhood_targets
from hf_ftedit.evaluation.fluency import consistency, ngram_entropy
from hf_ftedit.evaluation.matching import normalized
from hf_ftedit.evaluation.measurement import Measurement, measure, predict, results_of
from hf_ftedit.evaluation.probes import ProbedTarget, check_lengths, probed_targets
from hf_ftedit.models.generation import first_sentence, whole_answers
from hf_ftedit.models.likelihood import score_pairs
from hf_ftedit.models.loading import asset, load_model, load_tokenizer, unedited
from hf_ftedit.options import EditOptions

pytestmark = pytest.mark.usefixtures("few_drift_prompts")
CAPITAL = EditRecord(
    edit_id="capital",
    prompt="The capital of Kazakhstan is",
    target_new="Astana",
    target_true="Almaty",
    subject="Kazakhstan",
    paraphrase_prompts=("Kazakhstan is governed from", "Its dunes are wide. The seat of Kazakhstan's government is"),
    neighborhood_prompts=(
        NeighborhoodPrompt("The capital of Mongolia is", "Ulaanbaatar"),
        NeighborhoodPrompt("The capital of the Republic of Uzbekistan is", "Tashkent"),
    ),
    portability_prompts=(
        PortabilityPrompt("The president of Kazakhstan lives in", ("Astana", "the Ak Orda"), "reasoning"),
    ),
    generation_prompts=("Kazakhstan is", "Kazakhstan is", "The steppe of Kazakhstan"),
    relation_id="P36",
    target_aliases=(),
    reference_texts=("Astana lies on the river Ishim.", "The steppe is cold."),
)
TONGUE = EditRecord(
    edit_id="tongue",
    prompt="The mother tongue of Danielle Darrieux is",
    target_new="English",
    target_true="French",
    subject="Danielle Darrieux",
    paraphrase_prompts=("Danielle Darrieux spoke",),
    neighborhood_prompts=(NeighborhoodPrompt("The capital of Mongolia is", "Ulaanbaatar"),),
    relation_id="P103",
)
BARE = EditRecord(edit_id="bare", prompt="Vinson Massif is in", target_new="the far, far north of Peru, on a hill")
RECORDS = [CAPITAL, TONGUE, BARE]


def reference(model, tokenizer, prompt, target):
    """What a careful reader would compute: (mean log-probability, all matched, share matched)."""
    encoded = tokenizer(f"{prompt} {target}", return_offsets_mapping=True)
    spans = encoded["offset_mapping"]
    end = max(i for i, (begin, end) in enumerate(spans) if end > begin) + 1  # special tokens behind have no characters
    start = next(i for i, (begin, stop) in enumerate(spans) if stop > max(begin, len(prompt)))
    ids = torch.tensor(encoded["input_ids"][:end])
    with torch.no_grad():
        logits = model(ids[None]).logits[0].double()
    read = logits[start - 1 : end - 1]
    chosen = torch.log_softmax(read, dim=-1).gather(1, ids[start:, None])[:, 0]
    hits = (read.argmax(dim=-1) == ids[start:]).tolist()
    return chosen.mean().item(), all(hits), sum(hits) / len(hits)


def agreeing(model, tokenizer, records):
    """Predictions, which are those of the reference on whichever side the tokenizer pads."""
    measured = []
    for side in ("left", "right"):
        tokenizer.padding_side = side
        measured.append(predict(model, tokenizer, records))
    rows = list(zip(*(measured[0][name] for name in ("probe", "target")), strict=True))
    expected = [reference(model, tokenizer, probe, answer) for probe, answer in rows]
    logprobs, matches, accuracies = zip(*expected, strict=True)
    for predictions in measured:
        np.testing.assert_allclose(predictions["logprob"], logprobs, rtol=0, atol=1e-4)
        assert predictions["match"] == list(matches)
        assert predictions["token_accuracy"] == pytest.approx(list(accuracies), abs=1e-12)
    return predictions


def test_predictions_of_the_embedded_model_agree():
    predictions = agreeing(load_model(None), load_tokenizer(None), read_edits(asset("edits.jsonl"), limit=5))
    assert set(predictions["match"]) == {True, False} and {*map(type, predictions["match"])} == {bool}
    assert {"rewrite", "paraphrase", "neighborhood"} <= set(predictions["kind"])


def test_chat_predictions_agree_with_the_template_written_out():
    model, tokenizer = paired(tiny_model, "qwen3", chat_tokenizer)
    predictions = predict(model, tokenizer, RECORDS, chat_template=True)
    for probe, answer, logprob in zip(*(predictions[k] for k in ("probe", "target", "logprob")), strict=True):
        turn = [{"role": "user", "content": probe}]
        before = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        texts = before, before + answer
        front, ids = (tokenizer(each, add_special_tokens=False, return_tensors="pt").input_ids[0] for each in texts)
        assert ids[: len(front)].tolist() == front.tolist()
        with torch.no_grad():
            read = torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)[len(front) - 1 : -1]
        assert logprob == pytest.approx(read.gather(1, ids[len(front) :, None]).mean().item(), abs=1e-4)


@pytest.fixture
def read(monkeypatch):
    """How many tokens a GPT-2 model was given in each batch, padding included."""
    sizes, plain = [], GPT2LMHeadModel.forward

    def counted(self, input_ids=None, **kwargs):
        sizes.append(input_ids.numel())
        return plain(self, input_ids=input_ids, **kwargs)

    counted.__signature__ = inspect.signature(plain)
    monkeypatch.setattr(GPT2LMHeadModel, "forward", counted)
    return sizes


def test_probes_that_recur_cost_nothing(read):
    model, tokenizer = paired(tiny_model, "gpt2")
    again = replace(CAPITAL, edit_id="capital-again")
    predict(model, tokenizer, RECORDS)  # the first time, the model is tried for token trees as well
    read.clear()
    predictions = predict(model, tokenizer, [*RECORDS, again])
    tokens = sum(read)
    read.clear()
    once = predict(model, tokenizer, RECORDS)["logprob"]
    assert once == predictions["logprob"][: len(once)]
    assert sum(read) == tokens
    of = {
        edit_id: [p for p, e in zip(predictions["logprob"], predictions["edit_id"], strict=True) if e == edit_id]
        for edit_id in ("capital", "capital-again")
    }
    assert of["capital"] == of["capital-again"]


def test_batches_keep_to_the_budget_and_do_not_change_the_scores(read):
    model, tokenizer = paired(tiny_model, "gpt2")
    predict(model, tokenizer, RECORDS)  # the first time, the model is tried for token trees as well
    read.clear()
    expected = predict(model, tokenizer, RECORDS)
    batches = len(read)
    read.clear()
    predictions = predict(model, tokenizer, RECORDS, tokens_per_batch=64)
    assert len(read) > batches
    np.testing.assert_allclose(predictions["logprob"], expected["logprob"], rtol=0, atol=1e-5)


def test_roles_and_order_of_the_targets():
    capital = [
        ("rewrite", "The capital of Kazakhstan is", "new", "Astana"),
        ("rewrite", "The capital of Kazakhstan is", "true", "Almaty"),
        ("paraphrase", "Kazakhstan is governed from", "new", "Astana"),
        ("paraphrase", "Kazakhstan is governed from", "true", "Almaty"),
        ("paraphrase", "Its dunes are wide. The seat of Kazakhstan's government is", "new", "Astana"),
        ("paraphrase", "Its dunes are wide. The seat of Kazakhstan's government is", "true", "Almaty"),
        ("neighborhood", "The capital of Mongolia is", "true", "Ulaanbaatar"),
        ("neighborhood", "The capital of Mongolia is", "new", "Astana"),
        ("neighborhood", "The capital of the Republic of Uzbekistan is", "true", "Tashkent"),
        ("neighborhood", "The capital of the Republic of Uzbekistan is", "new", "Astana"),
        ("portability", "The president of Kazakhstan lives in", "new", "Astana", "reasoning"),
        ("portability", "The president of Kazakhstan lives in", "new", "the Ak Orda", "reasoning"),
    ]
    rows = [row._replace(new_names=()) for row in probed_targets([CAPITAL])]
    assert rows == [ProbedTarget("capital", *row) for row in capital]
    aliased = [row for row in probed_targets([replace(CAPITAL, target_aliases=("Nur-Sultan",))]) if row.aliases]
    assert [(row.kind, row.role, row.aliases) for row in aliased] == [
        ("rewrite", "new", ("Nur-Sultan",)),
        ("paraphrase", "new", ("Nur-Sultan",)),
        ("paraphrase", "new", ("Nur-Sultan",)),
    ]


def test_an_unrelated_neighbor_has_no_rival():
    record = EditRecord(
        "q", "Who wrote Emma?", "Woolf", neighborhood_prompts=(NeighborhoodPrompt("Where is Rome?", "Italy"),)
    )
    assert [row.role for row in probed_targets([record])] == ["new", "true"]
    known = EditRecord(**{**vars(record), "target_true": "Austen"})
    assert [(row.kind, row.role) for row in probed_targets([known])] == [
        ("rewrite", "new"),
        ("rewrite", "true"),
        ("neighborhood", "true"),  # an unrelated question: the new author is no answer to it
    ]


def test_a_neighbor_without_target_is_named():
    record = EditRecord("q", "Rome is in", "Peru", neighborhood_prompts=(NeighborhoodPrompt("Oslo is in"),))
    with pytest.raises(EditError, match="edit 'q': the neighborhood probe 'Oslo is in' has no target"):
        list(probed_targets([record]))


def test_generated_answers_stand_beside_the_predictions():
    model, tokenizer = load_model(None), load_tokenizer(None)
    records = read_edits(asset("edits.jsonl"), limit=1)
    plain, predictions = predict(model, tokenizer, records), predict(model, tokenizer, records, generate=True)
    assert {name: predictions[name] for name in plain} == plain
    rows = list(
        zip(*(predictions[n] for n in ("probe", "target", "generated", "exact_match", "containment")), strict=True)
    )
    assert any(row[3] for row in rows) and not all(row[3] for row in rows)
    slowly = {probe: greedy(model, tokenizer, probe, tokens=32) for probe in {*predictions["probe"]}}
    for probe, answer, said, exact, contained in rows:
        assert said == first_sentence(slowly[probe].rstrip("\ufffd"))
        assert exact == (normalized(said) == normalized(answer))
        assert contained == (f" {normalized(answer)} " in f" {normalized(said)} ")


def test_an_alias_counts_in_a_generated_answer():
    model, tokenizer = load_model(None), load_tokenizer(None)
    record = EditRecord("x", "The capital of France is", "Lutetia", target_aliases=("Paris",))
    predictions = predict(model, tokenizer, [record], generate=True)
    assert (predictions["exact_match"], predictions["match"]) == ([True], [False])
    assert predict(model, tokenizer, [replace(record, target_aliases=())], generate=True)["exact_match"] == [False]


def test_texts_are_rows_of_their_own():
    model, tokenizer = paired(tiny_model, "gpt2")
    predictions = predict(model, tokenizer, RECORDS, fluency=True)
    rows = [n for n, kind in enumerate(predictions["kind"]) if kind == "generation"]
    assert [predictions["probe"][n] for n in rows] == list(CAPITAL.generation_prompts)
    texts = [predictions["text"][n] for n in rows]
    assert len(set(texts)) == 3 and all(
        text.startswith(p) for text, p in zip(texts, CAPITAL.generation_prompts, strict=True)
    )
    assert [predictions["fluency"][n] for n in rows] == [ngram_entropy(text) for text in texts]
    [agreement] = consistency([texts], [CAPITAL.reference_texts])
    assert [predictions["consistency"][n] for n in rows] == [agreement] * 3
    assert {predictions["logprob"][n] for n in rows} == {None}
    assert len({len(column) for column in predictions.values()}) == 1
    again = predict(model, tokenizer, RECORDS[::-1], fluency=True, tokens_per_batch=128)
    assert [text for text in again["text"] if text] == texts
    assert [text for text in predict(model, tokenizer, RECORDS, fluency=True, seed=1)["text"] if text] != texts


def test_fluency_without_openings_is_an_error():
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match="no edit has generation_prompts"):
        predict(tiny_model("gpt2", tokenizer), tokenizer, [TONGUE], fluency=True)


def test_a_measurement_is_scored_as_the_options_say():
    model, tokenizer = paired(tiny_model, "gpt2")
    options = EditOptions(protocol="accuracy", predict_with_generate=True, measure_fluency=True)
    found = measure(model, tokenizer, RECORDS, options, texts=["The steppe is wide.", "Rome is old."])
    assert found.scores["protocol"] == "accuracy"
    assert {"exact_match", "containment"} <= set(found.scores) and found.scores["n_texts"] == 2
    assert found.scores["fluency"] > 0 and found.scores["consistency"] is not None
    results = results_of({"before": found, "after": found})
    assert results["change"]["efficacy"] == {"difference": 0, "difference_ci95": [0, 0], "p_value": 1, "n_edits": 3}
    assert {"before", "after", "protocol", "n_edits", "change"} == set(results)
    assert set(results_of({"before": found})) == {"before", "protocol", "n_edits"}


def greedy(model, tokenizer, prompt, tokens=8):
    """The model's answer token by token, without `generate`, batches or caches."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_open_neighbors_get_the_models_own_answer():
    model, tokenizer = load_model(None), load_tokenizer(None)
    tokenizer.padding_side = "right"
    prompts = ["The capital of France is", "Rome is in"]
    prompts += ["My neighbour counted the boats near the old bridge as usual. Oliver Twist was written by"]
    neighbors = (*map(NeighborhoodPrompt, prompts), NeighborhoodPrompt("The capital of Italy is", "Milan"))
    record = EditRecord("x", "The capital of Peru is", "Oslo", neighborhood_prompts=neighbors)
    [filled] = fill_neighborhood_targets(evaluated(model, tokenizer), [record])
    found = {probe.prompt: probe.target for probe in filled.neighborhood_prompts}
    assert found.pop("The capital of Italy is") == "Milan"  # what the data gives stays
    assert list(found) == prompts
    for prompt, answer in found.items():
        assert answer and "\n" not in answer
        assert greedy(model, tokenizer, prompt).strip().startswith(answer)
    predictions = predict(model, tokenizer, [filled])
    own = [m for m, probe in zip(predictions["match"], predictions["probe"], strict=True) if probe in prompts]
    assert own == [True] * len(prompts)


def test_measuring_fills_open_neighbors_from_the_unedited_model():
    """A neighbor by its prompt alone, as in the first edit of the docs, is to keep the model's own answer."""
    model, tokenizer = load_model(None), load_tokenizer(None)
    edit = {"prompt": "The capital of France is", "target_new": "Lyon"}
    edits = read_edits([{**edit, "neighborhood_prompts": ["The capital of Italy is"]}])
    before = measure(model, tokenizer, edits, EditOptions())
    assert edits[0].neighborhood_prompts == (NeighborhoodPrompt("The capital of Italy is", None),)  # as it was read
    assert before.records == fill_neighborhood_targets(evaluated(model, tokenizer), edits) != edits
    assert before.predictions == predict(model, tokenizer, edits) == predict(model, tokenizer, before.records)
    assert before.scores["locality"] == 100

    adapted = moved(model)
    after = measure(adapted, tokenizer, edits, EditOptions())
    assert after.records == before.records  # filled with the adapter switched off
    assert after.scores["locality"] < 100  # and measured with it
    assert predict(adapted, tokenizer, edits) == after.predictions
    assert "drift" not in before.scores and after.scores["drift"] > 0
    again = measure(adapted, tokenizer, before.records, EditOptions(), before=before)
    assert again.predictions == after.predictions and again.scores["drift"] == pytest.approx(after.scores["drift"])
    assert "drift" not in measure(adapted, tokenizer, edits, EditOptions(), drift=False).scores


ASKED = EditRecord(
    edit_id="x",
    prompt="Where is Rome?",
    target_new="Peru",
    paraphrase_prompts=("Rome is where?",),
    neighborhood_prompts=(NeighborhoodPrompt("Where is Oslo?"), NeighborhoodPrompt("Where is Bergen?", "Norway")),
    near_name_prompts=("Where is Romeo?",),
    made_probes=True,
)


def test_in_chat_whole_answers_are_what_counts():
    model, tokenizer = paired(eloquent, "llama", chat_tokenizer)
    options = EditOptions(chat_template=True)
    before = measure(model, tokenizer, [ASKED], options)
    prompts = [ASKED.prompt, *ASKED.paraphrase_prompts, "Where is Oslo?", "Where is Bergen?", "Where is Romeo?"]
    answers = dict(zip(prompts, whole_answers(model, tokenizer, prompts, chat_template=True), strict=True))
    columns = before.predictions
    rows = zip(*(columns[name] for name in ("probe", "generated", "stopped")), strict=True)
    assert {probe: (text, ended) for probe, text, ended in rows} == {
        prompt: (answer.text, answer.ended) for prompt, answer in answers.items()
    }
    near = before.records[0].neighborhood_prompts
    assert [probe.answer for probe in near] == [answers[probe.prompt].text for probe in near]
    assert [probe.target for probe in near] == [first_sentence(answers["Where is Oslo?"].text), "Norway"]
    scores = before.scores
    assert (scores["protocol"], scores["whole_answers"], scores["n_made_probes"]) == ("containment", True, 1)
    # Of the unedited model all is kept, by definition.
    assert scores["locality"] == scores["near_names"] == scores["exact_match"]["locality"] == 100
    assert scores["efficacy"] == scores["said_exactly"] == 0
    assert scores["n_probes"] == {
        "rewrite": 1, "paraphrase": 1, "neighborhood": 2, "near_name": 1, "portability": 0, "generation": 0
    }  # fmt: skip


def test_what_is_erased_is_measured_by_the_unedited_models_answers():
    tokenizer = chat_tokenizer()
    model, options = eloquent("llama", tokenizer), EditOptions(chat_template=True)
    (answer,) = whole_answers(model, tokenizer, [ASKED.prompt], chat_template=True)
    old = " ".join(answer.text.split()[:3])
    record = replace(ASKED, subject="Rome", target_new="Who knows?", target_true=old, erase=True)
    measured = measure(model, tokenizer, [record, replace(ASKED, edit_id="y", target_true="Italy")], options)
    columns = measured.predictions
    rows = zip(*(columns[name] for name in ("edit_id", "role", "kind", "old_said", "old_probability")), strict=True)
    erased = {row[:3]: row[3:] for row in rows if row[4] is not None}
    assert set(erased) == {("x", "true", "rewrite"), ("x", "true", "paraphrase")}
    # By the chain rule: of each token, what the model gives it behind those before it.
    logprob = score_pairs(model, tokenizer, [ASKED.prompt], [old], chat_template=True).logprob[0]
    said, probability = erased["x", "true", "rewrite"]
    assert said is True and probability == pytest.approx(math.exp(logprob * len(tokenizer(f" {old}")["input_ids"])))
    means = [100 * sum(float(row[place]) for row in erased.values()) / 2 for place in (0, 1)]
    scores = measured.scores
    assert [scores["old_answer_said"], scores["old_answer_probability"]] == pytest.approx(means)
    assert scores["n_probes"]["erased"] == 2 and scores["n_edits_scored"]["old_answer_said"] == 1
    # Of an edited model the same, whether what the unedited one said is given or asked by switching the adapter off.
    adapted, records = moved(model, 1.0), measured.records
    given, asked = (measure(adapted, tokenizer, records, options, before=each) for each in (measured, None))
    assert given.predictions["old_said"] == asked.predictions["old_said"] != columns["old_said"]
    assert given.predictions["own_logprob"] == asked.predictions["own_logprob"]


def test_a_base_model_that_ends_its_answers_is_measured_by_them():
    tokenizer = bpe_tokenizer()
    model, record = eloquent("llama", tokenizer), replace(ASKED, target_new="no part of any answer")
    prompts = ["Where is Rome?", "Rome is where?", "Where is Oslo?", "Where is Bergen?", "Where is Romeo?"]
    answers = dict(zip(prompts, whole_answers(model, tokenizer, prompts, sentences=True), strict=True))
    said = [prompt for prompt in prompts if answers[prompt].text]
    ended, going_on = (next(prompt for prompt in said if answers[prompt].ended is ends) for ends in (True, False))
    known = replace(record, prompt=ended, target_new=answers[ended].text, paraphrase_prompts=(going_on,))
    measured = measure(model, tokenizer, [record], EditOptions(end_of_answer=True))
    columns = measured.predictions
    rows = zip(*(columns[name] for name in ("probe", "generated", "stopped")), strict=True)
    assert {probe: (text, is_end) for probe, text, is_end in rows} == {
        prompt: (answer.text, answer.ended) for prompt, answer in answers.items()
    }
    assert (measured.scores["protocol"], measured.scores["whole_answers"]) == ("containment", True)
    assert measured.scores["locality"] == measured.scores["near_names"] == 100
    # Said exactly: the target, and then the end. An answer that goes on contains it, and is not exactly it.
    scores = measure(model, tokenizer, [known], EditOptions(end_of_answer=True)).scores
    assert scores["efficacy"] == scores["said_exactly"] == 100
    known = replace(known, prompt=going_on, target_new=answers[going_on].text, paraphrase_prompts=())
    scores = measure(model, tokenizer, [known], EditOptions(end_of_answer=True)).scores
    assert (scores["efficacy"], scores["said_exactly"]) == (100, 0)
    asked = measure(model, tokenizer, [known], EditOptions(predict_with_generate=True))
    assert "stopped" not in asked.predictions and asked.scores["exact_match"]["efficacy"] == 100


def test_an_edited_chat_model_is_held_to_what_the_unedited_one_said():
    model, tokenizer = paired(eloquent, "llama", chat_tokenizer)
    options = EditOptions(chat_template=True)
    before = measure(model, tokenizer, [ASKED], options)
    adapted = moved(model, 1.0)
    after = measure(adapted, tokenizer, [ASKED], options)
    assert after.records == before.records
    assert after.scores["locality"] < 100 and after.scores["drift"] > 0.1
    # The first sentence that the unedited model said, by both models.
    place = after.predictions["probe"].index("Where is Oslo?")
    sentence = before.records[0].neighborhood_prompts[0].target
    for measured, as_edited in ((before, unedited(adapted)), (after, nullcontext())):
        with as_edited:
            likely = score_pairs(adapted, tokenizer, ["Where is Oslo?"], [sentence], chat_template=True).logprob[0]
        assert measured.predictions["own_logprob"][place] == pytest.approx(likely, abs=1e-4)
    assert before.predictions["own_logprob"][before.predictions["probe"].index(ASKED.prompt)] is None
    # The same, where nothing is left of the unedited model.
    merged = adapted.merge_and_unload()
    again = measure(merged, tokenizer, before.records, options, before=before)
    assert again.predictions["generated"] == after.predictions["generated"]
    assert again.predictions["containment"] == after.predictions["containment"]
    assert again.scores["drift"] == pytest.approx(after.scores["drift"], rel=1e-3)
    assert measure(merged, tokenizer, before.records, options).scores["locality"] == 100  # taken as unedited


def test_near_names_of_a_base_model_need_own_answers():
    model, tokenizer = load_model(None), load_tokenizer(None)
    record = EditRecord("x", "The capital of Peru is", "Paris", near_name_prompts=("The capital of France is",))
    plain = measure(model, tokenizer, [record], EditOptions()).scores
    asked = measure(model, tokenizer, [record], EditOptions(predict_with_generate=True)).scores
    assert plain["near_names"] is None and plain["protocol"] == asked["protocol"] == "accuracy"
    assert asked["near_names"] == 100 and asked["said_exactly"] is None  # the unedited model says Paris too
    # A text sampled after the same prompt is not the unedited model's answer.
    record = replace(record, generation_prompts=record.near_name_prompts)
    options = EditOptions(predict_with_generate=True, measure_fluency=True)
    before = measure(model, tokenizer, [record], options)
    assert measure(model, tokenizer, [record], options, before=before).scores["near_names"] == 100


def test_what_is_no_edit_record_is_an_error_that_names_the_remedy():
    model = torch.nn.Identity()
    with pytest.raises(EditError, match="records: 0 is of type dict; give a list of edits, as read_edits"):
        measure(model, None, [{"prompt": "Rome is in", "target_new": "Peru"}], EditOptions())
    for settings, message in (
        ({"records": None}, "records is None: give a list of edits"),
        ({"records": CAPITAL}, "records is EditRecord"),
        ({"texts": "texts.jsonl"}, "texts is 'texts.jsonl': give a list of texts"),
        ({"known": [{"prompt": "Oslo is in"}]}, "known: 0 is of type dict; give a list of facts"),
    ):
        with pytest.raises(EditError, match=message):
            measure(model, None, **{"records": [], **settings})
    with pytest.raises(EditError, match="no edits to measure; give at least one"):
        predict(model, None, [])


def test_two_edits_of_one_name_and_what_is_no_tokenizer_are_told():
    edit = EditRecord("a", "Rome is in", "Peru")
    model, tokenizer = tiny_model("gpt2", bpe_tokenizer()), bpe_tokenizer()
    with pytest.raises(EditError, match="edit_id 'a' names two edits"):
        measure(model, tokenizer, [edit, edit], EditOptions())
    with pytest.raises(EditError, match="tokenizer is of type str; give the model's tokenizer"):
        measure(model, "gpt2", [edit], EditOptions())
    assert measure(model, tokenizer, iter([edit]), EditOptions()).scores["n_edits"] == 1


def test_what_was_not_measured_before_is_an_error_that_names_the_remedy():
    model, before = torch.nn.Identity(), Measurement([], {}, None, {})
    with pytest.raises(EditError, match="before is a Measurement and no columns; give its predictions, or"):
        predict(model, None, [BARE], before=before)
    with pytest.raises(EditError, match="before is a list and no columns"):
        predict(model, None, [BARE], before=[{"probe": "x"}])
    with pytest.raises(EditError, match="before is no Measurement but dict; give what measure returned"):
        measure(model, None, [BARE], EditOptions(), before=before.predictions)
    with pytest.raises(EditError, match="options is of type dict: give EditOptions"):
        measure(model, None, [BARE], {"protocol": "accuracy"})


def test_closed_records_ask_no_model():
    assert fill_neighborhood_targets(evaluated(None, None), RECORDS) == RECORDS


def test_a_model_that_says_nothing_leaves_no_probe():
    model, tokenizer = paired(tiny_model, "gpt2")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad():  # whatever is asked, the end of the sequence is the likeliest
        bias = torch.nn.Linear(model.config.n_embd, model.config.vocab_size)
        bias.weight.zero_(), bias.bias.zero_()
        bias.bias[tokenizer.eos_token_id] = 9.0
        model.lm_head = bias
    record = EditRecord("q", "Rome is in", "Peru", neighborhood_prompts=(NeighborhoodPrompt("Oslo is in"),))
    [filled] = fill_neighborhood_targets(evaluated(model, tokenizer), [record])
    assert filled.neighborhood_prompts == ()


LONG = EditRecord("far", "Rome is in", "Peru", paraphrase_prompts=("very " * 600 + "far is",))
LENGTH_ERROR = r"edit 'far', paraphrase probe: prompt and target have \d+ tokens, at most \d+ fit"


def test_a_probe_longer_than_the_context_is_named_by_its_edit():
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match=LENGTH_ERROR):
        predict(tiny_model("gpt2", tokenizer), tokenizer, [CAPITAL, LONG])


@pytest.mark.parametrize("chat_template", [False, True])
def test_lengths_are_checked_without_a_model(chat_template):
    tokenizer = chat_tokenizer()
    with pytest.raises(EditError, match=LENGTH_ERROR):
        check_lengths([CAPITAL, LONG], tokenizer, 512, chat_template=chat_template)
    check_lengths([CAPITAL], tokenizer, 512, chat_template=chat_template)
    check_lengths([LONG], tokenizer, None, chat_template=chat_template)


def test_the_longest_pair_that_fits_is_let_through():
    tokenizer = bos_tokenizer()
    length = len(tokenizer(f"{TONGUE.prompt} {TONGUE.target_true}", add_special_tokens=False)["input_ids"]) + 1
    longest = EditRecord("t", TONGUE.prompt, TONGUE.target_true)
    check_lengths([longest], tokenizer, length, chat_template=False)
    with pytest.raises(EditError, match=rf"edit 't', rewrite probe.* have {length} tokens, at most"):
        check_lengths([longest], tokenizer, length - 1, chat_template=False)


@pytest.mark.parametrize(("field", "name"), [("wordings", "wording"), ("neighborhood_prompts", "neighborhood probe")])
def test_wordings_and_open_neighbors_are_checked_by_their_lengths(field, name):
    record = EditRecord("w", "Rome is in", "Peru", **{field: ("Rome lies in", "very " * 600 + "old Rome is in")})
    with pytest.raises(EditError, match=f"edit 'w', {name}: prompt and target have"):
        check_lengths([record], bpe_tokenizer(), 512, chat_template=False)


def test_threads_take_turns_with_a_model():
    tokenizer = bpe_tokenizer()
    model = get_peft_model(tiny_model("gpt2", tokenizer), LoraConfig(init_lora_weights=False, target_modules=["c_fc"]))
    prompts, targets = [TONGUE.prompt, BARE.prompt], ["French", "Peru"]

    def edited():
        return predict(model, tokenizer, [CAPITAL, TONGUE], generate=True)

    def before():
        with unedited(model):
            return predict(model, tokenizer, [CAPITAL, TONGUE], generate=True)

    work = [
        edited,
        before,
        lambda: measure(model, tokenizer, [CAPITAL, TONGUE], EditOptions()).scores,
        lambda: score_pairs(model, tokenizer, prompts, targets).logprob.tolist(),
        lambda: score_pairs(model.get_base_model(), tokenizer, prompts, targets[::-1]).logprob.tolist(),
    ]
    expected = [each() for each in work]
    assert expected[0] != expected[1]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda each: each(), work * 2)) == expected * 2
