"""Verify published edits: their files' SHA-256, the card's numbers, and the results, which are measured again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hf_ftedit import evaluation, hub, models
from hf_ftedit.data import EditRecord, facts_about_others, is_hub_dataset, read_facts, read_texts
from hf_ftedit.errors import EditError, shown
from hf_ftedit.options import PROVENANCE, check_value
from hf_ftedit.training import options_of, quantization_of, scores_of
from hf_ftedit.untrusted import EVAL_FOLDER, parse_yaml, read_small

LATER = ("said_exactly", "near_names", "drift")  # scores that 0.1.0 did not measure, and so did not claim
MEASURED_ON = {"perplexity": "perplexity_texts", "known_facts": "known_facts"}  # scores, and what they are of
COUNTS_OF = {"perplexity": ("n_texts", "n_tokens"), "known_facts": ("n_known_facts",)}
DRIFT_TOLERANCE, ANSWER_TOLERANCE = 0.02, 0.2  # nats a token
# Times the tolerance, for what is no score: one edit of a hundred that flips moves the mean by 1, its interval by 3.
WIDER = 3
P_TOLERANCE, NO_EVIDENCE = 0.05, 0.1  # p-values above the latter are alike: where nothing changed, one edit moves them
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
    Check published edits: the files' SHA-256, the card's numbers, and the results, which are measured again.

    The unedited and the edited model answer all probes of the published `edits.jsonl`, in the precision and with the
    settings of `edit_config.yaml`. Each score is a check; of the other results (intervals, p-values, protocols,
    aspects, the card's answers) each that differs is one.

    Args:
        name (`str`): Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit.
        base_model (`str`, *optional*): The base model, or path of its GGUF file, where it is not the recorded one.
        gguf_file (`str`, *optional*): Name of the GGUF file in `base_model`, where it is not the recorded one.
        tolerance (`float`, *optional*, defaults to `1.0`): Most that a measured score may differ from the published
            one, in points. Intervals and differences may by three times as much, drift by 0.02 nats, p-values by 0.05,
            and an answer where the model gives it about as readily as its own.
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
    tolerance = check_value("tolerance", tolerance, float)
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
        results, before, after = _measure_again(saved, name, base, trust_remote_code=trust_remote_code, token=token)
        checks += [*_score_checks(saved, results, tolerance), *_leaf_checks(saved, results, tolerance)]
        if after.scores["whole_answers"]:
            said = evaluation.before_after_text(before.predictions, after.predictions)
    except EditError as error:
        if all(check.verdict != BAD for check in checks):
            raise
        # A damaged file may not even load: that is a claim that fails, not an error of the user's.
        checks.append(Check("scores", "measured again", str(error), BAD))
    return Verification(checks, commit, said)


def _measure_again(
    saved: hub.SavedEdits, name: str, base: tuple[str, dict[str, Any]], **loading: Any
) -> tuple[dict[str, Any], evaluation.Measurement, evaluation.Measurement]:
    """What `eval_results.json` should hold, and the measurements without and with the edits."""
    texts: Any = saved.recipe.get("perplexity_texts")
    facts: Any = saved.recipe.get("known_facts")
    settings: dict[str, Any] = {"seed": saved.recipe.get("seed", 42)}
    settings["texts"] = read_texts(texts) if is_hub_dataset(texts) else []
    settings["known"] = facts_about_others(read_facts(facts), saved.records) if is_hub_dataset(facts) else []
    if saved.is_adapter:
        models.check_adapter(saved.path, name)  # before the base model is downloaded, which may be large
    loading |= {"dtype": saved.recipe.get("dtype", "float32"), "quantization_config": quantization_of(saved.recipe)}
    model, tokenizer, options, _ = load_base(saved, name, saved.records, base, **loading)
    if _is_old_chat(saved):
        # 0.1.0 had no own answers as headline: what it claims is what is checked.
        options = replace(options, protocol=saved.results["protocol"])
    settings["options"] = options
    if saved.is_adapter:
        model = models.load_adapter(model, saved.path)
    with models.unedited(model):
        before = evaluation.measure(model, tokenizer, saved.records, desc="Measuring before", **settings)
        old = _answers(evaluation.EvaluatedModel(model, tokenizer, options), saved, "before", before)
    if not saved.is_adapter:
        del model  # two whole models need not fit into memory together
        model, tokenizer = evaluation.load_checked(str(saved.path), saved.records, options, **loading)
    after = evaluation.measure(model, tokenizer, before.records, before=before, desc="Measuring after", **settings)
    results = evaluation.results_of({"before": before, "after": after})
    results["base_model"] = saved.recipe["model_name_or_path"]
    results["base_model_revision"] = saved.recipe.get("model_revision")
    evaluated = evaluation.EvaluatedModel(model, tokenizer, options)
    if "example" in saved.results and not _is_old_chat(saved):
        results["example"] = _example(evaluated, saved)
    if old:
        both = zip(old, _answers(evaluated, saved, "after", after), strict=True)
        results["answers"] = [{"before": unedited, "after": edited} for unedited, edited in both]
    if retention := saved.results.get("retention"):
        # The earlier adapter's edits come first, and its own scores of them are not here.
        ids = [edit.edit_id for edit in saved.records[: retention["n_edits"]]]
        again = {"n_edits": len(ids), "after": scores_of(after.predictions, ids, results["protocol"]) if ids else {}}
        results["retention"] = {**retention, **again}
    return results, before, after


def _is_old_chat(saved: hub.SavedEdits) -> bool:
    """Tell edits of a chat model by 0.1.0, which cut its own answers."""
    return bool(saved.recipe.get("chat_template")) and "whole_answers" not in saved.results["after"]


def _answers(
    evaluated: evaluation.EvaluatedModel, saved: hub.SavedEdits, when: str, measured: evaluation.Measurement
) -> list[str]:
    """The model's answers for the card, as claimed where it could give those; none where none are."""
    if not (claims := saved.results.get("answers")) or _is_old_chat(saved):
        return []
    prompts = [edit.prompt for edit in saved.records[: hub.SHOWN_EDITS]]
    answers = hub.card_answers(evaluated, prompts, measured.predictions)
    return _as_claimed(evaluated, prompts, [claim[when] for claim in claims], answers)


