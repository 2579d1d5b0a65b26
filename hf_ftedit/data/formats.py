"""The public formats of edit files, recognised by their fields and turned into native rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hf_ftedit.data.fields import Fields, is_blank
from hf_ftedit.data.sources import column_name
from hf_ftedit.errors import EditError, shown
from hf_ftedit.text import counted

NativeRow = dict[str, Any]

_EASYEDIT_FIELDS = {"ground_truth", "rephrase_prompt", "rephrase", "locality_prompt", "locality", "portability"}
_KNOWN_FIELDS = (
    'native ("prompt", "target_new"), counterfact ("requested_rewrite" an object), easyedit ("prompt", "target_new", '
    '"rephrase_prompt", "locality…"), zsre ("src", "alt", "answers"), mquake ("requested_rewrite" a list), '
    'qaedit ("prompt", "target", "rephrase", "locality" a list)'
)
# Native fields that a row of another format may have beside its own.
_MORE_FIELDS = (
    *("wordings", "near_name_prompts", "portability_prompts", "generation_prompts", "reference_texts"),
    *("relation_id", "target_aliases", "erase"),
)


class Format(NamedTuple):
    """A known format: a function from a row to native rows, and its own names of native fields, for errors."""

    to_native: Callable[[Fields], Iterator[NativeRow]]
    names: dict[str, str]


def recognise(row: Mapping[str, Any], where: str) -> str:
    """Name the format that has the fields of `row`; raise [`~hf_ftedit.EditError`] where none has."""
    # By each row's fields, not once for a file: rows of several formats may stand in one.
    names = {name for name, value in row.items() if value is not None}
    if "requested_rewrite" in names:
        return "mquake" if isinstance(row["requested_rewrite"], (list, tuple)) else "counterfact"
    if "src" in names:
        return "zsre"
    if is_qaedit(row):
        return "qaedit"
    # A row with only one of the two is native too, so that the error names the field that is missing.
    if names & {"prompt", "target_new"}:
        return "easyedit" if names & _EASYEDIT_FIELDS else "native"
    raise EditError(f"{where}: the fields {shown(list(row))} are of no known format; known are {_KNOWN_FIELDS}")


def are_edits(names: Iterable[str]) -> bool:
    """Tell the columns of a table of edits from those of training rows."""
    columns = dict.fromkeys(map(column_name, names), "")
    own = columns.keys() & {"target_new", "requested_rewrite", "erase"}
    return bool(own) or {"src", "alt"} <= columns.keys() or is_qaedit(columns)


ID_FIELDS = ("edit_id", "case_id", "id")  # what names an edit, the first that a row has


def is_qaedit(row: Mapping[str, Any]) -> bool:
    """Tell an edit of QAEdit from a fact of a locality pool: both have `prompt` and `target`, but a fact no probes."""
    names = {name for name, value in row.items() if value is not None}
    return {"prompt", "target"} <= names and "target_new" not in names and bool(names & {"rephrase", "locality"})


def to_native(row: Mapping[str, Any], where: str, default_id: str, format: str) -> Iterator[NativeRow]:
    """Turn a row of a format into the native rows of its edits, not yet checked; `default_id` names one without id."""
    ids = (row[name] for name in ID_FIELDS if not is_blank(row.get(name)))
    edit_id = next(ids, default_id)
    # Of a case of several rewrites, nothing says which one they would be of.
    more = {} if format == "mquake" else {name: row[name] for name in _MORE_FIELDS if name in row}
    for native in FORMATS[format].to_native(Fields({**row, "edit_id": edit_id}, where)):
        yield {"edit_id": edit_id, **more, **native}


def flat(value: Any) -> list[Any]:
    """All items of a value, of lists in it, and so on; blanks are left out."""
    items, stack = [], [value]
    # A stack, not recursion: a hostile file nests deeper than Python's limit.
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend(reversed(item))
        elif not is_blank(item):
            items.append(item)
    return items


def _native(fields: Fields) -> Iterator[NativeRow]:
    yield dict(fields.values)


def _counterfact(fields: Fields) -> Iterator[NativeRow]:
    native = _rewrite(fields.object("requested_rewrite"))
    near = [value for _, value in fields.items("neighborhood_prompts")]
    # Its neighborhood prompts ask for the same relation of subjects with the same old answer (Meng et al. 2022).
    relation = {"target": native["target_true"], "relation_id": native["relation_id"]}
    yield {
        **native,
        "paraphrase_prompts": fields.values.get("paraphrase_prompts"),
        "neighborhood_prompts": [{"prompt": one, **relation} if isinstance(one, str) else one for one in near],
    }


def _rewrite(fields: Fields) -> NativeRow:
    native = {name: fields.values.get(name) for name in ("prompt", "subject", "relation_id")}
    for name in ("target_new", "target_true"):
        target = fields.values.get(name)
        native[name] = target.get("str") if isinstance(target, Mapping) else target
    return native


def _easyedit(fields: Fields) -> Iterator[NativeRow]:
    row = fields.values
    near = _answered(fields, "locality_prompt", "locality_ground_truth")
    near = [{**probe, "relation_id": row.get("relation_id")} for probe in near]
    near += [{"prompt": probe["prompt"], "target": _first(probe["answers"])} for probe in _grouped(fields, "locality")]
    # KnowEdit has questions without an answer: nothing can be measured by them.
    further = [probe for probe in _grouped(fields, "portability") if probe["answers"]]
    yield {
        **row,
        "target_true": row.get("target_true") or _first(row.get("ground_truth")),
        "paraphrase_prompts": flat([row.get("paraphrase_prompts"), row.get("rephrase_prompt"), row.get("rephrase")]),
        "neighborhood_prompts": flat([row.get("neighborhood_prompts"), near]),
        "portability_prompts": flat([row.get("portability_prompts"), further]),
    }


def _answered(fields: Fields, prompts: str, answers: str) -> list[NativeRow]:
    """Prompts with their targets: one for each, or one for all; several for one prompt are names of one thing."""
    texts, targets = flat(fields.values.get(prompts)), flat(fields.values.get(answers))
    if len(texts) == 1 or not targets:
        targets = targets[:1] or [None]
    if len(targets) == 1:
        targets *= len(texts)
    if len(targets) != len(texts):
        numbers = f"{counted(len(targets), 'answer')} for {counted(len(texts), 'prompt')}"
        raise fields.error(answers, f"has {numbers}", "give one for each prompt")
    return [{"prompt": prompt, "target": target} for prompt, target in zip(texts, targets, strict=True)]


def _grouped(fields: Fields, name: str) -> Iterator[NativeRow]:
    """KnowEdit's probes, which stand in lists by aspect."""
    if is_blank(fields.values.get(name)):
        return
    aspects = fields.object(name)
    for aspect in aspects.values:
        for probe in (each.values for each in aspects.objects(aspect)):
            yield _portability(probe.get("prompt"), flat(probe.get("ground_truth")), str(aspect).lower())


