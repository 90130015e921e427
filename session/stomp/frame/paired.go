package frame

// Headers that only a sidecar and the paired broker exchange. A client that speaks to the broker itself neither sends nor sees
// them; a sidecar strips them before its client sees a frame, and from what its client sends.
//
// An effect is a SEND, ACK or NACK outside a transaction, a COMMIT, or an ABORT. A sidecar numbers the effects of a session
// 1, 2, 3, …; the broker journals "session S has applied effect n" in the record of the effect itself. After any break one
// number, the cursor, settles what is in doubt: effects up to it are done, those above are played again.
const (
	// PairedPrefix begins every name below.
	PairedPrefix = "understudy-"

	// HeaderSession: CONNECT →. 128-bit random id of the client's connection in 32 lower-case hex digits, for its whole life.
	HeaderSession = "understudy-session"
	// HeaderAttempt: CONNECT →. Decimal, rises with every dial of a session. The broker ends every connection of the session with a
	// lower or equal attempt, its reader included, before it answers CONNECTED; what that had sent and was not applied never will be.
	HeaderAttempt = "understudy-attempt"
	// HeaderStore: CONNECT → the store wanted (UUID or name), absent = the only one that the server knows, else ERROR which-store; CONNECTED ← the
	// UUID of the store that the connection is bound to, for as long as it lives.
	HeaderStore = "understudy-store"
	// HeaderHold: CONNECT →. Milliseconds that the sidecar may hold its client; the broker keeps an absent session that long and a margin.
	HeaderHold = "understudy-hold"
	// HeaderEpoch: CONNECTED ←. Decimal epoch of the store's holder. A sidecar accepts none lower than the highest it saw in CONNECTED for that UUID.
	HeaderEpoch = "understudy-epoch"
	// HeaderProbe: CONNECT →, instead of HeaderSession. Whoever asks wants to know what this server is, and makes no session: one that serves any
	// store answers CONNECTED, any other ERROR standby, either with HeaderStores, and closes once the asker has.
	HeaderProbe = "understudy-probe"
	// HeaderCursor: CONNECT → the highest effect that the sidecar knows is durable (the broker may forget outcomes up to it, and a
	// broker that never applied that many has lost data: ERROR lost-state); CONNECTED ← highest effect applied, all of it durable: a
	// broker that lives answers only when what lower attempts had applied is, so that nothing is played again that holds already;
	// RECEIPT ← every effect up to here is durable. At most one such RECEIPT per connection and commit batch; its receipt-id is
	// ReceiptCursor. A receipt header on an effect frame of a sidecar session is not answered by itself.
	HeaderCursor = "understudy-cursor"
	// HeaderEffect: SEND, ACK, NACK outside a transaction, COMMIT, ABORT →. Decimal. Equal to cursor+1 (the last accepted, durable or
	// not): applied. Lower or equal: confirmed again by a cursor RECEIPT, not applied again. Higher, or absent: ERROR gap, close.
	HeaderEffect = "understudy-effect"
	// HeaderRolledBack: RECEIPT and CONNECTED ←. Comma-separated effects that were COMMITs which could not be applied because they
	// acknowledge a message that has moved to another consumer; they count as settled (the cursor passes them).
	HeaderRolledBack = "understudy-rolled-back"
	// HeaderDelivery: MESSAGE ←, the first header of the frame. Ordinal of this delivery of this message in this epoch; absent = 1.
	HeaderDelivery = "understudy-delivery"
	// HeaderClaims: SUBSCRIBE → in a replay. Comma-separated message-id=epoch.ordinal, one per message, of the deliveries that the client holds
	// unacknowledged on this subscription (or whose acknowledgement is not yet known to be durable), with the epoch and ordinal under
	// which each was last delivered to it. A granted claim is held by the subscription as before and is not delivered again: the client
	// has it. What the subscription held and does not claim was lost on the way and is delivered again, to it.
	HeaderClaims = "understudy-claims"
	// HeaderGone: RECEIPT of a SUBSCRIBE ←. Comma-separated message ids whose claims were not granted: acknowledged already, expired, unknown, or
	// held elsewhere by a higher (epoch, ordinal). All others are granted. The RECEIPT precedes the subscription's first MESSAGE.
	HeaderGone = "understudy-gone"
	// HeaderBrowse: MESSAGE of a browser ←, the first header of the frame. Where the message stands in the queue, as priority.sequence in
	// decimal: the order of browsing, the same after a restart. Opaque to a sidecar. The MESSAGE with browser:end, which ends the
	// browser, has none. A browser holds nothing: its SUBSCRIBE carries no claims, its MESSAGEs have no ordinal and are not acknowledged.
	HeaderBrowse = "understudy-browse"
	// HeaderBrowseAfter: SUBSCRIBE with browser:true → in a replay. The HeaderBrowse of the last MESSAGE that the client was shown on this
	// browser: it goes on behind it. Absent: from the front. A browser that was shown its end is not played again.
	HeaderBrowseAfter = "understudy-browse-after"
	// HeaderError: ERROR ←. One of the Code constants: what the sidecar, not its client, has to deal with.
	HeaderError = "understudy-error"
	// HeaderMoved: ERROR ←. The UUID of the connection's store, which moves to another server; everything before this frame has been answered: look
	// for the store elsewhere at once. The server stays good for its other stores.
	HeaderMoved = "understudy-moved"
)

