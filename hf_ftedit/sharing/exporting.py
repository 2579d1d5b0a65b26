"""Export an edited model to other formats, and take the exam of its edits again on what was exported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from hf_ftedit import evaluation, hub, models
from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError, one_line, shown
from hf_ftedit.files import moved_in, require_empty, write_json, write_text
from hf_ftedit.options import ExportFormat, ExportPrecision, check_value
from hf_ftedit.sharing.gguf_files import ModelFile, write_lora, write_with_lora
from hf_ftedit.sharing.modelfile import modelfile
from hf_ftedit.sharing.survival import (
    BEFORE,
    LLAMA_CPP,
    TRANSFORMERS,
    Exam,
    examined,
    examined_by_llama_cpp,
    summary,
    survival_lines,
    survival_table,
)
from hf_ftedit.sharing.verification import load_base

MODEL_FILE, LORA_FILE, MODELFILE, REPORT = "model.gguf", "adapter.gguf", "Modelfile", "export_results.json"
WHOLE_FILES = ("gguf", "ollama")  # formats that are a whole model in GGUF


def export(
    name: str,
    output_dir: str | Path,
    *,
    to: ExportFormat = "gguf",
    dtype: ExportPrecision | None = None,
    base_model: str | None = None,
    gguf_file: str | None = None,
    exam: bool = True,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """
    Export an adapter, or its base model with the edits, and ask what was exported for the new targets again.

    Args:
        name (`str`): Hub id or folder of the adapter.
        output_dir (`str` or `Path`): Where to; must not exist with content.
        to (`str`, *optional*, defaults to `"gguf"`): `"gguf-lora"`, a LoRA for llama.cpp; `"gguf"`, a whole model for
            it; `"ollama"`, that with a Modelfile; `"merged"`, a whole model in safetensors with its tokenizer.
        dtype (`str`, *optional*): Precision of the weights in a whole GGUF: `"q8_0"`, the default there, or `"f16"`.
            Those that the base model's own GGUF file has and no edit changed stay as they are there.
        base_model (`str`, *optional*): The base model, or path of its GGUF file, where it is not the recorded one.
        gguf_file (`str`, *optional*): GGUF file of the base model. One that was not trained on gives the settings,
            the tokenizer and the chat template of a whole GGUF, and is what a GGUF LoRA is examined on.
        exam (`bool`, *optional*, defaults to `True`): Take the exam before and after: by transformers and, where
            llama-cpp-python is installed, of GGUF by llama.cpp, with the file's own tokenizer and template.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that the base model's repository brings.

    Returns:
        `dict`: what `export_results.json` holds. `exams` has for each reader the prompts at which the new target is
        `said`, at which nothing else is (`exactly`), and how many percent are `kept` of those at which the adapter's
        model says it; `prompts` each answer; `not_taken` why a reader has no exam.

    Raises:
        [`~hf_ftedit.EditError`]: there is no such adapter or base model, or the format cannot hold it.

    Example:
    ```python
    results = export("edited-adapter", "exported", to="gguf", dtype="q8_0")
    print(results["exams"]["transformers"]["kept"])
    ```
    """
    saved, dtype = _open(name, output_dir, to, dtype), dtype or "q8_0"
    evaluated, source = _load(saved, name, base_model, gguf_file, to, trust_remote_code)
    whole = ModelFile(evaluated, source, dtype) if to in WHOLE_FILES else None
    evaluated = evaluated._replace(model=models.load_adapter(evaluated.model, saved.path), desc="Before the export")
    exams = {BEFORE: examined(evaluated, saved.records)} if exam else {}
    output, failed = Path(output_dir), dict[str, str]()
    with moved_in(output) as new:
        evaluated = evaluated._replace(model=_write(new, to, whole, evaluated))
        digests = hub.digests(new)
    if exam:
        taken, failed = _sit(output, evaluated, source, saved.records)
        exams |= taken
    written = {"to": to, **({"dtype": dtype} if MODEL_FILE in digests else {}), "files": digests}
    results = {**_exam_results(name, saved, exams), **written, "not_taken": failed}
    with moved_in(output) as new:
        write_json(new / REPORT, results)
        write_text(new / hub.CARD_FILE, _readme(results))
    return results


def _exam_results(name: str, saved: hub.SavedEdits, exams: Mapping[str, Exam]) -> dict[str, Any]:
    return {
        **{"adapter": models.public_name(name), "base_model": saved.recipe.get("model_name_or_path")},
        "protocol": "own answers" if saved.recipe.get("chat_template") else "probability",
        "exams": {reader: summary(each, exams[BEFORE]) for reader, each in exams.items()},
        "prompts": _prompts(saved.records, exams),
    }


def _open(name: str, output_dir: str | Path, to: str, dtype: str | None) -> hub.SavedEdits:
    """The adapter, with all that can be refused before a model is loaded."""
    check_value("to", to, ExportFormat)
    check_value("dtype", dtype, ExportPrecision | None)
    if dtype and to not in WHOLE_FILES:
        raise EditError(f"dtype {dtype!r} is of a whole model in GGUF, and to is {to!r}; leave dtype out")
    require_empty(output_dir)
    if to != "merged" and not find_spec("gguf"):
        raise EditError(f"to {to!r} needs the package gguf; install it with pip install 'hf-ftedit[gguf]'")
    if models.process_state().num_processes > 1:
        raise EditError("export runs in one process; start it without accelerate launch")
    saved = hub.open_edits(name)
    if not saved.is_adapter:
        raise EditError(f"{shown(name)} is a whole model; convert its folder with llama.cpp's convert_hf_to_gguf.py")
    settings, _ = models.check_adapter(saved.path, name)
    config: Any = SimpleNamespace(**settings)
    if to == "gguf-lora" and (beyond := models.beyond_lora(config)):
        problem = f"{shown(name)} has {beyond[0]}, and a GGUF LoRA holds pairs of matrices alone"
        raise EditError(f"{problem}; export the whole model (--to gguf) instead")
    return saved


def _load(
    saved: hub.SavedEdits, name: str, base_model: str | None, gguf_file: str | None, to: str, trust_remote_code: bool
) -> tuple[evaluation.EvaluatedModel, Path | None]:
    """The base model as it is measured, and the path of its GGUF file where there is one."""
    # Weights of 16 bits would be rounded once the edits are in them, and again in the file.
    dtype = saved.recipe.get("dtype", "float32") if to == "merged" else "float32"
    settings = {"dtype": dtype, "trust_remote_code": trust_remote_code, "quantization_config": None}
    is_trained_on = bool(saved.recipe.get("gguf_file")) or (base_model or "").endswith(".gguf")
    base, place = hub.base_of(saved.path, saved, base_model, gguf_file if is_trained_on else None)
    loaded = load_base(saved, name, saved.records, (base, place), **settings)
    folder, file = models.gguf_source(*((base, place["gguf_file"]) if is_trained_on else (gguf_file, None)))
    source = Path(folder or "", file) if file else None
    if source and file and not source.is_file():  # on the Hub, and by now in the cache
        source = hub.fetch_folder(str(folder), (file,), revision=place["revision"]) / file
    return loaded, source


def _write(new: Path, to: str, whole: Any, evaluated: evaluation.EvaluatedModel) -> Any:
    """Write the files of a format; the base model, on which a LoRA is examined, else `None`."""
    model: Any = evaluated.model
    if to == "gguf-lora":
        write_lora(new / LORA_FILE, model)
        return model.unload()
    model = models.merged(model)
    if to == "merged":
        hub.save_weights(new, model, evaluated.tokenizer)
    else:
        whole.write(new / MODEL_FILE, model)
    if to == "ollama":
        write_text(new / MODELFILE, modelfile(evaluated.tokenizer, MODEL_FILE, chat=evaluated.options.chat_template))
    return None  # two whole models need not fit into memory together


def _sit(
    output: Path, evaluated: evaluation.EvaluatedModel, source: Path | None, records: Sequence[EditRecord]
) -> tuple[dict[str, Exam], dict[str, str]]:
    """The exams of what was written, by reader, and why one was not taken; `evaluated` is the base of a LoRA."""
    # What the file itself has is what others run.
    options = replace(evaluated.options, chat_template_path=None)
    file, base, lora = output / MODEL_FILE, None, output / LORA_FILE
    exams, failed = dict[str, Exam](), dict[str, str]()

    def by_transformers() -> Exam:
        read, own = evaluation.load_checked(str(file if file.is_file() else output), records, options)
        return examined(evaluation.EvaluatedModel(read, own, options, "After the export"), records)

    def by_llama_cpp() -> Exam:
        if not find_spec("llama_cpp"):
            raise EditError("it is not installed (pip install llama-cpp-python, which takes a compiler)")
        adapter = str(lora) if lora.is_file() else None
        return examined_by_llama_cpp(str(base or file), adapter, evaluated.tokenizer, records, options)

    with TemporaryDirectory() as place:
        try:
            if lora.is_file():
                file = Path(place, MODEL_FILE)
                base = _write_sum(file, evaluated._replace(options=options), source, lora)
        except (EditError, OSError) as error:  # such as a disk that is full
            return {}, dict.fromkeys((TRANSFORMERS, LLAMA_CPP), one_line(error))
        # llama.cpp reads no safetensors.
        readers = {TRANSFORMERS: by_transformers} | ({LLAMA_CPP: by_llama_cpp} if file.is_file() else {})
        for reader, sit in readers.items():
            try:
                exams[reader] = sit()
            except Exception as error:  # the files are there, and what a reader says of them is for the report
                failed[reader] = one_line(error)
    return exams, failed


def _write_sum(file: Path, evaluated: evaluation.EvaluatedModel, source: Path | None, lora: Path) -> Path:
    """Write a GGUF file of a base model, with a LoRA in its weights; the file of the base model alone."""
    if source is None:
        source = file.with_name("base.gguf")
        ModelFile(evaluated, None, "f16").write(source, evaluated.model)
    write_with_lora(file, source, lora)
    return source


def _prompts(records: Sequence[EditRecord], exams: Mapping[str, Exam]) -> list[dict[str, Any]]:
    """Each prompt of the exams, with what every reader says there."""
    targets = {record.edit_id: record.target_new for record in records}
    rows = []
    for edit_id, prompt in exams.get(BEFORE, {}):
        said = {reader: exam[edit_id, prompt]._asdict() for reader, exam in exams.items()}
        rows.append({"edit_id": edit_id, "prompt": prompt, "target_new": targets[edit_id], **said})
    return rows


def command_for(results: Mapping[str, Any]) -> str:
    """The command that runs an exported folder, inside it."""
    name = re.sub(r"[^a-z0-9._-]+", "-", results["adapter"].lower()).strip("-._") or "edited"
    return {
        "gguf-lora": f"llama-server -m BASE.gguf --lora {LORA_FILE}",
        "gguf": f"llama-server -m {MODEL_FILE}",
        "ollama": f"ollama create {name} -f {MODELFILE} && ollama run {name}",
        "merged": "vllm serve .",
    }[results["to"]]


def _readme(results: Mapping[str, Any]) -> str:
    text = hub.markdown_text
    lines = [
        f"# {text(results['adapter'])}, exported ({results['to']})",
        f"Written by `hf-ftedit export --to {results['to']}` from the adapter {text(results['adapter'])} of the base "
        f"model {text(str(results['base_model']))}. In this folder, it runs with:",
        f"```bash\n{command_for(results)}\n```",
    ]
    if results["exams"]:
        table = survival_table(results).markdown(text)
        lines += ["## What survived", *map(text, survival_lines(results)), table, f"All answers: `{REPORT}`."]
    return "\n\n".join(lines) + "\n"
