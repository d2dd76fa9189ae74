"""What the children ``deltas`` of modules have in common, of whatever kind."""

from __future__ import annotations

from typing import Any

from torch import nn

from .errors import DeltaError

__all__ = ["Joint"]


class Joint(nn.Module):
    """A module that is bound to the one that has it, so that a shallow copy of both would act on the original."""

    def _replicate_for_data_parallel(self) -> Any:
        """Refuse what ``nn.DataParallel`` does.

        Raises
        ------
        DeltaError : always.
        """
        raise DeltaError(
            "nn.DataParallel copies modules without what binds a delta to them, so every copy would use the weights of the "
            "first: take torch.nn.parallel.DistributedDataParallel, one device (CUDA_VISIBLE_DEVICES=0), or merge() first"
        )
