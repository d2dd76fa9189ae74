"""Solutions, subspaces and points from the command's functions, on toy sets and tiny backbones."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import deltas
from deltas.subspace import IntrinsicSubspace, pca_subspace, random_subspace
from tasks import run
from tasks.errors import RunError, UsageError
from tasks.folder import locked
from tasks.subspace.command import study_subspace
from tasks.subspace.reading import Readers, read_solved
from tasks.text.intrinsic import read_solution
from tasks.text.labels import LabelHead

from ..conftest import BAD, FILLERS, GOOD, make_backbone

SETS = {
    "one": (GOOD, BAD, "good", "bad"),
    "two": (GOOD[:2], BAD[:2], "great", "poor"),
    "three": (("cast",), ("story",), "cast", "story"),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of three sets of two classes, of which a word decides."""
    root, found = tmp_path_factory.mktemp("sets"), {}
    for place, (name, (yes, no, first, second)) in enumerate(SETS.items()):
        draw = random.Random(place)
        (root / name).mkdir()
        for split, count in (("train", 120), ("valid", 30), ("test", 60)):
            rows = []
            for i in range(count):
                words = draw.choices([w for w in FILLERS if w not in ("cast", "story")], k=draw.randint(4, 8))
                words.insert(draw.randint(0, len(words)), draw.choice(yes if i % 2 else no))
                rows.append("\t".join((" ".join(words), first if i % 2 else second)))
            (root / name / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        found[name] = str(root / name)
    return found


def options(sets: dict[str, str], model: str, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "data": f"{sets['one']},{sets['three']}",
        "unseen": sets["two"],
        "deltas": "LoRA,BitFit",
        "dims": "2",
        "steps": 12,
        "fit_steps": 6,
        "point_steps": 6,
        "grid": 3,
        "planes": 1,
        "landscape_rows": 20,
        "max_train": None,
        "max_length": 32,
        **more,
    }


def solve(data: str, model: str, out: Path, delta: str = "LoRA", **more: Any) -> Any:
    train = {"max_steps": 30, "eval_steps": 30, "batch_size": 16, "lr": 1e-2}
    told = {
        "data": data,
        "model": {"name": model, "head": "words"},
        "delta": {"name": delta},
        "train": train,
        "max_length": 32,
        **more,
    }
    return run("text", out=out, quiet=True, **told)


@pytest.mark.parametrize("kind", ["bert", "lorentz", "twin"])
@pytest.mark.parametrize("head", ["words", "means"])
def test_classes_are_read_through_frozen_label_vectors(
    kind: str, head: str, sets: dict[str, str], backbones: dict[str, str], tmp_path: Path
) -> None:
    train = {"max_steps": 100, "eval_steps": 50, "batch_size": 16, "lr": 3e-3}
    told: dict[str, Any] = {
        "data": sets["one"],
        "model": {"name": backbones[kind], "head": head},
        "quiet": True,
        "max_length": 32,
    }
    result = run("text", out=tmp_path / "run", train=train, **told)
    assert result.metrics["test"]["accuracy"] > 0.9
    assert not list(result.folder.rglob("solution.safetensors"))  # of deltas alone


def test_a_solution_is_stored_with_its_start(sets: dict[str, str], backbones: dict[str, str], tmp_path: Path) -> None:
    result = solve(sets["one"], backbones["bert"], tmp_path / "run")
    vector, start = read_solution(result.folder)
    assert start is not None
    assert result.values["params"]["trainable"] == vector.numel() == start.numel()
    assert float(vector.norm()) > 0


def test_label_vectors_of_words_are_the_states_of_the_names(sets: dict[str, str], backbones: dict[str, str]) -> None:
    from transformers import AutoModel, AutoTokenizer

    from tasks.api import configure
    from tasks.data.load import load
    from tasks.text.task import TextTask

    config = configure(
        "text", overrides={"data": sets["one"], "model": {"name": backbones["bert"], "head": "words"}, "max_length": 32}
    )
    data = load(sets["one"], kind="text")
    model: Any = TextTask(config).build(config, data).eval()
    bert, tokenizer = (
        AutoModel.from_pretrained(backbones["bert"]).eval(),
        AutoTokenizer.from_pretrained(backbones["bert"]),
    )

    def state(text: str) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        return found

    names = torch.stack([state(name) for name in data.labels])
    vectors = torch.nn.functional.normalize(names - names.mean(0), dim=1)
    assert torch.allclose(model.head.vectors, vectors, atol=1e-5)
    centre = torch.stack([state(text) for text in data.first["train"]]).mean(0)
    assert torch.allclose(model.head.centre, centre, atol=1e-5)
    one = torch.nn.functional.normalize(state("the good film") - centre, dim=0)
    logits = model(dict(tokenizer("the good film", return_tensors="pt", return_token_type_ids=True)))
    assert torch.allclose(logits[0], 10 * vectors @ one, atol=1e-4)


def test_the_centre_is_of_texts_from_all_of_an_ordered_set(backbones: dict[str, str], tmp_path: Path) -> None:
    from tasks.api import configure
    from tasks.data.load import load
    from tasks.text.task import TextTask

    (tmp_path / "ordered").mkdir()
    for split, count in (("train", 300), ("valid", 20), ("test", 20)):
        rows = [
            f"{word} film {split}\t{label}"
            for word, label in (("good", "great"), ("bad", "poor"))
            for _ in range(count)
        ]
        (tmp_path / "ordered" / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    told = {"data": str(tmp_path / "ordered"), "model": {"name": backbones["bert"], "head": "words"}, "max_length": 32}
    data = load(told["data"], kind="text")
    task = TextTask(configure("text", overrides=told))
    model: Any = task.build(task.config, data).eval()
    with torch.no_grad():  # 300 copies of each text
        good, bad = model.pooled(task.tokens(data, "train").batch(np.array([0, 300])))
    assert torch.allclose(model.head.centre, (good + bad) / 2, atol=1e-5)


def test_a_point_is_trained_and_stored(sets: dict[str, str], backbones: dict[str, str], tmp_path: Path) -> None:
    for name in ("one", "three"):
        solve(sets[name], backbones["bert"], tmp_path / "solutions" / name / "LoRA")
    solved = read_solved(tmp_path / "solutions", ["one", "three"], ["LoRA"])
    space = pca_subspace(solved.vectors, 2, starts=solved.starts)
    space.save(tmp_path / "space")
    train = {"max_steps": 40, "eval_steps": 20, "batch_size": 16, "lr": 0.1}
    told: dict[str, Any] = {
        "data": sets["two"],
        "model": {"name": backbones["bert"], "head": "words"},
        "delta": {"name": "LoRA"},
        "subspace": {"folder": str(tmp_path / "space")},
        "train": train,
        "max_length": 32,
        "quiet": True,
    }
    result = run(
        "text", out=tmp_path / "point", seed=7, **told
    )  # another seed than the solutions': the start is the space's
    assert result.values["params"]["trainable"] == 2
    document = json.loads((result.folder / "delta" / "point.json").read_text())
    from transformers import AutoModel

    handle = deltas.load(
        AutoModel.from_pretrained(backbones["bert"], add_pooling_layer=False).eval(), result.folder / "delta"
    )
    values = torch.cat(
        [handle.parts()[key].detach().reshape(-1) for key in sorted(handle.parts(), key=lambda k: k.split(":"))]
    )
    expected = solved.starts["LoRA"] + space.decode("LoRA", torch.tensor(document["point"]))
    assert torch.allclose(values, expected.detach(), atol=1e-6)
    random_subspace(solved.vectors, 3, starts=solved.starts).save(tmp_path / "space")
    with pytest.raises(UsageError, match=r"the subspace .* has changed"):
        run("text", out=tmp_path / "point", seed=7, **told)
    (tmp_path / "point" / "result.json").unlink()  # nor does a run that was stopped go on in another space
    with pytest.raises(UsageError, match=r"the subspace .* has changed"):
        run("text", out=tmp_path / "point", seed=7, **told)
    with pytest.raises(UsageError, match="parameters"):
        run("text", out=tmp_path / "other", **{**told, "delta": {"name": "LoRA", "options": {"rank": 2}}})
    with pytest.raises(UsageError, match="head words"):
        run("text", out=tmp_path / "third", **{**told, "model": {"name": backbones["bert"]}})
    with pytest.raises(UsageError, match="LoRA"):
        run("text", out=tmp_path / "fourth", **{**told, "delta": {"name": "BitFit"}})


def test_a_study_makes_tables_and_goes_on(sets: dict[str, str], backbones: dict[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    sets = {name: str(shutil.copytree(folder, tmp_path / name)) for name, folder in sets.items()}
    result = study_subspace(seeds=[0, 1], runs=tmp_path, say=said.append, **options(sets, backbones["bert"]))
    kinds = {"joint", "random", "pca", "shuffled"}
    assert {cell.kind for cell in result.cells} == kinds
    assert len(result.cells) == 2 * len(kinds) * 2 * 2
    page = (result.folder / "subspace.html").read_text(encoding="utf-8")
    assert "<svg" in page and "joint" in page
    with (result.folder / "subspace.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(result.cells)
    space = IntrinsicSubspace.load(result.folder / "seed0" / "subspaces" / "joint-2" / "subspace")
    assert space.sizes == {m.label: m.parameters for m in result.methods}
    # What is measured is not measured again; what was cut off is.
    ledger = result.folder / "seed0" / "measured.jsonl"
    text = ledger.read_text()
    ledger.write_text(text[:-40])
    again = study_subspace(seeds=[0, 1], runs=tmp_path, **options(sets, backbones["bert"]))
    assert again.cells == result.cells
    assert again.planes == result.planes
    assert ledger.read_text() == text
    with locked(result.folder, "wait"), pytest.raises(RunError, match="another process is running"):
        study_subspace(seeds=[0], runs=tmp_path, **options(sets, backbones["bert"]))
    for name in ("one", "three"):
        with (Path(sets[name]) / "valid.tsv").open("a") as file:
            file.write(f"one more\t{SETS[name][2]}\n")
    with pytest.raises(UsageError, match=r"one and three changed since .* of which 8 solutions are of the old content"):
        study_subspace(seeds=[0], runs=tmp_path, **options(sets, backbones["bert"]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dims": "2,5000"}, "BitFit has 608 parameters"),
        ({"own_projectors": "Lora=block"}, "'LoRA'"),
        ({"deltas": "LoRA,HeadOnly"}, "no parameters of its own"),
        ({"deltas": "LoRA,SparseAdapter"}, "anew on every set"),
        ({"unseen": "CRR"}, "CRR"),
        ({"unseen": "{pairs}"}, "regression"),
        ({"unseen": "{alike}"}, "have the label"),
        ({"unseen": "{other}/one"}, "two sets are called one"),
    ],
)
def test_what_cannot_end_well_is_said_before_anything_is_trained(
    more: dict[str, Any], message: str, sets: dict[str, str], backbones: dict[str, str], toy_pairs: Path, tmp_path: Path
) -> None:
    (tmp_path / "alike").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "alike" / f"{split}.tsv").write_text("".join(f"good {split} {w}\tyes\n" for w in FILLERS))
    places = {"pairs": toy_pairs, "alike": tmp_path / "alike", "other": tmp_path}
    told = options(sets, backbones["bert"], **{key: value.format(**places) for key, value in more.items()})
    with pytest.raises(UsageError, match=message):
        study_subspace(runs=tmp_path / "runs", **told)
    assert not (tmp_path / "runs").exists()


def test_a_study_of_one_method_that_falls_apart_at_one_rate(
    sets: dict[str, str], backbones: dict[str, str], tmp_path: Path
) -> None:
    threads: list[int] = []

    def say(line: str) -> None:
        if "point" in line:
            threads.append(torch.get_num_threads())

    short = {"steps": 8, "fit_steps": 4, "point_steps": 4, "controls": "random,random", "threads": 1}
    told = options(sets, backbones["bert"], deltas="LoRA", point_lr="1e37,0.1", **short)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        result = study_subspace(seeds=[0, 0], runs=tmp_path, say=say, **told)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}
    assert len(result.cells) == 2
    assert result.planes == []  # no plane goes through one point
    rows = [json.loads(line) for line in (result.folder / "seed0" / "measured.jsonl").read_text().splitlines()]
    assert {row["value"]["lr"] for row in rows if row["key"].startswith("point")} == {0.1}
    # Points of solutions that were made again are measured again, and their space is not taken for that of these.
    folder = result.folder / "seed0"
    shutil.rmtree(folder / "solutions" / "one")
    solve(sets["one"], backbones["bert"], tmp_path / "other", train={"max_steps": 9, "eval_steps": 9, "lr": 0.01})
    shutil.copy(tmp_path / "other" / "delta" / "solution.safetensors", tmp_path / "solution.safetensors")
    study_subspace(runs=tmp_path, **told)
    shutil.copy(tmp_path / "solution.safetensors", folder / "solutions" / "one" / "LoRA" / "delta")
    with pytest.raises(UsageError, match="the solution one/LoRA has changed"):
        study_subspace(runs=tmp_path, **told)
    shutil.rmtree(folder / "subspaces")
    again = study_subspace(runs=tmp_path, **told)
    rows = [json.loads(line) for line in (folder / "measured.jsonl").read_text().splitlines()]
    assert sum(row["key"].startswith("point joint") for row in rows) == 2
    assert len(again.cells) == 2


@pytest.mark.parametrize("name", ["LoRA+BitFit", "LoRA"])
def test_readers_are_what_was_trained(
    name: str, sets: dict[str, str], backbones: dict[str, str], tmp_path: Path
) -> None:
    from transformers import AutoModel

    from tasks.data.load import load

    result = solve(sets["one"], backbones["bert"], tmp_path / "one" / name, name)
    torch.manual_seed(99)
    solved = read_solved(tmp_path, ["one"], [name])
    readers, data = Readers(solved), load(sets["one"], kind="text")
    readers.add(data)
    readers.attach()
    bert = AutoModel.from_pretrained(backbones["bert"], add_pooling_layer=False).eval()
    deltas.load(bert, result.folder / "delta")
    batch = readers.batch(data, "test", np.arange(20))
    given = next(iter(batch.values()))
    with torch.no_grad(), readers.handles[name].applied(solved.vectors["one"][name]):
        found = readers.eval().model(name, "one").pooled(given)
        wanted = bert(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
    weight = given["attention_mask"].unsqueeze(-1).float()
    assert torch.allclose(found, (wanted * weight).sum(1) / weight.sum(1), atol=1e-5)
    path = result.folder / "delta" / "solution.safetensors"
    save_file({"solution": load_file(path)["solution"]}, path)
    readers = Readers(read_solved(tmp_path, ["one"], [name]))
    readers.add(data)
    with pytest.raises(UsageError, match="lack the start"):
        readers.attach()


def test_every_set_is_read_with_the_trained_curvature(sets: dict[str, str], tmp_path: Path) -> None:
    from tasks.data.load import load

    backbone = str(make_backbone(tmp_path / "lorentz", "lorentz", learnable_k=True))
    solve(sets["one"], backbone, tmp_path / "one" / "FullFineTuning", "FullFineTuning")
    readers = Readers(read_solved(tmp_path, ["one"], ["FullFineTuning"]))
    for name in ("one", "three"):
        readers.add(load(sets[name], kind="text"))
    readers.attach()
    own = next(iter(readers.backbones.values()))
    for model in readers.models.values():
        assert model.points is not None
        assert isinstance(model.head, LabelHead)
        assert model.backbone is own
        assert own.manifold is model.points.manifold is model.head.flat.manifold


def test_solutions_of_another_backbone_are_refused(
    sets: dict[str, str], backbones: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(backbones["bert"], tmp_path / "bert")
    solve(sets["one"], str(tmp_path / "bert"), tmp_path / "one" / "LoRA")
    read_solved(tmp_path, ["one"], ["LoRA"])
    path = tmp_path / "bert" / "model.safetensors"
    save_file({name: 2 * t for name, t in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"the backbone .* has changed since"):
        read_solved(tmp_path, ["one"], ["LoRA"])


def test_a_study_across_geometries_with_fine_tuning(
    sets: dict[str, str], backbones: dict[str, str], tmp_path: Path
) -> None:
    told = options(
        sets, f"{backbones['lorentz']},{backbones['twin']}", deltas="BitFit,FullFineTuning", controls="random", grid=0
    )
    result = study_subspace(runs=tmp_path, **told)
    labels = ["lorentz_BitFit", "lorentz_FullFineTuning", "twin_BitFit", "twin_FullFineTuning"]
    assert [m.label for m in result.methods] == labels
    space = IntrinsicSubspace.load(result.folder / "seed0" / "subspaces" / "joint-2" / "subspace")
    assert [space.codec(label).kind for label in labels] == ["dense", "fastfood", "dense", "fastfood"]
    assert {(c.via, c.to) for c in result.cells if c.kind == "joint"} == {(a, b) for a in labels for b in labels}


def test_a_killed_approximation_goes_on_to_the_same_space(
    sets: dict[str, str], backbones: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "three"):
        for delta in ("LoRA", "BitFit"):
            solve(sets[name], backbones["bert"], tmp_path / "solutions" / name / delta, delta)
    told: dict[str, Any] = {
        "data": f"{sets['one']},{sets['three']}",
        "solutions": str(tmp_path / "solutions"),
        "methods": "LoRA,BitFit",
        "dim": 3,
        "train": {"max_steps": 12, "eval_steps": 4, "batch_size": 8},
        "quiet": True,
    }
    whole = run("subspace-fit", out=tmp_path / "whole", **told)
    from tasks.subspace.fit import SubspaceFit

    step, calls = SubspaceFit.step, []

    def dying(self: Any, model: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return step(self, model, batch)

    monkeypatch.setattr(SubspaceFit, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        run("subspace-fit", out=tmp_path / "killed", **told)
    monkeypatch.undo()
    resumed = run("subspace-fit", out=tmp_path / "killed", **told)
    files = [r.folder / "subspace" / "subspace.safetensors" for r in (whole, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole.metrics == resumed.metrics


def test_solutions_that_do_not_belong_together(sets: dict[str, str], backbones: dict[str, str], tmp_path: Path) -> None:
    solve(sets["one"], backbones["bert"], tmp_path / "one" / "LoRA", seed=0)
    solve(sets["three"], backbones["bert"], tmp_path / "three" / "LoRA", seed=1)
    with pytest.raises(UsageError, match="share a seed"):
        read_solved(tmp_path, ["one", "three"], ["LoRA"])
    with pytest.raises(UsageError, match="no finished run"):
        read_solved(tmp_path, ["one", "two"], ["LoRA"])


def test_rows_of_seen_sets_are_left_out(tmp_path: Path) -> None:
    from tasks.data.load import load

    lines = {
        "a": {"train": ["The film!\tx", "b c\ty"], "valid": ["d\tx"], "test": ["e\ty"]},
        "b": {"train": ["the  film\tx", "f\ty", "g\tx"], "valid": ["G.\tx", "h\ty"], "test": ["i\tx", "H\ty", "e\tx"]},
    }
    for name, splits in lines.items():
        (tmp_path / name).mkdir()
        for split, rows in splits.items():
            (tmp_path / name / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    data = load(f"{tmp_path}/b", kind="text", apart_from=f"{tmp_path}/a")
    assert data.first == {"train": ["f", "g"], "valid": ["h"], "test": ["i"]}
    assert [len(data.label[split]) for split in ("train", "valid", "test")] == [2, 1, 1]
    assert "1 train, 1 valid, 2 test rows of b left out" in data.warnings[-1]
    for split in ("train", "valid", "test"):  # signs alone are a text too, and no text is not in every set
        (tmp_path / "a" / f"{split}.tsv").write_text("!!!\tx\n...\ty\n")
    (tmp_path / "b" / "train.tsv").write_text("...\tx\nf\ty\n?\tx\n")
    data = load(f"{tmp_path}/b", kind="text", apart_from=f"{tmp_path}/a")
    assert data.first["train"] == ["f", "?"]
    with pytest.raises(UsageError, match="nothing is left"):
        load(f"{tmp_path}/a", kind="text", apart_from=f"{tmp_path}/a")
