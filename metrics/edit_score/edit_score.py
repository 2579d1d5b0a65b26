"""Edit score: harmonic mean of efficacy, generalization and locality of a model edit."""

import datasets
import evaluate

from hf_ftedit.scoring import score

_DESCRIPTION = """
Measures factual edits of a causal language model: efficacy (the edited prompts), generalization (their paraphrases),
locality (neighboring facts that must stay) and their harmonic mean, the edit score. From 0 to 100, higher is better.
"""

_KWARGS_DESCRIPTION = """
Computes the edit score from predictions: one row per (probe, target), given as columns.

Args:
    edit_id (list of str): the edit that the probe belongs to.
    kind (list of str): "rewrite", "paraphrase", "neighborhood" or "portability".
    probe (list of str): the prompt.
    target (list of str): which target was scored, "new" or "true". The new one is expected after the edit for all
        probes but neighborhood ones, for which the true one is.
    logprob (list of float): mean log-probability per token of that target.
    match (list of bool): whether all its tokens are the most likely ones.
    token_accuracy (list of float): the share of its tokens that are.
    protocol (str, optional, defaults to "auto"): "probability" (a probe succeeds where the expected target is likelier
        than the other one), "accuracy" (token_accuracy of the expected target), or the one that fits the data.

Returns:
    protocol: the one that was used.
    edit_score, efficacy, generalization, locality, portability: from 0 to 100, or None where no probe tells.
    edit_score_ci95 and so on: 95 % bootstrap interval over edits.
    edit_score_note: why the edit score is undefined, else None.
    n_edits, n_probes: what was counted.
    probability, accuracy: the values of both protocols.

Examples:
    >>> metric = evaluate.load("metrics/edit_score")
    >>> result = metric.compute(
    ...     edit_id=["a"] * 6,
    ...     kind=["rewrite", "rewrite", "paraphrase", "paraphrase", "neighborhood", "neighborhood"],
    ...     probe=["Rome is in", "Rome is in", "Rome lies in", "Rome lies in", "Milan is in", "Milan is in"],
    ...     target=["new", "true", "new", "true", "true", "new"],
    ...     logprob=[-0.1, -3.0, -0.2, -2.0, -0.5, -4.0],
    ...     match=[True, False, True, False, True, False],
    ...     token_accuracy=[1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
    ... )
    >>> result["protocol"], result["edit_score"]
    ('probability', 100.0)
"""

_CITATION = """
@inproceedings{gangadhar-stratos-2024-model,
    title = "Model Editing by Standard Fine-Tuning",
    author = "Gangadhar, Govind Krishnan and Stratos, Karl",
    booktitle = "Findings of the Association for Computational Linguistics: ACL 2024",
    year = "2024",
    pages = "5907--5913",
    url = "https://aclanthology.org/2024.findings-acl.352",
}
"""

_FEATURES = {
    "edit_id": "string",
    "kind": "string",
    "probe": "string",
    "target": "string",
    "logprob": "float64",
    "match": "bool",
    "token_accuracy": "float64",
}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class EditScore(evaluate.Metric):
    """The metric; all arithmetic is in `hf_ftedit.scoring`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({name: datasets.Value(kind) for name, kind in _FEATURES.items()}),
            reference_urls=["https://arxiv.org/abs/2402.11078"],
        )

    def _compute(self, protocol: str = "auto", **predictions: list) -> dict:
        return score(predictions, protocol)
