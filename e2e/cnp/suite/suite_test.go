//go:build e2e

// Package suite runs upstream's conformance suite of ClusterNetworkPolicy. It is a module of its own, because the suite needs
// other versions of Kubernetes' modules. The command in the directory above makes the cluster.
package suite

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/network-policy-api/conformance/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/conformance/tests"
	timeouts "sigs.k8s.io/network-policy-api/conformance/utils/config"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
	"sigs.k8s.io/yaml"

	"k8s.io/apimachinery/pkg/util/sets"
)

// TestConformance runs the suite with all features against the cluster of KUBECONFIG. ONLY has the names of tests to run, separated by
// commas, and is empty for all. REPORT is the file for the report, which is written also if tests fail; VERSION is kidoban's. WAIT is the
// time after which a connection without an answer counts as denied. The suite's own is 3 s, and most of a run is this waiting.
func TestConformance(t *testing.T) {
	wait, err := time.ParseDuration(os.Getenv("WAIT"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v1beta1.Install(c.Scheme()), apiextensionsv1.AddToScheme(c.Scheme())); err != nil {
		t.Fatal(err)
	}
	clientSet, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s, err := suite.NewConformanceProfileTestSuite(suite.ConformanceProfileOptions{
		Options: suite.Options{
			Client: c, ClientSet: clientSet, KubeConfig: *config,
			SupportedFeatures: suite.AllFeatures.Clone(),
			TimeoutConfig:     timeouts.TimeoutConfig{RequestTimeout: wait},
		},
		Implementation: v1alpha1.Implementation{
			Organization: "kidoban", Project: "kidoban", URL: "https://github.com/kidoban/kidoban", Version: os.Getenv("VERSION"),
			Contact: []string{"https://github.com/kidoban/kidoban/issues"},
		},
		ConformanceProfiles: sets.New(suite.CNPConformanceProfileName),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Setup(t)
	all := tests.ConformanceTests
	if only := strings.FieldsFunc(os.Getenv("ONLY"), func(r rune) bool { return r == ',' }); len(only) > 0 {
		all = nil
		for _, name := range only {
			i := slices.IndexFunc(tests.ConformanceTests, func(test suite.ConformanceTest) bool { return test.ShortName == name })
			if i < 0 {
				t.Fatalf("the suite has no test %s", name)
			}
			all = append(all, tests.ConformanceTests[i])
		}
	}
	if err := s.Run(t, all); err != nil {
		t.Fatal(err)
	}
	report, err := s.Report()
	if err != nil {
		t.Fatal(err)
	}
	data, err := yaml.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("REPORT"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}
