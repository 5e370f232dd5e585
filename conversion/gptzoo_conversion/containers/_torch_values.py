"""What a pickle of PyTorch's may hold: storages, tensors that are views of them, and plain values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes  # noqa: F401  # teaches NumPy the names bfloat16 and float8
import numpy as np

from gptzoo import limits
from gptzoo._tensors import shown
from gptzoo_conversion.containers._pickle import PickleError, Symbol, described

# PyTorch's name of a storage's type -> NumPy's of its dtype; the other dtypes lie in storages of bytes.
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
}
_OTHER_DTYPES = (
    *("uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)


@dataclass(frozen=True)
class Storage:
    """A run of numbers, `dtype` None for bytes without one."""

    key: str
    dtype: str | None
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype or "uint8").itemsize


@dataclass(frozen=True)
class Tensor:
    """A tensor: elements of a storage, the first at `offset`, with `strides` between them (all counted in elements)."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """From the first element to behind the last."""
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)) if self.size else 0

    @property
    def is_contiguous(self) -> bool:
        """Tells whether the elements lie one behind the other, in C order."""
        steps = zip(self.shape, self.strides, contiguous_strides(self.shape), strict=True)
        return not self.size or all(n == 1 or stride == expected for n, stride, expected in steps)

    @property
    def overlaps(self) -> bool:
        """Tells whether two of its elements may be one of the storage's."""
        end = 0
        for stride, n in sorted((stride, n) for n, stride in zip(self.shape, self.strides, strict=True) if n > 1):
            if stride <= end:
                return True
            end += (n - 1) * stride
        return False

    def fault(self) -> str | None:
        """Says what is wrong with the tensor, taken by itself."""
        shape, strides = list(self.shape), list(self.strides)
        if len(shape) != len(strides) or len(shape) > limits.MAX_RANK:
            return (
                f"shape {shown(shape)}, strides {shown(strides)}, expected as many of both, {limits.MAX_RANK} at most"
            )
        if math.prod(n for n in shape if n) * self.itemsize >= 2**63:
            return f"shape {shown(shape)}, expected sizes of a tensor"
        if self.size and self.overlaps:
            return f"strides {shown(strides)} of shape {shown(shape)} name elements twice (an expanded tensor?)"
        end = (self.offset + self.extent) * self.itemsize
        if end > self.storage.nbytes:
            place = f"offset {self.offset}, shape {shown(shape)}, strides {shown(strides)}"
            return f"{place} end at byte {end} of its storage, expected at most {self.storage.nbytes}"
        return None


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the strides, in elements, of an array in C order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass
class Storages:
    """Builds storages of the persistent ids of a pickle, and remembers them by their keys."""

    known: dict[str, Storage] = field(default_factory=dict)

    def __call__(self, identity: Any) -> Storage:
        parts = identity if type(identity) is tuple else (identity,)
        kind = parts[0] if parts else None
        if type(kind) is not str or kind != "storage":
            raise PickleError(f"pickle has a persistent id of {described(kind)}, expected a storage; refused")
        if len(parts) not in (5, 6) or parts[5:] not in ((), (None,)):  # the sixth: a view of PyTorch before 0.4
            raise PickleError(f"pickle has a storage of {len(parts)} parts, expected five")
        _, type_, key, _, count = parts[:5]
        if not isinstance(type_, Symbol) or type_.name not in _STORAGE_DTYPES or type(key) is not str:
            raise PickleError(f"pickle has a storage of type {described(type_)}, key {described(key)}; refused")
        if not _is_size(count):
            raise PickleError(f"pickle has a storage {shown(key)} of {described(count)} elements, expected a number")
        storage = Storage(key, _STORAGE_DTYPES[type_.name], count)
        if self.known.setdefault(key, storage) != storage:
            raise PickleError(f"pickle has storage {shown(key)} in two sizes or types, expected one")
        return storage


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _sizes(values: Any) -> tuple[int, ...]:
    if type(values) not in (tuple, list) or not all(map(_is_size, values)):
        raise PickleError(
            f"pickle has a tensor with {described(values)} as shape or strides, expected a tuple of sizes"
        )
    return tuple(values)


def _view(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None = None) -> Tensor:
    if not isinstance(storage, Storage) or not _is_size(offset):
        raise PickleError(f"pickle has a tensor of {described(storage)} at {described(offset)}, expected a storage")
    dtype = dtype or storage.dtype
    if dtype is None:
        raise PickleError(f"pickle has a tensor without a dtype in storage {shown(storage.key)}")
    return Tensor(storage, dtype, offset, _sizes(shape), _sizes(strides))


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Tensor:
    return _view(*_counted(arguments, 4, 4))


