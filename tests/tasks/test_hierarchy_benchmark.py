"""The benchmark of hierarchies: equal trials for every geometry, parts of the result file that stay, a long run resumed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import tasks
from benchmarks import common, hierarchy, hierarchy_nouns
from tasks import Result
from tasks.errors import RunError

LORENTZ, TWIN, FLAT = hierarchy.GEOMETRIES


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> dict[str, Any]:
    """Run the command with its results in a folder; what it wrote."""
    monkeypatch.setattr(common, "RESULTS", folder)
    monkeypatch.setattr(hierarchy, "RESULTS", folder)
    monkeypatch.setattr(sys, "argv", ["hierarchy", "--runs", str(folder / "runs"), *words])
    hierarchy.main()
    found: dict[str, Any] = json.loads((folder / "hierarchy.json").read_text())
    return found


def test_every_geometry_has_the_same_trials_and_the_best_gets_fresh_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def run(task: str, *, seed: int, model: dict[str, Any], train: dict[str, Any], **rest: Any) -> Result:
        asked.append({"seed": seed, **model, **train, **rest["negatives"]})
        if train["lr"] == 10:
            raise RunError("not finite")
        score = 0.5 * (model["geometry"] == "lorentz") + 0.01 * (train["lr"] == 3)
        score += 0.001 * seed if model.get("k") == 1 else 0.0005 * seed**2
        score -= 0.002 * seed * (model["geometry"] == "euclidean")
        score += 0.1 * (model["distance"] == "geodesic")
        metrics = {split: {"map": score, "mean_rank": 2.0} for split in ("valid", "test")}
        return Result(tmp_path, {"metrics": metrics, "seconds": {"train": 7.0}})

    monkeypatch.setattr(hierarchy, "run", run)
    found = measured(monkeypatch, tmp_path, "--parts", "normal", "--seeds", "0,1,2")
    settings = ("lr", "weight", "distance", "optimizer", "warmup", "init", "init_std", "epochs", "batch_size")
    tried = [[tuple(a[s] for s in settings) for a in asked[start : start + 6]] for start in (0, 9, 18)]
    assert len(asked) == 27 and len(set(tried[0])) == 6 and tried[0] == tried[1] == tried[2]
    assert all(a["seed"] == hierarchy.TUNING_SEED for start in (0, 9, 18) for a in asked[start : start + 6])
    assert {entry["map"] for entry in found["trials"] if entry["lr"] == 10} == {0.0}
    assert [a["seed"] for a in asked[6:9]] == [0, 1, 2] and {a["lr"] for a in asked[6:9]} == {3}
    rows = {row["what"]: row for row in found["rows"]}
    ours = rows[f"WordNet mammals map, start normal, {LORENTZ}, 5 free coordinates (lr 3, geodesic distance)"]
    assert (ours["value"], ours["n"], ours["target"], ours["met"]) == (0.611, 3, 0.9, False)
    assert f"WordNet mammals map, start normal, {FLAT}, 5 free coordinates (lr 3, geodesic distance)" in rows


def test_parts_that_are_not_run_stay_and_nouns_go_on_with_the_epochs_they_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree.tsv"
    tree.write_text("".join(f"n{i}\tn{(i - 1) // 3}\n" for i in range(1, 41)))
    machine = {"date": "2026-01-01", "machine": {}, "command": ""}
    walk = common.row("WordNet mammals map, start walk", 0.9, "0 to 1") | {"part": "walk"}
    trial = {"part": "walk", "map": 0.9}
    kept = {**machine, "rows": [walk], "trials": [trial], "commands": {"walk": "--seeds 0"}}
    (tmp_path / "hierarchy.json").write_text(json.dumps(kept))
    (tmp_path / "runs").mkdir()
    epochs = {"7 min, 1 thread(s)": 20}  # remembered, so that no trial epoch is run
    (tmp_path / "runs/hierarchy-nouns-epochs.json").write_text(json.dumps(epochs))

    def run(task: str, **options: Any) -> Result:
        return tasks.run(task, data=str(tree), quiet=True, **options)

    monkeypatch.setattr(hierarchy_nouns, "run", run)
    found = measured(monkeypatch, tmp_path, "--parts", "nouns", "--nouns-minutes", "7")
    assert found["rows"][0] == walk and found["trials"] == [trial]
    assert found["command"] == (
        "python -m benchmarks.hierarchy --parts walk --seeds 0 && "
        "python -m benchmarks.hierarchy --parts nouns --nouns-minutes 7 --threads 1"
    )
    nouns = [row for row in found["rows"] if row["part"] == "nouns"]
    assert (
        sum("of 2000 nodes after" in row["what"] for row in nouns) == 2 * 10
    )  # the curve: MAP and mean rank, ten times
    (final,) = [row for row in nouns if "map of all nodes, start walk, Lorentz" in row["what"]]
    assert 0 < final["value"] <= 1 and final["target"] == 0.8 and final["reference"] is None
    assert "20 epochs" in final["what"]
    again = measured(monkeypatch, tmp_path, "--parts", "nouns", "--nouns-minutes", "7")
    assert again["rows"] == found["rows"]
