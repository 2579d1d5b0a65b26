"""What the loopback Hub stores: tokens, repositories as branches of commits, files in git or LFS. No HTTP here."""

import base64
import fnmatch
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import yaml

LFS_PATTERNS = ("*.parquet", "*.safetensors", "*.bin", "*.pt", "*.png")  # of the Hub's own .gitattributes, in short
LFS_SIZE = 10 * 1024 * 1024  # a file above this goes to LFS whatever its name
ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


class Refusal(Exception):
    """An answer that is an error: status, message, headers beside the code that the clients look at, more fields."""


def refuse(status, message, code=None, headers=None, **more):
    raise Refusal(status, message, ({"X-Error-Code": code} if code else {}) | (headers or {}), more)


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def card_metadata(text):
    """The metadata at the top of a card; raises `yaml.YAMLError` where they are broken."""
    parts = text.split("---\n", 2)
    return yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}


class User(NamedTuple):
    """Whose a token is, and whether it may write into the user's own namespace; into others' it never may."""

    name: str
    may_write: bool


class Commit(NamedTuple):
    """A commit's hash, its title, and all files by path."""

    oid: str
    title: str
    files: dict


@dataclass(frozen=True)
class File:
    """A file's content; LFS names it by its SHA-256, git by its SHA-1 as a blob."""

    data: bytes
    lfs: bool = False

    @cached_property
    def oid(self):
        return hashlib.sha256(self.data).hexdigest() if self.lfs else git_oid(self.data)

    @property
    def blob(self):
        """What git itself stores: of an LFS file, the pointer."""
        return POINTER.format(oid=self.oid, size=len(self.data)).encode() if self.lfs else self.data

    def entry(self, path):
        """The file in a tree listing."""
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": git_oid(self.blob)}
        large = {"lfs": {"oid": self.oid, "size": len(self.data), "pointerSize": len(self.blob)}} if self.lfs else {}
        return entry | large

    def sibling(self, path):
        """The file in the metadata of its repository."""
        entry = self.entry(path)
        large = {"lfs": {**entry["lfs"], "sha256": self.oid}} if self.lfs else {}
        return {"rfilename": path, "size": entry["size"], "blobId": entry["oid"], **large}


@dataclass
class Repository:
    """The commits of each branch, oldest first; the hashes that tags stand for; the descriptions by hash."""

    private: bool = False
    branches: dict = field(default_factory=lambda: {"main": []})
    tags: dict = field(default_factory=dict)
    descriptions: dict = field(default_factory=dict)

    def __post_init__(self):
        self.add("initial commit", {".gitattributes": File(ATTRIBUTES.encode())})

    @property
    def commits(self):
        return self.branches["main"]

    @property
    def head(self):
        return self.commits[-1].oid

    @property
    def files(self):
        return self.commits[-1].files

    def add(self, title, files, branch="main", description=""):
        """Add a commit after which the branch has exactly `files`; the hash depends on all before it, as in git."""
        commits = self.branches[branch]
        parent = commits[-1].oid if commits else None
        text = json.dumps([parent, title, description, {path: file.oid for path, file in files.items()}])
        commits.append(Commit(git_oid(text.encode()), title, files))
        self.descriptions[commits[-1].oid] = description

    def history(self, revision):
        """The commits up to the one that a branch, a tag or a (shortened) hash stands for, oldest first."""
        if revision in self.branches:
            return self.branches[revision]
        oid = self.tags.get(revision, revision)
        for commits in self.branches.values():
            for place, commit in enumerate(commits, start=1):
                if commit.oid.startswith(oid) and len(oid) >= 7:
                    return commits[:place]
        return refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def at(self, revision):
        """The hash and the files that a branch, a tag or a hash stands for."""
        oid, _, files = self.history(revision)[-1]
        return oid, files

    def add_branch(self, name, revision):
        self.branches[name] = list(self.history(revision))

    def add_tag(self, name, revision):
        self.tags[name] = self.at(revision)[0]

    def commit(self, header, operations, large, branch="main"):
        """Add the commit of a client's operations, return its hash; LFS contents come from `large`, by SHA-256."""
        if branch not in self.branches:
            refuse(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head, files = self.at(branch)
        if not head.startswith(header.get("parentCommit", head)):
            refuse(412, "A commit has happened since. Please refresh and try again.")
        files = dict(files)
        for kind, value in operations:
            path = value["path"]
            if kind == "file":
                files[path] = File(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                files[path] = File(large.get(value["oid"]) or refuse(400, f"{path} was not uploaded"), lfs=True)
            elif kind == "deletedFile":
                files.pop(path) if path in files else refuse(404, f"There is no {path} to delete", "EntryNotFound")
            else:
                refuse(501, f"the loopback Hub has no operation {kind}")
        self.add(header["summary"], files, branch, header.get("description", ""))
        return self.branches[branch][-1].oid

    def info(self, revision, blobs=False):
        oid, files = self.at(revision)
        listed = [file.sibling(path) if blobs else {"rfilename": path} for path, file in sorted(files.items())]
        try:
            card = card_metadata(files["README.md"].data.decode()) if "README.md" in files else {}
        except yaml.YAMLError:
            card = {}
        state = {"private": self.private, "gated": False, "disabled": False}
        derived = {name: card[name] for name in ("library_name", "pipeline_tag") if name in card}
        return {"sha": oid, **state, "siblings": listed, "cardData": card, "tags": card.get("tags") or [], **derived}

    def upload_mode(self, path, revision, size=0):
        """How a client is to send a file, and which content is there: it does not commit the same one again."""
        _, files = self.at(revision)
        large = size > LFS_SIZE or any(fnmatch.fnmatch(path, pattern) for pattern in LFS_PATTERNS)
        known = {"oid": files[path].oid} if path in files else {}
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **known}

    def tree(self, revision, folder="", recursive=False):
        """A tree listing: the folders, then the files, of `folder` alone or of all below it."""
        _, files = self.at(revision)
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in sorted(files) if path.startswith(prefix)]
        if folder and not inside:
            refuse(404, f"{folder} does not exist", "EntryNotFound")
        folders = {path[:end] for path in inside for end in range(len(prefix), len(path)) if path[end] == "/"}
        listed = [{"type": "directory", "path": path, "oid": git_oid(path.encode())} for path in sorted(folders)]
        listed += [files[path].entry(path) for path in inside]
        return [entry for entry in listed if recursive or "/" not in entry["path"][len(prefix) :]]
