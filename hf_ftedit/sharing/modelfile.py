"""The Modelfile by which Ollama runs an exported model, with the model's chat template in Ollama's own form."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_ftedit.models import Turn, turns

SYSTEM, PROMPT, ANSWER, AGAIN = "Sysmark", "Askmark", "Saymark", "Moremark"  # that no template says itself


def modelfile(tokenizer: PreTrainedTokenizerBase, file: str, *, chat: bool) -> str:
    """The text of a Modelfile for a GGUF `file` beside it: greedy answers, as the edits were measured."""
    lines = [f"FROM ./{file}", "PARAMETER temperature 0"]
    if chat:
        (turn,) = turns(tokenizer, [PROMPT])
        lines += [f'PARAMETER stop "{turn.end}"'] if turn.end and '"' not in turn.end else []
        # Without one, Ollama looks among those that it knows for the template in the file.
        if parts := _ollama_template(tokenizer, turn):
            template, system = parts
            lines.append(f'TEMPLATE """{template}"""')
            lines += [f'SYSTEM """{system}"""'] if system else []
    return "\n".join(lines) + "\n"


def _ollama_template(tokenizer: PreTrainedTokenizerBase, turn: Turn) -> tuple[str, str] | None:
    """The template of a turn, and the system message where none is given; `None` of what has no such form."""
    try:
        alone = _around(tokenizer, PROMPT)
        with_system = _around(tokenizer, SYSTEM, PROMPT)
        dialogue = _around(tokenizer, PROMPT, ANSWER, AGAIN)
    except Exception:  # a template is a program, which may raise whatever it likes
        return None
    # What ends an answer, and what then begins a user's turn.
    user = dialogue[2].removeprefix(turn.end).lstrip()
    end = dialogue[2].removesuffix(user)
    is_one_form = alone[1] == with_system[2] == dialogue[1] == dialogue[3] and alone[0] == dialogue[0]
    if not (turn.end and user and end.startswith(turn.end) and is_one_form and with_system[1].endswith(user)):
        return None
    # The beginning of a text is put in by whoever runs the file, where it is not that of every turn.
    front = "" if user.startswith(tokenizer.bos_token or "") else tokenizer.bos_token
    before, default = (text.removeprefix(front) for text in (with_system[0], alone[0]))
    behind, default = with_system[1].removesuffix(user), default.removesuffix(user)
    system = default.removeprefix(before).removesuffix(behind)
    if default not in ("", before + system + behind) or not alone[0].endswith(user):
        return None
    if "{{" in (whole := before + behind + user + alone[1] + end + system) or '"""' in whole:
        return None
    body = f"{{{{ if .Prompt }}}}{user}{{{{ .Prompt }}}}{alone[1]}{{{{ end }}}}{{{{ .Response }}}}{end}"
    return f"{{{{ if .System }}}}{before}{{{{ .System }}}}{behind}{{{{ end }}}}{body}", system


def _around(tokenizer: PreTrainedTokenizerBase, *texts: str) -> list[str]:
    """What stands before, between and behind these texts where a chat template puts them into turns."""
    roles = {SYSTEM: "system", ANSWER: "assistant"}
    messages: list[Any] = [{"role": roles.get(text, "user"), "content": text} for text in texts]
    settings: dict[str, Any] = {"tokenize": False, "enable_thinking": False, "add_generation_prompt": True}
    rest, parts = str(tokenizer.apply_chat_template(messages, **settings)), []
    for text in texts:
        before, _, rest = rest.partition(text)
        parts.append(before)
    return [*parts, rest]
