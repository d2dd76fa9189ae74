"""Masks in dtypes that mean something else there: additive ones in float16, and 0 and 1 in floats."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorentz import Lorentz, LorentzMultiheadAttention
from lorentz.hf import LorentzConfig, LorentzModel


@torch.no_grad()
@pytest.mark.parametrize("cast", [False, True], ids=["float16", "autocast"])
def test_what_becomes_infinite_in_float16_is_masked(cast: bool) -> None:
    torch.manual_seed(0)
    attend, x = LorentzMultiheadAttention(9, 2, manifold=Lorentz()), Lorentz().lift(torch.randn(2, 4, 8))
    attend, x = (attend, x) if cast else (attend.half(), x.half())
    keep = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    keep[0, 0, 1], keep[1, 0, :, 2:] = False, False
    origin = attend.manifold.origin(9, dtype=x.dtype)
    with torch.autocast("cpu", torch.float16, enabled=cast):
        want, weights = attend(x, attn_mask=keep, need_weights=True)
        mask = torch.zeros(keep.shape).masked_fill(~keep, -1e9)  # in float32, whose own limit is -3e38
        got, seen = attend(x, attn_mask=mask, need_weights=True)
        assert torch.equal(got, want) and torch.equal(seen, weights)
        fused = attend(x, attn_mask=mask)
        torch.testing.assert_close(fused, want, rtol=4e-3, atol=4e-3)
        assert torch.equal(fused[0, 1], origin)
        # Neither of two masks is infinite, their sum is: for the first query of the first sequence.
        row = torch.zeros(2, 1, 4, 4).index_fill(2, torch.tensor([0]), -4e4)
        padding = torch.tensor([[-4e4], [0.0]]).expand(2, 4)
        for y in (attend(x, attn_mask=row, key_padding_mask=padding), attend(x, attn_mask=row)):
            assert torch.isfinite(y).all()
        assert torch.equal(attend(x, attn_mask=row, key_padding_mask=padding)[0, 0], origin)


@torch.no_grad()
@pytest.mark.parametrize("dims", [3, 4])
@pytest.mark.parametrize("decoder", [False, True])
def test_zeros_and_ones_hide_tokens_whatever_their_dtype(dims: int, decoder: bool) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 9, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LorentzModel(LorentzConfig(**sizes, is_encoder_decoder=decoder)).eval()
    ids, keep = torch.tensor([[5, 6, 7, 8]]), torch.ones(1, 4, 4, dtype=torch.bool).tril()
    keep = keep if dims == 3 else keep[:, None]
    target = {"decoder_input_ids": ids} if decoder else {}

    def run(mask: Any) -> Any:
        if decoder:
            return model(ids, decoder_attention_mask=mask, **target).last_hidden_state
        return model(ids, mask).last_hidden_state

    want = run(keep)
    for mask in (keep.long(), keep.float(), torch.zeros(keep.shape).masked_fill(~keep, -torch.inf)):
        torch.testing.assert_close(run(mask), want, rtol=1e-6, atol=1e-6)
    # Nothing to hide: zeros are added, and ones hide nothing.
    for mask in (torch.zeros(keep.shape), torch.ones(keep.shape)):
        torch.testing.assert_close(run(mask), run(torch.ones_like(keep)), rtol=1e-6, atol=1e-6)
    bias = 3 * torch.rand(keep.shape)  # numbers to add
    assert not torch.allclose(run(bias), run(torch.ones_like(keep)), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    "mask", [None, torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1)], ids=["none", "bool", "additive"]
)
def test_without_keys_there_is_the_origin(mask: torch.Tensor | None) -> None:
    attend, x = LorentzMultiheadAttention(9, 2, manifold=Lorentz()), Lorentz().lift(torch.randn(2, 4, 8))
    assert torch.equal(attend(x, x[:, :0], attn_mask=mask), attend.manifold.origin(2, 4, 9))
