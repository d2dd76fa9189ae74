"""An accelerator without hardware: tensors that lie on the device ``sim`` hold CPU tensors, and refuse to meet those.

What a real accelerator refuses is refused: operands on two devices, a generator of another device, NumPy. Everything else
is computed by the CPU, so a result is that of the CPU up to the order of sums (attention has no kernel of its own). Sparse
layouts and data pointers do not exist on it.

Registering the device changes torch for the whole process: import this in a process of its own (``tests.devices.run``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

__all__ = ["SIM", "OnDevice", "readable_weights", "simulated"]


class _Module(_DummyBackendModule):
    """What stands for ``torch.cuda``."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> Tensor:  # it draws with the CPU's generator
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass


_setup_privateuseone_for_python_backend("sim", backend_module=_Module())
SIM = torch.device("sim:0")

aten = torch.ops.aten
_MOVES = {aten._to_copy.default, aten.copy_.default}  # take tensors of two devices
_LOOKS_UP = {  # a table on a device takes indices of the CPU
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip


class OnDevice(Tensor):
    """A tensor on the device.

    Attributes
    ----------
    raw : the tensor on the CPU that it stands for
    """

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=SIM
        )
        made.raw = raw
        return made

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __repr__(self) -> str:
        return f"OnDevice({self.raw})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _here(device: Any) -> bool:
    return device is not None and torch.device(device).type == SIM.type


def _far(*values: Any) -> list[Tensor]:
    """Tensors on the CPU that an operation on the device refuses; single numbers it takes."""
    return [t for t in tree_leaves(values) if isinstance(t, Tensor) and not isinstance(t, OnDevice) and t.ndim]


def _refuse(func: Any, args: Any, kwargs: Mapping[str, Any], mine: list[OnDevice]) -> None:
    if (generator := kwargs.get("generator")) is not None and (mine or _here(kwargs.get("device"))):
        raise RuntimeError(f"Expected a 'sim' device type for generator but found {generator.device.type!r} in {func}")
    if not mine or func in _MOVES:
        return
    if func in _LOOKS_UP and not isinstance(args[0], OnDevice):
        raise RuntimeError(f"indices should be on the same device as the indexed tensor (cpu), found sim:0 in {func}")
    if far := _far(args[0], args[2:]) if func in _LOOKS_UP else _far(args, kwargs):
        shapes = [tuple(t.shape) for t in far]
        raise RuntimeError(f"Expected all tensors to be on the same device, found sim:0 and cpu in {func}: {shapes}")


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, on the tensors behind those of the device."""
    mine = [t for t in tree_leaves((args, kwargs)) if isinstance(t, OnDevice)]
    _refuse(func, args, kwargs, mine)
    told = kwargs.get("device")
    stays = bool(mine) if told is None else _here(told)
    if func is aten.copy_.default:
        stays = isinstance(args[0], OnDevice)
    told = {} if told is None else {"device": torch.device("cpu")}
    raw_args, raw_kwargs = tree_map_only(OnDevice, lambda t: t.raw, (args, {**kwargs, **told}))
    out = func(*raw_args, **raw_kwargs)
    if not stays or func is aten._local_scalar_dense.default:
        return out
    known = {id(t.raw): t for t in mine}  # what an operation in place returns is what it was given
    out = tree_map_only(Tensor, lambda t: known.get(id(t)) if id(t) in known else OnDevice(t), out)
    return return_and_correct_aliasing(func, args, kwargs, out) if mine else out


class _Machine(TorchDispatchMode):
    """Makes tensors where the device is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers of Python become tensors of the CPU first, which torch does out of sight of a dispatch mode."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        made = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if made and _here(kwargs.get("device")):
            value, *_ = args
            kwargs.pop("device")
            grad = kwargs.pop("requires_grad", False)
            found = (value if isinstance(value, Tensor) else func(value, **kwargs)).to(SIM, kwargs.get("dtype"))
            return found.requires_grad_(grad) if grad else found
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice):
            return torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype).to(kwargs.get("device") or SIM)
        return func(*args, **kwargs)


@contextmanager
def simulated() -> Iterator[None]:
    """Inside the ``with`` block the device exists."""
    with _Literals(), _Machine():
        yield


def readable_weights() -> None:
    """Let runs write and read weights by way of the CPU: safetensors reads memory, which the device does not have."""
    from safetensors.torch import load_file, save_file

    from tasks import checkpoint

    def save(tensors: Any, path: Any, **_told: Any) -> None:
        save_file({name: t.detach().cpu().clone() for name, t in tensors.items()}, path)

    def load(path: Any, model: Any, frozen: Any) -> None:
        model.load_state_dict(load_file(path), strict=not frozen)

    checkpoint.save_file = save
    checkpoint._load_weights = load
