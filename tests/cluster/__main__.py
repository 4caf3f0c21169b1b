"""``python -m tests.cluster up|status|down|env``: the test cluster from the command line."""

from __future__ import annotations

import argparse
import json
import sys

from tests.cluster import harness
from tests.cluster.console import say
from tests.cluster.errors import ClusterError

INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="The Kubernetes cluster of the tests.")
    parser.add_argument(
        "command",
        choices=("up", "status", "down", "env"),
        help="make it and print its environment, tell how it is, take it down, print its environment",
    )
    try:
        return _run(parser.parse_args(arguments).command)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; what is done so far is kept")
        return INTERRUPTED


def _run(command: str) -> int:
    match command:
        case "up":
            print(harness.exports(harness.ensure().environment))
        case "down":
            harness.down()
        case "env":
            file = harness.environment_file()
            if not file.exists():
                raise ClusterError("there is no test cluster.", advice="Make one with `make cluster`.")
            print(harness.exports(json.loads(file.read_text())))
        case "status":
            problems = harness.problems()
            say("\n".join(problems) or "the test cluster is up: node Ready, S3 server answers")
            return 1 if problems else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
