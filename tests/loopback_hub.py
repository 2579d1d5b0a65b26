"""
A small Hugging Face Hub on loopback, for tests with the real clients: repositories, LFS, tokens, failures on demand.

```python
with LoopbackHub() as hub:
    hub.fail("POST .*/commit/", 500)
    subprocess.run([sys.executable, "client.py"], env=hub.environment(tmp_path, token="hf_write"))
    hub.repositories["dataset", "user/name"].files["README.md"].data
```

The clients read `HF_ENDPOINT` when they are imported: run them in a fresh process. Large files go by LFS, not by Xet.
"""

import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_storage import Refusal, Repository, User, refuse

REPOSITORY = r"(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"
PAGE = r"/(?:(?P<kind>dataset|space)s/)?(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
DROP = 0  # a failure that answers nothing: the connection is closed


class LoopbackHub:
    """The server, a context manager; `repositories` by kind and name, `requests` as `"METHOD /path?query"`."""

    def __init__(self):
        self.tokens = {"hf_write": User("user", may_write=True), "hf_read": User("user", may_write=False)}
        self.repositories, self.large, self.requests, self.failures = {}, {}, [], []

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()

    def fail(self, pattern, status, times=1):
        """Answer the next requests whose `"METHOD /path"` matches `pattern` with `status`, or `DROP` them."""
        self.failures += [(pattern, status)] * times

    def failure_of(self, request):
        for failure in self.failures:
            if re.match(failure[0], request):
                self.failures.remove(failure)
                return failure[1]
        return None

    def environment(self, home, token=None):
        """Variables for a process whose clients know this Hub only, with their caches under `home`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        return kept | own | quiet | ({"HF_TOKEN": token} if token else {})

    def page(self, kind, name):
        return f"{self.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"


class Handler(BaseHTTPRequestHandler):
    """One request, answered by the method that `ROUTES` names; it returns JSON, or bytes and headers."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def answer(self):
        url, self.body = urlsplit(self.path), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.query, request = parse_qs(url.query), f"{self.command} {url.path}"
        self.hub.requests.append(f"{self.command} {self.path}")
        try:
            if (failure := self.hub.failure_of(request)) == DROP:
                self.close_connection = True
                return
            self.send(200, *(refuse(failure, "told to fail") if failure else self.routed(request)))
        except Refusal as refusal:
            status, message, code, more = refusal.args
            headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
            self.send(status, {"error": message, **more}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def routed(self, request):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = self.hub.tokens.get(token)
        if token and not self.user:
            refuse(401, "Invalid credentials in Authorization header")
        for pattern, route in ROUTES.items():
            if match := re.fullmatch(pattern, request):
                found = route(self, **{name: unquote(value or "") for name, value in match.groupdict().items()})
                return found if isinstance(found, tuple) else (found,)
        return refuse(501, f"the loopback Hub has no {request}")

    def send(self, status, content, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args):
        """Nothing on the screen."""

    def repository(self, kind, name, write=False):
        found = self.hub.repositories.get((kind or "model", name))
        own = self.user is not None and self.user.name == name.split("/")[0]
        if found is None or (found.private and not own):
            refuse(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and not (own and self.user.may_write):
            refuse(403, "you don't have the rights to write to this repository")
        return found

    def whoami(self):
        return {"type": "user", "name": self.user.name} if self.user else refuse(401, "Invalid username or password.")

    def create(self):
        wanted, user = json.loads(self.body), self.user or refuse(401, "Invalid username or password.")
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
            yaml.safe_load(json.loads(self.body)["content"].split("---\n", 2)[1])
        except yaml.YAMLError as error:
            refuse(400, "invalid metadata", errors=[{"message": str(error)}])
        return {"errors": [], "warnings": []}

    def info(self, kind, name, revision="main"):
        return {"id": name, **self.repository(kind, name).info(revision)}

    def refs(self, kind, name):
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": self.repository(kind, name).head}
        return {"branches": [branch], "tags": [], "converts": []}

    def preupload(self, kind, name, revision):
        repository = self.repository(kind, name, write=True)
        return {"files": [repository.upload_mode(file["path"], revision) for file in json.loads(self.body)["files"]]}

    def lfs_batch(self, kind, name):
        self.repository(kind, name, write=True)
        objects = [{key: wanted[key] for key in ("oid", "size")} for wanted in json.loads(self.body)["objects"]]
        for missing in (found for found in objects if found["oid"] not in self.hub.large):
            missing["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{missing['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            refuse(400, "the content does not have the SHA-256 that was announced")
        self.hub.large[oid] = self.body
        return {}

    def commit(self, kind, name, revision):
        repository = self.repository(kind, name, write=True)
        (_, header), *operations = [tuple(json.loads(line).values()) for line in self.body.splitlines()]
        repository.commit(header, operations, self.hub.large)
        return {"commitOid": repository.head, "commitUrl": f"{self.hub.page(kind, name)}/commit/{repository.head}"}

    def tree(self, kind, name, revision, folder):
        return self.repository(kind, name).tree(revision, folder, self.query.get("recursive") == ["true"])

    def resolve(self, kind, name, revision, path):
        oid, files = self.repository(kind, name).at(revision)
        file = files.get(path) or refuse(404, "Entry not found", "EntryNotFound")
        return file.data, {"ETag": f'"{file.oid}"', "X-Repo-Commit": oid}


ROUTES = {
    "GET /api/whoami-v2": Handler.whoami,
    "POST /api/repos/create": Handler.create,
    "POST /api/validate-yaml": Handler.validate_yaml,
    f"GET /api/{REPOSITORY}": Handler.info,
    f"GET /api/{REPOSITORY}/revision/{REVISION}": Handler.info,
    f"GET /api/{REPOSITORY}/refs": Handler.refs,
    f"GET /api/{REPOSITORY}/tree/{REVISION}/?(?P<folder>.*)": Handler.tree,
    f"POST /api/{REPOSITORY}/preupload/{REVISION}": Handler.preupload,
    f"POST {PAGE}.git/info/lfs/objects/batch": Handler.lfs_batch,
    "PUT /lfs/(?P<oid>[0-9a-f]{64})": Handler.lfs_upload,
    f"POST /api/{REPOSITORY}/commit/{REVISION}": Handler.commit,
    f"(?:GET|HEAD) {PAGE}/resolve/{REVISION}/(?P<path>.+)": Handler.resolve,
}
