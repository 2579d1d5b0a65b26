"""Adapter folders are pushed to a Hub on loopback by the real client, in fresh processes; nothing is mocked."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import yaml
from hub_storage import File, Repository, User
from loopback_hub import DROP, LoopbackHub

from hf_ftedit.hub.card_metadata import metadata_of
from hf_ftedit.hub.edit_folder import ADAPTER_FILES, changed_files, published_files, read_edit_folder

ONES_OWN = {
    "notes.txt": b"mine",
    ".env": b"SECRET=1",
    "optimizer.pt": b"pickled",
    "training_args.bin": b"pickled",
    "checkpoint-5/adapter_model.safetensors": b"older",
}
FEW = ["--max_edits", "3", "--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--report_to", "none"]
PUSH = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from hf_ftedit import EditError, push_folder

def attempt(case):
    start, url, error = time.monotonic(), None, None
    try:
        url = push_folder(**case)
    except EditError as refusal:
        error = str(refusal)
    return {"url": url, "error": error, "seconds": time.monotonic() - start}

cases = json.load(sys.stdin)
with ThreadPoolExecutor(len(cases)) as pool:
    print(json.dumps(dict(zip(cases, pool.map(attempt, cases.values())))))
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


def command(hub, *args, token="hf_write", **variables):
    """`hf-ftedit ARGS` in a fresh process."""
    return process(hub, ["-m", "hf_ftedit", *args], token, **variables)


def process(hub, program, token=None, given=None, **variables):
    environment = hub.environment(hub.home, token) | {"OMP_NUM_THREADS": "1", **variables}
    how = {"capture_output": True, "text": True, "timeout": 300}
    return subprocess.run([sys.executable, *program], env=environment, input=json.dumps(given), **how)


def pushes(hub, **cases):
    """What became of pushes that a fresh process makes at the same time; the token is `hf_write` unless given."""
    cases = {name: {"token": "hf_write", **case, "folder": str(case["folder"])} for name, case in cases.items()}
    done = process(hub, ["-c", PUSH], given=cases, HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert done.returncode == 0, done.stderr
    return {name: SimpleNamespace(**found) for name, found in json.loads(done.stdout.splitlines()[-1]).items()}


def like(trained, folder, **files):
    """A copy of the trained folder with other files, named in its recipe with their SHA-256."""
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    recipe = yaml.safe_load((folder / "edit_config.yaml").read_text())
    for name, data in files.items():
        (folder / name).write_bytes(data)
        recipe["provenance"]["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / "edit_config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder


def small(trained, folder):
    """A copy whose weights are few, and its own."""
    return like(trained, folder, **{"adapter_model.safetensors": os.urandom(64)})


def there(hub, name, branch="main"):
    """The contents of the files of a repository."""
    _, files = hub.repositories["model", name].at(branch)
    return {path: file.data for path, file in files.items() if path != ".gitattributes"}


def here(folder):
    """The contents of the files that are to be published."""
    return {path.name: path.read_bytes() for path in published_files(folder)}


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
    assert titles(hub, "user/trained") == ["initial commit", "Push edits with hf_ftedit"]
    assert hub.repositories["model", "user/trained"].private


def test_a_push_is_one_commit_of_the_published_files(hub, trained, tmp_path):
    folder = like(trained, tmp_path / "folder")
    for name, data in ONES_OWN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    done = command(hub, "push", str(folder), "--repo_id", "user/new", "--commit_message", "Two edits")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Pushed to {hub.url}/user/new\n", "")
    assert titles(hub, "user/new") == ["initial commit", "Two edits"]
    assert there(hub, "user/new") == here(folder) and set(here(folder)) == set(ADAPTER_FILES)
    assert not hub.repositories["model", "user/new"].private
    assert changed_files(folder, read_edit_folder(folder).provenance["files"]) == {}
    assert {name: (folder / name).read_bytes() for name in ONES_OWN} == ONES_OWN
    assert not any(hashlib.sha256(data).hexdigest() in hub.large for data in ONES_OWN.values())

    again = command(hub, "push", str(folder), "--repo_id", "user/new")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert len(titles(hub, "user/new")) == 2


def test_the_card_names_the_repository(hub, trained):
    card = there(hub, "user/trained")["README.md"].decode()
    assert "`hf-ftedit verify user/trained`" in card
    assert 'PeftModel.from_pretrained(model, "user/trained")' in card
    assert 'load_edited_model("user/trained")' in card and "--lora-modules edits=user/trained" in card
    metadata = metadata_of(card)
    assert {"model-editing", "knowledge-editing", "hf-ftedit", "lora"} <= set(metadata["tags"])
    assert metadata["library_name"] == "peft" and metadata["model-index"][0]["name"] == "trained"
    assert "base_model" not in metadata  # the embedded one is not on the Hub


def test_another_name_another_card(hub, trained, tmp_path):
    folder = like(trained, tmp_path / "folder")
    found = pushes(hub, moved={"folder": folder, "repo_id": "user/moved", "private": True})["moved"]
    assert found.url == f"{hub.url}/user/moved" and hub.repositories["model", "user/moved"].private
    card = there(hub, "user/moved")["README.md"].decode()
    assert "hf-ftedit verify user/moved" in card and "user/trained" not in card
    assert there(hub, "user/moved") == here(folder)


def test_changed_edits_take_the_place_of_the_old_ones(hub, trained, tmp_path):
    stale = {"model-00001-of-00002.safetensors": b"weights", "tokenizer.json": b"{}"}
    first = like(trained, tmp_path / "first", **stale)
    second = like(trained, tmp_path / "second", **{"adapter_model.safetensors": b"others", "eval_results.json": b"{}"})
    (second / "eval_results.json").write_bytes((first / "eval_results.json").read_bytes() + b"\n")
    second = like(
        SimpleNamespace(folder=second),
        tmp_path / "third",
        **{"eval_results.json": (second / "eval_results.json").read_bytes()},
    )
    pushes(hub, first={"folder": first, "repo_id": "user/changed"})
    assert stale.items() <= there(hub, "user/changed").items()
    repository = hub.repositories["model", "user/changed"]
    repository.add("mine", {**repository.files, "LICENSE": File(b"MIT"), "notes.txt": File(b"mine")})
    assert pushes(hub, second={"folder": second, "repo_id": "user/changed"})["second"].error is None
    assert there(hub, "user/changed") == {**here(second), "LICENSE": b"MIT", "notes.txt": b"mine"}
    assert len(titles(hub, "user/changed")) == 4


def test_a_card_that_was_edited_by_hand_is_kept(hub, trained, tmp_path):
    folder = like(trained, tmp_path / "folder")
    card = folder / "README.md"
    pushes(hub, first={"folder": folder, "repo_id": "user/by-hand"})
    card.write_text(card.read_text() + "\nIn my own words.\n")
    pushes(hub, second={"folder": folder, "repo_id": "user/by-hand"})
    assert there(hub, "user/by-hand")["README.md"] == card.read_bytes()
    assert card.read_text().endswith("\nIn my own words.\n")
    assert len(titles(hub, "user/by-hand")) == 3
    assert there(hub, "user/by-hand") == here(folder)


def test_a_branch(hub, trained, tmp_path):
    folder = small(trained, tmp_path / "folder")
    hub.repositories["model", "user/branched"] = repository = Repository()
    repository.add_branch("dev", "main")
    done = command(hub, "push", str(folder), "--repo_id", "user/branched", "--revision", "dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert there(hub, "user/branched", "dev") == here(folder) and there(hub, "user/branched") == {}


# What is refused

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
    "read-only": (
        {"repo_id": "user/archived"},
        "user/archived: the Hub refuses with 403 (this repository is archived",
    ),
    "no branch": (
        {"repo_id": "user/old", "revision": "gone"},
        "user/old: the Hub refuses with 404 (Invalid rev id: gone); check the name",
    ),
    "no branch of a new one": ({"revision": "gone"}, "user/x: the Hub refuses with 404 (Invalid rev id: gone); check"),
    "three parts": ({"repo_id": "user/x/y"}, "'user/x/y': no such folder, nor a name of a repository such as 'user/"),
    "bad characters": ({"repo_id": "user/a b"}, "'user/a b': no such folder, nor a name of a repository such as 'us"),
    "private": (
        {"repo_id": "user/old", "private": True},
        "user/old: exists and is public; make it private on the Hub",
    ),
    "something else": (
        {"repo_id": "user/taken"},
        "user/taken: exists and holds something else ('config.json'); push to another name",
    ),
    "somebody between": (
        {"repo_id": "user/raced"},
        "user/raced: the Hub refuses with 412 (told to fail); somebody else changed it meanwhile; try again",
    ),
    "refused at the commit": (
        {"repo_id": "user/bad"},
        "user/bad: the Hub refuses with 400 (told to fail); see the re",
    ),
    "incomplete": ({"repo_id": "user/never"}, "'incomplete': scores.png is missing; write the folder again, then pus"),
    "tampered": ({"repo_id": "user/never"}, "'tampered': eval_results.json was changed after it was written; write"),
    "no folder": ({"repo_id": "user/never"}, "'no folder' has no edit_config.yaml; give a folder that hf-ftedit wro"),
    "a pickle": ({"repo_id": "user/never"}, "'a pickle': edit_config.yaml names a file that must not be published;"),
    "broken card": ({"repo_id": "user/card"}, "user/card: Invalid metadata in README.md. - while parsing a flow seq"),
}


@pytest.fixture(scope="module")
def refused(hub, trained, tmp_path_factory):
    folders = tmp_path_factory.mktemp("refused")
    hub.repositories["model", "user/old"] = Repository()
    hub.repositories["model", "user/archived"] = Repository(read_only=True)
    hub.repositories["model", "user/taken"] = Repository()
    hub.repositories["model", "user/taken"].add("a model", {"config.json": File(b"{}")})
    hub.fail("POST /api/models/user/raced/commit/", 412)
    hub.fail("POST /api/models/user/bad/commit/", 400)
    heads = {name: repository.head for (_, name), repository in hub.repositories.items()}
    cases = {case: {"repo_id": "user/x", **given} for case, (given, _) in REFUSED.items()}
    for case in cases:
        cases[case]["folder"] = folders / case
        small(trained, folders / case)
    (folders / "incomplete" / "scores.png").unlink()
    (folders / "tampered" / "eval_results.json").write_text(
        (folders / "broken card" / "eval_results.json").read_text() + " "
    )
    shutil.rmtree(folders / "no folder")
    shutil.rmtree(folders / "a pickle")
    like(trained, folders / "a pickle", **{"adapter_model.bin": b"pickled"})
    (folders / "broken card" / "README.md").write_text("---\ntags: [a\n---\n")
    # One after the other, as some would push to the same new repository.
    return SimpleNamespace(found=in_turn(hub, cases), heads=heads, folders=folders)


def in_turn(hub, cases):
    program = PUSH.replace("ThreadPoolExecutor(len(cases))", "ThreadPoolExecutor(1)")
    given = {name: {"token": "hf_write", **case, "folder": str(case["folder"])} for name, case in cases.items()}
    done = process(hub, ["-c", program], given=given, HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_push_is_one_line(refused, case):
    error = refused.found[case]["error"]
    assert error.startswith(REFUSED[case][1])
    assert "\n" not in error and ("; " in error or "such as" in error) and len(error) < 250
    assert "hf_w" not in error and "http" not in error and str(refused.folders) not in error


def test_a_refused_push_changes_nothing(hub, refused):
    heads = {name: repository.head for (_, name), repository in hub.repositories.items()}
    assert {name: heads[name] for name in refused.heads} == refused.heads
    gone = {"user/x", "other/x", "user/raced", "user/bad", "user/never", "user/card"}
    assert not gone & set(heads)


def test_a_bad_folder_is_refused_before_anything_is_asked(hub, refused):
    assert not any("user/never" in request for request in hub.requests)
    made = [request for request in hub.requests if request.startswith("POST /api/repos/create")]
    assert made  # a name in its body is not seen above
    assert ("model", "user/never") not in hub.repositories


SHOWN = {
    "bad token": (
        ["user/x"],
        "hf_wrong",
        {},
        "user/x: the Hub refuses with 401 (Invalid credentials in Authorization",
    ),
    "no token": (["user/x"], None, {}, "user/x: the Hub refuses with 401 (Invalid username or password); log in with"),
    "read token": (["user/x"], "hf_read", {}, "user/x: the Hub refuses with 403 (you don't have the rights to create"),
    "public": (["user/trained", "--private"], "hf_other", {}, "user/trained: the Hub refuses with 403"),
    "offline": (["user/x"], None, {"HF_HUB_OFFLINE": "1"}, "user/x: HF_HUB_OFFLINE is set; unset it to reach the Hub"),
    "no network": (
        ["user/x"],
        "hf_write",
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
        "user/x: the Hub cannot be reached ([Errno 111] Connection refused); check the network, try again",
    ),
}


@pytest.mark.parametrize("case", SHOWN)
def test_the_command_line_shows_one_line(hub, trained, tmp_path, case):
    args, token, variables, expected = SHOWN[case]
    done = command(hub, "push", str(trained.folder), "--repo_id", *args, token=token, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"hf-ftedit: {expected}") and done.stderr.count("\n") == 1


# What fails and is tried again

PASSING = {
    "limited": [("POST /api/repos/create", 429, {"headers": {"Retry-After": "2"}})],
    "busy": [("POST /api/repos/create", 503, {})],
    "dropped": [("POST /api/repos/create", DROP, {})],
    "made, answer lost": [("POST /api/repos/create", DROP, {"at": "answer"})],
    "unread": [("GET /api/models/NAME", 500, {"times": 2})],
    "unread, dropped": [("GET /api/models/NAME", DROP, {})],
    "mode limited": [("POST /api/models/NAME/preupload/", 429, {"headers": {"Retry-After": "1"}})],
    "batch": [("POST /NAME.git/info/lfs", 502, {})],
    "upload": [("PUT /lfs/WEIGHTS", DROP, {"at": "upload"}), ("PUT /lfs/WEIGHTS", 500, {})],
    "commit limited": [("POST /api/models/NAME/commit/", 429, {"headers": {"Retry-After": "2"}})],
    "commit dropped": [("POST /api/models/NAME/commit/", DROP, {"at": "upload"})],
    "commit made, answer lost": [("POST /api/models/NAME/commit/", DROP, {"at": "answer"})],
    "commit made, answer bad": [("POST /api/models/NAME/commit/", 504, {"at": "answer"})],
    "commit made, and again unread": [
        ("POST /api/models/NAME/commit/", DROP, {"at": "answer"}),
        ("POST /api/models/NAME/paths-info/", DROP, {}),
    ],
}
LASTING = {
    "mode": [("POST /api/models/NAME/preupload/", 500, {"times": 99})],
    "batch": [("POST /NAME.git/info/lfs", DROP, {"times": 99})],
    "upload": [("PUT /lfs/WEIGHTS", DROP, {"times": 99, "at": "upload"})],
    "upload refused": [("PUT /lfs/WEIGHTS", 403, {"times": 99})],
    "commit": [("POST /api/models/NAME/commit/", 429, {"times": 99, "headers": {"Retry-After": "1"}})],
    "commit dropped": [("POST /api/models/NAME/commit/", DROP, {"times": 99, "at": "upload"})],
}


@pytest.fixture(scope="module")
def slow(hub, trained, tmp_path_factory):
    """What takes long: pushes that fail for a while or for good, meanwhile a trainer; then the failed ones again."""
    folders, cases = tmp_path_factory.mktemp("failed"), {}
    for number, (case, failures) in enumerate(PASSING.items()):
        cases[f"passing, {case}"] = prepare(hub, trained, folders, f"user/passing-{number}", failures)
    for number, (case, failures) in enumerate(LASTING.items()):
        cases[f"new, {case}"] = prepare(hub, trained, folders, f"user/new-{number}", failures)
        hub.repositories["model", f"user/old-{number}"] = old = Repository()
        first = small(trained, folders / f"first-{number}")
        old.add("first", {**old.files, **{path.name: File(path.read_bytes()) for path in published_files(first)}})
        cases[f"old, {case}"] = prepare(hub, trained, folders, f"user/old-{number}", failures)
    heads = {name: repository.head for (_, name), repository in hub.repositories.items()}
    alone = [case for case in cases if "create" in str(PASSING.get(case.removeprefix("passing, "), ""))]
    found = {}
    for case in alone:  # a name stands in the body of the request, so these take their failure from one another
        for failure in PASSING[case.removeprefix("passing, ")]:
            hub.fail(*failure[:2], **failure[2])
        found |= pushes(hub, **{case: cases[case]})
    with ThreadPoolExecutor(1) as pool:
        trainer = pool.submit(use_trainer, hub, trained, tmp_path_factory.mktemp("by-trainer"))
        found |= pushes(hub, **{case: given for case, given in cases.items() if case not in alone})
        by_trainer = trainer.result()
    left = list(hub.failures)
    after = {name: list(repository.commits) for (_, name), repository in hub.repositories.items()}
    published = {case: here(given["folder"]) for case, given in cases.items()}
    hub.failures.clear()
    again = pushes(hub, **{case: given for case, given in cases.items() if not case.startswith("passing")})
    pushed = SimpleNamespace(cases=cases, heads=heads, found=found, after=after, again=again)
    pushed.left, pushed.published = left, published
    return SimpleNamespace(failed=pushed, by_trainer=by_trainer)


@pytest.fixture(scope="module")
def failed(slow):
    """The pushes that failed, what became of them, the Hub after them; and what became of them again."""
    return slow.failed


@pytest.fixture(scope="module")
def by_trainer(slow):
    """What a trainer pushed, and what it refused to."""
    return slow.by_trainer


def prepare(hub, trained, folders, name, failures):
    """A push of weights of its own; the Hub is told of its failures, unless they are at the making of repositories."""
    folder = small(trained, folders / name.rpartition("/")[2])
    weights = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    for pattern, status, how in failures:
        if "create" not in pattern:
            hub.fail(pattern.replace("NAME", f"{name}\\b").replace("WEIGHTS", weights), status, **how)
    return {"folder": folder, "repo_id": name}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_is_tried_again(hub, failed, case):
    found, given = failed.found[f"passing, {case}"], failed.cases[f"passing, {case}"]
    assert (found.url, found.error) == (f"{hub.url}/{given['repo_id']}", None)
    assert there(hub, given["repo_id"]) == failed.published[f"passing, {case}"]
    assert len(failed.after[given["repo_id"]]) == 2  # also where the commit was made and its answer lost
    assert found.seconds >= (2 if "limited" in case and "mode" not in case else 0)


def test_all_passing_failures_happened(failed):
    assert all(failure.status != 429 or "commit" in failure.pattern for failure in failed.left)
    assert not [failure for failure in failed.left if "passing" in failure.pattern or "create" in failure.pattern]


@pytest.mark.parametrize("case", LASTING)
def test_what_lasts_is_one_line_and_leaves_the_hub_as_it_was(hub, failed, case):
    for which in ("new", "old"):
        found, given = failed.found[f"{which}, {case}"], failed.cases[f"{which}, {case}"]
        name = given["repo_id"]
        assert found.url is None and found.error.startswith(f"{name}: the Hub ") and "; " in found.error
        assert "\n" not in found.error and "http" not in found.error and len(found.error) < 200 and found.seconds < 60
        commits = failed.after.get(name)
        assert commits is None if which == "new" else commits[-1].oid == failed.heads[name]
        again = failed.again[f"{which}, {case}"]
        assert (again.url, again.error) == (f"{hub.url}/{name}", None)
        assert there(hub, name) == failed.published[f"{which}, {case}"] == here(given["folder"])
        assert len(titles(hub, name)) == {"new": 2, "old": 3}[which]


# The trainer

TRAIN = """
import json, sys
from hf_ftedit import EditConfig, EditError, EditTrainer
from hf_ftedit.cli.app import main
given = json.load(sys.stdin)
found = {}

