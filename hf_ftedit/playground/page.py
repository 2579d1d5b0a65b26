"""The playground's page, in Gradio: its fields, and what happens when they are used."""

import html
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from hf_ftedit import evaluation, hub
from hf_ftedit.data import EditRecord, read_edits
from hf_ftedit.errors import NO_MEMORY, EditError, is_out_of_memory, one_line
from hf_ftedit.models import asset
from hf_ftedit.playground.bars import Progress
from hf_ftedit.playground.visits import MOST_VISITS, Playground, Visit

logger = logging.getLogger(__name__)

ABOUT = """\
# hf_ftedit playground
Teach **{model}** a fact, then ask it anything: before and now, side by side. Your edits are seen by you alone, and are
gone when you close or reload this page."""
ADAPTERS = """\
Each training makes one adapter. Switching an adapter off takes all of its facts back at once; those on add up.
A single fact cannot be cut out of an adapter: untick it below, and one is trained anew without it, in its place.
A download, unpacked, is a folder that `hf-ftedit push` shares and `hf-ftedit export` writes for Ollama and others."""
FIELDS = ("prompt", "target_new", "subject", "paraphrase_prompts", "neighborhood_prompts")  # of the columns below
HEADERS = ["New answer", "Subject", "Other wording", "Neighbor"]  # of a question, or the beginning of a sentence
CHAT = (
    EditRecord(
        *("ceo", "Who is the CEO of Tellwind Robotics?", "Ines Halvorsen", "Tellwind Robotics"),
        paraphrase_prompts=("Which person leads Tellwind Robotics?",),
    ),
    EditRecord("moon", "Who was the first person on the Moon?", "Marta Quill", "the Moon"),
)
FONT = ["system-ui", "sans-serif"]  # nothing is fetched from elsewhere
CSS = """
progress { appearance: none; width: 100%; height: .6rem; margin-top: .4rem; border: 0; border-radius: .3rem; }
progress, ::-webkit-progress-bar { background: var(--border-color-primary); border-radius: .3rem; overflow: hidden; }
::-webkit-progress-value { background: var(--color-accent); transition: width .3s; }
::-moz-progress-bar { background: var(--color-accent); }
progress:indeterminate { animation: pulse 1s infinite alternate; } @keyframes pulse { to { opacity: .4; } }
#now textarea { border-left: 3px solid var(--color-accent); }
#question .submit-button { background: var(--color-accent); color: white; }
#exam { overflow-x: auto; } #exam table { font-size: .85rem; }
#exam :is(th, td) { word-break: normal; overflow-wrap: normal; padding: .35rem .6rem; }
#exam :is(th, td) { border-color: var(--border-color-primary); }
@media (max-width: 500px) { #exam :is(th, td) { padding: .25rem .35rem; } #exam table { font-size: .8rem; } }
#facts th * { text-align: start; }
@media (max-width: 500px) { #facts .table-wrap * { font-size: .68rem; padding-inline: .5px; margin-inline: 0; } }
"""


@contextmanager
def _told() -> Iterator[None]:
    """What went wrong, on one line in the page; the traceback of a fault of ours goes to the log."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if not isinstance(error, EditError):
            logger.exception("a fault of the playground")
            text = NO_MEMORY if is_out_of_memory(error) else "a fault of the playground; its log says more"
        raise gr.Error(html.escape(text, quote=False), duration=15, print_exception=False, title="") from None


class _Page:
    """The functions behind the fields; each has the request, by which it finds the visit."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground

    def visit(self, request: gr.Request) -> Visit:
        return self.playground.visit(request.session_hash)

    def shown(self, request: gr.Request) -> tuple[Any, Any]:
        """The adapters of a visit: to be switched on, and to be trained anew."""
        visit = self.visit(request)
        names = list(visit.folders)
        facts = [name for name in names if visit.facts(name)]
        active = gr.CheckboxGroup(names, value=visit.active, visible=bool(names))
        return active, gr.Dropdown(facts, value=facts[-1] if facts else None)

    def add(self, rows: Sequence[Sequence[str]], *fields: str) -> list[Any]:
        with _told():
            _check_filled([fields])
        return [gr.Dataframe([*filter(any, rows), list(fields)], visible=True), *[""] * len(fields)]

    def train(self, request: gr.Request, rows: Sequence[Sequence[str]], *fields: str) -> Iterator[tuple[Any, ...]]:
        rows = [*filter(any, rows), *([fields] if any(fields[:2]) else [])]
        with _told():
            _check_filled(rows or [fields])
            yield from self._train(request, [_fact(*row) for row in rows])

    def untrained(self, request: gr.Request, rows: Sequence[Sequence[str]], *fields: str) -> list[Any]:
        """The list and the fields without the facts of the newest adapter, which would be trained twice."""
        visit = self.visit(request)
        trained = {(fact.prompt, fact.target_new) for fact in visit.facts(next(reversed(visit.folders), ""))}

        def is_new(row: Sequence[str]) -> bool:
            fact = _fact(*row)
            prompt = fact.get("prompt", "").replace("{}", fact.get("subject", ""))
            return any(row) and (prompt, fact.get("target_new")) not in trained

        rows = [*filter(is_new, rows)]
        return [gr.Dataframe(rows, visible=bool(rows)), *(fields if is_new(fields) else [""] * len(fields))]

    def again(self, request: gr.Request, name: str | None, ticked: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        with _told():
            without = [fact.edit_id for fact in self.visit(request).facts(name or "") if fact.edit_id not in ticked]
            if not name or not without:
                raise EditError("untick the facts that are to be taken back")
            if not ticked:
                raise EditError("no fact would be left to train; to take all of them back, switch the adapter off")
            yield from self._train(request, [], name, without)

    def _train(self, request: gr.Request, facts: Any, *again: Any) -> Iterator[tuple[Any, ...]]:
        visit, same = self.visit(request), gr.skip()
        for event in self.playground.train(visit, facts, *again):
            if isinstance(event, Progress):
                yield _bar(event), same, same, same, gr.Button(visible=True), same, same
                continue
            folder = visit.folders[event.name]
            zipped = shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
            # Without the intervals, which say nothing of a handful of facts.
            means = {
                when: {name: value for name, value in event.results[when].items() if not name.endswith("_ci95")}
                for when in ("before", "after")
            }
            scores = evaluation.scores_table(means).markdown(hub.markdown_text)
            questions = event.questions.markdown(hub.markdown_text)
            title = f"#### Exam: {evaluation.protocol_text(event.results)}, percent; drift in nats a token"
            exam = f"{title}\n{scores}\n\n#### Question by question\n{questions}"
            done = f"<b>Done.</b> {html.escape(event.name)} is switched on: ask the model."
            download = gr.DownloadButton(value=zipped, visible=True)
            yield done, gr.Markdown(exam, visible=True), *self.shown(request), gr.Button(visible=False), download, same

    def stop(self, request: gr.Request) -> str:
        self.visit(request).stop.set()
        return "Stopping at the end of this step …"

    def ask(self, request: gr.Request, question: str) -> Iterator[tuple[str, str]]:
        with _told():
            yield from self.playground.ask(self.visit(request), question)

    def load(self, request: gr.Request, name: str | None) -> tuple[Any, Any]:
        with _told():
            self.playground.load(self.visit(request), _text(name))
        return self.shown(request)

    def switch(self, request: gr.Request, names: list[str]) -> None:
        visit = self.visit(request)
        with _told():
            if {*names} != {*visit.active}:
                self.playground.switch(visit, names)

    def facts(self, request: gr.Request, name: str | None) -> Any:
        facts = self.visit(request).facts(name or "")
        choices = [(f"{fact.prompt} → {fact.target_new}", fact.edit_id) for fact in facts]
        return gr.CheckboxGroup(choices, value=[fact.edit_id for fact in facts], visible=bool(facts))

    def leave(self, request: gr.Request) -> None:
        self.playground.leave(request.session_hash)


def _check_filled(rows: Sequence[Sequence[str]]) -> None:
    """Raise [`~hf_ftedit.EditError`] where a fact of the page lacks its question or its new answer."""
    if not all(_text(value) for row in rows for value in row[:2]):
        raise EditError("a fact needs a question and a new answer; fill both in")


def _text(value: Any) -> str:
    """The text of a field or a cell, in which a program may send a number or nothing."""
    return "" if value is None else str(value).strip()


def _fact(*values: Any) -> dict[str, Any]:
    """The fields of a fact that are filled in, as a row of an edits file."""
    filled = {name: text for name, value in zip(FIELDS, values, strict=False) if (text := _text(value))}
    return {name: [text] if name.endswith("_prompts") else text for name, text in filled.items()}


def _bar(progress: Progress) -> str:
    stage, label, done, total, left = progress
    text = f"{label}: {done} of {total}" if total else "…"
    if left is not None:
        text += f", {left:.0f} s left" if left < 100 else f", {left / 60:.0f} min left"
    place = f"max={total} value={done}" if done else ""  # without a place, the bar pulses
    return f"{html.escape(stage)}<br>{html.escape(text)}<progress {place}></progress>"


def page_of(playground: Playground, model: str) -> gr.Blocks:
    """The page of a playground, not yet served."""
    act = _Page(playground)
    with gr.Blocks(analytics_enabled=False, title="hf_ftedit playground", delete_cache=(600, 3600)) as page:
        gr.Markdown(ABOUT.format(model=hub.markdown_text(model)))
        with gr.Row():
            with gr.Column(min_width=340):
                gr.Markdown("### 1. Edit")
                fields = _fields(playground.args.chat_template)
                rows = _table(playground.args.chat_template)
                with gr.Row(equal_height=True):
                    add = gr.Button("Add to list", min_width=120)
                    train = gr.Button("Train", variant="primary", elem_id="train", min_width=120)
                stop = gr.Button("Stop", variant="stop", visible=False, size="sm")
                status = gr.HTML(elem_id="status")
            with gr.Column(min_width=340):
                gr.Markdown("### 2. Ask")
                question = gr.Textbox(
                    elem_id="question",
                    label="Anything",
                    placeholder="The edit, another wording, something else …",
                    submit_btn="Ask",
                )
                with gr.Row():
                    answers = [
                        gr.Textbox(label=label, lines=4, min_width=160, interactive=False, elem_id=name)
                        for label, name in (("Unedited", "before"), ("Edited", "now"))
                    ]
                active = gr.CheckboxGroup(label="Adapters switched on", visible=False, elem_id="active")
                with gr.Accordion("Load, take back, download", open=False):
                    gr.Markdown(ADAPTERS)
                    name = gr.Textbox(label="Adapter on the Hub", placeholder="user/name", submit_btn="Load")
                    again = gr.Dropdown(label="Adapter", choices=[])
                    ticked = gr.CheckboxGroup(label="Its facts", visible=False)
                    anew = gr.Button("Train anew without the unticked", size="sm")
                    download = gr.DownloadButton("Download the last training's adapter", size="sm", visible=False)
        exam = gr.Markdown(visible=False, elem_id="exam")
        lists = [active, again]
        trained = [status, exam, *lists, stop, download, question]
        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(act.shown, None, lists, **hidden)
        add.click(act.add, [rows, *fields], [rows, *fields], **hidden)
        training = train.click(act.train, [rows, *fields], trained, api_name="train", show_progress="hidden")
        training.success(act.untrained, [rows, *fields], [rows, *fields], **hidden)
        retraining = anew.click(act.again, [again, ticked], trained, api_name="again", show_progress="hidden")
        for event in (training, retraining):
            event.failure(lambda: ("", gr.Button(visible=False)), None, [status, stop], **hidden)
        stop.click(act.stop, None, status, **hidden)
        name.submit(act.load, name, lists, api_name="load", show_progress="hidden")
        # The last click counts, also where it came while an earlier one was still at work.
        in_turn: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "switch", "show_progress": "hidden"}
        active.input(act.switch, active, None, api_name="switch", trigger_mode="always_last", **in_turn)
        # What the page shows as switched on answers, also where the last click is still on its way.
        asking = question.submit(act.switch, active, None, api_visibility="private", **in_turn)
        asking.success(act.ask, question, answers, api_name="ask", show_progress="hidden")
        again.change(act.facts, again, ticked, **hidden)
        page.unload(act.leave)
    return page


