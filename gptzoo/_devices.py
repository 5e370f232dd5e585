"""Devices of every framework by one set of names: "cpu:0", "gpu:0"; and by those that users know."""

from __future__ import annotations

from typing import Any

from gptzoo._settings import short, whole
from gptzoo.errors import InputError


def devices(framework: str) -> dict[str, Any]:
    """Returns the devices that a framework finds: name -> what the framework calls it. The CPU comes first."""
    found: dict[str, Any] = _FINDERS[framework]()
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith("cpu")))


def find_device(framework: str, wanted: Any, argument: str = "device") -> tuple[str, Any]:
    """Returns a device by name or number.

    Args:
        wanted: "cpu", "gpu", "cuda:0", ...; an accelerator's number; -1 for the CPU; the framework's own object; None:
            the first accelerator, or else the CPU.
        argument: what the caller calls it.

    Returns:
        The device's name here, and what the framework calls it.

    Raises:
        InputError: the framework finds no such device.
    """
    found = devices(framework)
    accelerators = [name for name in found if not name.startswith("cpu")]
    number = whole(wanted)
    if wanted is None:
        name = [*accelerators, "cpu:0"][0]
    elif number is not None:
        name = "cpu:0" if number == -1 else dict(enumerate(accelerators)).get(number, "")
    else:
        own = (name for name, native in found.items() if native is wanted)
        name = next(own, _canonical(str(wanted)))
    if name not in found:
        raise InputError(f"{argument}: {short(wanted)}, expected one that {framework} finds here: {', '.join(found)}")
    return name, found[name]


def device_of_map(device: Any, device_map: Any) -> Any:
    """Returns the device that a `device_map` stands for: None for "auto", so that it is found; it is one itself else.

    Raises:
        InputError: `device` is given too.
    """
    if device is not None:
        raise InputError("device_map: given, expected without device")
    return None if device_map == "auto" else device_map


def _canonical(text: str) -> str:
    kind, _, number = text.lower().replace("cuda", "gpu").partition(":")
    return f"{kind}:{number or 0}"


def _torch() -> dict[str, Any]:
    import torch

    found = {"cpu:0": torch.device("cpu")}
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        for number in range(torch.accelerator.device_count()):
            found[_canonical(f"{kind.type}:{number}")] = torch.device(kind.type, number)
    return found


def _jax() -> dict[str, Any]:
    import jax

    found = [*jax.devices("cpu"), *jax.local_devices()]
    return {_canonical(f"{device.platform}:{device.id}"): device for device in found}


def _keras() -> dict[str, Any]:
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        return {name: str(device) for name, device in _torch().items()}
    if backend == "jax":
        return {name: name for name in _jax()}
    import tensorflow as tf

    names = [device.name.removeprefix("/device:").lower() for device in tf.config.list_logical_devices()]
    return {name: name for name in names}


_FINDERS = {"torch": _torch, "keras": _keras, "flax": _jax}
