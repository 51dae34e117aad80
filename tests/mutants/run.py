"""Does the test suite catch a liar? `python tests/mutants/run.py`

Each mutant of the lists in this folder (`*.toml`) changes one place in a copy of the package into a lie; the tests
named there are run against it and should fail. The working tree is copied first: it is never changed, and may change
meanwhile.
Prints what killed each mutant, writes `score.json`, and fails below a score of 95 %.
"""

import argparse
import datetime
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LEAST = 0.95
TIMEOUT = 300
"""Seconds; a mutant that hangs is caught too."""


def environment(copy: Path) -> dict[str, str]:
    """The environment in which Python finds the copy before the installed package."""
    # no bytecode: two mutants of one length and second would share it
    return {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def check_imported(copy: Path) -> None:
    """Refuses to go on if Python would import anything but the copy."""
    code = "import importlib.util; print(importlib.util.find_spec('robustify').origin)"
    command = [sys.executable, "-P", "-c", code]
    found = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=True).stdout
    if found.strip() != str(copy / "robustify" / "__init__.py"):
        sys.exit(f"the tests would import {found.strip()}, not the copy in {copy}")


def run_tests(copy: Path, files: list[str], *more: str, timeout: float = TIMEOUT) -> tuple[int, str]:
    """Exit status of pytest against the copy, and the end of what it wrote."""
    options = [*more, "-q", "-p", "no:cacheprovider", "-c", str(copy / "pyproject.toml"), "--rootdir", str(copy)]
    command = [sys.executable, "-P", "-m", "pytest", *options, *(f"tests/{file}" for file in files)]
    try:
        found = subprocess.run(
            command, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return 1, f"no end within {timeout} s"
    return found.returncode, found.stdout + found.stderr[-1_000:]


def judge(mutant: dict[str, Any], copies: "queue.Queue[Path]") -> tuple[str, str]:
    """Applies one mutant to a free copy, runs its tests, mends the copy; "killed", "survived" or "broken", and why."""
    copy = copies.get()
    file = copy / "robustify" / mutant["file"]
    text = file.read_text()
    try:
        if (count := text.count(mutant["original"])) != 1:
            return "broken", f"its original occurs {count} times in {mutant['file']}; expected once"
        file.write_text(text.replace(mutant["original"], mutant["mutated"]))
        check_imported(copy)
        status, output = run_tests(copy, mutant["tests"], "-x")
    finally:
        file.write_text(text)
        copies.put(copy)
    if status == 0:
        return "survived", mutant["lie"]
    if status == 1:
        return "killed", next(iter(failures(output)), "by hanging")
    return "broken", f"pytest ended with {status}:\n{output[-2_000:]}"


def failures(output: str) -> list[str]:
    """The tests, or whole files, that failed."""
    return re.findall(r"^(?:FAILED|ERROR) tests/(\S+)", output, re.MULTILINE)


def fail_anyway(copies: "queue.Queue[Path]", files: list[str]) -> set[str]:
    """Those of the test files that fail without any mutant: they can kill none."""
    copy = copies.get()
    status, output = run_tests(copy, files, timeout=10 * TIMEOUT)
    copies.put(copy)
    faulty = {file for file in files for failure in failures(output) if failure.startswith(file)}
    if status != 0 and not faulty:
        sys.exit(f"the tests do not run:\n{output[-4_000:]}")
    return faulty


def survey(mutants: list[dict[str, Any]], processes: int) -> dict[str, str]:
    """The outcome of each mutant; it is "broken" where its tests fail without it."""
    copies: queue.Queue[Path] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(processes) as pool:
        for i in range(processes):
            copy = Path(folder).resolve() / str(i)
            for part in ("robustify", "tests"):
                shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", copy)
            check_imported(copy)
            copies.put(copy)
        faulty = fail_anyway(copies, sorted({file for mutant in mutants for file in mutant["tests"]}))
        for file in sorted(faulty):
            print(f"{file} fails without any mutant")
        fair = [mutant for mutant in mutants if faulty.isdisjoint(mutant["tests"])]
        outcomes = {mutant["name"]: "broken" for mutant in mutants if mutant not in fair}
        for mutant, (outcome, why) in zip(fair, pool.map(lambda m: judge(m, copies), fair), strict=True):
            print(f"{outcome:<8} {mutant['name']}: {why}", flush=True)
            outcomes[mutant["name"]] = outcome
        return outcomes


def main() -> None:
    """Reads the list and the arguments; prints, writes, and fails below the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these alone; writes no score")
    parser.add_argument("--again", action="store_true", help="judge again those that survived, and mend the score")
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    mutants = [mutant for file in sorted(HERE.glob("*.toml")) for mutant in tomllib.loads(file.read_text())["mutant"]]
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant['name']:<34} {mutant['file']:<28} {mutant['lie']}")
        return
    before = json.loads((HERE / "score.json").read_text()) if arguments.again else None
    if before is not None:
        arguments.only = before["survived"]
    if arguments.only:
        if unknown := set(arguments.only) - {mutant["name"] for mutant in mutants}:
            sys.exit(f"no mutants named {', '.join(sorted(unknown))}; see --list")
        mutants = [mutant for mutant in mutants if mutant["name"] in arguments.only]
    outcomes = survey(mutants, arguments.processes)
    killed, broken = (sum(o == kind for o in outcomes.values()) for kind in ("killed", "broken"))
    print(f"{killed} of {len(outcomes)} mutants killed, {killed / len(outcomes):.1%}; {broken} could not be judged")
    if before is not None:
        left = [name for name, outcome in outcomes.items() if outcome != "killed"]
        before |= {"killed": before["mutants"] - len(left) - len(before["not_judged"]), "survived": left}
        before["command"] = "python tests/mutants/run.py, then with --again after tests were added"
        (HERE / "score.json").write_text(json.dumps(before, indent=2) + "\n")
        sys.exit(before["killed"] < LEAST * before["mutants"])
    if not arguments.only:
        art = [mutant["name"] for mutant in mutants if mutant.get("art")]
        score = {
            "command": "python tests/mutants/run.py",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "mutants": len(outcomes),
            "killed": killed,
            "art_mutants": len(art),
            "art_killed": sum(outcomes[name] == "killed" for name in art),
            "survived": [name for name, outcome in outcomes.items() if outcome == "survived"],
            "not_judged": [name for name, outcome in outcomes.items() if outcome == "broken"],
        }
        (HERE / "score.json").write_text(json.dumps(score, indent=2) + "\n")
    sys.exit(bool(broken) or killed < LEAST * len(outcomes))


if __name__ == "__main__":
    main()
