package stream

// Names that the controller, the agents and the manifests share.
const (
	// Audience is the audience of the agents' projected tokens. The API server accepts no token with it.
	Audience = "kidoban-controller"
	// AgentServiceAccount is the ServiceAccount of the agents, in kidoban's namespace.
	AgentServiceAccount = "kidoban-agent"
	// PortName is the name of the container port of the controller's pods on which the stream is served.
	// Agents find the pods by the label app.kubernetes.io/component=controller in kidoban's namespace.
	PortName = "stream"
	// ServerName is the name in the controller's certificate, which agents verify instead of an address.
	ServerName = "kidoban-controller"
	// CAConfigMap is the ConfigMap with the certificates that agents trust, PEM, below CAKey. During a rotation
	// it contains the old and the new one.
	CAConfigMap = "kidoban-controller-ca"
	CAKey       = "ca.crt"
	// CertificateSecret is the Secret with the certificates and keys, which all replicas of the controller use.
	CertificateSecret = "kidoban-controller-certificates"
	// MaxMessageSize is the size of the largest message of an agent, in bytes.
	MaxMessageSize = 64 << 10
)
