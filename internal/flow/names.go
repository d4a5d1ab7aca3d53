package flow

// Names that the observer, the agents and the manifests share.
const (
	// Audience is the audience of the agents' and the readers' projected tokens. The API server accepts no token with it.
	Audience = "kidoban-observer"
	// Component is the value of the label app.kubernetes.io/component of the observer's pods in kidoban's namespace, by
	// which agents find them.
	Component = "observer"
	// PortName is the name of the container port of these pods on which Flows is served.
	PortName = "flows"
	// ServerName is the name in the observer's certificate, which agents verify instead of an address.
	ServerName = "kidoban-observer"
	// CAConfigMap is the ConfigMap with the certificates that agents trust, PEM, below CAKey. During a rotation it
	// contains the old and the new one.
	CAConfigMap = "kidoban-observer-ca"
	CAKey       = "ca.crt"
	// StoreLabel is a label of the observer's pods. With the value StoreShared they share one store, and each agent
	// pushes to one of them.
	StoreLabel  = "kidoban.dev/observer-store"
	StoreShared = "shared"
	// MaxMessageSize is the size of the largest PushRequest, in bytes.
	MaxMessageSize = 1 << 20
)
