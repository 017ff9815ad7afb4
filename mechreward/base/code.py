"""A Python file of the user's own, run because the user named it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import digest


def run_file(path: Path) -> ModuleType:
    """Run a Python file.

    Raises
    ------
    MechRewardError
        It is not there, or fails.
    """
    require(path.is_file(), f"there is no file {path}.")
    name = f"mechreward_file_{digest(str(path.resolve()))}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MechRewardError(f"{path} cannot be run.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    # A user's code, which may do anything.
    except (Exception, SystemExit) as error:
        raise failed(path, error) from error
    return module


def failed(path: Path, error: BaseException) -> MechRewardError:
    """What is said of a user's file that raised an error."""
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return MechRewardError(f"{path} fails: {why}")
