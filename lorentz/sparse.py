"""A fixed sparse matrix that multiplies dense ones, with a gradient by its transpose."""

from __future__ import annotations

import warnings
from copy import copy
from math import prod
from typing import Any

import torch
from torch import Tensor

from .forms import at_least_float32
from .signatures import signed

__all__ = ["SparseMatrix"]


class SparseMatrix:
    """Constant sparse matrix (rows, columns) in compressed rows, and its transpose: made once, multiplied often.

    ``matrix @ x`` maps x (..., columns, d) to (..., rows, d) in the dtype of x; x has a gradient of every order, the
    matrix has none. Both directions are row-compressed products, which on a CPU are about four times as fast as gathering
    and ``index_add``. `torch.compile` and export take edge lists instead.

    Parameters
    ----------
    index : int64 Tensor, shape (2, M): row and column of each entry; entries at the same place add up
    value : Tensor, shape (M,), or None for ones
    size : rows and columns

    Raises
    ------
    ValueError : shapes that do not fit, or an index outside of `size`.

    Examples
    --------
    >>> matrix = SparseMatrix(torch.tensor([[0, 0], [0, 2]]), torch.tensor([1.0, 2.0]), (2, 3))
    >>> matrix @ torch.tensor([[1.0], [10.0], [100.0]])
    tensor([[201.],
            [  0.]])
    """

    def __init__(self, index: Tensor, value: Tensor | None, size: tuple[int, int]) -> None:
        if index.ndim != 2 or len(index) != 2 or index.dtype != torch.int64:
            raise ValueError(
                f"index is int64 of shape (2, M), rows and columns; got {index.dtype} of shape {tuple(index.shape)}"
            )
        if value is not None and value.shape != index.shape[1:]:
            raise ValueError(f"{index.shape[1]} entries take as many values; got shape {tuple(value.shape)}")
        if index.numel() and (int(index.min()) < 0 or bool((index.amax(1).cpu() >= torch.tensor(size)).any())):
            raise ValueError(
                f"entries lie between (0, 0) and {(size[0] - 1, size[1] - 1)} in a matrix of size {size}; got rows and "
                f"columns from {index.amin(1).tolist()} to {index.amax(1).tolist()}"
            )
        values = torch.ones(index.shape[1], device=index.device) if value is None else value.detach()
        self.shape = size
        whole = torch.sparse_coo_tensor(index, values, size, check_invariants=False).coalesce()
        self._entries = whole.indices(), whole.values()
        self._structures: dict[bool, tuple[Tensor, Tensor, Tensor | None]] = {}
        self._made: dict[tuple[bool, torch.dtype], Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        # torch cannot copy compressed tensors deeply; they are made again when they are needed.
        return {**self.__dict__, "_made": {}}

    def __repr__(self) -> str:
        return f"SparseMatrix({self.shape[0]}, {self.shape[1]}, entries={len(self._entries[1])})"

    def to(self, device: torch.device | str) -> SparseMatrix:
        """Copy on a device."""
        index, values = self._entries
        return SparseMatrix(index.to(device), values.to(device), self.shape)

    @property
    def index(self) -> Tensor:
        """Row and column of each entry, (2, M), in order."""
        return self._entries[0]

    @property
    def value(self) -> Tensor:
        """Value of each entry, (M,)."""
        return self._entries[1]

    def with_value(self, value: Tensor) -> SparseMatrix:
        """Matrix with other values (M,) at the same places, in the order of ``index``; nothing is sorted again."""
        if value.shape != self.value.shape:
            raise ValueError(f"the matrix has {len(self.value)} entries, got values of shape {tuple(value.shape)}")
        other = copy(self)
        other._entries = self.index, value.detach()
        return other

    def _structure(self, transposed: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Starts of the rows, columns, and the order of the entries, of the matrix or its transpose."""
        if transposed not in self._structures:
            row, column = self.index.flip(0) if transposed else self.index
            order = torch.argsort(row, stable=True) if transposed else None
            if order is not None:
                row, column = row[order], column[order]
            rows = self.shape[1] if transposed else self.shape[0]
            starts = torch.searchsorted(row, torch.arange(rows + 1, device=row.device))
            self._structures[transposed] = starts.int(), column.int(), order
        return self._structures[transposed]

    def _compressed(self, transposed: bool, dtype: torch.dtype) -> Tensor:
        key = transposed, dtype
        if key not in self._made:
            starts, column, order = self._structure(transposed)
            values = (self.value if order is None else self.value[order]).to(dtype)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*beta state.*")
                size = self.shape[::-1] if transposed else self.shape
                self._made[key] = torch.sparse_csr_tensor(starts, column, values, size, check_invariants=False)
        return self._made[key]

    def multiply(self, x: Tensor, *, transposed: bool = False) -> Tensor:
        """Product with x (..., columns, d), or of the transpose with x (..., rows, d); without a gradient.

        Of bfloat16 and float16, for which torch has no such product, in float32.
        """
        wide = at_least_float32(x)
        if wide is not x:
            return self.multiply(wide, transposed=transposed).to(x.dtype)
        matrix = self._compressed(transposed, x.dtype)
        *batch, inner, d = x.shape
        with torch.autocast(x.device.type, enabled=False):  # which would take both to the low precision
            if not batch:
                return matrix @ x.contiguous()
            flat = x.reshape(prod(batch), inner, d).transpose(0, 1).reshape(inner, prod(batch) * d)
            return (matrix @ flat).view(len(matrix), prod(batch), d).transpose(0, 1).reshape(*batch, len(matrix), d)

    def __matmul__(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[-2] != self.shape[1]:
            raise ValueError(f"{self!r} multiplies (..., {self.shape[1]}, d), got shape {tuple(x.shape)}")
        y: Tensor = _Product.apply(x, self, False)  # type: ignore[no-untyped-call]
        return y


class _Product(torch.autograd.Function):
    """Product with the matrix or its transpose; the gradient is the product with the other."""

    @staticmethod
    @signed
    def forward(x: Tensor, matrix: SparseMatrix, transposed: bool) -> Tensor:
        return matrix.multiply(x, transposed=transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.matrix, ctx.transposed = inputs[1], inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(grad, ctx.matrix, not ctx.transposed), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], x: Tensor, *rest: Any) -> tuple[Tensor, int]:
        assert in_dims[0] is not None
        return _Product.apply(x.movedim(in_dims[0], 0), *rest), 0  # type: ignore[no-untyped-call]
