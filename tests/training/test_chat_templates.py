"""Templates that a model is given, and templates with today's date."""

import datetime
import shutil

import pytest
from tiny import CHAT_TEMPLATE, bpe_tokenizer, chat_tokenizer, saved, tiny_model
from tiny_edits import EDITS, config, outspoken

from hf_ftedit import EditDatasetBuilder, EditError, EditOptions, EditTrainer, load_edited_model, verify
from hf_ftedit.cli import main
from hf_ftedit.models import dialogue
from hf_ftedit.models.dialogue import plain_template, prepare_tokenizer, turns

PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
PLAIN += "{% if add_generation_prompt %}[assistant] {% endif %}"
DATED = "Today: {{ strftime_now('%d %b %Y') }}, {{ strftime_now('%B %-d (%A), %H:%M') }}\n" + CHAT_TEMPLATE
CHAT = {"chat_template": True, "max_steps": 2, "num_locality": 0, "num_paraphrases": 0, "strength": "1"}


@pytest.fixture
def on_day(monkeypatch):
    def today_is(number):
        day = type("Day", (datetime.date,), {"today": classmethod(lambda cls: cls(2026, 1, number))})
        monkeypatch.setattr(dialogue, "date", day)

    today_is(1)
    return today_is


def speaker(folder, tokenizer):
    """A folder with a model that can learn, and its tokenizer."""
    return saved(folder, outspoken(tiny_model("qwen3", tokenizer)), tokenizer)


def text_of(trainer):
    return trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])


def test_a_base_model_is_given_a_template_before_its_rows_are_made(tmp_path, capsys):
    base, file = speaker(tmp_path / "base", bpe_tokenizer()), tmp_path / "plain.jinja"
    file.write_text(PLAIN)
    args = config(tmp_path / "out", chat_template_path=str(file), **CHAT)
    trainer = EditTrainer(base, args, train_dataset=EDITS[:1])
    assert text_of(trainer).startswith("[user] The capital of Kazakhstan is\n[assistant] Astana")
    assert trainer.processing_class.chat_template == PLAIN and trainer.args.chat_template_path == str(file)
    trainer.train()
    trainer.save_model()
    out = tmp_path / "out"
    assert (out / "chat_template.jinja").read_text() == PLAIN
    assert trainer.recipe["chat_template_path"] == "chat_template.jinja"
    assert r"text = '[user] The capital of Kazakhstan is\n[assistant]'" in (out / "README.md").read_text()
    assert "\nhf-ftedit verify . --trust_remote_code\n" in (out / "README.md").read_text()
    # Whoever reads the folder runs somebody's template only where it is said.
    with pytest.raises(EditError, match="brings its own chat template.*trust_remote_code"):
        verify(str(out), base_model=base)
    found = verify(str(out), base_model=base, trust_remote_code=True)
    assert found.passed, found.checks
    assert load_edited_model(str(out), base_model=base)[1].chat_template == PLAIN
    edits = ["--edits", str(out / "edits.jsonl"), "--model_name_or_path", base]
    assert main(["evaluate", *edits, "--adapter", str(out)]) == 2
    assert "chat_template.jinja" in capsys.readouterr().err
    assert main(["evaluate", *edits, "--adapter", str(out), "--trust_remote_code"]) == 0


def test_rows_for_a_chat_model_are_not_trained_without_its_template(tmp_path):
    tokenizer = chat_tokenizer()
    model, options = tiny_model("llama", tokenizer), config(tmp_path, num_locality=0)
    rows = EditDatasetBuilder(EDITS, model, tokenizer, options=options, chat_template=True)
    with pytest.raises(EditError, match="rows for a chat model, and chat_template is not set; set it"):
        EditTrainer(model, options, train_dataset=rows, processing_class=tokenizer)


def test_the_template_of_another_tokenizer_is_taken_where_the_model_has_its_tokens(tmp_path):
    chat = chat_tokenizer()
    chat.save_pretrained(tmp_path / "chat")
    options = EditOptions(chat_template=True, chat_template_path=str(tmp_path / "chat"))
    with pytest.raises(EditError, match=r"needs '<\|im_(start|end)\|>', which is no token of this model"):
        prepare_tokenizer(bpe_tokenizer(), options)
    mine = chat_tokenizer()
    mine.chat_template, mine.eos_token = None, "<|endoftext|>"
    prepare_tokenizer(mine, options)
    assert mine.chat_template == CHAT_TEMPLATE and mine.eos_token == "<|im_end|>" == options.eos_token
    for path, reason in ((tmp_path / "no.jinja", "cannot be read"), (tmp_path / "none", "no chat template")):
        bpe_tokenizer().save_pretrained(tmp_path / "none")
        with pytest.raises(EditError, match=f"chat_template_path .*{reason}"):
            prepare_tokenizer(chat_tokenizer(), EditOptions(chat_template_path=str(path)))


