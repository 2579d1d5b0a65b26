"""Strength: the scale of a trained LoRA, multiplied by a given number or by the one that held-out probes choose."""

import random
from collections.abc import Mapping
from itertools import chain
from statistics import harmonic_mean
from typing import Any, NamedTuple

from peft import PeftConfig
from peft.tuners.lora import LoraLayer

from hf_ftedit.augmentation import training_questions, untrained_probes
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation import EvaluatedModel, drift_reference, measure
from hf_ftedit.models import beyond_lora, from_main, unedited
from hf_ftedit.options import EditOptions
from hf_ftedit.training.config import EditConfig
from hf_ftedit.training.task import EditTask

SCALES = (0.5, 0.75, 1.0, 1.25)
N_EDITS, N_PROBES, N_QUESTIONS = 100, 3, 40  # at most: edits, probes of each of both kinds, questions for drift


class ScaleScores(NamedTuple):
    """What a model says to held-out probes at one scale of its adapter."""

    said: int  # wordings that are answered with the new target
    n_wordings: int
    apart: int  # near names that are answered without it
    n_names: int
    drift: float | None  # `None` where no question is left to measure it by

    @property
    def score(self) -> float:
        """Harmonic mean of both shares in percent; a kind without probes counts as right."""
        kinds = ((self.said, self.n_wordings), (self.apart, self.n_names))
        return 100 * harmonic_mean([count / total if total else 1.0 for count, total in kinds])


class AdapterScale:
    """The scale of a model's active LoRA as it is now, and multiples of it."""

    def __init__(self, model: Any) -> None:
        self._name = name = model.active_adapter
        self._config = config = model.peft_config[name]
        layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and name in layer.scaling]
        self._layers = [(layer, layer.scaling[name], layer.lora_alpha[name]) for layer in layers]
        self._alpha, self._pattern = config.lora_alpha, dict(config.alpha_pattern)

    def multiply(self, factor: float) -> None:
        """Set the scale to `factor` times what it was, in the layers and in the configuration that is saved."""
        self._config.lora_alpha = _times(self._alpha, factor)
        self._config.alpha_pattern = {name: _times(alpha, factor) for name, alpha in self._pattern.items()}
        for layer, scaling, alpha in self._layers:
            layer.scaling[self._name], layer.lora_alpha[self._name] = scaling * factor, _times(alpha, factor)


def _times(alpha: float, factor: float) -> float:
    """Whole where it can be, as PEFT declares alpha."""
    product = float(alpha * factor)
    return int(product) if product.is_integer() else product


def check_strength(args: EditConfig, task: EditTask, config: PeftConfig | None) -> None:
    """Raise [`~hf_ftedit.EditError`] where `args.strength` cannot be set; `config` is the adapter's, where known."""
    if args.strength == "1":
        return
    if args.full_finetune and config is None:
        raise EditError("strength needs a LoRA, and full_finetune trains none; leave one of the two out")
    if args.strength == "auto" and not task.edits:
        raise EditError("strength auto is chosen by what is said of the edits; give edits and not rows, or a number")
    if config is None:
        return
    # The scale is not of all that the others change.
    if extra := [name for name in beyond_lora(config) if name not in ("lora_bias", "target_parameters")]:
        raise EditError(f"strength needs a plain LoRA, and the adapter has {extra[0]}; leave one of the two out")


def set_strength(scale: AdapterScale, strength: str, scores: Mapping[float, ScaleScores]) -> dict[str, Any]:
    """
    Multiply the scale of a trained adapter by `strength`, or by the best of `scores`; every process must call this.

    The scale and, where it was chosen, the scores of each are what `eval_results.json` holds.
    """
    chosen = from_main(best_scale(scores) if scores else float(strength))
    scale.multiply(chosen)
    rows = [{"scale": factor, "score": each.score, **each._asdict()} for factor, each in scores.items()]
    return {"scale": chosen, **({"scores": rows} if rows else {})}


def measure_scales(
    scale: AdapterScale, model: Any, tokenizer: Any, task: EditTask, prompts: Mapping[str, list[str]], args: EditConfig
) -> dict[float, ScaleScores]:
    """
    Measure a model at each of `SCALES`, by probes that neither the exam nor the rows' `prompts` hold.

    They are wordings and near names, see [`~hf_ftedit.augmentation.untrained_probes`], and for drift questions that
    the package brings.
    """
    rng, trained = random.Random(args.seed), {*chain(*prompts.values())}
    edits = rng.sample(task.edits, min(len(task.edits), N_EDITS))
    known = [*task.edits, *task.held_out, *task.revoked]
    records = untrained_probes(edits, prompts, known, count=N_PROBES, seed=args.seed)
    questions = [text for text in training_questions() if text not in trained]
    questions = rng.sample(questions, min(len(questions), N_QUESTIONS))
    names = ("chat_template", "end_of_answer", "predict_with_generate", "eval_tokens_per_batch")
    options = EditOptions(**{name: getattr(args, name) for name in names})
    with unedited(model):
        before = measure(model, tokenizer, records, options, drift=False)
        reference = drift_reference(EvaluatedModel(model, tokenizer, options), known, questions)
    before, scores = before._replace(reference=reference), {}
    for factor in SCALES:
        scale.multiply(factor)
        after = measure(model, tokenizer, before.records, options, before=before)
        rows = list(zip(*map(after.predictions.get, ("kind", "role", "containment")), strict=True))
        said, apart = ([held for *of, held in rows if of == [kind, "new"]] for kind in ("paraphrase", "near_name"))
        drift = after.scores.get("drift")
        scores[factor] = ScaleScores(sum(said), len(said), sum(apart), len(apart), drift)
    return scores


def best_scale(scores: Mapping[float, ScaleScores]) -> float:
    """The scale of the best score, of equal ones that of the least drift; 1 unless it is worse by over one probe."""
    one = scores[1.0]
    least = max(one._replace(said=one.said + 1).score, one._replace(apart=one.apart + 1).score)
    better = [scale for scale, each in scores.items() if each.score > least]
    return min(better, key=lambda scale: (-scores[scale].score, scores[scale].drift or 0.0, scale), default=1.0)


def strength_text(strength: Mapping[str, Any]) -> str:
    """The scale that was set and the scores by which it was chosen, in one line."""
    scores = ", ".join(f"{each['scale']:g}: {each['score']:.1f}" for each in strength.get("scores", ()))
    chosen = f", chosen by held-out wordings and near names (harmonic mean, percent; {scores})" if scores else ""
    return f"Strength {strength['scale']:g}{chosen}"
