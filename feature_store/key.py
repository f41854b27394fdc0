"""What a store is keyed by: the hash of the spec, and the hash of each item's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from feature_store.errors import SpecError

#: Facts under this key of a spec are stored with it but take no part in its hash.
RECORDED = "recorded"

#: Length in bytes of a content hash.
DIGEST_BYTES = 32


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no blanks, tuples as lists, only finite numbers.

    Raises:
        SpecError: Naming the key whose value is not plain JSON.
    """
    return json.dumps(_plain(value, "spec"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def plain_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as plain dicts, lists, strings, numbers, booleans and None, as it comes back from a manifest.

    Raises:
        SpecError: Naming the key whose value is not plain JSON.
    """
    return json.loads(canonical_json(spec))


def spec_hash(spec: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of a spec without its ``recorded`` part.

    Raises:
        SpecError: Naming the key whose value is not plain JSON.
    """
    hashed = {key: value for key, value in spec.items() if key != RECORDED}
    return hashlib.sha256(canonical_json(hashed).encode()).hexdigest()


def check_catalogue(items: Mapping[str, bytes]) -> None:
    """Refuse ids that are not non-empty strings and contents that are not SHA-256 digests.

    Raises:
        SpecError: Naming the first malformed entry.
    """
    for item_id, content in items.items():
        check_item_id(item_id)
        if not _is_digest(content):
            raise SpecError(f"item {item_id!r}: expected the 32-byte sha256 of its content, got {_describe(content)}")


def check_item_id(item_id: object) -> None:
    """Refuse anything but a non-empty string.

    Raises:
        SpecError: Naming what came.
    """
    if not isinstance(item_id, str) or not item_id:
        raise SpecError(f"expected item ids to be non-empty strings, got {item_id!r} ({type(item_id).__name__})")


def _is_digest(content: object) -> bool:
    return isinstance(content, bytes) and len(content) == DIGEST_BYTES


def _describe(content: object) -> str:
    return f"{len(content)} bytes" if isinstance(content, bytes) else f"{type(content).__name__} {content!r}"


def _plain(value: Any, where: str) -> Any:
    """A copy of ``value`` made of JSON types alone; ``where`` is the dotted key, for the message."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if value - value != 0:  # neither NaN nor an infinity has a JSON text
            raise SpecError(f"{where}: {value!r} has no JSON text; use a finite number, a string or null")
        return value
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    raise SpecError(f"{where}: a spec holds JSON values only, got {type(value).__name__} {value!r}")


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise SpecError(f"{where}: keys are strings, got {key!r} ({type(key).__name__})")
    return key
