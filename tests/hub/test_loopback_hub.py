"""The Hub on loopback is enough of a Hub for the real client; its failures are those that the tests of pushes name."""

import hashlib
import os
from types import SimpleNamespace

import pytest
from hub_storage import File, Repository
from loopback_hub import LoopbackHub, run

FILES = {
    "README.md": b"---\nlicense: mit\ntags: [edit]\nlibrary_name: peft\n---\n\n# Card\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "weights.safetensors": os.urandom(300_001),
    "nested/deep/state.bin": os.urandom(7),
    "nested/a b #1 é.txt": bytes(range(256)),
}

PREPARE = """
import json, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

given, api, found = json.load(sys.stdin), HfApi(), {}

def upload(name, data=b"new", path="new.txt", **arguments):
    api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=name, **arguments)

def attempt(call):
    try:
        return call()
    except Exception as error:
        response = getattr(error, "response", None)
        return [type(error).__name__, response.status_code if response is not None else str(error)]
"""
SHARE = f"""{PREPARE}
name = "user/adapter"
api.create_repo(name, private=True)
commit = api.upload_folder(repo_id=name, folder_path=given["folder"], commit_message="Add", commit_description="Why")
upload(name, b"[]", "config.json")
upload(name, b"[]", "config.json")
changes = [CommitOperationAdd("notes.txt", b"new"), CommitOperationDelete("config.json")]
changes += [CommitOperationDelete("nested/", is_folder=True)]
found["changed"] = api.create_commit(name, changes, commit_message="Change").oid
for case, revision in (("first", commit.oid), ("short", commit.oid[:8]), ("last", None)):
    api.snapshot_download(name, revision=revision, local_dir=given["out"] + case)
api.snapshot_download(name, allow_patterns=["*.safetensors", "*.md"], local_dir=given["out"] + "some")
info = api.model_info(name, revision=commit.oid, files_metadata=True)
found["info"] = [info.sha == commit.oid, info.private, info.tags, info.library_name, info.card_data.license]
found["sizes"] = {{file.rfilename: [file.size, file.lfs and file.lfs.sha256] for file in info.siblings}}
found["files"] = api.list_repo_files(name, revision=commit.oid)
print(json.dumps(found))
"""


def contents(folder):
    """The bytes of all files of a downloaded folder, by path, without the client's own records and what git adds."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    ignored = (".cache/", ".gitattributes")
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(ignored)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The Hub after a repository was made, changed and downloaded, the folder of the downloads, and what was found."""
    home = tmp_path_factory.mktemp("home")
    for name, data in FILES.items():
        (home / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "folder" / name).write_bytes(data)
    with LoopbackHub() as hub:
        environment = hub.environment(home / "cache", "hf_write")
        found = run(SHARE, environment, folder=str(home / "folder"), out=f"{home}/out-")
        yield SimpleNamespace(hub=hub, home=home, **found)


def test_downloads_are_byte_for_byte_what_was_uploaded(shared):
    changed = {name: data for name, data in FILES.items() if name != "config.json" and "nested" not in name}
    assert contents(shared.home / "out-first") == contents(shared.home / "out-short") == FILES
    assert contents(shared.home / "out-last") == changed | {"notes.txt": b"new"}
    assert sorted(contents(shared.home / "out-some")) == ["README.md", "weights.safetensors"]


def test_a_repository_is_described(shared):
    repository = shared.hub.repositories["model", "user/adapter"]
    assert repository.head == shared.changed and repository.private
    titles = ["initial commit", "Add", "Upload config.json with huggingface_hub", "Change"]  # nothing twice
    assert [title for _, title, _ in repository.commits] == titles
    assert repository.descriptions[repository.commits[1].oid] == "Why"
    assert shared.files == sorted([".gitattributes", *FILES])
    assert shared.info == [True, True, ["edit"], "peft", "mit"]
    assert {name: shared.sizes[name][0] for name in FILES} == {name: len(data) for name, data in FILES.items()}
    large = {name: sha for name, (_, sha) in shared.sizes.items() if sha}
    names = ("weights.safetensors", "nested/deep/state.bin")
    assert large == {name: hashlib.sha256(FILES[name]).hexdigest() for name in names}


def test_large_contents_are_elsewhere_and_no_token_gets_there(shared):
    lfs = [request for request in shared.hub.requests if "/lfs/" in request and "batch" not in request]
    assert len([request for request in lfs if request.startswith("PUT")]) == 2  # each content once
    assert any(request.startswith("GET") for request in lfs)  # the storage refuses requests with a token


CASES = {
    "private": ("api.model_info('other/secret')", "RepositoryNotFoundError", 404),
    "private, no token": ("api.hf_hub_download('other/secret', 'a.txt', token=False)", "RepositoryNotFoundError", 401),
    "no revision": ("api.snapshot_download('user/own', revision='gone')", "RevisionNotFoundError", 404),
    "no file": ("api.hf_hub_download('user/own', 'gone.txt')", "RemoteEntryNotFoundError", 404),
    "moved on": ("upload('user/own', parent_commit='0' * 40)", "HfHubHTTPError", 412),
    "delete what is gone": ("api.delete_file('gone', 'user/own')", "RemoteEntryNotFoundError", 404),
}
REFUSE = f"""{PREPARE}
print(json.dumps({{case: attempt(lambda: repr(eval(call))) for case, call in given["cases"].items()}}))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    with LoopbackHub() as hub:
        for name in ("user/own", "other/public", "other/secret"):
            hub.repositories["model", name] = Repository(name == "other/secret")
            hub.repositories["model", name].add("A file", {"a.txt": File(b"a")})
        cases = {case: call for case, (call, _, _) in CASES.items()}
        yield hub, run(REFUSE, hub.environment(tmp_path_factory.mktemp("home"), "hf_write"), cases=cases)


@pytest.mark.parametrize("case", CASES)
def test_who_may_not_is_refused(refused, case):
    assert refused[1][case] == list(CASES[case][1:])


def test_a_refusal_changes_nothing(refused):
    repositories = refused[0].repositories
    assert len(repositories) == 3 and all(len(repository.commits) == 2 for repository in repositories.values())
