"""`robustify demo`: what it prints is what its runs hold."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustify.runs.folder import read_run
from robustify.runs.metrics import certified_accuracy

Command = Callable[..., Any]
"""Runs a command line; answers with status, stdout and stderr."""


def test_the_demo_leaves_a_report(tmp_path: Path, robustify: Command) -> None:
    found = robustify("demo", "--images", 4, "--n", 30)
    assert found.status == 0, found.stderr
    report = tmp_path / "robustify-demo" / "report.html"
    assert f"report: {report}" in found.stdout
    for words in ("draw/s", "it/s", "%|"):
        assert words not in found.stderr  # bars are for terminals
    assert found.stderr == 4 * "checking that the model is one fixed function of each image …\n"
    runs = {
        (title, kind): read_run(tmp_path / "robustify-demo" / folder / kind)
        for title, folder in (("timm classifier", "timm"), ("zero-shot CLIP", "open_clip"))
        for kind in ("plain", "denoised")
    }
    shown = {key: f"{100 * certified_accuracy(run.rows, 0.25):g} %" for key, run in runs.items()}
    told = "; ".join(
        f"{title}, no denoiser {shown[title, 'plain']} → {shown[title, 'denoised']} with one"
        for title in ("timm classifier", "zero-shot CLIP")
    )
    assert f"\nProvably right within radius 0.25, without further training: {told}.\n" in found.stdout
    heading, *lines = [re.split("  +", line) for line in found.stdout.split("\n\n")[-4].splitlines()]
    assert heading == ["model", "clean", "r = 0", "r = 0.25", "mean radius"]
    assert [line[0] for line in lines[:2]] == ["timm classifier, no denoiser", "timm classifier"]
    within = [shown["timm classifier", kind] for kind in ("plain", "denoised")]
    assert [float(line[3][:-1]) for line in lines[:2]] == [float(share[:-1]) for share in within]
    assert max(len(run.rows) for run in runs.values()) == 4
    html = report.read_text()
    for part in (
        "timm classifier",
        "zero-shot CLIP, no denoiser",
        "<svg",
        "data:image/png",
        "chance at most 0.001",
    ):
        assert part in html
