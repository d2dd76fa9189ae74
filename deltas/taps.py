"""The kinds of sites, and what it means to put a part there."""

from __future__ import annotations

from . import attention, joining, linear, replacing
from .base import Site

__all__ = ["insert", "remove", "switch"]


def insert(site: Site, key: str) -> None:
    """Put the part of a site into its module under `key`."""
    assert site.part is not None
    if site.kind == "linear":
        linear.insert(site.module, key, site.part, site.place)
    elif site.kind == "attention":
        attention.insert(site.module, key, site.part, site.place)
    elif site.kind == "activation":
        replacing.insert(site.module, key, site.part, site.place)
    elif site.kind == "embeddings":
        joining.insert(site.module, key, site.part, site.names, site.path)


def remove(site: Site, key: str) -> None:
    """Take the part of a site out."""
    assert site.part is not None
    if site.kind == "linear":
        linear.remove(site.module, key)
    elif site.kind == "attention":
        attention.remove(site.module, key)
    elif site.kind == "activation":
        replacing.remove(site.module, key, site.part, site.place)
    elif site.kind == "embeddings":
        joining.remove(site.module, key)


def switch(site: Site, key: str, on: bool) -> None:
    """Let the part of a site act, or not."""
    assert site.part is not None
    if site.kind == "linear":
        linear.switch(site.module, key, on)
    elif site.kind == "attention":
        attention.switch(site.module, key, on)
    elif site.kind == "activation":
        (replacing.insert if on else replacing.remove)(site.module, key, site.part, site.place)
    elif site.kind == "embeddings":
        joining.switch(site.module, key, on)
