"""One family of errors, each message naming the file or field, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LISTED = 1000  # problems in one message


class GPTZooError(ValueError):
    """Base of every error that gptzoo raises for bad input."""

    @classmethod
    def listing(cls, subject: str, problems: Sequence[str]) -> GPTZooError:
        """Returns an error that names `subject` and every one of its `problems`, not just the first."""
        if len(problems) == 1:
            return cls(f"{subject}: {problems[0]}")
        shown = [*problems[:MAX_LISTED], *(["..."] if len(problems) > MAX_LISTED else [])]
        return cls(f"{subject} ({len(problems)} problems):" + "".join(f"\n  {problem}" for problem in shown))

    def __str__(self) -> str:
        # KeyError-like reprs are for programs; ours are read by people.
        return str(self.args[0]) if self.args else type(self).__name__


class ConfigError(GPTZooError):
    """A config field has a wrong value, or asks for a computation that gptzoo does not implement."""


class CheckpointError(GPTZooError):
    """A checkpoint cannot be read, does not fit the model, or cannot be written."""


class ConversionError(GPTZooError):
    """A checkpoint cannot be expressed in the wanted format."""


class ParityError(GPTZooError):
    """Two implementations disagree by more than the tolerance."""


class InputError(GPTZooError):
    """An argument of a model call has a wrong rank, shape or combination."""


class MissingExtraError(GPTZooError, ImportError):
    """A framework or library is not installed; the message names the `pip install` that brings it."""
