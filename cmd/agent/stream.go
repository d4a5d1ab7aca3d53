package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/go-logr/logr"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/replicas"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/stream/client"
)

// defaultTokenFile is where the DaemonSet mounts the projected token.
const defaultTokenFile = "/var/run/secrets/kidoban.dev/controller/token"

// stream returns the streams to the controller; nil without a token.
func (o *options) stream(api corev1client.CoreV1Interface, log logr.Logger) agent.Stream {
	if o.tokenFile == "" {
		return nil
	}
	if _, err := os.Stat(o.tokenFile); errors.Is(err, fs.ErrNotExist) {
		log.Info("No token for the stream to the controller: new pods are not announced, and nothing is reported", "file", o.tokenFile)
		return nil
	}
	return client.New(client.Options{
		Replicas:  replicas.WatchPods(api, replicas.Component{Namespace: o.namespace, Name: "controller", PortName: stream.PortName}),
		Authority: replicas.ReadAuthority(api, o.namespace, stream.CAConfigMap, stream.CAKey),
		TokenFile: o.tokenFile, Log: log.WithName("stream"), Registry: metrics.Registry,
	})
}
