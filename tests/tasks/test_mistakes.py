"""Plausible mistakes around a run: nothing of the user's is lost, and what is meant is what is done."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tasks
from tasks.api import configure, find_recipe
from tasks.data.edges import parse_edge_file
from tasks.data.hierarchy import hierarchy_from_edges, own_hierarchy
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.runner import _Run

FAST: dict[str, Any] = {"epochs": 2, "batch_size": 32, "eval_every": 1}


def run(data: Path | str, out: Path, **more: Any) -> tasks.Result:
    return tasks.run("kg", data=data, out=out, quiet=True, model={"dim": 5}, train=FAST, **more)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "metrics.jsonl", "notes/thesis.tex", "checkpoints/step-00000001/x"]
)
def test_a_folder_that_is_no_run_is_left_alone(name: str, small_graph: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(UsageError, match=r"is no run folder and holds .*; choose another --out"):
        run(small_graph, tmp_path / "mine")
    assert file.read_text() == "mine"


def test_a_recipe_that_is_no_file_is_no_other_recipe() -> None:
    for recipe in ("/nowhere/wn18rr-32.yaml", "./wn18rr-32.yaml", "graph/wn18rr-32", "mine/wn18rr-32"):
        with pytest.raises(UsageError, match="no such file"):
            find_recipe("kg", recipe)
    names = ("kg/wn18rr-32", "wn18rr-32", "wn18rr-32.yaml", "kg/wn18rr-32.yaml")
    assert len({find_recipe("kg", name) for name in names}) == 1


def test_a_section_given_by_its_first_field_keeps_the_rest() -> None:
    for told in ({"overrides": {"model": "mure"}}, {"args": ["--model", "mure"]}):
        config = configure("kg", recipe="kg/wn18rr-256", **told)  # type: ignore[arg-type]
        assert (config.model.scorer, config.model.dim) == ("mure", 256)


def test_short_and_long_forms_meet_in_any_order(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: lorentz-small\ndelta: LoRA\ntrain:\n#  lr: 0.1\n")
    config = configure("text", recipe=recipe, overrides={"model": {"pooling": "first"}, "delta": {"rank": 3}})
    assert (config.model.name, config.model.pooling) == ("lorentz-small", "first")
    assert (config.delta.name, config.delta.options) == ("LoRA", {"rank": 3})
    assert config.train == configure("text").train
    assert configure("text", overrides={"delta": None}).delta.name is None


@pytest.mark.parametrize(
    ("task", "overrides", "option"),
    [
        ("kg", {"train": {"lr": None}}, "--train.lr"),
        ("kg", {"model": {"dim": None}}, "--model.dim"),
        ("graph", {"data": None}, "--data"),
        ("text", {"train": {"epochs": None}}, "--train.epochs"),
    ],
)
def test_null_is_no_number(task: str, overrides: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError, match=f"{option}: expected .*, got (null|None)"):
        configure(task, overrides=overrides)


def test_options_of_a_delta_as_one_mapping() -> None:
    config = configure("text", args=["--delta", "LoRA", "--delta.options", "{rank: 3}", "--delta.alpha", "6"])
    assert config.delta.options == {"rank": 3, "alpha": 6}
    with pytest.raises(UsageError, match="expected a mapping such as"):
        configure("text", args=["--delta", "LoRA", "--delta.options", "3"])


def stopped(data: Path | str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = _Run.update

    def stop(run: _Run) -> None:
        if run.steps == run.batches + 1:
            raise KeyboardInterrupt
        update(run)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            run(data, out, checkpoint_seconds=0.0)


def test_a_stopped_run_goes_on_from_elsewhere(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(small_graph, tmp_path / "whole")
    (tmp_path / "other").mkdir()
    ways: list[tuple[str, Any]] = [
        ("resume", lambda out: tasks.resume(out, quiet=True)),
        ("another spelling", lambda out: run(f"{small_graph}/", out)),
        ("moved", lambda out: tasks.resume(out, data=tmp_path / "moved" / "numbers", quiet=True)),
    ]
    for name, go_on in ways:
        out = tmp_path / name
        monkeypatch.chdir(tmp_path)
        stopped("./numbers", out, monkeypatch)
        monkeypatch.chdir(tmp_path / "other")
        if name == "moved":
            shutil.move(small_graph, tmp_path / "moved" / "numbers")
            with pytest.raises(UsageError, match="no folder"):
                tasks.resume(out, quiet=True)
        again = go_on(out)
        assert (again.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
        steps = [row["step"] for row in tasks.folder.RunFolder(out).rows("timing.jsonl")]
        assert steps == sorted(set(steps))


def test_negatives_are_part_of_the_data(small_graph: Path, tmp_path: Path) -> None:
    plain = load(str(small_graph)).sha256
    (small_graph / "test_negatives.txt").write_text("n1\tnext\tn3\n")
    (small_graph / "valid_negatives.txt").write_text("n1\tnext\tn4\n")
    one = load(str(small_graph)).sha256
    (small_graph / "test_negatives.txt").write_text("n1\tnext\tn5\n")
    assert len({plain, one, load(str(small_graph)).sha256}) == 3


def test_blanks_around_a_name_make_no_other_entity(small_graph: Path) -> None:
    before = load(str(small_graph)).entities
    text = (small_graph / "test.txt").read_text().replace("\n", " \n")
    (small_graph / "test.txt").write_text(text)
    assert load(str(small_graph)).entities == before
    (small_graph / "test.tsv").write_text(text)
    with pytest.raises(UsageError, match=r"holds test\.txt and test\.tsv; leave one test file"):
        load(str(small_graph))


def test_a_long_cycle_is_found_without_its_closure() -> None:
    nodes = [f"n{i:05d}" for i in range(20_000)]  # whose closure has 400 million pairs
    pairs = list(zip(nodes, [*nodes[1:], nodes[0]], strict=True))
    with pytest.raises(UsageError, match="20000 nodes are their own ancestors, the first is 'n00000'"):
        hierarchy_from_edges("ring", pairs)
    with pytest.raises(UsageError, match="1 nodes are their own ancestors, the first is 'b'"):
        hierarchy_from_edges("loop", [("a", "b"), ("b", "b")])


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edges.tsv.gz"
    content = bytearray(gzip.compress(b"dog\tanimal\ncat\tanimal\n" * 50))
    content[15] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UsageError, match="no complete gzip file"):
        own_hierarchy(path)


def test_names_that_begin_like_comments_are_names() -> None:
    found = parse_edge_file("# from\tto\n#cats\t#animals\na\t#cats\n%41\ta\n", "edges.tsv")
    assert found.nodes == ["#animals", "#cats", "%41", "a"]
    found = parse_edge_file("%%MatrixMarket of\n% two\n#from\tto\na\tb\nb\tc\n", "edges.tsv")
    assert found.nodes == ["a", "b", "c"]


def test_data_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which the task text takes"):
        tasks.run("text", data="taxonomy", apart_from="./numbers", out=tmp_path / "out", quiet=True)
    file = tmp_path / "three.tsv"
    file.write_text("a\tb\tc\n")
    with pytest.raises(UsageError, match="is a file, expected a folder with train, valid and test files of a text"):
        tasks.run("text", data=file, out=tmp_path / "out", quiet=True)


def graph_folder(folder: Path, features: np.ndarray, labels: np.ndarray) -> Path:
    folder.mkdir()
    count = len(labels)
    (folder / "edges.csv").write_text("".join(f"{i},{(i + 1) % count}\n{i},{(i + 7) % count}\n" for i in range(count)))
    np.save(folder / "features.npy", features)
    np.save(folder / "labels.npy", labels)
    return folder


def test_features_below_0_are_warned_of_where_a_sum_divides_them(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    signed = graph_folder(tmp_path / "signed", draw.normal(size=(60, 5)), draw.integers(0, 2, 60))
    positive = graph_folder(tmp_path / "positive", draw.random((60, 5)), draw.integers(0, 2, 60))
    fast = {"epochs": 2, "eval_every": 1}
    warned = {}
    for data, given in ((signed, True), (signed, False), (positive, True)):
        out = tmp_path / f"{data.name}-{given}"
        result = tasks.run("graph", data=data, problem="nc", out=out, quiet=True, train=fast, normalise_features=given)
        warned[data.name, given] = any("values below 0" in text for text in result.values["warnings"])
    assert warned == {("signed", True): True, ("signed", False): False, ("positive", True): False}
    none = graph_folder(tmp_path / "none", draw.random((60, 5)), np.full(60, -1))
    with pytest.raises(UsageError, match="no node of none has a label"):
        tasks.run("graph", data=none, problem="nc", out=tmp_path / "out", quiet=True, train=fast)


@pytest.mark.parametrize("encoder", ["hgcn", "gcn"])
def test_graphs_train_in_bfloat16(encoder: str, tmp_path: Path) -> None:
    data = graph_folder(tmp_path / "own", np.random.default_rng(0).random((40, 90)), np.arange(40) % 2)
    train = {"epochs": 2, "eval_every": 1, "precision": "bf16"}
    result = tasks.run(
        "graph", data=data, problem="nc", out=tmp_path / "out", quiet=True, train=train, model={"encoder": encoder}
    )
    assert 0.0 <= result.metrics["test"]["f1"] <= 1.0


def test_masks_leave_no_batch_without_a_target() -> None:
    from tasks.pretrain.masking import IGNORED, SPECIAL, mask_tokens

    ids = torch.full((1, 8), len(SPECIAL) + 3)
    ids[:, 0] = 0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        _, labels = mask_tokens(ids, share=0.001, vocabulary=50, generator=generator)
        assert int((labels != IGNORED).sum()) == 1 and labels[0, 0] == IGNORED


def test_an_epoch_is_made_once_and_is_the_same_however_it_is_asked() -> None:
    from tasks.text.rows import epoch_batch, epoch_batches

    lengths, other = np.arange(100) % 17, np.arange(100)[::-1] % 13
    for key, own in (((0, 1), lengths), ((0, 1), other), ((0, 1), None), ((0, 2), lengths), ((0, 1), lengths)):
        wanted = epoch_batches(100, 8, np.random.default_rng(list(key)), own)
        for index in (5, 0, 12):
            assert np.array_equal(epoch_batch(index, 100, 8, key, own), wanted[index])


def test_a_seed_that_fails_does_not_keep_the_others_from_running(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tasks.cli import main
    from tasks.errors import RunError

    update = _Run.update

    def fails(run: _Run) -> None:
        if run.seed == 0:
            raise RunError("it fell apart")
        update(run)

    monkeypatch.setattr(_Run, "update", fails)
    words = ["run", "kg", "--data", str(small_graph), "--model.dim", "5", "--train.epochs", "2", "--quiet"]
    assert main([*words, "--seeds", "0,1", "--runs", str(tmp_path / "runs")]) == 1
    told = capsys.readouterr()
    assert "seed 0: it fell apart" in told.err and "1 of 2 seeds failed, as said above: 0" in told.err
    assert len(list((tmp_path / "runs").glob("*/seed1/result.json"))) == 1 and "seed1" in told.out
