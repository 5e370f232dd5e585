"""Optional frameworks: which are there, and what to type when one is not."""

from __future__ import annotations

from importlib.util import find_spec

from gptzoo.errors import MissingExtraError

# Framework folder of gptzoo -> the modules that it needs, which its extra installs.
FRAMEWORKS = {"torch": ("torch",), "keras": ("keras",), "flax": ("jax", "flax")}


def missing(framework: str) -> list[str]:
    """Returns the modules that a framework needs and that are not installed; nothing is imported."""
    return [module for module in FRAMEWORKS[framework] if find_spec(module) is None]


def require(framework: str) -> None:
    """Raises an error that names the `pip install` to run, if a framework is not installed."""
    if absent := missing(framework):
        names = " and ".join(absent)
        raise MissingExtraError(f"gptzoo.{framework} needs {names}: pip install 'gptzoo[{framework}]'")
