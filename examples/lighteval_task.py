"""
The exam of edits as tasks of lighteval: does the model's own answer hold the right one, as whole words?

    hf-ftedit merge user/my-edits --merge_into_base --output_dir merged
    EDITS=user/my-edits lighteval accelerate model_name=merged edits --custom-tasks examples/lighteval_task.py

`EDITS` is an adapter, of the Hub or a folder, or its `edits.jsonl`. The tasks are edits:efficacy (the new answers),
edits:generalization (paraphrases), edits:locality (neighbors' answers) and edits:portability; `edits` is all of them.
Nothing of hf_ftedit is imported, so that lighteval may have an environment of its own.
"""

import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from huggingface_hub import hf_hub_download
from lighteval.metrics.metrics_sample import SampleLevelComputation
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod


def questions(edit: dict) -> list[dict]:
    """The probes of an edit that have an answer, as rows."""
    new = [edit["target_new"], *edit.get("target_aliases", ())]
    neighbors = [probe for probe in edit.get("neighborhood_prompts", ()) if probe.get("target")]
    asked = [("efficacy", edit["prompt"], new)]
    asked += [("generalization", prompt, new) for prompt in edit.get("paraphrase_prompts", ())]
    asked += [("locality", probe["prompt"], [probe["target"]]) for probe in neighbors]
    asked += [("portability", probe["prompt"], probe["answers"]) for probe in edit.get("portability_prompts", ())]
    return [{"task": task, "prompt": prompt, "answers": answers} for task, prompt, answers in asked]


def written_exam(source: str) -> tuple[str, list[str]]:
    """A folder that `load_dataset` reads, and the tasks that have questions in it."""
    path = Path(source)
    if not path.is_file():
        path = path / "edits.jsonl" if path.is_dir() else Path(hf_hub_download(source, "edits.jsonl"))
    # JSON may hold U+2028 and the like as they are, at which `splitlines` would cut a row.
    edits = map(json.loads, filter(str.strip, path.read_text(encoding="utf-8").split("\n")))
    rows = [row for edit in edits for row in questions(edit)]
    folder = Path(tempfile.mkdtemp(prefix="edits-"))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder), list(dict.fromkeys(row["task"] for row in rows))


class Contains(SampleLevelComputation):
    """1 where a right answer stands in what the model says."""

    def compute(self, doc: Doc, model_response, **kwargs) -> int:
        texts = [text.casefold() for text in model_response.final_text]
        patterns = [rf"(?<!\w){re.escape(answer.strip().casefold())}(?!\w)" for answer in doc.get_golds()]
        return int(any(re.search(pattern, text) for pattern in patterns for text in texts))


def as_doc(row: dict, task_name: str) -> Doc:
    answers = row["answers"]
    return Doc(task_name=task_name, query=row["prompt"], choices=answers, gold_index=list(range(len(answers))))


def task(name: str, folder: str) -> LightevalTaskConfig:
    return LightevalTaskConfig(
        name=f"edits:{name}",
        prompt_function=as_doc,
        hf_repo=folder,
        hf_subset="default",
        hf_filter=lambda row: row["task"] == name,
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        generation_size=32,  # as hf_ftedit asks a chat model
        stop_sequence=["\n"],
        metrics=[
            SampleLevelMetric(
                metric_name="contains",
                higher_is_better=True,
                category=SamplingMethod.GENERATIVE,
                sample_level_fn=Contains(),
                corpus_level_fn=np.mean,
            )
        ],
    )


FOLDER, TASKS = written_exam(os.environ["EDITS"])
TASKS_TABLE = [task(name, FOLDER) for name in TASKS]
