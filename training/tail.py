"""Following a record while someone else writes it."""

import json
from pathlib import Path
from typing import Any


class Tail:
    """New complete lines of a growing JSON Lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def rows(self) -> list[dict[str, Any]]:
        """Objects appended since the last call."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            payload = file.read()
        whole = payload[: payload.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = []
        for line in whole.splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return [row for row in rows if isinstance(row, dict)]
