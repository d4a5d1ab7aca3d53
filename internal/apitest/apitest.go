// Package apitest starts a real API server with kidoban's kinds for the tests of other packages.
package apitest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// assets names the directory of the binaries etcd and kube-apiserver; `make test` sets it.
const assets = "KUBEBUILDER_ASSETS"

// patience is how long each of etcd, the API server and the CRDs may take to come, and the former to go.
const patience = time.Minute

// Start runs etcd and the API server and installs the CRDs. The caller must call stop, whatever happens.
func Start() (config *rest.Config, stop func() error, err error) {
	dir := os.Getenv(assets)
	for _, binary := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, binary)); dir == "" || err != nil {
			return nil, nil, fmt.Errorf("%s=%q has no %s: run `make test`, or set it to what `go run . assets` in hack/cluster prints", assets, dir, binary)
		}
	}
	var env *envtest.Environment
	for tries := 3; ; tries-- {
		env = &envtest.Environment{
			BinaryAssetsDirectory: dir,
			CRDDirectoryPaths:     []string{filepath.Join(Root(), "config", "crd", "bases")},
			ErrorIfCRDPathMissing: true,
			// Packages start theirs at the same time, beside whatever else the machine does.
			ControlPlaneStartTimeout: patience, ControlPlaneStopTimeout: patience,
			CRDInstallOptions: envtest.CRDInstallOptions{MaxTime: patience},
		}
		if config, err = env.Start(); err == nil {
			break
		}
		err = errors.Join(fmt.Errorf("start the API server: %w", err), env.Stop())
		if env.Config == nil || tries == 1 {
			return nil, nil, err
		}
		// It answers, but the namespace default did not come within 5 s, which cannot be set.
	}
	unguard, err := guard(env.ControlPlane.APIServer.CertDir, env.ControlPlane.Etcd.DataDir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w; stop the API server: %w", err, env.Stop())
	}
	return config, func() error {
		unguard()
		return env.Stop()
	}, nil
}

// guard has a shell wait for the end of this process, however it ends, and kill its children and remove their directories then. A test
// that panics or runs out of time does not come to stop.
func guard(dirs ...string) (unguard func(), err error) {
	var children []string
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil { // it has ended
			continue
		}
		var pid, parent int
		var state string
		_, _ = fmt.Sscanf(string(data), "%d", &pid)
		_, after, _ := bytes.Cut(data, []byte(") "))
		if _, err := fmt.Sscanf(string(after), "%s %d", &state, &parent); err == nil && parent == os.Getpid() {
			children = append(children, strconv.Itoa(pid))
		}
	}
	script := fmt.Sprintf(`read -r _; kill -9 %s; rm -rf "$@"`, strings.Join(children, " "))
	cmd := exec.Command("sh", append([]string{"-c", script, "guard"}, dirs...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is not for it
	pipe, err := cmd.StdinPipe()                          // the kernel closes it with this process
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = pipe.Close()
		_ = cmd.Wait()
	}, nil
}

// Root is the repository's directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
