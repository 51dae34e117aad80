"""Rows on disk: one Parquet row per image, written whole or not at all.

A run folder holds `run.json` (what was run), `rows/` (one file per image while the run lasts) and `rows.parquet`
(all of them, once it is done). Rows hold integer counts, from which everything else can be computed again.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import pyarrow.parquet as pq

from robustify.certificates import Certificate
from robustify.certificates.plans import Look
from robustify.errors import RunError
from robustify.folders import disk, write_whole
from robustify.types import Image

_COUNTS = pa.list_(pa.int64())

SCHEMA = pa.schema(
    [
        ("sample", pa.string()),
        ("truth", pa.int64()),
        ("label", pa.int64()),
        ("radius", pa.float64()),
        ("p_lower", pa.float64()),
        ("p_upper", pa.float64()),
        ("selection", _COUNTS),
        ("votes", _COUNTS),
        ("looks", pa.list_(_COUNTS)),
        ("rule", pa.string()),
        ("radii", pa.list_(pa.float64())),
        ("sigma", pa.float64()),
        ("alpha", pa.float64()),
        ("n0", pa.int64()),
        ("n", pa.int64()),
        ("slack", pa.float64()),
        ("seed", pa.string()),
        ("soundness", pa.string()),
        ("batch", pa.int64()),
        ("pixels", pa.string()),
        ("seconds", pa.float64()),
    ]
)


@final
@dataclass(frozen=True)
class Row:
    """What is kept of one image: integer counts, and all that the claim follows from.

    Arguments:
        sample: Its id in the data set.
        truth: True class index; None where unknown.
        label: Certified class index; None where the classifier abstained.
        radius: ℓ2, in [0, 1] pixels, exclusive.
        p_lower, p_upper: Bounds on the label's and on any other's probability.
        selection: Votes that chose the label, one count per class; those when a leader was last chosen, under the
            rule "leader", and none where the label was known.
        votes: One count per class.
        looks: Draws, votes for the label and for its strongest rival at each look.
        rule, radii, sigma, alpha, n0, n, slack: The plan, fixed before the first draw.
        seed: 128 bits in decimal.
        soundness: How noise met pixels.
        batch: Images per forward pass.
        pixels: SHA-256 of the pixels that were certified.
        seconds: Wall time since the row before.
    """

    sample: str
    truth: int | None
    label: int | None
    radius: float
    p_lower: float
    p_upper: float
    selection: tuple[int, ...]
    votes: tuple[int, ...]
    looks: tuple[Look, ...]
    rule: str
    radii: tuple[float, ...]
    sigma: float
    alpha: float
    n0: int
    n: int
    slack: float
    seed: str
    soundness: str
    batch: int
    pixels: str
    seconds: float

    @classmethod
    def of(cls, certificate: Certificate, *, truth: int | None, pixels: str, seconds: float) -> "Row":
        """The row of a certificate."""
        c, e = certificate, certificate.provenance
        return cls(
            sample=e.sample,
            truth=truth,
            label=c.label,
            radius=c.radius,
            p_lower=c.p_lower,
            p_upper=c.p_upper,
            selection=c.selection,
            votes=c.votes,
            looks=c.looks,
            rule=e.plan.rule,
            radii=getattr(e.plan, "radii", ()),
            sigma=e.plan.sigma,
            alpha=e.plan.alpha,
            n0=e.plan.n0,
            n=e.plan.n,
            slack=e.plan.slack,
            seed=str(e.seed),
            soundness=e.soundness,
            batch=e.batch,
            pixels=pixels,
            seconds=seconds,
        )

    @property
    def drawn(self) -> int:
        """Draws that tested the label."""
        return self.looks[-1].n

    @property
    def correct(self) -> bool:
        """Whether the certified label is the true one."""
        return self.label is not None and self.label == self.truth


@final
class RowStore:
    """The folder of one run. The same configuration continues it, any other is refused.

    Arguments:
        folder: Made where missing.
        config: JSON-able description of the run; what decides whether rows belong together.

    Raises:
        RunError: If the folder holds another run or other files, or cannot be written.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self._parts = folder / "rows"
        self._whole = folder / "rows.parquet"
        self.config = self._open(json.loads(json.dumps(config)))

    def _open(self, config: dict[str, Any]) -> dict[str, Any]:
        file = self.folder / "run.json"
        if file.is_file():
            return _same_run(json.loads(file.read_text()), config, self.folder)
        if self.folder.is_file() or (self.folder.is_dir() and any(self.folder.iterdir())):
            raise RunError(f"{str(self.folder)!r} holds something that is no certification run; choose another folder")
        with disk(self.folder, "Rows written before"):
            self._parts.mkdir(parents=True)
            write_whole(file, json.dumps(config, indent=2).encode())
        return config

    def rows(self) -> list[Row]:
        """Every row written so far, by sample id; a half-written file does not count."""
        files = [self._whole, *sorted(self._parts.glob("*.parquet"))]
        found = {row.sample: row for file in files if file.is_file() for row in _read(file)}
        return [found[sample] for sample in sorted(found)]

    def add(self, row: Row) -> None:
        """Writes one row; after this returns, nothing short of losing the disk loses it.

        Raises:
            RunError: If the disk is full or gone; rows written before stay.
        """
        name = blake2b(row.sample.encode(), digest_size=12).hexdigest()
        with disk(self.folder, "Rows written before"):
            self._parts.mkdir(exist_ok=True)
            _write_table(self._parts / f"{name}.parquet", [row])

    def finish(self) -> None:
        """Joins the rows into one file."""
        rows = self.rows()
        with disk(self.folder, "Rows written before"):
            _write_table(self._whole, rows)
            if self._parts.is_dir():
                shutil.rmtree(self._parts)


def pixels_hash(image: Image) -> str:
    """SHA-256 of the pixels that are certified, which names an image wherever it is."""
    return sha256(image.cpu().contiguous().numpy().data).hexdigest()


def _same_run(stored: dict[str, Any], wanted: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The stored configuration, if it is the wanted one; a fresh seed gives way to the fresh seed stored."""
    if wanted.get("fresh") and stored.get("fresh"):
        wanted = {**wanted, "seed": stored["seed"]}
    different = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
    different = [k for k in different if not any(cause in different for cause in _FOLLOWS.get(k, ()))]
    if different:
        lines = [f"  {key}: there {_short(stored.get(key))}, now {_short(wanted.get(key))}" for key in different]
        raise RunError(f"{str(folder)!r} holds another run:\n" + "\n".join(lines) + "\n  Choose another folder.")
    return stored


_FOLLOWS = {"denoiser": ("sigma",), "denoiser_sha256": ("denoiser", "sigma"), "slack": ("sigma", "soundness")}
"""What a readable difference leaves out, because something else that differs implies it."""


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def _write_table(file: Path, rows: Iterable[Row]) -> None:
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(file, sink.getvalue().to_pybytes())


def _read(file: Path) -> list[Row]:
    try:
        records = pq.read_table(file, schema=SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RunError(
            f"cannot read rows from {str(file)!r}: {error}.\n  Delete it to run its images again."
        ) from error
    return [_row(record) for record in records]


def _row(record: dict[str, Any]) -> Row:
    tuples = {name: tuple(record[name]) for name in ("selection", "votes", "radii")}
    return Row(**{**record, **tuples, "looks": tuple(Look(*look) for look in record["looks"])})
