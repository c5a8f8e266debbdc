"""Do tests find what they have left behind?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from podcluster.cluster.processes import descendants
from tests.processes import assert_all_gone, assert_nobody_of, of_folder

# A child that starts another, with this for its output and in its environment, says which, and ends.
PARENT = """
import subprocess, sys
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
with open(sys.argv[1], "w") as output:
    print(subprocess.Popen(sleeper, stdout=output, env={"RAY_TMPDIR": sys.argv[2]}).pid)
"""


@pytest.mark.parametrize("how", ["told", "open"])
def test_orphans_are_found_and_ended(tmp_path: Path, how: str) -> None:
    """A process whose parent has ended is nobody's descendant here; its environment or its open file gives it away."""
    folder = tmp_path / "own"
    folder.mkdir()
    given = (folder / "output", "") if how == "open" else (os.devnull, folder)
    assert_nobody_of(str(folder), 0)
    command = [sys.executable, "-c", PARENT, *map(str, given)]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    orphan = int(made.stdout)
    assert orphan not in descendants(os.getpid()) and set(of_folder(str(folder))) == {orphan}
    with pytest.raises(AssertionError, match=f"still there after 0 s: .*{orphan}"):
        assert_nobody_of(str(folder), 0)
    assert_all_gone([orphan])
    assert_nobody_of(str(folder), 0)
