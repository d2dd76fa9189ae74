"""Spaces in files: ``subspace.safetensors`` and ``subspace.json``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read
from safetensors.torch import save_file
from torch import nn

from ..errors import DeltaError
from ..storage import new_folder, replace
from .codec import Codec
from .subspace import IntrinsicSubspace

__all__ = ["load", "save"]

SCHEMA = 1
_FIELDS = ("dim", "reconstruction", "interpolation", "squared", "seed")


def save(space: IntrinsicSubspace, folder: str | Path) -> None:
    """Store a space; each file is written under another name and renamed."""
    space.codec(next(iter(space.methods), ""))  # refuses a space without methods
    folder = new_folder(folder)
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in space.codecs.state_dict().items()}
    methods = []
    for name in space.methods:
        codec = space.codec(name)
        own = {"name": name, "size": codec.size, "projector": codec.kind, "encoder": codec.into is not None}
        methods.append({**own, "options": codec.projector.config(), **_encoder(codec)})
    document = {"schema": SCHEMA, **{field: getattr(space, field) for field in _FIELDS}, "methods": methods}
    replace(folder / "subspace.safetensors", lambda path: save_file(tensors, path))
    document["sha256"] = _sha256(document, (folder / "subspace.safetensors").read_bytes())
    text = json.dumps(document, indent=1)
    replace(folder / "subspace.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))


def _sha256(document: dict[str, Any], tensors: bytes) -> str:
    """Of both files, which are written one after the other."""
    told = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode() + tensors).hexdigest()


def _encoder(codec: Codec) -> dict[str, Any]:
    return {} if codec.into is None else {"encoder_options": codec.into.config()}


def load(folder: str | Path) -> IntrinsicSubspace:
    """A stored space."""
    folder = Path(folder)
    try:
        document = json.loads((folder / "subspace.json").read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise DeltaError(f"{folder}: schema {document['schema']} of a subspace, this version reads {SCHEMA}")
        content = (folder / "subspace.safetensors").read_bytes()
        tensors = read(content)
        if document.get("sha256", expected := _sha256(document, content)) != expected:
            raise DeltaError(f"{folder}: subspace.json and subspace.safetensors are not of one space, or were changed")
        if wrong := [
            name for name, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())
        ]:
            raise DeltaError(f"{folder}: {wrong[0]} is not finite everywhere")
        space = IntrinsicSubspace(
            projector={own["name"]: own["projector"] for own in document["methods"]},
            options={own["name"]: own["options"] for own in document["methods"]},
            **{field: document[field] for field in _FIELDS},
        )
        generator = torch.Generator().manual_seed(0)
        codecs = nn.ModuleDict()
        for own in document["methods"]:
            codec = Codec(
                own["size"],
                space.dim,
                projector=own["projector"],
                generator=generator,
                start=torch.zeros(own["size"]) if f"{own['name']}.start" in tensors else None,
                encoder=own["encoder"],
                options=own["options"],
            )
            if codec.into is not None and "seed" in own["encoder_options"]:
                codec.into.seed = own["encoder_options"]["seed"]
            codecs[own["name"]] = codec
        codecs.load_state_dict(tensors)
    except DeltaError:
        raise
    except NotADirectoryError:
        raise DeltaError(f"{folder} is a file: give the folder that holds subspace.json") from None
    except FileNotFoundError as error:
        raise DeltaError(f"{folder} holds no subspace: {error.filename} is not there") from None
    except (json.JSONDecodeError, SafetensorError, UnicodeDecodeError) as error:
        raise DeltaError(f"{folder} holds a broken subspace: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DeltaError(
            f"{folder} holds no subspace that fits together: {' '.join(str(error).split())[:300]}"
        ) from None
    space.codecs = codecs
    return space
