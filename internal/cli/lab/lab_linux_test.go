package lab_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const repo = "../../.."

// binary is the program as users have it.
func binary(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubectl-kidoban")
	if out, err := exec.Command("go", "build", "-o", file, repo+"/cmd/kubectl-kidoban").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return file
}

// leftOver fails the test if the lab left something on this machine.
func leftOver(t *testing.T, group int) {
	t.Helper()
	if err := syscall.Kill(-group, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process of the lab is left (%v)", err)
	}
	if pins, _ := filepath.Glob("/sys/fs/bpf/kidoban*"); len(pins) > 0 {
		t.Errorf("pins are left: %v", pins)
	}
	if links, _ := filepath.Glob("/sys/class/net/lab*"); len(links) > 0 {
		t.Errorf("links are left: %v", links)
	}
}

// The shop's policies, with real packets: all go as is meant, and some are refused.
func TestShop(t *testing.T) {
	program := binary(t)
	for _, families := range []string{"IPv4", "IPv4,IPv6", "IPv6"} {
		t.Run(families, func(t *testing.T) { shop(t, program, families) })
	}
}

func shop(t *testing.T, program, families string) {
	cmd := exec.Command(program, "lab", "-f", repo+"/examples/shop", "-f", repo+"/examples/shop/policies", "-o", "json", "--ip-families", families)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &errOut)
	}
	leftOver(t, cmd.Process.Pid)
	var result struct {
		Cells []struct {
			From, To          struct{ Namespace, Name string }
			Port              int
			Verdict, Measured string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, c := range result.Cells {
		if c.Measured != c.Verdict {
			t.Errorf("%+v", c)
		}
		count[c.Measured]++
	}
	if count["allowed"] < 10 || count["denied"] < 30 {
		t.Errorf("%v connections are too few to have tried anything", count)
	}
}

// TestRecording compares docs/lab.svg, which hack/record.sh draws, with what the lab prints.
func TestRecording(t *testing.T) {
	picture, err := os.ReadFile(repo + "/docs/lab.svg")
	if err != nil {
		t.Fatal(err)
	}
	var drawn []string
	for _, m := range regexp.MustCompile(`(?m)^<text[^>]*>(.*)</text>$`).FindAllSubmatch(picture, -1) {
		drawn = append(drawn, html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(string(m[1]), "")))
	}
	command, shown := strings.Fields(drawn[0])[3:], drawn[1:]
	cmd := exec.Command(binary(t), command...)
	cmd.Dir = repo
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	took := regexp.MustCompile(` in [0-9.]+ s:`)
	var printed []string
	for line := range strings.Lines(string(out) + took.ReplaceAllString(stderr.String(), ":")) {
		printed = append(printed, strings.TrimRight(line, " \n"))
	}
	if !slices.Equal(shown, printed) {
		t.Errorf("docs/lab.svg shows\n%s\nand the lab prints\n%s\nhack/record.sh draws it anew", strings.Join(shown, "\n"), strings.Join(printed, "\n"))
	}
}

func TestRecipes(t *testing.T) {
	program := binary(t)
	files, err := filepath.Glob(repo + "/examples/recipes/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal("no recipes", err)
	}
	for _, file := range files {
		if filepath.Base(file) == "workloads.yaml" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			if out, err := exec.Command(program, "lab", "--replicas=1", "-f", repo+"/examples/recipes/workloads.yaml", "-f", file).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// big is manifests whose connections take a while: everybody is refused everything.
func big(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app-%d, namespace: a}\nspec: {replicas: 2, template: {metadata: {labels: {app: app-%d}}, spec: {containers: [{name: c, ports: [{containerPort: 80}, {containerPort: 81}]}]}}}\n---\n", i, i)
	}
	b.WriteString("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: a}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n")
	file := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestNothingIsLeftAfterASignal(t *testing.T) {
	program, manifests := binary(t), big(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			cmd := exec.Command(program, "lab", "-f", manifests)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			if err := awaitChild(cmd.Process.Pid, ended); err != nil {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				t.Fatalf("%v; %v; it said:\n%s", err, <-ended, &said)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil {
				t.Error("it ended well")
			}
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if errors.Is(syscall.Kill(-cmd.Process.Pid, 0), syscall.ESRCH) || time.Now().After(deadline) {
					break
				}
			}
			leftOver(t, cmd.Process.Pid)
		})
	}
}

// awaitChild waits until the process inside is at work: it has made network namespaces of pods.
func awaitChild(pid int, ended chan error) error {
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			return errors.New("the lab ended before it had made pods")
		default:
		}
		for _, child := range words(fmt.Sprintf("/proc/%d/task/*/children", pid)) {
			// Any thread may be in a pod's namespace for good, the first one too.
			if slices.Contains(words("/proc/"+child+"/task/*/net/dev"), "lab1:") {
				return nil
			}
		}
	}
	return errors.New("the lab does not come to make pods")
}

