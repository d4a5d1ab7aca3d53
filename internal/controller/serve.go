package controller

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/internal/certificates"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/streamserver"
)

// StreamOptions of the stream from agents.
type StreamOptions struct {
	// Flag that has the address, for errors.
	Flag, Address string
	Client        kubernetes.Interface
}

// serve adds the stream's server and its certificate to the manager.
func (c *Controller) serve(mgr manager.Manager, o *StreamOptions) error {
	log := mgr.GetLogger().WithName("stream")
	keeper := &certificates.Keeper{
		Issuer: certificates.Issuer{ServerName: stream.ServerName, Lifetimes: certificates.Usual}, Secret: stream.CertificateSecret, ConfigMap: stream.CAConfigMap,
		Secrets: o.Client.CoreV1().Secrets(c.shared), ConfigMaps: o.Client.CoreV1().ConfigMaps(c.shared), Leading: mgr.Elected(), Log: log,
	}
	server, err := streamserver.New(streamserver.Options{
		Flag: o.Flag, Address: o.Address, Certificate: keeper.Certificate, Handler: c.agents, Registry: metrics.Registry, Log: log,
		Authenticator: &streamserver.Authenticator{Audience: stream.Audience, Namespace: c.shared, Reviews: o.Client.AuthenticationV1().TokenReviews(), Cluster: c.known},
	})
	if err != nil {
		return err
	}
	c.server = server
	if err := mgr.Add(keeper); err != nil {
		return err
	}
	return mgr.Add(&streamRunner{server, c.agents})
}

// streamRunner serves the stream on each replica.
type streamRunner struct {
	server *streamserver.Server
	agents *Agents
}

// NeedLeaderElection is false: followers store announcements.
func (r *streamRunner) NeedLeaderElection() bool { return false }

// Start serves until the context is done.
func (r *streamRunner) Start(ctx context.Context) error {
	r.agents.ctx = ctx // before the first message
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.agents.run(ctx) })
	return r.server.Start(ctx)
}

// followAgents records the agents' pods, and gives a pod to the announcements that wait for it.
func (c *Controller) followAgents(old, now **corev1.Pod) {
	if old != nil && c.isAgent(*old) && (now == nil || (*now).UID != (*old).UID || !c.isAgent(*now)) {
		c.known.setAgent((*old).UID, "")
		if c.server != nil {
			c.server.EndPod((*old).Spec.NodeName, string((*old).UID))
		}
	}
	if now == nil {
		return
	}
	if c.isAgent(*now) {
		c.known.setAgent((*now).UID, (*now).Spec.NodeName)
	}
	if node := (*now).Spec.NodeName; node != "" && (old == nil || (*old).UID != (*now).UID || (*old).Spec.NodeName == "") {
		c.agents.sawPod(node, (*now).UID)
		if static := (*now).Annotations[corev1.MirrorPodAnnotationKey]; static != "" {
			c.agents.sawPod(node, types.UID(static))
		}
	}
}
