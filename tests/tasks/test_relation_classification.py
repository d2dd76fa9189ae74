"""Relation classification: the reader, the marker features, the margin, the official score, and a run from end to end."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import tasks
from relsim.facts import Facts
from tasks.data.judgements import SHA256, relation_judgements, signatures
from tasks.data.load import load
from tasks.data.sentences import Marked, parse_marked, sentences_from_text
from tasks.errors import UsageError
from tasks.relation_classification import margin as margin_module
from tasks.relation_classification.config import MarginConfig
from tasks.relation_classification.features import PARTS, encode, feature_file, spans
from tasks.relation_classification.margin import argument_facts, class_divergence, margin_loss, margins
from tasks.relation_classification.scorer import official_macro_f1
from tasks.relation_classification.task import LinearHead

SEMEVAL = "re/SemEval2010-Task8"


def block(number: int, sentence: str, label: str) -> str:
    return f'{number}\t"{sentence}"\n{label}\nComment: none\n\n'


def test_blocks_are_read_with_comments_and_stray_blanks_left_out() -> None:
    text = block(1, "An <e1>oak</e1> in a <e2> wood </e2>.", "Part(e1,e2) ") + block(2, "<e1>a</e1><e2>b</e2>", "Other")
    (first, one), (second, two) = parse_marked(text, "file")
    assert first == Marked("An ", "oak", " in a ", " wood ", ".") and (one, two) == ("Part(e1,e2)", "Other")
    assert second == Marked("", "a", "", "b", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('1\t"no marks"\nOther\n', "file, line 1: expected <e1>"),
        ('1\t"<e2>b</e2> <e1>a</e1>"\nOther\n', "line 1: expected <e1>"),
        ('1\t"<e1>a</e1> <e2>b</e2>"\n\n2\t"<e1>a</e1> <e2>b</e2>"\nOther\n', "line 2: a sentence has no class"),
        ('1\t"<e1>a</e1> <e2>b</e2>"\n', "the last sentence has no class"),
        ("rubbish\n", "line 1: expected ID TAB"),
    ],
)
def test_a_malformed_block_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_marked(text, "file")


def test_without_a_validation_split_a_tenth_is_taken_by_hash_and_equal_sentences_stay_together() -> None:
    rows = [(f"s{i % 150} <e1>a</e1> <e2>b</e2>", "Other") for i in range(300)]
    text = "".join(block(i, *row) for i, row in enumerate(rows))
    data = sentences_from_text("own", {"train": text, "test": block(0, *rows[0])})
    valid = {m.before for m in data.sentences["valid"]}
    expected = {f"s{i} " for i in range(150) if int(hashlib.sha256(rows[i][0].encode()).hexdigest()[:8], 16) % 10 == 8}
    assert valid == expected and not valid & {m.before for m in data.sentences["train"]}
    with pytest.raises(UsageError, match="classes that no training sentence has"):
        sentences_from_text("own", {"train": text, "test": block(0, rows[0][0], "New")})
    with pytest.raises(UsageError, match="the test split of own holds no sentence"):
        sentences_from_text("own", {"train": text, "test": ""})


def test_real_sets_have_the_published_sizes(data_dir: Path) -> None:
    semeval, kbp, graph = (load(name, data_dir) for name in ("SemEval2010-Task8", "KBP37", "WD50K"))
    count = {split: len(rows) for split, rows in semeval.sentences.items()}
    assert count["train"] + count["valid"] == 8000 and count["test"] == 2717 and len(semeval.labels) == 19
    assert [len(kbp.label[s]) for s in ("train", "valid", "test")] == [15917, 1724, 3405] and len(kbp.labels) == 37
    assert (len(graph.train), len(graph.valid), len(graph.test)) == (164_631, 23_860, 46_023)
    assert (graph.num_entities, graph.num_relations) == (41_334, 486)
    assert not [w for data in (semeval, kbp, graph) for w in data.warnings if "SHA-256" in w]


def answers(path: Path) -> dict[str, str]:
    lines = path.read_text("utf-8").split("\n")
    return dict(line.strip().split("\t") for line in lines if line.strip())  # type: ignore[misc]


@pytest.mark.parametrize("example", [1, 2, 3, 5])
def test_the_official_score_of_the_scorers_own_examples(example: int, data_dir: Path) -> None:
    folder = data_dir / SEMEVAL / "SemEval2010_task8_scorer-v1.2"
    key, proposed = (answers(folder / f"{kind}{example}.txt") for kind in ("answer_key", "proposed_answer"))
    printed = re.search(r"macro-averaged F1 = ([\d.]+)%", (folder / f"result_scores{example}.txt").read_text())
    assert printed and f"{100 * official_macro_f1(key, proposed):.2f}" == printed[1]


def test_the_score_refuses_what_it_cannot_score() -> None:
    with pytest.raises(ValueError, match="1 answers to sentences that the key has not, such as '2'"):
        official_macro_f1({"1": "A(e1,e2)"}, {"2": "Other"})
    with pytest.raises(ValueError, match="holds no relation"):
        official_macro_f1({"1": "Other"}, {"1": "Other"})


def test_spans_point_at_their_parts() -> None:
    text, ranges = spans(Marked("The ", " Isle of Wight ", " which merged with ", "Ryde", "."))
    assert text == "The @ Isle of Wight @ which merged with # Ryde # ."
    assert [text[a:b] for a, b in ranges] == ["@", "#", "Isle of Wight", "Ryde", "which merged with", text]
    assert len(ranges) == len(PARTS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random encoder with a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "@",
        "#",
        ".",
        "causes",
        "holds",
        "near",
        "wind",
        "rain",
        "box",
        "jar",
        "pen",
        "cup",
        "the",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder


def test_features_are_means_of_states_whatever_shares_the_batch(encoder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    short = Marked("", "wind", "", "rain", "")
    long = Marked("the the the ", "box jar", " near the near ", "cup", " the the .")
    together = encode([long, short, long], tokenizer, model).view(3, len(PARTS), 32).float()
    ids = tokenizer(spans(long)[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = model(input_ids=ids).last_hidden_state[0]
    # the the the @ box jar @ near the near # cup # the the .
    rows: list[Any] = [3, 10, slice(4, 6), 11, slice(7, 10), slice(0, 16)]
    expected = torch.stack([states[row].reshape(-1, 32).mean(0) for row in rows])
    for k in (0, 2):
        torch.testing.assert_close(together[k], expected, atol=2e-3, rtol=2e-3)  # kept in half precision
    assert not together[1, 4].any() and together[1, 5].any()  # nothing stands between


def test_the_margin_loss_is_the_formula_and_plain_softmax_without_margins() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(5, (7,), generator=generator)
    margin = torch.rand(5, 5, generator=generator, dtype=torch.float64).fill_diagonal_(0.0)
    total = 0.0
    for z, y in zip(logits.tolist(), label.tolist(), strict=True):
        total += -z[y] + math.log(sum(math.exp(z[j] + float(margin[y, j])) for j in range(5)))
    assert float(margin_loss(logits, label, margin)) == pytest.approx(total / 7, abs=1e-12)
    plain = torch.nn.functional.cross_entropy(logits, label)
    assert float(margin_loss(logits, label, torch.zeros_like(margin))) == pytest.approx(float(plain), abs=1e-12)


def small(seed: int = 0) -> tasks.data.sentences.RelationSentences:  # type: ignore[name-defined]
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(120):
        c, a, b = (int(torch.randint(n, (1,), generator=generator)) for n in (3, 2, 2))
        first, second = (["wind", "rain"], ["pen", "cup"]) if c == 0 else (["box", "jar"], ["pen", "cup"])
        word, label = (("causes", "Cause(e1,e2)"), ("holds", "Hold(e1,e2)"), ("near", "Other"))[c]
        rows.append((f"the <e1>{first[a]}</e1> {word} the <e2>{second[b]}</e2>.", label))
    texts = {
        split: "".join(block(i, *row) for i, row in enumerate(part))
        for split, part in (("train", rows[:80]), ("valid", rows[80:100]), ("test", rows[100:]))
    }
    return sentences_from_text("small", texts)


def test_margins_grow_with_likeness_and_add_up_to_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small()
    facts = argument_facts(data)
    assert isinstance(facts, Facts) and facts.relations == data.labels
    found = margins(data, MarginConfig("counts", weight=3.0, temperature=0.5))
    torch.testing.assert_close(found.sum(1), torch.full((3,), 3.0))
    assert not found.diagonal().any()
    hold, other, cause = (data.labels.index(name) for name in ("Hold(e1,e2)", "Other", "Cause(e1,e2)"))
    assert found[hold, other] > found[hold, cause]  # boxes and jars both; wind and rain the third
    divergence = class_divergence(data, "counts")
    ratio = torch.exp((divergence[hold, cause] - divergence[hold, other]) / 0.5)
    assert float(found[hold, other] / found[hold, cause]) == pytest.approx(float(ratio), rel=1e-5)
    even = margins(data, MarginConfig("uniform", weight=3.0))
    torch.testing.assert_close(even, 1.5 * (1 - torch.eye(3)))
    assert not margins(data, MarginConfig()).any()


def test_divergences_by_fact_distributions_are_fitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = class_divergence(small(), "facts")
    assert torch.equal(first, first.T) and not first.diagonal().any() and bool((first >= 0).all())
    monkeypatch.setattr(margin_module, "fit", None)  # a second fit would fail
    assert torch.equal(class_divergence(small(), "facts"), first)


def test_the_head_is_linear_in_standardised_features() -> None:
    features = torch.randn(50, 6) * 3 + 2
    head = LinearHead(features, torch.zeros(4, 4), dropout=0.5).eval()
    scaled = (features - features.mean(0)) / features.std(0)
    torch.testing.assert_close(head(features), scaled @ head.linear.weight.T + head.linear.bias, atol=1e-5, rtol=1e-5)
    constant = LinearHead(torch.zeros(50, 6), torch.zeros(4, 4), dropout=0.0)
    assert bool(torch.isfinite(constant(torch.zeros(2, 6))).all())


def test_a_run_learns_what_stands_between_and_keeps_its_features(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = small()
    folder = tmp_path / "data" / "re" / "KBP37"
    folder.mkdir(parents=True)
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        lines = [
            block(i, f"{m.before}<e1>{m.first}</e1>{m.between}<e2>{m.second}</e2>{m.after}", data.labels[int(c)])
            for i, (m, c) in enumerate(zip(data.sentences[split], data.label[split], strict=True))
        ]
        (folder / f"{name}.txt").write_text("".join(lines))
    options: dict[str, Any] = {
        "data": "KBP37", "data_dir": tmp_path / "data", "runs": tmp_path / "runs", "quiet": True,
        "model": {"encoder": str(encoder)},
        "train": {"epochs": 15, "batch_size": 16, "lr": 0.02, "eval_every": 5},
    }  # fmt: skip
    plain = tasks.run("re", **options)
    assert plain.metrics["test"]["accuracy"] == 1.0 and plain.metrics["test"]["macro_f1"] == 1.0
    kept = feature_file(load("KBP37", tmp_path / "data"), str(encoder))
    stamp = kept.stat().st_mtime_ns
    wide = tasks.run("re", margin={"source": "counts", "weight": 2.0}, **options)
    assert wide.metrics["test"]["accuracy"] == 1.0 and kept.stat().st_mtime_ns == stamp
    assert wide.folder != plain.folder
    trained = tasks.load(plain.folder, data_dir=tmp_path / "data")
    rows = [f"{m.before}<e1>{m.first}</e1>{m.between}<e2>{m.second}</e2>{m.after}" for m in data.sentences["test"]]
    found = trained.predict(rows)
    assert [row["relation"] for row in found] == [data.labels[int(c)] for c in data.label["test"]]
    with pytest.raises(UsageError, match="row 1: expected <e1>"):
        trained.predict(["the wind causes the pen"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": {"source": "fact"}}, "Did you mean 'facts'"),
        ({"margin": {"temperature": 0.0}}, "--margin.temperature must be"),
        ({"monitor": "macrof1"}, "Did you mean 'macro_f1'"),
        ({"model": {"dropout": 1.0}}, "--model.dropout"),
        ({"data": "taxonomy"}, "is no set of marked sentences"),
        ({"model": {"encoder": "nowhere"}}, "expected all-MiniLM-L6-v2, or a folder"),
    ],
)
def test_a_wrong_option_says_what_is_right(
    options: dict[str, Any], message: str, tmp_path: Path, data_dir: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        tasks.run("re", runs=tmp_path, data_dir=data_dir, quiet=True, **options)


def test_the_shipped_judgement_is_the_one_that_was_fixed() -> None:
    ratings = relation_judgements()
    assert len(SHA256) == 64 and ratings.raters == ["rule-1", "rule-2"] and ratings.grades.shape == (300, 2)
    assert set(ratings.grades.flatten().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert {name for pair in ratings.pairs for name in pair} <= signatures().keys()
