"""Which cases of a campaign are tested in a run."""

import os
from datetime import date


def sample(cases: int, every: int) -> range:
    """Return the numbers of the cases of today, one in `every`, or of those that CASES chooses.

    CASES=7 chooses case 7, CASES=all all of them, and CASES=1/4 one in four, other ones each day.
    """
    chosen = os.environ.get("CASES", f"1/{every}")
    if chosen == "all":
        return range(cases)
    if chosen.startswith("1/"):
        every = int(chosen.removeprefix("1/"))
        return range(date.today().toordinal() % every, cases, every)
    return range(int(chosen), int(chosen) + 1)
