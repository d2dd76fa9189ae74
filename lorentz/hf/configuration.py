"""Configuration of the Lorentz transformers."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, no_type_check

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from ..attention_base import LOGITS
from ..flat import Euclidean
from ..heads import KINDS
from ..linear import VARIANTS
from ..manifold import Lorentz
from ..pooling import POOLINGS
from ..transformer import NORMS

__all__ = ["GEOMETRIES", "POSITIONS", "LorentzConfig"]

GEOMETRIES = ("lorentz", "euclidean")
POSITIONS = ("learned", "sinusoidal", "rotary")


@no_type_check  # its fields are checked by huggingface_hub, its arguments by nobody else
@strict
class LorentzConfig(PreTrainedConfig):
    """Sizes and choices of a Lorentz transformer.

    Parameters
    ----------
    vocab_size : int
    hidden_size : int. Size of a point, one time axis included: 257 are 256 space coordinates.
    num_hidden_layers, num_attention_heads : int. Heads divide ``hidden_size - 1``.
    intermediate_size : int or None. Size of the hidden points of the feed-forward maps, time axis included;
        ``4 * (hidden_size - 1) + 1`` if None.
    num_decoder_layers : int or None, of an encoder-decoder; ``num_hidden_layers`` if None
    hidden_act : str, a name of ``transformers.activations.ACT2FN``
    hidden_dropout_prob, attention_probs_dropout_prob : float in [0, 1)
    classifier_dropout : float or None, before the classifier; ``hidden_dropout_prob`` if None
    max_position_embeddings : int, of learned positions
    type_vocab_size : int; 0 for no token types
    position_embedding_type : str, ``"learned"``, ``"sinusoidal"`` or ``"rotary"``
    initializer_range : float. Deviation of the initial space coordinates of tokens. Linear maps start with the variance of
        ``nn.Linear`` at every width.
    layer_norm_eps : float
    norm : str, ``"pre"``, ``"post"`` or ``"none"``; see :class:`lorentz.LorentzTransformerEncoderLayer`
    attention_logits : str, ``"distance"`` or ``"relative"``; see :class:`lorentz.LorentzMultiheadAttention`
    geometry : str. ``"lorentz"``, or ``"euclidean"`` for the flat twin: the same model with the same free coordinates, whose
        points have ``hidden_size - 1`` coordinates, and whose feed-forward maps take the parameters of the time columns,
        so that both have as many parameters within 1 %.
    k : float, > 0. The curvature is -1/k. For a large k, 1e4 say, the model is flat by the same code.
    learnable_k : bool
    linear_variant : str, of the first feed-forward map; see :class:`lorentz.LorentzLinear`
    pooling : str, of sequence classification: ``"centroid"`` or ``"first"``
    classifier : str, the kind of a ``LorentzClassifier``: ``"mlr"``, ``"relative"`` or ``"prototype"``
    use_cache : bool
    pad_token_id, bos_token_id, eos_token_id, decoder_start_token_id : int or None. Set those of your tokenizer.
    is_encoder_decoder : bool. Every model class sets it in its copy of the configuration, ``LorentzModel`` follows it.
    tie_word_embeddings : bool. Whether the points of the output layer are those of the tokens.

    Raises
    ------
    ValueError : a name or size that does not exist, with what does.

    Examples
    --------
    >>> LorentzConfig(hidden_size=33, num_attention_heads=4).intermediate_size
    129
    """

    model_type = "lorentz"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012  Trainer adds a list to it
    attribute_map = {"num_decoder_hidden_layers": "num_decoder_layers"}  # noqa: RUF012

    vocab_size: int = 30522
    hidden_size: int = 257
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    num_decoder_layers: int | None = None
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    classifier_dropout: float | int | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    position_embedding_type: str = "learned"
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    norm: str = "pre"
    attention_logits: str = "distance"
    geometry: str = "lorentz"
    k: float | int = 1.0
    learnable_k: bool = False
    linear_variant: str = "unbounded"
    pooling: str = "centroid"
    classifier: str = "mlr"
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1
    is_encoder_decoder: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from the rest, and refuse what does not exist."""
        if self.intermediate_size is None:
            self.intermediate_size = 4 * (self.hidden_size - 1) + 1
        if self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_hidden_layers
        for name, known in (
            ("geometry", GEOMETRIES),
            ("norm", NORMS),
            ("attention_logits", LOGITS),
            ("linear_variant", VARIANTS),
            ("position_embedding_type", POSITIONS),
            ("pooling", POOLINGS),
            ("classifier", KINDS),
            ("hidden_act", tuple(ACT2FN)),
        ):
            given = getattr(self, name)
            if given not in known:
                near = get_close_matches(str(given), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{name} is one of {', '.join(map(repr, known))}, got {given!r}{hint}")
        if self.hidden_size < 2 or (self.hidden_size - 1) % self.num_attention_heads:
            heads = self.num_attention_heads
            raise ValueError(
                f"hidden_size counts the time axis, so num_attention_heads divides hidden_size - 1; got hidden_size="
                f"{self.hidden_size} and num_attention_heads={heads}. The next hidden_size that fits is "
                f"{-(-max(self.hidden_size - 1, 1) // heads) * heads + 1}."
            )
        if not self.k > 0:
            raise ValueError(f"k is a positive number (the curvature is -1/k), got {self.k}")
        super().__post_init__(**kwargs)

    def manifold(self) -> Lorentz | Euclidean:
        """A manifold as configured, new at every call: layers of one model share one."""
        return Lorentz(self.k, learnable=self.learnable_k) if self.geometry == "lorentz" else Euclidean()
