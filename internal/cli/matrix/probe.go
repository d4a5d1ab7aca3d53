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

// shellProbe connects to each "protocol address port" of its arguments with what the container has, and prints a line for each: "index open",
// "index refused" (by the receiver: nothing dropped it), "index silent", or "index unknown" where it has nothing to connect with.
const shellProbe = `
have() { command -v "$1" >/dev/null 2>&1; }
if have nc; then tcp() { nc -z -w 2 "$1" "$2"; }
elif have bash && have timeout; then tcp() { timeout 2 bash -c ": <>/dev/tcp/$1/$2"; }
elif have python3; then tcp() { python3 -c "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)" "$1" "$2"; }
else echo no-tool; exit 0
fi
python='
import errno, socket, sys
protocol, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
try:
    s = socket.socket(family, socket.SOCK_DGRAM) if protocol == "udp" else socket.socket(family, socket.SOCK_STREAM, 132)
except OSError:
    sys.exit(3)
s.settimeout(2)
s.connect((host, port))
if protocol == "udp":
    s.send(b"?")
    s.recv(1)
'
other() {
  if have python3; then python3 -c "$python" "$@"
  elif [ "$1" = udp ] && have nc; then [ -n "$(echo '?' | nc -u -w 2 "$2" "$3" | head -c 1)" ]
  else return 3
  fi
}
try() {
  if [ "$1" = tcp ]; then tcp "$2" "$3"; else other "$@"; fi
}
i=0
while [ $# -gt 0 ]; do
  (
    began=$(date +%s)
    try "$1" "$2" "$3" >/dev/null 2>&1
    case $? in
    0) echo "$i open" ;;
    3) echo "$i unknown" ;;
    *) if [ $(($(date +%s) - began)) -lt 2 ]; then echo "$i refused"; else echo "$i silent"; fi ;;
    esac
  ) &
  i=$((i+1)); shift 3
done
wait`

// An outcome of a connection.
type outcome uint8

const (
	unknown outcome = iota // there was nothing to connect with
	silent
	answered // by the receiver, whatever it said: what policies refuse is dropped
)

// target is one connection that a pod is to make.
type target struct {
	row, column int
	protocol    policy.Protocol
	to          netip.AddrPort
	meant       bool // to pass
}

// probe makes the connections of the table from the pods themselves, in its columns' protocols.
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
			outcomes, err := dial(ctx, config, core, pod, targets)
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
				t.record(at, outcomes[i])
			}
		})
	}
	wg.Wait()
	if env.Interactive() {
		fmt.Fprint(env.ErrOut, "\r\x1b[K")
	}
	t.mergeOutcomes()
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
	evaluator := model.NewEvaluator(c)
	out := map[*model.Pod][]target{}
	for i, row := range t.Rows {
		for j, column := range t.Columns {
			if t.Cells[i][j] == model.NotAsked || column.Port.Number == 0 {
				continue
			}
			for _, from := range byWorkload[row] {
				for _, to := range byWorkload[column.Workload] {
					if from == to {
						continue
					}
					for _, a := range policy.PodAddresses(&to.Pod) {
						if source, ok := ofFamily(from, a); ok {
							f := policy.Flow{Source: source, Destination: a, Protocol: column.Port.Protocol, Port: column.Port.Number}
							out[from] = append(out[from], target{i, j, f.Protocol, netip.AddrPortFrom(a, f.Port), evaluator.Allows(f)})
						}
					}
				}
			}
		}
	}
	return out
}

func ofFamily(p *model.Pod, like netip.Addr) (netip.Addr, bool) {
	for _, a := range policy.PodAddresses(&p.Pod) {
		if a.Is4() == like.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// record an outcome. A datagram without an answer may have arrived: where policies allow it, a missing answer proves nothing.
func (t *Table) record(at target, o outcome) {
	if o == unknown || o == silent && at.protocol == policy.UDP && at.meant {
		return
	}
	if (o == answered) != at.meant {
		if t.differs == nil {
			t.differs = map[[2]int]bool{}
		}
		t.differs[[2]int{at.row, at.column}] = true
	}
	cell := &t.Measured[at.row][at.column]
	v := model.Denied
	if o == answered {
		v = model.Allowed
	}
	if *cell != model.NotAsked && *cell != v {
		v = model.Partial
	}
	*cell = v
}

// mergeOutcomes merges the outcomes of cells whose pods differ: where some pods gave no answer and the others the expected one, the cell is unknown.
func (t *Table) mergeOutcomes() {
	for i := range t.Measured {
		for j, measured := range t.Measured[i] {
			if t.Cells[i][j] == model.Partial && measured != model.Partial && !t.differs[[2]int{i, j}] {
				t.Measured[i][j] = model.NotAsked
			}
		}
	}
}

// dial from a pod: with kidoban's own probe where it is, else with what its shell finds.
func dial(ctx context.Context, config *rest.Config, core corev1client.CoreV1Interface, pod *model.Pod, targets []target) ([]outcome, error) {
	args := []string{"/probe", "dial", "--timeout=2s"}
	for _, t := range targets {
		args = append(args, strings.ToLower(t.protocol.String())+"/"+t.to.String())
	}
	if out, err := execute(ctx, config, core, pod, args); err == nil {
		return readProbe(out, len(targets))
	}
	args = []string{"sh", "-c", shellProbe, "sh"}
	for _, t := range targets {
		args = append(args, strings.ToLower(t.protocol.String()), t.to.Addr().String(), fmt.Sprint(t.to.Port()))
	}
	out, err := execute(ctx, config, core, pod, args)
	if err != nil {
		return nil, fmt.Errorf("its image has no shell to connect with: %w", err)
	}
	return readShell(out, len(targets))
}

func readProbe(out []byte, n int) ([]outcome, error) {
	var all []outcome
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var r struct {
			Outcome string `json:"outcome"`
		}
		if err := decoder.Decode(&r); err != nil {
			return nil, err
		}
		o := silent
		if r.Outcome == "open" || r.Outcome == "refused" {
			o = answered
		}
		all = append(all, o)
	}
	if len(all) != n {
		return nil, fmt.Errorf("%d results of %d connections", len(all), n)
	}
	return all, nil
}

func readShell(out []byte, n int) ([]outcome, error) {
	if strings.TrimSpace(string(out)) == "no-tool" {
		return nil, errors.New("its image has none of nc, bash and python3 to connect with")
	}
	words := map[string]outcome{"open": answered, "refused": answered, "silent": silent, "unknown": unknown}
	all := make([]outcome, n)
	lines := 0
	for line := range strings.Lines(string(out)) {
		var i int
		var word string
		_, err := fmt.Sscan(line, &i, &word)
		o, known := words[word]
		if err != nil || i < 0 || i >= n || !known {
			return nil, fmt.Errorf("cannot read %q", line)
		}
		all[i] = o
		lines++
	}
	if lines != n {
		return nil, fmt.Errorf("%d results of %d connections", lines, n)
	}
	return all, nil
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
