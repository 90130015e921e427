// A producer or a consumer with @stomp/stompjs over TCP (@stomp/tcp-wrapper) as npm has them, reconnecting turned off.
'use strict';

const { Client } = require('@stomp/stompjs');
const { TCPWrapper } = require('@stomp/tcp-wrapper');
const { job, say, fail, produce, Consumer, goodbye } = require('./common.js');

let leaving = false;
const client = new Client({
  webSocketFactory: () => new TCPWrapper(job.host, job.port),
  connectHeaders: { host: job.vhost || job.host, login: job.login, passcode: job.passcode },
  reconnectDelay: 0,
  onStompError: (frame) => fail(frame.headers.message, frame.headers),
  onWebSocketError: (event) => fail(event.message || 'socket error'),
  onWebSocketClose: () => leaving || fail('connection closed'),
  onConnect: run,
});

function leave() {
  leaving = true;
  client.deactivate().then(goodbye);
}

function confirmation(name, confirmed) {
  client.watchForReceipt(name, confirmed);
  return { receipt: name };
}

function run() {
  if (job.role === 'produce') {
    produce((body, seq, confirmed) => {
      const headers = { ...job.headers, ...confirmation(String(seq), confirmed) };
      client.publish({ destination: job.destination, body, headers });
    }, leave);
    return;
  }
  const consumer = new Consumer((message, confirmed) => message.ack(confirmed ? confirmation('last', confirmed) : {}));
  client.watchForReceipt('subscribed', () => say('R'));
  client.subscribe(job.destination, (message) => consumer.take(message, message.body), {
    ...job.headers, ack: 'client-individual', receipt: 'subscribed',
  });
  process.on('SIGTERM', () => consumer.finish(leave));
}

client.activate();
