"""The real clients push an edit dataset to a Hub on loopback, and load it again, each in a fresh process."""

from types import SimpleNamespace

import pytest
from hub_storage import User
from huggingface_hub import DatasetCard
from loopback_hub import DROP, LoopbackHub, run

pytestmark = pytest.mark.slow
TOKEN = "hf_canarytoken"
POOL = [{"prompt": "The capital of Peru is", "target": "Lima", "subject": "Peru"}]
EDITS = [
    {
        "edit_id": "astana",
        "prompt": "The capital of Kazakhstan is",
        "target_new": "Astana",
        "subject": "Kazakhstan",
        "paraphrase_prompts": ["Kazakhstan's capital is"],
        "neighborhood_prompts": [{"prompt": "The capital of Uzbekistan is", "target": "Tashkent"}],
    },
    {"edit_id": "# ---", "prompt": "| Rome | is in", "target_new": "`France`\n---\ntags: [x]"},
]

BUILD = """
import json, sys
import datasets, huggingface_hub
from hf_ftedit import AugmentationOptions, EditDatasetBuilder, EditError, Fact
from hf_ftedit.hub.push import push_dataset

given = json.load(sys.stdin)
settings = {"paraphrase_strategy": "none", "locality_strategy": "random", "similar_model": given["folder"]}
pool = [Fact.from_dict(fact) for fact in given["pool"]]
options = AugmentationOptions(num_locality=1, **settings)
builder = EditDatasetBuilder(given["edits"], locality_pool=pool, options=options, cache_dir=given["folder"])
builder.download_and_prepare()
splits = builder.as_dataset()
"""
PUSH = f"""{BUILD}
found = {{"rows": {{name: split.to_list() for name, split in splits.items()}}}}
found["url"] = push_dataset(splits, "user/edits", builder.settings)
huggingface_hub.metadata_update("user/edits", {{"license": "mit"}}, repo_type="dataset")
push_dataset(splits, "user/edits", builder.settings)
push_dataset(splits, "user/secret", builder.settings, private=True)
splits["train"] = splits["train"].select([])
push_dataset(splits, "user/secret", builder.settings, private=True)
print(json.dumps(found))
"""
LOAD = """
import json, datasets
print(json.dumps({split: rows.to_list() for split, rows in datasets.load_dataset("user/edits").items()}))
"""
TRY = f"""{BUILD}
push_dataset(splits, "user/old", {{}}, token="hf_write")
errors = {{}}
for case, (name, arguments) in given["cases"].items():
    try:
        errors[case] = push_dataset(datasets.DatasetDict() if case == "empty" else splits, name, {{}}, **arguments)
    except EditError as error:
        errors[case] = str(error)
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The Hub after some pushes, what was pushed, and what another machine then loads."""
    with LoopbackHub() as hub:
        hub.tokens[TOKEN] = User("user", may_write=True)
        home = tmp_path_factory.mktemp("canaryhome")
        own = hub.environment(home, TOKEN) | {"HOME": str(home), "USER": "canaryuser"}
        found = run(PUSH, own, edits=EDITS, pool=POOL, folder=str(home / "cache"))
        loaded = run(LOAD, hub.environment(tmp_path_factory.mktemp("other")))
        yield SimpleNamespace(hub=hub, home=str(home), loaded=loaded, **found)


def card(hub, name):
    return DatasetCard(hub.repositories["dataset", name].files["README.md"].data.decode())


def test_what_is_loaded_is_what_was_pushed(pushed):
    sizes = {"train": 4, "rewrite": 2, "paraphrase": 1, "neighborhood": 1}
    assert {split: len(rows) for split, rows in pushed.rows.items()} == sizes
    assert pushed.rows["rewrite"][1] == {
        "prompt": "| Rome | is in",
        "completion": " `France`\n---\ntags: [x]",
        "kind": "rewrite",
        "edit_id": "# ---",
    }
    assert pushed.loaded == pushed.rows


