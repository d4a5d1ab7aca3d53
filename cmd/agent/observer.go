package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"time"

	"github.com/go-logr/logr"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/flowpush"
	"github.com/kidoban/kidoban/internal/replicas"
)

// observer are the flags about the observer. docs/flow-log.md describes them.
type observer struct {
	on        bool
	tokenFile string
}

func (o *observer) bind(fs *flag.FlagSet) {
	fs.BoolVar(&o.on, "observer", false, "Push records of all new connections of the node's pods, also of those that no policy isolates, to the observer, whose pods are in kidoban's namespace. config/components/observer sets it.")
	fs.StringVar(&o.tokenFile, "observer-token-file", "/var/run/secrets/kidoban.dev/observer/token", "File with the agent's token for the observer; without the file, there are no records.")
}

// isUsable reports whether records are wanted and can be pushed.
func (o *observer) isUsable(log logr.Logger) bool {
	if !o.on {
		return false
	}
	if _, err := os.Stat(o.tokenFile); errors.Is(err, fs.ErrNotExist) {
		log.Info("No token for the observer: no flow records are pushed", "file", o.tokenFile)
		return false
	}
	return true
}

const (
	// recordInterval is how old a record is at most when it is pushed.
	recordInterval = 5 * time.Second
	// recordBuffer is the memory of records while the observer is away: half an hour of 50 records a second.
	recordBuffer = 16 << 20
)

func (o *options) pusher(dp *dataplane.Dataplane, names flowlog.Directory, report func() (*agentapi.NodeReport, error), api corev1client.CoreV1Interface, log logr.Logger) *flowpush.Pusher {
	return flowpush.New(flowpush.Options{
		Source: dp, Names: flowlog.NewRecorder(o.nodeName, names), Interval: recordInterval, BufferBytes: recordBuffer, Report: report,
		Replicas: replicas.WatchPods(api, replicas.Component{
			Namespace: o.namespace, Name: flow.Component, PortName: flow.PortName, Choose: flowpush.Choose(o.nodeName),
		}),
		Access: replicas.Access{
			Authority: replicas.ReadAuthority(api, o.namespace, flow.CAConfigMap, flow.CAKey), ServerName: flow.ServerName, TokenFile: o.observer.tokenFile,
		},
		Log: log, Registry: metrics.Registry,
	})
}
