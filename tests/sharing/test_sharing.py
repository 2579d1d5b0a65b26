"""Edits go round: trained and pushed by one process, and by others with caches of their own all else."""

import hashlib
import itertools
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hub_storage import File, User
from loopback_hub import DROP, HURRY, LoopbackHub, run
from safetensors.torch import load, save
from tiny import small_pool

from hf_ftedit.hub.folder import published_files, read_edit_folder
from hf_ftedit.models.loading import asset

pytestmark = pytest.mark.slow
N_EDITS = 8
# Many calls in one process: each one's exit code and what it printed, or what the model that it loaded is and says, or
# the error that it raised.
MANY = """
import contextlib, io, json, sys
from hf_ftedit import EditError, load_edited_model
from hf_ftedit.cli.app import main
from hf_ftedit.models.generation import greedy_answers
given, found = json.load(sys.stdin), {}
for case, args in given["calls"].items():
    out, err, loaded = io.StringIO(), io.StringIO(), {}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if isinstance(args, list):
            code = main(args)
        else:
            try:
                model, tokenizer = load_edited_model(**args)
                loaded = {
                    "answers": greedy_answers(model, tokenizer, given["prompts"]),
                    "is_adapter": hasattr(model, "peft_config"),
                    "names": sorted(name for name, _ in model.named_parameters())[:1],
                    "base": [model.config._name_or_path, model.config._commit_hash],
                }
                code = 0
            except EditError as error:
                code = str(error)
    found[case] = {"code": code, "out": out.getvalue(), "err": err.getvalue(), **loaded}
print(json.dumps(found))
"""
STRANGER = """
import json, sys
from hf_ftedit import EditConfig, EditError, EditTrainer, load_edited_model, verify
given, found = json.load(sys.stdin), {}
for case, name in (("secret", "other/secret"), ("base", "user/a")):
    try:
        verify(name)
    except EditError as error:
        found[case] = str(error)
found["verified"] = verify("user/a", token="hf_write").passed
found["loaded"] = load_edited_model("user/a", token="hf_write", merge=True)[0].config._commit_hash
settings = {"max_edits": 1, "num_locality": 0, "text_loss_weight": 0, "report_to": "none"}
init = {"token": "hf_write", "revision": found["loaded"]}
args = EditConfig(given["folder"], **settings, model_init_kwargs=init)
trainer = EditTrainer("user/base", args, train_dataset=given["edits"])
found["rows"] = len(trainer.train_dataset)
print(json.dumps(found))
"""
OPEN = f"""{HURRY}
import json, sys
from concurrent.futures import ThreadPoolExecutor
from hf_ftedit import EditError, open_edits
given = json.load(sys.stdin)

def attempt(name):
    try:
        return len(open_edits(name).records)
    except EditError as error:
        return str(error)

with ThreadPoolExecutor(len(given["names"])) as pool:
    print(json.dumps(dict(zip(given["names"], pool.map(attempt, given["names"])))))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The Hub with a base model and two adapters for it; then the base model's `main` gets other weights."""
    folder = tmp_path_factory.mktemp("world")
    rows = Path(asset("edits.jsonl")).read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("a", rows[:N_EDITS]), ("b", rows[N_EDITS : 2 * N_EDITS])):
        (folder / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    with LoopbackHub() as hub:
        hub.tokens["hf_other"] = User("other", may_write=True)
        found = SimpleNamespace(hub=hub, folder=folder, caches=itertools.count(), pool=small_pool(folder))
        parts = [*Path(asset("model")).iterdir()]
        files = {path.name: File(path.read_bytes(), lfs=path.suffix == ".safetensors") for path in parts}
        base = hub.hold("user/base", files, private=True)
        found.base = base.head
        trained = many(found, {name: training(found, name) for name in "ab"})
        assert [each["code"] for each in trained.values()] == [0, 0], trained
        weights = {name: tensor * 0.5 for name, tensor in load(base.files["model.safetensors"].data).items()}
        base.add("retrained", {**base.files, "model.safetensors": File(save(weights, {"format": "pt"}), lfs=True)})
        found.adapter = hub.repositories["model", "user/a"]
        found.commit = found.adapter.head
        found.adapter.add_tag("v1", "main")
        found.files = {path: file.data for path, file in found.adapter.files.items() if path != ".gitattributes"}
        found.results = json.loads(found.files["eval_results.json"])
        yield found


def result(world, code, token="hf_write", cache=None, **given):
    home = cache or world.folder / f"cache-{next(world.caches)}"
    return run(code, world.hub.environment(home, token), **given)


def many(world, calls, cache=None, **given):
    """Calls in a fresh process with a fresh cache (see `MANY`)."""
    return result(world, MANY, cache=cache, calls=calls, **{"prompts": [], **given})


def training(world, name):
    data = ["--edits", str(world.folder / f"{name}.jsonl"), "--locality_pool", world.pool]
    where = ["--output_dir", str(world.folder / name), "--push_to_hub", "--hub_model_id", f"user/{name}"]
    config = ["--config", asset("train.yaml"), "--text_loss_weight", "0", "--report_to", "none"]
    return ["train", "--model_name_or_path", "user/base", *data, *config, *where]


# Push, verify, load


def test_the_base_model_and_its_commit_are_recorded(world):
    folder = read_edit_folder(world.folder / "a")
    assert (folder.recipe["model_name_or_path"], folder.recipe["model_revision"]) == ("user/base", world.base)
    assert (world.results["base_model"], world.results["base_model_revision"]) == ("user/base", world.base)
    config = json.loads(world.files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("user/base", world.base)
    assert world.hub.repositories["model", "user/base"].head != world.base  # it has gone on since


def test_what_is_on_the_hub_is_what_was_trained(world):
    assert world.files == {path.name: path.read_bytes() for path in published_files(world.folder / "a")}
    assert world.results["after"]["efficacy"] >= 90 > 10 > world.results["before"]["efficacy"]


@pytest.fixture(scope="module")
def later(world):
    """What three processes of others tell, two at a time: one of all calls, one without a token, and downloads."""
    folder = world.folder
    edits = read_edit_folder(folder / "a").records
    world.prompts, world.targets = [edit.prompt for edit in edits], [edit.target_new for edit in edits]
    world.revoked = [edit.edit_id for edit in edits[3:5]]
    both, edits_of_a = str(folder / "ab"), str(folder / "a.jsonl")
    base = ["--model_name_or_path", "user/base", "--model_revision", world.base]
    pool = ["--locality_pool", world.pool, "--report_to", "none", "--text_loss_weight", "0"]
    calls = {
        "verified": ["verify", "user/a"],
        "load main": {"name": "user/a"},
        "load commit": {"name": "user/a", "revision": world.commit},
        "load tag": {"name": "user/a", "revision": "v1"},
        "load merged": {"name": "user/a", "merge": True},
        "load folder": {"name": str(folder / "a")},
        "merged": ["merge", "user/a", "user/b", "--output_dir", both],
        "pushed": ["push", both, "--repo_id", "user/ab"],
        "verified ab": ["verify", "user/ab"],
        "evaluated": [
            *("evaluate", "--adapter", "user/a", *base, "--edits", edits_of_a, "--output_dir", str(folder / "scores"))
        ],
        "revoked": [
            *("train", "--adapter", "user/a", "--revoke", *world.revoked, "--output_dir", str(folder / "fewer"), *pool)
        ],
        "tampered": ["verify", "user/a", "--revision", "tampered"],
        **hostile(world),
    }
    tamper(world)
    with ThreadPoolExecutor(1) as waiting, ThreadPoolExecutor(2) as jobs:
        opened = waiting.submit(open_while_failing, world)
        found = jobs.submit(many, world, calls, cache=folder / "loaded", prompts=world.prompts)
        stranger = jobs.submit(result, world, STRANGER, None, edits=edits_of_a, folder=str(folder / "no"))
        return SimpleNamespace(calls=found.result(), stranger=stranger.result(), opened=opened.result())


def test_a_push_verifies_elsewhere(world, later):
    verified = later.calls["verified"]
    assert verified["code"] == 0, verified
    assert verified["out"].endswith(f"user/a at commit {world.commit}: every claim holds.\n")
    shown = " ".join(verified["out"].split())
    scores = world.results["after"]
    for name in ("edit_score", "efficacy", "generalization", "locality"):
        claim = f"{scores[name]:.2f}"
        assert f"after: {name.replace('_', ' ')} │ {claim} │ {claim} │ ok" in shown
    weights = hashlib.sha256(world.files["adapter_model.safetensors"]).hexdigest()[:12]
    assert f"adapter_model.safetensors │ sha256 {weights} │ sha256 {weights} │ ok" in shown


@pytest.mark.parametrize("case", ["main", "commit", "tag", "merged", "folder"])
def test_loaded_edits_answer(world, later, case):
    found = later.calls[f"load {case}"]
    assert found["answers"] == [answer["after"] for answer in world.results["answers"]]
    right = sum(map(str.startswith, found["answers"], world.targets))
    assert right >= 0.9 * N_EDITS
    assert found["is_adapter"] == (case != "merged") and not ("lora" in found["names"][0] and case == "merged")
    assert found["base"] == ["user/base", world.base]


def test_merged_adapters_go_round(world, later):
    saved = read_edit_folder(world.folder / "ab")
    assert len(saved.records) == 2 * N_EDITS and saved.results["after"]["efficacy"] >= 90
    parts = [(part["name"], part["revision"], part["n_edits"]) for part in saved.provenance["parts"]]
    heads = {name: world.hub.repositories["model", f"user/{name}"].head for name in "ab"}
    assert parts == [("user/a", heads["a"], N_EDITS), ("user/b", heads["b"], N_EDITS)]
    assert [later.calls[call]["code"] for call in ("merged", "pushed", "verified ab")] == [0, 0, 0], later.calls
    assert "every claim holds" in later.calls["verified ab"]["out"]


def test_evaluate_takes_an_adapter_of_the_hub(world, later):
    assert later.calls["evaluated"]["code"] == 0, later.calls["evaluated"]
    measured = json.loads((world.folder / "scores" / "eval_results.json").read_text())
    for when in ("before", "after"):
        assert measured[when] == world.results[when]


def test_revoke_from_the_hub(world, later):
    assert later.calls["revoked"]["code"] == 0, later.calls["revoked"]
    saved = read_edit_folder(world.folder / "fewer")
    assert not {*world.revoked} & {edit.edit_id for edit in saved.records} and len(saved.records) == N_EDITS - 2
    assert saved.results["base_model_revision"] == world.base and saved.recipe["adapter"] == "user/a"
    assert saved.results["revoked"]["n_edits"] == 2 and saved.results["revoked"]["adapter"] == "user/a"
    assert saved.results["before"]["efficacy"] < 10 and saved.results["after"]["efficacy"] >= 90
    assert saved.results["revoked"]["efficacy"] == 0 and saved.results["revoked"]["back"] >= 90


# What was tampered with


def tamper(world):
    """A branch of `user/a` on which somebody changed the results, and their sum too."""
    files = world.files
    results = json.loads(files["eval_results.json"])
    results["after"]["portability"] -= 20
    better = json.dumps(results, indent=2).encode()
    recipe = yaml.safe_load(files["edit_config.yaml"])
    recipe["provenance"]["files"]["eval_results.json"] = hashlib.sha256(better).hexdigest()
    recipe = yaml.safe_dump(recipe, sort_keys=False).encode()
    world.adapter.add_branch("tampered", world.commit)
    changed = {"eval_results.json": File(better), "edit_config.yaml": File(recipe)}
    world.adapter.add("tampered", {**world.adapter.at(world.commit)[1], **changed}, "tampered")


def test_tampering_is_found_and_named(later):
    found = later.calls["tampered"]
    assert found["code"] == 1 and "2 of " in found["out"] and "claims do not hold" in found["out"]
    rows = [" ".join(line.split()) for line in found["out"].splitlines() if "DIFFERS" in line]
    assert [row.split(" │ ")[0] for row in rows] == ["│ card: portability", "│ after: portability"]


# What fails for a while, or for good

FAILING = {
    "limited": [("GET /api/models/NAME/revision/", 429, {})],
    "busy": [("GET /api/models/NAME/revision/", 503, {"times": 2})],
    "dropped": [("GET /api/models/NAME/revision/", DROP, {})],
    "a file": [("HEAD /NAME/resolve/.*edits.jsonl", 500, {}), ("GET /NAME/resolve/.*README.md", DROP, {})],
    "half a file": [("GET /NAME/resolve/.*edits.jsonl", DROP, {"at": "download"})],
}


def open_while_failing(world):
    files = world.adapter.at(world.commit)[1]
    for number, failures in enumerate([*FAILING.values(), [("GET /api/models/NAME/revision/", 500, {"times": 99})]]):
        world.hub.hold(f"user/failing-{number}", files)
        for pattern, status, how in failures:
            world.hub.fail(pattern.replace("NAME", f"user/failing-{number}"), status, **how)
    return result(world, OPEN, names=[f"user/failing-{number}" for number in range(len(FAILING) + 1)])


def test_downloads_are_tried_again(world, later):
    *found, lasting = later.opened.values()
    assert found == [N_EDITS] * len(FAILING)
    assert lasting == "user/failing-5: the Hub refuses with 500 (told to fail); the Hub has a problem; try again later"
    left = [failure.pattern for failure in world.hub.failures]
    assert {*left} == {"GET /api/models/user/failing-5/revision/"} and len(left) > 80  # of 99: not without end


# What may not be loaded


class Canary:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def hostile(world):
    """Calls on repositories that bring pickles or code, or are somebody else's."""
    both, hold = {path: File(data) for path, data in world.files.items()}, world.hub.hold
    pickled = File(pickle.dumps(Canary(str(world.folder / "pickle-was-loaded"))), lfs=True)
    hold("user/pickled", {"adapter_config.json": both["adapter_config.json"], "adapter_model.bin": pickled})
    hold("user/both", both | {"adapter_model.bin": pickled, "model.py": File(b"raise")})
    code = f"open({str(world.folder / 'code-was-run')!r}, 'w')".encode()
    own = {path.name: File(path.read_bytes()) for path in Path(asset("model")).iterdir()}
    named = json.loads(own["config.json"].data) | {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    }
    hold("user/code", own | {"own.py": File(code), "config.json": File(json.dumps(named).encode())})
    recipe = yaml.safe_load(world.files["edit_config.yaml"]) | {"model_name_or_path": "user/code"}
    del recipe["model_revision"]
    hold("user/on-code", both | {"edit_config.yaml": File(yaml.safe_dump(recipe).encode())})
    some = ["--edits", str(world.folder / "a.jsonl"), "--max_edits", "1"]
    loads = {
        "pickled": {"name": "user/pickled"},
        "on code": {"name": "user/on-code"},
        "no such": {"name": "user/gone"},
        "no such revision": {"name": "user/a", "revision": "v9"},
        "private, bad token": {"name": "other/secret", "token": "hf_wrong"},
        "private, no right": {"name": "other/secret"},
        "private, own token": {"name": "other/secret", "token": "hf_other", "base_model": asset("model")},
        "both": {"name": "user/both"},
    }
    hold("other/secret", both, private=True)
    return loads | {
        "evaluate of pickled": ["evaluate", "--adapter", "user/pickled", *some, "--model_name_or_path", "user/base"],
        "train of code": [
            *("train", "--model_name_or_path", "user/code", "--output_dir", str(world.folder / "x")),
            *some,
            *("--report_to", "none"),
        ],
        "verify on code": ["verify", "user/on-code"],
        "evaluate on a later base": ["evaluate", "--adapter", "user/a", *some, "--model_revision", "main"],
    }


PICKLED = (
    "adapter 'user/pickled' has no adapter_model.safetensors; give the folder or Hub id of an adapter; pickled "
    "weights can run code and are not read: ask their author"
)
REFUSED = {
    "pickled": PICKLED,
    "on code": "model_name_or_path 'user/code' cannot be loaded: ",
    "no such": "user/gone: the Hub refuses with 404 (Repository not found); check the name, and that the token may",
    "no such revision": "user/a: the Hub refuses with 404 (Invalid rev id: v9); check the name",
    "private, bad token": "other/secret: the Hub refuses with 401 (Invalid credentials in Authorization header); log",
    "private, no right": "other/secret: the Hub refuses with 404 (Repository not found); check the name, and that th",
    "evaluate of pickled": PICKLED,
    "train of code": "model_name_or_path 'user/code' cannot be loaded: ",
    "evaluate on a later base": (
        "'user/a' was trained on another base model (the weights differ); give that one, 'user/base' at commit '"
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_be_loaded_is_refused_in_one_line(later, case):
    found = later.calls[case]
    error = found["err"] if found["code"] == 2 else found["code"]
    error = error.removeprefix("hf-ftedit: ").removesuffix("\n")
    assert error.startswith(REFUSED[case]) and "\n" not in error
    assert found["out"] == ""


def test_no_pickle_and_no_code_is_run_or_fetched(world, later):
    assert not (world.folder / "pickle-was-loaded").exists() and not (world.folder / "code-was-run").exists()
    assert not (world.folder / "x").exists()
    fetched = [request for request in world.hub.requests if "/resolve/" in request]
    assert not [request for request in fetched if ".bin" in request or request.startswith("GET") and ".py" in request]
    pickled = {hashlib.sha256(world.hub.repositories["model", name].files["adapter_model.bin"].data).hexdigest()
               for name in ("user/pickled", "user/both")}  # fmt: skip
    assert not [request for request in world.hub.requests if any(oid in request for oid in pickled)]


def test_a_token_opens_what_is_private(later):
    assert later.calls["private, own token"]["code"] == 0
    assert later.calls["both"]["code"] == 0  # the safetensors are taken


def test_code_is_a_claim_that_does_not_hold(later):
    found = later.calls["verify on code"]
    assert found["code"] == 1 and "3 of 15 claims do not" in found["out"]
    assert "│ card: base model" in found["out"] and "│ adapter_config.json: base model" in found["out"]


def test_a_stranger_sees_nothing_private(later):
    refused = "other/secret: the Hub refuses with 401 (Repository not found); log in with `hf auth login`"
    assert later.stranger["secret"].startswith(refused)
    assert later.stranger["base"].startswith("model_name_or_path 'user/base' cannot be loaded: ")


def test_a_token_is_enough(later):
    assert later.stranger["verified"] is True and later.stranger["loaded"] and later.stranger["rows"]


def test_a_cached_adapter_is_read_without_a_network(world, later):
    cache = world.folder / "offline"
    shutil.copytree(world.folder / "loaded", cache, symlinks=True)
    environment = world.hub.environment(cache) | {"HF_HUB_OFFLINE": "1"}
    found = run(MANY, environment, calls={"offline": {"name": "user/a"}}, prompts=world.prompts[:2])["offline"]
    assert found["answers"] == later.calls["load main"]["answers"][:2] and found["base"][1] == world.base