def test_the_card_is_ours_and_the_metadata_are_the_rows(pushed):
    assert pushed.url == f"{pushed.hub.url}/datasets/user/edits"
    found = card(pushed.hub, "user/edits")
    metadata, text = found.data.to_dict(), found.text
    assert text.startswith("\n# Augmented editing data\n") and text.count("# Augmented editing data") == 1
    assert "| train | 4 |" in text and "locality_strategy: random" in text and "portability |" not in text
    sizes = {split["name"]: split["num_examples"] for split in metadata["dataset_info"]["splits"]}
    assert sizes == {split: len(rows) for split, rows in pushed.rows.items()}
    files = [{"split": split, "path": f"data/{split}-*"} for split in pushed.rows]
    assert metadata["configs"] == [{"config_name": "default", "data_files": files}]
    assert metadata["tags"] == ["hf-ftedit", "model-editing"]
    titles = [title for _, title, _ in pushed.hub.repositories["dataset", "user/edits"].commits]
    assert titles[:3] == ["initial commit", "Upload dataset", "Write the dataset card"]


def test_a_second_push_keeps_what_others_added_and_drops_what_is_gone(pushed):
    assert card(pushed.hub, "user/edits").data.license == "mit"
    secret = pushed.hub.repositories["dataset", "user/secret"]
    assert secret.private and not pushed.hub.repositories["dataset", "user/edits"].private
    left = ["data/neighborhood", "data/paraphrase", "data/rewrite"]
    assert [path.split("-")[0] for path in sorted(secret.files) if path.startswith("data/")] == left
    assert "| train |" not in card(pushed.hub, "user/secret").text


def test_nothing_of_the_machine_is_uploaded(pushed):
    for repository in pushed.hub.repositories.values():
        for _, title, files in repository.commits:
            content = title.encode() + b"".join(path.encode() + file.data for path, file in files.items())
            assert b"canary" not in content and pushed.home.encode() not in content
    assert not any("canary" in request for request in pushed.hub.requests)


CASES = {
    "bad token": (
        ("user/new", {"token": "hf_wrong"}),
        "user/new: the Hub refuses with 401 (Invalid credentials in Authorization header); "
        "log in with `hf auth login`, or give a valid token",
    ),
    "read token, old": (("user/old", {"token": "hf_read"}), "user/old: the Hub refuses with 403 (you don't have the "),
    "public": (
        ("user/old", {"token": "hf_write", "private": True}),
        "user/old: exists and is public; make it private",
    ),
    "empty": (("user/new", {"token": "hf_write"}), "user/new: the dataset has no rows; nothing is pushed"),
    "limited": (("user/a", {"token": "hf_write"}), "user/a: the Hub refuses with 429 (told to fail); too many reques"),
    "broken": (("user/b", {"token": "hf_write"}), "user/b: the Hub refuses with 500 (told to fail); the Hub has a pr"),
    "raced": (("user/c", {"token": "hf_write"}), "user/c: the Hub refuses with 412 (told to fail); somebody else"),
    "dropped": (("user/d", {"token": "hf_write"}), "user/d: the Hub cannot be reached (Server disconnected"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The Hub after pushes that it refused, and their errors."""
    with LoopbackHub() as hub:
        folder = tmp_path_factory.mktemp("home")
        hub.fail("GET /api/datasets/user/a", 429)
        hub.fail("POST /api/datasets/user/b/commit/", 500)
        hub.fail("GET .*/user/c/resolve/", 412)
        hub.fail("POST /api/datasets/user/d/commit/", DROP)
        cases = {case: arguments for case, (arguments, _) in CASES.items()}
        yield hub, run(TRY, hub.environment(folder), edits=EDITS, pool=POOL, folder=str(folder), cases=cases)


@pytest.mark.parametrize("case", CASES)
def test_a_refused_push_is_one_line(refused, case):
    error = refused[1][case]
    assert error.startswith(CASES[case][1])
    assert "\n" not in error and len(error) < 250 and "hf_w" not in error and "http" not in error


def test_a_refused_push_commits_nothing(refused):
    repositories = refused[0].repositories
    assert ("dataset", "user/new") not in repositories
    assert len(repositories["dataset", "user/old"].commits) == 3
    assert len(repositories["dataset", "user/b"].commits) == 1
