<?php
// A producer or a consumer with PHP's stomp extension as Debian ships it (php8.2-stomp). What it is told and what it says:
// ../../interop/protocol.go. A SEND with a receipt blocks in this library, so one is outstanding at most.

$job = json_decode(getenv('JOB'), true);
const PATIENCE = 60; // seconds for a frame that has to come; the library's own default, two seconds, is for local brokers

$stopped = false;
pcntl_async_signals(true);
pcntl_signal(SIGTERM, function () use (&$stopped) { $stopped = true; });

function say(string $line): void
{
    fwrite(STDOUT, $line . "\n");
}

// Says what went wrong and ends: there is no fail-over logic here.
function failed(string $message, array $headers = []): never
{
    say('E ' . json_encode(['message' => $message, 'headers' => (object) $headers], JSON_INVALID_UTF8_SUBSTITUTE));
    exit(1);
}

function produce(Stomp $stomp, array $job): void
{
    $stomp->setReadTimeout(PATIENCE);
    say('R');
    fgets(STDIN);
    $start = microtime(true);
    for ($seq = 1; $seq <= $job['count']; $seq++) {
        $pause = $start + ($seq - 1) / $job['rate'] - microtime(true);
        if ($pause > 0) {
            usleep((int) ($pause * 1e6));
        }
        say("S $seq");
        $body = str_pad("{$job['run']} $seq ", $job['size'], 'x');
        if (!$stomp->send($job['destination'], $body, $job['headers'] + ['receipt' => (string) $seq])) {
            failed("no receipt of SEND $seq: " . $stomp->error());
        }
        say("C $seq");
    }
}

function acknowledge(Stomp $stomp, array &$unacked, int $keep, array $last = []): void
{
    while (count($unacked) > $keep) {
        $frame = array_shift($unacked);
        if (!$stomp->ack($frame, count($unacked) ? [] : $last)) {
            failed('ACK failed: ' . $stomp->error());
        }
        [, $seq] = explode(' ', $frame->body, 3);
        say("A $seq");
    }
}

function consume(Stomp $stomp, array $job, bool &$stopped): void
{
    $stomp->setReadTimeout(PATIENCE);
    if (!$stomp->subscribe($job['destination'], $job['headers'] + ['id' => '1', 'ack' => 'client-individual', 'receipt' => 'subscribed'])) {
        failed('SUBSCRIBE failed: ' . $stomp->error());
    }
    say('R');
    $unacked = [];
    while (!$stopped) {
        $stomp->setReadTimeout(0, 100000);
        if (!$stomp->hasFrame()) {
            continue;
        }
        $stomp->setReadTimeout(PATIENCE);
        $frame = $stomp->readFrame();
        if (!$frame || $frame->command !== 'MESSAGE') {
            continue;
        }
        [$run, $seq] = explode(' ', $frame->body, 3);
        say("M $run $seq " . strlen($frame->body));
        $unacked[] = $frame;
        acknowledge($stomp, $unacked, $job['hold']);
    }
    acknowledge($stomp, $unacked, 0, ['receipt' => 'last']);
}

try {
    $headers = $job['vhost'] === '' ? [] : ['host' => $job['vhost']];
    $stomp = new Stomp("tcp://{$job['host']}:{$job['port']}", $job['login'], $job['passcode'], $headers);
    $job['role'] === 'produce' ? produce($stomp, $job) : consume($stomp, $job, $stopped);
    unset($stomp); // the extension sends DISCONNECT when the object goes
} catch (StompException $e) {
    failed($e->getMessage() . ': ' . $e->getDetails());
}
say('B');
