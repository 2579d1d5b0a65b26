"""Flags and `--config` files to options: each is parsed once, flags win, and files of 0.1.0 are still read."""

import os
from pathlib import Path

import pytest
import yaml

from hf_ftedit import EditConfig, EditError, EditModelConfig
from hf_ftedit.cli.arguments import parse_rest, read_arguments
from hf_ftedit.cli.grid import read_grid
from hf_ftedit.cli.train import settings_of

pytestmark = pytest.mark.usefixtures("in_empty_folder")
OLD = Path(__file__).parents[1] / "fixtures" / "folder_0.1.0" / "edit_config.yaml"


def config(**settings):
    Path("config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["--config", "config.yaml"]


def train_settings(*flags):
    arguments = read_arguments("train", flags)
    options = arguments.options()
    return options, *parse_rest((EditConfig, EditModelConfig), arguments, vars(options))


def test_a_flag_wins_over_the_file_which_wins_over_a_recipe():
    arguments = read_arguments("train", ["--seed", "3", *config(seed=2, num_locality=2, learning_rate="5e-3")])
    options = arguments.options({"seed": 1, "num_locality": 1, "num_paraphrases": 1, "lora_r": 1})
    assert (options.seed, options.num_locality, options.num_paraphrases) == (3, 2, 1)
    assert arguments.values == {"seed": 3, "num_locality": 2}
    assert (arguments.flags, arguments.config) == ([], {"learning_rate": "5e-3"})


def test_what_is_left_is_parsed_as_trls_settings():
    flags = ["--skip_invalid", "--learning-rate", "5e-3", "--max_edits", "3", "--lora_target_modules", "q", "v"]
    options, trained, model = train_settings(*flags, *config(lora_r=4, use_cpu=True, lora_layers=[0, 1]))
    assert (options.skip_invalid, options.max_edits) == (True, 3)
    assert (trained.learning_rate, trained.max_edits, trained.lora_layers) == (5e-3, 3, [0, 1])
    assert (model.lora_r, model.lora_target_modules) == (4, ["q", "v"])


@pytest.mark.parametrize(
    ("verb", "argv", "name", "value"),
    [
        ("push", ["here"], "folder", "here"),
        ("push", ["--repo_id", "a/b", "here"], "folder", "here"),
        ("push", ["--folder", "here", *("--repo_id", "a/b")], "folder", "here"),
        ("verify", [], "name", None),
        ("merge", ["a", "b", "--output_dir", "c"], "adapters", ["a", "b"]),
        ("merge", ["--output_dir", "c", "--adapters", "a", "b"], "adapters", ["a", "b"]),
    ],
)
def test_folders_stand_without_a_flag_or_with_it(verb, argv, name, value):
    assert getattr(read_arguments(verb, argv).options(), name) == value


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], False),
        (["--resume_from_checkpoint"], True),
        (["--resume_from_checkpoint", "--seed", "1"], True),
        (["--resume_from_checkpoint", "True"], True),
        (["--resume_from_checkpoint", "false"], False),
        (["--seed", "1", "--resume_from_checkpoint", "out/checkpoint-5"], "out/checkpoint-5"),
    ],
)
def test_resuming_is_asked_for_by_a_flag_alone_or_with_a_folder(flags, expected):
    assert read_arguments("train", flags).options().resume == expected


@pytest.mark.parametrize(("value", "expected"), [(True, True), (None, False), (False, False), ("out/c", "out/c")])
def test_resuming_is_asked_for_in_a_file(value, expected):
    assert read_arguments("train", config(resume_from_checkpoint=value)).options().resume == expected