def trainer(name, token="hf_write", **settings):
    few = {"max_edits": 2, "num_train_epochs": 1, "num_locality": 2, "num_paraphrases": 0, "report_to": "none"}
    run = {"output_dir": f"{given['folder']}/{name}", "push_to_hub": True, "hub_model_id": f"user/{name}"}
    args = EditConfig(**few | run | {"hub_token": token, "disable_tqdm": True} | settings)
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
whole = trainer("whole", full_finetune=True)
whole.train()
whole.save_model()
merged = trainer("merged", merge_into_base=True)
merged.train()
merged.save_model()
push = ["--push_to_hub", "--hub_model_id", "user/x", "--hub_token", "hf_wrong"]
found["code"] = main(["train", *push, "--output_dir", given["folder"] + "/x"])
print(json.dumps(found))
"""


def use_trainer(hub, trained, folder):
    edits = [record.to_dict() for record in read_edit_folder(trained.folder).records]
    hub.fail("POST /api/models/user/late/commit/", 403)
    asked = len(hub.requests)
    done = process(hub, ["-c", TRAIN], given={"folder": str(folder), "edits": edits}, HOME=str(folder))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return SimpleNamespace(folder=folder, found=found, stderr=done.stderr, requests=hub.requests[asked:])


def test_what_cannot_be_pushed_is_told_before_a_model_is_loaded(hub, by_trainer):
    found = by_trainer.found
    assert found["strategy"].startswith("hub_strategy is ") and found["strategy"].endswith("leave it at 'end'")
    assert found["bad token"].startswith("user/x: the Hub refuses with 401 (")
    assert found["no token"] == (
        "user/x: there is no token of the Hub; log in with `hf auth login`, or give a valid token, and check the name"
    )
    assert found["read token"] == "user/x: the token may only read; give one with write access"
    assert found["bad name"].startswith("'user/a b': no such folder, nor a name of a repository")
    assert not any("no-such-model" in request for request in by_trainer.requests)
    assert found["code"] == 2 and "hf-ftedit: user/x: the Hub refuses with 401 (" in by_trainer.stderr
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
    assert ("model", "user/late") not in hub.repositories and set(here(folder)) == set(ADAPTER_FILES)
    done = command(hub, "push", str(folder), "--repo_id", "user/late")
    assert done.returncode == 0 and there(hub, "user/late") == here(folder)


@pytest.mark.parametrize("name", ["whole", "merged"])
def test_whole_models_are_pushed(hub, by_trainer, name):
    files = there(hub, f"user/{name}")
    assert files == here(by_trainer.folder / name) and len(titles(hub, f"user/{name}")) == 2
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "edits.jsonl"} <= set(files)
    assert not any(path.endswith((".bin", ".pt")) or path.startswith("adapter_") for path in files)
    assert metadata_of(files["README.md"].decode())["library_name"] == "transformers"
