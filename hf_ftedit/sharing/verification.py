"""Published edits, measured again: each claim with what was found and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hf_ftedit.data import is_hub_dataset, read_texts
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation import SCORES, load_checked, measure, results_of
from hf_ftedit.hub import (
    CARD_FILE,
    FETCHED,
    SavedEdits,
    base_of,
    changed_files,
    check_base,
    fetch_folder,
    metadata_of,
    read_edit_folder,
    read_recipe,
)
from hf_ftedit.models import check_adapter, load_adapter, unedited
from hf_ftedit.options import PROVENANCE, EditOptions
from hf_ftedit.training import options_of, quantization_of

GOOD, BAD, OPEN = "ok", "DIFFERS", "not checked"


class Check(NamedTuple):
    """
    One claim of published edits.

    Args:
        what (`str`):
            What it is about: `"after: efficacy"`, `"edits.jsonl"`.
        claim (`str`):
            What is stated.
        found (`str`):
            What was measured.
        verdict (`str`):
            `"ok"`, `"DIFFERS"`, or `"not checked"`, which is no failure.
    """

    what: str
    claim: str
    found: str
    verdict: str


class Verification(NamedTuple):
    """
    What became of the claims.

    Args:
        checks (`list[Check]`):
            All of them.
        revision (`str`, *optional*):
            The commit that was verified, of edits from the Hub.
    """

    checks: list[Check]
    revision: str | None

    @property
    def passed(self) -> bool:
        """Whether no claim differs from what was found."""
        return all(check.verdict != BAD for check in self.checks)


def verify(
    name: str,
    *,
    revision: str | None = None,
    base_model: str | None = None,
    tolerance: float = 1.0,
    trust_remote_code: bool = False,
    token: str | None = None,
) -> Verification:
    """
    Check published edits: the files' SHA-256, the card's numbers, and the scores, which are measured again.

    The unedited and the edited model are asked all probes of the published `edits.jsonl`, in the precision and with
    the settings of `edit_config.yaml`.

    Args:
        name (`str`):
            Hub id or folder.
        revision (`str`, *optional*):
            Branch, tag or commit.
        base_model (`str`, *optional*):
            The base model, where it is not the recorded one.
        tolerance (`float`, *optional*, defaults to `1.0`):
            Most that a measured score may differ from the published one, in points: other hardware rounds otherwise.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Run code that the base model's repository brings.
        token (`str`, *optional*):
            Token of the Hub; the one of `hf auth login` by default.

    Raises:
        [`~hf_ftedit.EditError`]: there are no such edits, or they or their base model cannot be loaded.

    Example:
    ```python
    verification = verify("user/my-edits")
    print(verification.passed, [check.what for check in verification.checks if check.verdict == "DIFFERS"])
    ```
    """
    folder = fetch_folder(name, FETCHED, revision=revision, token=token)
    files = read_recipe(folder, name)[PROVENANCE]["files"]
    fetch_folder(name, tuple(files), revision=revision, token=token)  # a whole model's names were not known before
    checks = list(_file_checks(folder, files))
    try:
        told = read_edit_folder(folder, name)
        checks += _card_checks(told)
        how = {"trust_remote_code": trust_remote_code, "token": token}
        found, is_hidden = _measured(told, name, base_model, how)
        checks += _score_checks(told.results, found, tolerance, is_hidden)
    except EditError as error:
        if all(check.verdict != BAD for check in checks):
            raise
        checks.append(Check("scores", "measured again", str(error), BAD))  # what was damaged may not even load
    return Verification(checks, None if Path(name).is_dir() else folder.name)


def _measured(
    told: SavedEdits, name: str, base_model: str | None, loading: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Scores without and with the edits, and whether there are texts that only their author has."""
    options = options_of(told.recipe)
    texts, is_hidden = _texts(options)
    how: dict[str, Any] = {"texts": texts, "seed": told.recipe.get("seed", 42)}
    found = {}
    for when, model, tokenizer in _models(told, name, base_model, options, loading):
        found[when] = measure(model, tokenizer, told.records, options, desc=f"Measuring {when}", **how)
    return results_of(found), is_hidden


