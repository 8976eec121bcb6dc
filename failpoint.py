"""Failpoints: named places between two steps, at which a test has a process die, stop or wait.

    AUTORESEARCH_FAILPOINT="runner.recorded:kill"                  kill -9 of the process that gets there
    AUTORESEARCH_FAILPOINT="relay.landed:stop"                     SIGSTOP, until somebody sends SIGCONT
    AUTORESEARCH_FAILPOINT="relay.landed:sleep=5,arbiter.judged:kill"
    AUTORESEARCH_FAILPOINT="runner.recorded:kill:at=3"             the third time only
    AUTORESEARCH_FAILPOINT="runner.recorded:kill:once=/tmp/mark"   by the process that makes this file, once for all

Without the variable a failpoint is one look-up in an empty dictionary. docs/failpoints.md says what each place means.
"""

import os
import signal
import time
from itertools import count
from pathlib import Path
from typing import NamedTuple

VARIABLE = "AUTORESEARCH_FAILPOINT"
