"""Visitors of the playground: one model for all, and for each visitor adapters that nobody else sees; no page here."""

import copy
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from transformers import TextStreamer

from hf_ftedit import evaluation, hub, models
from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError, refusals_of_libraries, shown
from hf_ftedit.playground.bars import Progress, Report, Stages
from hf_ftedit.training import EditConfig, EditTrainer

MOST_VISITS, MOST_ADAPTERS, MOST_FACTS = 16, 8, 20  # what strangers may ask of one machine
MOST_BYTES = 500 * 10**6  # of an adapter that a visitor downloads
LONGEST = 500  # characters of a text that a visitor types
ANSWER_TOKENS = 128
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Trained(NamedTuple):
    """A finished training: the exam before and after, and its questions with the answers."""

    name: str
    results: dict[str, Any]
    questions: evaluation.Table


@dataclass
class Visit:
    """One visitor's adapters: their folders by name, and the model with those that are switched on."""

    model: Any
    folders: dict[str, Path]
    active: list[str]
    trained: int = 0
    loaded: int = 0
    is_over: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    busy: threading.Lock = field(default_factory=threading.Lock)
    loading: threading.Lock = field(default_factory=threading.Lock)
    directory: TemporaryDirectory[str] = field(default_factory=partial(TemporaryDirectory, ignore_cleanup_errors=True))

    def clean(self) -> None:
        """Delete the folders of a visit that is over, once nothing is written to them any more."""
        if self.is_over and not self.busy.locked():
            self.directory.cleanup()

    def delete(self, folder: Path) -> None:
        """Delete an adapter's folder and its download; not one that the command line named."""
        root = Path(self.directory.name).resolve()
        if folder.resolve().is_relative_to(root):
            own = root / folder.resolve().relative_to(root).parts[0]
            shutil.rmtree(own, ignore_errors=True)
            own.with_suffix(".zip").unlink(missing_ok=True)

    def facts(self, name: str) -> list[EditRecord]:
        """The edits in an adapter; none where another program wrote it."""
        is_ours = name in self.folders and (self.folders[name] / hub.RECIPE_FILE).is_file()
        return hub.read_edit_folder(self.folders[name], name).records if is_ours else []


