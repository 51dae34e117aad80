"""Digests of what a run stores, by which changes show without a model and without drawing again.

- `run.json` holds the SHA-256 of all of its other content.
- Each row holds a digest of all of its columns, keyed by that of `run.json`: a row says to which question, seed and
  model it belongs, and whoever writes it needs no other row. So many processes can write rows of one run.
- `finished.json` holds the digest of all rows' digests together, which tells that rows are missing or were added.

They show mistakes and careless edits: a sorted column, a repaired label, rows of two runs in one file. They are no
signature: whoever changes a row on purpose can compute them all again. Against that help only seeds and counts, which
`robustify verify` draws again from model and data.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import blake2b, sha256
from typing import Any

from robustify.runs.rows import Row

DIGEST = "digest"
"""Name of the key or column that holds the digest of everything beside it."""


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a `run.json`, but for the digest itself."""
    return sha256(_text({key: value for key, value in config.items() if key != DIGEST})).hexdigest()


def keyed_digest(content: Mapping[str, Any], key: str) -> str:
    """BLAKE2 digest of a row or of other content of a run, but for the digest itself.

    Arguments:
        content: What JSON can hold.
        key: The digest of the run's `run.json`.
    """
    text = _text({name: value for name, value in content.items() if name != DIGEST})
    return blake2b(text, key=key.encode()[:64], digest_size=32).hexdigest()


def row_digest(row: Row, key: str) -> str:
    """The digest of all columns of a row of the run whose `run.json` has the digest `key`."""
    content = asdict(row)
    if row.uncertified is None:  # as before there was this column
        del content["uncertified"]
    return keyed_digest(content, key)


def rows_digest(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows' own digests, whose order does not matter."""
    return sha256(_text(sorted(str(row.digest) for row in rows))).hexdigest()


def samples_digest(samples: Iterable[tuple[str, int | None]]) -> str:
    """SHA-256 of the names and true classes of all images of a run, whose order does not matter."""
    return sha256(_text(sorted(_text(sample).decode() for sample in samples))).hexdigest()


def _text(content: object) -> bytes:
    """The content as JSON, which is the same for the same content: keys in order, numbers to the last bit."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
