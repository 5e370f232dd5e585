"""Downloads that go wrong: cut, damaged, refused, killed, two at once; the right bytes come of it, or one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from gptzoo.checkpoint import open_checkpoint
from gptzoo.errors import CheckpointError
from gptzoo.hub import HubOptions, resolve
from tests.checkpoints import contents
from tests.hub_server import NAME, Client, Fault, Hub, Refused, git_hash, sha256
from tests.runs import store_small

WEIGHTS = "model.safetensors"
NOWHERE = f"CheckpointError: '{NAME}': no such file or directory, no bundled model (gptzoo/shakespeare), and "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(store_small(tmp_path_factory.mktemp("model") / "gpt2"))


def cached(client: Client) -> set[str]:
    """Names of what lies in the model's directory of the cache, links and temporary files among it."""
    storage = client.cache / "models--someone--tiny-gpt2"
    return {str(path.relative_to(storage)) for path in storage.rglob("*") if not path.is_dir()}


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_cut_download_goes_on_where_it_was_cut(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    """huggingface_hub keeps what it has in pieces of ten MiB."""
    piece = 10 * 2**20
    content = b"".join(i.to_bytes(4) for i in range(22 * 2**18))
    hub.put(NAME, model | {WEIGHTS: content})
    hub.faults[WEIGHTS] = [Fault(cut=piece + 10_000), Fault(cut=7), Fault(cut=piece + 1)]
    path = client.resolve(NAME)
    assert (path / WEIGHTS).read_bytes() == content
    ranges = [one.range for one in hub.log if (one.method, one.place) == ("GET", "cdn")]
    assert ranges == [None, f"bytes={piece}-", f"bytes={piece}-", f"bytes={2 * piece}-"]


@pytest.mark.parametrize(("file", "digest"), [(WEIGHTS, sha256), ("config.json", git_hash)])
def test_damage_on_the_way_is_found_and_does_not_stay(
    file: str, digest: type[str], hub: Hub, client: Client, model: dict[str, bytes]
) -> None:
    hub.put(NAME, model)
    hub.faults[file] = [Fault(flip=100)]
    damaged = model[file][:100] + bytes([model[file][100] ^ 1]) + model[file][101:]
    with pytest.raises(Refused) as caught:
        client.resolve(NAME)
    found = f"hash {digest(damaged)}, expected {digest(model[file])}; it was removed from the cache: try again"
    assert str(caught.value) == f"CheckpointError: {NAME}: {file}: {found}"
    assert not [name for name in cached(client) if Path(name).name in (file, digest(model[file])) or ".un" in name]
    assert contents(client.resolve(NAME)) == model


def test_a_process_that_is_killed_before_it_looked_leaves_a_mark(
    hub: Hub, client: Client, model: dict[str, bytes]
) -> None:
    """The file is whole and in its place when the process dies; the next one looks at it, even without a network."""
    hub.put(NAME, model)
    hub.faults[WEIGHTS] = [Fault(flip=500)]
    die = (
        "import os, signal, gptzoo._download as download, gptzoo.hub as hub\n"
        "check = download.Snapshot.check\n"
        "def killed(self, place, *rest):\n"
        f"    if place.name == {WEIGHTS!r}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    check(self, place, *rest)\n"
        "download.Snapshot.check = killed\n"
        f"hub.resolve({NAME!r}, options=hub.HubOptions(force_download=True))"
    )
    assert client.run("-c", die).returncode == -signal.SIGKILL
    commit = hub.repositories[NAME].refs["main"]
    assert f"snapshots/{commit}/{WEIGHTS}" in cached(client)
    with pytest.raises(
        Refused, match=f"{WEIGHTS}: hash [0-9a-f]{{64}}, expected {sha256(model[WEIGHTS])}; it was removed"
    ):
        client.with_variables(HF_HUB_OFFLINE="1").resolve(NAME, revision=commit)
    assert contents(client.resolve(NAME)) == model
    assert client.run("-c", die).returncode == -signal.SIGKILL
    assert contents(client.resolve(NAME)) == model  # what was right stays
    assert not [name for name in cached(client) if "unchecked" in name]


def test_a_process_that_is_killed_in_a_download(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, model)
    hub.faults[WEIGHTS] = [Fault(wait=20)]
    process = client.start("-c", f"from gptzoo.hub import resolve; resolve({NAME!r})")
    while not any(one.place == "cdn" for one in hub.log):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    with pytest.raises(Refused, match="no revision 'main' in the cache"):
        client.with_variables(HF_HUB_OFFLINE="1").resolve(NAME)
    assert contents(client.resolve(NAME)) == model


def test_several_processes_at_once(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, model)
    hub.faults[WEIGHTS] = [Fault(wait=1)]
    answers = client.ask_at_once(2, (NAME, "model", {}))
    assert answers[0] == answers[1]
    path, text = answers[0]
    assert path, text
    assert contents(path) == model
    assert len(list((path.parents[1] / "blobs").iterdir())) == len(model)
    assert not [name for name in cached(client) if "unchecked" in name or "incomplete" in name]


def test_a_failure_of_the_server_that_passes(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, model)
    hub.faults = {"HEAD config.json": [Fault(status=503)]}
    assert contents(client.resolve(NAME)) == model


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=500), "500 Internal Server Error"),
        (Fault(status=429), "429 Too Many Requests"),
        (Fault(status=403), "403 Forbidden: check the token"),
        (Fault(status=407), "407 Proxy Authentication Required"),
        (Fault(page=True), "what answers is no hub, but perhaps a proxy with a web page"),
        (Fault(wait=2), "ReadTimeout: "),
    ],
    ids=["500", "429", "403", "407", "page", "slow"],
)
def test_a_hub_that_does_not_answer_as_one(
    fault: Fault, said: str, hub: Hub, client: Client, model: dict[str, bytes]
) -> None:
    """One line; with the files in the cache, these."""
    client = client.with_variables(HF_HUB_ETAG_TIMEOUT="1")
    hub.put(NAME, model)
    hub.faults[""] = [fault]
    with pytest.raises(Refused) as caught:
        client.resolve(NAME)
    assert str(caught.value).startswith(f"{NOWHERE}{hub.url} cannot be asked for a model of this name ({said}")
    assert "\n" not in str(caught.value)
    path = client.resolve(NAME)
    hub.faults[""] = [fault, fault]
    (again, _), (forced, text) = client.ask((NAME, "model", {}), (NAME, "model", {"force_download": True}))
    assert (again, forced) == (path, None)
    assert said in text


