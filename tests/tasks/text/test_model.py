"""Pooling, heads and scores against explicit formulas."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from deltas.storage import fingerprint
from lorentz.hf import LorentzConfig, LorentzForSequenceClassification, LorentzModel
from tasks.errors import UsageError
from tasks.text.backbone import load_backbone, longest
from tasks.text.config import ModelConfig
from tasks.text.metrics import scores
from tasks.text.model import EuclideanHead, LorentzHead, TextModel


def tokens(lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(4, 20, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def text_model(folder: str, pooling: str = "mean") -> TextModel:
    backbone = load_backbone(ModelConfig(name=folder))
    if isinstance(backbone, LorentzModel):
        return TextModel(backbone, LorentzHead(backbone, 3, classes=True, dropout=0.0), pooling=pooling).eval()
    return TextModel(backbone, EuclideanHead(32, 3, dropout=0.0), pooling=pooling).eval()


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("kind", ["bert", "lorentz", "twin"])
def test_padding_changes_nothing(kind: str, pooling: str, backbones: dict[str, str]) -> None:
    model, batch = text_model(backbones[kind], pooling), tokens([3, 9, 5])
    together = model(batch)
    for row, length in enumerate((3, 9, 5)):
        alone = model({name: value[row : row + 1, :length] for name, value in batch.items()})
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_the_mean_is_that_of_the_tokens(backbones: dict[str, str]) -> None:
    model, batch = text_model(backbones["bert"]), tokens([2, 6])
    types = batch["token_type_ids"]
    hidden = model.backbone(batch["input_ids"], batch["attention_mask"], types).last_hidden_state.double()
    want = torch.stack([hidden[0, :2].mean(0), hidden[1].mean(0)])
    torch.testing.assert_close(model.pooled(batch).double(), want, rtol=1e-5, atol=1e-6)
    first = text_model(backbones["bert"], "first").pooled(batch)
    torch.testing.assert_close(first.double(), hidden[:, 0])
    logits = want @ model.head.linear.weight.double().T + model.head.linear.bias.double()
    torch.testing.assert_close(model(batch).double(), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
def test_classes_of_points_are_those_of_the_hugging_face_model(geometry: str) -> None:
    torch.manual_seed(0)
    config = LorentzConfig(vocab_size=20, hidden_size=17, num_hidden_layers=1, num_labels=3, geometry=geometry, k=2.0)
    other = LorentzForSequenceClassification(config).eval()
    head = LorentzHead(other.model, 3, classes=True, dropout=0.0)
    head.norm.load_state_dict(other.norm.state_dict())
    head.classifier.load_state_dict(other.classifier.state_dict())
    model, batch = TextModel(other.model, head).eval(), tokens([4, 7])
    torch.testing.assert_close(model(batch), other(**batch).logits)


@pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
def test_a_regression_reads_the_logarithm_at_the_origin(geometry: str) -> None:
    torch.manual_seed(0)
    k = 2.0
    config = LorentzConfig(vocab_size=20, hidden_size=17, num_hidden_layers=1, geometry=geometry, k=k, norm="none")
    backbone = LorentzModel(config).eval()
    head = LorentzHead(backbone, 1, classes=False, dropout=0.0, mean=2.0, scale=3.0)
    x = TextModel(backbone, head).eval().pooled(tokens([4, 7]))
    space = x.double()
    if geometry == "lorentz":  # distance from the origin, in the direction of the space coordinates
        space = space[:, 1:]
        norm = space.norm(dim=1, keepdim=True)
        space = space / norm * k**0.5 * torch.asinh(norm / k**0.5)
    want = 2.0 + 3.0 * (space @ head.classifier.weight.double().T + head.classifier.bias.double())
    torch.testing.assert_close(head(x).double(), want, rtol=1e-5, atol=1e-5)


def test_dropout_leaves_points_on_the_hyperboloid() -> None:
    torch.manual_seed(0)
    backbone = LorentzModel(LorentzConfig(vocab_size=20, hidden_size=17, num_hidden_layers=1))
    head = LorentzHead(backbone, 2, classes=True, dropout=0.5).train()
    seen: list[torch.Tensor] = []
    head.classifier.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    head(backbone.manifold.lift(torch.randn(6, 16)))
    time, space = seen[0][:, 0].double(), seen[0][:, 1:].double()
    torch.testing.assert_close(time**2 - (space**2).sum(1), torch.ones(6).double(), rtol=1e-5, atol=1e-5)
    assert 0.2 < (space == 0).double().mean() < 0.8


def test_a_backbone_has_no_pooling_layer_of_its_own(backbones: dict[str, str]) -> None:
    backbone = load_backbone(ModelConfig(name=backbones["bert"]))
    assert backbone.pooler is None and longest(backbone) == 32
    assert load_backbone(ModelConfig(name=backbones["bert"], random=True)).pooler is None
    again = load_backbone(ModelConfig(name=backbones["bert"]))
    assert fingerprint(again) == fingerprint(backbone)
    whole = AutoModel.from_pretrained(backbones["bert"], add_pooling_layer=False)
    assert fingerprint(whole) == fingerprint(backbone)  # so that a stored delta fits it


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "t5", "gpt2"])
def test_other_families_of_backbones(kind: str, tmp_path: Path) -> None:
    import transformers as hf

    torch.manual_seed(0)
    made: hf.PreTrainedModel = {
        "roberta": lambda: hf.RobertaModel(
            hf.RobertaConfig(
                vocab_size=20,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                max_position_embeddings=34,
                pad_token_id=1,
            )
        ),
        "distilbert": lambda: hf.DistilBertModel(
            hf.DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=16)
        ),
        "t5": lambda: hf.T5Model(hf.T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
        "gpt2": lambda: hf.GPT2Model(hf.GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2)),
    }[kind]()
    made.save_pretrained(tmp_path)
    backbone = load_backbone(ModelConfig(name=str(tmp_path)))
    model = TextModel(backbone, EuclideanHead(backbone.config.hidden_size, 2, dropout=0.0)).eval()
    batch = tokens([3, 8])
    alone = model({name: value[:1, :3] for name, value in batch.items()})
    torch.testing.assert_close(model(batch)[:1], alone, rtol=1e-4, atol=1e-5)
    if kind == "roberta":
        assert longest(backbone) == 32
    model(batch).sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == []


def test_scores_against_their_definitions() -> None:
    draw = np.random.default_rng(0)
    label, output = draw.integers(0, 2, 50), draw.normal(size=(50, 2))
    found = output[:, 1] > output[:, 0]
    tp, fp, fn, tn = (
        np.sum(found & (label == 1)),
        np.sum(found & (label == 0)),
        np.sum(~found & (label == 1)),
        np.sum(~found & (label == 0)),
    )
    got = scores("classification", label, output, 2)
    assert got["accuracy"] == pytest.approx((tp + tn) / 50) and got["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    mcc = (tp * tn - fp * fn) / np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    assert got["mcc"] == pytest.approx(mcc)
    label, output = draw.integers(0, 3, 60), draw.normal(size=(60, 3))
    f1 = []
    for c in range(3):
        hit, said, true = (
            np.sum((output.argmax(1) == c) & (label == c)),
            np.sum(output.argmax(1) == c),
            np.sum(label == c),
        )
        f1.append(2 * hit / (said + true))
    assert scores("classification", label, output, 3)["f1"] == pytest.approx(np.mean(f1))
    x, y = draw.normal(size=40), draw.normal(size=40).round(1)
    ranks = [np.array([(v < value).sum() + ((v == value).sum() + 1) / 2 for value in v]) for v in (x, y)]
    got = scores("regression", y, x[:, None], 0)
    assert got["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert got["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_constant_and_non_finite_predictions() -> None:
    assert scores("regression", np.arange(4.0), np.ones((4, 1)), 0) == {"pearson": 0.0, "spearman": 0.0}
    constant = scores("classification", np.array([0, 1, 1]), np.array([[1.0, 0.0]] * 3), 2)
    assert constant["f1"] == constant["mcc"] == 0.0 and constant["accuracy"] == pytest.approx(1 / 3)
    assert all(np.isnan(v) for v in scores("classification", np.array([0]), np.array([[np.nan, 0.0]]), 2).values())


def test_broken_weights_are_one_line(backbones: dict[str, str], tmp_path: Path) -> None:
    broken = shutil.copytree(backbones["bert"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UsageError, match=r"broken: transformers cannot load it: .*eader"):
        load_backbone(ModelConfig(name=str(broken)))
