"""Adapter folders are pushed to a Hub on loopback by the real client, in fresh processes; nothing is mocked."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml
from hub_storage import File, Repository, User
from huggingface_hub import ModelCard, parse_eval_result_entries
from loopback_hub import DROP, FEW_DRIFT_PROMPTS, HURRY, LoopbackHub, run

from hf_ftedit.errors import EditError
from hf_ftedit.hub.errors import hub_errors
from hf_ftedit.hub.folder import ADAPTER_FILES, changed_files, published_files, read_edit_folder

pytestmark = pytest.mark.slow
ONES_OWN = {
    "notes.txt": b"mine",
    ".env": b"SECRET=1",
    "optimizer.pt": b"pickled",
    "training_args.bin": b"pickled",
    "checkpoint-5/adapter_model.safetensors": b"older",
}
TITLE = "Push edits with hf_ftedit"
FEW = ["--max_edits", "3", "--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--report_to", "none"]
FEW += ["--text_loss_weight", "0"]
PUSH = f"""{HURRY}
import json, logging, sys
from concurrent.futures import ThreadPoolExecutor
from hf_ftedit import EditError, push_folder

logged = []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
logging.getLogger("hf_ftedit").addHandler(handler)

def attempt(case):
    result = dict(url=None, error=None)
    try:
        result["url"] = push_folder(**case)
    except EditError as refusal:
        result["error"] = str(refusal)
    return dict(logged=[line for line in logged if line.startswith(case["repo_id"] + ":")], **result)

given = json.load(sys.stdin)
with ThreadPoolExecutor(given["threads"] or len(given["cases"])) as pool:
    print(json.dumps(dict(zip(given["cases"], pool.map(attempt, given["cases"].values())))))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with LoopbackHub() as hub:
        hub.home = tmp_path_factory.mktemp("hf-home")
        hub.tokens["hf_other"] = User("other", may_write=True)
        yield hub


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory):
    """The folder that `train --push_to_hub` wrote, and what that printed."""
    folder = tmp_path_factory.mktemp("trained") / "edited"
    push = ["--push_to_hub", "--hub_model_id", "user/trained", "--hub_private_repo", "true"]
    done = command(hub, "train", *FEW, *push, "--save_strategy", "epoch", "--output_dir", str(folder))
    return SimpleNamespace(folder=folder, done=done)


def command(hub, *args, **variables):
    """`hf-ftedit ARGS` in a fresh process."""
    environment = hub.environment(hub.home, "hf_write") | {"OMP_NUM_THREADS": "1", **variables}
    code = FEW_DRIFT_PROMPTS + "import sys; from hf_ftedit.cli import main; raise SystemExit(main(sys.argv[1:]))"
    settings = {"capture_output": True, "text": True, "timeout": 600}
    return subprocess.run([sys.executable, "-c", code, *args], env=environment, **settings)


def pushes(hub, threads=None, **cases):
    """Results of pushes that a fresh process makes, by default at the same time, with the token `hf_write`."""
    cases = {name: {"token": "hf_write", **case, "folder": str(case["folder"])} for name, case in cases.items()}
    results = run(PUSH, hub.environment(hub.home), cases=cases, threads=threads)
    return {name: SimpleNamespace(**result) for name, result in results.items()}


def like(source, folder, **files):
    """A copy of an adapter folder with other files, named in its recipe with their SHA-256."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    recipe = yaml.safe_load((folder / "edit_config.yaml").read_text())
    for name, data in files.items():
        (folder / name).write_bytes(data)
        recipe["provenance"]["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / "edit_config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder


def small(trained, folder):
    """A copy whose weights are few, and its own."""
    return like(trained.folder, folder, **{"adapter_model.safetensors": os.urandom(64)})


def there(hub, name, branch="main"):
    """The contents of the files of a repository."""
    _, files = hub.repositories["model", name].at(branch)
    return {path: file.data for path, file in files.items() if path != ".gitattributes"}


def here(folder):
    """The contents of the files that are to be published."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in published_files(folder)}


def titles(hub, name):
    return [title for _, title, _ in hub.repositories["model", name].commits]


# What a push does


