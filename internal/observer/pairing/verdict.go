package pairing

import "github.com/kidoban/kidoban/internal/observerapi"

// Verdict is what became of a flow with the decisions of its ends; nil stands for no decision.
func Verdict(egress, ingress *observerapi.Decision) observerapi.Verdict {
	now, audited := observerapi.Allowed, observerapi.Allowed
	for _, d := range []*observerapi.Decision{egress, ingress} {
		if d == nil {
			continue
		}
		if d.Verdict == observerapi.Denied {
			now = observerapi.Denied
		}
		if d.Audited == observerapi.Denied || d.Audited == "" && d.Verdict == observerapi.Denied {
			audited = observerapi.Denied
		}
	}
	switch now {
	case audited:
		return now
	case observerapi.Allowed:
		return observerapi.WouldBeDeny
	default:
		return observerapi.WouldBeAllow
	}
}