def _portability(prompt: Any, answers: list[Any], aspect: str) -> NativeRow:
    return {"prompt": prompt, "answers": answers, "aspect": aspect}


def _zsre(fields: Fields) -> Iterator[NativeRow]:
    row = fields.values
    native = {
        "prompt": row.get("src"),
        "subject": row.get("subject"),
        "target_new": row.get("alt"),
        "target_true": _first(row.get("answers")),
        "paraphrase_prompts": flat(row.get("rephrase")),
        "neighborhood_prompts": _questions(fields),
    }
    if not is_blank(row.get("portability")):
        hop = fields.object("portability").values
        native["portability_prompts"] = [_portability(hop.get("New Question"), flat(hop.get("New Answer")), "one_hop")]
    yield native


def _qaedit(fields: Fields) -> Iterator[NativeRow]:
    row = fields.values
    # It is put together from several sets of questions, each with numbers of its own.
    source = "" if is_blank(row.get("source")) else f"{row['source']}-"
    yield {
        "edit_id": f"{source}{row['edit_id']}",
        "prompt": row.get("prompt"),
        "subject": row.get("subject"),
        "target_new": row.get("target"),
        "paraphrase_prompts": flat(row.get("rephrase")),
        "neighborhood_prompts": [probe for near in fields.objects("locality") for probe in _questions(near)],
    }


def _questions(fields: Fields) -> list[NativeRow]:
    """Questions of `loc` with their answers, without the mark that the zsRE sets put before Natural Questions."""
    probes = _answered(fields, "loc", "loc_ans")
    for probe in probes:
        if isinstance(probe["prompt"], str):
            probe["prompt"] = probe["prompt"].removeprefix("nq question: ")
    return probes


def _mquake(fields: Fields) -> Iterator[NativeRow]:
    row = fields.values
    rewrites = fields.objects("requested_rewrite")
    if not rewrites:
        raise fields.error("requested_rewrite", "is empty", "give at least one rewrite")
    answers = flat([row.get("new_answer"), row.get("new_answer_alias")])
    further = [_portability(question, answers, "multi_hop") for question in flat(row.get("questions"))]
    # Other names of a rewrite's target stand only in the single hop that has the rewrite's question.
    aliases: dict[str, list[Any]] = {}  # by the question, which may be of any type in a file that is damaged
    for hop in (hop.values for hop in fields.objects("new_single_hops")):
        names = flat([hop.get("answer"), hop.get("answer_alias")])
        further.append(_portability(hop.get("question"), names, "single_hop"))
        aliases[str(hop.get("question"))] = names[1:]
    for position, rewrite in enumerate(rewrites):
        question = rewrite.values.get("question")
        yield {
            **_rewrite(rewrite),
            "edit_id": f"{row['edit_id']}-{position}",
            "paraphrase_prompts": flat(question),
            # They are of the whole case, not of one rewrite: measured once.
            "portability_prompts": [] if position else further,
            "target_aliases": aliases.get(str(question)),
        }


def _first(value: Any) -> Any:
    return next(iter(flat(value)), None)


_REWRITE_NAMES = {
    name: f"requested_rewrite.{name}" for name in ("prompt", "subject", "relation_id", "target_new", "target_true")
}
FORMATS = {
    "native": Format(_native, {}),
    "counterfact": Format(_counterfact, _REWRITE_NAMES),
    "easyedit": Format(_easyedit, {"target_true": "ground_truth"}),
    "zsre": Format(_zsre, {"prompt": "src", "target_new": "alt", "target_true": "answers"}),
    "mquake": Format(_mquake, _REWRITE_NAMES),
    "qaedit": Format(_qaedit, {"target_new": "target"}),
}
