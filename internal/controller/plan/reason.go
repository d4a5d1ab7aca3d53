package plan

// Reason says why a write is planned, for the log and for tests.
type Reason string

// Reasons of writes.
const (
	AddressesChanged     Reason = "slice differs"
	PartsAndListsChanged Reason = "slice differs, also in its lists of slices"
	ListsChanged         Reason = "lists of slices differ"
	PartsStay            Reason = "slice differs; parts of groups stay until the groups' lists are written"
	AddressesMoved       Reason = "addresses are in a slice of kidoban's own namespace now"
	PartsDropped         Reason = "slice has no addresses of a group any more"
	NotWanted            Reason = "slice is in no list any more"

	ReferencedGroup Reason = "PolicyEndpoint refers to the group"
	SpecDiffers     Reason = "PolicyEndpoint differs"
	StatusDiffers   Reason = "status differs"
	PolicyGone      Reason = "policy is gone"
)
