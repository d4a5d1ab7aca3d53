package plan

// Reason says why a write is planned, for the log and for tests.
type Reason string

// Reasons of writes.
const (
	BeforeItIsCounted Reason = "new slice: written before the first slice counts it"
	CountsOn          Reason = "first slice: still counts slices that are about to be deleted"
	CountsFewer       Reason = "first slice: no longer counts slices that are deleted next"
	AddressesChanged  Reason = "slice differs"
	NotCounted        Reason = "slice is no longer counted"

	ReferencedGroup Reason = "PolicyEndpoint refers to the group"
	SpecDiffers     Reason = "PolicyEndpoint differs"
	StatusDiffers   Reason = "status differs"
	PolicyGone      Reason = "policy is gone"
)
