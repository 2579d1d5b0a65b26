"""What the tests of pushes and downloads rely on: the Hub on loopback keeps bytes, and refuses as the real one."""

import os

import pytest
from hub_storage import File, Repository
from loopback_hub import LoopbackHub, run

FILES = {"README.md": b"---\nlicense: mit\n---\n", "weights.safetensors": os.urandom(300_001), "a b/é.txt": b"\0\xff"}
CALLS = """
import json, sys
from huggingface_hub import HfApi

given, api, answers = json.load(sys.stdin), HfApi(), {}
api.create_repo("user/kept", private=True)
commit = api.upload_folder(repo_id="user/kept", folder_path=given["folder"])
for _ in range(2):  # the second time there is nothing to commit
    api.upload_file(path_or_fileobj=b"new", path_in_repo="README.md", repo_id="user/kept")
api.snapshot_download("user/kept", revision=commit.oid[:8], local_dir=given["folder"] + "-again")
for case, call in given["cases"].items():
    try:
        answers[case] = repr(eval(call))
    except Exception as error:
        answers[case] = [type(error).__name__, error.response.status_code]
print(json.dumps(answers))
"""
CASES = {
    "private": ("api.model_info('other/secret')", "RepositoryNotFoundError", 404),
    "private, no token": ("api.hf_hub_download('other/secret', 'a.txt', token=False)", "RepositoryNotFoundError", 401),
    "no revision": ("api.snapshot_download('user/own', revision='gone')", "RevisionNotFoundError", 404),
    "no file": ("api.hf_hub_download('user/own', 'gone.txt')", "RemoteEntryNotFoundError", 404),
    "moved on": (
        "api.upload_file(path_or_fileobj=b'x', path_in_repo='x', repo_id='user/own', parent_commit='0' * 40)",
        "HfHubHTTPError",
        412,
    ),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home") / "folder"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with LoopbackHub() as hub:
        for name in ("user/own", "other/secret"):
            hub.repositories["model", name] = Repository(name == "other/secret")
            hub.repositories["model", name].add("A file", {"a.txt": File(b"a")})
        environment = hub.environment(folder.parent / "cache", "hf_write")
        cases = {case: call for case, (call, _, _) in CASES.items()}
        yield hub, folder, run(CALLS, environment, folder=str(folder), cases=cases)


def test_contents_are_kept_byte_for_byte_and_large_ones_elsewhere(served):
    hub, folder, _ = served
    assert {name: (folder.with_name("folder-again") / name).read_bytes() for name in FILES} == FILES
    kept = hub.repositories["model", "user/kept"]
    assert kept.private and [len(commit.files) for commit in kept.commits] == [1, 4, 4]
    assert kept.files["README.md"].data == b"new"
    lfs = [request for request in hub.requests if "/lfs/" in request and "batch" not in request]
    assert [request.split()[0] for request in lfs if "HEAD" not in request] == ["PUT", "GET"]  # refused with a token


def test_who_may_not_is_refused_and_changes_nothing(served):
    hub, _, answers = served
    assert answers == {case: list(expected) for case, (_, *expected) in CASES.items()}
    assert all(len(hub.repositories["model", name].commits) == 2 for name in ("user/own", "other/secret"))
