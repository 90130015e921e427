"""An existing STOMP client library against the real program: stomp.py as Debian ships it, as its author wrote it, without any fail-over logic.

Direct to a broker, and through a sidecar whose active broker is killed with SIGKILL in the middle: once while a standby waits, once while
none does. Checks that nothing was lost, doubled or reordered, and that the client's connections never noticed. interop-python.sh runs it.
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import stomp

PATIENCE = 30.0  # seconds that anything may take
WINDOW = 50  # SENDs whose receipts are outstanding
HELD = 10  # messages that the consumer keeps unacknowledged
OUTAGE = 2.0  # seconds without any broker; several heart-beats
HEARTBEAT = 500  # milliseconds


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

    def status(self):
        connection = http.client.HTTPConnection(self.admin, timeout=PATIENCE)
        try:
            connection.request("GET", "/status")
            return json.load(connection.getresponse())
        finally:
            connection.close()

    def running(self):
        return self.child is not None and self.child.poll() is None

    def active(self):
        return self.running() and self.status()["broker"]["role"] == "active"

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


class Client(stomp.ConnectionListener):
    """A connection that remembers what happened to it."""

    def __init__(self, version, address):
        kind = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}[version]
        options = {} if version == "1.0" else {"heartbeats": (HEARTBEAT, HEARTBEAT)}
        self.version, self.connection = version, kind([address], **options)
        self.lock = threading.Lock()
        self.spoken, self.errors, self.dropped, self.receipts = None, [], 0, set()
        self.bodies, self.headers, self.unacked = [], [], collections.deque()
        self.acks, self.closing, self.closed = 0, False, False
        self.connection.set_listener("", self)
        self.connection.connect(wait=True)
        self.socket = self.connection.transport.socket
        if self.spoken != version:
            raise Failure(f"asked for STOMP {version}, the answer is {self.spoken}")

    # What stomp.py calls, on its own thread.

    def on_connected(self, frame):
        self.spoken = frame.headers.get("version", "1.0")

    def on_receipt(self, frame):
        name = frame.headers["receipt-id"]
        with self.lock:
            if name in self.receipts:
                self.receipts.remove(name)
            elif self.closing and not self.closed:
                self.closed = True
            else:
                self.errors.append(f"receipt {name} that nothing waits for")

    def on_error(self, frame):
        self.errors.append(f"{frame.headers.get('message')}: {frame.body}")

    def on_disconnected(self):
        self.dropped += 1

    def on_heartbeat_timeout(self):
        self.errors.append("no heart-beat came")

    def on_message(self, frame):
        self.bodies.append(frame.body)
        self.headers.append(frame.headers)
        with self.lock:
            self.unacked.append(frame)
        self.acknowledge_all_but(HELD)

    # What the test calls.

    def acknowledge_all_but(self, keep):
        while self.acknowledge_first_of_more_than(keep):
            pass

    def acknowledge_first_of_more_than(self, keep):
        with self.lock:
            if len(self.unacked) <= keep:
                return False
            frame = self.unacked.popleft()
            self.acks += 1
            receipt = f"ack {self.acks}"
            self.receipts.add(receipt)
        if self.version == "1.2":
            self.connection.ack(frame.headers["ack"], receipt=receipt)
        elif self.version == "1.1":
            self.connection.ack(frame.headers["message-id"], frame.headers["subscription"], receipt=receipt)
        else:
            self.connection.ack(frame.headers["message-id"], receipt=receipt)
        return True

    def pending(self):
        with self.lock:
            return len(self.receipts)

    def receipt(self, name):
        with self.lock:
            self.receipts.add(name)
        return name

    def send(self, queue, body, receipt, **headers):
        self.connection.send(queue, body, content_type="text/plain", receipt=self.receipt(receipt), **headers)

    def subscribe(self, queue):
        self.connection.subscribe(queue, id="7", ack="client-individual", receipt=self.receipt("subscribed"))
        self.wait("the receipt of SUBSCRIBE", lambda: not self.pending())

    def wait(self, what, condition):
        until(what, lambda: condition() or self.errors or self.dropped)
        self.check()

    def check(self):
        if self.errors:
            raise Failure(f"the client got ERROR {self.errors[0]}")
        if self.dropped or self.connection.transport.socket is not self.socket:
            raise Failure("the client's connection was dropped")

    def close(self):
        """DISCONNECT with a receipt, as stomp.py does it."""
        self.wait("the last receipts", lambda: not self.pending())
        self.closing = True
        self.connection.disconnect()
        until("the end of the connection", lambda: self.dropped)
        if not self.closed:
            raise Failure("DISCONNECT got no receipt")
        if self.errors:
            raise Failure(f"the client got ERROR {self.errors[0]}")


def body_of(i):
    # A NUL, so that content-length counts; more than one octet to a character; lengths that vary.
    return f"{i:06d} \0 grün {'x' * (i * 37 % 900)}"


# What a header may hold differs from version to version.
AWKWARD = {"1.0": "plain", "1.1": "a:b\\c\nd", "1.2": "a:b\\c\nd\r"}


def verdict(consumer, count):
    """Compares what was received with what was sent."""
    wanted, seen = [body_of(i) for i in range(count)], consumer.bodies
    lost, doubled = len(set(wanted) - set(seen)), len(seen) - len(set(seen))
    reordered = sum(a > b for a, b in zip(seen, seen[1:]))
    strange = len(set(seen) - set(wanted))
    spoiled = sum(h.get("awkward") != AWKWARD[consumer.version] for h in consumer.headers)
    text = f"lost {lost}, duplicated {doubled}, reordered {reordered}, altered {strange + spoiled}"
    if lost or doubled or reordered or strange or spoiled:
        raise Failure(text)
    return text


def exchange(version, address, queue, count, at=None):
    """Sends count messages with receipts and receives them; at maps a number of messages sent to what happens then."""
    consumer, producer = Client(version, address), Client(version, address)
    consumer.subscribe(queue)
    due = collections.deque(sorted((at or {}).items()))
    for i in range(count):
        producer.wait("receipts of SENDs", lambda: producer.pending() < WINDOW)
        producer.send(queue, body_of(i).encode(), f"send {i}", awkward=AWKWARD[version])
        # A fault hits while something is in the air in either direction.
        if due and i >= due[0][0] and producer.pending() and consumer.unacked:
            due.popleft()[1]()
    if due:
        raise Failure("nothing was in the air when a broker was to be killed")
    producer.wait("the receipts of all SENDs", lambda: not producer.pending())
    consumer.wait("all messages", lambda: len(set(consumer.bodies)) >= count)
    transaction(producer, consumer, queue, count)
    consumer.acknowledge_all_but(0)
    consumer.wait("the receipts of all ACKs", lambda: not consumer.pending())
    text = verdict(consumer, count + 3)
    producer.close()
    consumer.close()
    leftover(version, address, queue)
    return text


def transaction(producer, consumer, queue, count):
    """Three messages aborted, then three committed, come out as three."""
    for end in "abort", "commit":
        producer.connection.begin(end)
        for i in range(count, count + 3):
            producer.send(queue, body_of(i).encode(), f"{end} {i}", transaction=end, awkward=AWKWARD[producer.version])
        getattr(producer.connection, end)(end, receipt=producer.receipt(end))
        producer.wait(f"the receipt of {end.upper()}", lambda: not producer.pending())
    consumer.wait("the committed messages", lambda: len(set(consumer.bodies)) >= count + 3)


def leftover(version, address, queue):
    """What was acknowledged is gone: the next consumer gets the next message, and nothing before it."""
    client = Client(version, address)
    client.send(queue, b"next", "next")
    client.subscribe(queue)
    client.wait("the next message", lambda: client.bodies)
    if client.bodies != ["next"]:
        raise Failure(f"{len(client.bodies)} messages came again after they had been acknowledged")
    client.acknowledge_all_but(0)
    client.close()


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

    def kill_active(self):
        """The standby takes over; the other one stays away."""
        self.find_active().kill()
        self.kills += 1

    def kill_last(self):
        """Nobody is there for a while; then both come back."""
        self.kill_active()
        if any(b.running() for b in self.brokers):
            raise Failure("a broker runs that should not")
        self.timer = threading.Timer(OUTAGE, self.revive)
        self.timer.start()

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


def direct(binary, directory, version, count):
    broker = Process(binary, directory, "broker", "broker", "--data-dir", str(directory / "data"))
    broker.start()
    try:
        until("the broker to be active", broker.active)
        text = exchange(version, broker.address(), "/queue/interop", count)
        broker.stop()
        return text
    finally:
        if broker.running():
            broker.kill()


def through_sidecar(binary, directory, version, count):
    cluster = Cluster(binary, directory)
    try:
        faults = {count // 3: cluster.kill_active, 2 * count // 3: cluster.kill_last}
        text = exchange(version, cluster.sidecar.address(), "/queue/interop", count, faults)
        cluster.stop()
        return f"{text}, {cluster.kills} kills, connections dropped 0"
    finally:
        cluster.end()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("binary", help="the built program")
    arguments.add_argument("--messages", type=int, default=1500, help="messages of each run (default %(default)s)")
    arguments = arguments.parse_args()
    failures = 0
    for version in "1.0", "1.1", "1.2":
        for name, run in ("direct", direct), ("through the sidecar", through_sidecar):
            with tempfile.TemporaryDirectory(prefix="understudy-interop-") as directory:
                start, directory = time.monotonic(), pathlib.Path(directory)
                try:
                    result, good = run(os.path.abspath(arguments.binary), directory, version, arguments.messages), True
                except (Failure, stomp.exception.StompException, OSError) as failure:
                    result, good = f"{type(failure).__name__}: {failure}", False
                    failures += 1
                print(f"{'ok  ' if good else 'FAIL'} STOMP {version} {name:<20} {arguments.messages} messages, {result}"
                      f" ({time.monotonic() - start:.1f} s)", flush=True)
                for log in sorted(directory.glob("*.log")) if not good else []:
                    print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n    ", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    sys.exit(main())