// words are those of all files of the pattern that can be read.
func words(pattern string) []string {
	var out []string
	files, _ := filepath.Glob(pattern)
	for _, file := range files {
		text, _ := os.ReadFile(file)
		out = append(out, strings.Fields(string(text))...)
	}
	return out
}

// TestAsExpected runs manifests that need care: whatever the lab measures is what the policies demand.
func TestAsExpected(t *testing.T) {
	program := binary(t)
	const client = "apiVersion: v1\nkind: Pod\nmetadata: {name: job, namespace: lab, labels: {app: job}}\nspec: {containers: [{name: c, ports: [{containerPort: 80}]}]}\n"
	workload := func(kind, version, spec string) string {
		return "---\napiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: job, namespace: lab}\nspec: " + spec + "\n"
	}
	template := func(app string) string {
		return "template: {metadata: {labels: {app: " + app + "}}, spec: {restartPolicy: Never, containers: [{name: c, ports: [{containerPort: 80}]}]}}"
	}
	running := func(name, address string) string {
		return "---\napiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: lab, labels: {app: " + name + "}}\nspec: {containers: [{name: c, ports: [{containerPort: 80}]}]}\nstatus: {phase: Running, podIP: " + address + "}\n"
	}
	policy := func(spec string) string {
		return "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: np, namespace: lab}\nspec: " + spec + "\n"
	}
	for name, tc := range map[string]struct {
		manifests string
		args      []string
		want      string
	}{
		"four kinds with one name": {client + workload("Job", "batch/v1", "{"+template("once")+"}") + workload("CronJob", "batch/v1", "{schedule: '0 1 * * *', jobTemplate: {spec: {"+template("hourly")+"}}}") +
			workload("StatefulSet", "apps/v1", "{replicas: 2, "+template("kept")+"}") + policy("{podSelector: {matchExpressions: [{key: app, operator: In, values: [hourly, job]}]}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: once}}}]}]}"),
			nil, "lab/job (CronJob)"},
		"UDP to several addresses outside, of both families": {client + policy("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.7/32}}, {ipBlock: {cidr: 198.51.100.9/32}}, {ipBlock: {cidr: '2001:db8:9::/64'}}], ports: [{port: 123, protocol: UDP}]}]}"),
			[]string{"--port", "123/UDP", "--ip-families", "IPv4,IPv6"}, "2001:db8:9::1"},
		"the default address in a block": {client + policy("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.0.0/16}}, {ipBlock: {cidr: 192.0.2.1/32}}]}]}"), nil, "192.0.2.1"},
		"addresses that no host has": {client + policy("{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [127.0.0.0/8, 224.0.0.0/4, 255.255.255.255/32]}}]}]}"),
			nil, "left out, as no host outside can have them: 127.0.0.1, 255.255.255.255"},
		"two pods with one address": {running("old", "10.4.0.7") + running("new", "10.4.0.7") + running("other", "10.4.0.8") + policy("{podSelector: {matchLabels: {app: other}}, policyTypes: [Ingress]}"),
			nil, "left out, as a younger pod has their address or no host can have it: lab/old"},
		"a pod's address that no host has": {running("odd", "169.254.1.1") + running("other", "10.4.0.8"), nil, "or no host can have it: lab/odd"},
		"addresses of pods that are not known": {client + workload("Deployment", "apps/v1", "{"+template("api")+"}") + policy("{podSelector: {matchLabels: {app: job}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]}"),
			nil, "depends on the address of a pod"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "in.yaml")
			if err := os.WriteFile(file, []byte(tc.manifests), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(program, append([]string{"lab", "-f", file}, tc.args...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "all as expected") || !strings.Contains(string(out), tc.want) {
				t.Errorf("%v, want %q in\n%s", err, tc.want, out)
			}
		})
	}
}

// TestNoAnswer: where nothing is connected, the lab has no answer.
func TestNoAnswer(t *testing.T) {
	program := binary(t)
	file := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: lab}\nspec: {containers: [{name: c, ports: [{containerPort: 80}]}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"no connection was made":                                  {"--port", "80/SCTP"},
		"no pod has an address of its family":                     {"--outside", "2001:db8::7"},
		"-n nosuch: that namespace has no pods with addresses of": {"-n", "nosuch"},
	} {
		out, err := exec.Command(program, append([]string{"lab", "-f", file}, args...)...).CombinedOutput()
		var failed *exec.ExitError
		if !errors.As(err, &failed) || failed.ExitCode() != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v, want exit code 2 and %q in\n%s", args, err, want, out)
		}
	}
}