// ReceiptCursor is the receipt-id of a RECEIPT that carries only HeaderCursor.
const ReceiptCursor = "understudy"

// Values of HeaderError.
const (
	// CodeStandby: this server does not serve the store wanted now, but stands for it (of a probe: it serves none); try the next one, or again.
	CodeStandby = "standby"
	// CodeStaleAttempt: a higher attempt of the session is or was connected.
	CodeStaleAttempt = "stale-attempt"
	// CodeWrongStore: the server neither serves the store wanted nor stands for it. HeaderStores says which it does.
	CodeWrongStore = "wrong-store"
	// CodeWhichStore: the server knows several stores, as HeaderStores says, and none was named.
	CodeWhichStore = "which-store"
	// CodeGap: an effect number was skipped or missing; nothing behind it was applied.
	CodeGap = "gap"
	// CodeLostState: the sidecar has confirmation of effects that this store never saw.
	CodeLostState = "lost-state"
	// CodeFenced: the server has lost the connection's store to a higher epoch, or the store's disk failed; nothing behind the last RECEIPT counts here.
	CodeFenced = "fenced"
)

// In a sidecar session an ACK or NACK names its message by the headers message-id and subscription, in every protocol version. One that
// names a message which the subscription does not hold is applied as nothing: the cursor passes it, and it is counted.
// A message that a NACK, or a COMMIT with a NACK in it, gives back is delivered again only when that effect is durable.
// The message-id of a message sent through a sidecar is session:effect, and session:effect:index inside a transaction (index from 0
// over the transaction's SENDs; effect is that of its COMMIT).
//
// A durable subscription belongs to the client-id of CONNECT, which every attempt of a session repeats, and the name in SUBSCRIBE. While its
// session is connected, or away for less than the reclaim window, another session that asks for it gets an ERROR without a code: in a replay it is
// worth another try. The same session resumes it with claims as it does a queue. UNSUBSCRIBE with the name deletes it; in a sidecar session one that
// is not there has been deleted already.
// A session's subscription to a topic that is not durable holds what it is sent until that is acknowledged, as one to a queue does, is resumed with claims,
// and collects what is published while the session is away, until the hold is over. Nobody else can have those messages: a claim of one is never refused,
// a NACK is an ACK, and an ACK of one that the broker has forgotten in a crash counts as one. Bounds make the newest go first.
// A temporary queue belongs to its session, and is made when /temp-queue/NAME is first a destination or a reply-to of it. The broker rewrites reply-to,
// in what it stores, to the name that others use and that stays valid as long as the session: /remote-temp-queue/OWNER/NAME. A sidecar rewrites
// nothing, and plays SUBSCRIBE and SEND as its client said them.
