"""Names on the hub, with the real huggingface_hub client: what is downloaded, where it lies, what wins over it."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from gptzoo._download import TOKENIZER_FILES, WEIGHTS
from gptzoo.checkpoint import open_checkpoint
from gptzoo.errors import CheckpointError, InputError
from gptzoo.hub import BUNDLED, OBSOLETE, HubOptions, is_hub_id, resolve, take_options
from tests.checkpoints import contents
from tests.hub_server import NAME, TOKEN, Client, Hub, Refused, git_hash, sha256
from tests.runs import store_small

TOKENIZER = {"vocab.json": b"{ }", "merges.txt": b"#version: 0.2\n", "tokenizer_config.json": b"{  }"}
OTHERS = {"README.md": b"# tiny", "rust_model.ot": b"rust", "onnx/model.onnx": b"onnx", "64.tflite": b"lite"}
MODEL = ["config.json", "generation_config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Everything that a repository of a tiny GPT-2 may hold."""
    files = contents(store_small(tmp_path_factory.mktemp("model") / "gpt2"))
    formats = {"pytorch_model.bin": b"torch", "tf_model.h5": b"keras", "flax_model.msgpack": b"flax"}
    return files | {"generation_config.json": b"{}"} | formats | TOKENIZER | OTHERS


def offline(client: Client) -> Client:
    return client.with_variables(HF_HUB_OFFLINE="1")


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("config", ["config.json"]),
        ("generation", ["config.json", "generation_config.json"]),
        ("tokenizer", ["config.json", *TOKENIZER]),
        ("model", MODEL),
        ("whole", [*MODEL, *TOKENIZER]),
    ],
)
def test_what_is_wanted_is_downloaded_once_and_nothing_else(
    kind: str, wanted: list[str], hub: Hub, client: Client, model: dict[str, bytes]
) -> None:
    commit = hub.put(NAME, model)
    path = client.resolve(NAME, kind)
    assert path == client.cache / "models--someone--tiny-gpt2" / "snapshots" / commit
    assert contents(path) == {name: model[name] for name in wanted}
    assert hub.fetched(NAME) == sorted(wanted)
    assert not list(path.parents[1].glob(".unchecked*"))
    hub.log.clear()
    assert client.ask((NAME, kind, {}), (NAME, kind, {"local_files_only": True})) == [(path, "")] * 2
    assert [one.place for one in hub.log] == ["list"]  # whether it changed
    assert offline(client).resolve(NAME, kind) == path


