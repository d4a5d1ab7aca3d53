package startup

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/cert"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/kidoban/kidoban/internal/httpserver"
)

// MetricsReader is the ClusterRole of those that may read metrics where they are secure.
const MetricsReader = "kidoban-metrics-reader"

// Servers are the servers of metrics and probes, by their flags.
type Servers struct {
	metrics, probes string
	secure          bool
	certDir         string
}

// Bind adds the flags, with the addresses' defaults.
func (s *Servers) Bind(fs *flag.FlagSet, metrics, probes string) {
	fs.StringVar(&s.metrics, "metrics-bind-address", metrics, "Address to serve metrics on; 0 serves none.")
	fs.StringVar(&s.probes, "health-probe-bind-address", probes, "Address to serve /healthz and /readyz on; 0 serves none.")
	fs.BoolVar(&s.secure, "secure-metrics", false, "Serve metrics by TLS, to callers with a token whose user may get /metrics: config/components/secure-metrics.")
	fs.StringVar(&s.certDir, "metrics-cert-dir", "", "Directory with tls.crt and tls.key for --secure-metrics, which may change; empty: a certificate that the program signs itself.")
}

// Check fails where an address cannot be listened on.
func (s *Servers) Check() error {
	if s.certDir != "" && !s.secure {
		return errors.New("--metrics-cert-dir needs --secure-metrics")
	}
	return errors.Join(CheckFree("--metrics-bind-address", s.metrics), CheckFree("--health-probe-bind-address", s.probes))
}

// Add makes the manager serve metrics, and the results of the checks, which run until the context is done.
func (s *Servers) Add(ctx context.Context, mgr manager.Manager, registry prometheus.Gatherer, live, ready map[string]healthz.Checker) (*httpserver.Metrics, error) {
	log := ctrl.Log.WithName("http")
	metrics := httpserver.NewMetrics(registry)
	page := http.NewServeMux()
	options := httpserver.Options{Name: "metrics", Flag: "--metrics-bind-address", Address: s.metrics, Handler: page, Log: log}
	var handler http.Handler = metrics
	if s.secure {
		client, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
		if err != nil {
			return nil, err
		}
		handler = httpserver.Guard{
			TokenHint:  "a bearer token of the cluster is needed",
			AccessHint: "bind the ClusterRole " + MetricsReader,
			Tokens:     client.AuthenticationV1().TokenReviews(), Access: client.AuthorizationV1().SubjectAccessReviews(), Log: log,
		}.Wrap(metrics)
		if options.TLS, err = s.tls(mgr); err != nil {
			return nil, fmt.Errorf("--metrics-cert-dir=%s: %w", s.certDir, err)
		}
	}
	page.Handle("GET "+httpserver.PathMetrics, handler)
	return metrics, errors.Join(
		httpserver.Add(mgr, options),
		httpserver.Add(mgr, httpserver.Options{
			Name: "probes", Flag: "--health-probe-bind-address", Address: s.probes, Log: log,
			Handler: httpserver.Probes(httpserver.RunChecks(ctx, live), httpserver.RunChecks(ctx, ready)),
		}),
	)
}

// tls returns the settings of a server with the certificate of the directory, or with one that it signs itself.
func (s *Servers) tls(mgr manager.Manager) (*tls.Config, error) {
	config := &tls.Config{NextProtos: []string{"http/1.1"}}
	if s.certDir != "" {
		watcher, err := certwatcher.New(filepath.Join(s.certDir, "tls.crt"), filepath.Join(s.certDir, "tls.key"))
		if err != nil {
			return nil, err
		}
		config.GetCertificate = watcher.GetCertificate
		return config, mgr.Add(watcher)
	}
	crt, key, err := cert.GenerateSelfSignedCertKeyWithFixtures("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil, "")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(crt, key)
	config.Certificates = []tls.Certificate{pair}
	return config, err
}
