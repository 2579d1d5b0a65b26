"""Push to the Hub: an adapter folder in one commit, an augmented dataset with its card."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, metadata_load
from huggingface_hub.utils import validate_repo_id

from hf_ftedit.errors import EditError, shown
from hf_ftedit.hub.dataset_card import card_of_dataset, filled
from hf_ftedit.hub.errors import hub_errors, retried
from hf_ftedit.hub.folder import ADAPTER_FILES, EDITS_FILE, RECIPE_FILE, finish_folder, published_files, read_recipe
from hf_ftedit.options import COMMIT_MESSAGE, PROVENANCE

if TYPE_CHECKING:
    from datasets import DatasetDict

logger = logging.getLogger(__name__)

UNOWNED = (".gitattributes", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")  # of a repository that is still free


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = COMMIT_MESSAGE,
) -> str:
    """
    Push an adapter folder to the Hub, in one commit: the files that its `edit_config.yaml` names, and nothing else.

    The card is first made for the repository: its name stands in the commands and snippets. A card that was edited by
    hand stays as it is. The Hub then has byte for byte the files of the folder; where other edits were there, a
    warning names the commit that has them. A push that fails commits nothing, and can be repeated; busy answers (429,
    5xx) and broken connections are tried again.

    Args:
        folder (`str` or `Path`): Folder that [`EditTrainer.save_model`] or a verb of the command line wrote.
        repo_id (`str`): Where to, such as `"user/my-edits"`; made when it is not there.
        private (`bool`, *optional*): `True` for a repository that only you may see. By default a new one is as the
            namespace's own setting says.
        token (`str`, *optional*): Token of the Hub with write access; the one of `hf auth login` by default.
        revision (`str`, *optional*): Branch to push to, which must be there; `main` by default.
        commit_message (`str`, *optional*): Title of the commit.

    Returns:
        `str`: address of the model's page.

    Raises:
        [`~hf_ftedit.EditError`]: the folder is not complete or was changed, the Hub refuses or cannot be
            reached, the repository holds something else, or `private` is set and it is public.

    Example:
    ```python
    push_folder("edited-adapter", "user/my-edits", private=True)
    ```
    """
    published_files(folder)  # complete, before anything is made on the Hub
    api = HfApi(token=token)
    with hub_errors(repo_id):
        page = retried(lambda: _repository(api, repo_id, private))
        # Each try reads the branch anew: if the answer to a commit was lost, nothing is left to commit.
        retried(lambda: _commit(api, page.repo_id, folder, revision, commit_message))
    return str(page)


def _repository(api: HfApi, repo_id: str, private: bool | None, repo_type: str | None = None) -> Any:
    """The page of the repository, which is made where it is not there; checked to be private where that is wanted."""
    # `private` is heeded when a repository is made, and silently ignored where a public one is there already.
    page = api.create_repo(repo_id, private=private, repo_type=repo_type, exist_ok=True)
    if private and not api.repo_info(page.repo_id, repo_type=repo_type).private:
        raise EditError(f"{page.repo_id}: exists and is public; make it private on the Hub first, or push elsewhere")
    return page


def _commit(api: HfApi, name: str, folder: str | Path, revision: str | None, message: str) -> None:
    """Commit the files of the folder, and remove those that an earlier push put there, on top of the branch's head."""
    head = api.model_info(name, revision=revision)
    listed = {file.rfilename for file in head.siblings or ()}
    # A name that was typed wrong must not cost somebody a model.
    if RECIPE_FILE not in listed and (other := sorted(listed - set(UNOWNED))):
        raise EditError(f"{name}: exists and holds something else ({shown(other[0])}); push to another name")
    finish_folder(folder, name)
    # Their SHA-256 were compared before anything was made on the Hub: weights are large.
    new = read_recipe(Path(folder), name)[PROVENANCE]["files"]
    files = {file: Path(folder, file) for file in (*new, RECIPE_FILE)}
    earlier = _earlier_files(api, name, head.sha) if RECIPE_FILE in listed else {}
    # As on any push the newest one holds, and a name typed wrong would else not be noticed.
    if earlier.get(EDITS_FILE) not in (None, new.get(EDITS_FILE)):
        logger.warning(
            "%s: takes the place of other edits, which stay in the repository as revision %s", name, head.sha
        )
    operations: list[Any] = [CommitOperationAdd(path_in_repo, path) for path_in_repo, path in files.items()]
    operations += [CommitOperationDelete(path_in_repo) for path_in_repo in sorted(listed & set(earlier) - set(files))]
    # Not `upload_folder`: with hf_xet installed it splits an upload that is large or slow into several commits.
    api.create_commit(name, operations, commit_message=message, revision=revision, parent_commit=head.sha)


