// Package podevents makes Kubernetes Events at pods whose connections are denied, so that `kubectl describe pod` shows the reason.
package podevents

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// again is how long after an Event the next one of the same kind comes at the earliest.
	again = 10 * time.Minute
	// Events of all pods per second, and at once.
	perSecond, burst = 1, 25
	// maxKinds is how many kinds are remembered. Beyond them there are no Events until the next interval.
	maxKinds = 10_000
	// maxMessage is the length of the longest message that the API server takes.
	maxMessage = 1024
	// createTime limits one write.
	createTime = 5 * time.Second
	// reason of all Events.
	reason = "ConnectionDenied"
)

// Options of Events.
type Options struct {
	Events   coreclient.EventsGetter
	Registry prometheus.Registerer
	Log      logr.Logger
	// Host names this replica.
	Host string
}

// Events makes Events. It is for use by one goroutine.
type Events struct {
	options Options
	limiter *rate.Limiter
	results *prometheus.CounterVec
	made    map[kind]time.Time
	failing bool
}

// kind of a denial: there is one Event of each in an interval.
type kind struct {
	uid, peer, protocol, policy string
	port                        uint16
	isSource                    bool
}

// New returns Events.
func New(o Options) *Events {
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kidoban_observer_pod_events_total", Help: "Kubernetes Events about denied connections, by result: created, limited (not made, because there were too many) or failed.",
	}, []string{"result"})
	o.Registry.MustRegister(results)
	return &Events{options: o, limiter: rate.NewLimiter(perSecond, burst), results: results, made: map[kind]time.Time{}}
}

// Add makes Events at the pods of a flow that was denied.
func (e *Events) Add(ctx context.Context, f *observerapi.Flow, now time.Time) {
	if f.Verdict != observerapi.Denied {
		return
	}
	e.at(ctx, f, &f.Source, &f.Destination, true, now)
	e.at(ctx, f, &f.Destination, &f.Source, false, now)
}

// at makes an Event at one end.
func (e *Events) at(ctx context.Context, f *observerapi.Flow, end, peer *observerapi.End, isSource bool, now time.Time) {
	if end.Pod == "" || end.UID == "" {
		return
	}
	own := f.Ingress
	if isSource {
		own = f.Egress
	}
	if own != nil && own.Verdict != observerapi.Denied {
		own = nil
	}
	if !isSource && own == nil { // nothing has reached this pod
		return
	}
	because := policyOf(own)
	k := kind{uid: end.UID, peer: nameOf(peer), protocol: f.Protocol, port: f.Port, policy: because, isSource: isSource}
	if made, ok := e.made[k]; ok && now.Sub(made) < again {
		return
	}
	if len(e.made) >= maxKinds {
		for k, made := range e.made {
			if now.Sub(made) >= again {
				delete(e.made, k)
			}
		}
	}
	if len(e.made) >= maxKinds || !e.limiter.AllowN(now, 1) {
		e.results.WithLabelValues("limited").Inc()
		return
	}
	e.made[k] = now
	e.create(ctx, end, k, message(f, peer, isSource, because), now)
}

func (e *Events) create(ctx context.Context, end *observerapi.End, k kind, message string, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	at := metav1.NewTime(now)
	_, err := e.options.Events.Events(end.Namespace).Create(ctx, &corev1.Event{
		// Replicas that receive the same flow make one Event: the name is that of the kind and the interval.
		ObjectMeta:     metav1.ObjectMeta{Namespace: end.Namespace, Name: name(end.Pod, k, now)},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: end.Namespace, Name: end.Pod, UID: types.UID(end.UID)},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message, Count: 1, FirstTimestamp: at, LastTimestamp: at,
		Source:              corev1.EventSource{Component: "kidoban-observer"},
		ReportingController: "kidoban.dev/observer", ReportingInstance: e.options.Host,
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		e.results.WithLabelValues("created").Inc()
	case apierrors.IsAlreadyExists(err):
	default:
		e.results.WithLabelValues("failed").Inc()
		if !e.failing && ctx.Err() == nil {
			e.options.Log.Error(err, "Cannot create an Event about a denied connection; may the observer create events? (component observer-pod-events)")
		}
	}
	e.failing = err != nil && !apierrors.IsAlreadyExists(err)
}

// maxPodName leaves room for what makes an Event's name different from others.
const maxPodName = 220

func name(pod string, k kind, now time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v %d", k, now.Unix()/int64(again.Seconds())))
	return pod[:min(len(pod), maxPodName)] + "." + hex.EncodeToString(sum[:8])
}

// policyOf names what denies in a decision of the pod's own policies; empty if these did not deny.
func policyOf(d *observerapi.Decision) string {
	switch {
	case d == nil:
		return ""
	case d.Policy != nil:
		return d.Policy.PolicyRef.String()
	case len(d.IsolatedBy) > 0:
		names := make([]string, len(d.IsolatedBy))
		for i, p := range d.IsolatedBy {
			names[i] = p.String()
		}
		return "no rule of " + strings.Join(names, ", ") + " allows it"
	}
	return d.Reason
}

// message says what was denied and why. Policies of the other end are not named: those who may read the Event may not be allowed to read them.
func message(f *observerapi.Flow, peer *observerapi.End, isSource bool, because string) string {
	side, word := "Ingress", "from"
	if isSource {
		side, word = "Egress", "to"
	}
	what := f.Protocol
	if f.Port != 0 {
		what += " " + strconv.Itoa(int(f.Port))
	}
	text := fmt.Sprintf("%s %s %s denied: %s", what, word, nameOf(peer), because)
	if because == "" {
		text = fmt.Sprintf("%s %s %s denied by policies of the destination", what, word, nameOf(peer))
	} else {
		text = side + " of " + text
	}
	return text[:min(len(text), maxMessage)]
}

// nameOf is the other end as far as it may be shown: its workload, or its address.
func nameOf(e *observerapi.End) string {
	switch {
	case e.Workload != nil:
		return fmt.Sprintf("%s %s/%s", e.Workload.Kind, e.Namespace, e.Workload.Name)
	case e.Namespace != "":
		return "namespace " + e.Namespace
	case e.IsNode:
		return "node " + e.Node
	case e.Address.IsValid():
		return (&net.IPAddr{IP: e.Address.AsSlice()}).String()
	}
	return "an address outside the cluster"
}