class Playground:
    """
    A model, and its visitors by the key of their session; each finds the `adapters`, folders by name, switched on.

    No visitor's adapter is put on `model` itself: it goes on a copy of its modules, which shares the weights, so that
    visitors cannot meet, and all is gone with the visit. One training runs at a time, as `args` and `peft_config` say.
    """

    def __init__(
        self, model: Any, tokenizer: Any, args: EditConfig, peft_config: Any = None, adapters: Mapping[str, Path] = {}
    ) -> None:
        self.model, self.tokenizer, self.peft_config = model.requires_grad_(False), tokenizer, peft_config
        self.args = copy.copy(args)
        self.args.report_to, self.args.disable_tqdm, self.args.predict_with_generate = [], False, True
        self.args.model_init_kwargs = None  # used
        self.adapters = {name: self._checked(name, folder) for name, folder in adapters.items()}
        self._start = self._with_adapters(self.adapters)
        self.downloads = TemporaryDirectory(ignore_cleanup_errors=True)
        self._visits: dict[str, Visit] = {}  # the one that rested longest first
        self._arriving, self._training = threading.Lock(), threading.Lock()

    def visit(self, session: str | None) -> Visit:
        """The visit of a session, new where there is none; the one that rested longest makes room for it."""
        if not session:
            raise EditError("the request has no session_hash; open the page, or use gradio_client")
        with self._arriving:  # a page's second request may come before the first one's visit is made
            visit = self._visits.pop(session, None) or Visit(self._start, dict(self.adapters), list(self.adapters))
            self._visits[session] = visit
            if len(self._visits) > MOST_VISITS:
                self.leave(next(iter(self._visits)))
        return visit

    def leave(self, session: str | None) -> None:
        """Stop what a visitor trains, and forget the adapters."""
        if visit := self._visits.pop(session or "", None):
            visit.is_over = True
            visit.stop.set()
            visit.clean()

    def close(self) -> None:
        """End all visits and delete their files; waits for the training that is stopped, which Python needs to end."""
        for session in [*self._visits]:
            self.leave(session)
        if self._training.acquire(timeout=10):  # a long step is not waited for
            self._training.release()
        self.downloads.cleanup()

    def load(self, visit: Visit, name: str) -> None:
        """Switch on an adapter of the Hub, or one that the command line named; no other folder is looked into."""
        name = name.strip()
        with visit.loading:  # several at once would all have room
            if name not in visit.folders:
                self._check_room(visit)
            visit.loaded += 1
            cache = Path(visit.directory.name, f"hub-{visit.loaded}")  # goes with the visit, and has nothing of others
            folder = visit.folders.get(name) or self.adapters.get(name)
            try:
                self._add(visit, name, folder or self._checked(name, self._fetched(name, cache)))
            except BaseException:
                visit.delete(cache)
                raise
            finally:
                visit.clean()

    def _fetched(self, name: str, cache: Path) -> Path:
        # The same words whether or not such a folder is here. Without the token of whoever runs the playground.
        if not _HUB_ID.fullmatch(name) or Path(name).exists():
            problem = "is no Hub id such as user/name; no folder of this machine is opened from here"
            raise EditError(f"{shown(name)} {problem}")
        return hub.fetch_folder(name, token=False, cache_dir=cache, most_bytes=MOST_BYTES)

    def switch(self, visit: Visit, names: Sequence[str]) -> None:
        """Let these adapters alone act in a visitor's model."""
        active = [name for name in visit.folders if name in names]
        visit.model = self._with_adapters({name: visit.folders[name] for name in active})
        visit.active = active

    def train(
        self, visit: Visit, facts: Sequence[Mapping[str, Any]], again: str | None = None, without: Sequence[str] = ()
    ) -> Iterator[Progress | Trained]:
        """
        Train an adapter on `facts`, or anew on those of the adapter `again` but `without`, and switch it on.

        An iterator of the steps that ends with what came of it; `visit.stop` ends it sooner, as does closing it.
        """
        _check_facts(facts)
        if again is None:
            self._check_room(visit)
        if not visit.busy.acquire(blocking=False):
            raise EditError("your last training still runs; wait for it, or stop it")
        visit.stop.clear()

        def work(report: Report) -> None:
            try:
                stages = Stages(report, visit.stop)
                while not self._training.acquire(timeout=0.3):
                    stages.begin("Waiting for the training of another visitor")  # or end it, if it is to stop
                try:
                    with stages.reading_bars():
                        report(self._trained(visit, facts, again, without, stages))
                finally:
                    self._training.release()
            finally:
                visit.busy.release()
                visit.clean()

        try:
            yield from _reports(work)
        finally:
            visit.stop.set()

    def _trained(self, visit: Visit, facts: Any, again: str | None, without: Any, stages: Stages) -> Trained:
        visit.trained += 1
        folder, args = Path(visit.directory.name, f"edits-{visit.trained}"), copy.copy(self.args)
        args.output_dir = str(folder)
        if again is not None:
            args.adapter, args.revoke = str(visit.folders[again]), list(without)
        try:
            stages.begin("1 of 4: making training rows")
            trainer = EditTrainer(
                model=self._twin(),
                args=args,
                train_dataset=None if again is not None else list(facts),
                processing_class=copy.deepcopy(self.tokenizer),
                peft_config=copy.deepcopy(self.peft_config),
            )
            stages.begin("2 of 4: exam of the unedited model")
            trainer.score_edits(edited=False)
            stages.begin("3 of 4: training")
            trainer.train()
            stages.begin("4 of 4: exam of the edited model")
            results = trainer.write_folder()
            questions = evaluation.questions_table(*(trainer.predict_edits(edited=edited) for edited in (False, True)))
            first, *others = trainer.task.edits
            more = f" and {len(others)} more" if others else ""
            name = f"{visit.trained}: {first.prompt} → {first.target_new}{more}"
            self._add(visit, name, folder, instead_of=again)
        except BaseException:
            visit.delete(folder)  # there may be many that were stopped
            raise
        return Trained(name, results, questions)

    def ask(self, visit: Visit, question: str) -> Iterator[tuple[str, str]]:
        """What the unedited and the edited model have said so far, again and again until both have ended."""
        _check_text("the question", question)
        sides = [self.model, visit.model] if visit.active else [self.model]
        settings: dict[str, Any] = {"max_new_tokens": ANSWER_TOKENS, "chat_template": self.args.chat_template}
        settings["sentences"] = not self.args.has_whole_answers
        texts = [""] * len(sides)

        def answer(side: int, report: Report) -> None:
            streamer = _Feed(self.tokenizer, lambda text: report((side, text)))
            (whole,) = models.whole_answers(sides[side], self.tokenizer, [question], streamer=streamer, **settings)
            report((side, whole.text))

        for side, text in _reports(*(partial(answer, side) for side in range(len(sides)))):
            texts[side] = text
            yield texts[0].strip(), texts[-1].strip()

    def _check_room(self, visit: Visit) -> None:
        if len(visit.folders) >= MOST_ADAPTERS + len(self.adapters):
            raise EditError(f"you have {MOST_ADAPTERS} adapters, which is the limit; reload the page to begin anew")

    def _add(self, visit: Visit, name: str, folder: Path, instead_of: str | None = None) -> None:
        before = visit.folders
        visit.folders = {each: place for each, place in before.items() if each != instead_of} | {name: folder}
        try:
            self.switch(visit, [*visit.active, name])
        except BaseException:
            visit.folders = before
            raise
        if instead_of is not None:
            visit.delete(before[instead_of])

    def _checked(self, name: str, folder: Path) -> Path:
        models.check_adapter(folder, name)
        if (folder / hub.RECIPE_FILE).is_file():
            hub.check_base(self.model, hub.read_edit_folder(folder, name).settings, name)
        return folder

    def _twin(self) -> Any:
        """A copy of the model's modules that shares its weights, which no training changes: they are frozen."""
        weights = chain(self.model.parameters(), self.model.buffers())
        return copy.deepcopy(self.model, {id(weight): weight for weight in weights})

    def _with_adapters(self, folders: Mapping[str, Path]) -> Any:
        """The model with adapters beside one another, whose changes add up; the unedited one without any."""
        if not folders:
            return self.model
        model, names = self._twin(), [f"adapter{number}" for number in range(len(folders))]
        for (label, folder), name in zip(folders.items(), names, strict=True):
            try:
                model = models.load_adapter(model, folder, adapter_name=name)
            except EditError as error:  # without the place of the folder on this machine
                raise EditError(str(error).replace(str(folder), label)) from error
        with refusals_of_libraries("these adapters cannot act together: switch one of them off"):
            model.base_model.set_adapter(names)
        return model.requires_grad_(False)


