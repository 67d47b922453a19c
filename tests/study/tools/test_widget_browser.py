"""The form in a real JupyterLab in headless Chromium, from the keyboard: two tabs, one kernel killed in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image
from tiny_project import ROOT

from mmrlhf_study.tools import journal

websocket = pytest.importorskip("websocket", reason="needs JupyterLab")
pytest.importorskip("jupyterlab", reason="needs JupyterLab")
pytest.importorskip("anywidget", reason="needs the extra annotate")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
]

PATIENCE = 120  # seconds until a page, a kernel or a form is given up
KEYS = {"Tab": 9, "Enter": 13}
FORM = """
import os
from pathlib import Path
from mmrlhf_study.tools import widget
from mmrlhf_core.data.records import Query, Response
Path("{name}.pid").write_text(str(os.getpid()))
queries = [Query(f"q{{n}}", f"what {{n}} ?", "image", ("a.png",)) for n in range(4)]
said = ("<script>document.title = 'hurt'</script>", "two")
responses = [Response(f"{{q.id}}/{{k}}", q.id, f"secret{{k}}", text) for q in queries for k, text in enumerate(said)]
widget.AnnotationWidget("journal.jsonl", "bea", queries, responses, ".")
"""


def until(what: str, ask: Callable[[], Any]) -> Any:
    """The first answer that is not empty."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := ask():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


class Tab:
    """One tab of the browser: keys go in, what is on the page comes out."""

    def __init__(self, port: int, url: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?{url}", method="PUT")
        with urllib.request.urlopen(request) as answer:
            place = json.load(answer)["webSocketDebuggerUrl"]
        self.socket, self.numbers = websocket.create_connection(place, timeout=PATIENCE, suppress_origin=True), count()
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **given: Any) -> dict:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            pass
        return answer["result"]

    def ask(self, code: str) -> Any:
        return self.call("Runtime.evaluate", expression=code)["result"].get("value")

    def key(self, key: str, control: bool = False, shift: bool = False) -> None:
        number = KEYS.get(key, ord(key.upper()[0]))
        code = {"windowsVirtualKeyCode": number, "modifiers": 2 * control + 8 * shift, "key": key}
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" and not control else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def run(self) -> None:
        """Run the notebook's cell and wait for the form it shows."""
        until("the notebook", lambda: self.ask("!!document.querySelector('.jp-Notebook .cm-content')"))
        until("its kernel", lambda: "| Idle" in (self.ask("document.body.innerText") or ""))
        if self.ask("!!document.querySelector('.jp-Dialog')"):  # it says that the kernel died
            self.key("Enter")
            until("the dialog to go", lambda: self.ask("!document.querySelector('.jp-Dialog')"))
        self.ask("document.querySelector('.mma')?.classList.add('old')")
        self.ask("document.querySelector('.jp-Notebook .cm-content').focus()")
        self.key("Enter", shift=True)
        until("the form", lambda: self.ask("!!document.querySelector('.mma:not(.old) input')"))

    def enter(self) -> None:
        """Fill the form: every key goes to whatever has the focus."""
        self.ask("document.querySelector('.mma input').focus()")
        for rank in "12":
            for key in ("5", "Tab", "4", "Tab", "3", "Tab", "y", "Tab", rank, "Tab"):
                self.key(key)
        self.key("z")

    def says(self, words: str) -> None:
        until(words, lambda: words in (self.ask("document.querySelector('.mma')?.textContent") or ""))

    def save(self, words: str) -> None:
        self.key("Enter", control=True)
        self.says(words)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen]]:
    running: list[subprocess.Popen] = []
    yield running
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)


def open_lab(folder: Path, running: list[subprocess.Popen]) -> tuple[str, int]:
    """(address of a notebook in a JupyterLab over `folder`, port of a browser)."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    own = {name: str(folder / "home") for name in ("HOME", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    env = os.environ | own | {"PYTHONPATH": str(ROOT)}
    lab = ["-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--LabApp.news_url=None"]
    lab = [sys.executable, *lab, f"--ServerApp.root_dir={folder}"]
    running.append(subprocess.Popen(lab, cwd=folder, env=env, **quiet))
    options = ("--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder}/chromium")
    running.append(subprocess.Popen([CHROMIUM, *options, "about:blank"], cwd=folder, env=env, **quiet))
    file = until("JupyterLab", lambda: next(folder.glob("home/jpserver-*.json"), None))
    server = until("its address", lambda: file.read_text().endswith("}") and json.loads(file.read_text()))
    port = until("Chromium", lambda: next(folder.glob("chromium/DevToolsActivePort"), None))
    address = f"http://127.0.0.1:{server['port']}/lab/workspaces/%s/tree/%s.ipynb?token={server['token']}"
    return address, int(until("its port", port.read_text).split()[0])


def test_two_tabs_and_a_killed_kernel_lose_and_double_nothing(tmp_path, started):
    (tmp_path / "home").mkdir()
    (tmp_path / "dvc.yaml").touch()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name in ("one", "two"):
        cells = [nbformat.v4.new_code_cell(FORM.format(name=name))]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), tmp_path / f"{name}.ipynb")
    address, port = open_lab(tmp_path, started)
    one, two = (Tab(port, address % (name, name)) for name in ("one", "two"))
    one.run()
    two.run()
    one.enter()
    one.save("1 of 4 done")
    two.enter()
    two.save("already saved in another tab")
    one.enter()
    os.kill(int((tmp_path / "one.pid").read_text()), signal.SIGKILL)
    one.save("the kernel does not answer")
    assert one.ask("document.querySelector('.mma textarea').value") == "y", "what was typed is still there"
    two.enter()
    two.save("2 of 4 done")
    one.run()
    one.says("2 of 4 done")
    one.enter()
    one.save("3 of 4 done")
    two.enter()
    two.save("already saved in another tab")
    two.enter()
    two.save("All queries are done")
    judged, orders = journal.read(tmp_path / "journal.jsonl")
    assert sorted(order.query for order in orders) == ["q0", "q1", "q2", "q3"]
    assert [order.ranks for order in orders] == [(1, 2)] * 4
    assert [(j.helpfulness, j.faithfulness, j.ethics, j.reason) for j in judged] == [(5, 4, 3, "y")] * 8
    assert "hurt" not in (one.ask("document.title"), two.ask("document.title")), "a response's script ran"
