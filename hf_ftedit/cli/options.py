"""The options of each verb, without torch; `train`, `evaluate` and `augment` take TRL's settings too."""

from dataclasses import dataclass
from typing import Any

from hf_ftedit.errors import EditError
from hf_ftedit.models import gguf_source
from hf_ftedit.options import COMMIT_MESSAGE, OUTPUT_FOLDER, EditOptions, ExportFormat, ExportPrecision, option


@dataclass
class CommonOptions(EditOptions):
    """Options of the verbs that edit and measure, checked before anything heavy is loaded."""

    model_name_or_path: str | None = option(None, "Hub id or folder of the base model; the embedded one if not given.")
    gguf_file: str | None = option(None, "GGUF file that holds it: its name there, or its path.")
    output_dir: str | None = option(None, "Folder to write; must not exist with content.")
    seed: int = option(42, "Seed of everything drawn.")
    trust_remote_code: bool = option(False, "Run code that the model's repository brings.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rewriter", "chat_template_path", "chat_date"):
            if getattr(self, name) is not None and not self.chat_template:
                raise EditError(f"{name} has no effect without chat_template; give that too, or leave it out")
        self.model_name_or_path, self.gguf_file = gguf_source(self.model_name_or_path, self.gguf_file)


@dataclass
class _Train(CommonOptions):
    output_dir: str | None = option(OUTPUT_FOLDER, "Folder to write; must not exist with content.")
    resume_from_checkpoint: str | None = option(
        None, "Go on with a stopped run; alone, or with the checkpoint folder to go on from.", nargs="?", const="True"
    )

    def __post_init__(self) -> None:
        resume: Any = self.resume_from_checkpoint
        self.resume_from_checkpoint = str(resume) if isinstance(resume, bool) else resume  # YAML has booleans
        super().__post_init__()

    @property
    def resume(self) -> bool | str:
        """The checkpoint folder to go on from, or whether to go on from the newest one, by flag or YAML."""
        value = self.resume_from_checkpoint or ""
        return {"true": True, "false": False, "none": False, "": False}.get(str(value).lower(), value)


@dataclass
class _Evaluate(CommonOptions):
    tasks: list[str] | None = option(None, "Tasks of lm-evaluation-harness to run, without and with the adapter.")
    tasks_path: str | None = option(None, "Folder with task files of your own.")
    tasks_limit: int | None = option(None, "Use only the first so many samples of a task.")
    num_fewshot: int | None = option(None, "Examples before each sample of a task.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tasks_path", "tasks_limit", "num_fewshot"):
            if getattr(self, name) is not None and not self.tasks:
                raise EditError(f"{name} is given without tasks; give --tasks too, or leave it out")


@dataclass
class _Push:
    folder: str | None = option(None, "Folder that `train` or `merge` wrote.")
    repo_id: str | None = option(None, "Repository to push to, such as user/my-edits.")
    private: bool = option(False, "Let only you see it; by default as your account says.")
    revision: str | None = option(None, "Branch to push to; main by default.")
    commit_message: str = option(COMMIT_MESSAGE, "Title of the commit.")


@dataclass
class _Shared:
    model_name_or_path: str | None = option(None, "Base model, where it is not the recorded one, such as a copy.")
    gguf_file: str | None = option(None, "GGUF file that holds it, where it is not the recorded one.")
    trust_remote_code: bool = option(False, "Run code that the model's repository brings.")

    @property
    def arguments(self) -> dict[str, Any]:
        """The options as arguments of the function that the verb is named after."""
        names = {"model_name_or_path": "base_model", "adapters": "names", "adapter": "name"}
        return {names.get(name, name): value for name, value in vars(self).items()}


@dataclass
class _Verify(_Shared):
    name: str | None = option(None, "Hub id or folder of the edits to verify.")
    revision: str | None = option(None, "Branch, tag or commit of them.")
    tolerance: float = option(1.0, "Most that a score may differ, in points: other hardware rounds otherwise.")


@dataclass
class _Merge(_Shared):
    adapters: list[str] = option([], "Hub ids or folders of the adapters.")
    output_dir: str | None = option(None, "Folder to write; must not exist with content.")
    combination_type: str = option("cat", "How PEFT combines them: cat (exact), ties, dare_ties, svd, ...")
    weights: list[float] | None = option(None, "Weight of each adapter; 1 by default.")
    density: float = option(0.5, "Share of the weights that ties and dare keep.")
    merge_into_base: bool = option(False, "Save a whole model with the edits in its weights; one adapter may do.")


@dataclass
class _Export(_Shared):
    adapter: str | None = option(None, "Hub id or folder of the adapter.")
    output_dir: str | None = option(None, "Folder to write; must not exist with content.")
    to: ExportFormat = option("gguf", "Format.")
    dtype: ExportPrecision | None = option(None, "Precision of a whole GGUF model: q8_0 (default) or f16.")
    exam: bool = option(True, "Ask what was exported for the new targets; --no_exam does not.")


@dataclass
class _Sweep:
    grid: str | None = option(None, "YAML file with options of train, each with one value or a list; as --config.")
    output_dir: str | None = option(None, "Folder of the study; finished runs in it are not repeated.")
    sample: int | None = option(None, "Run only so many of the combinations, drawn at random.")
    sample_seed: int = option(0, "Seed of that draw.")
    num_workers: int = option(1, "Processes that run at once, each on a GPU of its own where there are several.")


@dataclass
class _Playground(CommonOptions):
    adapters: list[str] = option([], "Hub ids or folders of adapters that every visitor finds switched on.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = option(7860, "Port to listen on.")
    share: bool = option(False, "Let the page be reached from anywhere, through a tunnel of gradio.live.")


_TRAINING = (
    "objective locality_loss locality_weight hidden_loss_weight text_loss_weight training_texts mastered_probability "
    "full_finetune lora_embedding lora_layers strength revoke "
)
# Options that a verb shares with `train` and does not use: no flags of it, and passed over in the recipe of a `train`.
UNUSED = {
    "augment": f"{_TRAINING} adapter protocol predict_with_generate measure_fluency perplexity_texts known_facts",
    "evaluate": f"{_TRAINING} paraphrase_strategy num_paraphrases locality_strategy num_locality locality_pool "
    "prefix_lengths prefix_counts prefix_top_k similar_model rewriter",
    "playground": "edits erase format max_edits skip_invalid output_dir adapter revoke full_finetune",
}

OPTIONS: dict[str, type[Any]] = {
    **{"train": _Train, "evaluate": _Evaluate, "augment": CommonOptions},
    **{"push": _Push, "verify": _Verify, "merge": _Merge, "export": _Export},
    **{"sweep": _Sweep, "playground": _Playground},
}
