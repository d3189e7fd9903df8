"""A small Hugging Face hub: enough of its HTTP interface to push a folder and to load it."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
REPOSITORY = r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)"


class Repository:
    """Branches, each a commit and its files."""

    def __init__(self, private=False, gated=False):
        self.private = private
        self.gated = gated
        self.branches = {"main": (40 * "0", {})}
        self.commits = {}
        self.messages = []

    def at(self, revision):
        """Return (commit, files) of a branch or a commit, or None."""
        if revision in self.branches:
            return self.branches[revision]
        return (revision, self.commits[revision]) if revision in self.commits else None

    def commit(self, branch, message, files):
        former, existing = self.branches[branch]
        files = {**existing, **files}
        digest = hashlib.sha1(former.encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + content)
        commit = digest.hexdigest()
        self.branches[branch] = (commit, files)
        self.commits[commit] = files
        self.messages.append(message)
        return commit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value=None, *, status=200, headers=(), content=None):
        if content is None:
            content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, text in dict(headers).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code):
        self.answer({"error": code}, status=status, headers={"X-Error-Code": code})

    def is_owner(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name):
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.is_owner()):
            self.refuse(404 if self.is_owner() else 401, "RepoNotFound")
            return None
        return found

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"POST {path}")
        if not self.is_owner():
            self.refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            self.answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(f"{REPOSITORY}/branch/(?P<revision>.+)", path):
            self.branch(*match.groups())
        elif match := re.fullmatch(f"{REPOSITORY}/preupload/(?P<revision>.+)", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": name, **mode} for name in names]})
        elif match := re.fullmatch(f"{REPOSITORY}/commit/(?P<revision>.+)", path):
            self.commit(*match.groups(), body)
        else:
            self.refuse(404, "EntryNotFound")

    def create(self, wanted):
        name = f"{wanted['organization']}/{wanted['name']}"
        status = 409 if name in self.server.repositories else 200
        is_private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.server.repositories.setdefault(name, Repository(is_private))
        self.answer({"url": f"{self.server.url}/{name}", "name": name}, status=status)

    def branch(self, name, branch):
        if repository := self.repository(name):
            status = 409 if branch in repository.branches else 200
            repository.branches.setdefault(branch, repository.branches["main"])
            self.answer({}, status=status)

    def commit(self, name, branch, body):
        if not (repository := self.repository(name)):
            return
        lines = [json.loads(line) for line in body.splitlines()]
        values = {"header": [], "file": []}
        for line in lines:
            values[line["key"]].append(line["value"])
        files = {file["path"]: base64.b64decode(file["content"]) for file in values["file"]}
        oid = repository.commit(branch, values["header"][0]["summary"], files)
        url = f"{self.server.url}/{name}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": url})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if match := re.fullmatch(f"{REPOSITORY}(/revision/(?P<revision>.+))?", path):
            self.describe(match["repo"], match["revision"] or "main", self.info)
        elif match := re.fullmatch(f"{REPOSITORY}/tree/(?P<revision>[^/]+)/?", path):
            self.describe(match["repo"], match["revision"], self.tree)
        elif match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, file = match.groups()
            self.describe(repo, revision, lambda *found: self.file(*found, file))
        else:
            self.refuse(404, "EntryNotFound")

    def describe(self, name, revision, answer):
        if repository := self.repository(name):
            if found := repository.at(revision):
                answer(name, repository, *found)
            else:
                self.refuse(404, "RevisionNotFound")

    def info(self, name, repository, commit, files):
        siblings = [{"rfilename": file} for file in files]
        known = {"id": name, "sha": commit, "private": repository.private, "tags": []}
        known |= {"downloads": 0, "likes": 0}  # older versions of huggingface_hub read them
        self.answer({**known, "siblings": siblings})

    def tree(self, name, repository, commit, files):
        self.answer(
            [
                {
                    "type": "file",
                    "path": file,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for file, content in files.items()
            ]
        )

    def file(self, name, repository, commit, files, file):
        if repository.gated:
            self.refuse(403, "GatedRepo")
            return
        if file not in files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            self.answer({}, status=404, headers=headers)
            return
        etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        self.answer(headers=headers, content=files[file])


@contextmanager
def running_hub():
    """Yield a server with ``url``, ``repositories``, ``requests`` and ``cards``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.repositories, server.requests, server.cards = {}, [], []
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