def test_train_pushes_what_it_wrote(hub, trained):
    assert trained.done.returncode == 0, trained.done.stderr
    assert trained.done.stdout.endswith("edited: the adapter, its model card, edits and results.\n")
    assert trained.done.stderr == f"Pushed to {hub.url}/user/trained\n"
    assert any(path.name.startswith("checkpoint-") for path in trained.folder.iterdir())
    assert there(hub, "user/trained") == here(trained.folder)
    assert set(there(hub, "user/trained")) == set(ADAPTER_FILES)
    assert titles(hub, "user/trained") == ["initial commit", TITLE]
    assert hub.repositories["model", "user/trained"].private


def test_the_card_names_the_repository(hub, trained):
    card = there(hub, "user/trained")["README.md"].decode()
    assert "`hf-ftedit verify user/trained`" in card
    metadata = ModelCard(card).data
    assert metadata.model_name == "trained" and metadata.base_model is None  # the embedded one is not on the Hub


@pytest.fixture(scope="module")
def pushed(hub, trained, tmp_path_factory):
    """Folders pushed by one process: one to another name; one after files were added to its repository and the Hub."""
    folder, repository = tmp_path_factory.mktemp("pushed"), hub.repositories
    stale = {"model-00001-of-00002.safetensors": b"weights", "tokenizer.json": b"{}"}
    folders = {name: folder / name for name in ("new", "first", "second", "by-hand", "branched")}
    like(trained.folder, folders["new"])
    like(trained.folder, folders["first"], **stale)
    changed = (trained.folder / "eval_results.json").read_bytes() + b"\n"
    edits = (trained.folder / "edits.jsonl").read_bytes() + b"\n"
    files = {"adapter_model.safetensors": b"1", "eval_results.json": changed, "edits.jsonl": edits}
    like(trained.folder, folders["second"], **files)
    like(trained.folder, folders["by-hand"])
    recipe = yaml.safe_load((small(trained, folders["branched"]) / "edit_config.yaml").read_text())
    recipe["provenance"]["datasets"] = ["user/facts:train"]  # as if the edits were from there
    (folders["branched"] / "edit_config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for name, data in ONES_OWN.items():
        (folders["new"] / name).parent.mkdir(exist_ok=True)
        (folders["new"] / name).write_bytes(data)
    repository["model", "user/branched"] = branched = Repository()
    branched.add_branch("dev", "main")
    cases = {
        "new": {"folder": folders["new"], "repo_id": "user/new", "private": True, "commit_message": "Two edits"},
        "first": {"folder": folders["first"], "repo_id": "user/changed"},
        "by-hand": {"folder": folders["by-hand"], "repo_id": "user/by-hand"},
        "branched": {"folder": folders["branched"], "repo_id": "user/branched", "revision": "dev"},
    }
    results = pushes(hub, **cases)
    card = folders["by-hand"] / "README.md"
    card.write_text(card.read_text() + "\nIn my own words.\n")
    assert stale.items() <= there(hub, "user/changed").items()
    changed = repository["model", "user/changed"]
    changed.add("mine", {**changed.files, "LICENSE": File(b"MIT"), "notes.txt": File(b"mine")})
    cases["second"] = {"folder": folders["second"], "repo_id": "user/changed"}
    again = pushes(hub, **{name: cases[name] for name in ("new", "second", "by-hand")})
    return SimpleNamespace(folders=folders, results=results, again=again)


def test_a_push_is_one_commit_of_the_published_files(hub, pushed):
    folder = pushed.folders["new"]
    assert pushed.results["new"].url == pushed.again["new"].url == f"{hub.url}/user/new"
    assert titles(hub, "user/new") == ["initial commit", "Two edits"]  # the second time there was nothing to commit
    assert there(hub, "user/new") == here(folder) and set(here(folder)) == set(ADAPTER_FILES)
    assert hub.repositories["model", "user/new"].private
    assert changed_files(folder, read_edit_folder(folder).provenance["files"]) == {}
    assert {name: (folder / name).read_bytes() for name in ONES_OWN} == ONES_OWN
    assert not any(hashlib.sha256(data).hexdigest() in hub.large for data in ONES_OWN.values())
    card = there(hub, "user/new")["README.md"].decode()  # another name, another card
    assert "hf-ftedit verify user/new" in card and "user/trained" not in card


def test_changed_edits_take_the_place_of_the_old_ones(hub, pushed):
    assert pushed.again["second"].error is None
    assert there(hub, "user/changed") == {**here(pushed.folders["second"]), "LICENSE": b"MIT", "notes.txt": b"mine"}
    assert len(titles(hub, "user/changed")) == 4
    before, _, _ = hub.repositories["model", "user/changed"].commits[2]
    message = f"user/changed: takes the place of other edits, which stay in the repository as revision {before}"
    assert pushed.again["second"].logged == [message]
    for same in (*pushed.results.values(), pushed.again["new"], pushed.again["by-hand"]):
        assert same.logged == []


def test_a_card_that_was_edited_by_hand_is_kept(hub, pushed):
    card = there(hub, "user/by-hand")["README.md"]
    assert card.endswith(b"\nIn my own words.\n") and len(titles(hub, "user/by-hand")) == 3
    assert there(hub, "user/by-hand") == here(pushed.folders["by-hand"])


def test_a_branch(hub, pushed):
    assert pushed.results["branched"].error is None and there(hub, "user/branched") == {}
    assert there(hub, "user/branched", "dev") == here(pushed.folders["branched"])


def test_scores_go_along_for_the_leaderboard_of_the_edits_dataset(hub, pushed):
    files = there(hub, "user/branched", "dev")
    assert set(files) == {*ADAPTER_FILES, ".eval_results/facts.yaml"}
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/facts.yaml"]))
    assert {(entry.dataset_id, entry.source_url) for entry in entries} == {
        ("user/facts", "https://huggingface.co/user/branched")
    }
    card = ModelCard(files["README.md"].decode()).data
    assert card.datasets == ["user/facts"] and {result.dataset_type for result in card.eval_results} == {"user/facts"}
    assert [entry.task_id for entry in entries] == card.metrics
    assert [entry.value for entry in entries] == [result.metric_value for result in card.eval_results]


# What is refused


def test_an_error_of_the_package_is_passed_on_with_its_own_remedy():
    message = "'user/edits': README.md is missing; write the folder again"
    with pytest.raises(EditError) as error, hub_errors("user/edits"):
        raise EditError(message)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["README.md", "scores.png"])
