"""An existing STOMP client library against the real program: stomp.py as Debian ships it, as its author wrote it, without any fail-over logic.

Direct to a broker, and through a sidecar whose active broker is killed with SIGKILL in the middle: once while a standby waits, once while
none does. Checks that nothing was lost, doubled or reordered, and that the client's connections never noticed. One kill without a sidecar
shows that the checks can fail. interop-python.sh runs it.
"""

import argparse
import collections
import logging
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time

import stomp

from interop_program import Cluster, Failure, Process, until

WINDOW = 50  # SENDs whose receipts are outstanding
HELD = 10  # messages that the consumer keeps unacknowledged
HEARTBEAT = 500  # milliseconds


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
        if options and 0 in self.connection.heartbeats:
            raise Failure(f"heart-beats were asked for, the answer is {self.connection.heartbeats}")

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
        try:
            self.acknowledge_all_but(HELD)
        except Exception as failure:  # it would end stomp.py's thread, and nobody would hear of it
            self.errors.append(f"{type(failure).__name__}: {failure}")

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
    """Sends count messages with receipts and receives them; at maps a number of messages sent to what then takes aim and returns a fault."""
    consumer, producer = Client(version, address), Client(version, address)
    consumer.subscribe(queue)
    due, strike = collections.deque(sorted((at or {}).items())), None
    for i in range(count):
        producer.wait("receipts of SENDs", lambda: producer.pending() < WINDOW)
        producer.send(queue, body_of(i).encode(), f"send {i}", awkward=AWKWARD[version])
        if due and i >= due[0][0] and not strike:
            strike = due.popleft()[1]()
        elif strike and producer.pending() and consumer.unacked:  # in the air in either direction
            strike()
            strike = None
    if due or strike:
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
        faults = {count // 3: cluster.aim, 2 * count // 3: cluster.aim_at_last}
        text = exchange(version, cluster.sidecar.address(), "/queue/interop", count, faults)
        moved, again, hidden = [cluster.sidecar.metric(f"sidecar_{what}_total") for what in ("takeovers", "resends", "redeliveries_hidden")]
        # Two connections, each moved by each kill. Messages were unacknowledged at each, so the new broker must have sent them again.
        if moved != 2 * cluster.kills or hidden == 0:
            raise Failure(f"{cluster.kills} kills made {moved} take-overs with {hidden} redeliveries hidden: they did not hit the clients")
        cluster.stop()
        return f"{text}, connections dropped 0, kills {cluster.kills}, SENDs played again {again}, redeliveries hidden {hidden}"
    finally:
        cluster.end()


def control(binary, directory, version, count):
    """The same client and the same kill without a sidecar: if that passes, the checks are worth nothing."""
    cluster = Cluster(binary, directory)
    try:
        exchange(version, cluster.find_active().address(), "/queue/interop", count, {count // 3: cluster.aim})
    except (Failure, stomp.exception.StompException, OSError) as failure:
        return f"noticed, as it must be: {failure}"
    finally:
        cluster.end()
    raise Failure("a broker was killed under the client and nothing was noticed")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("binary", help="the built program")
    arguments.add_argument("--messages", type=int, default=1500, help="messages of each run (default %(default)s)")
    arguments = arguments.parse_args()
    logging.disable()  # stomp.py logs what the checks find out by themselves
    runs = [(v, name, run) for v in ("1.0", "1.1", "1.2") for name, run in (("direct", direct), ("through the sidecar", through_sidecar))]
    runs.append(("1.2", "without the sidecar", control))
    failures = 0
    for version, name, run in runs:
        with tempfile.TemporaryDirectory(prefix="understudy-interop-") as directory:
            start, directory = time.monotonic(), pathlib.Path(directory)
            try:
                word, result = "ok  ", run(os.path.abspath(arguments.binary), directory, version, arguments.messages)
            except (Failure, stomp.exception.StompException, OSError) as failure:
                word, result = "FAIL", f"{type(failure).__name__}: {failure}"
                failures += 1
            seconds = time.monotonic() - start
            print(f"{word} STOMP {version} {name:<20} {arguments.messages} messages, {result} ({seconds:.1f} s)", flush=True)
            for log in sorted(directory.glob("*.log")) if word == "FAIL" else []:
                print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n    ", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    sys.exit(main())
