"""Models whose truth is known, small models that reason, and how both were made."""

# Imported here, not on first use: the function must be bound after the submodule of the same name
# has been.
from mechreward.testbed.planted import PlantedModel, Truth, plant, planted

__all__ = ["PlantedModel", "Truth", "plant", "planted"]
