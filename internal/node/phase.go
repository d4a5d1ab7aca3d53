package node

// Phase is how far a PolicyEndpoint is in force on this node. "In force" here means that the compiler has the version; Applied says when the
// kernel has it, too.
type Phase uint8

// The phases. A policy's pods are isolated in all of them but the first two.
const (
	// Unknown: there is no such PolicyEndpoint, or nothing of it could be read.
	Unknown Phase = iota
	// Waiting: no version is in force yet; the newest waits for its groups to be complete.
	Waiting
	// InForce: the newest version is in force.
	InForce
	// InForceAndWaiting: a version is in force, and a newer one waits for its groups.
	InForceAndWaiting
	// IsolatedUnreadable: the PolicyEndpoint cannot be read and no version was in force before. Its pods are isolated, and it allows nothing.
	IsolatedUnreadable
	// IsolatedUnreadableAndWaiting is IsolatedUnreadable with another version, which can be read, that waits for its groups.
	IsolatedUnreadableAndWaiting
	// IsolatedLate: the groups of the first version did not arrive in time. Its pods are isolated with the addresses that are known so far,
	// and the version still waits for the rest.
	IsolatedLate
	// Retained: the PolicyEndpoint is gone, and the version that was in force stays in force. In a terminating namespace it does until the
	// namespace's pods are gone. In any other it does for DeletionPatience: the deletion of a namespace may be seen after that of its policies.
	Retained
	phases
)

// event is what can happen to a PolicyEndpoint.
type event uint8

const (
	// incomplete: a new version arrived, and at least one of its groups is not complete.
	incomplete event = iota
	// complete: a new version arrived with complete groups, or the groups of the waiting version are complete now.
	complete
	// unreadable: a new version arrived that cannot be read.
	unreadable
	// late: the waiting version has waited for too long.
	late
	// deleted: the PolicyEndpoint is gone.
	deleted
	// orphaned: the PolicyEndpoint is gone, and its namespace is terminating.
	orphaned
	// removed: the time for which a version is retained has ended.
	removed
	events
)

// transitions has the next phase for each phase and event. A version that is in force stays in force until a better one can replace it; bad
// input and missing groups never open a pod.
var transitions = [phases][events]Phase{
	Unknown: {
		incomplete: Waiting,
		complete:   InForce,
		unreadable: IsolatedUnreadable,
		late:       Unknown,
		deleted:    Unknown,
		orphaned:   Unknown,
		removed:    Unknown,
	},
	Waiting: {
		incomplete: Waiting,
		complete:   InForce,
		unreadable: IsolatedUnreadableAndWaiting,
		late:       IsolatedLate,
		deleted:    Unknown,
		orphaned:   Retained,
		removed:    Unknown,
	},
	InForce: {
		incomplete: InForceAndWaiting,
		complete:   InForce,
		unreadable: InForce,
		late:       InForce,
		deleted:    Retained,
		orphaned:   Retained,
		removed:    Unknown,
	},
	InForceAndWaiting: {
		incomplete: InForceAndWaiting,
		complete:   InForce,
		unreadable: InForceAndWaiting,
		late:       InForceAndWaiting,
		deleted:    Retained,
		orphaned:   Retained,
		removed:    Unknown,
	},
	IsolatedUnreadable: {
		incomplete: IsolatedUnreadableAndWaiting,
		complete:   InForce,
		unreadable: IsolatedUnreadable,
		late:       IsolatedUnreadable,
		deleted:    Retained,
		orphaned:   Retained,
		removed:    Unknown,
	},
	IsolatedUnreadableAndWaiting: {
		incomplete: IsolatedUnreadableAndWaiting,
		complete:   InForce,
		unreadable: IsolatedUnreadableAndWaiting,
		late:       IsolatedLate,
		deleted:    Retained,
		orphaned:   Retained,
		removed:    Unknown,
	},
	IsolatedLate: {
		incomplete: IsolatedLate,
		complete:   InForce,
		unreadable: IsolatedLate,
		late:       IsolatedLate,
		deleted:    Retained,
		orphaned:   Retained,
		removed:    Unknown,
	},
	Retained: {
		incomplete: InForceAndWaiting,
		complete:   InForce,
		unreadable: Retained,
		late:       Retained,
		deleted:    Retained,
		orphaned:   Retained,
		removed:    Unknown,
	},
}

// waits reports whether a version waits for its groups in this phase.
func (p Phase) waits() bool {
	switch p {
	case Waiting, InForceAndWaiting, IsolatedUnreadableAndWaiting, IsolatedLate:
		return true
	case Unknown, InForce, IsolatedUnreadable, Retained, phases:
	}
	return false
}

// isolates reports whether the compiler has a version of the policy in this phase.
func (p Phase) isolates() bool {
	switch p {
	case InForce, InForceAndWaiting, IsolatedUnreadable, IsolatedUnreadableAndWaiting, IsolatedLate, Retained:
		return true
	case Unknown, Waiting, phases:
	}
	return false
}

func (p Phase) String() string {
	return [...]string{
		Unknown: "Unknown", Waiting: "Waiting", InForce: "InForce", InForceAndWaiting: "InForceAndWaiting",
		IsolatedUnreadable: "IsolatedUnreadable", IsolatedUnreadableAndWaiting: "IsolatedUnreadableAndWaiting", IsolatedLate: "IsolatedLate",
		Retained: "Retained",
		phases:   "",
	}[p]
}
