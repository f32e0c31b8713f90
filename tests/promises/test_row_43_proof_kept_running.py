"""Row 43: the soak run ends with no lost call, no wrong answer and no more open files than it began with.

The other proofs of this row have places of their own: the models of breaker, limits and quota over many
interleavings are `crates/liter-llm/tests/models.rs`, fuzzing without a nightly compiler is `fuzz_smoke.rs`.
What needs a nightly compiler (Miri, the sanitizers, cargo-fuzz) is not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FULL_MINUTES, SHORT_MINUTES = 60.0, 0.15
#: How long the run may take to begin and to end, in seconds.
MARGIN = 120


def test_row_43_nothing_is_lost_in_a_soak_run(soak: bool) -> None:
    minutes = FULL_MINUTES if soak else SHORT_MINUTES
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/soak/soak.py")],
        env={**os.environ, "LITER_LLM_SOAK_MINUTES": str(minutes)},
        capture_output=True,
        text=True,
        timeout=minutes * 60 + MARGIN,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| lost calls | 0 |" in done.stdout
    assert "| wrong answers | 0 |" in done.stdout
