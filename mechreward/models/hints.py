"""What is said of a name that is no model, and of a folder that holds none."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mechreward.base.errors import unknown_name

# Names from before the hub had owners. TransformerLens lists them without one.
OWNERS = {"gpt2": "openai-community", "openai-gpt": "openai-community", "distilgpt2": "distilbert"}


def is_hub_name(name: str) -> bool:
    """Whether it has the form OWNER/NAME."""
    owner, _, repository = name.partition("/")
    return bool(owner and repository) and "/" not in repository and not owner.startswith((".", "~"))


def no_model(name: str, bundled: list[str]) -> str:
    """Of a name that is no folder, none of the bundled models, and cannot be on the hub."""
    path = Path(name).expanduser()
    if path.is_file():
        return f"{name} is a file; a model is the folder it lies in: {path.parent}."
    if "/" in name or name.startswith("~"):
        folders = [config.parent for config in path.parent.glob("*/config.json")]
        near = get_close_matches(path.name, [folder.name for folder in folders], 1, 0.3)
        hint = f"; did you mean {path.parent / near[0]}?" if near else "."
        if not path.parent.is_dir():
            hint = f", and no folder {path.parent} either."
        return f"there is no model folder {name}{hint}"
    listed = ", ".join(bundled) or "none"
    there = _on_the_hub(name)
    if there:
        return f"unknown model {name!r}; on the hub it is {there!r}. Possible here: {listed}."
    return (
        f"{unknown_name('model', name, bundled, listed)} A folder is given by its path, a model on "
        "the hub as OWNER/NAME."
    )


def no_config(folder: Path) -> str:
    """Of a folder without config.json."""
    inside = sorted(folder.glob("*/config.json")) or sorted(folder.glob("snapshots/*/config.json"))
    hint = ""
    if inside:
        hint = f" {inside[-1].parent} in it has one."
    elif any(folder.glob("*.gguf")):
        hint = f" Name the GGUF file itself: {next(folder.glob('*.gguf'))}."
    return f"{folder} is no model folder: it has no config.json.{hint}"


def _on_the_hub(name: str) -> str:
    """OWNER/NAME of a model that TransformerLens knows by its name alone; empty for others."""
    from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

    family = name if name in OWNERS else name.partition("-")[0]
    if family in OWNERS and name in OFFICIAL_MODEL_NAMES:
        return f"{OWNERS[family]}/{name}"
    for official in OFFICIAL_MODEL_NAMES:
        if official.partition("/")[2].lower() == name.lower() != "":
            return official
    return ""
