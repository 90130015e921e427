// A producer or a consumer with stompit as npm has it.
'use strict';

const stompit = require('stompit');
const { job, say, fail, produce, Consumer, goodbye } = require('./common.js');

const connectHeaders = { host: job.vhost || job.host, login: job.login, passcode: job.passcode };

stompit.connect({ host: job.host, port: job.port, connectHeaders }, (error, client) => {
  if (error) {
    fail(error.message);
    return;
  }
  client.on('error', (e) => fail(e.message + (e.longMessage ? `: ${e.longMessage}` : '')));
  const leave = () => client.disconnect((e) => (e ? fail(e.message) : goodbye()));
  if (job.role === 'produce') {
    produce((body, _, confirmed) => {
      client.send({ ...job.headers, destination: job.destination }, { onReceipt: confirmed }).end(body);
    }, leave);
    return;
  }
  const consumer = new Consumer((message, confirmed) => client.ack(message, {}, confirmed && { onReceipt: confirmed }));
  client.subscribe({ ...job.headers, destination: job.destination, ack: 'client-individual' }, (e, message) => {
    if (e) {
      fail(e.message);
      return;
    }
    message.readString('utf-8', (bad, body) => (bad ? fail(bad.message) : consumer.take(message, body)));
  });
  say('R');
  process.on('SIGTERM', () => consumer.finish(leave));
});