def _rebuild_tensor_v2(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, strides, _, _, *marks = _counted(arguments, 6, 7)
    _require_unmarked(marks)
    return _view(storage, offset, shape, strides)


def _rebuild_tensor_v3(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, strides, _, _, dtype, *marks = _counted(arguments, 7, 8)
    _require_unmarked(marks)
    if not isinstance(dtype, Symbol) or dtype.name not in _DTYPES:
        raise PickleError(f"pickle has a tensor of dtype {described(dtype)}; refused")
    return _view(storage, offset, shape, strides, _DTYPES[dtype.name])


def _require_unmarked(marks: list[Any]) -> None:
    if any(marks):
        raise PickleError("pickle has a tensor that is conjugate or negative by a mark; refused")


def _rebuild_parameter(arguments: tuple[Any, ...]) -> Tensor:
    tensor = _counted(arguments, 3, 4)[0]
    if not isinstance(tensor, Tensor):
        raise PickleError(f"pickle has a parameter that is {described(tensor)}, expected a tensor")
    return tensor


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    return _sizes(*_counted(arguments, 1, 1))


def _device(arguments: tuple[Any, ...]) -> str:
    parts = _counted(arguments, 1, 2)
    if type(parts[0]) is not str or not all(map(_is_size, parts[1:])):
        raise PickleError(f"pickle has a device {described(parts[0])}, expected a name and a number")
    return ":".join(map(str, parts))


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    _counted(arguments, 0, 0)
    return {}


def _bytes(arguments: tuple[Any, ...]) -> bytes:
    """How bytes are written in protocol 2."""
    text, encoding = _counted(arguments, 2, 2)
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise PickleError(f"pickle encodes {described(text)} as {described(encoding)}, expected text as latin1")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise PickleError(f"pickle encodes {shown(text)} as latin1, which cannot hold it") from None


def _counted(arguments: tuple[Any, ...], least: int, most: int) -> tuple[Any, ...]:
    if not least <= len(arguments) <= most:
        raise PickleError(f"pickle builds a value of {len(arguments)} parts, expected {least} to {most}")
    return arguments


_STORAGE_DTYPES: dict[str, str | None] = {
    **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
    **dict.fromkeys(("torch.UntypedStorage", "torch.storage.UntypedStorage")),
}
_DTYPES = {f"torch.{name}": name for name in (*STORAGES.values(), *_OTHER_DTYPES)}
_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _bytes,
}
SYMBOLS = {
    **{name: Symbol(name) for name in (*_STORAGE_DTYPES, *_DTYPES)},
    **{name: Symbol(name, build) for name, build in _BUILDERS.items()},
}


_ABSENT = object()


@dataclass
class Flattened:
    """Tensors of nested dicts and lists by their path, `model/wte.weight`, and the plain values beside them."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    _count: int = 0

    def add(self, value: dict[Any, Any]) -> Flattened:
        for key, part in value.items():
            self._put(self.plain, key, self._walk(part, str(key), limits.MAX_PICKLE_NESTING))
        return self

    def _put(self, target: dict[str, Any], key: str | int, value: Any) -> None:
        if str(key) in target:
            raise PickleError(f"pickle has the key {shown(str(key))} as text and as a number")
        if value is not _ABSENT:
            target[str(key)] = value

    def _walk(self, value: Any, name: str, depth: int) -> Any:
        """Returns a value without its tensors; of containers that held nothing else, nothing."""
        self._count += 1
        if self._count > limits.MAX_PICKLE_VALUES:
            raise PickleError(f"pickle holds more than {limits.MAX_PICKLE_VALUES} values")
        if depth < 0:
            raise PickleError(f"{shown(name)}: nested more than {limits.MAX_PICKLE_NESTING} deep")
        if len(name.encode()) > limits.MAX_NAME_BYTES:
            raise PickleError(f"{shown(name)}: a name of more than {limits.MAX_NAME_BYTES} bytes")
        if isinstance(value, Tensor):
            return self._tensor(name, value)
        if type(value) is dict:
            return self._dict(value, name, depth)
        if type(value) in (list, tuple):
            parts = [self._walk(part, f"{name}/{index}", depth - 1) for index, part in enumerate(value)]
            left = type(value)(part for part in parts if part is not _ABSENT)
            return left if left or not parts else _ABSENT
        if value is None or type(value) in (bool, int, float, str, bytes):
            return value
        if isinstance(value, Symbol) and value.name in _DTYPES:
            return value.name
        raise PickleError(f"{shown(name)}: {described(value)}, expected a tensor or a plain value")

    def _dict(self, value: dict[Any, Any], name: str, depth: int) -> Any:
        left: dict[str, Any] = {}
        for key, part in value.items():
            self._put(left, key, self._walk(part, f"{name}/{key}", depth - 1))
        return left if left or not value else _ABSENT

    def _tensor(self, name: str, value: Tensor) -> object:
        if name in self.tensors:
            raise PickleError(f"{shown(name)}: two tensors of this name, expected one")
        if len(self.tensors) == limits.MAX_TENSORS:
            raise PickleError(f"pickle holds more than {limits.MAX_TENSORS} tensors")
        self.tensors[name] = value
        return _ABSENT
