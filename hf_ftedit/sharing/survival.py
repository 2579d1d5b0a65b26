"""The exam of exported edits: what the adapter's model says, and what the exported files say, read by others."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os.path import commonprefix
from typing import Any, NamedTuple

import numpy as np

from hf_ftedit import evaluation, models
from hf_ftedit.data import EditRecord
from hf_ftedit.options import EditOptions
from hf_ftedit.scripts import separated

BEFORE, TRANSFORMERS, LLAMA_CPP = "adapter", "transformers", "llama.cpp"  # who sits the exam


class Said(NamedTuple):
    """
    What became of an edit's new target at one prompt.

    `said` is whether it stands in the model's own answer, `exactly` whether that says nothing else and ends; of a base
    model, whether it is likelier than the old target (without one, the likeliest), and whether it is the likeliest.
    """

    answer: str | None
    said: bool
    exactly: bool


Exam = dict[tuple[str, str], Said]  # by edit and prompt; the edit's own prompt comes before its other wordings


def without_other_probes(records: Sequence[EditRecord]) -> list[EditRecord]:
    """The edits with those of their probes alone that ask for the new target."""
    gone: dict[str, Any] = dict.fromkeys(("neighborhood_prompts", "near_name_prompts", "portability_prompts"), ())
    return [replace(record, **gone, generation_prompts=()) for record in records]


def examined(evaluated: evaluation.EvaluatedModel, records: Sequence[EditRecord]) -> Exam:
    """The exam of `records` by a model of transformers."""
    records = without_other_probes(records)
    columns = evaluation.predict(
        evaluated.model, evaluated.tokenizer, records, desc=evaluated.desc, **evaluated.settings
    )
    return _verdicts([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)])


def examined_by_llama_cpp(
    file: str, lora: str | None, tokenizer: Any, records: Sequence[EditRecord], options: EditOptions
) -> Exam:
    """The exam of `records` by llama.cpp, with the tokenizer and the chat template that stand in the GGUF `file`."""
    from llama_cpp import Llama

    chat = options.chat_template
    rows = [row for row in evaluation.probed_targets(without_other_probes(records)) if row.role == "new" or not chat]
    # Room for a system prompt and an answer too; all of a long context would take gigabytes.
    longest = max(map(len, models.encode_prompts(tokenizer, [f"{row.prompt} {row.target}" for row in rows])))
    # By default the package replaces templates that it knows by forms of its own.
    template = {"chat_format": "chat_template.default"} if chat else {}
    settings = {"n_ctx": longest + 512, "logits_all": not chat, "verbose": False, **template}
    predictions = []
    with contextlib.closing(Llama(file, lora_path=lora, **settings)) as llama:
        for row in rows:
            cells: dict[str, Any] = {**row._asdict(), "probe": row.prompt}
            if chat:
                answer = _answer(llama, row.prompt)
                cells["exact_match"], cells["containment"] = evaluation.judged(row, answer, {}, whole=True)
                cells["generated"] = answer.text
            else:
                cells["logprob"], cells["match"] = _score(llama, row.prompt, separated(row.prompt, row.target))
            predictions.append(cells)
    return _verdicts(predictions)


def _answer(llama: Any, prompt: str) -> models.Answer:
    """The model's own answer, greedy, to its natural end."""
    settings = {"temperature": 0.0, "repeat_penalty": 1.0, "max_tokens": models.WHOLE_ANSWER_TOKENS}
    (choice,) = llama.create_chat_completion([{"role": "user", "content": prompt}], **settings)["choices"]
    return models.Answer(choice["message"]["content"].strip(), [], choice["finish_reason"] == "stop")


def _score(llama: Any, prompt: str, completion: str) -> tuple[float, bool]:
    """Mean log-probability of a completion's tokens, and whether each is the likeliest one."""
    alone, whole = (llama.tokenize(text.encode()) for text in (prompt, prompt + completion))
    start = max(1, min(len(commonprefix([alone, whole])), len(whole) - 1))  # nothing predicts the first token
    llama.reset()
    llama.eval(whole)
    logits = llama.scores[start - 1 : len(whole) - 1].astype(np.float64)
    logprobs = logits[np.arange(len(logits)), whole[start:]] - np.logaddexp.reduce(logits, axis=1)
    return float(logprobs.mean()), bool((logits.argmax(axis=1) == whole[start:]).all())


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> Exam:
    """What became of the new target at each prompt, of predictions."""
    rivals = {(row["edit_id"], row["probe"]): row for row in rows if row["role"] == "true"}
    exam: Exam = {}
    for row in (row for row in rows if row["role"] == "new"):
        key = row["edit_id"], row["probe"]
        rival = rivals.get(key, row)
        if "generated" in row:
            exam[key] = Said(row["generated"], row["containment"], row["exact_match"])
        else:
            is_likelier = row["match"] if rival["target"] == row["target"] else row["logprob"] > rival["logprob"]
            exam[key] = Said(None, is_likelier, row["match"])
    return exam


def summary(exam: Exam, before: Exam) -> dict[str, Any]:
    """Counts of an exam: prompts, those at which the target is said, and how many of those `before` were kept."""
    was = [key for key, said in before.items() if said.said]
    still = sum(exam[key].said for key in was)
    said, exactly = (sum(getattr(each, name) for each in exam.values()) for name in ("said", "exactly"))
    share = 100 * still / len(was) if was else None
    return {"n_prompts": len(exam), "said": said, "exactly": exactly, "n_kept": still, "kept": share}


def survival_table(results: Mapping[str, Any]) -> evaluation.Table:
    """For each edit the verdict of each reader: at the edit's own prompt, and at how many of its other wordings."""
    readers, by_edit = list(results["exams"]), dict[str, list[Any]]()
    for prompt in results["prompts"]:
        by_edit.setdefault(prompt["edit_id"], []).append(prompt)
    rows = []
    for own, *others in by_edit.values():
        cells = []
        for reader in readers:
            word = "exactly" if own[reader]["exactly"] else "yes" if own[reader]["said"] else "no"
            more = f", {sum(other[reader]['said'] for other in others)} of {len(others)}" if others else ""
            cells.append(word + more)
        rows.append([own["prompt"], own["target_new"], *cells])
    return evaluation.Table(["prompt", "new target", *readers], rows, 2)


def survival_lines(results: Mapping[str, Any]) -> list[str]:
    """What survived, in sentences."""
    says = "says the new target" if results["protocol"] == "own answers" else "finds the new target likelier"
    exams = dict(results["exams"])
    first = exams.pop(BEFORE)
    lines = [f"The adapter's model {says} at {first['said']} of {first['n_prompts']} prompts and wordings."]
    for reader, counts in exams.items():
        share = "" if counts["kept"] is None else f", {counts['kept']:.1f} %"
        lines.append(f"Exported, read by {reader}: {counts['n_kept']} of those {first['said']} survived{share}.")
    return lines + [f"Not read by {reader}: {reason}." for reader, reason in results["not_taken"].items()]
