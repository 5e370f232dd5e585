"""From the name or path that a user gives to a local checkpoint directory."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from gptzoo.errors import CheckpointError

# Models that ship with the package -> their folder in it.
BUNDLED = {"gptzoo/shakespeare": "shakespeare"}
DEFAULT_MODEL = "gptzoo/shakespeare"


def resolve(name_or_path: str | Path) -> Path:
    """Returns the local path of a checkpoint; an existing path wins over a bundled model's name.

    Raises:
        CheckpointError: there is no such path, and no bundled model has this name; or it is not a name at all.
    """
    if not isinstance(name_or_path, str | PathLike) or not str(name_or_path):
        raise CheckpointError(f"checkpoint: {name_or_path!r:.200}, expected a path or a bundled model's name")
    try:
        path = Path(os.path.expanduser(name_or_path))  # Path's own takes ./~name for a user's home
        if path.exists():
            return path
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{str(name_or_path)!r}: not a usable path ({problem})") from None
    if str(name_or_path) in BUNDLED:
        return Path(__file__).parent / "_bundled" / BUNDLED[str(name_or_path)]
    raise CheckpointError(
        f"{str(name_or_path)!r:.200}: no such file or directory, and no bundled model ({', '.join(BUNDLED)})"
    )