def _example(evaluated: evaluation.EvaluatedModel, saved: hub.SavedEdits) -> dict[str, Any]:
    """The card's `example`, with the text as claimed where the model could print that."""
    prompts = [saved.records[0].prompt]
    example: dict[str, Any] = hub.examples(evaluated, prompts, None, {})["example"]
    ids = models.encode_prompts(evaluated.tokenizer, prompts, chat_template=evaluated.options.chat_template)
    head = str(evaluated.tokenizer.decode(ids[0], skip_special_tokens=True))
    output, claim = example["output"], saved.results["example"]["output"]
    if output and claim and claim.startswith(head):
        tails = _as_claimed(evaluated, prompts, [claim[len(head) :]], [output[len(head) :]])
        example["output"] = head + tails[0]
    return example


def _as_claimed(
    evaluated: evaluation.EvaluatedModel, prompts: Sequence[str], claimed: Sequence[str], answers: Sequence[str]
) -> list[str]:
    """The model's own `answers`, in their places those `claimed` that it would give about as readily."""
    # Where two tokens are about as likely, the other one comes first on other hardware, and other text follows it.
    model, tokenizer, *_ = evaluated
    accepted = list(answers)
    for place, (prompt, claim, answer) in enumerate(zip(prompts, claimed, answers, strict=False)):
        is_accepted = claim.strip() == answer.strip()  # 0.1.0 left out white space
        if not is_accepted and claim.strip() and answer.strip():
            with suppress(EditError):  # it does not fit into the context
                pairs = [prompt] * 2, [claim, answer]
                logprobs = models.score_pairs(model, tokenizer, *pairs, **evaluated.settings).logprob
                is_accepted = bool(logprobs[0] >= logprobs[1] - ANSWER_TOLERANCE)
        accepted[place] = claim if is_accepted else answer
    return accepted


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


