package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// atOnce is how many pods are asked at the same time.
const atOnce = 16

// shellProbe connects to each "address port" of its arguments with what the container has, and prints a line "index open", "index
// refused" (by the receiver: nothing dropped it) or "index silent".
const shellProbe = `
if command -v nc >/dev/null 2>&1; then try() { nc -z -w 2 "$1" "$2"; }
elif command -v bash >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1; then try() { timeout 2 bash -c ": <>/dev/tcp/$1/$2"; }
elif command -v python3 >/dev/null 2>&1; then try() { python3 -c "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)" "$1" "$2"; }
else echo no-tool; exit 0
fi
i=0
while [ $# -gt 0 ]; do
  (
    began=$(date +%s)
    if try "$1" "$2" >/dev/null 2>&1; then echo "$i open"
    elif [ $(($(date +%s) - began)) -lt 2 ]; then echo "$i refused"
    else echo "$i silent"
    fi
  ) &
  i=$((i+1)); shift 2
done
wait`

// target is one connection that a pod is to make.
type target struct {
	row, column int
	to          netip.AddrPort
}

// probe makes the connections of the table from the pods themselves, over TCP.
func (t *Table) probe(ctx context.Context, env *command.Env, c *model.Cluster) error {
	config, err := env.Config.ToRESTConfig()
	if err != nil {
		return err
	}
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return err
	}
	t.Measured = make([][]model.Verdict, len(t.Rows))
	for i := range t.Measured {
		t.Measured[i] = make([]model.Verdict, len(t.Columns))
	}
	byPod := t.targets(c)
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for pod, targets := range byPod {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			open, err := dial(ctx, config, core, pod, targets)
			mu.Lock()
			defer mu.Unlock()
			if done++; env.Interactive() {
				fmt.Fprintf(env.ErrOut, "\r\x1b[K%d of %d pods …", done, len(byPod))
			}
			if err != nil {
				fmt.Fprintf(env.ErrOut, "warning: pod %s: no connections from it: %v\n", pod.Key(), err)
				return
			}
			for i, at := range targets {
				t.record(at, open[i])
			}
		})
	}
	wg.Wait()
	if env.Interactive() {
		fmt.Fprint(env.ErrOut, "\r\x1b[K")
	}
	return ctx.Err()
}

// targets of each running pod.
func (t *Table) targets(c *model.Cluster) map[*model.Pod][]target {
	byWorkload := map[model.Workload][]*model.Pod{}
	for i := range c.Pods {
		if p := &c.Pods[i]; policy.IsPeer(&p.Pod) && p.Status.Phase == corev1.PodRunning {
			byWorkload[p.Workload] = append(byWorkload[p.Workload], p)
		}
	}
	out := map[*model.Pod][]target{}
	for i, row := range t.Rows {
		for j, column := range t.Columns {
			if t.Cells[i][j] == model.NotAsked || column.Port.Protocol != policy.TCP || column.Port.Number == 0 {
				continue
			}
			for _, from := range byWorkload[row] {
				for _, to := range byWorkload[column.Workload] {
					if from == to {
						continue
					}
					for _, a := range policy.PodAddresses(&to.Pod) {
						if hasFamily(from, a) {
							out[from] = append(out[from], target{i, j, netip.AddrPortFrom(a, column.Port.Number)})
						}
					}
				}
			}
		}
	}
	return out
}

func hasFamily(p *model.Pod, like netip.Addr) bool {
	for _, a := range policy.PodAddresses(&p.Pod) {
		if a.Is4() == like.Is4() {
			return true
		}
	}
	return false
}

func (t *Table) record(at target, open bool) {
	cell := &t.Measured[at.row][at.column]
	v := model.Denied
	if open {
		v = model.Allowed
	}
	if *cell != model.NotAsked && *cell != v {
		v = model.Partial
	}
	*cell = v
}

// dial from a pod: with kidoban's own probe where it is, else with what its shell finds. True stands for any answer: what policies refuse is
// dropped.
func dial(ctx context.Context, config *rest.Config, core corev1client.CoreV1Interface, pod *model.Pod, targets []target) ([]bool, error) {
	args := []string{"/probe", "dial", "--timeout=2s"}
	for _, t := range targets {
		args = append(args, "tcp/"+t.to.String())
	}
	if out, err := execute(ctx, config, core, pod, args); err == nil {
		return readProbe(out, len(targets))
	}
	args = []string{"sh", "-c", shellProbe, "sh"}
	for _, t := range targets {
		args = append(args, t.to.Addr().String(), fmt.Sprint(t.to.Port()))
	}
	out, err := execute(ctx, config, core, pod, args)
	if err != nil {
		return nil, fmt.Errorf("its image has no shell to connect with: %w", err)
	}
	return readShell(out, len(targets))
}

func readProbe(out []byte, n int) ([]bool, error) {
	var open []bool
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var r struct {
			Outcome string `json:"outcome"`
		}
		if err := decoder.Decode(&r); err != nil {
			return nil, err
		}
		open = append(open, r.Outcome == "open" || r.Outcome == "refused")
	}
	if len(open) != n {
		return nil, fmt.Errorf("%d results of %d connections", len(open), n)
	}
	return open, nil
}

func readShell(out []byte, n int) ([]bool, error) {
	if strings.TrimSpace(string(out)) == "no-tool" {
		return nil, errors.New("its image has none of nc, bash and python3 to connect with")
	}
	open := make([]bool, n)
	lines := 0
	for line := range strings.Lines(string(out)) {
		var i int
		var result string
		if _, err := fmt.Sscan(line, &i, &result); err != nil || i < 0 || i >= n {
			return nil, fmt.Errorf("cannot read %q", line)
		}
		open[i] = result != "silent"
		lines++
	}
	if lines != n {
		return nil, fmt.Errorf("%d results of %d connections", lines, n)
	}
	return open, nil
}

// execute a command in a pod's first container, as kubectl exec does.
func execute(ctx context.Context, config *rest.Config, core corev1client.CoreV1Interface, pod *model.Pod, args []string) ([]byte, error) {
	request := core.RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: pod.Spec.Containers[0].Name, Command: args, Stdout: true, Stderr: true}, command.ParameterCodec())
	executor, err := remotecommand.NewWebSocketExecutor(config, "GET", request.URL().String())
	if err != nil {
		return nil, err
	}
	var out, failure bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &failure}); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(failure.String()))
	}
	return out.Bytes(), nil
}
