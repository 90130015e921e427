package stomp

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// BenchmarkSend forwards a 1 KiB SEND and takes its confirmation, 32 to a read buffer as the relay would hand them in.
func BenchmarkSend(b *testing.B) {
	const batch = 32
	one := []byte("SEND\ndestination:/queue/q\nreceipt:r1\ncontent-type:text/plain\n\n" + string(bytes.Repeat([]byte{'x'}, 1000)) + "\x00")
	k := benchTalk()
	in := session.NewChunk(bytes.Repeat(one, batch), nil)
	receipt := session.NewChunk(make([]byte, 0, 256), nil)
	var bufs []session.Buf
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%batch != 0 {
			continue
		}
		k.r.Feed(session.Client, in.Range(0, len(in.Data)), &k.out)
		receipt.Data = fmt.Appendf(receipt.Data[:0], "RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:%d\n\n\x00", k.r.effects)
		k.r.Feed(session.Broker, receipt.Range(0, len(receipt.Data)), &k.out)
		bufs = k.flush(bufs)
	}
}

// BenchmarkSendWindow is BenchmarkSend with 1000 frames under way, as a producer that does not wait for each has them. Those of the second are
// confirmed one by one.
func BenchmarkSendWindow(b *testing.B) {
	const batch, window = 32, 1000
	one := []byte("SEND\ndestination:/queue/q\nreceipt:r1\ncontent-type:text/plain\n\n" + string(bytes.Repeat([]byte{'x'}, 1000)) + "\x00")
	for name, k := range map[string]*talk{"cursor": benchTalk(), "receipts": benchBehind("other/1")} {
		b.Run(name, func(b *testing.B) {
			in := session.NewChunk(bytes.Repeat(one, batch), nil)
			receipts := session.NewChunk(make([]byte, 0, 4096), nil)
			var bufs []session.Buf
			confirmed := k.r.effects
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%batch != 0 {
					continue
				}
				k.r.Feed(session.Client, in.Range(0, len(in.Data)), &k.out)
				if k.r.effects < confirmed+window {
					continue
				}
				receipts.Data = receipts.Data[:0]
				if confirmed += batch; name == "cursor" {
					receipts.Data = fmt.Appendf(receipts.Data, "RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:%d\n\n\x00", confirmed)
				} else {
					for n := confirmed - batch + 1; n <= confirmed; n++ {
						receipts.Data = append(strconv.AppendUint(append(receipts.Data, "RECEIPT\nreceipt-id:u"...), n, 10), "\n\n\x00"...)
					}
				}
				k.r.Feed(session.Broker, receipts.Range(0, len(receipts.Data)), &k.out)
				bufs = k.flush(bufs)
			}
			if n := k.r.log.live; n > window+batch {
				b.Fatalf("%d effects are not confirmed", n)
			}
		})
	}
}

// BenchmarkMessageAndAck forwards a 1 KiB MESSAGE and the client's ACK of it, and takes the confirmation.
func BenchmarkMessageAndAck(b *testing.B) {
	const batch = 32
	k := benchTalk()
	c := session.NewChunk([]byte("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n\x00"), nil)
	k.r.Feed(session.Client, c.Range(0, len(c.Data)), &k.out)
	c.Data = []byte("RECEIPT\nreceipt-id:u1\n\n\x00")
	k.r.Feed(session.Broker, c.Range(0, len(c.Data)), &k.out)
	body := bytes.Repeat([]byte{'x'}, 1000)
	messages, acks := session.NewChunk(make([]byte, 0, batch*1200), nil), session.NewChunk(make([]byte, 0, batch*64), nil)
	receipt := session.NewChunk(make([]byte, 0, 256), nil)
	var bufs []session.Buf
	n := 0
	b.SetBytes(1100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%batch != 0 {
			continue
		}
		messages.Data, acks.Data = messages.Data[:0], acks.Data[:0]
		for range batch {
			n++
			messages.Data = append(messages.Data, "MESSAGE\nsubscription:s\nmessage-id:"+sessionID+":"...)
			messages.Data = strconv.AppendInt(messages.Data, int64(n), 10)
			messages.Data = append(messages.Data, "\ndestination:/queue/q\nack:1.1."...)
			messages.Data = strconv.AppendInt(messages.Data, int64(n), 10)
			messages.Data = append(append(append(messages.Data, "\n\n"...), body...), 0)
			acks.Data = strconv.AppendInt(append(acks.Data, "ACK\nid:1.1."...), int64(n), 10)
			acks.Data = append(acks.Data, "\n\n\x00"...)
		}
		k.r.Feed(session.Broker, messages.Range(0, len(messages.Data)), &k.out)
		k.r.Feed(session.Client, acks.Range(0, len(acks.Data)), &k.out)
		receipt.Data = fmt.Appendf(receipt.Data[:0], "RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:%d\n\n\x00", k.r.effects)
		k.r.Feed(session.Broker, receipt.Range(0, len(receipt.Data)), &k.out)
		bufs = k.flush(bufs)
	}
}

func benchTalk() *talk {
	k := &talk{r: New(Config{Session: sessionID}), now: time.Unix(1_000_000, 0)}
	k.out.Listening = [2]time.Time{k.now, k.now}
	k.out.Now = k.now
	for leg, text := range []string{"CONNECT\naccept-version:1.2\n\n\x00",
		"CONNECTED\nversion:1.2\nunderstudy-store:S\nunderstudy-epoch:1\nunderstudy-cursor:0\n\n\x00"} {
		if leg == 1 {
			k.r.Up(session.Peer{Name: "b", Attempt: 1}, &k.out)
		}
		c := session.NewChunk([]byte(text), nil)
		k.r.Feed(session.Leg(leg), c.Range(0, len(c.Data)), &k.out)
	}
	k.flush(nil)
	return k
}

