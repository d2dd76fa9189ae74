"""Every method on the real weights of MiniLM, whose scales and padding no tiny random backbone has."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

import deltas
from tasks.encoder import encoder_folder
from tasks.errors import UsageError
from tasks.text.backbone import load_backbone, load_tokenizer
from tasks.text.config import ModelConfig

from .test_conformance import CASES

pytestmark = pytest.mark.slow

# Methods with their defaults, as users have them, and the variants of the suite; HeadOnly trains nothing without a head.
SPECS = {name: cls() for name, cls in deltas.DELTAS.items() if name != "HeadOnly"}
SPECS |= {name: spec for name, spec in CASES.items() if name not in deltas.DELTAS}
TEXTS = ["a gripping, funny and well acted film", "dull", "the plot of it was not what anyone had hoped for, or feared"]


@pytest.fixture(scope="module")
def minilm() -> Any:
    """The encoder, which no test changes."""
    try:
        encoder_folder()
    except UsageError as error:
        pytest.skip(str(error))
    return load_backbone(ModelConfig(name="minilm")).eval()


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    """Texts of unlike lengths, so that there is padding."""
    return dict(load_tokenizer("minilm")(TEXTS, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("case", SPECS)
def test_check(case: str, minilm: Any, batch: dict[str, torch.Tensor]) -> None:
    """What ``check`` tries holds."""
    report = deltas.check(minilm, SPECS[case], batch)
    assert report, str(report)
    assert len(report.checks) >= 9  # none was left out


@pytest.mark.parametrize(
    "case", [case for case in SPECS if "UniPELT" not in case]
)  # whose gates see padding, as published
def test_padding(case: str, minilm: Any, batch: dict[str, torch.Tensor]) -> None:
    """A tuned model gives a text the same states alone and beside a longer one."""
    model = deepcopy(minilm)
    handle = deltas.attach(model, SPECS[case])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
        together = model(**batch).last_hidden_state
        length = int(batch["attention_mask"][1].sum())
        alone = model(**{name: value[1:2, :length] for name, value in batch.items()}).last_hidden_state
    torch.testing.assert_close(together[1:2, :length], alone, atol=1e-4, rtol=1e-4)
