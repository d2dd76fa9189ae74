"""The Hugging Face family: outputs, masks, losses, saving, ties, and that the twin differs in geometry alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.utils import logging

from lorentz import Lorentz, check_manifold
from lorentz import math as lm
from lorentz.hf import (
    LorentzConfig,
    LorentzForConditionalGeneration,
    LorentzForMaskedLM,
    LorentzForSequenceClassification,
    LorentzForTokenClassification,
    LorentzModel,
    register,
)
from lorentz.optim import RiemannianAdam

logging.set_verbosity_error()
logging.disable_progress_bar()

MODELS = (
    LorentzModel,
    LorentzForMaskedLM,
    LorentzForSequenceClassification,
    LorentzForTokenClassification,
    LorentzForConditionalGeneration,
)
AUTO = (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForSeq2SeqLM,
)
geometries = pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
every = pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)


def config(**options: Any) -> LorentzConfig:
    return LorentzConfig(
        **{"vocab_size": 60, "hidden_size": 33, "num_hidden_layers": 2, "max_position_embeddings": 20, **options}
    )


def made(kind: type, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return kind(config(**options)).eval()


def batch(model: Any, length: int = 7) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    given = {"input_ids": torch.randint(3, 60, (3, length), generator=g)}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = torch.randint(3, 60, (3, 4), generator=g)
    return given


def first(model: Any, **given: Any) -> Tensor:
    output = model(**given)
    found = output["logits"] if "logits" in output else output["last_hidden_state"]
    assert isinstance(found, Tensor)
    return found


@geometries
@every
def test_saving_and_loading_is_exact_to_the_bit(kind: type, geometry: str, tmp_path: Path) -> None:
    model = made(kind, geometry=geometry, learnable_k=geometry == "lorentz", k=2.0)
    if geometry == "lorentz":
        with torch.no_grad():
            model.base_model.manifold.rho.fill_(0.3)
    model.save_pretrained(tmp_path)
    names = list(load_file(tmp_path / "model.safetensors"))
    assert sum("manifold" in name for name in names) == (2 if geometry == "lorentz" else 0)  # however many layers
    loaded = kind.from_pretrained(tmp_path)
    assert {p.dtype for n, p in loaded.named_parameters() if not n.endswith("rho")} == {torch.float32}
    assert torch.equal(first(loaded, **batch(model)), first(model, **batch(model)))
    automatic = AUTO[MODELS.index(kind)].from_pretrained(tmp_path)
    assert type(automatic) is kind
    assert isinstance(AutoConfig.from_pretrained(tmp_path), LorentzConfig)
    if geometry == "lorentz":
        with pytest.raises(ValueError, match=r"k = 2\.69"):
            kind.from_pretrained(tmp_path, learnable_k=False)


def test_loaded_tables_of_points_are_known_to_riemannian_optimisers(tmp_path: Path) -> None:
    made(LorentzForMaskedLM).save_pretrained(tmp_path)
    model = LorentzForMaskedLM.from_pretrained(tmp_path)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.manifold is model.model.manifold
    optimizer = RiemannianAdam(model.parameters(), lr=1e-2)
    ids = batch(model)["input_ids"]
    losses = []
    for _ in range(12):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_registering_again_changes_nothing() -> None:
    register()
    assert isinstance(AutoConfig.for_model("lorentz"), LorentzConfig)


@geometries
@every
def test_padding_does_not_change_other_tokens(kind: type, geometry: str) -> None:
    model = made(kind, geometry=geometry)
    given = batch(model)
    padded = {**given, "input_ids": F.pad(given["input_ids"], (0, 3), value=9)}
    mask = torch.ones(3, 10, dtype=torch.int64)
    mask[:, 7:] = 0
    got = first(model, **padded, attention_mask=mask)
    want = first(model, **given)
    torch.testing.assert_close(got[:, : want.shape[1]], want, rtol=1e-5, atol=1e-5)
    square = mask[:, None, :].expand(3, 10, 10)
    if kind in (LorentzModel, LorentzForMaskedLM, LorentzForTokenClassification):
        additive = torch.zeros(3, 1, 10, 10).masked_fill(square[:, None] == 0, torch.finfo(torch.float32).min)
        for other in (square, square[:, None].bool(), additive):
            again = first(model, **padded, attention_mask=other)
            torch.testing.assert_close(again[:, :7], want, rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match=r"2, 3 or 4 dimensions, got shape \(10,\)"):
            model(**padded, attention_mask=mask[0])


@geometries
def test_outputs_are_those_of_transformers(geometry: str) -> None:
    model = made(LorentzForConditionalGeneration, geometry=geometry)
    given = batch(model)
    output = model(**given, output_hidden_states=True, output_attentions=True)
    width = 33 if geometry == "lorentz" else 32
    assert [h.shape for h in output.encoder_hidden_states] == [(3, 7, width)] * 3
    assert [h.shape for h in output.decoder_hidden_states] == [(3, 4, width)] * 3
    assert [a.shape for a in output.encoder_attentions] == [(3, 4, 7, 7)] * 2
    assert [a.shape for a in output.decoder_attentions] == [(3, 4, 4, 4)] * 2
    assert [a.shape for a in output.cross_attentions] == [(3, 4, 4, 7)] * 2
    assert torch.equal(output.encoder_hidden_states[-1], output.encoder_last_hidden_state)
    values = model(**given, return_dict=False, use_cache=False)
    assert isinstance(values, tuple) and values[0].shape == (3, 4, 60)
    encoder = made(LorentzModel, geometry=geometry)
    assert encoder(given["input_ids"], return_dict=False)[0].shape == (3, 7, width)
    embeds = encoder.get_input_embeddings()(given["input_ids"])
    assert embeds.shape == (3, 7, 32)
    torch.testing.assert_close(first(encoder, inputs_embeds=embeds), first(encoder, input_ids=given["input_ids"]))


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_positions_count(position: str) -> None:
    model = made(LorentzModel, position_embedding_type=position)
    ids = torch.tensor([[5, 6, 7, 8]])
    a, b = first(model, input_ids=ids), first(model, input_ids=ids[:, [1, 0, 2, 3]])
    assert not torch.allclose(a[:, 2], b[:, 2], atol=1e-6)
    if position == "rotary":
        with pytest.raises(ValueError, match="takes no position_ids"):
            model(ids, position_ids=torch.arange(4)[None])
    else:
        moved = first(model, input_ids=ids[:, [1, 0, 2, 3]], position_ids=torch.tensor([[1, 0, 2, 3]]))
        torch.testing.assert_close(moved[:, 2], a[:, 2], rtol=1e-5, atol=1e-5)
    long = torch.full((1, 21), 5)
    if position == "learned":
        with pytest.raises(ValueError, match="21 tokens, and there are 20 learned positions"):
            model(long)
    else:
        assert first(model, input_ids=long).shape == (1, 21, 33)


def test_token_types_count() -> None:
    model, ids = made(LorentzModel), torch.tensor([[5, 6, 7, 8]])
    types = torch.tensor([[0, 0, 1, 1]])
    assert torch.equal(first(model, input_ids=ids, token_type_ids=0 * types), first(model, input_ids=ids))
    assert not torch.allclose(first(model, input_ids=ids, token_type_ids=types), first(model, input_ids=ids))
    assert made(LorentzModel, type_vocab_size=0).encoder.embeddings.token_type is None


@geometries
def test_losses_follow_the_problem_type(geometry: str) -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 3]])
    several = made(LorentzForSequenceClassification, num_labels=3, geometry=geometry)
    output = several(ids, labels=torch.tensor([0, 2]))
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, torch.tensor([0, 2])))
    target = torch.tensor([[0.0, 1, 1], [1, 0, 0]])
    output = several(ids, labels=target)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, target))
    named = made(
        LorentzForSequenceClassification,
        num_labels=3,
        geometry=geometry,
        problem_type="multi_label_classification",
    )
    assert torch.equal(named(ids, labels=target.long()).loss, output.loss)
    one = made(LorentzForSequenceClassification, num_labels=1, geometry=geometry)
    output = one(ids, labels=torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(output.loss, F.mse_loss(output.logits[:, 0], torch.tensor([0.5, -1.0])))
    tokens = made(LorentzForTokenClassification, num_labels=3, geometry=geometry)
    labels = torch.tensor([[0, 1, -100], [-100, 2, 0]])
    output = tokens(ids, labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.transpose(1, 2), labels))
    masked = made(LorentzForMaskedLM, geometry=geometry)
    output = masked(ids, labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.transpose(1, 2), labels))


@pytest.mark.parametrize("k", [0.1, 1.0, 10.0])
def test_logits_of_tokens_are_differences_of_distances_to_their_points(k: float) -> None:
    model = made(LorentzForMaskedLM, k=k).double()
    torch.nn.init.normal_(model.lm_head.bias)
    ids = batch(model)["input_ids"]
    x = first(model.model, input_ids=ids)
    table = lm.lift(model.get_input_embeddings().weight, k=k)
    near = -lm.sqdist(x.unsqueeze(-2), table, k=k) + model.lm_head.bias
    want = near + lm.sqdist(x, model.model.manifold.origin(33, dtype=torch.float64), k=k).unsqueeze(-1)
    torch.testing.assert_close(first(model, input_ids=ids), want, rtol=1e-8, atol=1e-8)


@every
@pytest.mark.parametrize("k", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_every_layer_returns_points_and_k_is_learned(kind: type, k: float) -> None:
    model = made(kind, k=k, learnable_k=True)
    given = batch(model)
    report = check_manifold(model, **given, on_failure="report")
    assert report.failures == [] and report.strangers == [] and len(report.layers) > 10
    first(model, **given).sin().sum().backward()
    rho = model.base_model.manifold.rho
    assert rho.grad is not None and float(rho.grad) != 0
    assert sum(name.endswith("rho") for name, _ in model.named_parameters()) == 1


@every
@pytest.mark.parametrize("hidden_size", [33, 257])
def test_the_twin_has_as_many_parameters(kind: type, hidden_size: int) -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in made(kind, geometry=g, hidden_size=hidden_size).parameters())
            for g in ("lorentz", "euclidean")
        ]
    assert abs(counts[1] / counts[0] - 1) < 0.01


def scales(kind: type, geometry: str, **options: Any) -> dict[str, float]:
    """Medians over five models of what stands at step 0: space coordinates of every layer, spread of the logits."""
    found: dict[str, list[float]] = {}
    for seed in range(5):
        model = made(kind, seed, geometry=geometry, hidden_size=65, vocab_size=200, num_labels=200, **options)
        g = torch.Generator().manual_seed(seed)
        output = model(torch.randint(3, 200, (8, 16), generator=g), output_hidden_states=True)
        for i, points in enumerate(output.hidden_states):
            space = points[..., -64:]
            found.setdefault(f"layer {i}", []).append(space.norm(dim=-1).median().item())
        logits = output.logits
        centred = logits - logits.mean(-1, keepdim=True)  # a softmax loses the mean
        found.setdefault("logits", []).append(centred.abs().median().item())
    return {name: torch.tensor(values).median().item() for name, values in found.items()}


@pytest.mark.parametrize("kind", [LorentzForMaskedLM, LorentzForSequenceClassification, LorentzForTokenClassification])
def test_features_and_logits_of_the_twin_start_alike(kind: type) -> None:
    ours, theirs = (scales(kind, geometry) for geometry in ("lorentz", "euclidean"))
    assert set(ours) == set(theirs) and len(ours) == 4
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=0.1), name


def test_a_large_k_is_the_twin_with_its_weights() -> None:
    """The whole model in float32 at k = 1e6, time columns at their start."""
    flat = made(LorentzForMaskedLM, geometry="euclidean").eval()
    width = flat.model.encoder.stack.layers[0].dim_feedforward
    bent = made(LorentzForMaskedLM, k=1e6, intermediate_size=width)
    theirs = dict(flat.named_parameters())
    with torch.no_grad():
        for name, parameter in bent.named_parameters():
            given = theirs[name]
            (parameter if parameter.shape == given.shape else parameter[:, 1:]).copy_(given)
    ids = batch(flat)["input_ids"]
    a, b = bent(ids, labels=ids), flat(ids, labels=ids)
    torch.testing.assert_close(a.logits, b.logits, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(a.loss, b.loss, rtol=1e-3, atol=1e-3)
    a.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in bent.parameters())


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = made(LorentzForMaskedLM, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    ids = batch(model)["input_ids"]
    model(ids, labels=ids).loss.backward()
    want = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    enable = "activation_checkpointing_enable"  # the new name in transformers
    getattr(model, enable if hasattr(model, enable) else "gradient_checkpointing_enable")()
    assert model.model.encoder.stack.gradient_checkpointing
    model(ids, labels=ids).loss.backward()
    for p, g in zip(model.parameters(), want, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-5, atol=1e-7)


@geometries
@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_can_grow_and_shrink(geometry: str, tied: bool) -> None:
    model = made(LorentzForMaskedLM, geometry=geometry, tie_word_embeddings=tied)
    ids = batch(model)["input_ids"]
    before = first(model, input_ids=ids)
    for size in (64, 50):
        model.resize_token_embeddings(size)
        after = first(model, input_ids=ids % 50)
        assert after.shape[-1] == size == model.config.vocab_size == model.get_input_embeddings().num_embeddings
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
        assert model.lm_head.bias.shape == (size,)
        if geometry == "lorentz":
            assert isinstance(model.lm_head.weight.manifold, Lorentz)
    torch.testing.assert_close(
        first(made(LorentzForMaskedLM, geometry=geometry, tie_word_embeddings=tied), input_ids=ids), before
    )
    kept = first(model, input_ids=ids % 50)
    again = made(LorentzForMaskedLM, geometry=geometry, tie_word_embeddings=tied)
    torch.testing.assert_close(kept, first(again, input_ids=ids % 50)[..., :50])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"geometry": "lorenz"}, "did you mean 'lorentz'"),
        ({"norm": "per"}, "did you mean 'pre'"),
        ({"position_embedding_type": "absolute"}, "'learned', 'sinusoidal', 'rotary', got 'absolute'"),
        ({"hidden_act": "gelo"}, "did you mean 'gelu'"),
        ({"hidden_size": 32}, "The next hidden_size that fits is 33"),
        ({"k": 0.0}, "k is a positive number"),
    ],
)
def test_configurations_that_cannot_work_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LorentzConfig(**given)


def test_wrong_calls_say_what_is_missing() -> None:
    encoder = made(LorentzModel)
    with pytest.raises(ValueError, match="is_encoder_decoder=True"):
        encoder(torch.tensor([[5]]), decoder_input_ids=torch.tensor([[1]]))
    with pytest.raises(ValueError, match="input_ids or inputs_embeds, one of them"):
        encoder()
    with pytest.raises(ValueError, match="decoder_input_ids or decoder_inputs_embeds, one of them"):
        made(LorentzModel, is_encoder_decoder=True)(torch.tensor([[5]]))


@every
def test_a_curvature_is_learned_from_a_checkpoint_of_a_fixed_one(kind: type, tmp_path: Path) -> None:
    model = made(kind, k=2.0)
    model.save_pretrained(tmp_path)
    learned = kind.from_pretrained(tmp_path, learnable_k=True).eval()  # type: ignore[attr-defined]
    base = learned.base_model
    assert base.manifold.rho.item() == 0 and base.manifold.k.item() == pytest.approx(2.0)
    torch.testing.assert_close(first(learned, **batch(model)), first(model, **batch(model)))
    first(learned, **batch(model)).sum().backward()
    assert base.manifold.rho.grad is not None
    with torch.no_grad():
        base.manifold.rho.fill_(0.3)
    learned.save_pretrained(tmp_path / "again")
    again = kind.from_pretrained(tmp_path / "again").eval()  # type: ignore[attr-defined]
    assert again.base_model.manifold.k.item() == pytest.approx(base.manifold.k.item())


@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_model_stays_frozen_when_its_vocabulary_grows(tied: bool) -> None:
    model = made(LorentzForMaskedLM, tie_word_embeddings=tied)
    model.requires_grad_(False)
    model.resize_token_embeddings(64)
    assert not [name for name, p in model.named_parameters() if p.requires_grad]


def test_labels_of_any_whole_number() -> None:
    model = made(LorentzForMaskedLM)
    given = batch(model)
    losses = [model(**given, labels=given["input_ids"].to(dtype)).loss for dtype in (torch.int64, torch.int32)]
    assert torch.equal(*losses)


@pytest.fixture
def filled() -> Iterator[None]:
    """Memory that nothing has written to holds NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@geometries
