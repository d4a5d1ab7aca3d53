package main

import (
	"context"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/agentapi/serve"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/httpserver"
)

// apiLimits differ from other servers': kubelet forwards all ports from one loopback address.
var apiLimits = httpserver.Limits{Connections: 128, PerSource: 128, Rate: 128}

// addAPI makes the manager serve the agent's API.
func addAPI(mgr manager.Manager, addr, node string, a *agent.Agent, recent *flowlog.Recent, metrics prometheus.Gatherer, log logr.Logger) error {
	client, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	guard := httpserver.Guard{
		Audience:   agentapi.Audience,
		TokenHint:  "a bearer token for the audience " + agentapi.Audience + " is needed: kubectl create token " + agentapi.Viewer + " --audience=" + agentapi.Audience,
		AccessHint: "bind the ClusterRole " + agentapi.Viewer,
		Tokens:     client.AuthenticationV1().TokenReviews(), Access: client.AuthorizationV1().SubjectAccessReviews(), Log: log,
	}
	open, shut := context.WithCancel(context.Background())
	return httpserver.Add(mgr, httpserver.Options{
		Name: "api", Flag: "--api-bind-address", Address: addr, Limits: apiLimits, Requests: 64,
		Handler: guard.Wrap(serve.Handler(open, node, a, recent, metrics)), OnShutdown: shut, Log: log,
	})
}
