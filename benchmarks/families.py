"""What the results page sums up: which rows of which result files go into which table, and into which of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["FAMILIES", "Family"]

CONTROLS = ("published", "ours", "twin", "flat limit")


@dataclass(frozen=True)
class Family:
    """Result files of one kind, and their table.

    Attributes
    ----------
    files : pattern of their names
    rows : pattern of ``what`` with the groups ``model``, perhaps ``note``, and those of `label`
    label : what tells rows of the summary apart, ``{data}, {metric}``
    models : value of the group ``model`` to one of `columns`
    columns : the reference, the column that a line needs, and those beside it
    time : pattern of the rows that hold times; what groups it shares with `rows` must agree
    words : what to write for values of groups
    """

    title: str
    files: str
    rows: str
    label: str
    models: Mapping[str, str]
    time: str = r"(?!)"
    words: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = CONTROLS

    @property
    def lead(self) -> str:
        """The column that a line needs."""
        return self.columns[1]


FAMILIES = (
    Family(
        "Knowledge graphs",
        r"kg_(?!speed|tune|rapidity)\w+",
        r"(?P<data>[^,\s]+), (?P<model>\w+), dimension (?P<dim>\d+)(?P<how>[^:]*): "
        r"test (?P<metric>(?:paper_)?(?:mrr|hits@10))",
        "{data}, dimension {dim}{how}, {metric}",
        {"hybonet": "ours", "mure": "twin", "flat": "flat limit"},
        r"(?P<data>[^,\s]+), (?P<model>\w+), dimension (?P<dim>\d+)(?P<how>[^:]*): minutes of training and evaluation",
        {
            "paper_mrr": "MRR in the paper's protocol", "mrr": "MRR in the standard protocol",
            "paper_hits@10": "hits@10 in the paper's protocol", "hits@10": "hits@10 in the standard protocol",
        },
    ),
    Family(
        "Hierarchies",
        r"hierarchy",
        r"WordNet (?P<data>\w+) (?P<metric>map|mean_rank)(?: of (?P<nodes>all nodes))?(?:, start (?P<start>\w+))?, "
        r"(?P<model>Lorentz|Euclidean twin|flat limit)(?:, k = \S+)?, (?P<free>\d+) free coordinates.*",
        "WordNet {data}, {free} free coordinates, {start}{metric}",
        {"Lorentz": "ours", "Euclidean twin": "twin", "flat limit": "flat limit"},
        r"seconds of training, start (?P<start>\w+), (?P<model>Lorentz|Euclidean twin|flat limit)(?:, k = \S+)?, "
        r"(?P<free>\d+) free coordinates|minutes of training, WordNet (?P<data>nouns)",
        {"walk": "started from the taxonomy, ", "normal": "started from small random points, ", "map": "MAP",
         "mean_rank": "mean rank"},
    ),
    Family(
        "Graphs",
        r"graphs_(?!memory)[\w-]+",
        r"(?P<data>\S+) test (?P<metric>\w+), (?P<model>Lorentz GCN, flat limit|Lorentz GCN|GCN)(?P<note>[^,]*), "
        r"(?P<split>published split|fresh splits)",
        "{data}, {metric} x 100, {split}",
        {"Lorentz GCN": "ours", "GCN": "twin", "Lorentz GCN, flat limit": "flat limit"},
    ),
    *(
        Family(
            title,
            files,
            r"(?P<model>lorentz-small|euclidean-small), (?P<data>[^,]+), (?P<method>[^:]+): test (?P<metric>\w+)",
            "{data}, {method}, {metric}",
            {"lorentz-small": "ours", "euclidean-small": "twin"},
        )
        for title, files in (
            ("Delta tuning of the matched pair", "deltas_pair"),
            ("Delta tuning of the matched pair: the other methods", "deltas_rest"),
            ("Delta tuning of the matched pair: sums of methods", "deltas_combinations"),
        )
    ),
    Family(
        "Delta tuning of MiniLM and of its conversion to a Lorentz model",
        r"deltas_minilm",
        r"(?P<model>converted|minilm), (?P<data>[^,]+), (?P<method>[^:]+): test (?P<metric>\w+)",
        "{data}, {method}, {metric}",
        {"converted": "ours", "minilm": "twin"},
    ),
    Family(
        "Probes of dependency trees",
        r"probing",
        r"(?P<data>[^,\s]+), \w+, (?P<model>Lorentz|Euclidean|flat limit), layer \d+: test (?P<metric>\w+)",
        "{data}, {metric}",
        {"Lorentz": "ours", "Euclidean": "twin", "flat limit": "flat limit"},
    ),
    Family(
        "Translation",
        r"translation",
        r"(?P<data>[^,]+), (?P<set>\w+), (?P<model>Lorentz|Euclidean twin): (?P<metric>bleu|chrf|cross_entropy)",
        "{data}, {set}, {metric}",
        {"Lorentz": "ours", "Euclidean twin": "twin"},
        r"(?P<data>[^,]+), (?P<model>Lorentz|Euclidean twin): minutes of training",
        {"bleu": "BLEU", "chrf": "chrF", "cross_entropy": "cross entropy"},
    ),
    Family(
        "Speed of layers: forward and backward over their Euclidean counterpart's",
        r"lorentz_(transformer_)?speed",
        r"(?P<layer>.*?),? forward \+ backward over (?P<model>nn.Linear|Euclidean attention of 256|an ordinary layer)"
        r"(?P<how>, .*)",
        "{layer}{how}",
        dict.fromkeys(("nn.Linear", "Euclidean attention of 256", "an ordinary layer"), "ours"),
        columns=("the paper's code", "ours"),
    ),
    Family(
        "Relations of FB15k-237 cut in parts that share no fact: which parts belong together",
        r"relsim_suites",
        r"(?P<suite>disjoint|capped-50): (?P<model>neural KL|count_kl|jensen_shannon|tfidf_cosine|transe cosine|"
        r"distmult cosine)(?P<scaled>, locally scaled)?, (?P<metric>ap|r@1)",
        "{suite}{scaled}, {metric}",
        {
            "neural KL": "neural KL", "count_kl": "count KL", "jensen_shannon": "Jensen-Shannon",
            "tfidf_cosine": "TF-IDF", "transe cosine": "TransE", "distmult cosine": "DistMult",
        },
        words={"ap": "average precision", "r@1": "recall at 1", "capped-50": "at most 50 facts"},
        columns=("published", "neural KL", "count KL", "Jensen-Shannon", "TF-IDF", "TransE", "DistMult"),
    ),
    Family(
        "Speed of deltas: training step over that of full fine-tuning, MiniLM",
        r"deltas_speed",
        r"(?P<model>[^:]+): training step over full fine-tuning, MiniLM, (?P<batch>batch .*)",
        "{model}, {batch}",
        dict.fromkeys(
            ("head only", "LoRA r8 q,v", "LoRA r8 all linear", "Adapter 24", "PrefixTuning 20", "PromptTuning 20", "BitFit",
             "IA3", "Compacter 24"), "ours",
        ),
        columns=("peer", "ours"),
    ),
    Family(
        "Solutions of three methods read from one subspace: performance relative to the methods themselves, 1 as good",
        r"subspace_[\w-]+",
        r"(?P<backbone>[\w+-]+), (?P<model>joint|random|pca|shuffled), (?P<dims>\d+) dimensions?(?: \(it has \d+\))?: "
        r"relative performance, (?P<what>optimisation|transfer)(?P<plain>, plain)?",
        "{backbone}, dimension {dims}, {what}{plain}",
        {"joint": "joint", "random": "random", "pca": "PCA", "shuffled": "shuffled tasks"},
        words={", plain": ", not corrected for chance"},
        columns=("published", "joint", "random", "PCA", "shuffled tasks"),
    ),
    Family(
        "The trained space less its controls, corrected for chance, ± half the 95 % interval (pairs of seed and set)",
        r"subspace_[\w-]+",
        r"(?P<backbone>[\w+-]+), (?P<dims>\d+) dimensions?: joint less (?P<model>random|pca|shuffled), "
        r"(?P<what>optimisation|transfer), chance-corrected(?P<shown>: no difference shown)?",
        "{backbone}, dimension {dims}, {what}",
        {"random": "joint less random", "pca": "joint less PCA", "shuffled": "joint less shuffled tasks"},
        columns=("published", "joint less random", "joint less PCA", "joint less shuffled tasks"),
    ),
    Family(
        "Four bits a number: bytes of activations held, plain over compressed",
        r"activations",
        r"(?P<net>.*), (?P<model>8|4|2) bits: bytes of activations, plain over held",
        "{net}",
        {"8": "8 bits", "4": "4 bits", "2": "2 bits"},
        columns=("plain and held", "4 bits", "8 bits", "2 bits"),
    ),
)  # fmt: skip
