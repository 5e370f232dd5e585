"""A hub on loopback, over HTTP as huggingface_hub's client speaks it, with faults on demand; and clients of it.

What it answers follows the Hugging Face hub: a listing of a repository at a revision; HEAD and GET of its files, where
large ones are elsewhere (another host, which must not see the token). Xet is not offered.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
LARGE = re.compile(r".*\.(safetensors|bin|h5|msgpack|ot|onnx|tflite)")
TOKEN = "hf_theRightOne"
NAME = "someone/tiny-gpt2"


@dataclass(frozen=True)
class Fault:
    """What a request for a file is answered with, in place of the file.

    Attributes:
        cut: bytes after which the connection ends.
        flip: a byte that is changed.
        status: of an empty answer.
        page: whether the answer is a web page.
        wait: seconds before it.
    """

    cut: int | None = None
    flip: int | None = None
    status: int | None = None
    page: bool = False
    wait: float = 0


@dataclass(frozen=True)
class Request:
    method: str
    place: str  # "list", "hub" or "cdn"
    name: str
    file: str
    commit: str
    range: str | None
    token: str | None


@dataclass
class Repository:
    """Files of each commit, and the commits of branches and tags."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        names = "".join(f"{name} {git_hash(content)}\n" for name, content in sorted(files.items()))
        self.refs[ref] = git_hash(names.encode())
        self.commits[self.refs[ref]] = dict(files)
        return self.refs[ref]


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves until it is closed.

    Attributes:
        repositories: by their names.
        faults: name of a file, "HEAD " and that, or "" for the listing -> what the next requests are answered with.
        log: every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.log: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        return self.repositories.setdefault(name, Repository()).commit(files, ref)

    def fetched(self, name: str) -> list[str]:
        """Returns the files of a repository whose content was asked for, sorted."""
        return sorted({one.file for one in self.log if (one.method, one.name) == ("GET", name) and one.place != "list"})

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away."""


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Keeps the standard error of the tests clean."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+(?:/[^/]+)?)(?:/revision/(.+))?", path):
            self.listing(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)", path):
            self.file(*match.groups())
        elif match := re.fullmatch(r"/cdn/([^/]+(?:/[^/]+)?)/([0-9a-f]{40})/(.+)", path):
            self.content("cdn", *match.groups())
        else:
            self.answer(404)

    def listing(self, name: str, revision: str) -> None:
        self.note("list", name, "", revision)
        if (repository := self.permitted(name)) is None or self.failed(""):
            return None
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self.answer(404, error="RevisionNotFound")
        siblings: list[dict[str, Any]] = []
        for file, content in repository.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_hash(content)}
            if LARGE.fullmatch(file):
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
                entry["blobId"] = git_hash(b"a pointer to " + content)
            siblings.append(entry if "blobs=" in self.path else {"rfilename": file})
        listing = {"_id": "0", "id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False}
        return self.answer(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def file(self, name: str, revision: str, file: str) -> None:
        self.note("hub", name, file, revision)
        if (repository := self.permitted(name)) is None or self.failed(f"HEAD {file}" * (self.command == "HEAD")):
            return None
        if repository.gated and self.token != TOKEN:
            return self.answer(401, error="GatedRepo")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self.answer(404, error="RevisionNotFound")
        if file not in repository.commits[commit]:
            return self.answer(404, error="EntryNotFound", headers={"X-Repo-Commit": commit})
        content = repository.commits[commit][file]
        if LARGE.fullmatch(file):
            location = f"http://localhost:{self.server.server_port}/cdn/{name}/{commit}/{file}"
            linked = {"X-Linked-ETag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            return self.answer(302, headers={"Location": location, "X-Repo-Commit": commit, **linked})
        return self.content("hub", name, commit, file)

    def content(self, place: str, name: str, commit: str, file: str) -> None:
        if place == "cdn":
            self.note(place, name, file, commit)
        content = self.server.repositories[name].commits[commit][file]
        etag = sha256(content) if LARGE.fullmatch(file) else git_hash(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        fault = self.fault(file) if self.command == "GET" else Fault()
        time.sleep(fault.wait)
        if fault.status:
            return self.answer(fault.status)
        if fault.flip is not None:
            content = content[: fault.flip] + bytes([content[fault.flip] ^ 1]) + content[fault.flip + 1 :]
        status, total = 200, len(content)
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
            content = content[start:]
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        return self.answer(status, content, headers, cut=fault.cut)

    def permitted(self, name: str) -> Repository | None:
        """Returns a repository; one that is absent, or hidden from the caller, is answered as the hub does."""
        if self.token not in (None, TOKEN):
            self.answer(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self.token != TOKEN):
            self.answer(404 if self.token else 401, error="RepoNotFound")
            return None
        return repository

    def failed(self, key: str) -> bool:
        """Answers with the next fault of the listing, or of a HEAD, if there is one."""
        if key == "" and not self.path.startswith("/api/"):
            return False
        fault = self.fault(key)
        time.sleep(fault.wait)
        if fault.page:
            self.answer(200, b"<html>Please log in to the network", {"Content-Type": "text/html"})
        elif fault.status:
            self.answer(fault.status)
        return fault.page or fault.status is not None

    def fault(self, key: str) -> Fault:
        waiting = self.server.faults.get(key)
        return waiting.pop(0) if waiting else Fault()

    @property
    def token(self) -> str | None:
        given = self.headers.get("Authorization")
        return given.removeprefix("Bearer ") if given else None

    def note(self, place: str, name: str, file: str, commit: str) -> None:
        self.server.log.append(Request(self.command, place, name, file, commit, self.headers.get("Range"), self.token))

    def answer(
        self,
        status: int,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        error: str | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), **({"X-Error-Code": error} if error else {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        self.close_connection = cut is not None


# Resolves what it reads, a line of JSON a call, and says what came of each.
_CLIENT = """
import json, sys, warnings
warnings.simplefilter("error")
from gptzoo.errors import GPTZooError
from gptzoo.hub import resolve, take_options
for line in sys.stdin:
    name, kind, arguments = json.loads(line)
    try:
        options, rest = take_options(arguments)
        assert not rest, rest
        answer = [str(resolve(name, kind, options)), None, None]
    except GPTZooError as problem:
        noise = problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__)
        answer = [None, type(problem).__name__, str(problem) + (f" AFTER {noise!r}" if noise else "")]
    print(json.dumps(answer), flush=True)