// flush stands for the shell's write.
func (k *talk) flush(bufs []session.Buf) []session.Buf {
	for _, leg := range []session.Leg{session.Client, session.Broker} {
		bufs = k.out.Take(leg, bufs[:0])
		for _, b := range bufs {
			b.Drop()
		}
	}
	return bufs
}

// benchBehind is benchTalk behind a broker that is not paired.
func benchBehind(server string) *talk {
	k := &talk{r: New(Config{Session: sessionID, InDoubt: InDoubtResend}), now: time.Unix(1_000_000, 0)}
	k.out.Listening = [2]time.Time{k.now, k.now}
	k.out.Now = k.now
	k.octets(session.Client, "CONNECT\naccept-version:1.2\n\n\x00")
	k.r.Up(session.Peer{Name: "b", Attempt: 1}, &k.out)
	k.octets(session.Broker, "CONNECTED\nversion:1.2\nserver:"+server+"\nsession:ID:b-1\n\n\x00")
	return k
}

func (k *talk) octets(leg session.Leg, text string) {
	c := session.NewChunk([]byte(text), nil)
	k.r.Feed(leg, c.Range(0, len(c.Data)), &k.out)
	k.flush(nil)
}

// BenchmarkSendDialects is BenchmarkSend where every SEND is confirmed by its own RECEIPT.
func BenchmarkSendDialects(b *testing.B) {
	for _, server := range []string{activeServer, artemisServer, rabbitServer, "other/1"} {
		b.Run(server[:strings.IndexByte(server, '/')], func(b *testing.B) {
			const batch = 32
			one := []byte("SEND\ndestination:/queue/q\nreceipt:r1\npersistent:true\ncontent-type:text/plain\n\n" + string(bytes.Repeat([]byte{'x'}, 1000)) + "\x00")
			k := benchBehind(server)
			in := session.NewChunk(bytes.Repeat(one, batch), nil)
			receipts := session.NewChunk(make([]byte, 0, 4096), nil)
			var bufs []session.Buf
			n := 0
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%batch != 0 {
					continue
				}
				k.r.Feed(session.Client, in.Range(0, len(in.Data)), &k.out)
				receipts.Data = receipts.Data[:0]
				for range batch {
					n++
					receipts.Data = append(strconv.AppendInt(append(receipts.Data, "RECEIPT\nreceipt-id:u"...), int64(n), 10), "\n\n\x00"...)
				}
				k.r.Feed(session.Broker, receipts.Range(0, len(receipts.Data)), &k.out)
				bufs = k.flush(bufs)
			}
			if k.r.log.live > batch {
				b.Fatalf("%d effects are not confirmed", k.r.log.live)
			}
		})
	}
}

// BenchmarkMessageAndAckDialects is BenchmarkMessageAndAck for the same.
func BenchmarkMessageAndAckDialects(b *testing.B) {
	for _, server := range []string{activeServer, artemisServer, rabbitServer, "other/1"} {
		b.Run(server[:strings.IndexByte(server, '/')], func(b *testing.B) {
			const batch = 32
			k := benchBehind(server)
			k.octets(session.Client, "SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n\x00")
			k.octets(session.Broker, "RECEIPT\nreceipt-id:u1\n\n\x00")
			body := bytes.Repeat([]byte{'x'}, 1000)
			messages, acks := session.NewChunk(make([]byte, 0, batch*1300), nil), session.NewChunk(make([]byte, 0, batch*64), nil)
			receipts := session.NewChunk(make([]byte, 0, 4096), nil)
			var bufs []session.Buf
			n := 0
			b.SetBytes(1100)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%batch != 0 {
					continue
				}
				messages.Data, acks.Data, receipts.Data = messages.Data[:0], acks.Data[:0], receipts.Data[:0]
				for range batch {
					n++
					messages.Data = strconv.AppendInt(append(messages.Data, "MESSAGE\nsubscription:s\nmessage-id:7,"...), int64(n), 10)
					messages.Data = strconv.AppendInt(append(messages.Data, "\ndestination:/queue/q\nack:7,"...), int64(n), 10)
					messages.Data = strconv.AppendInt(append(messages.Data, "\nunderstudy-stamp:0123456789abcdef0123456789abcdef."...), int64(n), 10)
					messages.Data = append(append(append(messages.Data, ".1\n\n"...), body...), 0, '\n')
					acks.Data = append(strconv.AppendInt(append(acks.Data, "ACK\nid:7,"...), int64(n), 10), "\n\n\x00"...)
					receipts.Data = append(strconv.AppendInt(append(receipts.Data, "RECEIPT\nreceipt-id:u"...), int64(n+1), 10), "\n\n\x00"...)
				}
				k.r.Feed(session.Broker, messages.Range(0, len(messages.Data)), &k.out)
				k.r.Feed(session.Client, acks.Range(0, len(acks.Data)), &k.out)
				k.r.Feed(session.Broker, receipts.Range(0, len(receipts.Data)), &k.out)
				bufs = k.flush(bufs)
			}
			if k.r.held.count > 0 || k.r.log.live > batch {
				b.Fatalf("%d messages are held, %d effects not confirmed", k.r.held.count, k.r.log.live)
			}
		})
	}
}
