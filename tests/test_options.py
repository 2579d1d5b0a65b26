import numpy as np
import pytest

from hf_ftedit.errors import EditError
from hf_ftedit.options import EditOptions


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
        ({"max_edits": 10**30}, "max_edits is 1000000000000000000000000000000: give a number of usual size"),
        ({"max_edits": True}, "max_edits is True: give a whole number"),
        ({"lora_layers": ["1"]}, r"lora_layers is \['1'\]: give a list, each a whole number"),
        ({"edits": ""}, "edits is '': give text, or leave it out"),
        ({"edits": False}, 'edits is False: give text, in YAML in quotes: "no"'),
        ({"revoke": [1]}, r"revoke is \[1\]: give a list, each text"),
        ({"num_locality": None}, "num_locality is None: give a whole number"),
        ({"skip_invalid": "yes"}, "skip_invalid is 'yes': give True or False"),
        ({"mastered_probability": 0}, "mastered_probability is 0: give a number between 0 and 1"),
        ({"mastered_probability": -0.1}, "mastered_probability is -0.1: give a number between 0 and 1"),
        ({"prefix_top_k": -1}, "prefix_top_k is -1: give 0 or more"),
    ],
)
def test_a_value_that_cannot_be_is_an_error(settings, message):
    with pytest.raises(EditError, match=message):
        EditOptions(**settings)


def test_the_home_folder_is_written_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = EditOptions(edits="~/edits.jsonl", rewriter="a~/b")
    assert (options.edits, options.rewriter) == (str(tmp_path / "edits.jsonl"), "a~/b")


def test_texts_and_a_chat_are_refused_with_a_remedy_that_works():
    with pytest.raises(EditError, match="training_texts and chat_template True do not go together; leave one of them"):
        EditOptions(chat_template=True, training_texts="texts.jsonl")


def test_paths_and_values_of_numpy_become_pythons(tmp_path):
    options = EditOptions(edits=tmp_path, max_edits=np.int64(2), strength=np.float32(0.5), lora_layers=(0, 1))
    assert (options.edits, options.max_edits) == (str(tmp_path), 2)
    assert (options.strength, options.lora_layers) == ("0.5", [0, 1])
    assert type(options.max_edits) is int


def test_rows_for_chat_models_need_no_prefixes():
    assert EditOptions(num_paraphrases=40, chat_template=True).num_paraphrases == 40
