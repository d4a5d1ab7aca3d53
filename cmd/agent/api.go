package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/agentapi/serve"
	"github.com/kidoban/kidoban/internal/flowlog"
)

// addAPI makes the manager serve the agent's API.
func addAPI(mgr manager.Manager, addr, node string, a *agent.Agent, recent *flowlog.Recent, log logr.Logger) error {
	if addr == "0" || addr == "" {
		return nil
	}
	client, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("cannot listen on --api-bind-address=%s; set another address: %w", addr, err)
	}
	guard := serve.Guard{Tokens: client.AuthenticationV1().TokenReviews(), Access: client.AuthorizationV1().SubjectAccessReviews(), Log: log}
	open, shut := context.WithCancel(context.Background())
	server := &http.Server{Handler: guard.Wrap(serve.Handler(open, node, a, recent, metrics.Registry)), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	server.RegisterOnShutdown(shut) // streams would hold it up
	return mgr.Add(&manager.Server{Name: "api", Server: server, Listener: listener})
}