def test_the_end_of_sequence_is_set_before_rows_are_made(tmp_path):
    base = speaker(tmp_path / "base", chat_tokenizer())
    settings = {"end_of_answer": True, "num_locality": 0, "eos_token": "<|endoftext|>", "max_steps": 1}
    trainer = EditTrainer(base, config(tmp_path / "out", **settings), train_dataset=EDITS[:1])
    assert text_of(trainer) == "The capital of Kazakhstan is Astana<|endoftext|>"
    assert trainer.recipe["eos_token"] == "<|endoftext|>"
    with pytest.raises(EditError, match="eos_token '<none>' is not in the vocabulary"):
        prepare_tokenizer(chat_tokenizer(), EditOptions(eos_token="<none>"))


def test_the_users_tokenizer_stays_as_it_is(tmp_path, on_day):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = DATED
    model = tiny_model("llama", tokenizer)
    settings = {**CHAT, "text_loss_weight": 0.0, "eos_token": "<|endoftext|>"}
    args = config(tmp_path, **settings)
    trainer = EditTrainer(model, args, train_dataset=EDITS[:1], processing_class=tokenizer)
    assert (tokenizer.chat_template, tokenizer.eos_token) == (DATED, "<|im_end|>")
    assert trainer.processing_class.eos_token == "<|endoftext|>" and "Today: 01 Jan 2026" in text_of(trainer)


def test_a_template_tells_one_date(on_day):
    tokenizer, options = chat_tokenizer(), EditOptions(chat_template=True)
    tokenizer.chat_template = DATED
    prepare_tokenizer(tokenizer, options)
    on_day(2)
    told = "Today: 01 Jan 2026, January 1 (Thursday), 00:00\n"
    assert turns(tokenizer, ["x"])[0].before.startswith(told) and options.chat_date == "2026-01-01"
    assert plain_template(tokenizer) == DATED
    prepare_tokenizer(tokenizer, EditOptions(chat_template=True, chat_date="2027-10-09"))
    assert turns(tokenizer, ["x"])[0].before.startswith("Today: 09 Oct 2027, October 9 (Saturday)")
    # A template without one stays as it is, and so does the option.
    plain, options = chat_tokenizer(), EditOptions(chat_template=True)
    prepare_tokenizer(plain, options)
    assert plain.chat_template == CHAT_TEMPLATE and options.chat_date is None
    with pytest.raises(EditError, match="chat_date is 'tomorrow': give a date such as"):
        EditOptions(chat_date="tomorrow")


def test_a_run_is_resumed_and_verified_with_its_own_date(tmp_path, on_day, monkeypatch):
    tokenizer, out = chat_tokenizer(), tmp_path / "out"
    tokenizer.chat_template = DATED
    base = speaker(tmp_path / "base", tokenizer)
    for day in (1, 2):
        on_day(day)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / f"cache-{day}"))  # of another machine
        args = config(out, save_strategy="steps", save_steps=1, **CHAT)
        trainer = EditTrainer(base, args, train_dataset=EDITS[:1])
        assert text_of(trainer).startswith("Today: 01 Jan 2026")
        trainer.train(resume_from_checkpoint=day == 2)
        shutil.rmtree(out / f"checkpoint-{3 - day}")  # as if it had been killed at its second step
    trainer.save_model()
    assert trainer.recipe["chat_date"] == "2026-01-01" and "Today: 01 Jan" in (out / "README.md").read_text()
    found = verify(str(out), base_model=base)
    assert found.passed, found.checks
    # A whole model keeps the template as it was, which tells the date of whoever asks it.
    whole = ["--merge_into_base", "--output_dir", str(tmp_path / "whole")]
    assert main(["merge", str(out), *whole, "--model_name_or_path", base]) == 0
    assert (tmp_path / "whole" / "chat_template.jinja").read_text() == DATED