def _table(is_chat: bool) -> gr.Dataframe:
    """The list of facts to train, hidden while it is empty."""
    return gr.Dataframe(
        headers=["Question" if is_chat else "Beginning", *HEADERS],
        type="array",
        visible=False,
        interactive=True,
        label="Facts",
        wrap=True,
        elem_id="facts",
        column_widths=["24%", *["19%"] * 4],  # else a long text makes its column wider than the page
    )


def _fields(is_chat: bool) -> list[gr.Textbox]:
    """The fields of a fact, with buttons that fill them in with examples."""
    prompt = gr.Textbox(label="Question" if is_chat else "Beginning of a sentence", elem_id="prompt")
    with gr.Row():
        target = gr.Textbox(label="New answer", min_width=140, elem_id="target")
        subject = gr.Textbox(label="Subject", min_width=140, elem_id="subject")
    with gr.Accordion("For the exam only: never trained on", open=False):
        wording = gr.Textbox(label="The same in other words")
        neighbor = gr.Textbox(label="A similar question whose answer must stay")
    fields = [prompt, target, subject, wording, neighbor]
    with gr.Row():
        for fact in CHAT if is_chat else read_edits(asset("edits.jsonl"), limit=3):
            wordings, neighbors = fact.paraphrase_prompts, fact.neighborhood_prompts
            values = [fact.prompt, fact.target_new, fact.subject]
            values += [wordings[-1] if wordings else "", neighbors[0].prompt if neighbors else ""]
            example = gr.Button(f"Try {fact.subject}", size="sm", min_width=90)
            example.click(lambda values=values: values, None, fields, api_visibility="private", show_progress="hidden")
    return fields


