"""The data sets that hyrel can read: where each lies below the data folder, its content's SHA-256, origin and licence."""

from __future__ import annotations

from .entry import DataSet
from .language_sets import LANGUAGE
from .text_sets import TEXT

__all__ = ["DATA", "EMBEDDED", "DataSet"]

EMBEDDED = ("taxonomy",)

_CONVE = "https://github.com/TimDettmers/ConvE"
_EMBEDDING = "https://github.com/villmow/datasets_knowledge_embedding"
_CODEX = "https://github.com/tsafavi/codex"
_HYBONET = "https://github.com/chenweize1998/fully-hyperbolic-nn"
_PYKEEN = "https://github.com/pykeen/pykeen"
_WORDNET = "https://wordnet.princeton.edu (closure over hypernyms and instance hypernyms of 3.0)"
_HGCN = "https://github.com/HazyResearch/hgcn"
_PLANETOID = "https://github.com/kimiyoung/planetoid"
_ANNOTATED = "https://github.com/davidsbatista/Annotated-Semantic-Relationships-Datasets"


def _kg(
    folder: str,
    origin: str,
    licence: str,
    train: str,
    valid: str,
    test: str,
    *,
    negatives: tuple[str | None, str | None] = (None, None),
) -> DataSet:
    files = {"train.txt": train, "valid.txt": valid, "test.txt": test}
    extra = dict(zip(("valid_negatives.txt", "test_negatives.txt"), negatives, strict=True))
    return DataSet("kg", f"kg/{folder}", files, origin, licence, extra)


