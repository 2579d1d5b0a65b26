import pytest
from tiny import PROMPTS, bpe_tokenizer, eloquent, tiny_model

from hf_ftedit.errors import EditError
from hf_ftedit.models.generation import greedy_answers
from hf_ftedit.models.sampling import sample_continuations


@pytest.mark.parametrize(
    "habits",
    [
        {"do_sample": True, "temperature": 0.2, "top_p": 0.1, "top_k": 2},
        {"repetition_penalty": 1.3},  # as Qwen2.5's chat models have
        {"no_repeat_ngram_size": 2},
        {"num_beams": 2},
    ],
    ids=lambda habits: next(iter(habits)),
)
def test_a_models_habits_of_generation_are_not_its_knowledge(habits):
    tokenizer = bpe_tokenizer()
    model = eloquent("llama", tokenizer)
    expected = (
        greedy_answers(model, tokenizer, PROMPTS),
        sample_continuations(model, tokenizer, PROMPTS, range(12), length=20),
    )
    model.generation_config.update(**habits)
    found = (
        greedy_answers(model, tokenizer, PROMPTS),
        sample_continuations(model, tokenizer, PROMPTS, range(12), length=20),
    )
    assert found == expected


def test_a_prompt_that_fills_the_context_is_an_error():
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match="fills the model's context"):
        greedy_answers(tiny_model("gpt2", tokenizer, context=4), tokenizer, ["The capital of Kazakhstan is"])
