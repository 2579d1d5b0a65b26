"""The Hub on loopback is enough of a Hub for the real clients, and fails as it is told to; each in a fresh process."""

import hashlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hub_storage import File, Repository
from loopback_hub import DROP, OK, LoopbackHub

FILES = {
    "README.md": b"---\nlicense: mit\ntags: [edit]\nlibrary_name: peft\n---\n\n# Card\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "weights.safetensors": os.urandom(300_001),
    "nested/deep/state.bin": os.urandom(7),
    "nested/a b #1 é.txt": bytes(range(256)),
}
LARGE = os.urandom(1 << 16) * (24 * 16)  # 24 MiB: more than the 10 MiB that the client keeps of a download at a time
LARGE_OID = hashlib.sha256(LARGE).hexdigest()

PREPARE = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_url
from huggingface_hub.utils import get_session

given, api = json.load(sys.stdin), HfApi()
"""
SHARE = f"""{PREPARE}
name, found = "user/adapter", {{}}
api.create_repo(name, private=True)
commit = api.upload_folder(repo_id=name, folder_path=given["folder"], commit_message="Add", commit_description="Why")
api.create_branch(name, branch="dev/one")
changes = [CommitOperationAdd("notes.txt", b"dev"), CommitOperationDelete("config.json")]
changes += [CommitOperationDelete("nested/", is_folder=True)]
changed = api.create_commit(name, changes, commit_message="Dev", revision="dev/one", parent_commit=commit.oid)
api.create_tag(name, tag="v1", revision=commit.oid)
api.upload_file(path_or_fileobj=b"[]", path_in_repo="config.json", repo_id=name)
found["unchanged"] = api.upload_file(path_or_fileobj=b"[]", path_in_repo="config.json", repo_id=name).oid

revisions = {{"main": None, "branch": "dev/one", "tag": "v1", "hash": changed.oid, "short": commit.oid[:8]}}
for case, revision in revisions.items():
    api.snapshot_download(name, revision=revision, local_dir=given["out"] + case)
