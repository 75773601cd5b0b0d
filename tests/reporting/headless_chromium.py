"""A page in headless Chromium, driven over two pipes: no further library, no port."""

import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

WAIT = 60  # seconds, on a machine that has other work


def find_chromium():
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """Opens a file; keeps what the browser complains of and what it asks the network for."""

    def __init__(self, profile: Path, width=1280, height=900):
        self.events, self.last, self.rest = [], 0, b""
        to_browser, self.to_browser = os.pipe()
        self.from_browser, from_browser = os.pipe()
        words = [
            *(find_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--remote-debugging-pipe", "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"),
        ]
        # The browser reads file descriptor 3 and writes 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *words],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.session = None

    def __enter__(self):
        try:
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
            self.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for pipe in (self.to_browser, self.from_browser):
            os.close(pipe)
        try:  # it ends by itself once its pipe is closed
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def send(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.last:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def receive(self):
        end = time.monotonic() + WAIT
        while b"\0" not in self.rest:
            is_there, _, _ = select.select([self.from_browser], [], [], end - time.monotonic())
            chunk = os.read(self.from_browser, 1 << 20) if is_there else b""
            if not chunk:
                raise TimeoutError("Chromium does not answer")
            self.rest += chunk
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path):
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def run(self, code):
        """Evaluate JavaScript, promises awaited, and return its value."""
        answer = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def use_scheme(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def use_width(self, width, height=900):
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def complaints(self):
        """Return what the console holds of errors and warnings."""
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] != "log":
                found.append(str(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] != "info":
                found.append(params["entry"]["text"])
        return found

    def requests(self):
        """Return what was asked for, data URIs left out."""
        asked = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in asked]
        return [url for url in urls if not url.startswith("data:")]

    def screenshot(self):
        """Return the whole page as PNG."""
        import base64

        taken = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])
