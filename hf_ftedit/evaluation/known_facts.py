"""Known facts: how many facts that no edit is about a model still knows."""

from collections.abc import Iterable, Sequence
from typing import Any

from hf_ftedit.data import EditRecord, Fact, facts_about_others
from hf_ftedit.evaluation.engine import EvaluatedModel, score_targets
from hf_ftedit.evaluation.probes import ProbedTarget
from hf_ftedit.evaluation.statistics import estimate
from hf_ftedit.models import check_tokens


def known_facts(evaluated: EvaluatedModel, facts: Sequence[Fact], records: Iterable[EditRecord]) -> dict[str, Any]:
    """
    Percent of `facts` whose target is what the model would say, token by token; every process must call this.

    Facts about a subject that one of `records` edits are left out. The result has `known_facts`, its bootstrap
    interval `known_facts_ci95`, and `n_known_facts`. Raises [`~hf_ftedit.EditError`] where no fact is left.
    """
    others = facts_about_others(facts, records)
    named = [(f"known fact {number}", f"{fact.prompt} {fact.target}") for number, fact in enumerate(others, 1)]
    chat_template = evaluated.options.chat_template
    check_tokens(evaluated.tokenizer, evaluated.model.config, named, chat_template=chat_template)
    rows = [ProbedTarget(fact.prompt, "known fact", fact.prompt, "true", fact.target) for fact in others]
    shares = 100.0 * (score_targets(evaluated._replace(desc="Known facts"), rows)[:, 1:2] == 1)
    return {**estimate("known_facts", shares), "n_known_facts": len(shares)}
