"""
A small Hugging Face Hub on loopback, for tests with the real clients: repositories, LFS, tokens, failures on demand.

```python
with LoopbackHub() as hub:
    hub.fail("POST .*/commit/", 500)  # refused; nothing is stored
    hub.fail("POST .*/commit/", DROP, at="answer")  # stored, but the answer is lost
    hub.fail("PUT /lfs/", DROP, at="upload")  # the connection ends in the middle of the request
    hub.fail("GET /lfs/", DROP, at="download")  # ... of the answer
    hub.fail("GET /api/models/", 429, times=2, headers={"Retry-After": "1"})
    hub.hold("user/name", {"config.json": File(b"{}")})
    run("import json; print(json.dumps(1))", hub.environment(tmp_path, token="hf_write"))
    hub.repositories["dataset", "user/name"].files["README.md"].data
```

The clients read `HF_ENDPOINT` when they are imported: run them in a fresh process. Large files go by LFS, not by Xet;
their contents are on a second port, as the real Hub's are on another host, which no token may reach.
"""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_storage import Refusal, Repository, User, card_metadata, refuse

NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
REPOSITORY = rf"(?P<kind>model|dataset|space)s/{NAME}"
PAGE = rf"/(?:(?P<kind>dataset|space)s/)?{NAME}"
REVISION = r"(?P<revision>[^/]+)"
DATE = "2026-01-01T00:00:00.000Z"  # of every commit
DROP = 0  # a failure that answers nothing: the connection is closed
OK = 200
# Put before the code of a process: what it waits before another try passes twenty times as fast.
HURRY = "import time; wait = time.sleep; time.sleep = lambda seconds: wait(seconds / 20)\n"
# Before it too: drift is measured by few prompts (see `tiny`), and no bar is shown.
FEW_DRIFT_PROMPTS = """
import os
# As the command line does, before it imports what reads them.
os.environ |= dict.fromkeys(["TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"], "1")
from hf_ftedit.evaluation import drift
every = drift.drift_prompts
drift.drift_prompts = lambda: dict([*every().items()][::11])
"""