"""


def client_of(hub: Hub, folder: Path) -> Client:
    """Returns a client with a home and a working directory of its own."""
    here = folder / "here"
    here.mkdir()
    return Client({"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")}, here)


class Refused(Exception):
    """What a client says in place of a path."""


@dataclass(frozen=True)
class Client:
    """A process of its own, since huggingface_hub reads its environment when it is imported.

    Attributes:
        environment: over that of the tests.
        folder: where it runs.
    """

    environment: Mapping[str, str]
    folder: Path

    def with_variables(self, **variables: str) -> Client:
        return Client({**self.environment, **variables}, self.folder)

    @property
    def cache(self) -> Path:
        return Path(self.environment["HF_HOME"], "hub")

    @property
    def variables(self) -> dict[str, str]:
        paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "conversion")])}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        return kept | paths | dict(self.environment)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(
            [sys.executable, *command], text=True, env=self.variables, cwd=self.folder, **pipes | options
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs Python with arguments to its end."""
        with self.start(*command) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def ask(self, *calls: tuple[str, str, dict[str, Any]]) -> list[tuple[Path | None, str]]:
        """Resolves names one after another in one process; returns the path of each, or its error's class and text."""
        return self.answers(self.start("-c", _CLIENT), *calls)

    def answers(
        self, process: subprocess.Popen[str], *calls: tuple[str, str, dict[str, Any]]
    ) -> list[tuple[Path | None, str]]:
        with process:
            out, err = process.communicate("".join(f"{json.dumps(call)}\n" for call in calls))
        assert process.returncode == 0, err
        answers = [json.loads(line) for line in out.splitlines()]  # and nothing else was printed
        return [(Path(path), "") if path else (None, f"{error}: {text}") for path, error, text in answers]

    def ask_at_once(self, count: int, call: tuple[str, str, dict[str, Any]]) -> list[tuple[Path | None, str]]:
        """Resolves one name in several processes, which have all been started before the first is asked."""
        processes = [self.start("-c", _CLIENT) for _ in range(count)]
        for process in processes:
            assert process.stdin
            process.stdin.write(f"{json.dumps(call)}\n")
            process.stdin.flush()
        return [answer for process in processes for answer in self.answers(process)]

    def resolve(self, name: str, kind: str = "model", **options: Any) -> Path:
        """Resolves one name.

        Raises:
            Refused: the class and the text of the error.
        """
        [(path, text)] = self.ask((name, kind, options))
        if path is None:
            raise Refused(text)
        return path
