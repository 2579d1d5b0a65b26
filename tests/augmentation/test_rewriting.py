"""Rewrites of a prompt by a model: which of them may ask the same."""

import pytest

from hf_ftedit.augmentation.rewriting import REWRITE_TOKENS, _shown, rewrites
from hf_ftedit.data import EditRecord
from hf_ftedit.models import encode_prompts
from tests.tiny import chat_tokenizer, tiny_model


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
    monkeypatch.setattr("hf_ftedit.augmentation.rewriting.room", lambda model, ids: 100)
    monkeypatch.setattr(
        "hf_ftedit.augmentation.rewriting.sample_continuations", lambda m, t, prompts, *_, **__: [prompts[0] + text]
    )
    record = EditRecord("a", prompt, "Bo", subject=subject)
    assert rewrites(None, None, [record], 1, 0) == [[text] if is_kept else []]


def test_a_prompt_without_room_to_be_rewritten_has_no_rewrites(monkeypatch):
    monkeypatch.setattr("hf_ftedit.augmentation.rewriting._may_ask_the_same", lambda text, record: True)
    tokenizer = chat_tokenizer()
    short, long = (EditRecord(text, text, "Al", subject="Bo") for text in ("Who is Bo?", "Who is Bo?" * 20))
    (size,) = map(len, encode_prompts(tokenizer, [_shown(short.prompt)]))
    model = tiny_model("llama", tokenizer, context=size + REWRITE_TOKENS)
    assert rewrites(model, tokenizer, [long], 2, 0) == [[]]
    (written,) = rewrites(model, tokenizer, [short], 2, 0)
    assert written and rewrites(model, tokenizer, [short, long], 2, 0) == [written, []]
