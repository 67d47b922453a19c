import os
import subprocess
import sys

from mmrlhf_core.training import environment

PRODUCTS = """
import os, torch
from pathlib import Path
from mmrlhf_core.training import environment

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

environment.begin(0, 1)
layer = torch.nn.Linear(192, 512)
for rows in (5, *range(100, 300)):
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.zeros(rows, 192)).sum().backward()
    if rows == 5:
        before = resident()
print(resident() - before)
"""


def run(code, **caches):
    """What `code` prints, with these sizes of torch's caches in the environment and no others."""
    others = {name: value for name, value in os.environ.items() if name not in environment.PLANS}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=others | caches, capture_output=True, text=True, check=True).stdout


def test_products_of_many_shapes_leave_little_behind():
    assert float(run(PRODUCTS)) < 60


def test_caches_that_somebody_set_stay():
    code = "import os\nfrom mmrlhf_core.training import environment\n"
    code += "environment.begin(0, 1); print(os.environ[environment.PLANS[0]])"
    assert run(code, LRU_CACHE_CAPACITY="99") == "99\n"
    assert run(code) == "16\n"
