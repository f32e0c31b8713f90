"""Counts the instructions of the engine's hot paths and compares them with the committed baseline.

`run.py` checks: it fails when a scenario needs over 10 % more instructions than the baseline says.
`run.py --write` takes a new baseline. `run.py --spread 3` counts three times and shows the spread.

The counts come from valgrind's callgrind, which simulates the processor: clock, caches and load change
nothing. Each scenario runs twice, with few and with many rounds; the difference is the work itself, without
start and end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.10
# Enough rounds that hash seeds, which are drawn anew for each map, average out.
FEW, MANY = 20, 220
REFRESH = "make bench-instructions BASELINE=write"


@dataclass(frozen=True)
class Row:
    """One scenario's counts, per round."""

    name: str
    before: int | None
    now: int | None

    @property
    def change(self) -> float | None:
        """The rise as a fraction; None where there is nothing to compare."""
        if self.before is None or self.now is None:
            return None
        return self.now / self.before - 1

    @property
    def verdict(self) -> str:
        """`ok`, `ROSE`, `fell`, `NEW` or `GONE`."""
        if self.change is None:
            return "NEW" if self.before is None else "GONE"
        if round(self.change, 9) > TOLERANCE:
            return "ROSE"
        return "fell" if self.change < -TOLERANCE else "ok"


def compare(baseline: dict[str, int], counts: dict[str, int]) -> list[Row]:
    """A row per scenario of either side, in the order of the counts."""
    names = [*counts, *(name for name in baseline if name not in counts)]
    return [Row(name, baseline.get(name), counts.get(name)) for name in names]


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    width = max((len(row.name) for row in rows), default=0)
    lines = [f"{'scenario':<{width}}  {'baseline':>10}  {'now':>10}  {'change':>8}"]
    for row in rows:
        before = "-" if row.before is None else f"{row.before:,}"
        now = "-" if row.now is None else f"{row.now:,}"
        change = "" if row.change is None else f"{row.change:+.1%}"
        lines.append(f"{row.name:<{width}}  {before:>10}  {now:>10}  {change:>8}  {row.verdict}")
    return "\n".join(lines)


def failures(rows: list[Row]) -> list[str]:
    """What is wrong, a sentence per scenario."""
    sentences: list[str] = []
    for row in rows:
        if row.verdict == "ROSE":
            sentences.append(
                f"{row.name} needs {row.now:,} instructions, {row.change:+.1%} over {row.before:,}"
            )
        elif row.verdict == "NEW":
            sentences.append(f"{row.name} is not in the baseline; take it up with `{REFRESH}`")
        elif row.verdict == "GONE":
            sentences.append(f"{row.name} is in the baseline but no longer measured; `{REFRESH}`")
    return sentences


def build() -> Path:
    """Builds the measured program; gives its path."""
    command = ["cargo", "build", "--locked", "--quiet", "--profile", "counted", "-p", "liter-llm-bench"]
    subprocess.run([*command, "--bin", "instructions"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "counted" / "instructions"


def toolchain() -> dict[str, str]:
    """The compiler's version and the machine it compiles for."""
    text = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {"rustc": facts["release"], "target": facts["host"]}


def instructions(program: Path, name: str, rounds: int) -> int:
    """The instructions of one run, from its start to its end."""
    with tempfile.NamedTemporaryFile(suffix=".callgrind") as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", str(program)]
        done = subprocess.run(
            [*command, name, str(rounds)], capture_output=True, text=True, check=False, timeout=600
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"{name}: valgrind ended with {done.returncode}\n{done.stderr[-2000:]}")
    return int(found[1])


def per_round(program: Path, name: str) -> int:
    """The instructions of one round of a scenario."""
    return round((instructions(program, name, MANY) - instructions(program, name, FEW)) / (MANY - FEW))


def count(program: Path, only: str | None = None) -> dict[str, int]:
    """Instructions per round of all scenarios, or of one."""
    listed = subprocess.run([str(program), "--list"], capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split() if only in (None, name)]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return dict(zip(names, pool.map(lambda name: per_round(program, name), names), strict=True))


def write(counts: dict[str, int]) -> None:
    """Takes the counts as the new baseline."""
    document = {**toolchain(), "instructions": counts}
    BASELINE.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {BASELINE.relative_to(ROOT)}")


def check(counts: dict[str, int]) -> int:
    """Compares with the baseline and prints the table; the exit status."""
    document = json.loads(BASELINE.read_text(encoding="utf-8"))
    here = toolchain()
    if document["target"] != here["target"]:
        print(
            f"the baseline is for {document['target']}, this is {here['target']}: not comparable, not checked"
        )
        return 1 if os.environ.get("CI") else 0
    if document["rustc"] != here["rustc"]:
        print(f"note: the baseline was taken with rustc {document['rustc']}, this is {here['rustc']}")
    rows = compare(document["instructions"], counts)
    print(table(rows))
    if any(row.verdict == "fell" for row in rows):
        print(f"\nSome counts fell by over {TOLERANCE:.0%}: well done; keep it that way with `{REFRESH}`")
    wrong = failures(rows)
    if wrong:
        print("\n" + "\n".join(f"FAILED: {sentence}" for sentence in wrong))
        print(f"Find the cause, or, when the work is wanted, take the new counts with `{REFRESH}`.")
    return 1 if wrong else 0


def show_spread(program: Path, times: int) -> int:
    """Counts several times and shows how far the counts differ."""
    counted = [count(program) for _ in range(times)]
    for name in counted[0]:
        values = [counts[name] for counts in counted]
        print(f"{name:<34}{min(values):>10,}{max(values):>10,}{max(values) / min(values) - 1:>9.3%}")
    return 0


def main(arguments: list[str]) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="take a new baseline")
    parser.add_argument("--only", metavar="SCENARIO", help="count one scenario")
    parser.add_argument("--spread", type=int, metavar="TIMES", help="count several times, show the spread")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("instruction counts: skipped, valgrind is not installed (Debian package: valgrind)")
        return 1 if os.environ.get("CI") else 0
    program = build()
    if options.spread:
        return show_spread(program, options.spread)
    counts = count(program, options.only)
    if options.only:
        known = json.loads(BASELINE.read_text(encoding="utf-8"))["instructions"]
        rows = compare({name: known[name] for name in known if name == options.only}, counts)
        print(table(rows))
        wrong = failures(rows)
        print("\n".join(f"FAILED: {sentence}" for sentence in wrong))
        return 1 if wrong else 0
    if options.write:
        write(counts)
        return 0
    return check(counts)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
