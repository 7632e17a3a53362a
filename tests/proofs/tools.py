"""The tools that prove, in an environment of their own: they need other versions of our libraries than we do."""

import subprocess
import sys
from pathlib import Path

from tests.proofs.tree import ROOT

TOOLS = ROOT / "build" / "prove"
LOCK = Path(__file__).parent / "requirements.lock"


def tool(name: str) -> Path:
    """A locked tool; the environment is made on first use."""
    ready = TOOLS / ".ready"
    if not ready.exists() or ready.stat().st_mtime < LOCK.stat().st_mtime:
        subprocess.run([sys.executable, "-m", "venv", str(TOOLS)], check=True)
        pip = [str(TOOLS / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", str(LOCK)], check=True, stderr=subprocess.DEVNULL)
        ready.touch()
    return TOOLS / "bin" / name