api.snapshot_download(name, revision="v1", allow_patterns=["*.safetensors", "*.md"], local_dir=given["out"] + "some")
found["cached"] = [api.hf_hub_download(name, path) for path in ("weights.safetensors", "README.md")]
found["files"] = api.list_repo_files(name, revision="v1")
found["tree"] = [entry.path for entry in api.list_repo_tree(name, "nested", revision="v1")]
paths = api.get_paths_info(name, ["nested/deep", "empty.txt", "gone"], revision="v1")
found["paths"] = {{entry.path: getattr(entry, "blob_id", None) for entry in paths}}
info = api.model_info(name, revision="v1", files_metadata=True)
found["info"] = [info.sha == commit.oid, info.private, info.tags, info.library_name, info.card_data.license]
found["sizes"] = {{file.rfilename: [file.size, file.lfs and file.lfs.sha256] for file in info.siblings}}
found["commits"] = [[item.title, item.message] for item in api.list_repo_commits(name)]
refs = api.list_repo_refs(name)
found["refs"] = [[ref.ref, ref.target_commit == commit.oid] for ref in refs.branches + refs.tags]
url = hf_hub_url(name, "nested/a b #1 é.txt", revision="v1"), hf_hub_url(name, "weights.safetensors", revision="v1")
headers = {{"Authorization": f"Bearer {{get_token()}}"}}
asked = [get_session().get(url[large], headers=headers | {{"Range": size}}) for large, size in given["ranges"]]
found["ranges"] = [[answer.status_code, answer.headers["Content-Range"], answer.content.hex()] for answer in asked]
found["exist"] = [api.repo_exists(name), api.repo_exists("user/gone"), api.file_exists(name, "config.json")]
found["exist"] += [api.file_exists(name, "gone"), api.revision_exists(name, "v1"), api.revision_exists(name, "v2")]
api.update_repo_settings(name, private=False)
api.create_repo("user/short-lived")
api.delete_repo("user/short-lived")
print(json.dumps(found))
"""


def run(code, environment, **given):
    """What `code` prints as its last line, run in a fresh process."""
    environment = environment | {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, input=json.dumps(given), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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
    ranges = [(0, "bytes=5-9"), (1, "bytes=300000-"), (1, "bytes=299999-999999"), (0, "bytes=256-")]
    with LoopbackHub() as hub:
        environment = hub.environment(home / "cache", "hf_write")
        found = run(SHARE, environment, folder=str(home / "folder"), out=f"{home}/out-", ranges=ranges)
        yield SimpleNamespace(hub=hub, home=home, **found)


def test_downloads_are_byte_for_byte_what_was_uploaded(shared):
    changed = {name: data for name, data in FILES.items() if name != "config.json" and "nested" not in name}
    changed["notes.txt"] = b"dev"
    assert contents(shared.home / "out-main") == FILES | {"config.json": b"[]"}
    assert contents(shared.home / "out-tag") == contents(shared.home / "out-short") == FILES
    assert contents(shared.home / "out-branch") == contents(shared.home / "out-hash") == changed
    assert sorted(contents(shared.home / "out-some")) == ["README.md", "weights.safetensors"]


def test_the_cache_names_large_files_by_sha256(shared):
    names = [os.path.basename(os.path.realpath(path)) for path in shared.cached]
    assert names[0] == hashlib.sha256(FILES["weights.safetensors"]).hexdigest()
    assert names[1] == hashlib.sha1(b"blob %d\0" % len(FILES["README.md"]) + FILES["README.md"]).hexdigest()


def test_a_repository_is_listed(shared):
    assert shared.files == sorted([".gitattributes", *FILES])
    assert shared.tree == ["nested/deep", "nested/a b #1 é.txt"]
    assert shared.paths == {"nested/deep": None, "empty.txt": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"}
    assert shared.info == [True, True, ["edit"], "peft", "mit"]
    assert {name: shared.sizes[name][0] for name in FILES} == {name: len(data) for name, data in FILES.items()}
    large = {name: sha for name, (_, sha) in shared.sizes.items() if sha}
    wanted = ("weights.safetensors", "nested/deep/state.bin")
    assert large == {name: hashlib.sha256(FILES[name]).hexdigest() for name in wanted}
    assert shared.exist == [True, False, True, False, True, False]


def test_history_branches_and_tags(shared):
    assert [title for title, _ in shared.commits] == [
        "Upload config.json with huggingface_hub",
        "Add",
        "initial commit",
    ]
    assert shared.commits[1][1] == "Why"
    assert shared.refs == [["refs/heads/main", False], ["refs/heads/dev/one", False], ["refs/tags/v1", True]]
    repository = shared.hub.repositories["model", "user/adapter"]
    assert not repository.private and shared.unchanged == repository.head
    assert list(shared.hub.repositories) == [("model", "user/adapter")]


def test_ranges(shared):
    data, size = FILES["weights.safetensors"], len(FILES["weights.safetensors"])
    assert shared.ranges[0] == [206, "bytes 5-9/256", "0506070809"]
    assert shared.ranges[1] == [206, f"bytes 300000-300000/{size}", data[-1:].hex()]
    assert shared.ranges[2] == [206, f"bytes 299999-300000/{size}", data[-2:].hex()]
    assert shared.ranges[3][:2] == [416, "bytes */256"]


def test_large_contents_are_elsewhere_and_no_token_gets_there(shared):
    lfs = [request for request in shared.hub.requests if "/lfs/" in request and "batch" not in request]
    assert len([request for request in lfs if request.startswith("PUT")]) == 2  # each content once
    assert any(request.startswith("GET") for request in lfs)  # the storage refuses requests with a token


CASES = {
    "unknown token": ("api.model_info('other/public', token='hf_wrong')", "HfHubHTTPError", 401),
    "no token": ("api.create_repo('user/new', token=False)", "HfHubHTTPError", 401),
    "no token, upload": ("upload('other/public', token=False)", "HfHubHTTPError", 401),
    "read token": ("upload('user/own', token='hf_read')", "HfHubHTTPError", 403),
    "read token, new": ("api.create_repo('user/new', token='hf_read')", "HfHubHTTPError", 403),
    "read token, tag": ("api.create_tag('user/own', tag='v', token='hf_read')", "HfHubHTTPError", 403),
    "read token, delete": ("api.delete_repo('user/own', token='hf_read')", "HfHubHTTPError", 403),
    "not one's own": ("upload('other/public')", "HfHubHTTPError", 403),
    "not one's own, new": ("api.create_repo('other/new')", "HfHubHTTPError", 403),
    "not one's own, settings": ("api.update_repo_settings('other/public', private=True)", "HfHubHTTPError", 403),
    "private": ("api.model_info('other/secret')", "RepositoryNotFoundError", 404),
    "private, download": ("api.hf_hub_download('other/secret', 'a.txt')", "RepositoryNotFoundError", 404),
    "private, no token": ("api.model_info('other/secret', token=False)", "RepositoryNotFoundError", 401),
    "archived": ("upload('user/archived')", "HfHubHTTPError", 403),
    "gated": ("api.hf_hub_download('other/gated', 'a.txt')", "GatedRepoError", 403),
    "gated, no token": ("api.hf_hub_download('other/gated', 'a.txt', token=False)", "GatedRepoError", 401),
    "no repository": ("api.hf_hub_download('gpt2', 'a.txt')", "RepositoryNotFoundError", 404),
    "no revision": ("api.snapshot_download('user/own', revision='gone')", "RevisionNotFoundError", 404),
    "no file": ("api.hf_hub_download('user/own', 'gone.txt')", "RemoteEntryNotFoundError", 404),
    "no branch": ("upload('user/own', revision='gone')", "RevisionNotFoundError", 404),
    "exists": ("api.create_repo('user/own')", "HfHubHTTPError", 409),
    "branch exists": ("api.create_branch('user/own', branch='main')", "HfHubHTTPError", 409),
    "moved on": ("upload('user/own', parent_commit='0' * 40)", "HfHubHTTPError", 412),
    "pull request": ("upload('user/own', create_pr=True)", "HfHubHTTPError", 501),
    "broken card": (
        r"upload('user/own', b'---\na: [\n---\n', 'README.md')",
        "ValueError",
        "Invalid metadata in README.md.",
    ),
    "delete what is gone": ("api.delete_file('gone', 'user/own')", "RemoteEntryNotFoundError", 404),
}
REFUSE = f"""{PREPARE}
from huggingface_hub.errors import HfHubHTTPError

