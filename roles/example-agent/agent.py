"""The smallest agent that does something: it carries out changes of the form "Replace `old` by `new`", and gives up on all others.

One that thinks would hand /task/task.md to a model here.
"""

import difflib
import json
import re
import sys
from pathlib import Path

TASK, ANSWER = Path("/task"), Path("/answer")

change = json.loads((TASK / "hypothesis.json").read_text())["change"]
before = (TASK / "train.py").read_text()
order = re.search(r"Replace `(.+?)` by `(.+?)`", change)
if order is None:
    sys.exit("I only understand: Replace `old` by `new`")
old, new = order.groups()
if before.count(old) != 1:
    sys.exit(f"`{old}` stands {before.count(old)} times in train.py, not once")
after = before.replace(old, new)
diff = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "a/train.py", "b/train.py")
(ANSWER / "patch.diff").write_text("".join(diff))
