"""Where numbers come from: versions, git state, and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

MODEL_LIBRARIES = ("torch", "transformers", "transformer-lens", "scikit-learn")


def provenance() -> dict[str, Any]:
    """Versions and git state of a run, for its manifest."""
    return {"versions": versions(*MODEL_LIBRARIES, "numpy") | _python(), "git": _git()}


def machine(device: str) -> dict[str, Any]:
    """What kind of machine this is: the figures of a benchmark mean nothing without it."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "not measured",
        "versions": versions(*MODEL_LIBRARIES) | _python(),
    }


def versions(*libraries: str) -> dict[str, str]:
    """Versions of mechreward and of the libraries named."""
    return {library: version(library) for library in ("mechreward", *libraries)}


def _python() -> dict[str, str]:
    return {"python": platform.python_version()}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def _git() -> str:
    """The commit this code is at, with `+changes` if the tree differs; `no git` outside a
    checkout."""
    try:
        commit = _git_says("rev-parse", "--short", "HEAD").strip()
        changes = _git_says("status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.SubprocessError):
        return "no git"
    return commit + ("+changes" if changes else "")


def _git_says(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout
