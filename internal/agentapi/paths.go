package agentapi

// Paths of the API. docs/agent-api.md has their parameters.
const (
	// PathEvents gives recent events, the oldest first, as JSON lines (ContentTypeEvents), each a StreamedEvent.
	PathEvents = "/v1/events"
	// PathNames gives a NameList.
	PathNames = "/v1/names"
	// PathNode gives a Node.
	PathNode = "/v1/node"
	// PathPods gives a PodList.
	PathPods = "/v1/pods"
	// PathPolicies gives a PolicyList.
	PathPolicies = "/v1/policies"
)

// Parameters of PathEvents.
const (
	// ParamFollow (no value, or true) keeps the answer open, and new events come as they happen.
	ParamFollow = "follow"
	// ParamSince leaves out what is older: a time (RFC 3339) or a duration before now (as 10m).
	ParamSince = "since"
)

// ContentTypeEvents is that of PathEvents.
const ContentTypeEvents = "application/x-ndjson"

// DefaultPort is the one that agents listen on by default, on the node's loopback address only: kubectl port-forward reaches it.
const DefaultPort = 8164

// Audience is what a token must have been issued for. A token for an agent is of no use at the API server: what a
// node that was taken over could collect opens nothing.
const Audience = "kidoban-agent"

// Viewer is the ServiceAccount, in kidoban's namespace, whose tokens for Audience may read all of the API.
const Viewer = "kidoban-viewer"