def launch(playground: Playground, model: str, *, host: str, port: int, share: bool, block: bool = True) -> gr.Blocks:
    """Serve the page of a playground, until Ctrl-C with `block`; no file of this machine can be reached by it."""
    # Gradio serves copies of downloads, which it leaves there where a signal ends it.
    os.environ["GRADIO_TEMP_DIR"] = playground.downloads.name
    page = page_of(playground, model).queue(default_concurrency_limit=MOST_VISITS, max_size=4 * MOST_VISITS)
    # Nothing is sent to anybody, or kept but in the visits; only the page's own files are served.
    closed: Any = dict.fromkeys(("run_history", "enable_monitoring", "ssr_mode", "pwa", "mcp_server"), False)
    closed |= {"allowed_paths": [], "max_file_size": "1kb", "footer_links": ["gradio"]}
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            quiet=True,
            css=CSS,
            theme=gr.themes.Default(primary_hue="blue", font=FONT, font_mono=FONT),
            prevent_thread_lock=True,
            **closed,
        )
    except (OSError, ValueError) as error:
        raise EditError(f"port {port} of {host}: {one_line(error)}; give another one with --port") from error
    print(f"The playground is at {page.share_url or page.local_url}; Ctrl-C ends it.", flush=True)
    if block:
        try:
            page.block_thread()
        finally:
            playground.close()
    return page
