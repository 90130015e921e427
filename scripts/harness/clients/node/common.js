// What both Node libraries' clients have in common. What they are told and what they say: ../../interop/protocol.go.
'use strict';

const job = JSON.parse(process.env.JOB);

function say(line) {
  process.stdout.write(line + '\n');
}

// fail says what went wrong and ends: there is no fail-over logic here. The line must be out before the process is.
function fail(message, headers = {}) {
  process.stdout.write('E ' + JSON.stringify({ message: String(message), headers }) + '\n', () => process.exit(1));
  fail = () => {}; // the first reason counts, others follow from it
}

// A library that throws where nobody can catch it (stompit does, on ERROR) has noticed something, too.
process.on('uncaughtException', (e) => fail(e.message));

// produce sends on schedule, with at most job.window unconfirmed; send(body, confirmed) hands one message to the library.
function produce(send, done) {
  let start, timer, next = 1, open = 0;
  say('R');
  const pump = () => {
    while (next <= job.count && open < job.window && performance.now() >= start + ((next - 1) * 1000) / job.rate) {
      const seq = next++;
      open++;
      say(`S ${seq}`);
      send(`${job.run} ${seq} `.padEnd(job.size, 'x'), seq, () => {
        say(`C ${seq}`);
        open--;
        if (next > job.count && open === 0) {
          clearInterval(timer);
          done();
        }
      });
    }
  };
  process.stdin.once('data', () => {
    start = performance.now();
    timer = setInterval(pump, 2);
  });
}

// Consumer keeps the last job.hold messages unacknowledged; ack(message, confirmed) hands one ACK to the library, confirmed may be undefined.
class Consumer {
  constructor(ack) {
    this.ack = ack;
    this.unacked = [];
  }
  take(message, body) {
    const [run, seq] = body.split(' ', 2);
    say(`M ${run} ${seq} ${body.length}`);
    this.unacked.push({ message, seq });
    this.acknowledge(job.hold);
  }
  acknowledge(keep, confirmed) {
    while (this.unacked.length > keep) {
      const { message, seq } = this.unacked.shift();
      this.ack(message, this.unacked.length === 0 ? confirmed : undefined);
      say(`A ${seq}`);
    }
  }
  // finish acknowledges the rest and calls done when the broker has confirmed that.
  finish(done) {
    if (this.unacked.length === 0) {
      done();
      return;
    }
    this.acknowledge(0, done);
  }
}

function goodbye() {
  process.stdout.write('B\n', () => process.exit(0));
}

module.exports = { job, say, fail: (...args) => fail(...args), produce, Consumer, goodbye };