def test_a_hub_that_is_not_there(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    commit = hub.put(NAME, model)
    away = client.with_variables(HF_ENDPOINT=f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(Refused, match=r"cannot be asked for a model of this name \(ConnectError: .*refused"):
        away.resolve(NAME)
    client.resolve(NAME, "config")
    answers = away.ask((NAME, "config", {}), (NAME, "config", {"revision": commit}), (NAME, "model", {}))
    assert [path.name for path, _ in answers[:2] if path] == [commit, commit]
    assert answers[2][1].startswith(NOWHERE)  # the weights are not in the cache
    path = client.resolve(NAME)
    done = away.run("-c", f"from gptzoo.hub import resolve; print(resolve({NAME!r}))")
    assert done.stdout == f"{path}\n"
    assert done.stderr.startswith(f"{NAME}: http://127.0.0.1:")
    assert done.stderr.endswith("; the files in the cache are read\n")
    assert len(done.stderr.splitlines()) == 1


def test_a_repository_that_went_away_is_read_from_the_cache(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, model)
    path = client.resolve(NAME)
    del hub.repositories[NAME]
    assert client.resolve(NAME) == path
    with pytest.raises(Refused, match=f"no model of this name at {hub.url}, unless"):
        client.resolve(NAME, cache_dir="elsewhere")


def test_offline_without_the_files(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    """A mistyped path is still called one."""
    hub.put(NAME, model)
    off = client.with_variables(HF_HUB_OFFLINE="1")
    [(_, text)] = off.ask(("old-modle", "model", {}))
    assert text == (
        "CheckpointError: 'old-modle': no such file or directory, no bundled model (gptzoo/shakespeare), "
        f"and not in the cache {client.cache} (nothing was downloaded: HF_HUB_OFFLINE is set)"
    )
    client.resolve(NAME, "config")
    answers = client.ask(*((NAME, kind, {"local_files_only": True}) for kind in ("model", "tokenizer", "config")))
    where = f"in the cache {client.cache} (nothing was downloaded: local_files_only=True)"
    assert [text.split("; ")[0] for _, text in answers] == [
        f"CheckpointError: {NAME}: no weights {where}",
        f"CheckpointError: {NAME}: no tokenizer {where}",
        "",
    ]
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) for i in (1, 2)}
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    hub.put("sharded", {"config.json": model["config.json"], f"{WEIGHTS}.index.json": index, **shards})
    path = client.resolve("sharded")
    (path / list(shards)[1]).unlink()
    with pytest.raises(Refused, match=r"sharded: no model-00002-of-00002\.safetensors in the cache"):
        off.resolve("sharded")
    assert not [one for one in hub.log if one.file == "old-modle"]


def test_a_pointer_in_place_of_the_weights_is_called_one(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    """A repository that was pushed without git-lfs holds the pointer itself, whose hash is right."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"
    hub.put(NAME, model | {WEIGHTS: pointer})
    path = client.resolve(NAME)
    with pytest.raises(CheckpointError, match=r"this is a git-lfs pointer, not the weights"):
        open_checkpoint(path)


def test_files_that_went_away_between_the_listing_and_the_download(
    hub: Hub, client: Client, model: dict[str, bytes]
) -> None:
    hub.put(NAME, model)
    hub.faults[f"HEAD {WEIGHTS}"] = [Fault(status=404)]
    with pytest.raises(Refused) as caught:
        client.resolve(NAME)
    assert str(caught.value) == f"CheckpointError: {NAME}: {WEIGHTS}: 404 Not Found"


def test_a_cache_that_cannot_be_written(hub: Hub, client: Client, model: dict[str, bytes], tmp_path: Path) -> None:
    hub.put(NAME, model)
    (tmp_path / "file").write_text("no directory")
    cache = tmp_path / "file" / "cache"
    [(_, text)] = client.ask((NAME, "model", {"cache_dir": str(cache)}))
    assert text == f"CheckpointError: {NAME}: the cache {cache}: Not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_full_cache_that_is_only_read(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, model)
    path = client.resolve(NAME)
    for directory in [client.cache, *(one for one in client.cache.rglob("*") if one.is_dir())]:
        directory.chmod(0o555)
    assert client.resolve(NAME) == path


def test_refs_that_are_damaged_name_no_commit(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, model)
    path = client.resolve(NAME)
    ref = path.parents[1] / "refs" / "main"
    for text in ("", "../../..", "main"):
        ref.write_text(text)
        with pytest.raises(Refused, match="tiny-gpt2: no revision 'main' in the cache"):
            client.resolve(NAME, local_files_only=True)
    assert client.resolve(NAME) == path
    assert ref.read_text() == path.name


def test_this_very_process_asks_nobody() -> None:
    """The tests' own environment says so, and so nothing else in it waits for a network."""
    with pytest.raises(CheckpointError, match="nothing was downloaded: HF_HUB_OFFLINE is set"):
        resolve("nobody/nothing", options=HubOptions(token="hf_x"))
