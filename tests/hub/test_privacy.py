"""Tokens, the home folder and the user's name get into no file that is written, nothing uploaded and no line shown."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_storage import User
from loopback_hub import FEW_DRIFT_PROMPTS, LoopbackHub
from tiny import small_pool

from hf_ftedit.models.loading import asset

pytestmark = pytest.mark.slow
CANARY = "canary"  # in every token, in the home folder's path and in the user's name
# Groups of commands one after the other: what each group prints goes into a file, the exit codes into another.
MAIN = """
import json, os, sys
given, codes = json.load(sys.stdin), {}
for name, commands in given["groups"].items():
    screen = os.open(f"{given['folder']}/{name}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(screen, 1), os.dup2(screen, 2)
    from hf_ftedit.cli.app import main
    codes[name] = [main(args) for args in commands]
    sys.stdout.flush(), sys.stderr.flush()
open(f"{given['folder']}/codes.json", "w").write(json.dumps(codes))
"""
DATASET = """
import json, sys
from hf_ftedit import EditConfig, EditDatasetBuilder, EditTrainer, read_edits, read_facts
from hf_ftedit.hub.push import push_dataset
home = json.load(sys.stdin)["home"]
edits, pool = f"{home}/data/edits.jsonl", f"{home}/data/pool.jsonl"
config = EditConfig(num_locality=2, num_paraphrases=0, edits=edits, locality_pool=pool, hub_token="hf_canary_argument")
builder = EditDatasetBuilder(edits, f"{home}/models/base", locality_pool=pool, options=config, seed=1)
builder.download_and_prepare()
print(push_dataset(builder.as_dataset(), "user/rows", builder.settings, token="hf_canary_argument"))

config = EditConfig(
    output_dir=f"{home}/runs/python", num_train_epochs=1, num_locality=2, num_paraphrases=0, max_edits=2,
    text_loss_weight=0,
    save_strategy="epoch", push_to_hub=True, hub_model_id="user/python", hub_token="hf_canary_argument",
    model_init_kwargs={"token": "hf_canary_init"}, edits=edits, locality_pool=pool, disable_tqdm=True,
)
trainer = EditTrainer(f"{home}/models/base", config)
trainer.train()
trainer.save_model()
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A home folder in which everything was used once, the Hub, what was printed, and the exit codes."""
    home = tmp_path_factory.mktemp("home") / "canaryuser"
    for folder in ("data", "models", "runs"):
        (home / folder).mkdir(parents=True)
    rows = Path(asset("edits.jsonl")).read_text(encoding="utf-8").splitlines(keepends=True)
    (home / "data" / "edits.jsonl").write_text("".join(rows[:4]), encoding="utf-8")
    (home / "data" / "texts.jsonl").write_text('{"text": "Rome is the capital of Italy."}\n')
    small_pool(home / "data")
    shutil.copytree(asset("model"), home / "models" / "base")
    with LoopbackHub() as hub:
        for name in ("environment", "argument", "init"):
            hub.tokens[f"hf_canary_{name}"] = User("user", may_write=True)
        world = SimpleNamespace(hub=hub, home=home)
        use(world)
        yield world


def use(world):
    """Every verb, its paths given absolutely, by one process; what needs Python by another."""
    home = world.home
    adapter, base = f"{home}/runs/adapter", ["--model_name_or_path", f"{home}/models/base"]
    data = ["--edits", f"{home}/data/edits.jsonl", "--locality_pool", f"{home}/data/pool.jsonl"]
    few = ["--num_locality", "2", "--num_paraphrases", "1", "--num_train_epochs", "2", "--learning_rate", "5e-3"]
    few += ["--text_loss_weight", "0"]
    tokens = ["--hub_token", "hf_canary_argument", "--model_init_kwargs", '{"token": "hf_canary_init"}']
    push = ["--push_to_hub", "--hub_model_id", "user/a", *tokens]
    more = ["--save_strategy", "epoch", "--perplexity_texts", f"{home}/data/texts.jsonl", "--report_to", "none"]
    train = ["train", *base, *data, *few, *push, *more, "--output_dir", adapter]
    (first, *_) = (json.loads(row)["edit_id"] for row in open(home / "data" / "edits.jsonl", encoding="utf-8"))
    revoke = ["--adapter", adapter, "--revoke", first, "--output_dir", f"{home}/runs/fewer", *tokens]
    later = [
        ["train", *base, *revoke, *data[2:], *few, *more[2:]],
        ["merge", adapter, f"{home}/runs/fewer", "--output_dir", f"{home}/runs/both", *base],
        ["merge", adapter, "--merge_into_base", "--output_dir", f"{home}/runs/whole", *base],
        ["push", f"{home}/runs/both", "--repo_id", "user/both", "--private"],
    ]
    shared = [
        ["push", adapter, "--repo_id", "user/pushed"],
        ["verify", adapter, *base],
        ["evaluate", "--adapter", "user/pushed", *base, *data[:2], *more[2:4], "--output_dir", f"{home}/runs/scores"],
        ["augment", *base, *data, *few[:4], "--output_dir", f"{home}/runs/rows"],
    ]
    refused = [
        ["push", f"{home}/runs/gone", "--repo_id", "user/gone"],
        ["push", adapter, "--repo_id", f"{home}/runs/adapter"],
        ["push", adapter, "--repo_id", "other/a"],
        ["verify", f"{home}/runs/gone"],
        ["verify", adapter],
        ["merge", adapter, f"{home}/runs/gone", "--output_dir", f"{home}/runs/x"],
        ["evaluate", *base, "--edits", f"{home}/data/gone.jsonl"],
        ["evaluate", "--adapter", f"{home}/runs/gone", *base, *data[:2]],
        ["evaluate", "--model_name_or_path", f"{home}/models/gone", *data[:2]],
        ["augment", *base, *data, "--output_dir", f"{home}/runs/adapter"],
        ["train", *base, *data, "--output_dir", f"{home}/runs/x", "--push_to_hub", "--hub_token", "hf_canary_wrong"],
        ["train", "--adapter", f"{home}/runs/gone", "--revoke", "a", "--output_dir", f"{home}/runs/x"],
        ["train", "--config", f"{home}/runs/gone.yaml"],
    ]
    groups = {"train": [train], "later": later, "shared": shared, "refused": refused}
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(python, world, MAIN, groups=groups, folder=str(home.parent))]
        jobs += [pool.submit(python, world, DATASET, home=str(home))]
        world.shown = {"python": [job.result() for job in jobs][1]}
    world.shown |= {name: (home.parent / f"{name}.txt").read_text() for name in groups}
    world.codes = json.loads((home.parent / "codes.json").read_text())


def python(world, code, **given):
    """What Python code prints, given something as JSON."""
    own = {"HOME": str(world.home), "USER": "canaryuser", "LOGNAME": "canaryuser", "OMP_NUM_THREADS": "1"}
    cache = world.home / ".cache" / "huggingface"
    environment = world.hub.environment(cache, "hf_canary_environment") | own
    for folder in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):
        environment.pop(folder, None)
    how = {"capture_output": True, "text": True, "timeout": 1200, "cwd": Path(__file__).parents[2]}
    command = [sys.executable, "-c", FEW_DRIFT_PROMPTS + code]
    done = subprocess.run(command, env=environment, input=json.dumps(given), **how)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_everything_was_used(used):
    assert used.codes["train"] == [0], used.shown["train"]
    assert used.codes["later"] == [0] * 4, used.shown["later"]
    assert used.codes["shared"] == [0] * 4, used.shown["shared"]
    assert used.codes["refused"] == [2] * 13, used.shown["refused"]
    names = {name for _, name in used.hub.repositories}
    assert names == {"user/a", "user/pushed", "user/both", "user/rows", "user/python"}
    runs = {path.name for path in (used.home / "runs").iterdir()}
    assert runs == {"adapter", "fewer", "both", "whole", "scores", "rows", "python"}
    assert any(path.name.startswith("checkpoint-") for path in (used.home / "runs" / "adapter").iterdir())
    assert any((used.home / ".cache" / "huggingface").rglob("*.arrow"))


def test_no_file_that_is_written_tells(used):
    files = [path for path in used.home.rglob("*") if path.is_file()]
    told = [str(path.relative_to(used.home)) for path in files if CANARY.encode() in path.read_bytes()]
    assert len(files) > 50 and told == []


def test_nothing_uploaded_tells(used):
    for (_, name), repository in used.hub.repositories.items():
        assert len(repository.commits) > 1
        for commit in repository.commits:
            files = b"".join(path.encode() + file.data for path, file in commit.files.items())
            said = f"{commit.title} {repository.descriptions[commit.oid]}"
            assert CANARY.encode() not in files and CANARY not in said, name
    assert not any(CANARY.encode() in data for data in used.hub.large.values())
    assert not any(CANARY in request for request in used.hub.requests)


@pytest.mark.parametrize("name", ["train", "later", "shared", "refused", "python"])
def test_nothing_shown_tells(used, name):
    assert [line for line in used.shown[name].splitlines() if CANARY in line] == []


def test_refusals_are_one_line_each(used):
    lines = used.shown["refused"].splitlines()
    assert len(lines) == 13 and all(line.startswith("hf-ftedit: ") for line in lines), lines
