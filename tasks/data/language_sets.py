"""The treebanks and the parallel text of the table of data sets."""

from __future__ import annotations

from .entry import DataSet

__all__ = ["LANGUAGE"]


def _treebank(folder: str, prefix: str, licence: str, train: str, valid: str, test: str) -> DataSet:
    digests = zip(("train", "dev", "test"), (train, valid, test), strict=True)
    files = {f"{prefix}-ud-{part}.conllu": digest for part, digest in digests}
    origin = f"https://github.com/UniversalDependencies/{folder}"
    return DataSet("treebank", f"parsing/{folder}", files, origin, licence)


LANGUAGE: dict[str, DataSet] = {
    "UD_English-EWT": _treebank(
        "UD_English-EWT",
        "en_ewt",
        "CC BY-SA 4.0",
        "3fb78e2b55482c8ee00caa653af436c88c9e5bc9a73ce26e4ae3ddc79d2b7e7b",
        "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
        "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd",
    ),
    "UD_English-LinES": _treebank(
        "UD_English-LinES",
        "en_lines",
        "CC BY-NC-SA 4.0",
        "27609ded288bf3704def21f18d227e3f40957b4981174411f6bed34acf3025b6",
        "3aabd1f843517fb615c8760c316a76125af2fff01c59b9a4049fe7c393891d2b",
        "14c56b50da6d8876ce1fdaa9b19c2845dfff73ff57766ddc2f812d88612ce3a8",
    ),
    "Multi30k": DataSet(
        "parallel",
        "mt/multi30k",
        {
            "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
            "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
            "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
            "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
            "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
            "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
            "test_2017_flickr.en": "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98",
            "test_2017_flickr.de": "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081",
            "test_2017_mscoco.en": "43051fdfa86fd5395182e718a94ca67b1b227b9f7c79596ff0f6b813216981d2",
            "test_2017_mscoco.de": "58277df3c75f92f7145a11b910b553d1cf82c439249d4dc237c899609eafac22",
        },
        "https://github.com/multi30k/dataset (data/task1/raw)",
        "none stated; CC BY-NC-SA 4.0 by custom",
    ),
}
