"""What the loopback Hub stores: tokens, repositories as lists of commits, files in git or LFS. No HTTP here."""

import base64
import fnmatch
import hashlib
import json
from dataclasses import dataclass, field
from typing import NamedTuple

LFS_PATTERNS = ("*.parquet", "*.safetensors", "*.bin", "*.png")  # of the Hub's own first .gitattributes, in short
ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)


class Refusal(Exception):
    """An answer that is an error: status, message, the code that the clients look at, more fields of the body."""


def refuse(status, message, code=None, **more):
    raise Refusal(status, message, code, more)


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class User(NamedTuple):
    """Whose a token is, and whether it may write into the user's own namespace; into others' it never may."""

    name: str
    may_write: bool


@dataclass(frozen=True)
class File:
    """A file's content; LFS names it by its SHA-256, git by its SHA-1 as a blob."""

    data: bytes
    lfs: bool = False

    @property
    def oid(self):
        return hashlib.sha256(self.data).hexdigest() if self.lfs else git_oid(self.data)

    def entry(self, path):
        """The file in a tree listing."""
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": git_oid(self.data)}
        large = {"lfs": {"oid": self.oid, "size": len(self.data), "pointerSize": 130}} if self.lfs else {}
        return entry | large


@dataclass
class Repository:
    """The commits of a repository, oldest first: each a hash, a title and all its files by path."""

    private: bool = False
    commits: list = field(default_factory=list)

    def __post_init__(self):
        self.add("initial commit", {".gitattributes": File(ATTRIBUTES.encode())})

    @property
    def head(self):
        return self.commits[-1][0]

    @property
    def files(self):
        return self.commits[-1][2]

    def add(self, title, files):
        text = json.dumps([len(self.commits), title, {path: file.oid for path, file in files.items()}])
        self.commits.append((git_oid(text.encode()), title, files))

    def at(self, revision):
        """The hash and the files that a branch or a hash stands for."""
        found = [(oid, files) for oid, _, files in self.commits if revision in (oid, "main")]
        return found[-1] if found else refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, header, operations, large):
        """Add the commit of a client's operations; contents of LFS files come from `large`, by SHA-256."""
        if header.get("parentCommit", self.head) != self.head:
            refuse(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self.files)
        for kind, value in operations:
            path = value["path"]
            if kind == "file":
                files[path] = File(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                files[path] = File(large.get(value["oid"]) or refuse(400, f"{path} was not uploaded"), lfs=True)
            elif kind == "deletedFile":
                files.pop(path, None) or refuse(404, f"{path} is not there", "EntryNotFound")
            else:
                refuse(501, f"the loopback Hub has no operation {kind}")
        self.add(header["summary"], files)

    def info(self, revision):
        oid, files = self.at(revision)
        listed = [{"rfilename": path} for path in sorted(files)]
        return {"sha": oid, "private": self.private, "siblings": listed, "tags": []}

    def upload_mode(self, path, revision):
        """How a client is to send a file, and which content is there: it does not commit the same one again."""
        _, files = self.at(revision)
        mode = "lfs" if any(fnmatch.fnmatch(path, pattern) for pattern in LFS_PATTERNS) else "regular"
        known = {"oid": files[path].oid} if path in files else {}
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, **known}

    def tree(self, revision, folder="", recursive=False):
        """A tree listing: the folders, then the files, of `folder` alone or of all below it."""
        _, files = self.at(revision)
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in sorted(files) if path.startswith(prefix)]
        if not inside:
            refuse(404, f"{folder} does not exist", "EntryNotFound")
        folders = {path[:end] for path in inside for end in range(len(prefix), len(path)) if path[end] == "/"}
        listed = [{"type": "directory", "path": path, "oid": git_oid(path.encode())} for path in sorted(folders)]
        listed += [files[path].entry(path) for path in inside]
        return [entry for entry in listed if recursive or "/" not in entry["path"][len(prefix) :]]