def _score_checks(saved: hub.SavedEdits, results: Mapping[str, Any], tolerance: float) -> Iterator[Check]:
    """Published scores against measured ones."""
    for setting in ("protocol", "n_edits"):
        yield _equal(setting, saved.results.get(setting), results[setting])
    for when in ("before", "after"):
        for name, label in evaluation.SCORES.items():
            claimed, measured = saved.results[when].get(name), results[when].get(name)
            is_no_claim = name in LATER and name not in saved.results[when]
            if is_no_claim or (claimed is None and measured is None):
                continue
            verdict = GOOD if _agree((when, name), claimed, measured, tolerance) else BAD
            # Only the author has the file: a claim that cannot be measured is neither right nor wrong.
            if name in _private(saved):
                verdict = OPEN
            digits = 3 if name == "drift" else 2
            stated, again = _text(claimed, digits), _text(measured, digits)
            if verdict == BAD and stated == again:  # they differ in a later digit
                stated, again = _text(claimed), _text(measured)
            yield Check(f"{when}: {label}", stated, again, verdict)


def _leaf_checks(saved: hub.SavedEdits, results: Mapping[str, Any], tolerance: float) -> Iterator[Check]:
    """All other results: a check of each that differs, and of those that cannot be measured."""
    unknown, measured = set(_unknown_places(saved)), dict(_leaves(results))
    claims = {name: value for name, value in saved.results.items() if name in results}
    for place, claimed in _leaves(claims):
        is_score = place[0] in ("before", "after") and len(place) == 2 and place[1] in evaluation.SCORES
        if is_score or place[0] in ("protocol", "n_edits") or place[:2] in unknown:
            continue
        if not _agree(place, claimed, measured.get(place), tolerance):
            yield Check(": ".join(map(_text, place)), _text(claimed), _text(measured.get(place)), BAD)
    if retention := saved.results.get("retention"):
        yield Check("retention: before", f"scores of {_text(retention['adapter'])}", "none", OPEN)
    if revoked := saved.results.get("revoked"):
        yield Check("revoked", f"{_text(revoked['back'], 2)} as before the edits", "none", OPEN)
    if _is_old_chat(saved) and saved.results.get("answers"):
        yield Check("answers", "own answers by 0.1.0", "none", OPEN)


def _unknown_places(saved: hub.SavedEdits) -> Iterator[tuple[str, str]]:
    """Places of results that are of a file of the author's, or of own answers that 0.1.0 cut."""
    names = [each for name in _private(saved) for each in (f"{name}_ci95", *COUNTS_OF[name])]
    if _is_old_chat(saved):
        names += [*evaluation.GENERATED, "portability_aspects"]
    yield from ((when, name) for when in ("before", "after") for name in names)


def _private(saved: hub.SavedEdits) -> list[str]:
    """The scores that were measured on a file of the author's."""
    sources = {name: saved.recipe.get(source) for name, source in MEASURED_ON.items()}
    return [name for name, source in sources.items() if source is not None and not is_hub_dataset(source)]


def _leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The numbers and texts in nested results, each with its place."""
    if not isinstance(value, Mapping | list):
        yield place, value
        return
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _leaves(part, (*place, key))


def _agree(place: tuple[Any, ...], claimed: Any, measured: Any, tolerance: float) -> bool:
    """Tell a claim that holds: a score within its tolerance, a count or a text as it is."""
    # Anybody may have written eval_results.json: a claim may be text.
    if not (isinstance(measured, float) and isinstance(claimed, int | float)):
        return bool(claimed == measured)
    if place[-1] == "p_value":
        return abs(min(claimed, NO_EVIDENCE) - min(measured, NO_EVIDENCE)) <= P_TOLERANCE
    most = DRIFT_TOLERANCE if str(place[1]).startswith("drift") else tolerance
    return abs(claimed - measured) <= most * (1 if place[-1] in evaluation.SCORES else WIDER)


def _equal(name: str, claimed: Any, measured: Any) -> Check:
    return Check(name, _text(claimed), _text(measured), GOOD if claimed == measured else BAD)


def _text(value: Any, digits: int | None = None) -> str:
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}f}"
    # Anybody may have written a card: what it claims may be a number of thousands of digits, or a book.
    return "none" if value is None else value[:200] if isinstance(value, str) else shown(value)