class _Feed(TextStreamer):
    """Reports an answer so far, after each of its words."""

    def __init__(self, tokenizer: Any, report: Report) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.report, self.answer = report, ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.answer += text
        self.report(self.answer)


def _reports(*works: Callable[[Report], None]) -> Iterator[Any]:
    """What functions report, each run in a thread of its own, until all have ended; an error of one is raised."""
    reports: SimpleQueue[Any] = SimpleQueue()

    def run(work: Callable[[Report], None]) -> None:
        try:
            work(reports.put)
            reports.put(None)
        except BaseException as error:
            reports.put(error)

    for work in works:
        threading.Thread(target=run, args=(work,), daemon=True).start()
    for _ in works:
        for report in iter(reports.get, None):  # until one more has ended
            if isinstance(report, BaseException):
                raise report
            yield report


def _check_facts(facts: Sequence[Mapping[str, Any]]) -> None:
    if len(facts) > MOST_FACTS:
        raise EditError(f"{len(facts)} facts are more than {MOST_FACTS}; use hf-ftedit train for so many")
    for number, fact in enumerate(facts, 1):
        for name, value in fact.items():
            for text in value if isinstance(value, list) else [value]:
                _check_text(f"fact {number}, {name}", text)


def _check_text(place: str, text: Any) -> None:
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
        raise EditError(f"{place} is {shown(text)}; give a text of at most {LONGEST} characters")