@pytest.mark.parametrize("kind", [LorentzForMaskedLM, LorentzForConditionalGeneration], ids=lambda kind: kind.__name__)
def test_a_head_of_tied_weights_starts_with_no_bias(kind: type, geometry: str, tmp_path: Path, filled: None) -> None:
    decoder = kind is LorentzForConditionalGeneration
    options = {"geometry": geometry, "is_encoder_decoder": decoder}
    made(LorentzModel, **options).save_pretrained(tmp_path / "backbone")
    loaded = kind.from_pretrained(tmp_path / "backbone")
    assert torch.equal(loaded.lm_head.bias, torch.zeros(60))
    loaded.lm_head.bias.data.fill_(3.0)
    loaded.save_pretrained(tmp_path / "whole")
    assert torch.equal(kind.from_pretrained(tmp_path / "whole").lm_head.bias, torch.full((60,), 3.0))
    other = kind.from_pretrained(tmp_path / "whole", vocab_size=50, ignore_mismatched_sizes=True)
    assert torch.equal(other.lm_head.bias, torch.zeros(50))


def test_a_scale_that_a_checkpoint_lacks_starts_where_it_does_anew(tmp_path: Path, filled: None) -> None:
    model = made(LorentzModel)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lost = [name for name in state if name.endswith("log_scale")]
    assert lost
    save_file(
        {name: value for name, value in state.items() if name not in lost},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    loaded, fresh = (one.state_dict() for one in (LorentzModel.from_pretrained(tmp_path), made(LorentzModel)))
    assert all(torch.equal(loaded[name], fresh[name]) for name in lost)


@torch.no_grad()
def test_layers_are_not_computed_again_without_gradients() -> None:
    model = made(LorentzForConditionalGeneration).train()
    model.model.encoder.stack.gradient_checkpointing = model.model.decoder.stack.gradient_checkpointing = True
    ids = batch(model)["input_ids"]
    assert model(ids, decoder_input_ids=ids).logits.isfinite().all()
    assert model.generate(ids, max_new_tokens=3).shape[1] == 4


@torch.no_grad()
@pytest.mark.parametrize("kind", [LorentzModel, LorentzForMaskedLM], ids=lambda kind: kind.__name__)
def test_weights_may_lie_elsewhere_until_they_are_used(kind: type) -> None:
    from accelerate import cpu_offload

    model = made(kind).eval()
    ids = batch(model)["input_ids"]
    want = model(ids)[0]
    cpu_offload(model, torch.device("cpu"))
    assert torch.equal(model(ids)[0], want)