def test_a_recipe_of_0_1_0_is_a_config():
    recipe = yaml.safe_load(OLD.read_text(encoding="utf-8"))
    assert "record" in recipe and recipe["merge_into_base"] is False
    options, trained, model = train_settings("--config", str(OLD), "--use_cpu")
    assert (options.predict_with_generate, trained.learning_rate, model.lora_r) == (True, 0.004, 2)
    for verb in ("evaluate", "augment"):
        arguments = read_arguments(verb, ["--config", str(OLD)])
        (model,) = parse_rest((EditModelConfig,), arguments, {}, ignored=(EditConfig,))
        assert model.lora_r == 2


@pytest.mark.parametrize(
    ("verb", "flag"),
    [("augment", "--adapter"), ("augment", "--revoke=a"), ("evaluate", "--num-locality"), ("playground", "--edits")],
)
def test_a_flag_that_a_verb_does_not_use_is_refused(verb, flag):
    with pytest.raises(EditError, match=f"^{verb} does not use {flag.partition('=')[0]}; leave it out$"):
        read_arguments(verb, ["--seed", "1", flag, "a"])
    # In the recipe of a `train` it may stand.
    assert read_arguments(verb, config(revoke=["a"], adapter="b")).values["adapter"] == "b"


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["--erase", "Who is Bo?", "--erase", "Who is Al?"], "erase"),
        (["--lora-layers", "1", "--seed=3", "--lora_layers=2"], "lora_layers"),
    ],
)
def test_a_list_that_stands_twice_is_refused_and_else_the_last_flag_counts(argv, name):
    with pytest.raises(EditError, match=f"^--{name} stands twice; keep one, with all its values behind it$"):
        read_arguments("train", argv)
    assert read_arguments("train", ["--seed", "1", "--seed=2"]).values == {"seed": 2}


@pytest.mark.parametrize(
    ("verb", "settings", "message"),
    [
        ("train", {"model_name_or_path": 5}, "model_name_or_path is 5: give text"),
        ("evaluate", {"adapter": ["a"]}, r"adapter is \['a'\]: give text"),
        ("playground", {"adapters": "a"}, "adapters is 'a': give a list, each text"),
    ],
)
def test_a_source_of_another_type_in_a_file_is_refused(verb, settings, message):
    with pytest.raises(EditError, match=message):
        read_arguments(verb, config(**settings))


@pytest.mark.parametrize("name", ["rewriter", "chat_template_path", "chat_date"])
def test_a_setting_of_chats_is_refused_outside_of_them(name):
    with pytest.raises(EditError, match=f"{name} has no effect without chat_template; give that too, or leave it out"):
        train_settings(f"--{name}", "2026-01-31")
    assert getattr(train_settings(f"--{name}", "2026-01-31", "--chat_template")[0], name) == "2026-01-31"


@pytest.mark.parametrize("verb", ["evaluate", "augment"])
def test_a_flag_of_training_is_refused_where_nothing_is_trained(verb):
    def model_of(*argv):
        arguments = read_arguments(verb, argv)
        return parse_rest((EditModelConfig,), arguments, {}, ignored=(EditConfig,))[0]

    for flag in (["--use_cpu"], ["--max_length", "10"], ["--no-push-to-hub"], ["--learning-rate=1"]):
        with pytest.raises(EditError, match=f"^{verb} does not use {flag[0].partition('=')[0]}; leave it out$"):
            model_of(*flag)
    with pytest.raises(EditError, match="unknown option --of_nothing"):
        model_of("--of_nothing", "3")
    assert model_of(*config(use_cpu=True, max_length=10), "--lora_r", "4").lora_r == 4


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("merge_into_base", "hf-ftedit merge --merge_into_base"), ("prefix_per_edit", "prefix_counts")],
)
def test_a_setting_that_went_is_an_error_where_it_was_on(name, remedy):
    with pytest.raises(EditError, match=f"config.yaml: {name} is no option of train any more; .*{remedy}"):
        read_arguments("train", config(**{name: True}))
    with pytest.raises(EditError, match="unknown option --merge_into_base"):
        train_settings("--use_cpu", "--merge_into_base")


