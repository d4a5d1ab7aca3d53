// Package apitest starts a real API server with kidoban's kinds for the tests of other packages.
package apitest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// assets names the directory of the binaries etcd and kube-apiserver; `make test` sets it.
const assets = "KUBEBUILDER_ASSETS"

// Start runs etcd and the API server and installs the CRDs. The caller must call stop, whatever happens.
func Start() (config *rest.Config, stop func() error, err error) {
	dir := os.Getenv(assets)
	for _, binary := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, binary)); dir == "" || err != nil {
			return nil, nil, fmt.Errorf("%s=%q has no %s: run `make test`, or set it to what `go run . assets` in hack/cluster prints", assets, dir, binary)
		}
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory: dir,
		CRDDirectoryPaths:     []string{filepath.Join(Root(), "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	config, err = env.Start()
	if err != nil {
		return nil, nil, fmt.Errorf("start the API server: %w; stop it: %w", err, env.Stop())
	}
	return config, env.Stop, nil
}

// Root is the repository's directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
