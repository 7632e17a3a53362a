"""A copy of the contracts and their tests, to be changed and built without touching the checkout."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def lay(tree: Path, tests: Callable[[str], bool] = lambda name: True) -> None:
    """A new tree with the contracts and those test files whose name is wanted."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    shutil.copytree(ROOT / "contracts", tree / "contracts")
    for path in (tree / "contracts" / "test").glob("*.t.sol"):
        if not tests(path.name):
            path.unlink()
    shutil.copytree(ROOT / "tests" / "vectors", tree / "tests" / "vectors")
    for name in ("package.json", "hardhat.config.js"):
        shutil.copy(ROOT / name, tree)
    (tree / "node_modules").symlink_to(ROOT / "node_modules")


def hardhat(
    tree: Path, command: list[str], environment: dict[str, str], limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs Hardhat in a tree. Raises subprocess.TimeoutExpired after `limit` seconds."""
    whole = ["npx", "--no-install", "hardhat", *command]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(whole, cwd=tree, env=os.environ | environment, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # npx's child too
            raise
    return subprocess.CompletedProcess(whole, process.returncode, out, err)
