package sqlite

import (
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
)

// Bits of the column packed, and where they begin. The port takes the lowest 16, the protocol's word those from bitProtocol on.
const (
	bitIngress   = 16
	bitReply     = 17
	bitBeside    = 18
	bitContinues = 19
	bitProtocol  = 20
)

func pack(r *store.Report, protocol int64) int64 {
	packed := int64(r.Port) | protocol<<bitProtocol
	if r.Direction == store.Ingress {
		packed |= 1 << bitIngress
	}
	if r.Reply {
		packed |= 1 << bitReply
	}
	if r.Continues {
		packed |= 1 << bitContinues
	}
	if r.Beside {
		packed |= 1 << bitBeside
	}
	return packed
}

// unpack sets the fields of a report, and returns the protocol's word.
func unpack(packed int64, r *store.Report) (protocol int64) {
	r.Port = uint16(packed)
	r.Direction = store.Egress
	if packed>>bitIngress&1 == 1 {
		r.Direction = store.Ingress
	}
	r.Reply = packed>>bitReply&1 == 1
	r.Continues = packed>>bitContinues&1 == 1
	r.Beside = packed>>bitBeside&1 == 1
	return packed >> bitProtocol
}

// numberBits is how many bits of a key number the rows of a span.
const numberBits = 24

// key of a row of the table exact: the span first, so that rows are in its order, then a number.
func key(span, number int64) int64 {
	return span/int64(store.Exact.Seconds())<<numberBits | number&(1<<numberBits-1)
}

// spanOf returns the span of a key.
func spanOf(key int64) int64 { return key >> numberBits * int64(store.Exact.Seconds()) }

// sumSpan is the span of a row of the table minutes: longer than it must be, for fewer rows.
const sumSpan = 5 * time.Minute

// round returns the beginning, in Unix seconds, of the span of a time.
func round(t time.Time, resolution time.Duration) int64 { return roundSeconds(t.Unix(), resolution) }

func roundSeconds(t int64, resolution time.Duration) int64 { return t - t%int64(resolution.Seconds()) }
