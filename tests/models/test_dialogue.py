import pytest
from tiny import CHAT_TEMPLATE, chat_tokenizer

from hf_ftedit.errors import EditError
from hf_ftedit.models.dialogue import SYSTEM, takes, turns
from hf_ftedit.models.tokenization import encode_pairs, encode_prompts

TURNS = CHAT_TEMPLATE[: CHAT_TEMPLATE.index("{% if add_generation_prompt")]
THOUGHT = "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message.content"
PARTS = TURNS.replace("message.content", "message.content[0]['text']")
FIRST = "{% if messages[0].role != 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
TEMPLATES = {
    "as a whole": (CHAT_TEMPLATE, {}),
    "a thought is begun": (CHAT_TEMPLATE.replace("assistant\n", "assistant\n<think>\n"), {}),
    "no thought": (TURNS.replace("{{ message.content", THOUGHT), {}),
    "a channel": (
        TURNS.replace("\n", "{% if message.role == 'assistant' %}<|channel|>final{% endif %}<|message|>", 1)
        + "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",
        {},
    ),
    "no prompt for a generation": (TURNS, {}),
    "content in parts": (PARTS, {"in_parts": True}),
    "content in parts, else nothing": (
        TURNS.replace("{{ message.content }}", "{% for part in message.content %}{{ part.text }}{% endfor %}"),
        {"in_parts": True},
    ),
    "needs a system turn": (FIRST + TURNS, {"system": True}),
    "takes the first turn for the system's": (TURNS.replace("in messages", "in messages[1:]"), {"system": True}),
    "forbids a system turn": (FIRST.replace("!=", "==") + CHAT_TEMPLATE, {}),
    "all at once": (FIRST + PARTS, {"system": True, "in_parts": True}),
    "strips": (TURNS.replace("message.content", "message.content | trim"), {}),
    "one space for each run": (TURNS.replace("message.content", "message.content.split() | join(' ')"), {}),
    "a space before": (TURNS.replace("{{ message.content", " {{ message.content"), {}),
    "lines before": (TURNS.replace("{{ message.content", "\n\n{{ message.content"), {}),
}  # fmt: skip


def dialogue(tokenizer, *texts, system=False, in_parts=False):
    roles = ["system"] * system + ["user", "assistant"]
    content = [[{"type": "text", "text": text}] if in_parts else text for text in [SYSTEM][:system] + list(texts)]
    turns = [{"role": role, "content": each} for role, each in zip(roles, content, strict=True)]
    return tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_stands_where_a_whole_dialogue_has_it(name):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template, form = TEMPLATES[name]
    prompt, answer = "Who  runs\nthe city of Astana?", "Zhenis"
    before, found, behind = dialogue(tokenizer, prompt, answer, **form).rpartition(answer)
    assert found
    settings = {"chat_template": True, "ends": [True]}
    (pair,) = encode_pairs(tokenizer, [prompt], [f" {answer}"], **settings)
    assert tokenizer.decode(pair.input_ids) == before + answer + "<|im_end|>" and behind == "<|im_end|>\n"
    assert tokenizer.decode(pair.input_ids[pair.start :]).lstrip(" ") == f"{answer}<|im_end|>"
    # Own answers begin at the same place.
    assert encode_prompts(tokenizer, [prompt], chat_template=True) == [pair.input_ids[: pair.start]]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('only tools') }}", "only tools"),
        ("{{ messages[0].content.missing.name }}", "missing"),
        (TURNS.replace("in messages", "in messages[:1]"), "the answer is not in its text"),
        (TURNS.replace("in messages", "in messages[-1:]"), "the prompt is not in its text"),
        (TURNS.replace("message.content", "message.content | upper"), "the answer is not in its text"),
        (TURNS.replace("message.content", "message.content | tojson"), "the answer is not in its text"),
        (TURNS + TURNS, "the answer is twice in its text"),
        ("{% for", "template"),
    ],
)
def test_a_template_without_a_place_for_an_answer_is_one_line(template, reason):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(
        EditError, match=f"no place for a prompt and its answer .*{reason}.*chat_template_path"
    ) as error:
        encode_pairs(tokenizer, ["Where is Rome?"], [" Italy"], chat_template=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("prompt", ["Is Astana old?", '"Astana"na" or "Astana"?', "Rome?"])
def test_a_template_may_say_the_prompt_again_behind_the_answer(prompt):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = TURNS + "You asked: {{ messages[0].content }}"
    (turn,) = turns(tokenizer, [prompt])
    before = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    assert turn == (before, "", "<|im_end|>") and dialogue(tokenizer, prompt, "Zhenis").startswith(f"{before}Zhenis")


def test_each_prompt_is_written_once():
    tokenizer, asked = chat_tokenizer(), []
    render = tokenizer.apply_chat_template
    tokenizer.apply_chat_template = lambda turns, **settings: asked.append(turns) or render(turns, **settings)
    first, _, third = turns(tokenizer, ["a", "b", "a"])
    assert first == third and len(asked) == 3  # and one to see what the template takes


BEFORE = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": 'Say "Astana".'}]
TOLD = [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize("history", [BEFORE, TOLD, TOLD + BEFORE])
@pytest.mark.parametrize("name", ["as a whole", "needs a system turn", "content in parts", "a thought is begun"])
def test_a_history_stands_before_the_prompt_as_in_a_whole_dialogue(name, history):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template, form = TEMPLATES[name]
    needs_system = form.get("system") and history is BEFORE
    first = [{"role": "system", "content": SYSTEM}] if needs_system else []
    messages = [*first, *history, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Zhenis"}]
    if form.get("in_parts"):
        messages = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages]
    before, _, _ = tokenizer.apply_chat_template(messages, tokenize=False).rpartition("Zhenis")
    alone, behind = encode_pairs(
        tokenizer, ["Who?"] * 2, ["Zhenis"] * 2, chat_template=True, histories=[[], history], ends=[True] * 2
    )
    assert tokenizer.decode(behind.input_ids) == before + "Zhenis<|im_end|>"
    assert behind.input_ids[behind.start :] == alone.input_ids[alone.start :]
    assert encode_prompts(tokenizer, ["Who?"], chat_template=True, histories=[history]) == [
        behind.input_ids[: behind.start]
    ]


@pytest.mark.parametrize(
    ("template", "system", "earlier"),
    [
        (CHAT_TEMPLATE, True, True),
        (TEMPLATES["forbids a system turn"][0], False, True),
        (TURNS.replace("in messages", "in messages[-2:]"), False, False),
        (
            TURNS.replace(
                "{{ message.content }}", "{% if message.role != 'system' %}{{ message.content }}{% endif %}"
            ),
            False,
            True,
        ),
    ],
)
def test_a_template_may_not_take_a_history(template, system, earlier):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    assert (takes(tokenizer, TOLD), takes(tokenizer, BEFORE)) == (system, earlier)