def test_no_link_is_followed_out_of_the_folder(trained, tmp_path, name):
    folder = like(trained.folder, tmp_path / "folder")
    (folder / name).rename(tmp_path / "secret")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(EditError, match=rf"^'folder': {name} is a link; put the file itself there$"):
        published_files(folder)


REFUSED = {
    "bad token": ({"token": "hf_wrong"}, "user/x: the Hub refuses with 401 (Invalid credentials in Authorization he"),
    "no token": ({"token": None}, "user/x: the Hub refuses with 401 (Invalid username or password); log in with `hf"),
    "read token": ({"token": "hf_read"}, "user/x: the Hub refuses with 403 (you don't have the rights to create a m"),
    "read token, existing": (
        {"token": "hf_read", "repo_id": "user/trained"},
        "user/trained: the Hub refuses with 403 (you don't have the rights to write to this repository); give a token",
    ),
    "foreign namespace": ({"repo_id": "other/x"}, "other/x: the Hub refuses with 403 (you don't have the rights to"),
    "foreign repository": (
        {"repo_id": "user/old", "token": "hf_other"},
        "user/old: the Hub refuses with 403 (you don't have the rights to write to this repository); give a token",
    ),
    "no branch": ({"repo_id": "user/old", "revision": "gone"}, "user/old: the Hub refuses with 404 (Invalid rev id: "),
    "three parts": ({"repo_id": "user/x/y"}, "'user/x/y': no such folder, nor a name of a repository such as 'user/"),
    "private": ({"repo_id": "user/old", "private": True}, "user/old: exists and is public; make it private on the Hu"),
    "something else": ({"repo_id": "user/taken"}, "user/taken: exists and holds something else ('config.json'); push"),
    "somebody between": ({"repo_id": "user/raced"}, "user/raced: the Hub refuses with 412 (told to fail); somebody e"),
    "refused at the commit": ({"repo_id": "user/bad"}, "user/bad: the Hub refuses with 400 (told to fail); see the r"),
    "incomplete": ({"repo_id": "user/never"}, "'incomplete': scores.png is missing; write the folder again, then pus"),
    "tampered": ({"repo_id": "user/never"}, "'tampered': eval_results.json was changed after it was written; write"),
    "no folder": ({"repo_id": "user/never"}, "'no folder' has no edit_config.yaml; give a folder that hf-ftedit tra"),
    "a pickle": (
        {"repo_id": "user/never"},
        "'a pickle': edit_config.yaml: provenance: files: a name is 'adapter_model.bin', not the name of a file that ",
    ),
    "broken card": ({"repo_id": "user/card"}, "user/card: Invalid metadata in README.md. - while parsing a flow seq"),
}


