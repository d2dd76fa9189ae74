"""BLEU and chrF as sacreBLEU computes them."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import UsageError

__all__ = ["signatures", "translation_scores"]


def _metrics(lowercase: bool) -> dict[str, object]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise UsageError("translations are scored by sacrebleu: pip install 'hyrel[mt]'") from None
    return {"bleu": BLEU(lowercase=lowercase), "chrf": CHRF(lowercase=lowercase)}


def translation_scores(found: Sequence[str], wanted: Sequence[str], *, lowercase: bool = False) -> dict[str, float]:
    """``bleu`` and ``chrf``, 0 to 100, of detokenised translations against one reference each.

    References
    ----------
    Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018; Popović, "chrF", WMT 2015.
    """
    return {
        name: float(metric.corpus_score(list(found), [list(wanted)]).score)  # type: ignore[attr-defined]
        for name, metric in _metrics(lowercase).items()
    }


def signatures(*, lowercase: bool = False) -> dict[str, str]:
    """What sacreBLEU says to print beside each score."""
    found = {}
    for name, metric in _metrics(lowercase).items():
        metric.corpus_score(["a"], [["a"]])  # type: ignore[attr-defined]  # which counts the references
        found[name] = str(metric.get_signature())  # type: ignore[attr-defined]
    return found