DATA: dict[str, DataSet] = {
    "WN18RR": _kg(
        "WN18RR",
        _CONVE,
        "MIT; WordNet licence",
        "038612e783c215ee5f3ca9fbfca27b8d0739be1028fe4ee7c174aecf0b83d5df",
        "453ce7202afa58094a04d2b1560ee2b02660f1c260b32ce6651c8ccedd1028ab",
        "0383bceaaa1096cf3c03ec021ed0048068e2355dbfc0239b292cefdac821cec5",
    ),
    "FB15k-237": _kg(
        "FB15k-237",
        _CONVE,
        "MIT; Freebase content CC BY 2.5",
        "61099230e4439f90885ca9767739e31e8e32f54736fa1c35952b27997bc7c08a",
        "749cbe9d923bac7b9354da5614ecfed2e0220256d442c3e04a6b303db1f273d9",
        "e2e35e8e6113de220140b6f44dc71a5207b0fc6872d575e874aefe13259b655b",
    ),
    "CoDEx-S": _kg(
        "CoDEx-S",
        _CODEX,
        "MIT; Wikidata CC0",
        "64f93b7f314f3936a6f65739721429db3f6a7c8f5a1e1104ec3bb544f7434f59",
        "3831c0e57daef03c3a18cdd1a72e370b496f696c5218883d35c7d2ab8a6a772c",
        "27127fcb34688c4778e88a39ef3c9b540807da846021e9d9685660ac1838aca1",
    ),
    "CoDEx-M": _kg(
        "CoDEx-M",
        _CODEX,
        "MIT; Wikidata CC0",
        "d99c3437ab51690391a26d96976adf6e5494dba7ef6902e77000551bfa566556",
        "11c323096367354940846b9ed940c5dabddc1d20a70474222babe7e7fd28b28d",
        "0575ce05e4ce915e395bb4f708e8df9547989dd4c8c71407cbfd78c19daffcf7",
        negatives=(
            "454a4f66ae85495e6e7df0a9f591ed3b8b6efbbcca515414cb641a28625cbcb2",
            "7caaf71f7a85fbd915dce8199f5b1e1744ead58e0675549fcb01c60599944648",
        ),
    ),
    "NELL-995-h100": _kg(
        "NELL-995-h100",
        _HYBONET,
        "none stated",
        "4654e0c41c6d0a429621e797548c3c3f6eb91da2a594e93bf5e5d42b2f2f0b97",
        "8d8e42703c754a046c1be55d88ddbc326f3c337cc63eab479628a139b0da3b3a",
        "5e8efe88fb1e9086ae714b447de30b295dc68d56d0494105ea777778c4242b19",
    ),
    "UMLS": _kg(
        "UMLS",
        _CONVE,
        "MIT",
        "873ef4925516b83e7f6f8cc02b4be51d848828710a7f65a956f0ac4a9e452f35",
        "025c98f8a4891e2a6582ec5b40ee0d904031edad9c52554522f4b7904820c98e",
        "a7eb529a3d2810fcc96341ccc97c625a5e202f8389673aa6bd317eeebbb79014",
    ),
    "Kinship": _kg(
        "Kinship",
        _CONVE,
        "MIT",
        "738612111a6acf0e39662bde24c7e72a4d1edf20931beea077da367dda689731",
        "c56f8630a583178b1e569f11a64aa535ae1ce0b0912d8b1e24716be2b37f04da",
        "05e5733265761d55be9c05bfaff5a8d0808df46f9c1e9d66cc3f2fe114e43d88",
    ),
    "Nations": _kg(
        "Nations",
        _PYKEEN,
        "MIT",
        "0830fa9da8e5bba2ccdaa45b7bdc9130451ba66b09ff2708f35fccaf82473e57",
        "2b337a62e51a2f45c283eac98a70d21b7e0e102136be1539b2a52c652a7b0530",
        "3971085165b47b6aeaec68058c6d8d98b3005e929db81268410b95ae4db770ab",
    ),
    "Countries-S1": _kg(
        "Countries/countries_S1",
        _EMBEDDING,
        "MIT",
        "5256bf3fc4181d7e87d819571e3acfa5425fc5af365b9ebe5c113740534ca561",
        "f4b27648148a44f87e627140ec3a02ca4c884c32d348591147ca72f1d6fff5b0",
        "262ca5ae5ed3aa1927026e0f258cc52b10830185b93465b93b9360727e719158",
    ),
    "Countries-S2": _kg(
        "Countries/countries_S2",
        _EMBEDDING,
        "MIT",
        "84c8f310fa076f902760f0909716b13bc0853a105ab9e0145e4e5135d855f68a",
        "f4b27648148a44f87e627140ec3a02ca4c884c32d348591147ca72f1d6fff5b0",
        "262ca5ae5ed3aa1927026e0f258cc52b10830185b93465b93b9360727e719158",
    ),
    "Countries-S3": _kg(
        "Countries/countries_S3",
        _EMBEDDING,
        "MIT",
        "80a8e3a26aff58b78fd5a453ec2a37591466bad621df8d05185f26763b663a0c",
        "f4b27648148a44f87e627140ec3a02ca4c884c32d348591147ca72f1d6fff5b0",
        "262ca5ae5ed3aa1927026e0f258cc52b10830185b93465b93b9360727e719158",
    ),
    "WD50K": DataSet(
        "kg, commas",
        "kg/WD50K/triples",
        {
            "train.txt": "4f3d368a3ea20721e2f45ecc770bb8de2b3c5f0319967873322b25dcdbb92ba8",
            "valid.txt": "d82f76567f5b13008e48c2767681c666aa1448b6b40d23c5bca755fd8f46532b",
            "test.txt": "f17b0ed15046f44d5599fca6fa0e2166424c9fbb968567eb6308947edd82aee6",
        },
        "https://github.com/migalkin/StarE",
        "MIT; Wikidata CC0",
    ),
    "pretraining-classics": DataSet(
        "corpus",
        "text/pretraining-classics",
        {
            "train.txt": "a717e51a8db19d4485134f1ee83db171cd9dc987b3d48c19eca1d94aae936a40",
            "valid.txt": "b03f3ad892ef1b172b2b4d1459e77371a78b9ebb68290281e7b4e9fb63c488f7",
            "test.txt": "1b2b4d1fc6f9abf05e1f381995237443a9784787148282ae2459dcfa8ffa9afe",
        },
        "https://github.com/mlschmitt/classic-books-markdown (60 books, at most 5 an author; 50, 5 and 5 by seed 13)",
        "public domain",
    ),
    "SemEval2010-Task8": DataSet(
        "re",
        "re/SemEval2010-Task8",
        {
            "SemEval2010_task8_training/TRAIN_FILE.TXT": (
                "73cd76bf45c17257d9dba882655917109a863ccd42ad69ee6a34083a61202b51"
            ),
            "SemEval2010_task8_testing_keys/TEST_FILE_FULL.TXT": (
                "066b269d0bebbefaba2f347671b373d45fdecad9191513417572a07bc61b9566"
            ),
        },
        _ANNOTATED,
        "CC BY 3.0",
    ),
    "KBP37": DataSet(
        "re",
        "re/KBP37",
        {
            "train.txt": "75e12365f6e769f3cd9b186fe6632d4d4c03e0890e3baa683c115dce1f8b2d45",
            "dev.txt": "7768ed8e4cc79485ad90491726a4e4a6fe6da7d25787873fd5b5c87d5bbebe68",
            "test.txt": "e668a2127666d7c46a4519cee9c047b28ad993741eb1c925e5021b3c82b9f664",
        },
        _ANNOTATED,
        "none stated",
    ),
    "WordNet-mammals": DataSet(
        "hierarchy",
        "hierarchy",
        {"wordnet_mammals.tsv": "c592ae74b98a2168d263d107a0bfafeb33c9d311770caebf159225b788cbec16"},
        _WORDNET,
        "WordNet 3.0 licence",
    ),
    "WordNet-nouns": DataSet(
        "hierarchy",
        "hierarchy",
        {"wordnet_nouns.tsv": "dc881ae7e7b373311a6b131fd5593acf4f6c1a0d8a5dff62c11b9325145a9b7c"},
        _WORDNET,
        "WordNet 3.0 licence",
    ),
    "Airport": DataSet(
        "graph",
        "graphs/airport",
        {
            "airport.edges.csv": "e62426c2afdb9e119fa4708766f0c410d1b2e77af861617aafdb7f9c29ab5061",
            "airport.feats_and_gdp.npy": "0f6591a989c024c5f651439f9fa8d509f5f285a7f05b28b3d22ea3b40d34ff2e",
            "airport.labels.npy": "71d56abd4053b856ea98663a7f39bffa7e81a12b849dc18c968192fb612f8284",
        },
        _HGCN,
        "none stated; OpenFlights data ODbL",
    ),
    "Cora": DataSet(
        "graph",
        "graphs/cora",
        {
            "edges.csv": "3d063088df4cb347b0f9fa14ab72785603cb50bc443aa2f6fca69f795fb17234",
            "features.npz": "e6b838102f89b7555a7a0eb01d31c7b2873fd1ffe16a1f0033ec21a262e6e79f",
            "labels.npy": "1f2fde4fd4b4aca1a4ca053376fb00f5ebeb8fa3e04e8b2a9c0bfd273ca1c83b",
            "idx_train.npy": "261a257ae84f1d6695fbd575e68e224814e88a74e8fbad4cbcc12ec2574f4f4b",
            "idx_val.npy": "b57144c8777392114a59fced8df9e743c752a7b74f13c81ec34dd89ddcd09a41",
            "idx_test.npy": "e1e42f08609b44f4048f71f3a4a878297cb21ef22ae2c10e62a3df2e2eaab083",
        },
        _PLANETOID,
        "MIT",
    ),
    "Citeseer": DataSet(
        "graph",
        "graphs/citeseer",
        {
            "edges.csv": "7d1dcf507780626c6435ac01d6351d6fda82c2dfd1f7b5145b9cc88f2e38548e",
            "features.npz": "bdcf766d7f4c534c7d3ac8ab6166d5c949afd9b838d216af9ceab6cb7ec3db60",
            "labels.npy": "11daf75c5d2c46075956bb51f1006625a390b450df7459d482e0a9163d91250f",
            "idx_train.npy": "edb09659a795802077cb4ebb5ef6a60f3c8c10782370f7b4b1b2892e1f01c15b",
            "idx_val.npy": "bea760511d84047dbf60cac97182a9066be23f83dbfcbb19a3ff07ca519e4948",
            "idx_test.npy": "691bbae9f5e5ac27fc8d6c8071d80acc30e17e3cbb3ee5aa3f4d3d6f9221b7bc",
        },
        _PLANETOID,
        "MIT",
    ),
    "PubMed": DataSet(
        "graph",
        "graphs/pubmed",
        {
            "edges.csv": "a98ecfc1daa158fa87038ad9d7b9be79720c80a8352c2676e1c606e0da6ad138",
            "labels.npy": "014c63d0aa2f326f6d94cbddc611bade24fd00f5153cadd331dee94a9c0854e2",
            "idx_train.npy": "dda64ddd7c28f66a76d0455b4054b6cf4f55b4a5351dabbcf80a781b18b9c5ad",
            "idx_val.npy": "3d48258c8c8c1cc155e235137c187e53bd4a00864c2b44fdbdc81001e05d98f2",
            "idx_test.npy": "ed36ea705877d7f24915ea635b8459205b7f8fd6543adfbdf24638306556356f",
        },
        _PLANETOID,
        "MIT",
    ),
    "Disease-LP": DataSet(
        "graph",
        "graphs/disease_lp",
        {
            "disease_lp.edges.csv": "b5b7e41bbfd28fc7f61590e5587622103ee9c3aa1b59911c74873a6f328dca07",
            "disease_lp.feats.npz": "b4a726b13598c036a75e1b49f08e92820553b972966ad950b8d4d5416eb339f8",
            "disease_lp.labels.npy": "8f2b26602764fbb785b93775d9f71194f1f36920e185af8bc5c31aea07dde858",
        },
        _HGCN,
        "none stated",
    ),
    "Disease-NC": DataSet(
        "graph",
        "graphs/disease_nc",
        {
            "disease_nc.edges.csv": "08b2dcf00db1e6a8f491af5294dee98197f1251a63bc9190d05fb4e77507782e",
            "disease_nc.labels.npy": "70be7f91a854d924f3b7ac423615d75b1f9ee2506261c44113de27cc2caadd51",
        },
        _HGCN,
        "none stated",
    ),
    **TEXT,
    **LANGUAGE,
}