def run(code, environment, **given):
    """The last line that `code` prints, read as JSON, from a fresh process with `given` as JSON on its input."""
    code = FEW_DRIFT_PROMPTS + code
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    settings = {"env": environment, "input": json.dumps(given), "capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run([sys.executable, "-c", code], **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class Failure(NamedTuple):
    """What is to happen to one request; `LoopbackHub.fail` says more."""

    pattern: str = ""
    status: int = OK
    at: str = "start"
    headers: dict | None = None


class LoopbackHub:
    """The server, a context manager; `repositories` by kind and name, `requests` as `"METHOD /path?query"`."""

    def __init__(self):
        self.tokens = {"hf_write": User("user", may_write=True), "hf_read": User("user", may_write=False)}
        self.repositories, self.large, self.requests, self.failures = {}, {}, [], []
        self.lock = threading.RLock()  # one request at a time is looked at and stored

    def __enter__(self):
        self.servers = [self.serve(ROUTES), self.serve(STORAGE_ROUTES)]
        self.url, self.storage_url = [f"http://127.0.0.1:{server.server_port}" for server in self.servers]
        return self

    def serve(self, routes):
        handler = type("BoundHandler", (Handler,), {"hub": self, "routes": routes})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def __exit__(self, *exception):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def hold(self, name, files, kind="model", private=False):
        """A new repository with these files."""
        repository = self.repositories[kind, name] = Repository(private)
        repository.add("files", files)
        return repository

    def fail(self, pattern, status, times=1, at="start", headers=None):
        """
        Answer the next requests whose `"METHOD /path"` matches `pattern` with `status`, or `DROP` them. `at` is where
        they fail: at the "start"; in the middle of their "upload"; before the "answer", when all is done and stored;
        or in the middle of the "download" of the answer (to `DROP` only).
        """
        self.failures += [Failure(pattern, status, at, headers)] * times

    def failure_of(self, request):
        with self.lock:
            for failure in self.failures:
                if re.match(failure.pattern, request):
                    self.failures.remove(failure)
                    return failure
        return Failure()

    def environment(self, home, token=None):
        """Variables for a process whose clients know this Hub only, with their caches under `home`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        return kept | own | quiet | ({"HF_TOKEN": token} if token else {})

    def page(self, kind, name):
        return f"{self.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"


class Handler(BaseHTTPRequestHandler):
    """One request, answered by the method that `routes` names; it returns JSON, or a status, bytes and headers."""

    hub: LoopbackHub
    routes: dict
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self):
        with contextlib.suppress(ConnectionError):  # a client that gave up, as the failures let it
            super().handle()

    def answer(self):
        url = urlsplit(self.path)
        self.query, request = parse_qs(url.query), f"{self.command} {url.path}"
        self.hub.requests.append(f"{self.command} {self.path}")
        failure, self.unread = self.hub.failure_of(request), int(self.headers.get("Content-Length", 0))
        self.body = self.read(self.unread // 2 if failure.at == "upload" else self.unread)
        try:
            if failure.status == OK or failure.at in ("answer", "download"):
                with self.hub.lock:
                    found = self.routed(request)
            if failure.status == OK or failure.at == "download":
                self.send(*found, whole=failure.status == OK)
            elif failure.status == DROP:
                self.close_connection = True
            else:
                refuse(failure.status, "told to fail", headers=failure.headers)
        except Refusal as refusal:
            status, message, headers, more = refusal.args
            headers = {"X-Error-Message": message.encode("ascii", "replace").decode(), **headers}
            self.send(status, {"error": message, **more}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def read(self, size):
        data = self.rfile.read(size)
        self.unread -= size
        return data

    def routed(self, request):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = self.hub.tokens.get(token)
        if token and self.routes is STORAGE_ROUTES:
            refuse(400, "Only one auth mechanism allowed")
        if token and not self.user:
            refuse(401, "Invalid credentials in Authorization header")
        for pattern, route in self.routes.items():
            if match := re.fullmatch(pattern, request):
                found = route(self, **{name: unquote(value or "") for name, value in match.groupdict().items()})
                return found if isinstance(found, tuple) else (OK, found)
        return refuse(501, f"the loopback Hub has no {request}")

    def send(self, status, content, headers=None, whole=True):
        """Send an answer, or half of it; after an upload that was not read to its end the connection is of no use."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, value)
        if self.unread:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if whole else data[: len(data) // 2])
        self.read(self.unread)  # closing before the client has sent all could take the answer away from it
        self.close_connection |= not whole

    def log_message(self, *args):
        """Nothing on the screen."""

    def repository(self, kind, name, write=False):
        found = self.hub.repositories.get((kind or "model", name))
        self.own = self.user is not None and self.user.name == name.split("/")[0]
        if found is None or (found.private and not self.own):
            refuse(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and not (self.known_user().may_write and self.own):
            refuse(403, "you don't have the rights to write to this repository")
        return found

    def known_user(self):
        return self.user or refuse(401, "Invalid username or password.")

    def whoami(self):
        user = self.known_user()
        token = {"displayName": "test", "role": "write" if user.may_write else "read"}
        return {"type": "user", "name": user.name, "orgs": [], "auth": {"type": "access_token", "accessToken": token}}

    def create(self):
        wanted, user = json.loads(self.body), self.known_user()
        kind, namespace = wanted.get("type") or "model", wanted["organization"] or user.name
        if not user.may_write or user.name != namespace:
            refuse(403, f"you don't have the rights to create a {kind} under the namespace {namespace!r}")
        name = f"{namespace}/{wanted['name']}"
        if (kind, name) in self.hub.repositories:
            refuse(409, "You already created this repo", url=self.hub.page(kind, name))
        self.hub.repositories[kind, name] = Repository(wanted.get("visibility") == "private")
        return {"url": self.hub.page(kind, name)}

    def validate_yaml(self):
        try:
            card_metadata(json.loads(self.body)["content"])
        except yaml.YAMLError as error:
            refuse(400, "invalid metadata", errors=[{"message": str(error)}])
        return {"errors": [], "warnings": []}

    def info(self, kind, name, revision="main"):
        found = self.repository(kind, name).info(revision, blobs="blobs" in self.query)
        return {"id": name, "author": name.split("/")[0], "lastModified": DATE, "createdAt": DATE, **found}

    def preupload(self, kind, name, revision):
        repository, files = self.repository(kind, name, write=True), json.loads(self.body)["files"]
        return {"files": [repository.upload_mode(file["path"], revision, file["size"]) for file in files]}

    def lfs_batch(self, kind, name):
        self.repository(kind, name, write=True)
        objects = [{key: wanted[key] for key in ("oid", "size")} for wanted in json.loads(self.body)["objects"]]
        for missing in (found for found in objects if found["oid"] not in self.hub.large):
            missing["actions"] = {"upload": {"href": f"{self.hub.storage_url}/lfs/{missing['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            refuse(400, "the content does not have the SHA-256 that was announced")
        self.hub.large[oid] = self.body
        return {}

    def lfs_download(self, oid):
        return self.content(self.hub.large.get(oid) or refuse(404, "NoSuchKey"), {"ETag": f'"{oid}"'})

    def commit(self, kind, name, revision):
        repository = self.repository(kind, name, write=True)
        (_, header), *operations = [tuple(json.loads(line).values()) for line in self.body.splitlines()]
        oid = repository.commit(header, operations, self.hub.large, revision)
        return {"commitOid": oid, "commitUrl": f"{self.hub.page(kind, name)}/commit/{oid}"}

    def tree(self, kind, name, revision, folder):
        return self.repository(kind, name).tree(revision, folder, self.query.get("recursive") == ["true"])

    def resolve(self, kind, name, revision, path):
        repository = self.repository(kind, name)
        oid, files = repository.at(revision)
        commit = {"X-Repo-Commit": oid}
        file = files.get(path) or refuse(404, "Entry not found", "EntryNotFound", commit)
        if not file.lfs:
            return self.content(file.data, {"ETag": f'"{file.oid}"', **commit})
        self.hub.large[file.oid] = file.data  # of a repository that a test has filled by hand
        linked = {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": len(file.data), **commit}
        return 302, b"", {"Location": f"{self.hub.storage_url}/lfs/{file.oid}", **linked}

    def content(self, data, headers):
        """A file's content, or the range of it that is asked for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return OK, data, headers
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            refuse(416, "Requested Range Not Satisfiable", headers={"Content-Range": f"bytes */{len(data)}"})
        return 206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", **headers}


ROUTES = {
    "GET /api/whoami-v2": Handler.whoami,
    "POST /api/repos/create": Handler.create,
    "POST /api/validate-yaml": Handler.validate_yaml,
    f"GET /api/{REPOSITORY}": Handler.info,
    f"GET /api/{REPOSITORY}/revision/{REVISION}": Handler.info,
    f"GET /api/{REPOSITORY}/tree/{REVISION}/?(?P<folder>.*)": Handler.tree,
    f"POST /api/{REPOSITORY}/preupload/{REVISION}": Handler.preupload,
    f"POST /api/{REPOSITORY}/commit/{REVISION}": Handler.commit,
    f"POST {PAGE}.git/info/lfs/objects/batch": Handler.lfs_batch,
    f"(?:GET|HEAD) {PAGE}/resolve/{REVISION}/(?P<path>.+)": Handler.resolve,
}
STORAGE_ROUTES = {
    "PUT /lfs/(?P<oid>[0-9a-f]{64})": Handler.lfs_upload,
    "(?:GET|HEAD) /lfs/(?P<oid>[0-9a-f]{64})": Handler.lfs_download,
}
