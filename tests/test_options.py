import pytest

from hf_ftedit.errors import EditError
from hf_ftedit.options import AugmentationOptions, EditOptions


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"locality_strategy": "nearest"}, "locality_strategy is 'nearest': choose one of near, relation, similar"),
        ({"paraphrase_strategy": "all"}, "paraphrase_strategy is 'all': choose one of"),
        ({"num_locality": -1}, "num_locality is -1: give 0 or more"),
        ({"prefix_lengths": [5]}, r"prefix_lengths \[5\] and prefix_counts \[5, 10\] do not fit"),
        ({"num_paraphrases": 16}, "num_paraphrases is 16, but 15 prefixes are sampled: raise prefix_counts"),
        ({"objective": "both"}, "objective is 'both'"),
        ({"protocol": "best"}, "protocol is 'best'"),
        ({"locality_loss": "mse"}, "locality_loss is 'mse': choose one of kl, nll"),
        ({"locality_weight": -1.0}, "locality_weight is -1.0: give 0 or more"),
        ({"locality_weight": float("nan")}, "locality_weight is nan: give 0 or more"),
        ({"max_edits": 0}, "max_edits is 0: give 1 or more"),
    ],
)
def test_a_value_that_cannot_be_is_an_error(settings, message):
    with pytest.raises(EditError, match=message):
        EditOptions(**settings)


def test_defaults():
    options = AugmentationOptions()
    assert (options.paraphrase_strategy, options.num_paraphrases) == ("relation", 10)
    assert (options.locality_strategy, options.num_locality) == ("near", 20)
    assert (options.prefix_lengths, options.prefix_counts, options.prefix_top_k) == ([5, 10], [5, 10], 5)
