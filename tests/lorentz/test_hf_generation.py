"""Generation: a step at a time with a cache is all at once, for greedy search, beams and every kind of position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.utils import logging

from lorentz.hf import LorentzConfig, LorentzForConditionalGeneration
from lorentz.hf.cache import CACHE

logging.set_verbosity_error()
both = pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])


def made(tie_word_embeddings: bool = False, **options: Any) -> LorentzForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 33, "num_hidden_layers": 2, "eos_token_id": None}
    config = LorentzConfig(**sizes, tie_word_embeddings=tie_word_embeddings, **options)
    model = LorentzForConditionalGeneration(config).eval()
    with torch.no_grad():  # away from the start, where every token is near to every other
        for name, parameter in model.named_parameters():
            if "norm" not in name and not name.endswith("rho"):
                parameter += torch.randn_like(parameter) / 10
    return model


def source() -> tuple[Tensor, Tensor]:
    ids = torch.randint(3, 40, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return ids, mask


@both
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@torch.no_grad()
def test_a_step_at_a_time_equals_the_full_forward(geometry: str, position: str) -> None:
    model = made(geometry=geometry, position_embedding_type=position)
    ids, mask = source()
    target = torch.randint(3, 40, (3, 7), generator=torch.Generator().manual_seed(2))
    want = model(ids, mask, decoder_input_ids=target, use_cache=False)
    assert getattr(want, CACHE) is None
    encoded, cache, steps = model.get_encoder()(ids, mask), EncoderDecoderCache(DynamicCache(), DynamicCache()), []
    for i, j in ((0, 2), (2, 3), (3, 6), (6, 7)):
        output = model(
            attention_mask=mask,
            encoder_outputs=encoded,
            decoder_input_ids=target[:, i:j],
            **{CACHE: cache},
            use_cache=True,
        )
        assert output[CACHE].get_seq_length() == j
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), want.logits, rtol=1e-5, atol=1e-5)


@both
@torch.no_grad()
def test_greedy_search_is_the_argmax_of_the_full_forward(geometry: str) -> None:
    model = made(geometry=geometry)
    ids, mask = source()
    found = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    again = torch.full((3, 1), 1)
    for _ in range(6):
        logits = model(ids, mask, decoder_input_ids=again, use_cache=False).logits
        again = torch.cat([again, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, again)
    assert len({tuple(row) for row in found.tolist()}) > 1


@both
@pytest.mark.parametrize("learnable_k", [False, True])
@torch.no_grad()
def test_beams_with_a_cache_are_those_without(geometry: str, learnable_k: bool) -> None:
    model = made(geometry=geometry, learnable_k=learnable_k)
    ids, mask = source()
    options = {"attention_mask": mask, "max_new_tokens": 6, "num_beams": 4, "num_return_sequences": 4}
    scored: dict[str, Any] = {"return_dict_in_generate": True, "output_scores": True}
    found = model.generate(ids, **options, **scored)
    again = model.generate(ids, **options, **scored, use_cache=False)
    assert torch.equal(found.sequences, again.sequences)
    torch.testing.assert_close(found.sequences_scores, again.sequences_scores, rtol=1e-5, atol=1e-5)
    # A sequence's score is the mean of its tokens' log-probabilities, by one forward pass over all of it.
    sequences = found.sequences
    wide, wide_mask = ids.repeat_interleave(4, 0), mask.repeat_interleave(4, 0)
    logits = model(wide, wide_mask, decoder_input_ids=sequences[:, :-1], use_cache=False).logits
    tokens = logits.log_softmax(-1).gather(-1, sequences[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(found.sequences_scores, tokens.mean(1), rtol=1e-4, atol=1e-5)


@both
def test_the_future_of_the_target_does_not_count(geometry: str) -> None:
    model = made(geometry=geometry)
    ids, mask = source()
    target = torch.randint(3, 40, (3, 5), generator=torch.Generator().manual_seed(2))
    other = target.clone()
    other[:, 3:] = (other[:, 3:] + 1) % 37 + 3
    a, b = (model(ids, mask, decoder_input_ids=t).logits for t in (target, other))
    torch.testing.assert_close(a[:, :3], b[:, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(a[:, 3:], b[:, 3:])


def test_labels_are_shifted_and_ignored_where_they_say_so() -> None:
    model = made()
    ids, mask = source()
    labels = torch.tensor([[5, 6, 7, 8], [9, 3, -100, -100], [4, 5, 6, -100]])
    inputs = torch.tensor([[1, 5, 6, 7], [1, 9, 3, 0], [1, 4, 5, 6]])
    assert torch.equal(model.prepare_decoder_input_ids_from_labels(labels), inputs)
    output = model(ids, mask, labels=labels)
    logits = model(ids, mask, decoder_input_ids=inputs).logits
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.loss, F.cross_entropy(logits.transpose(1, 2), labels))
    assert getattr(output, CACHE) is None
    with pytest.raises(ValueError, match="decoder_start_token_id and pad_token_id: set both"):
        made(decoder_start_token_id=None)(ids, labels=labels)


def test_it_learns_to_copy() -> None:
    model = made(tie_word_embeddings=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    g = torch.Generator().manual_seed(0)
    for _ in range(120):
        ids = torch.randint(3, 12, (32, 4), generator=g)
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ids = torch.randint(3, 12, (32, 4), generator=g)
    copied = model.eval().generate(ids, max_new_tokens=4, do_sample=False)
    assert (copied[:, 1:] == ids).float().mean() > 0.9


def test_a_cache_of_a_decoder_alone_takes_the_tokens() -> None:
    model = made()
    ids, mask = source()
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :1]}
    cache = DynamicCache()
    with torch.no_grad():
        found = model(**given, past_key_values=cache)
    torch.testing.assert_close(found.logits, model(**given).logits)
    assert cache.get_seq_length() == 1 and isinstance(getattr(found, CACHE), EncoderDecoderCache)


@both
@torch.no_grad()
def test_a_static_cache_is_one_that_grows(geometry: str) -> None:
    model = made(geometry=geometry)
    ids, mask = source()
    target = torch.randint(3, 40, (3, 7), generator=torch.Generator().manual_seed(2))
    want = model(ids, mask, decoder_input_ids=target, use_cache=False).logits
    static = [StaticCache(model.config, max_cache_len=size) for size in (9, ids.shape[1])]
    cache, parts = EncoderDecoderCache(*static), target.split([3, 1, 1, 2], 1)
    steps = [model(ids, mask, decoder_input_ids=part, **{CACHE: cache}, use_cache=True).logits for part in parts]
    torch.testing.assert_close(torch.cat(steps, 1), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["gradients", "use_cache=False", "labels"])
def test_a_cache_that_is_given_is_used(way: str) -> None:
    model = made()
    ids, mask = source()
    target = torch.randint(3, 40, (3, 5), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        want = model(ids, mask, decoder_input_ids=target, use_cache=False).logits[:, 4:]
        cache = model(ids, mask, decoder_input_ids=target[:, :4], use_cache=True)[CACHE]
    options = {"labels": {"labels": target[:, 4:]}, "use_cache=False": {"use_cache": False}}.get(way, {})
    got = model(ids, mask, decoder_input_ids=target[:, 4:], **{CACHE: cache}, **options).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert got.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("form", ["3-d", "bool", "additive"])
def test_a_decoder_sees_what_a_square_mask_lets_any_token_see(form: str) -> None:
    model = made()
    ids, _ = source()
    square = torch.ones(3, 6, 6)
    square[:, :3, 3:], square[:, 3:, :3], square[1, :, 5] = 0, 0, 0  # two packed texts, and one token of padding
    mask = {
        "3-d": square,
        "bool": square.bool()[:, None],
        "additive": square.log().clamp(min=torch.finfo(torch.float32).min)[:, None],
    }[form]
    encoded = model.get_encoder()(ids, mask)
    kept = torch.ones_like(ids)
    kept[1, 5] = 0
    for target in (ids, ids[:, :4]):
        want = model(attention_mask=kept, encoder_outputs=encoded, decoder_input_ids=target).logits
        torch.testing.assert_close(model(ids, mask, decoder_input_ids=target).logits, want)
