# A producer or a consumer with the stomp gem as Debian ships it (ruby-stomp). What it is told and what it says: ../../interop/protocol.go.
require "json"
require "stomp"

JOB = JSON.parse(ENV.fetch("JOB"))
HEADERS = JOB["headers"].transform_keys(&:to_sym)
PATIENCE = 60 # seconds for receipts

$said = Mutex.new

def say(line)
  $said.synchronize do
    $stdout.write(line + "\n")
    $stdout.flush
  end
end

# Says what went wrong and ends: there is no fail-over logic here, and the gem's is off (reliable: false).
def failed(message, headers = {})
  say("E " + JSON.generate(message: message.to_s, headers: headers))
  exit!(1)
end

def connect
  Stomp::Client.new(
    hosts: [{ login: JOB["login"], passcode: JOB["passcode"], host: JOB["host"], port: JOB["port"] }],
    reliable: false,
    connect_headers: { "accept-version" => "1.2", "host" => JOB["vhost"].empty? ? "localhost" : JOB["vhost"] }
  )
end

# What waits is woken by a change, and looks every second whether the gem's own thread, which reads, has ended with the connection.
class Ledger
  def initialize
    @lock = Mutex.new
    @changed = ConditionVariable.new
    @open = 0
    @unacked = []
  end
  attr_reader :unacked

  def opened
    @lock.synchronize { @open += 1 }
  end

  def closed
    @lock.synchronize do
      @open -= 1
      @changed.broadcast
    end
  end

  def settle(client, most)
    deadline = Time.now + PATIENCE
    @lock.synchronize do
      while @open > most
        failed("connection ended") unless client.running && client.open?
        failed("#{@open} receipts did not come") if Time.now > deadline
        @changed.wait(@lock, 1)
      end
    end
  end
end

def produce(client, ledger)
  say("R")
  $stdin.gets
  start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  (1..JOB["count"]).each do |seq|
    pause = start + (seq - 1).fdiv(JOB["rate"]) - Process.clock_gettime(Process::CLOCK_MONOTONIC)
    sleep(pause) if pause.positive?
    ledger.settle(client, JOB["window"] - 1)
    ledger.opened
    say("S #{seq}")
    client.publish(JOB["destination"], "#{JOB["run"]} #{seq} ".ljust(JOB["size"], "x"), HEADERS) do
      say("C #{seq}")
      ledger.closed
    end
  end
  ledger.settle(client, 0)
end

def acknowledge(client, ledger, keep)
  while ledger.unacked.size > keep
    message = ledger.unacked.shift
    ledger.opened
    client.ack(message) { ledger.closed }
    say("A " + message.body.split(" ", 3)[1])
  end
end

def consume(client, ledger)
  stopping = false
  Signal.trap("TERM") { stopping = true }
  client.subscribe(JOB["destination"], HEADERS.merge(ack: "client-individual", id: "1")) do |message|
    say("M #{message.body.split(" ", 3)[0, 2].join(" ")} #{message.body.size}")
    ledger.unacked << message
    acknowledge(client, ledger, JOB["hold"])
  end
  say("R")
  until stopping
    failed("connection ended") unless client.running && client.open?
    sleep 0.05
  end
  acknowledge(client, ledger, 0)
  ledger.settle(client, 0)
end

begin
  client = connect
  ledger = Ledger.new
  JOB["role"] == "produce" ? produce(client, ledger) : consume(client, ledger)
  client.close
  say("B")
rescue Stomp::Error::BrokerException => e
  failed(e.message, e.headers)
rescue StandardError => e
  failed("#{e.class}: #{e.message}")
end