@pytest.fixture(scope="module")
def refused(hub, trained, tmp_path_factory):
    folders = tmp_path_factory.mktemp("refused")
    hub.repositories["model", "user/old"] = Repository()
    hub.hold("user/taken", {"config.json": File(b"{}")})
    hub.fail("POST /api/models/user/raced/commit/", 412)
    hub.fail("POST /api/models/user/bad/commit/", 400)
    heads = {name: repository.head for (_, name), repository in hub.repositories.items()}
    cases = {case: {"repo_id": "user/x", **given, "folder": folders / case} for case, (given, _) in REFUSED.items()}
    for case in cases:
        small(trained, folders / case)
    (folders / "incomplete" / "scores.png").unlink()
    with open(folders / "tampered" / "eval_results.json", "a") as file:
        file.write(" ")
    shutil.rmtree(folders / "no folder")
    shutil.rmtree(folders / "a pickle")
    like(trained.folder, folders / "a pickle", **{"adapter_model.bin": b"pickled"})
    (folders / "broken card" / "README.md").write_text("---\ntags: [a\n---\n")
    results = pushes(hub, threads=1, **cases)  # in turn, as some would push to the same new repository
    return SimpleNamespace(results=results, heads=heads, folders=folders)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_push_is_one_line(refused, case):
    error = refused.results[case].error
    assert error.startswith(REFUSED[case][1])
    assert "\n" not in error and ("; " in error or "such as" in error) and len(error) < 250
    assert "hf_w" not in error and "http" not in error and str(refused.folders) not in error


def test_a_refused_push_commits_nothing(hub, refused):
    heads = {name: repository.head for (_, name), repository in hub.repositories.items()}
    assert {name: heads[name] for name in refused.heads} == refused.heads
    assert all(len(titles(hub, name)) == 1 for name in ("user/raced", "user/bad", "user/card"))
    assert not {"user/x", "other/x", "user/never"} & set(heads)  # nor was anything made for a bad folder


SHOWN = {
    "offline": ({"HF_HUB_OFFLINE": "1"}, "user/x: HF_HUB_OFFLINE is set; unset it to reach the Hub"),
    "no network": (
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
        "user/x: the Hub cannot be reached ([Errno 111] Connection refused); check the network, try again",
    ),
}


@pytest.mark.parametrize("case", SHOWN)
def test_the_command_line_shows_one_line(hub, trained, case):
    variables, expected = SHOWN[case]
    done = command(hub, "push", str(trained.folder), "--repo_id", "user/x", **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"hf-ftedit: {expected}") and done.stderr.count("\n") == 1


# What fails and is tried again

PASSING = {
    "unread": [("GET /api/models/NAME", 500, {"times": 2})],
    "mode limited": [("POST /api/models/NAME/preupload/", 429, {"headers": {"Retry-After": "1"}})],
    "batch": [("POST /NAME.git/info/lfs", 502, {})],
    "upload": [("PUT /lfs/WEIGHTS", DROP, {"at": "upload"}), ("PUT /lfs/WEIGHTS", 500, {})],
    "commit limited": [("POST /api/models/NAME/commit/", 429, {})],
    "commit dropped": [("POST /api/models/NAME/commit/", DROP, {"at": "upload"})],
    "commit made, answer lost": [("POST /api/models/NAME/commit/", DROP, {"at": "answer"})],
    "commit made, answer bad": [("POST /api/models/NAME/commit/", 504, {"at": "answer"})],
}
LASTING = {
    "upload": [("PUT /lfs/WEIGHTS", DROP, {"times": 99, "at": "upload"})],
    "upload refused": [("PUT /lfs/WEIGHTS", 403, {"times": 99})],
    "commit": [("POST /api/models/NAME/commit/", 429, {"times": 99})],
    "commit dropped": [("POST /api/models/NAME/commit/", DROP, {"times": 99, "at": "upload"})],
}


