"""How busy rank 0's host is while a run trains, for rows of kind "system": MLflow shows them as `system/...`.

Of the whole host, whoever uses it: what a user looks at who asks why a run has become slow. No torch.
"""

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

EVERY_S = 10.0
"""Between two rows."""
NETWORK_COLUMNS = (0, 8)
"""Of a line of /proc/net/dev after its name: bytes received, bytes sent."""


class SystemMetrics:
    """Readings of one host; what is a rate is since the reading before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = _busy_and_all()
        self._network = _network_bytes()

    def read(self) -> dict[str, float]:
        """{cpu_percent, memory_used_bytes, memory_percent, disk_free_bytes, network_..._bytes, gpu_...}.

        What the host does not tell is left out.
        """
        found: dict[str, float] = {}
        before, self._before = self._before, _busy_and_all()
        if before and self._before and (passed := self._before[1] - before[1]) > 0:
            found["cpu_percent"] = 100 * (self._before[0] - before[0]) / passed
        memory = _memory()
        if {"MemTotal", "MemAvailable"} <= memory.keys():
            used = memory["MemTotal"] - memory["MemAvailable"]
            found |= {"memory_used_bytes": used, "memory_percent": 100 * used / memory["MemTotal"]}
        network, self._network = self._network, _network_bytes()
        if network and self._network:
            for name, then, now in zip(("received", "sent"), network, self._network, strict=True):
                found[f"network_{name}_bytes"] = now - then
        with contextlib.suppress(OSError):
            found["disk_free_bytes"] = shutil.disk_usage(self.folder).free
        return found | _gpus()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _busy_and_all() -> tuple[float, float] | None:
    """Ticks of all processors that were not idle, and all ticks."""
    line = _text("/proc/stat").partition("\n")[0].split()
    if len(line) < 6 or line[0] != "cpu":
        return None
    ticks = [float(value) for value in line[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _memory() -> dict[str, float]:
    rows = (line.split() for line in _text("/proc/meminfo").splitlines())
    return {row[0].rstrip(":"): 1024 * float(row[1]) for row in rows if len(row) > 1}


def _network_bytes() -> tuple[float, float] | None:
    """Received and sent by all interfaces but the loopback."""
    rows = [line.partition(":") for line in _text("/proc/net/dev").splitlines()[2:]]
    counts = [rest.split() for name, _, rest in rows if name.strip() != "lo" and rest]
    if not counts:
        return None
    received, sent = (sum(float(row[column]) for row in counts) for column in NETWORK_COLUMNS)
    return received, sent


def _gpus() -> dict[str, float]:
    """Memory of the devices, once this process uses them, and how busy they are where the driver tells."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    found: dict[str, float] = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found[f"gpu_{number}_memory_percent"] = 100 * (total - free) / total
        try:
            found[f"gpu_{number}_percent"] = float(torch.cuda.utilization(number))
        except Exception:
            continue
    return found
