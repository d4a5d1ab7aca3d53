package serve

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	defaultLimit = 1000
	maxLimit     = 50_000
	// defaultSince is how far back an answer goes that has no bound.
	defaultSince = time.Hour
	// maxQuery is the size of the longest query.
	maxQuery = 4 << 10
)

// parameters of a request.
type parameters struct {
	flows.Query
	follow bool
	limit  int
}

// badParameter is an error of the caller.
type badParameter struct{ text string }

func (b badParameter) Error() string { return b.text }

func bad(format string, args ...any) badParameter { return badParameter{fmt.Sprintf(format, args...)} }

// paramNode is the parameter of PathNodes.
const paramNode = "node"

var names = []string{"since", "until", "namespace", "pod", "workload", "verdict", "port", "protocol", "policy", "limit", "follow", "newest"}

// parse reads the parameters of a request. One that is not known is an error: it must not look as if it had an effect.
func parse(q url.Values, now time.Time) (p parameters, err error) {
	size := 0
	for name, values := range q {
		if !slices.Contains(names, name) {
			return p, bad("there is no parameter %.64q", name)
		}
		if len(values) != 1 {
			return p, bad("%s is given %d times", name, len(values))
		}
		size += len(values[0])
	}
	if size > maxQuery {
		return p, bad("the parameters are longer than %d bytes", maxQuery)
	}
	p.limit = defaultLimit
	for name := range q {
		if err := p.set(name, q.Get(name), now); err != nil {
			return p, err
		}
	}
	if (p.Pod != "" || p.Workload != "") && p.Namespace == "" {
		return p, bad("pod and workload need a namespace")
	}
	if p.Since.IsZero() && !p.follow {
		p.Since = now.Add(-defaultSince)
	}
	if !p.Until.IsZero() && (p.follow || !p.Since.Before(p.Until)) {
		return p, bad("until must be after since, and cannot be combined with follow")
	}
	if p.follow && p.Newest {
		return p, bad("newest cannot be combined with follow")
	}
	return p, nil
}

func (p *parameters) set(name, value string, now time.Time) (err error) {
	switch name {
	case "since":
		p.Since, err = moment(name, value, now)
	case "until":
		p.Until, err = moment(name, value, now)
	case "namespace":
		p.Namespace = value
	case "pod":
		p.Pod = value
	case "workload": // also with its namespace
		if namespace, workload, ok := strings.Cut(value, "/"); ok {
			p.Namespace, value = namespace, workload
		}
		p.Workload = value
	case "verdict":
		p.Verdict = observerapi.Verdict(value)
		if !slices.Contains([]observerapi.Verdict{observerapi.Allowed, observerapi.Denied, observerapi.WouldBeDeny, observerapi.WouldBeAllow}, p.Verdict) {
			return bad("verdict=%.64q is not Allowed, Denied, WouldBeDenied or WouldBeAllowed", value)
		}
	case "protocol":
		p.Protocol = value
	case "port":
		port, e := strconv.ParseUint(value, 10, 16)
		if e != nil || port == 0 {
			return bad("port=%.64q is not a port", value)
		}
		p.Port = uint16(port)
	case "policy":
		p.Policy, err = policy(value)
	case "limit":
		if p.limit, err = strconv.Atoi(value); err != nil || p.limit < 1 || p.limit > maxLimit {
			return bad("limit=%.64q is not a number from 1 to %d", value, maxLimit)
		}
	case "follow":
		p.follow, err = boolean(name, value)
	case "newest":
		p.Newest, err = boolean(name, value)
	}
	return err
}

func boolean(name, value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	v, err := strconv.ParseBool(value)
	if err != nil {
		return false, bad("%s=%.64q is neither true nor false", name, value)
	}
	return v, nil
}

// moment reads a time, or a duration back from now.
func moment(name, value string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(value); err == nil {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return t, bad("%s=%.64q is neither a duration (10m) nor a time (2006-01-02T15:04:05Z)", name, value)
	}
	return t, nil
}

// policy reads a policy: KIND/NAMESPACE/NAME, NAMESPACE/NAME of a NetworkPolicy, or NAME of a policy without a namespace.
func policy(value string) (agentapi.PolicyRef, error) {
	parts := strings.Split(value, "/")
	switch {
	case slices.Contains(parts, ""):
	case len(parts) == 1:
		return agentapi.PolicyRef{Name: parts[0]}, nil
	case len(parts) == 2:
		return agentapi.PolicyRef{Namespace: parts[0], Name: parts[1]}, nil
	case len(parts) == 3:
		return agentapi.PolicyRef{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, nil
	}
	return agentapi.PolicyRef{}, bad("policy=%.64q is not NAMESPACE/NAME or NAME", value)
}