def _earlier_files(api: HfApi, name: str, commit: str | None) -> dict[str, str | None]:
    """Names of the files that an earlier push put into the repository, with their SHA-256."""
    # By name, not all that is there: license files and notes of others stay.
    recipe = Path(api.hf_hub_download(name, RECIPE_FILE, revision=commit))
    with suppress(EditError):  # somebody broke it there, and it is written again
        return {**dict.fromkeys(ADAPTER_FILES), **read_recipe(recipe.parent, name)[PROVENANCE]["files"]}
    return dict.fromkeys(ADAPTER_FILES)


def check_pushable(repo_id: str, token: str | None = None) -> None:
    """Raise [`~hf_ftedit.EditError`] where the token may not write, or `repo_id` is no name; nothing is made yet."""
    with hub_errors(repo_id):
        validate_repo_id(repo_id)
        user = retried(HfApi(token=token).whoami)
    # Fine-grained tokens say "fineGrained": whether they suffice is seen at the push.
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise EditError(f"{repo_id}: the token may only read; give one with write access")


def push_dataset(
    dataset: DatasetDict,
    repo_id: str,
    settings: dict[str, Any],
    *,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """
    Push an augmented dataset to the Hub, with its card; `load_dataset(repo_id)` reads it.

    The rows go up in one commit, as [`~datasets.DatasetDict.push_to_hub`] does it, the card in a second one. The card
    keeps the metadata that stands in the repository: that of the rows, and additions of others, such as a license.

    Args:
        dataset (`DatasetDict`): The splits; empty ones are left out.
        repo_id (`str`): Where to, such as `"user/my-edits"`; made when it is not there.
        settings (`dict`): Settings of the augmentation, for the card; see [`~hf_ftedit.EditDatasetBuilder.settings`].
        private (`bool`, *optional*): `True` for a repository that only you may see. By default a new one is as the
            namespace's own setting says.
        token (`str`, *optional*): Token of the Hub with write access; the one of `hf auth login` by default.

    Returns:
        `str`: address of the dataset's page.

    Raises:
        [`~hf_ftedit.EditError`]: there are no rows, the Hub refuses or cannot be reached, or `private` is
            set and the repository is there and public.

    Example:
    ```python
    push_dataset(builder.as_dataset(), "user/my-edits", builder.settings)
    ```
    """
    splits = filled(dataset)
    if not splits:
        raise EditError(f"{repo_id}: the dataset has no rows; nothing is pushed")
    api = HfApi(token=token)
    with hub_errors(repo_id):
        page = retried(lambda: _repository(api, repo_id, private, "dataset"))
        # Two commits, as `datasets` writes the first one, and its card has the metadata that ours must keep.
        commit = splits.push_to_hub(page.repo_id, token=token)
        pushed = api.hf_hub_download(page.repo_id, "README.md", repo_type="dataset", revision=commit.oid)
        api.upload_file(
            repo_id=page.repo_id,
            repo_type="dataset",
            path_in_repo="README.md",
            path_or_fileobj=card_of_dataset(settings, splits, metadata_load(pushed) or {}).encode(),
            commit_message="Write the dataset card",
            parent_commit=commit.oid,
        )
    return str(page)
