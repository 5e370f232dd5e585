"""Names on the hub where users give them: models, configs and Auto classes of every framework, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptzoo.hub import resolve
from gptzoo_conversion import convert, open_foreign
from tests.checkpoints import contents
from tests.conversion import assert_same_bits, numbers
from tests.hub_server import NAME, TOKEN, Client, Hub
from tests.matrix import TESTED
from tests.runs import store_small

BUNDLED = resolve("gptzoo/shakespeare")
OLD_NAMES = {"torch": "AutoModelForCausalLM", "keras": "TFGPT2LMHeadModel", "flax": "FlaxGPT2LMHeadModel"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(store_small(tmp_path_factory.mktemp("model") / "gpt2"))


@pytest.mark.parametrize("framework", TESTED)
def test_models_are_loaded_by_name(framework: str, hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    """By the class of the framework, by the one that finds the family, and by the original's names."""
    commit = hub.put(NAME, {f"sub/{name}": content for name, content in model.items()}, ref="v1")
    hub.put("other/config", {"config.json": model["config.json"].replace(b'"n_positions": 7', b'"n_positions": 6')})
    hub.repositories[NAME].private = True
    code = f"""
import json, gptzoo
from gptzoo.errors import GPTZooError
from gptzoo.{framework} import AutoModel, GPT2LMHeadModel
options = dict(revision="v1", subfolder="sub", token={TOKEN!r}, cache_dir="cache", resume_download=True)
classes = GPT2LMHeadModel, AutoModel, gptzoo.{OLD_NAMES[framework]}
models = [cls.from_pretrained({NAME!r}, **options) for cls in classes]
print(*(type(one).__name__ for one in models), models[0].config.n_positions)
try:
    GPT2LMHeadModel.from_pretrained({NAME!r}, config="other/config", **options, local_files_only=True)
except GPTZooError as problem:
    print(problem)
try:
    AutoModel.from_pretrained({NAME!r}, config="other/config", **options)
except GPTZooError as problem:
    print(problem)
try:
    AutoModel.from_pretrained({NAME!r}, **options | dict(proxies={{"http": "x"}}))
except GPTZooError as problem:
    print(problem)
"""
    done = client.run("-c", code)
    assert done.returncode == 0, done.stderr
    loaded, absent, misfit, proxies = (line for line in done.stdout.splitlines() if not line.startswith("  "))
    assert loaded.split()[-1] == "7"
    assert "LMHeadModel GPT2Model" in loaded
    assert absent.startswith(
        "'other/config': no such file or directory, no bundled model (gptzoo/shakespeare), and not in"
    )
    assert f"models--someone--tiny-gpt2/snapshots/{commit}/sub does not fit GPT2Model" in misfit
    assert proxies == "proxies: not None, expected the environment's: HTTPS_PROXY is what is used"
    assert hub.fetched(NAME) == ["sub/config.json", "sub/model.safetensors"]
    assert hub.fetched("other/config") == ["config.json"]


def test_configs_are_read_by_name(hub: Hub, client: Client, model: dict[str, bytes]) -> None:
    hub.put(NAME, {f"sub/{name}": content for name, content in model.items()}, ref="v1")
    code = f"""
from gptzoo import AutoConfig, GPT2Config
for cls in (AutoConfig, GPT2Config):
    config = cls.from_pretrained({NAME!r}, revision="v1", subfolder="sub", use_auth_token={TOKEN!r}, n_positions=5)
    print(type(config).__name__, config.n_embd, config.n_positions, config.foreign)
"""
    done = client.run("-c", code)
    assert done.stdout == "GPT2Config 32 5 {}\n" * 2, done.stderr
    assert hub.fetched(NAME) == ["sub/config.json"]


FORMATS = {"pytorch_bin": "pytorch_model.bin", "tf_h5": "tf_model.h5", "flax_msgpack": "flax_model.msgpack"}


def test_weights_of_every_format_are_opened(hub: Hub, client: Client, tmp_path: Path) -> None:
    """One name for each; those of KerasHub with their tokenizer, which says how a text ends."""
    formats = [*FORMATS, "kerashub"]
    source = store_small(tmp_path / "source")
    for to in formats:
        convert(source if to in FORMATS else BUNDLED, tmp_path / to, to, drop=True)
        hub.put(to, contents(tmp_path / to))
    code = "import sys; from gptzoo.checkpoint import open_checkpoint\n"
    code += "for name in sys.argv[1:]: print(open_checkpoint(name).format)"
    done = client.run("-W", "ignore", "-c", code, *formats)
    assert done.stdout.split() == formats, done.stderr
    for to, file in FORMATS.items():
        assert set(hub.fetched(to)) - {"generation_config.json"} == {"config.json", file}
    assert [name for name in hub.fetched("kerashub") if name.startswith("assets/")]


def test_command_line(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.put(NAME, contents(BUNDLED))
    cli = ("-m", "gptzoo.cli")
    inspected = client.run(*cli, "inspect", NAME, "--json")
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)["architecture"] == "GPT2LMHeadModel"
    assert hub.fetched(NAME) == ["config.json", "model.safetensors"]
    target = tmp_path / "out"
    done = client.run(*cli, "convert", NAME, str(target), "--to", "tf_h5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NAME} (safetensors) -> {target} (tf_h5)\n")
    files = contents(target)
    assert {name: files[name] for name in ("tokenizer.json", "vocab.json", "merges.txt")} == {
        name: (BUNDLED / name).read_bytes() for name in ("tokenizer.json", "vocab.json", "merges.txt")
    }
    assert_same_bits(numbers(open_foreign(target)), numbers(open_foreign(BUNDLED)))
    wrong = client.run(*cli, "inspect", "old-modle")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert len(wrong.stderr.splitlines()) == 1
    assert wrong.stderr.startswith("gptzoo: error: 'old-modle': no such file or directory, no bundled model (gptzoo/sh")