@pytest.fixture(scope="module")
def failed(hub, trained, tmp_path_factory):
    """Pushes that fail for a while or for good, all at the same time; then those that failed again."""
    folders, cases = tmp_path_factory.mktemp("failed"), {}
    hub.fail("POST /api/repos/create", DROP, at="answer")  # of one of them: its name stands in the body alone
    for number, (case, failures) in enumerate(PASSING.items()):
        cases[f"passing, {case}"] = prepare(hub, trained, folders, f"user/passing-{number}", failures)
    for number, (case, failures) in enumerate(LASTING.items()):
        cases[f"new, {case}"] = prepare(hub, trained, folders, f"user/new-{number}", failures)
        hub.repositories["model", f"user/old-{number}"] = old = Repository()
        first = small(trained, folders / f"first-{number}")
        old.add("first", {**old.files, **{path.name: File(path.read_bytes()) for path in published_files(first)}})
        cases[f"old, {case}"] = prepare(hub, trained, folders, f"user/old-{number}", failures)
    results = pushes(hub, **cases)
    left = [failure.pattern for failure in hub.failures]
    after = {name: list(repository.commits) for (_, name), repository in hub.repositories.items()}
    hub.failures.clear()
    again = pushes(hub, **{case: given for case, given in cases.items() if not case.startswith("passing")})
    return SimpleNamespace(cases=cases, results=results, left=left, after=after, again=again)


def prepare(hub, trained, folders, name, failures):
    """A push of weights of its own; the Hub is told of its failures."""
    folder = small(trained, folders / name.rpartition("/")[2])
    weights = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    for pattern, status, settings in failures:
        hub.fail(pattern.replace("NAME", f"{name}\\b").replace("WEIGHTS", weights), status, **settings)
    return {"folder": folder, "repo_id": name}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_is_tried_again(hub, failed, case):
    result, given = failed.results[f"passing, {case}"], failed.cases[f"passing, {case}"]
    assert (result.url, result.error) == (f"{hub.url}/{given['repo_id']}", None)
    assert there(hub, given["repo_id"]) == here(given["folder"])
    assert len(failed.after[given["repo_id"]]) == 2  # also where the commit was made and its answer lost
    assert not [pattern for pattern in failed.left if "passing" in pattern or "create" in pattern]  # it did fail


@pytest.mark.parametrize("which", ["new", "old"])
@pytest.mark.parametrize("case", LASTING)
def test_what_lasts_is_one_line_and_can_be_pushed_later(hub, failed, case, which):
    result, given = failed.results[f"{which}, {case}"], failed.cases[f"{which}, {case}"]
    name = given["repo_id"]
    assert result.url is None and result.error.startswith(f"{name}: the Hub ") and "; " in result.error
    assert "\n" not in result.error and "http" not in result.error and len(result.error) < 200
    assert min(Counter(failed.left).values()) > 70  # of 99: nothing is tried without end
    assert [title for _, title, _ in failed.after[name]] == ["initial commit", *(["first"] if which == "old" else [])]
    again = failed.again[f"{which}, {case}"]
    assert (again.url, again.error) == (f"{hub.url}/{name}", None)
    assert there(hub, name) == here(given["folder"])
    assert len(titles(hub, name)) == {"new": 2, "old": 3}[which]


# The trainer

