package streamserver

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"

	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/stream"
)

// Limits of the reviews of tokens.
const (
	// Per second, and at once, of callers with an address of the node that their token names. All agents of a large
	// cluster connect within seconds.
	nodeReviews, nodeBurst = 200, 400
	// The same of all other callers together. In an overlay network agents are among them: they connect from the address
	// of a tunnel. Each source has little of it, so that it takes many to keep agents away.
	otherReviews, otherBurst = 100, 200
	// The same of one source.
	sourceReviews, sourceBurst = 2, 5
	// reviewWait is how long a caller waits for its turn and for the answer.
	reviewWait = 5 * time.Second
	// maxSources and maxAccepted bound what is stored. Beyond them all is forgotten, which costs reviews.
	maxSources, maxAccepted = 8192, 8192
)

// Names of a token's extra values.
const (
	extraNode   = "authentication.kubernetes.io/node-name"
	extraPodUID = "authentication.kubernetes.io/pod-uid"
)

// Refusal is why a caller gets no stream.
type Refusal string

// Refusals.
const (
	NoToken             Refusal = "NoToken"
	Malformed           Refusal = "Malformed"
	WrongAudience       Refusal = "WrongAudience"
	WrongServiceAccount Refusal = "WrongServiceAccount"
	Expired             Refusal = "Expired"
	NotBound            Refusal = "NotBound"   // to a pod and a node
	UnknownPod          Refusal = "UnknownPod" // no running pod of the agents has the UID, as far as this replica knows
	Rejected            Refusal = "Rejected"   // by the API server
	TooManyReviews      Refusal = "TooManyReviews"
	ReviewFailed        Refusal = "ReviewFailed"
	TooManyStreams      Refusal = "TooManyStreams"
	BadHello            Refusal = "BadHello" // the first message is not Hello, or comes late
)

// Identity is what the API server says about a caller.
type Identity struct {
	Node string
	// Pod is the UID of the caller's pod.
	Pod     string
	Expires time.Time
}

// Cluster is what the authenticator has to know about the cluster.
type Cluster interface {
	// IsAgent reports whether a pod of the agents with this UID runs on the node.
	IsAgent(node, uid string) bool
	// IsNodeAddress reports whether the node has the address.
	IsNodeAddress(node string, addr netip.Addr) bool
}

// Authenticator checks the agents' tokens.
type Authenticator struct {
	// Audience that the tokens must have.
	Audience string
	// Namespace of the agents.
	Namespace string
	Reviews   authenticationclient.TokenReviewInterface
	Cluster   Cluster

	once         sync.Once
	node, others *rate.Limiter
	sources      *Limiters[netip.Prefix]

	mu       sync.Mutex // guards accepted
	accepted map[[sha256.Size]byte]Identity
}

func (a *Authenticator) init() {
	a.once.Do(func() {
		a.node, a.others = rate.NewLimiter(nodeReviews, nodeBurst), rate.NewLimiter(otherReviews, otherBurst)
		a.sources, a.accepted = NewLimiters[netip.Prefix](sourceReviews, sourceBurst, maxSources), map[[sha256.Size]byte]Identity{}
	})
}

// Authenticate returns the identity of a caller, or why it has none.
func (a *Authenticator) Authenticate(ctx context.Context, token string, from netip.Addr) (Identity, Refusal) {
	a.init()
	if token == "" {
		return Identity{}, NoToken
	}
	c, ok := parseClaims(token)
	if !ok {
		return Identity{}, Malformed
	}
	if refusal := c.refusal(a.Audience, a.Namespace, time.Now()); refusal != "" {
		return Identity{}, refusal
	}
	node, uid := c.Kubernetes.Node.Name, c.Kubernetes.Pod.UID
	if !a.Cluster.IsAgent(node, uid) {
		return Identity{}, UnknownPod
	}
	hash := sha256.Sum256([]byte(token))
	if id, ok := a.lookUp(hash); ok {
		return id, ""
	}
	ctx, cancel := context.WithTimeout(ctx, reviewWait)
	defer cancel()
	all := a.others
	if a.Cluster.IsNodeAddress(node, from) {
		all = a.node
	}
	// The source's own limit first: one source must not use up the limit of all.
	if a.sources.Of(httpserver.SourceOf(from)).Wait(ctx) != nil || all.Wait(ctx) != nil {
		return Identity{}, TooManyReviews
	}
	id, refusal := a.review(ctx, token)
	if refusal != "" {
		return Identity{}, refusal
	}
	if id.Node != node || id.Pod != uid || !a.Cluster.IsAgent(id.Node, id.Pod) {
		return Identity{}, UnknownPod
	}
	id.Expires = time.Unix(int64(c.Expires), 0) // verified with the token
	a.store(hash, id)
	return id, ""
}

// review asks the API server about a token.
func (a *Authenticator) review(ctx context.Context, token string) (Identity, Refusal) {
	review, err := a.Reviews.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{a.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return Identity{}, ReviewFailed
	}
	s := &review.Status
	switch {
	case !s.Authenticated:
		return Identity{}, Rejected
	case !slices.Contains(s.Audiences, a.Audience):
		return Identity{}, WrongAudience
	case s.User.Username != "system:serviceaccount:"+a.Namespace+":"+stream.AgentServiceAccount:
		return Identity{}, WrongServiceAccount
	}
	nodes, uids := s.User.Extra[extraNode], s.User.Extra[extraPodUID]
	if len(nodes) != 1 || len(uids) != 1 || nodes[0] == "" || uids[0] == "" {
		return Identity{}, NotBound
	}
	return Identity{Node: nodes[0], Pod: uids[0]}, ""
}

func (a *Authenticator) lookUp(hash [sha256.Size]byte) (Identity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, ok := a.accepted[hash]
	return id, ok && time.Now().Before(id.Expires)
}

func (a *Authenticator) store(hash [sha256.Size]byte, id Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.accepted) >= maxAccepted {
		clear(a.accepted)
	}
	a.accepted[hash] = id
}

// Forget forgets the tokens of a pod that was deleted.
func (a *Authenticator) Forget(pod string) {
	a.init()
	a.mu.Lock()
	defer a.mu.Unlock()
	for hash, id := range a.accepted {
		if id.Pod == pod {
			delete(a.accepted, hash)
		}
	}
}