def test_weights_are_the_first_that_there_are(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    order = ["model.safetensors", "pytorch_model.bin", "model.weights.h5", "tf_model.h5", "flax_model.msgpack"]
    files = model | {"model.weights.h5": b"kerashub"}
    for i in range(len(order)):
        hub.put(f"weights-{i}", {key: content for key, content in files.items() if key not in order[:i]})
    hub.put("none", {key: content for key, content in files.items() if key not in order})
    *_, (_, text) = client.ask(*((name, "model", {}) for name in hub.repositories))
    for i, name in enumerate(order):
        assert hub.fetched(f"weights-{i}") == sorted(["config.json", "generation_config.json", name])
    assert text.startswith(
        f"CheckpointError: none: no weights at {hub.url}; looked for model.safetensors, pytorch_model"
    )


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"])
def test_shards_are_those_of_the_index(weights: str, hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    stem, suffix = weights.split(".")
    shards = {f"{stem}-0000{i}-of-00002.{suffix}": bytes([i]) * 50 for i in (1, 2)}
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    files = {"config.json": model["config.json"], f"{weights}.index.json": index, **shards}
    hub.put(NAME, files | {f"{stem}-00003-of-00003.{suffix}": b"stale", **OTHERS})
    assert contents(client.resolve(NAME)) == files
    evil = json.dumps({"weight_map": {"a": "../../outside.safetensors", "b": "/etc/passwd"}}).encode()
    hub.put("evil", files | {f"{weights}.index.json": evil})
    hub.put("torn", {name: content for name, content in files.items() if name not in list(shards)[1:]})
    (_, first), (_, second) = client.ask(("evil", "model", {}), ("torn", "model", {}))
    assert "(2 problems)" in first
    assert "weight_map[a]: ../../outside.safetensors is not a plain file name" in first
    assert second == f"CheckpointError: torn: no {list(shards)[1]} at {hub.url}"
    assert hub.fetched("evil") == sorted(["config.json", f"{weights}.index.json"])


def test_a_model_of_another_family_is_refused_by_its_config(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put("bert", model | {"config.json": b'{"model_type": "bert"}'})
    with pytest.raises(
        Refused, match=r"ConfigError: .*config.json: model_type: 'bert', expected one of gpt2, openai-gpt"
    ):
        client.resolve("bert")
    assert hub.fetched("bert") == ["config.json"]
    client.resolve("bert", "tokenizer")  # which may be GPT-2's all the same


def test_revisions_are_branches_tags_and_commits(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    first = hub.put(NAME, model | {"generation_config.json": b'{"top_k": 1}'}, ref="v1")
    second = hub.put(NAME, model)
    asked = [None, "v1", first, "main", second]
    answers = client.ask(*((NAME, "config", {"revision": one}) for one in asked))
    assert [path.name for path, _ in answers if path] == [second, first, first, second, second]
    wrong = [(NAME, "config", {"revision": one}) for one in ("v2", "0" * 40)]
    for (_, _, options), (_, text) in zip(wrong, client.ask(*wrong), strict=True):
        assert text == f"CheckpointError: {NAME}: no revision {options['revision']!r} at {hub.url}"
    answers = offline(client).ask(*((NAME, "config", {"revision": one}) for one in asked))
    assert [path.name for path, _ in answers if path] == [second, first, first, second, second]
    with pytest.raises(Refused, match=r"tiny-gpt2: no revision 'v2' in the cache .* \(nothing was downloaded: HF_HUB"):
        offline(client).resolve(NAME, revision="v2")
    hub.log.clear()
    third = hub.put(NAME, model | {"README.md": b"changed"})
    assert client.resolve(NAME, "config").name == third  # a branch moves
    assert hub.fetched(NAME) == []  # to another commit, whose file is there already


def test_subfolder(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, {f"deep/er/{name}": content for name, content in model.items()} | {"config.json": b"{}"})
    path = client.resolve(NAME, subfolder="deep/er")
    assert sorted(contents(path)) == MODEL
    assert hub.fetched(NAME) == [f"deep/er/{name}" for name in MODEL]
    deeper = {"subfolder": "deeper"}
    slash = {"subfolder": "deep/er/", "local_files_only": True}
    again, *answers = client.ask((NAME, "model", slash), (NAME, "config", deeper), (NAME, "model", deeper))
    assert again == (path, "")
    assert [text.split(": no ")[1].split("; ")[0] for _, text in answers] == [
        f"deeper/config.json at {hub.url}",
        f"deeper/weights at {hub.url}",
    ]
    hub.log.clear()
    local = client.folder / "local" / "sub"
    local.mkdir(parents=True)
    answers = client.ask(*(("local", "model", {"subfolder": one}) for one in ("sub", "none", None)))
    assert [path for path, _ in answers] == [Path("local/sub"), None, Path("local")]
    assert answers[1][1] == "CheckpointError: local: no folder 'none' in it (subfolder)"
    assert not hub.log


def test_what_is_here_wins(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    """A directory of that name, or a link that leads nowhere; and a bundled model. The hub is not asked."""
    for name in (NAME, "link", *BUNDLED):
        hub.put(name, model)
    (client.folder / NAME).mkdir(parents=True)
    (client.folder / "link").symlink_to("nowhere")
    (here, _), (no, text), (bundled, _) = client.ask(*((name, "model", {}) for name in (NAME, "link", *BUNDLED)))
    assert (here, no) == (Path(NAME), None)
    assert "'link': no such file or directory" in text
    assert bundled == resolve("gptzoo/shakespeare")
    with pytest.raises(Refused, match=f"{NAME}: a local path, which has no revision 'v1'"):
        client.resolve(NAME, revision="v1")
    assert not hub.log


ODD = ["./a", "../a", "~/a", "/a", "a/b/c", "a\\b", "a//b", "a/", "-a", "a-", ".a", "a.", "a--b", "a..b", "a b"]
ODD += [
    "a.h5",
    "x/model.safetensors",
    "a.JSON",
    "a.ckpt",
    "a.git",
    "é",
    "模型",
    "a\n",
    "a?b",
    "a#b",
    "a%2Fb",
    "a:b",
    "n" * 97,
]


def test_what_is_no_name_is_never_asked_for(hub: Hub, client: Client) -> None:
    for name, (_, text) in zip(ODD, client.ask(*((name, "model", {}) for name in ODD)), strict=True):
        assert (
            text
            == f"CheckpointError: {name!r:.200}: no such file or directory, and no bundled model ({', '.join(BUNDLED)})"
        )
    assert not hub.log
    names = ["gpt2", "openai-community/gpt2", "a", "_a/_b", "1.2/3.4", "GPT-2.x", "n" * 96, "a/" + "n" * 96]
    assert [name for name in names if not is_hub_id(name)] == []
    with pytest.raises(CheckpointError, match="no such file or directory, and no bundled model"):
        resolve(Path("openai-community/gpt2"))  # a path, and no text


def test_ids_are_those_that_huggingface_hub_takes() -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    def accepts(name: str) -> bool:
        try:
            validate_repo_id(name)
        except HFValidationError:
            return False
        return True

    parts = [
        "a",
        "A1",
        "_",
        "a-b",
        "a.b",
        "-",
        ".",
        "a-",
        "-a",
        "a.",
        ".a",
        "a--b",
        "a..b",
        "é",
        "",
        "n" * 96,
        "n" * 97,
    ]
    names = [*parts, *(f"{one}/{other}" for one in parts for other in parts), "a/b/c", "a\n", "a.git"]
    assert [name for name in names if is_hub_id(name) != accepts(name)] == []


def test_tokens(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    """The token reaches the hub, but neither the place where large files are, nor any message."""
    hub.put(NAME, model)
    hub.repositories[NAME].private = True
    hub.put("gated/one", model)
    hub.repositories["gated/one"].gated = True
    wrong = "hf_aWrongToken"
    answers = client.ask(
        (NAME, "model", {}),
        (NAME, "model", {"token": wrong}),
        (NAME, "model", {"token": True}),
        ("gated/one", "model", {}),
        (NAME, "model", {"token": TOKEN}),
        (NAME, "model", {"use_auth_token": TOKEN, "force_download": True}),
        ("gated/one", "model", {"token": TOKEN}),
    )
    assert [bool(path) for path, _ in answers] == [False] * 4 + [True] * 3
    texts = [text for _, text in answers[:4]]
    nowhere = f"CheckpointError: '{NAME}': no such file or directory, no bundled model (gptzoo/shakespeare), and "
    assert texts[0].startswith(f"{nowhere}no model of this name at {hub.url}, unless")
    assert "401 Unauthorized: check the token" in texts[1]
    assert "token=True, but none is stored here: hf auth login" in texts[2]
    assert texts[3] == (
        f"CheckpointError: gated/one: config.json: access is restricted: ask for it at {hub.url}/gated/one, "
        "and give a token (token=, or: hf auth login)"
    )
    assert not [text for text in texts if wrong in text or "\n" in text]
    assert {one.token for one in hub.log if one.place == "cdn"} == {None}
    assert {one.token for one in hub.log} == {None, wrong, TOKEN}
    hub.log.clear()
    [(_, text)] = client.with_variables(HF_TOKEN="hf_\xe4h").ask((NAME, "config", {"cache_dir": "empty"}))
    assert text.endswith("(the token that is stored here is none: hf auth login)")
    stored = client.with_variables(HF_TOKEN=TOKEN)
    stored.ask((NAME, "config", {}), (NAME, "config", {"token": True}))
    assert {one.token for one in hub.log} == {TOKEN}
    hub.log.clear()
    stored.ask((NAME, "config", {"token": False, "force_download": True}))
    assert {one.token for one in hub.log} == {None}


def test_cache_dir_and_force_download(hub: Hub, client: Client, model: dict[str, bytes], tmp_path: Path) -> None:
    hub.put(NAME, model)
    cache = tmp_path / "cache"
    path = client.resolve(NAME, cache_dir=str(cache))
    assert path.is_relative_to(cache)
    assert not client.cache.exists()
    blob = (path / "generation_config.json").resolve()
    blob.write_bytes(b"damaged")
    hub.log.clear()
    assert client.resolve(NAME, cache_dir=str(cache)) == path  # what was there before is not looked at again
    assert blob.read_bytes() == b"damaged"
    assert hub.fetched(NAME) == []
    assert client.resolve(NAME, cache_dir=str(cache), force_download=True) == path
    assert blob.read_bytes() == b"{}"
    assert hub.fetched(NAME) == MODEL


def test_the_cache_is_that_of_other_software(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    """What huggingface_hub itself downloaded is not downloaded again; what we did is found by it, and is no damage."""
    hub.put(NAME, model)
    done = client.run("-c", f"import huggingface_hub as hub; print(hub.hf_hub_download({NAME!r}, 'model.safetensors'))")
    assert done.returncode == 0, done.stderr
    hub.log.clear()
    path = client.resolve(NAME)
    assert path == Path(done.stdout.strip()).parent
    assert hub.fetched(NAME) == ["config.json", "generation_config.json"]
    again = offline(client).run(
        "-c",
        "import huggingface_hub as hub\n"
        f"print(hub.snapshot_download({NAME!r}), hub.hf_hub_download({NAME!r}, 'config.json'))\n"
        "cache = hub.scan_cache_dir()\nprint(*cache.warnings, *(sorted(repo.refs) for repo in cache.repos))",
    )
    assert again.stdout.splitlines() == [f"{path} {path / 'config.json'}", "['main']"], again.stderr


def test_links_of_the_cache_are_read(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, model)
    path = client.resolve(NAME)
    assert os.path.islink(path / "model.safetensors")
    assert open_checkpoint(path).config.n_embd == 32


def test_progress_is_drawn_on_standard_error_unless_it_is_not_wanted(
    hub: Hub, client: Client, model: dict[str, bytes]
) -> None:
    hub.put(NAME, model)
    code = f"from gptzoo.hub import *; resolve({NAME!r}, options=HubOptions(force_download=True))"
    terminal = {"TQDM_POSITION": "-1"}  # without it nothing is drawn into a file
    for unwanted, drawn in (("0", True), ("1", False)):
        done = client.with_variables(HF_HUB_DISABLE_PROGRESS_BARS=unwanted, **terminal).run("-c", code)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert ("100%" in done.stderr) == drawn


def test_options_are_taken_out_and_judged() -> None:
    given = {"revision": "v1", "token": None, "num_labels": 3, "resume_download": True, "mirror": "x", "proxies": None}
    assert take_options(given) == (HubOptions(revision="v1"), {"num_labels": 3})
    assert take_options({"use_auth_token": "hf_x"})[0].token == "hf_x"
    assert take_options({"use_auth_token": "hf_x", "token": "hf_y"})[0].token == "hf_y"
    assert "hf_x" not in repr(HubOptions(token="hf_x"))
    with pytest.raises(InputError, match="proxies: not None, expected the environment's: HTTPS_PROXY"):
        take_options({"proxies": {"http": "x"}})
    wrong = {"revision": "../x", "subfolder": "a/../..", "cache_dir": 3, "token": "hf_x y", "local_files_only": None}
    with pytest.raises(InputError) as caught:
        take_options({**wrong, "force_download": 1})
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert [line.split(":")[0] for line in lines[1:]] == ["revision", "subfolder", *list(wrong)[2:], "force_download"]
    assert "hf_x" not in str(caught.value)
    for one in ("/a", "a/", "a//b", "a b", "a\0", "", "a..b", "^", 3):
        with pytest.raises(InputError, match="revision"):
            HubOptions(revision=one)  # type: ignore[arg-type]
    for one in ("main", "v1.0", "refs/pr/1", "a-b_c"):
        assert HubOptions(revision=one).revision == one
    for one in ("/a", "..", "a/..", "../a", "a\\b", "c:", "\0", 3):
        with pytest.raises(InputError, match="subfolder"):
            HubOptions(subfolder=one)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="force_download: True, expected False beside local_files_only=True"):
        HubOptions(force_download=True, local_files_only=True)


def test_huggingface_hub_is_imported_for_a_name_only(client: Client) -> None:
    code = "import sys, gptzoo.hub as hub\nhub.resolve('gptzoo/shakespeare')\n"
    done = client.run(
        "-c", code + "print(*(name for name in ('numpy', 'huggingface_hub', 'httpx2') if name in sys.modules))"
    )
    assert done.stdout == "\n", done.stderr
    code = "import sys; sys.modules['huggingface_hub'] = None\nfrom gptzoo.hub import resolve\n"
    code += "try:\n    resolve('old-modle')\n"
    done = client.run("-c", code + "except ImportError as problem:\n    print(type(problem).__name__, problem)")
    assert done.stdout == (
        "MissingExtraError 'old-modle': no such file or directory, no bundled model (gptzoo/shakespeare); "
        "models on the hub need huggingface_hub: pip install huggingface_hub\n"
    )


def test_hashes_of_the_server_are_those_of_git_and_of_git_lfs() -> None:
    assert git_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_documentation_names_every_argument_and_file() -> None:
    text = (Path(__file__).parents[1] / "docs" / "names.md").read_text()
    rows = [row.split(" | ") for row in text.splitlines() if row.startswith("| ")]
    documented = {row[0].strip("| `") for row in rows} - {"argument", "for"}
    assert {entry.name for entry in fields(HubOptions)} <= documented
    (tokenizer,) = (row[1].strip(" |") for row in rows if row[0] == "| a tokenizer")
    assert set(tokenizer.split(", ")) == {"config.json", *TOKENIZER_FILES}
    assert all(f"`{name}`" in text for name in (*OBSOLETE, "proxies", "use_auth_token"))
    assert [text.index(name) for name in WEIGHTS] == sorted(text.index(name) for name in WEIGHTS)
