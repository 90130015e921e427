"""Runs of the real program for the interoperability tests: one broker, or two on one directory with a sidecar before them."""

import http.client
import json
import re
import subprocess
import threading
import time

PATIENCE = 30.0  # seconds that anything may take
OUTAGE = 2.0  # seconds without any broker; several heart-beats


class Failure(Exception):
    """What a user of the program would complain about."""


def until(what, condition, patience=PATIENCE):
    """Waits for a condition on real processes; there is nothing to be told by."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"waited {patience:.0f} s for {what}")
        time.sleep(0.005)


class Process:
    """One run of the program at a time, with the address it was given the first time."""

    def __init__(self, binary, directory, name, *args):
        self.command, self.args, self.name = [binary, args[0]], args[1:], name
        self.addr_file, self.log = directory / f"{name}.addr", directory / f"{name}.log"
        self.listen, self.admin, self.child = "127.0.0.1:0", None, None

    def start(self):
        self.addr_file.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [*self.command, *self.args, "--listen", self.listen, "--admin-listen", "127.0.0.1:0", "--addr-file", str(self.addr_file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(f"{self.name} to listen", lambda: self.addr_file.exists() or self.child.poll() is not None)
        if self.child.poll() is not None:
            raise Failure(f"{self.name} ended with exit code {self.child.returncode} instead of listening")
        addrs = dict(line.split("=", 1) for line in self.addr_file.read_text().split())
        self.listen, self.admin = addrs["listen"], addrs["admin"]

    def get(self, path):
        connection = http.client.HTTPConnection(self.admin, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def metric(self, name):
        """The sum over all labels."""
        lines = re.findall(rf"^understudy_{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics"), re.MULTILINE)
        if not lines:
            raise Failure(f"{self.name} has no metric understudy_{name}")
        return sum(int(float(value)) for value in lines)

    def running(self):
        return self.child is not None and self.child.poll() is None

    def active(self):
        return self.running() and json.loads(self.get("/status"))["broker"]["role"] == "active"

    def kill(self):
        self.child.kill()
        self.child.wait(PATIENCE)

    def stop(self):
        """Ends it in good order, and says so if that does not work."""
        if not self.running():
            return
        self.child.terminate()
        try:
            code = self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.name} did not end on SIGTERM") from None
        if code != 0:
            raise Failure(f"{self.name} ended with exit code {code} on SIGTERM")

    def address(self):
        host, port = self.listen.rsplit(":", 1)
        return host, int(port)


class Cluster:
    """Two brokers on one directory, and a sidecar before them."""

    def __init__(self, binary, directory):
        self.brokers = [
            Process(binary, directory, name, "broker", "--data-dir", str(directory / "data"), "--takeover", "kill", "--name", name)
            for name in ("one", "two")
        ]
        for broker in self.brokers:
            broker.start()
        lists = [part for b in self.brokers for part in ("--broker", f"stomp://{b.listen}")]
        self.sidecar = Process(binary, directory, "sidecar", "sidecar", *lists)
        self.sidecar.start()
        self.timer, self.failed, self.kills = None, None, 0
        self.find_active()

    def find_active(self):
        until("a broker to be active", lambda: any(b.active() for b in self.brokers))
        return next(b for b in self.brokers if b.active())

    def aim(self):
        """The standby takes over; the other one stays away."""
        active = self.find_active()

        def strike():
            active.kill()
            self.kills += 1

        return strike

    def aim_at_last(self):
        """Nobody is there for a while; then both come back."""
        kill = self.aim()

        def strike():
            kill()
            self.timer = threading.Timer(OUTAGE, self.revive)
            self.timer.start()

        return strike

    def revive(self):
        try:
            for broker in self.brokers:
                broker.start()
        except Failure as failure:
            self.failed = failure

    def stop(self):
        if self.timer:
            self.timer.join()
        if self.failed:
            raise self.failed
        for process in [self.sidecar, *self.brokers]:
            process.stop()

    def end(self):
        """After a failure: nothing is left running."""
        if self.timer:
            self.timer.cancel()
            self.timer.join()
        for process in [self.sidecar, *self.brokers]:
            if process.running():
                process.kill()
