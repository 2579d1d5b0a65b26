"""Pushes to the Hub and fetches from it: folders pushed in one commit, datasets with their card, folders fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ftedit.errors import EditError, one_line, shown
from hf_ftedit.hub.edit_folder import ADAPTER_FILES, RECIPE_FILE, finish_folder, published_files, read_recipe, sha256
from hf_ftedit.hub.errors import hub_errors, may_pass, patiently, status_of
from hf_ftedit.hub.folders import card_of_dataset, filled
from hf_ftedit.options import COMMIT_MESSAGE, PROVENANCE

if TYPE_CHECKING:
    from datasets import DatasetDict
    from huggingface_hub import HfApi

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
    hand stays as it is. What is on the Hub is then byte for byte what is in the folder. A push that fails leaves the
    repository as it was, and can be repeated; busy answers (429, 5xx) and broken connections are tried again.

    Args:
        folder (`str` or `Path`):
            What [`EditTrainer.save_model`] or a verb of the command line wrote.
        repo_id (`str`):
            Where to, such as `"user/my-edits"`; made when it is not there.
        private (`bool`, *optional*):
            Whether only you may see the repository. By default a new one is as the namespace's own setting says.
        token (`str`, *optional*):
            Token of the Hub with write access; the one of `hf auth login` by default.
        revision (`str`, *optional*):
            Branch to push to, which must be there; `main` by default.
        commit_message (`str`, *optional*):
            Title of the commit.

    Returns:
        `str`: address of the model's page.

    Raises:
        [`~hf_ftedit.EditError`]: the folder is not complete or was changed, the Hub refuses or cannot be
            reached, the repository holds something else, or `private` is asked for and it is public.

    Example:
    ```python
    push_folder("edited-adapter", "user/my-edits", private=True)
    ```
    """
    from huggingface_hub import HfApi

    published_files(folder)  # complete, before anything is made on the Hub
    api = HfApi(token=token)
    with hub_errors(repo_id):
        page, is_new = _repository(api, repo_id, private)
        name = page.repo_id
        try:
            head = patiently(lambda: api.model_info(name, revision=revision))
            there = {file.rfilename for file in head.siblings or ()}
            if RECIPE_FILE not in there and (other := sorted(there - set(UNOWNED))):
                raise EditError(f"{name}: exists and holds something else ({shown(other[0])}); push to another name")
            earlier = _earlier_files(api, name, head.sha or "") if RECIPE_FILE in there else set()
            finish_folder(folder, name)
            files = {path.name: path for path in published_files(folder)}
            stale = sorted(there & earlier - set(files))
            _commit(api, name, files, stale, head.sha or "", revision, commit_message)
        except BaseException:
            if is_new:
                _delete_untouched(api, name)
            raise
    return str(page)


def check_pushable(repo_id: str, token: str | None = None) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where the token may not write, or `repo_id` is no name; nothing is made yet.

    Args:
        repo_id (`str`):
            Where to push later.
        token (`str`, *optional*):
            Token of the Hub; the one of `hf auth login` by default.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    with hub_errors(repo_id):
        validate_repo_id(repo_id)
        user = patiently(lambda: HfApi(token=token).whoami())
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise EditError(f"{repo_id}: the token may only read; give one with write access")


def fetch_folder(
    name: str, patterns: tuple[str, ...], *, revision: str | None = None, token: str | None = None
) -> Path:
    """
    The files of a folder, or of a repository of the Hub, in its cache.

    Args:
        name (`str`):
            Folder, or Hub id.
        patterns (`tuple[str, ...]`):
            Names of the files to fetch from the Hub, with `*` for any text; no others are.
        revision (`str`, *optional*):
            Branch, tag or commit; `main` by default.
        token (`str`, *optional*):
            Token of the Hub; the one of `hf auth login` by default.

    Returns:
        `Path`: the folder. Of one from the Hub, its name is the commit.

    Raises:
        [`~hf_ftedit.EditError`]: there is no such folder or repository, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(name).is_dir():
        if revision is not None:
            raise EditError(f"{shown(name)} is a folder, which has no revision {revision!r}; leave it out")
        return Path(name)

    def fetch() -> Path:
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), token=token))
        except LocalEntryNotFoundError as error:  # nor in the cache
            if error.__cause__ and may_pass(error.__cause__):
                raise error.__cause__ from None
            raise

    with hub_errors(name):
        return patiently(fetch)


def listed_files(name: str, *, revision: str | None = None, token: str | None = None) -> list[str]:
    """Names of the files in a folder or in a repository of the Hub; raises as [`fetch_folder`]."""
    from huggingface_hub import HfApi

    if Path(name).is_dir():
        return sorted(path.name for path in Path(name).iterdir())
    with hub_errors(name):
        return sorted(patiently(lambda: HfApi(token=token).list_repo_files(name, revision=revision)))


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
    keeps the metadata that stands in the repository: that of the rows, and what somebody added, such as a license.

    Args:
        dataset (`DatasetDict`):
            The splits; empty ones are left out.
        repo_id (`str`):
            Where to, such as `"user/my-edits"`; made when it is not there.
        settings (`dict`):
            Settings of the augmentation, for the card; see [`~hf_ftedit.EditDatasetBuilder.settings`].
        private (`bool`, *optional*):
            Whether only you may see the repository. By default a new one is as the namespace's own setting says.
        token (`str`, *optional*):
            Token of the Hub with write access; the one of `hf auth login` by default.

    Returns:
        `str`: address of the dataset's page.

    Raises:
        [`~hf_ftedit.EditError`]: there are no rows, the Hub refuses or cannot be reached, or `private` is
            asked for and the repository is there and public.

    Example:
    ```python
    push_dataset(builder.as_dataset(), "user/my-edits", builder.settings)
    ```
    """
    from huggingface_hub import HfApi, metadata_load

    splits = filled(dataset)
    if not splits:
        raise EditError(f"{repo_id}: the dataset has no rows; nothing is pushed")
    api = HfApi(token=token)
    with hub_errors(repo_id):
        page, _ = _repository(api, repo_id, private, "dataset")
        name = page.repo_id
        commit = splits.push_to_hub(name, token=token)
        pushed = api.hf_hub_download(name, "README.md", repo_type="dataset", revision=commit.oid)
        api.upload_file(
            repo_id=name,
            repo_type="dataset",
            path_in_repo="README.md",
            path_or_fileobj=card_of_dataset(settings, splits, metadata_load(pushed) or {}).encode(),
            commit_message="Write the dataset card",
            parent_commit=commit.oid,
        )
    return str(page)


