from collections import Counter

from hf_ftedit.augmentation.questions import drift_prompts, training_questions


def test_a_tenth_of_each_sort_is_held_out():
    trained = training_questions()
    prompts = drift_prompts()
    assert (len(trained), len(prompts)) == (360, 40)
    assert not trained.keys() & prompts.keys()
    assert Counter(trained.values()) == {
        "facts": 108, "instructions": 63, "sums": 36, "smalltalk": 45, "definitions": 45, "code": 27, "advice": 36
    }  # fmt: skip
