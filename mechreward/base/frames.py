"""Nouns as tables: a pandas DataFrame, and files that other programs read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from io import BytesIO
from pathlib import Path

import pandas as pd

from mechreward.base.files import write_atomic


class Framed(ABC):
    """Has a table."""

    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """A line an entry."""

    def to_parquet(self, path: Path | str) -> Path:
        """The table as a parquet file, written atomically."""
        buffer = BytesIO()
        self.frame().to_parquet(buffer, index=False)
        return write_atomic(path, buffer.getvalue())

    def to_csv(self, path: Path | str) -> Path:
        """The table as a CSV file, written atomically; lists in it are text."""
        return write_atomic(path, self.frame().to_csv(index=False))
