"""Verify published edits: their files' SHA-256, the card's numbers, and the scores, which are measured again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hf_ftedit import evaluation, hub, models
from hf_ftedit.data import EditRecord, facts_about_others, is_hub_dataset, read_facts, read_texts
from hf_ftedit.errors import EditError, shown
from hf_ftedit.options import PROVENANCE
from hf_ftedit.training import options_of, quantization_of
from hf_ftedit.untrusted import EVAL_FOLDER, parse_yaml, read_small

LATER = ("said_exactly", "near_names", "drift")  # scores that 0.1.0 did not measure, and so did not claim
MEASURED_ON = {"perplexity": "perplexity_texts", "known_facts": "known_facts"}  # scores, and what they are of
DRIFT_TOLERANCE = 0.02  # nats a token
GOOD, BAD, OPEN = "ok", "DIFFERS", "not checked"


class Check(NamedTuple):
    """
    One claim of published edits.

    Args:
        name (`str`): Subject of the claim: `"after: efficacy"`, `"edits.jsonl"`.
        claimed (`str`): Value that is published.
        measured (`str`): Value that was computed again.
        verdict (`str`): `"ok"`, `"DIFFERS"`, or `"not checked"`, which is no failure.
    """

    name: str
    claimed: str
    measured: str
    verdict: str


class Verification(NamedTuple):
    """
    The checks of published edits.

    Args:
        checks (`list[Check]`): All of them.
        revision (`str`, *optional*): The commit that was verified, of edits from the Hub.
        said (`str`, *optional*, defaults to `""`): What a chat model said before the edits and says with them, as
            text.
    """

    checks: list[Check]
    revision: str | None
    said: str = ""

    @property
    def passed(self) -> bool:
        """`True` where no claim differs from what was measured."""
        return all(check.verdict != BAD for check in self.checks)


def verify(
    name: str,
    *,
    revision: str | None = None,
    base_model: str | None = None,
    gguf_file: str | None = None,
    tolerance: float = 1.0,
    trust_remote_code: bool = False,
    token: str | None = None,
) -> Verification:
    """
    Check published edits: the files' SHA-256, the card's numbers, and the scores, which are measured again.

    The unedited and the edited model answer all probes of the published `edits.jsonl`, in the precision and with the
    settings of `edit_config.yaml`.

    Args:
        name (`str`): Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit.
        base_model (`str`, *optional*): The base model, or path of its GGUF file, where it is not the recorded one.
        gguf_file (`str`, *optional*): Name of the GGUF file in `base_model`, where it is not the recorded one.
        tolerance (`float`, *optional*, defaults to `1.0`): Most that a measured score may differ from the published
            one, in points; drift may by 0.02 nats.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that the base model's repository brings.
        token (`str`, *optional*): Token of the Hub; the one of `hf auth login` by default.

    Raises:
        [`~hf_ftedit.EditError`]: there are no such edits, or they or their base model cannot be loaded.

    Example:
    ```python
    verification = verify("user/my-edits")
    print(verification.passed, [check.name for check in verification.checks if check.verdict == "DIFFERS"])
    ```
    """
    folder = hub.fetch_folder(name, revision=revision, token=token)
    commit = None if Path(name).is_dir() else folder.name
    files = hub.read_recipe(folder, name)[PROVENANCE]["files"]
    # The names of a whole model's files are known by its recipe alone. Of the same commit: a branch may go on.
    hub.fetch_folder(name, tuple(files), revision=commit, token=token)
    checks, said = list(_file_checks(folder, files)), ""
    try:
        saved = hub.read_edit_folder(folder, name)
        checks += [*_card_checks(saved), *_entry_checks(saved), *_base_checks(saved)]
        base = hub.base_of(saved.path, saved, base_model, gguf_file)
        measured = _measure_again(saved, name, base, trust_remote_code=trust_remote_code, token=token)
        checks += _score_checks(saved, evaluation.results_of(measured), tolerance)
        if measured["after"].scores["whole_answers"]:
            said = evaluation.before_after_text(measured["before"].predictions, measured["after"].predictions)
    except EditError as error:
        if all(check.verdict != BAD for check in checks):
            raise
        # A damaged file may not even load: that is a claim that fails, not an error of the user's.
        checks.append(Check("scores", "measured again", str(error), BAD))
    return Verification(checks, commit, said)


def _measure_again(
    saved: hub.SavedEdits, name: str, base: tuple[str, dict[str, Any]], **loading: Any
) -> dict[str, evaluation.Measurement]:
    """Measurements without and with the edits."""
    texts: Any = saved.recipe.get("perplexity_texts")
    facts: Any = saved.recipe.get("known_facts")
    settings: dict[str, Any] = {"seed": saved.recipe.get("seed", 42)}
    settings["texts"] = read_texts(texts) if is_hub_dataset(texts) else []
    settings["known"] = facts_about_others(read_facts(facts), saved.records) if is_hub_dataset(facts) else []
    if saved.is_adapter:
        models.check_adapter(saved.path, name)  # before the base model is downloaded, which may be large
    loading |= {"dtype": saved.recipe.get("dtype", "float32"), "quantization_config": quantization_of(saved.recipe)}
    model, tokenizer, options, _ = load_base(saved, name, saved.records, base, **loading)
    if options.chat_template and "whole_answers" not in saved.results["after"]:
        # 0.1.0 had no own answers as headline: what it claims is what is checked.
        options = replace(options, protocol=saved.results["protocol"])
    settings["options"] = options
    if saved.is_adapter:
        model = models.load_adapter(model, saved.path)
    with models.unedited(model):
        before = evaluation.measure(model, tokenizer, saved.records, desc="Measuring before", **settings)
    if not saved.is_adapter:
        del model  # two whole models need not fit into memory together
        model, tokenizer = evaluation.load_checked(str(saved.path), saved.records, options, **loading)
    after = evaluation.measure(model, tokenizer, before.records, before=before, desc="Measuring after", **settings)
    return {"before": before, "after": after}


def load_base(
    saved: hub.SavedEdits, name: str, records: Sequence[EditRecord], base: tuple[str, dict[str, Any]], **loading: Any
) -> evaluation.EvaluatedModel:
    """The base model of the adapter `name`, checked to be that, as it is measured."""
    source, place = base
    options = replace(options_of(saved.recipe), **hub.own_template(saved.path, saved.recipe, name, loading))
    model, tokenizer = evaluation.load_checked(source, records, options, **place, **loading)
    hub.check_base(model, saved.settings, name)
    return evaluation.EvaluatedModel(model, tokenizer, options)


def _file_checks(folder: Path, files: Mapping[str, str]) -> Iterator[Check]:
    """Each file against its SHA-256."""
    changed = hub.changed_files(folder, files)
    if not files:
        yield Check(hub.RECIPE_FILE, "SHA-256 of every file", "none", BAD)
    for name, claimed in files.items():
        digest = changed.get(name, claimed)
        # Authors edit the card's text; its numbers are compared below.
        verdict = GOOD if name not in changed else (OPEN if name == hub.CARD_FILE and digest else BAD)
        measured = f"sha256 {digest[:12]}" if digest else "missing"
        yield Check(name, f"sha256 {str(claimed)[:12]}", measured, verdict)


def _card_checks(saved: hub.SavedEdits) -> Iterator[Check]:
    """The metadata of the card against `eval_results.json`."""
    try:
        metadata = hub.card_metadata(saved.path)
        results = [result for model in metadata["model-index"] for result in model["results"]]
        claims = [(metric["type"], metric["value"]) for result in results for metric in result["metrics"]]
        yield from _claims("card", claims, saved.results["after"])
        if "base_model" in metadata:
            yield _equal("card: base model", metadata["base_model"], saved.recipe.get("model_name_or_path"))
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        yield Check("card: model-index", "scores", "none that can be read", BAD)


def _entry_checks(saved: hub.SavedEdits) -> Iterator[Check]:
    """The entries for leaderboards of datasets against `eval_results.json`."""
    for name in (name for name in saved.provenance["files"] if name.startswith(f"{EVAL_FOLDER}/")):
        try:
            entries = parse_yaml(read_small(saved.path / name))
            claims = [(entry["dataset"]["task_id"], entry["value"]) for entry in entries]
            yield from _claims(name, claims, saved.results["after"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            yield Check(name, "scores", "none that can be read", BAD)


def _claims(place: str, stated: Sequence[tuple[Any, Any]], after: Mapping[str, Any]) -> Iterator[Check]:
    """Scores stated elsewhere, by name, against those of `eval_results.json`."""
    claims = dict(stated)
    # Of two claims of a score, one would stand unseen behind the other.
    if len(stated) > len(claims):
        yield _equal(f"{place}: number of scores", len(stated), len(claims))
    # Those that are claimed and nobody measured are checked too, and differ.
    scores = hub.published_scores(after)
    for name in dict.fromkeys([*claims, *scores]):
        yield _equal(f"{place}: {evaluation.SCORES.get(name) or _text(name)}", claims.get(name), scores.get(name))


def _base_checks(saved: hub.SavedEdits) -> Iterator[Check]:
    """The base model that PEFT by itself would take, where it is not the recorded one."""
    recorded = saved.recipe["model_name_or_path"]
    named = models.adapter_settings(saved.path).get("base_model_name_or_path") if saved.is_adapter else None
    if named and named != recorded and recorded != "unknown":  # the name of a model that was made in memory
        yield _equal("adapter_config.json: base model", named, recorded)


def _score_checks(saved: hub.SavedEdits, scores: Mapping[str, Any], tolerance: float) -> Iterator[Check]:
    """Published scores against measured ones."""
    for setting in ("protocol", "n_edits"):
        yield _equal(setting, saved.results.get(setting), scores[setting])
    for when in ("before", "after"):
        for name, label in evaluation.SCORES.items():
            claimed, measured = saved.results[when].get(name), scores[when].get(name)
            is_no_claim = name in LATER and name not in saved.results[when]
            if is_no_claim or (claimed is None and measured is None):
                continue
            most, digits = (DRIFT_TOLERANCE, 3) if name == "drift" else (tolerance, 2)
            # Anybody may have written eval_results.json: a claim may be text.
            are_numbers = isinstance(claimed, int | float) and isinstance(measured, int | float)
            verdict = GOOD if are_numbers and abs(claimed - measured) <= most else BAD
            # Only the author has the file: a claim that cannot be measured is neither right nor wrong.
            source = saved.recipe.get(MEASURED_ON.get(name, ""))
            if source is not None and not is_hub_dataset(source):
                verdict = OPEN
            stated, again = _text(claimed, digits), _text(measured, digits)
            if verdict == BAD and stated == again:  # they differ in a later digit
                stated, again = _text(claimed), _text(measured)
            yield Check(f"{when}: {label}", stated, again, verdict)


def _equal(name: str, claimed: Any, measured: Any) -> Check:
    return Check(name, _text(claimed), _text(measured), GOOD if claimed == measured else BAD)


def _text(value: Any, digits: int | None = None) -> str:
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}f}"
    # Anybody may have written a card: what it claims may be a number of thousands of digits, or a book.
    return "none" if value is None else value[:200] if isinstance(value, str) else shown(value)
