"""A run on three hosts, of which one loses its power: to be watched.

    sudo .venv/bin/python -m tests.three_hosts_demo      (`make demo-hosts`)

Each host is a network namespace of this machine with an address, a Ray node and a mount of the run directory
of its own. Exits with 2 where namespaces are not to be had.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.cluster_runs import state_hash, trained_twice
from tests.hosts import Hosts, unavailable

CHANGES = {"run__steps": 240, "checkpoint__every_steps": 20}


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def main() -> int:
    if why_not := unavailable():
        print(f"error: {why_not}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="seedbed-hosts-") as folder:
        hosts = Hosts(Path(folder), 3, num_cpus=2)
        try:
            hosts.up(1, 2, 3)
            say("three hosts: " + ", ".join(host.address for host in hosts.hosts))
            whole = hosts.submit("undisturbed", "--workers", "1", **CHANGES)
            hosts.finish(whole)
            say(f"undisturbed, on one host: {state_hash(whole)[:16]}")
            run = hosts.submit("shown", "--workers", "3", "--placement", "spread", **CHANGES)
            say("on: " + ", ".join(hosts.until(run, lambda value: value["step"] >= 30)["hosts"]))
            say("the third host loses its power, at step 30 or later")
            hosts.hosts[2].kill()
            hosts.finish(run)
            print(hosts.head.seedbed("status", "shown").stdout.rstrip())
            say(f"of three hosts, one of which died: {state_hash(run)[:16]}")
            is_same = state_hash(run) == state_hash(whole) and not trained_twice(run)
            say("the same weights, and no step trained twice" if is_same else "NOT the same")
            return int(not is_same)
        finally:
            hosts.close()


if __name__ == "__main__":
    raise SystemExit(main())
