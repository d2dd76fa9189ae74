"""The command line: users' mistakes are one line with exit code 2, and all ways to write an option mean the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from tasks.api import configure, recipes
from tasks.argv import parse_seeds, regular
from tasks.cli import COMMANDS, STUDIES, main
from tasks.config import config_hash, differences, load_recipe, to_dict
from tasks.doctor import shadows
from tasks.errors import UsageError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "kgg"], "unknown task 'kgg'. Did you mean 'kg'?"),
        (["run", "subspac"], "unknown task 'subspac'. Did you mean 'subspace'?"),
        (["run", "kg", "--data", "WN18R"], "Did you mean 'WN18RR'?"),
        (["run", "kg", "--model.dmi", "3"], "Did you mean 'model.dim'?"),
        (["run", "kg", "--model.dim", "many"], "--model.dim: expected a whole number, got many"),
        (["run", "kg", "--model.k", "nan"], "--model.k: expected a number, got nan"),
        (["run", "kg", "--model.dim", "2.5"], "--model.dim: expected a whole number, got 2.5"),
        (["run", "kg", "--model.k", "-1"], "--model.k must be a finite number above 0, got -1.0"),
        (["run", "kg", "--train.epochs", "0"], "--train.epochs must be a finite number at least 1, got 0"),
        (["run", "kg", "--train.lr", ".inf"], "--train.lr must be a finite number above 0, got inf"),
        (["run", "kg", "--train.warmup", "-5"], "--train.warmup must be a finite number at least 0"),
        (["run", "kg", "--train.threads", "100000"], "--train.threads must be a finite number at least 1 and at most"),
        (["run", "kg", "--model.max_norm", "-1"], "--model.max_norm must be a finite number above 0"),
        (["run", "kg", "--seed", "-1"], "--seed must be a whole number from 0"),
        (["run", "kg", "--monitor", "mmr"], "Did you mean 'mrr'?"),
        (["run", "kg", "--data", "taxnomy"], "Did you mean 'taxonomy'?"),
        (["resume", "/etc/passwd"], "is no run folder"),
        (["run", "kg", "--seeds", "0,x"], "--seeds takes numbers"),
        (["run", "kg", "--seeds", "5-3"], "--seeds: a range ascends, write 3-5 for 5-3"),
        (
            ["run", "graph", "--train.batch-size", "64"],
            "--train.batch_size 64 is of no use here: the whole graph is one batch",
        ),
        (["run", "kg", "--seeds", "0,1", "--out", "here"], "with several --seeds use --runs"),
        (["run", "kg", "--runs", "there", "--out", "here"], "--out and --runs are given, expected one"),
        (["run", "kg", "--config", "nowhere.yaml"], "unknown recipe"),
        (["run", "kg", "--data", "./nowhere"], "no folder ./nowhere"),
        (["resume", "nowhere"], "is no run folder"),
        (["compare", "nowhere"], "is no run folder"),
        (["ls", "--dtaa"], "unknown option '--dtaa'"),
        (["geometry", "nowhere.csv"], "no file or folder nowhere.csv, and no data set of that name"),
        (["predict", "nowhere", "rows.tsv"], "nowhere is no run folder"),
        (["run", "kg", "--data", "WN18RR", "--data-dir", "nowhere"], "no folder nowhere; --data-dir takes the folder"),
        (["ls", "data", "--data-dir", "nowhere"], "no folder nowhere; --data-dir takes the folder"),
        (["redundency", "rows.tsv"], "unknown command 'redundency'. Did you mean 'redundancy'?"),
        (["kg", "--data", "WN18RR"], "'kg' is a task, expected a command: `hyrel run kg`"),
        (
            ["run", "redundancy", "rows.tsv"],
            "'redundancy' is a command of its own, expected a task: `hyrel redundancy`",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith("hyrel: ") and expected in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.iterdir())


def test_a_model_beyond_the_memory_is_one_line(small_graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "kg", "--data", f"{small_graph}/", "--out", str(small_graph / "run"), "--model.dim", str(10**13)]
    assert main(words) == 1  # 10^13 floats of 40 entities are more than any address space holds
    err = capsys.readouterr().err
    assert "not enough memory for this" in err and err.count("\n") == 1


def test_more_negatives_a_triple_than_entities_are_refused(
    small_graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "run",
        "kg",
        "--data",
        f"{small_graph}/",
        "--out",
        str(small_graph / "run"),
        "--negatives.sharing",
        "triple",
    ]
    assert main([*words, "--negatives.count", "100000"]) == 2
    assert "is more than the 40 entities of numbers; take --negatives.sharing all" in capsys.readouterr().err
    assert not (small_graph / "run").exists()


def test_more_negatives_a_batch_than_entities_are_warned_of_once(small_graph: Path, tmp_path: Path) -> None:
    common = {"data": str(small_graph), "quiet": True, "model": {"dim": 3}, "train": {"epochs": 1}}
    found = tasks.run("kg", out=tmp_path / "more", negatives={"count": 1000}, **common)  # type: ignore[arg-type]
    assert [w for w in found.values["warnings"] if "count" in w] == [
        "--negatives.count 1000 is more than the 40 entities of numbers, which are drawn without replacement: each is a "
        "negative once"
    ]
    every = tasks.run("kg", out=tmp_path / "all", negatives={"count": 40}, **common)  # type: ignore[arg-type]
    assert not every.values["warnings"] and every.metrics == found.metrics


def test_unknown_names_of_values_are_refused_with_the_nearest(small_graph: Path, tmp_path: Path) -> None:
    for option, value, near in [
        ("model", {"scorer": "hybonett"}, "hybonet"),
        ("train", {"optimizer": "adma"}, "adam"),
        ("train", {"schedule": "cosin"}, "cosine"),
    ]:
        with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
            tasks.run("kg", data=str(small_graph), out=tmp_path / "run", quiet=True, **{option: value})  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_dashes_underscores_equals_and_sections_mean_the_same() -> None:
    ways = [
        ["--train.eval_every", "3", "--model.scorer", "mure"],
        ["--train.eval-every", "3", "--model", "mure"],
        ["--train.eval-every=3", "--model=mure"],
    ]
    made = [configure("kg", args=regular(words)) for words in ways]
    assert made[0] == made[1] == made[2]
    assert made[0].train.eval_every == 3 and made[0].model.scorer == "mure"
    assert configure("kg", args=regular(["--data", "a-b--c"])).data == "a-b--c"


def test_flags_win_over_the_recipe_wherever_it_stands(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("config: {task: kg, model: {dim: 8}, train: {lr: 0.5}}\npublished: []\n")
    config = configure("kg", recipe=recipe, args=["--model.dim", "9"])
    assert (config.model.dim, config.train.lr) == (9, 0.5)
    recipe.write_text("config: {model: {dmi: 8}}")
    with pytest.raises(UsageError, match=r"unknown option 'model.dmi'. Did you mean 'model.dim'"):
        configure("kg", recipe=recipe)
    recipe.write_text("config: {task: text}")
    with pytest.raises(UsageError, match="of task 'text', not of 'kg'"):
        configure("kg", recipe=recipe)
    recipe.write_text("a: [")
    with pytest.raises(UsageError, match="not valid YAML"):
        configure("kg", recipe=recipe)


def test_seeds_and_hash() -> None:
    assert parse_seeds("0,1,2") == [0, 1, 2] and parse_seeds("3-5,9") == [3, 4, 5, 9]
    for wrong in ("1,1", "", "2-1"):
        with pytest.raises(UsageError):
            parse_seeds(wrong)
    base = to_dict(configure("kg"))
    same = [configure("kg", args=a) for a in (["--seed", "5"], ["--train.threads", "2"])]
    assert {config_hash("kg", to_dict(c)) for c in same} == {config_hash("kg", base)}
    assert config_hash("kg", to_dict(configure("kg", args=["--model.dim", "33"]))) != config_hash("kg", base)
    assert differences(base, to_dict(configure("kg", args=["--model.dim", "33"]))) == ["model.dim: 32 -> 33"]


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_a_valid_configuration_with_published_numbers(name: str) -> None:
    task = name.split("/")[0]
    configure(task, recipe=name)
    for row in load_recipe(recipes()[name])[1]:
        assert set(row) >= {"metric", "value", "source"}


def test_run_resume_compare_and_ls(
    small_graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["run", "kg", "--data", str(small_graph), "--train.epochs", "2", "--train.eval-every", "1", "--quiet"]
    common += ["--train.batch-size", "64", "--model.dim", "5"]
    assert main([*common, "--seeds", "0,1"]) == 0
    assert main([*common, "--model", "mure", "--seeds", "1"]) == 0
    assert main(["resume", *map(str, sorted(Path("runs").glob("*/seed*")))]) == 0
    capsys.readouterr()
    assert main(["compare", *map(str, Path("runs").iterdir()), "--metric", "paper_mrr", "--format", "csv"]) == 0
    header, *rows = capsys.readouterr().out.strip().splitlines()
    assert header.split(",") == ["data", "model", "config", "n", "paper_mrr", "deviation", "missing seeds", "best"]
    cells = sorted(row.split(",") for row in rows)
    assert [row[1] for row in cells] == ["hybonet", "mure"]
    assert [row[3] for row in cells] == ["2", "1"] and cells[1][-2] == "0"
    assert [row[-1] for row in cells].count("*") == 1
    results = [json.loads(p.read_text()) for p in Path("runs").glob("*/seed*/result.json")]
    means = [r["metrics"]["test"]["paper_mrr"] for r in results if r["config_hash"].startswith(cells[0][2])]
    assert float(cells[0][4]) == pytest.approx(sum(means) / 2, rel=1e-12)  # in full
    for what in ([], ["tasks"], ["data"], ["recipes"], ["deltas"]):
        assert main(["ls", *what]) == 0
    assert "kg/wn18rr-32" in capsys.readouterr().out


def test_compare_warns_when_the_data_differ(small_graph: Path, tmp_path: Path) -> None:
    options = {"train": {"epochs": 1, "batch_size": 64}, "model": {"dim": 5}, "quiet": True}
    tasks.run("kg", data=str(small_graph), out=tmp_path / "a", **options)  # type: ignore[arg-type]
    lines = (small_graph / "train.txt").read_text().splitlines(keepends=True)
    (small_graph / "train.txt").write_text("".join(lines[:-1]))
    tasks.run("kg", data=str(small_graph), out=tmp_path / "b", seed=1, **options)  # type: ignore[arg-type]
    warnings = tasks.compare([tmp_path / "a", tmp_path / "b"]).warnings
    assert any("differ in data hash or split" in warning for warning in warnings)


def test_doctor_names_a_shadowed_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shadows(tmp_path) == []
    (tmp_path / "tasks.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    assert f"{tmp_path / 'tasks.py'} hides hyrel's package 'tasks'" in capsys.readouterr().out


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, tasks.cli as c; c.main(['ls', 'tasks']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", STUDIES)
def test_help_of_a_study_shows_its_options_without_torch(name: str) -> None:
    code = f"import sys; from tasks.cli import main; code = main(['run', '{name}', '-h']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--point_steps" in done.stdout if name == "subspace" else "--lr_factors" in done.stdout


def test_a_study_takes_no_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "subspace", "--out", "x"]) == 2
    assert "--runs" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run"], ["run", "--help"], ["run", "kg", "--help"], ["run", "subspace", "--help"]])
def test_help_says_what_the_options_of_every_task_do(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == (2 if words == ["run"] else 0)
    shown = capsys.readouterr().out
    assert "--seeds 0,1,2      one run a seed, in the place of --seed; also 0-4\n" in shown and "``" not in shown


def test_help_of_a_task_shows_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "kg", "--help"]) == 0
    assert "--model.margin" in capsys.readouterr().out
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("hierarchy", "taxonomy is no hierarchy, which the task hierarchy takes: --data WordNet-mammals"),
        ("graph", "taxonomy is no plain graph, which the task graph takes: --data Airport, Cora"),
        ("re", "taxonomy is no set of marked sentences"),
    ],
)
def test_data_of_another_kind_is_one_line(
    task: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", task, "--data", "taxonomy", "--runs", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_hierarchy_is_no_knowledge_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edges = tmp_path / "edges.tsv"
    edges.write_text("a\tb\nb\tc\n")
    for task in ("kg", "similarity"):
        assert main(["run", task, "--data", str(edges), "--runs", str(tmp_path)]) == 2
        assert "is no knowledge graph" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run", "compare-deltas"], "the same command goes on"),
        (["run", "kg"], "a run goes on with `hyrel resume FOLDER`"),
        (["doctor"], "nothing was kept"),
    ],
)
def test_an_interruption_says_how_to_go_on(
    words: list[str], hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("run", "doctor"):
        monkeypatch.setitem(COMMANDS, name, stop)
    assert main(words) == 130
    assert f"hyrel: interrupted; {hint}" in capsys.readouterr().err