def _repository(api: HfApi, repo_id: str, private: bool | None, repo_type: str | None = None) -> tuple[Any, bool]:
    """The page of the repository, made where it is not there, and whether it was made."""
    from huggingface_hub.errors import HfHubHTTPError

    how: dict[str, Any] = {"repo_type": repo_type, "private": private}
    try:
        return patiently(lambda: api.create_repo(repo_id, **how)), True
    except HfHubHTTPError as error:
        if error.response.status_code not in (403, 409):  # 403: no right to make one, but maybe it is there
            raise
    page = patiently(lambda: api.create_repo(repo_id, exist_ok=True, **how))
    if private and not patiently(lambda: api.repo_info(page.repo_id, repo_type=repo_type)).private:
        raise EditError(f"{page.repo_id}: exists and is public; make it private on the Hub first, or push elsewhere")
    return page, False


def _earlier_files(api: HfApi, name: str, commit: str) -> set[str]:
    """The files that an earlier push put there."""
    recipe = Path(patiently(lambda: api.hf_hub_download(name, RECIPE_FILE, revision=commit)))
    with suppress(EditError):  # somebody broke it there, and it is written again
        return {*ADAPTER_FILES, *read_recipe(recipe.parent, name)[PROVENANCE]["files"]}
    return set(ADAPTER_FILES)


def _commit(
    api: HfApi,
    name: str,
    files: Mapping[str, Path],
    stale: list[str],
    parent: str,
    revision: str | None,
    message: str,
) -> None:
    """All files in one commit; one that was made although its answer was lost is found, not made again."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HTTPError

    added = [CommitOperationAdd(path_in_repo, path) for path_in_repo, path in files.items()]
    deleted = [CommitOperationDelete(path_in_repo) for path_in_repo in stale]
    try:
        api.preupload_lfs_files(name, added, revision=revision)  # by itself it tries again
    except HTTPError:
        raise
    except (RuntimeError, OSError) as error:  # of one large file
        if isinstance(error.__cause__, HTTPError):
            raise error.__cause__ from None
        raise EditError(f"{name}: an upload failed ({one_line(error)}); try again") from error

    def commit() -> None:
        try:
            how: dict[str, Any] = {"commit_message": message, "revision": revision}
            api.create_commit(name, [*added, *deleted], parent_commit=parent, **how)
        except HTTPError as error:
            # 412 is the answer when the branch went on: maybe by this very commit.
            if not (may_pass(error) or status_of(error) == 412) or not _are_there(api, name, files, stale, revision):
                raise

    patiently(commit)


def _are_there(api: HfApi, name: str, files: Mapping[str, Path], stale: list[str], revision: str | None) -> bool:
    """Whether the repository holds exactly these contents under these names, and none of the stale ones."""
    listed = api.get_paths_info(name, [*files, *stale], revision=revision)
    found = {entry.path: entry for entry in listed}
    return set(found) == set(files) and all(_holds(found[path], file) for path, file in files.items())


def _holds(entry: Any, file: Path) -> bool:
    """Whether an entry of a repository is this file: LFS names it by its SHA-256, git by its SHA-1 as a blob."""
    if entry.lfs:
        return entry.lfs.sha256 == sha256(file)
    data = file.read_bytes()
    return entry.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _delete_untouched(api: HfApi, name: str) -> None:
    """Take back a repository that this push made, unless something was committed to it."""
    from huggingface_hub.errors import HTTPError

    with suppress(HTTPError):
        there = patiently(lambda: api.list_repo_files(name))
        if set(there) <= {".gitattributes"}:
            patiently(lambda: api.delete_repo(name, missing_ok=True))
