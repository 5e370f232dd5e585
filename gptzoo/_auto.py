"""What the Auto classes of all frameworks share: the family comes from a config, the head from the class."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

from gptzoo.checkpoint import config_overrides, given_config
from gptzoo.config import CONFIGS, AutoConfig, GPTConfig
from gptzoo.errors import ConfigError
from gptzoo.heads import class_name
from gptzoo.hub import resolve, take_options


class Auto:
    """Base of the Auto classes. They make models, and have no instances.

    Attributes:
        head: key of `gptzoo.heads.HEADS`.
        home: the module that has the classes to choose from.
        prefix: of the names of these.
        options: arguments of `from_config` that are not the config's but the model's.
    """

    head: ClassVar[str]
    home: ClassVar[str]
    prefix: ClassVar[str] = ""
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        raise ConfigError(f"{name} has no instances: use {name}.from_pretrained(path) or {name}.from_config(config)")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, config: GPTConfig | str | Path | None = None, **options: Any
    ) -> Any:
        """Loads a checkpoint into the model of its family.

        Args:
            pretrained_model_name_or_path, config, options: as of the model's own `from_pretrained`.

        Raises:
            ConfigError: `model_type` is of no family, or `config` is no config of ours.
            CheckpointError: lists everything in the checkpoint that does not fit.
        """
        hub, _ = take_options(options)
        found = given_config(AutoConfig, config, hub) or AutoConfig.from_pretrained(
            resolve(pretrained_model_name_or_path, "config", hub)
        )
        return cls.model_class(found).from_pretrained(pretrained_model_name_or_path, config=config, **options)

    @classmethod
    def from_config(cls, config: GPTConfig, *, seed: int = 0, **overrides: Any) -> Any:
        """Makes a model with initial weights.

        Args:
            config: of either family; the model gets a copy.
            seed: of the initial weights.
            overrides: config fields that win over the config's, such as `attn_implementation="eager"`; and what
                `options` names, for the model's constructor.

        Raises:
            ConfigError: it is no config of ours, or an override has a wrong value, or a name that means nothing.
        """
        model = cls.model_class(config)
        own = {name: overrides.pop(name) for name in cls.options if name in overrides}
        overrides = config_overrides(config, model.config_class, overrides, "from_config")
        return model(model.config_class.derive(config, **overrides), seed=seed, **own)

    @classmethod
    def model_class(cls, config: GPTConfig) -> Any:
        """Returns the class of this head in a config's family."""
        families = tuple(CONFIGS.values())
        if not isinstance(config, families):
            expected = " or ".join(family.__name__ for family in families)
            raise ConfigError(f"{cls.__name__} needs a {expected}, got {config!r:.80}")
        return getattr(importlib.import_module(cls.home), cls.prefix + class_name(config, cls.head))