@pytest.mark.parametrize("name", ["learning-rate", "no_use_peft", "num-locality"])
def test_names_that_only_a_flag_may_have_are_not_passed_over_in_a_file(name):
    with pytest.raises(EditError, match=f"unknown option --{name};"):
        train_settings("--use_cpu", *config(**{name: 1}))


@pytest.mark.parametrize("name", [2, None, True])  # YAML makes the last one of on: 3
def test_names_of_a_file_that_are_no_texts_are_told(name):
    Path("config.yaml").write_text(yaml.safe_dump({name: 3}))
    with pytest.raises(EditError, match="config.yaml holds no settings by name"):
        read_arguments("train", ["--config", "config.yaml"])


def test_a_file_does_not_set_where_tokens_go_or_what_code_runs():
    before = dict(os.environ)
    with pytest.raises(EditError, match=r"\(env\) are not read from a file; set them in the shell"):
        read_arguments("train", config(env={"OF_A_TEST": 1, "HF_ENDPOINT": "http://elsewhere"}))
    assert dict(os.environ) == before


@pytest.mark.parametrize("verb", ["train", "evaluate", "augment", "verify", "merge"])
def test_code_of_a_repository_is_not_switched_on_by_a_file(verb):
    for value in (True, "yes"):
        with pytest.raises(
            EditError, match="trust_remote_code is not read from a file; on the command line, add --trust_rem"
        ):
            read_arguments(verb, config(trust_remote_code=value))
    assert "trust_remote_code" not in read_arguments(verb, config(trust_remote_code=False)).values
    assert read_arguments(verb, ["--trust_remote_code"]).values["trust_remote_code"]


FOR_COMMANDS_ALONE = [
    ("model_init_kwargs", {"allow_all_kernels": True, "attn_implementation": "attacker/kernel"}),
    ("model_init_kwargs", r'{"trust\u005fremote_code": true}'),  # JSON has many ways to write a name
    *(("attn_implementation", name) for name in ("attacker/kernel", "paged|attacker/kernel@main:attention")),
    *(("tasks_path", "tasks"), ("push_to_hub", True), ("hub_model_id", "attacker/facts"), ("hub_token", "hf_theirs")),
    ("trackio_space_id", "attacker/losses"),
]


@pytest.mark.parametrize(("name", "value"), FOR_COMMANDS_ALONE)
def test_a_file_runs_no_kernel_and_publishes_nothing(name, value):
    with pytest.raises(
        EditError, match=f"^--config config.yaml: {name} is not read from a file; on the command line, add --{name}$"
    ):
        read_arguments("evaluate" if name == "tasks_path" else "train", config(**{name: value}))
    with pytest.raises(EditError, match=f": {name} is not read from a file; on the command line, add --{name}$"):
        read_grid("config.yaml")


def test_what_a_file_leaves_off_may_stand_in_it():
    flags = ["--use_cpu", "--hub_model_id", "my/facts"]
    file = config(attn_implementation="sdpa", push_to_hub=False, hub_token=None, model_init_kwargs=None)
    _, trained, model = train_settings(*flags, *file)
    assert (model.attn_implementation, trained.push_to_hub, trained.hub_model_id) == ("sdpa", False, "my/facts")


@pytest.mark.parametrize(
    "flags, dtype",
    [
        ([], "bfloat16"),
        (["--full_finetune"], "float32"),
        (["--use_peft", "false"], "float32"),
        (["--full_finetune", "--dtype", "bfloat16"], "bfloat16"),
    ],
)
def test_weights_that_are_all_trained_are_float32_where_a_gpu_has_bfloat16(monkeypatch, flags, dtype):
    monkeypatch.setattr("hf_ftedit.training.config.has_bf16", lambda: True)
    arguments = read_arguments("train", ["--use_cpu", "--edits", "edits.jsonl", *flags])
    config, model_config = settings_of(arguments, vars(arguments.options()))
    assert config.model_init_kwargs["dtype"] == model_config.dtype == dtype