def _models(
    told: SavedEdits, name: str, base_model: str | None, options: EditOptions, loading: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """The unedited model, then the edited one, each with its tokenizer; of whole models one at a time."""
    source, revision = base_of(told.path, told, base_model)
    how: dict[str, Any] = {
        "chat_template": options.chat_template,
        "dtype": told.recipe.get("dtype", "float32"),
        "quantization_config": quantization_of(told.recipe),
        **loading,
    }
    if told.is_adapter:
        check_adapter(told.path, name)
    model, tokenizer = load_checked(source, told.records, revision=revision, **how)
    check_base(model, told.provenance, name)
    if told.is_adapter:
        adapted = load_adapter(model, told.path)
        with unedited(adapted):
            yield "before", adapted, tokenizer
        yield "after", adapted, tokenizer
    else:
        yield "before", model, tokenizer
        del model
        yield "after", *load_checked(str(told.path), told.records, **how)


def _file_checks(folder: Path, files: Mapping[str, str]) -> Iterator[Check]:
    """Each file against its SHA-256; the card may be edited by hand, as its numbers are compared."""
    changed = changed_files(folder, files)
    if not files:
        yield Check("edit_config.yaml", "SHA-256 of every file", "none", BAD)
    for name, stated in files.items():
        digest = changed.get(name, stated)
        verdict = GOOD if name not in changed else (OPEN if name == CARD_FILE and digest else BAD)
        found = f"sha256 {digest[:12]}" if digest else "missing"
        yield Check(name, f"sha256 {str(stated)[:12]}", found, verdict)


def _card_checks(told: SavedEdits) -> Iterator[Check]:
    """What the metadata of the card says against `eval_results.json`."""
    path = told.path / CARD_FILE
    try:
        metadata = metadata_of(path.read_text(encoding="utf-8"))
        results = metadata["model-index"][0]["results"]
        values = {metric["type"]: metric["value"] for result in results for metric in result["metrics"]}
    except (OSError, ValueError, KeyError, IndexError, TypeError, yaml.YAMLError):
        yield Check("card: model-index", "scores", "none that can be read", BAD)
        return
    expected = {name: told.results["after"].get(name) for name in SCORES}
    for name, value in {**dict.fromkeys(values), **expected}.items():
        claim, found = values.get(name), None if value is None else round(value, 2)
        if claim is not None or found is not None:
            yield Check(
                f"card: {SCORES.get(name, name)}", _number(claim), _number(found), GOOD if claim == found else BAD
            )
    if "base_model" in metadata:
        claim, found = metadata["base_model"], told.recipe.get("model_name_or_path")
        yield Check("card: base model", str(claim), str(found), GOOD if claim == found else BAD)


def _score_checks(
    claimed: Mapping[str, Any], found: Mapping[str, Any], tolerance: float, is_hidden: bool
) -> Iterator[Check]:
    """Published scores against measured ones."""
    for what in ("protocol", "n_edits"):
        yield Check(what, str(claimed.get(what)), str(found[what]), GOOD if claimed.get(what) == found[what] else BAD)
    for when in ("before", "after"):
        for name, label in SCORES.items():
            claim, value = claimed[when].get(name), found[when].get(name)
            if claim is None and value is None:
                continue
            verdict = GOOD if _close(claim, value, tolerance) else BAD
            if name == "perplexity" and is_hidden:
                verdict = OPEN
            yield Check(f"{when}: {label}", _number(claim), _number(value), verdict)


def _close(claim: Any, found: Any, tolerance: float) -> bool:
    numbers = isinstance(claim, (int, float)) and isinstance(found, (int, float))
    return numbers and abs(claim - found) <= tolerance


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else ("none" if value is None else str(value))


def _texts(options: EditOptions) -> tuple[list[str], bool]:
    """Texts for perplexity, and whether there are some that only their author has."""
    name = options.perplexity_texts
    if name is None:
        return [], False
    return (read_texts(name), False) if is_hub_dataset(name) else ([], True)
