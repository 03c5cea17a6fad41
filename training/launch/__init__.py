"""Starting named worker processes and watching them; a trainer cannot tell which launcher it is on."""

from training.launch.base import Launcher, Worker, WorkerSpec
from training.launch.local import LocalLauncher

__all__ = ["Launcher", "LocalLauncher", "Worker", "WorkerSpec"]