def upload(name, data=b"new", path="new.txt", **arguments):
    api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=name, **arguments)

errors = {{}}
for case, call in given["cases"].items():
    try:
        errors[case] = [repr(eval(call)), 200]
    except HfHubHTTPError as error:
        errors[case] = [type(error).__name__, error.response.status_code]
    except ValueError as error:
        errors[case] = [type(error).__name__, str(error).splitlines()[0]]
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    with LoopbackHub() as hub:
        for name in ("user/own", "user/archived", "other/public", "other/secret", "other/gated"):
            hub.repositories["model", name] = Repository(
                name == "other/secret", gated=name == "other/gated", read_only=name == "user/archived"
            )
            hub.repositories["model", name].add("A file", {"a.txt": File(b"a")})
        cases = {case: call for case, (call, _, _) in CASES.items()}
        errors = run(REFUSE, hub.environment(tmp_path_factory.mktemp("home"), "hf_write"), cases=cases)
        yield hub, errors


@pytest.mark.parametrize("case", CASES)
def test_who_may_not_is_refused(refused, case):
    assert refused[1][case] == list(CASES[case][1:])


def test_what_is_refused_changes_nothing(refused):
    repositories = refused[0].repositories
    assert len(repositories) == 5
    assert all(len(found.commits) == 2 and not found.tags for found in repositories.values())


