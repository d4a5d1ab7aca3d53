package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// A suite is Kubernetes' own, as hack/cluster builds it.
type suite struct {
	cluster *cluster.Cluster
	bin     string
}

// findSuite builds the suite if it is not cached yet.
func findSuite(ctx context.Context, c *cluster.Cluster) (*suite, error) {
	build := c.Command(ctx, "build", "--only=e2e")
	build.Stderr = c.Log
	out, err := build.Output()
	if err != nil {
		return nil, fmt.Errorf("build Kubernetes' suite: %w", err)
	}
	return &suite{cluster: c, bin: strings.TrimSpace(string(out))}, nil
}

func (s *suite) program(name string) string { return filepath.Join(s.bin, name) }

// packImage packs the one image that the specs' pods run, from source, under the name that the suite looks for.
func (s *suite) packImage(ctx context.Context) (tar string, err error) {
	list, err := cluster.Output(exec.CommandContext(ctx, s.program("e2e.test"), "--list-images"))
	if err != nil {
		return "", err
	}
	name, err := agnhostImage(list)
	if err != nil {
		return "", err
	}
	tar = filepath.Join(s.cluster.Repo, "dist", runtime.GOARCH, "agnhost.tar")
	_, err = cluster.Output(exec.CommandContext(ctx, filepath.Join(s.cluster.Repo, "bin", "image"),
		"--platform=linux/"+runtime.GOARCH, "--tag="+name, "--user=0", "--output="+tar,
		"--entrypoint=/agnhost", s.program("agnhost")+":/agnhost"))
	return tar, err
}

var agnhost = regexp.MustCompile(`(?m)^\S+/e2e-test-images/agnhost:(\S+)$`)

// agnhostImage is agnhost in the suite's list of images. Of the two versions in it the older is for tests of updates.
func agnhostImage(list string) (string, error) {
	found := agnhost.FindAllStringSubmatch(list, -1)
	if len(found) == 0 {
		return "", errors.New("the suite's images lack agnhost")
	}
	return slices.MaxFunc(found, func(a, b []string) int { return slices.Compare(numbers(a[1]), numbers(b[1])) })[0], nil
}

func numbers(version string) []int {
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part) // what is no number comes first
		out = append(out, n)
	}
	return out
}

// A reason why specs are left out.
type reason struct {
	names *regexp.Regexp
	why   string
}

// leftOut says what cannot run on this machine.
func leftOut() []reason {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		_ = unix.Close(fd)
		return nil
	}
	return []reason{{regexp.MustCompile(`\[Feature:SCTPConnectivity\]`), fmt.Sprintf("this kernel has no SCTP sockets (%v)", err)}}
}

// run runs the specs and returns the path of the JUnit report, which is there also when specs failed.
func (s *suite) run(ctx context.Context, dir, focus string, left []reason, procs int) (junit string, err error) {
	const report = "junit.xml"
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	kubeconfig, err := cluster.Output(s.cluster.Command(ctx, "kubeconfig"))
	if err != nil {
		return "", err
	}
	argv := []string{
		s.program("ginkgo"), fmt.Sprintf("--procs=%d", procs), "--no-color", "--silence-skips", "--timeout=1h",
		"--focus=" + focus, "--output-dir=" + dir, "--junit-report=" + report,
	}
	for _, l := range left {
		argv = append(argv, "--skip="+l.names.String())
	}
	argv = append(argv, s.program("e2e.test"), "--",
		"--kubeconfig="+strings.TrimSpace(kubeconfig), "--provider=skeleton", "--num-nodes=3", "--allowed-not-ready-nodes=0")
	cmd := s.cluster.Outside(ctx, argv...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	if junit = filepath.Join(dir, report); !exists(junit) {
		return "", errors.Join(errors.New("the suite wrote no report"), err)
	}
	return junit, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
