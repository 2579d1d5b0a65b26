"""Rewrites of a prompt by a model: which of them may ask the same."""

import pytest

from hf_ftedit.augmentation.rewriting import rewrites
from hf_ftedit.data import EditRecord


@pytest.mark.parametrize(
    ("prompt", "subject", "text", "is_kept"),
    [
        ("How often are the filters of Vell changed?", "Vell", "How often is the filter of Vell replaced?", True),
        ("Who succeeded Ann as governor of Vell?", "Vell", "Who succeeded Ann as the governor of Vell?", True),
        ("Who succeeded Ann as governor of Vell?", "Vell", "Who succeeded Bo as governor of Vell?", False),
        ("Who succeeded Ann as governor of Vell?", "Vell", "Who succeeded Ann as governor of it?", False),
        ("Is Vell vegan?", "Vell", "Can vegans eat Vell?", True),
        ("What is Vell's capital?", "Vell", "What is the capital of Vell?", True),
        ("Vell was founded by", "Vell", "Who founded Vell?", True),
        ("Where can people park at Vell?", "Vell", "Where may I park at Vell?", True),
        ("Is Vell vegan?", "Vell", "What makes Vell vegan?", False),
        ("When did Vell win the cup?", "Vell", "Did Vell win the cup?", False),
        ("When did Vell win the cup?", "Vell", "When did Vell win the 2nd cup?", False),
        ("When did Vell win the cup?", "Vell", "Vell won the cup when it", False),
    ],
)
def test_what_may_ask_the_same_is_kept(monkeypatch, prompt, subject, text, is_kept):
    monkeypatch.setattr("hf_ftedit.augmentation.rewriting.encode_prompts", lambda tokenizer, prompts: [[0]])
    monkeypatch.setattr(
        "hf_ftedit.augmentation.rewriting.sample_continuations", lambda m, t, prompts, *_, **__: [prompts[0] + text]
    )
    record = EditRecord("a", prompt, "Bo", subject=subject)
    assert rewrites(None, None, [record], 1, 0) == [[text] if is_kept else []]
