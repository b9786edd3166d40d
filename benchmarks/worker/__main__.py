"""A worker process, which answers requests.

    python -m benchmarks.worker '{"serve": "module:Class", "options": {…}}'

Requests and answers are lines of JSON. For each ``{"do": method, …}`` the worker calls that
method of one object of the class with the remaining values, and writes what it returned. It exits
when its input ends.
"""

import json
import os
import sys

from benchmarks.worker import named


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Output of libraries must not be mistaken for an answer.
    request = json.loads(sys.argv[1])
    served = named(request["serve"])(**request["options"])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(served, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
