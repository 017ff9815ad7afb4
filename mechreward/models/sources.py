"""Where the files of a model are that goes by a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mechreward.base.errors import MechRewardError, of_kind, require
from mechreward.models.adapter import adapter_folder, base_of, is_adapter
from mechreward.models.gguf import folder_of
from mechreward.models.hints import is_hub_name, no_config, no_model
from mechreward.models.real import MAKE, NAME, real_folder

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Source:
    """Files of a model.

    Attributes
    ----------
    name : str
        What it is called in artefacts.
    weights : Path or str
        A HuggingFace folder, or `owner/model` on the hub.
    adapter : Path or None
        A folder with the adapter that is merged into it.
    revision : str or None
        A branch, tag or commit on the hub.
    """

    name: str
    weights: Path | str
    adapter: Path | None = None
    revision: str | None = None

    @property
    def what(self) -> str:
        """The weights in messages."""
        if isinstance(self.weights, Path):
            return f"the model folder {self.weights}"
        return f"{self.weights} from the hub"

    @property
    def what_if_missing(self) -> str:
        """The same where it may not exist: what was meant as a folder looks like a hub name."""
        if isinstance(self.weights, Path):
            return self.what
        return f"{self.weights}, which is no folder here, from the hub"


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    folders = [*WEIGHTS.glob("*/config.json"), *WEIGHTS.glob("*/adapter_config.json")]
    return sorted(path.parent.name for path in folders)


def find(
    name: str | Path, adapter: str | Path | None = None, revision: str | None = None
) -> Source:
    """The files of a model; a GGUF file is read into the user's cache first.

    Raises
    ------
    MechRewardError
        There is no such model or adapter, or what is asked for does not go together.
    """
    of_kind("a model", name, (str, Path), "its name or folder")
    if adapter is not None:
        of_kind("adapter", adapter, (str, Path), "its folder, or owner/name")
    called = str(name)
    folder = Path(name).expanduser()
    if called in bundled():
        folder = WEIGHTS / called
    elif called == NAME and not folder.is_dir():
        folder = real_folder()
        require(folder.is_dir(), f"{NAME} is made once, before it can be loaded: {MAKE}.")
    elif folder.suffix.lower() == ".gguf" and folder.is_file():
        source = _with_adapter(Source(folder.stem, folder_of(folder)), adapter, revision)
        return _without_revision(source, revision)
    if not folder.is_dir():
        if not is_hub_name(called):
            raise MechRewardError(no_model(called, [*bundled(), NAME]))
        source = Source(folder.name, called, revision=revision)
        return _with_adapter(source, adapter, revision)
    if is_adapter(folder):
        require(
            adapter is None,
            f"{folder} is an adapter itself: give it alone, or its base model with adapter=.",
        )
        base = find(base_of(folder), folder, revision)
        return Source(folder.name, base.weights, base.adapter, base.revision)
    if not (folder / "config.json").is_file():
        raise MechRewardError(no_config(folder))
    source = _with_adapter(Source(folder.name, folder), adapter, revision)
    return _without_revision(source, revision)


def _with_adapter(source: Source, adapter: str | Path | None, revision: str | None) -> Source:
    if adapter is None:
        return source
    version = None
    if not Path(adapter).expanduser().is_dir():
        adapter, _, named = str(adapter).partition("@")
        version = named or None
    folder = adapter_folder(adapter, version)
    name = f"{source.name}+{folder.name}"
    return Source(name, source.weights, folder, source.revision)


def _without_revision(source: Source, revision: str | None) -> Source:
    require(
        revision is None,
        f"revision={revision!r} names a version on the hub; {source.weights} is a folder here.",
    )
    return source
