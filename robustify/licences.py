"""Licences, as model cards state them."""

from pathlib import Path


def licence_of(name: str) -> str | None:
    """The licence in the model card of a folder or Hub id; None where no card names one or none can be reached."""
    from huggingface_hub import ModelCard  # here, since the package is slow to import and few need it

    folder = Path(name)
    card = folder / "README.md" if folder.is_dir() else name
    if folder.is_dir() and not (folder / "README.md").is_file():
        return None
    try:
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict().get("license")
    except (OSError, ValueError):
        return None
    return str(licence) if licence else None