FAIL = f"""{PREPARE}
def upload(case, data, path="new.txt", **arguments):
    api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=f"user/{{case}}", **arguments)

def download(case, path="a.txt", **arguments):
    with open(api.hf_hub_download(f"user/{{case}}", path, local_dir=given["out"] + case, **arguments), "rb") as file:
        file.read()

def together(case, **arguments):
    def one(number):
        return attempt(lambda: upload(case, b"%d" % number, f"{{number}}.txt", **arguments))
    with ThreadPoolExecutor(8) as threads:
        return sorted(threads.map(one, range(8)), key=str)

def attempt(call):
    try:
        return call()
    except Exception as error:
        response = getattr(error, "response", None)
        return [type(error).__name__, response.status_code if response is not None else None, str(error)]

with open(given["out"] + "large", "rb") as file:
    large = file.read()
body = b"x" * 3_000_000
calls = {{
    "limited": lambda case: upload(case, b"new"),
    "told": lambda case: api.model_info("user/told"),
    "busy": lambda case: upload(case, b"new"),
    "broken": lambda case: upload(case, b"new"),
    "second": lambda case: [upload(case, b"new"), attempt(lambda: upload(case, b"newer"))],
    "dropped": lambda case: upload(case, b"new"),
    "lost": lambda case: upload(case, b"new"),
    "vanished": lambda case: upload(case, b"new"),
    "cut": lambda case: upload(case, body),
    "early": lambda case: [attempt(lambda: upload(case, body)), upload(case, b"new")],
    "cut-upload": lambda case: upload(case, large, "large.dat"),
    "cut-download": lambda case: download(case, "large.dat"),
    "refused-download": lambda case: download(case),
    "slow": lambda case: download(case, etag_timeout=1),
    "raced": lambda case: together(case, parent_commit=api.model_info("user/raced").sha),
    "crowd": together,
}}
with ThreadPoolExecutor(len(calls)) as threads:  # all wait at the same time, for the same client
    print(json.dumps(dict(zip(calls, threads.map(lambda case: attempt(lambda: calls[case](case)), calls)))))
"""
RATE = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The Hub after it failed as it was told to, a repository each, and what the client made of it."""
    out = tmp_path_factory.mktemp("failed")
    (out / "large").write_bytes(LARGE)
    names = "limited told busy broken second dropped lost vanished cut early slow raced crowd".split()
    names += ["cut-upload", "cut-download", "refused-download"]
    stored = {"a.txt": File(b"a"), "large.dat": File(LARGE + b".", lfs=True)}
    with LoopbackHub() as hub:
        for name in names:
            hub.repositories["model", f"user/{name}"] = Repository()
            hub.repositories["model", f"user/{name}"].add("Files", stored)
        hub.fail("POST .*/user/limited/preupload/", 429, headers={"Retry-After": "0"})
        hub.fail("GET /api/models/user/told$", 429, headers=RATE)
        hub.fail("POST .*/user/busy/preupload/", 503)
        hub.fail("POST .*/user/broken/commit/", 500)
        hub.fail("POST .*/user/second/commit/", OK)
        hub.fail("POST .*/user/second/commit/", 500)
        hub.fail("POST .*/user/dropped/commit/", DROP)
        hub.fail("POST .*/user/lost/commit/", 500, at="answer")
        hub.fail("POST .*/user/vanished/commit/", DROP, at="answer")
        hub.fail("POST .*/user/cut/commit/", DROP, at="upload")
        hub.fail("POST .*/user/early/commit/", 413, at="upload")
        hub.fail(f"PUT /lfs/{LARGE_OID}", DROP, at="upload")
        hub.fail("GET /lfs/", DROP, times=2, at="download")
        hub.fail("GET .*/user/refused-download/resolve/", 503)
        hub.fail("HEAD .*/user/slow/resolve/", OK, delay=2)
        found = run(FAIL, hub.environment(out / "home", "hf_write"), out=f"{out}/")
        yield SimpleNamespace(hub=hub, out=out, found=found)


def stored(failed, case):
    """How many commits there are after the two that were there, and the uploaded file."""
    repository = failed.hub.repositories["model", f"user/{case}"]
    return len(repository.commits) - 2, repository.files["new.txt"].data if "new.txt" in repository.files else None


def asked(failed, pattern):
    return sum(pattern in request for request in failed.hub.requests)


@pytest.mark.parametrize("case", ["limited", "busy"])
def test_the_client_tries_again(failed, case):
    assert failed.found[case] is None and stored(failed, case) == (1, b"new")
    assert asked(failed, f"user/{case}/preupload/") == 2


def test_a_rate_limit_is_told(failed):
    assert failed.found["told"][:2] == ["HfHubHTTPError", 429]
    assert "Retry after 55 seconds (0/500 requests remaining in current 300s window)" in failed.found["told"][2]


def test_a_refused_commit_is_not_stored(failed):
    assert failed.found["broken"][:2] == ["HfHubHTTPError", 500] and stored(failed, "broken") == (0, None)
    first, second = failed.found["second"]
    assert first is None and second[:2] == ["HfHubHTTPError", 500] and stored(failed, "second") == (1, b"new")
    assert failed.found["dropped"][0] == "RemoteProtocolError" and stored(failed, "dropped") == (0, None)


def test_a_commit_may_be_stored_though_its_answer_is_lost(failed):
    assert failed.found["lost"][:2] == ["HfHubHTTPError", 500] and stored(failed, "lost") == (1, b"new")
    assert failed.found["vanished"][0] == "RemoteProtocolError" and stored(failed, "vanished") == (1, b"new")


def test_an_upload_that_ends_in_the_middle(failed):
    assert failed.found["cut"][0] in ("RemoteProtocolError", "ReadError", "WriteError")  # who notices first
    assert stored(failed, "cut") == (0, None)
    assert failed.found["cut-upload"] is None and asked(failed, f"PUT /lfs/{LARGE_OID}") == 2
    assert failed.hub.repositories["model", "user/cut-upload"].files["large.dat"] == File(LARGE, lfs=True)


def test_an_answer_in_the_middle_of_an_upload(failed):
    early, after = failed.found["early"]
    assert early[:2] == ["HfHubHTTPError", 413] and after is None and stored(failed, "early") == (1, b"new")


def test_a_download_that_ends_in_the_middle_goes_on(failed):
    assert failed.found["cut-download"] is None and asked(failed, "GET /lfs/") == 3
    assert (failed.out / "cut-download" / "large.dat").read_bytes() == LARGE + b"."
    assert failed.found["refused-download"][:2] == ["HfHubHTTPError", 503]
    assert not (failed.out / "refused-download" / "a.txt").exists()


def test_an_answer_may_be_late(failed):
    assert failed.found["slow"] is None and asked(failed, "HEAD /user/slow/resolve/main/a.txt") == 2


def test_commits_at_the_same_time(failed):
    raced = failed.found["raced"]  # on the same parent
    assert [error and error[:2] for error in raced] == [None] + [["HfHubHTTPError", 412]] * 7
    assert stored(failed, "raced")[0] == 1
    assert failed.found["crowd"] == [None] * 8 and stored(failed, "crowd")[0] == 8
    assert {f"{number}.txt" for number in range(8)} < set(failed.hub.repositories["model", "user/crowd"].files)


def test_all_failures_happened(failed):
    assert failed.hub.failures == []
    with pytest.raises(ValueError, match="at='end': give one of start, upload, answer, download"):
        failed.hub.fail("GET ", DROP, at="end")


PRETRAINED = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

config = GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2)
base = GPT2LMHeadModel(config).eval()
base.push_to_hub("user/base")
tokens = torch.arange(6)[None]
plain = base(tokens).logits
lora = LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True, task_type="CAUSAL_LM")
edited = get_peft_model(base, lora).eval()
edited.peft_config["default"].base_model_name_or_path = "user/base"
edited.push_to_hub("user/adapter", private=True)
edits = edited(tokens).logits

loaded = AutoModelForCausalLM.from_pretrained("user/base", use_safetensors=True).eval()
equal = [torch.equal(loaded(tokens).logits, plain)]
equal.append(torch.equal(PeftModel.from_pretrained(loaded, "user/adapter").eval()(tokens).logits, edits))
equal.append(torch.equal(AutoPeftModelForCausalLM.from_pretrained("user/adapter").eval()(tokens).logits, edits))
equal.append(not torch.equal(plain, edits))
print(json.dumps(equal))
"""


def test_transformers_and_peft_share_through_it(tmp_path):
    with LoopbackHub() as hub:
        assert run(PRETRAINED, hub.environment(tmp_path, "hf_write")) == [True] * 4
        assert hub.repositories["model", "user/adapter"].private
        assert sorted(hub.repositories["model", "user/adapter"].files) == [
            ".gitattributes",
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