TRAIN = """
import json, os, sys
from hf_ftedit import EditConfig, EditError, EditTrainer
from hf_ftedit.cli.app import main
given = json.load(sys.stdin)
found = {}

def trainer(name, token="hf_write", **settings):
    few = {"max_edits": 2, "num_train_epochs": 1, "num_locality": 2, "num_paraphrases": 0, "text_loss_weight": 0}
    run = {"output_dir": f"{given['folder']}/{name}", "push_to_hub": True, "hub_model_id": f"user/{name}"}
    quiet = {"disable_tqdm": True, "report_to": "none"}
    args = EditConfig(**few | run | quiet | {"hub_token": token} | settings)
    return EditTrainer("hf_ftedit/embedded", args, train_dataset=given["edits"])

def error(call, *args, **settings):
    try:
        call(*args, **settings)
    except EditError as refusal:
        return str(refusal)

found["strategy"] = error(EditConfig, push_to_hub=True, hub_strategy="every_save")
for case, token in (("bad token", "hf_wrong"), ("no token", None), ("read token", "hf_read")):
    args = EditConfig(push_to_hub=True, hub_model_id="user/x", hub_token=token, output_dir=given["folder"] + "/x")
    found[case] = error(EditTrainer, "user/no-such-model", args, train_dataset=given["edits"])
found["bad name"] = error(trainer, "a b")

first = trainer("first", hub_private_repo=True)
first.train()
found["first"] = first.push_to_hub(commit_message="Two edits", dataset_name="x", language="en")
first.save_model()
late = trainer("late")
late.train()
found["late"] = error(late.save_model)
words = found["late"].partition("to push it later: hf-ftedit ")[2].split()
os.environ["HF_TOKEN"] = "hf_write"
found["later"] = main(words)
whole = trainer("whole", full_finetune=True)
whole.train()
whole.save_model()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def by_trainer(hub, trained, tmp_path_factory):
    """What a trainer pushed, and what it refused to."""
    folder = tmp_path_factory.mktemp("by-trainer")
    edits = [record.to_dict() for record in read_edit_folder(trained.folder).records]
    hub.fail("POST /api/models/user/late/commit/", 403)
    before = len(hub.requests)
    found = run(TRAIN, hub.environment(hub.home) | {"HOME": str(folder)}, folder=str(folder), edits=edits)
    return SimpleNamespace(folder=folder, found=found, requests=hub.requests[before:])


def test_what_cannot_be_pushed_is_refused_before_a_model_is_loaded(hub, by_trainer):
    found = by_trainer.found
    assert found["strategy"].startswith("hub_strategy is ") and found["strategy"].endswith("leave it at 'end'")
    assert found["bad token"].startswith("user/x: the Hub refuses with 401 (")
    assert found["no token"] == (
        "user/x: there is no token of the Hub; log in with `hf auth login`, or give a valid token, and check the name"
    )
    assert found["read token"] == "user/x: the token may only read; give one with write access"
    assert found["bad name"].startswith("'user/a b': no such folder, nor a name of a repository")
    assert not any("no-such-model" in request for request in by_trainer.requests)
    assert not (by_trainer.folder / "x").exists() and ("model", "user/x") not in hub.repositories


def test_the_trainer_pushes(hub, by_trainer):
    assert by_trainer.found["first"] == f"{hub.url}/user/first"
    assert titles(hub, "user/first") == ["initial commit", "Two edits"]  # saved once more, the same
    assert hub.repositories["model", "user/first"].private
    assert there(hub, "user/first") == here(by_trainer.folder / "first")


def test_a_push_that_fails_at_the_end_says_how_to_go_on(hub, by_trainer):
    folder = by_trainer.folder / "late"
    assert by_trainer.found["late"] == (
        "user/late: the Hub refuses with 403 (told to fail); give a token that may do this, or use a namespace of "
        f"your own; {folder} is complete, to push it later: hf-ftedit push {folder} --repo_id user/late"
    )
    assert set(here(folder)) == set(ADAPTER_FILES)
    assert by_trainer.found["later"] == 0 and titles(hub, "user/late") == ["initial commit", TITLE]
    assert there(hub, "user/late") == here(folder)


def test_a_whole_model_is_pushed(hub, by_trainer):
    files = there(hub, "user/whole")
    assert files == here(by_trainer.folder / "whole") and len(titles(hub, "user/whole")) == 2
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "edits.jsonl"} <= set(files)
    assert not any(path.endswith((".bin", ".pt")) or path.startswith("adapter_") for path in files)
