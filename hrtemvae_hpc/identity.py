"""What distinguishes one analysis, training or content of a file from another."""

import hashlib
import json
from collections.abc import Iterable


def digest_of(facts: object, following: Iterable[bytes | memoryview] = ()) -> str:
    """SHA-256, in hexadecimal, of ``facts`` as JSON with sorted keys and of the bytes ``following`` it.

    Files keep such digests: those of the same facts must never change.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for more in following:
        digest.update(more)
    return digest.hexdigest()
