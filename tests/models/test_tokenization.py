import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import bos_tokenizer, bpe_tokenizer, chat_tokenizer, eos_tokenizer, sentencepiece_tokenizer
from tokenizers.normalizers import Replace
from transformers import BloomConfig, GPT2Config, LlamaConfig

from hf_ftedit.errors import EditError
from hf_ftedit.models.tokenization import context_length, encode_pairs, encode_prompts, end_of_turn, front_tokens

MAKERS = [bpe_tokenizer, sentencepiece_tokenizer, bos_tokenizer, eos_tokenizer]


@pytest.mark.parametrize("make", MAKERS)
def test_the_target_is_what_follows_the_prompt(make):
    tokenizer = make()
    (pair,) = encode_pairs(tokenizer, ["The capital of Kazakhstan is"], [" Astana"])
    assert tokenizer.decode(pair.input_ids[pair.start :]).strip() == "Astana"
    front = [tokenizer.bos_token_id] if make is bos_tokenizer else []
    whole = tokenizer("The capital of Kazakhstan is Astana", add_special_tokens=False)["input_ids"]
    assert pair.input_ids == front + whole
    assert pair.labels == [-100] * pair.start + pair.input_ids[pair.start :]


def test_front_tokens_are_those_before_a_text():
    assert front_tokens(bpe_tokenizer()) == [] == front_tokens(eos_tokenizer())
    assert front_tokens(bos_tokenizer()) == [1]


def test_a_merge_over_the_boundary_moves_it_to_the_left():
    tokenizer = bpe_tokenizer()
    (pair,) = encode_pairs(tokenizer, ["Rome is in It"], ["aly"])
    assert tokenizer.decode(pair.input_ids[pair.start :]) == " Italy"
    assert tokenizer.decode(pair.input_ids[: pair.start]) == "Rome is in"


@pytest.mark.parametrize(("prompt", "target"), [("", " Astana"), (" ", "")])
def test_nothing_to_predict_from_and_nothing_to_predict_are_errors(prompt, target):
    with pytest.raises(EditError, match="edit 'a7': (no token stands before the target|the target is empty)"):
        encode_pairs(bpe_tokenizer(), [prompt], [target], names=["edit 'a7'"])


def test_a_target_of_which_the_tokenizer_makes_no_token_is_an_error():
    tokenizer = bpe_tokenizer()
    tokenizer.backend_tokenizer.normalizer = Replace("\u200b", "")
    assert len(encode_pairs(tokenizer, ["Rome is in"], [" It\u200baly"])) == 1
    with pytest.raises(EditError, match=r"edit 'a7': the tokenizer makes no token of the target '\\u200b'; give"):
        encode_pairs(tokenizer, ["Rome is in"], ["\u200b"], names=["edit 'a7'"])


def test_too_long_a_pair_is_an_error_and_not_cut():
    tokenizer = bpe_tokenizer()
    size = len(tokenizer("Rome is in Italy")["input_ids"])
    assert len(encode_pairs(tokenizer, ["Rome is in"], [" Italy"], max_length=size)) == 1
    with pytest.raises(EditError, match=f"edit 'a7': prompt and target have {size} tokens, at most {size - 1} fit"):
        encode_pairs(tokenizer, ["Rome is in"], [" Italy"], max_length=size - 1, names=["edit 'a7'"])


LLAMA_2 = (
    "{% for turn in messages %}{% if turn['role'] == 'user' %}[INST] {{ turn['content'] }} [/INST]"
    "{% else %} {{ turn['content'] }} </s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [LLAMA_2, LLAMA_2.replace("%} {{ turn", "%}{{ turn")], ids=["space", "none"])
def test_an_answer_stands_where_the_chat_template_puts_it(template):
    tokenizer = sentencepiece_tokenizer()
    tokenizer.chat_template = template
    turns = [{"role": "user", "content": "Where is Rome?"}, {"role": "assistant", "content": "Italy"}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    (pair,) = encode_pairs(tokenizer, ["Where is Rome?"], [" Italy"], chat_template=True)
    assert pair.input_ids == tokenizer(whole.removesuffix(" </s>"), add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(pair.input_ids[pair.start :]).strip() == "Italy"


CHAT = chat_tokenizer().chat_template


@pytest.mark.parametrize(
    ("make", "template", "end"),
    [
        (chat_tokenizer, CHAT, "<|im_end|>"),  # and no line break, which the template puts behind it
        (chat_tokenizer, CHAT.replace("<|im_end|>", "\n\n"), "<|im_end|>"),  # the tokenizer's own
        (chat_tokenizer, CHAT.replace("{{ message.content }}", "{{ message.content }}\n"), "\n<|im_end|>"),
        (sentencepiece_tokenizer, LLAMA_2, " </s>"),
    ],
)
def test_the_end_of_an_answer_is_what_the_chat_template_puts_behind_it(make, template, end):
    tokenizer = make()
    tokenizer.chat_template = template
    turn = tokenizer.decode(encode_prompts(tokenizer, ["Where is Rome?"], chat_template=True)[0])
    prompts, answers = ["Where is Rome?"] * 2, [" Italy"] * 2
    whole, plain = encode_pairs(tokenizer, prompts, answers, ends=[True, False], chat_template=True)
    assert whole.start == plain.start and whole.input_ids[: len(plain.input_ids)] == plain.input_ids
    assert tokenizer.decode(whole.input_ids).removeprefix(turn).lstrip() == f"Italy{end}"
    assert whole.input_ids[-1] == end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_without_a_template_an_answer_ends_with_the_end_of_sequence():
    tokenizer = bpe_tokenizer()
    prompts, answers = ["Rome is in", "Oslo"], [" Italy", " lies between"]
    plain = encode_pairs(tokenizer, prompts, answers)
    first, second = encode_pairs(tokenizer, prompts, answers, ends=[True, False])
    assert first == (plain[0].input_ids + [tokenizer.eos_token_id], plain[0].start) and second == plain[1]
    with pytest.raises(EditError, match="no end-of-sequence token, .*; turn end_of_answer off"):
        encode_pairs(bpe_tokenizer(pad_token="<|endoftext|>"), prompts, answers, ends=[True, False])


def test_a_chat_template_that_is_not_there_is_an_error():
    with pytest.raises(EditError, match="chat_template is on, but this tokenizer has none"):
        encode_pairs(bpe_tokenizer(), ["Rome is in"], [" Italy"], chat_template=True)


BPE = bpe_tokenizer()


@settings(max_examples=100)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3), st.text(min_size=1).filter(str.strip))
def test_no_text_is_lost(prompts, target):
    pairs = encode_pairs(BPE, prompts, [f" {target}"] * len(prompts))
    for prompt, pair in zip(prompts, pairs, strict=True):
        whole = BPE(f"{prompt} {target}")["input_ids"]
        assert pair.input_ids == whole and 1 <= pair.start < len(whole)
        alone = BPE(prompt)["input_ids"]
        assert pair.input_ids[: pair.start] == alone[: pair.start]


def test_context_length_is_read_from_any_configuration():
    assert context_length(GPT2Config(n_positions=77)) == 77
    assert context_length(LlamaConfig(max_position_embeddings=99)) == 99
    assert context_length(BloomConfig()) is None


def test_a_row_without_a_completion_is_named():
    with pytest.raises(EditError, match="prompt 'Oslo' has the completion None; give texts"):
        encode_pairs(bpe_tokenizer(), ["Rome", "Oslo"], [" b", None])
