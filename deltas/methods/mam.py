"""MAM: a prefix in the attention, and a scaled parallel adapter beside the feed-forward layer."""

from __future__ import annotations

from ..base import Combination
from .parallel import ParallelAdapter
from .prefix import PrefixTuning

__all__ = ["mam"]


def mam(
    *,
    length: int = 30,
    hidden: int | None = None,
    bottleneck: int = 512,
    scale: float = 4.0,
    layers: tuple[int, ...] | None = None,
) -> Combination:
    r"""Mix-and-match adapter: prefix tuning with few tokens, and a scaled parallel adapter beside the feed-forward layer.

    The feed-forward layer's result becomes :math:`z + s\,U\,\mathrm{ReLU}(D x)`, x its input. The two are ordinary methods:
    ``PrefixTuning(...) + ParallelAdapter(...)`` is the same.

    Parameters
    ----------
    length : int. Tokens of the prefix.
    hidden : int or None. As in :class:`PrefixTuning`.
    bottleneck : int. Hidden size of the adapter.
    scale : float. s
    layers : indices of the layers to take; None takes all

    References
    ----------
    He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", ICLR 2022, section 4.6.

    Examples
    --------
    >>> mam(length=5, bottleneck=8).name
    'PrefixTuning+ParallelAdapter'
    """
    prefix = PrefixTuning(length=length, hidden=hidden, layers=layers)
    return prefix + ParallelAdapter(bottleneck=bottleneck, scale=scale, layers=layers)
