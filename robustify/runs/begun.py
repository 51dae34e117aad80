"""Draws of images that are not decided yet, on disk, so that an interruption costs about 20 seconds at most."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import final

from robustify.errors import RunError
from robustify.folders import disk, make_folder, write_whole
from robustify.runs.digests import DIGEST, keyed_digest
from robustify.smoothing.rounds import Begun


@final
@dataclass(frozen=True)
class BegunStore:
    """The folder `begun/` of a run: one file an image, until its row is written.

    Arguments:
        folder: The run's folder, which exists.
        key: The digest of the run's `run.json`.
        batch: Images per forward pass: draws of another batch are another base function's.
    """

    folder: Path
    key: str
    batch: int

    @property
    def _files(self) -> Path:
        return self.folder / "begun"

    def read(self) -> dict[tuple[str, str, int], Begun]:
        """What is there, by name and fingerprint of the image, and batch.

        Raises:
            RunError: If a file cannot be read or is not as it was written.
        """
        return dict(map(self._read, sorted(self._files.glob("*.json"))))

    def write(self, pixels: Mapping[str, str], begun: Mapping[str, Begun]) -> None:
        """Writes draws in place of those that are there.

        Arguments:
            pixels: Fingerprint of each image, by its name.
            begun: Draws by the names of images.

        Raises:
            RunError: If the disk is full or gone; rows written before stay.
        """
        with disk(self.folder, "Rows written before"):
            make_folder(self._files)
            for sample, draws in begun.items():
                content = {"sample": sample, "pixels": pixels[sample], "batch": self.batch, **draws._asdict()}
                digest = keyed_digest(content, self.key)
                write_whole(self._file(sample), json.dumps({**content, DIGEST: digest}).encode())

    def forget(self, sample: str) -> None:
        """Deletes the draws of an image whose row is written."""
        self._file(sample).unlink(missing_ok=True)

    def clear(self) -> None:
        """Deletes everything, once the run is done."""
        shutil.rmtree(self._files, ignore_errors=True)

    def _file(self, sample: str) -> Path:
        return self._files / f"{blake2b(sample.encode(), digest_size=12).hexdigest()}.json"

    def _read(self, file: Path) -> tuple[tuple[str, str, int], Begun]:
        try:
            content = json.loads(file.read_bytes())
            if content[DIGEST] != keyed_digest(content, self.key):
                raise ValueError("it is not as it was written")
            told, counted = (tuple(map(tuple, content[name])) for name in Begun._fields)
            return (content["sample"], content["pixels"], content["batch"]), Begun(told, counted)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"cannot go on with the draws in {str(file)!r}: {error}.\n  Delete it to draw its image again."
            ) from error
