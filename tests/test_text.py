"""What cannot be seen is named, and what looks like a secret is masked."""

import pytest

from hf_ftedit.errors import EditError
from hf_ftedit.text import counted, masked, visible, without_secrets

KEPT = [
    "می\u200cخواهم",  # Persian: "I want"
    "क्\u200dष र्\u200dय ക്\u200dഷ",
    "👩\u200d👧 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3 ©\ufe0f 👍🏽",
]


@pytest.mark.parametrize("text", KEPT)
def test_joiners_and_selectors_that_shape_something_stay(text):
    assert visible(text) == text


NAMED = [
    "Mo\u200dskva",
    "Moс\u200dква",
    "中\u200d国",
    "한\u200c국",
    "ا\u200d\u200dب",
    "👩\u200d",
    "a\ufe0f",
    "1\ufe0f2",
]


@pytest.mark.parametrize("text", [*NAMED, "👍\ufe0f\ufe0f"])
def test_those_that_nobody_sees_are_named(text):
    seen = visible(text)
    assert "[U+" in seen and visible(seen) == seen
    assert len(seen) == len(text) + 7 * seen.count("[U+")


SECRET = [
    ("argument --seed: invalid int value: 'hf_abcDEF0123'", "argument --seed: invalid int value: 'hf_***'"),
    ("hf_oauth_eyJhbGci.x", "hf_oauth_***.x"),
    ("%20hf_ABCDEF12&a=b", "%20hf_***&a=b"),
    ("'https://ann:pa55@huggingface.co/x': no such", "'https://***@huggingface.co/x': no such"),
    ("https://hf_abcdefgh@h.co/x", "https://***@h.co/x"),
    ("ann:pa55@h.co/x is", "***@h.co/x is"),
    ("--token=abc --n 1", "--token=*** --n 1"),
    ("--hub_token abc --n 1", "--hub_token *** --n 1"),
    ("--wandb-api-key abc", "--wandb-api-key ***"),
    ("hub_token: abc\nseed: 1", "hub_token: ***\nseed: 1"),
    ('{"password": "a b", "seed": 1}', '{"password": ***, "seed": 1}'),
    ("f(secret='a b', n=1)", "f(secret=***, n=1)"),
    ('{"hub_token":"abc","seed":1}', '{"hub_token":***,"seed":1}'),
    ("{'Authorization': 'Bearer abc.d', 'n': 1}", "{'Authorization': 'Bearer ***', 'n': 1}"),
    ("hub_token => abc", "hub_token => ***"),
    ("AWS_SECRET_ACCESS_KEY=abc", "AWS_SECRET_ACCESS_KEY=***"),
]


@pytest.mark.parametrize(("text", "shown"), SECRET)
def test_secrets_are_masked(text, shown):
    assert masked(text) == shown and masked(shown) == shown
    assert str(EditError(text)) == " ".join(shown.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "{'mean_token_accuracy': 0.9, 'num_tokens': 12.0}",
        "eval_tokens_per_batch is 0: give 1 or more",
        "unknown eos_token '<|end|>'; the tokenizer: none",
        "argument --hub_token: expected one argument",
        "Turkey: Ankara. KeyError: 'x'. monkey=1",
        "HF_DATASETS_CACHE=/data hf_ftedit.cli.app hf_hub_download",
        "ann@x.org, 10:30 @home, https://huggingface.co/user/name@main",
        "hub_token=None",
        "The bearer of the basic training is Rome",
    ],
)
def test_what_is_no_secret_is_left(text):
    assert masked(text) == text


def test_settings_without_secrets():
    settings = {"hub_token": "abc", "seed": 1, "a": [{"api_key": "k", "token": None}, "hf_abcdefgh"], "b": ("x",)}
    assert without_secrets(settings) == {
        **{"hub_token": "***", "seed": 1, "a": [{"api_key": "***", "token": None}, "hf_***"], "b": ("x",)}
    }


def test_one_thing_has_no_plural():
    assert [counted(number, "edit") for number in (0, 1, 2)] == ["0 edits", "1 edit", "2 edits"]
