//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/reach"
)

// flowLog is the file on each node.
const flowLog = "/var/log/kidoban/flow.log"

// TestFlowLog has connections refused, and reads why in the file on the node: as text and as JSON.
func TestFlowLog(t *testing.T) {
	create(t, ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")}))
	awaitInForce(t)
	from, to := pods(t, "frontend")[0], pods(t, "database")[0]

	t.Run("text", func(t *testing.T) {
		awaitRefusal(t, &from, &to, 5433, func(line string) error {
			head := fmt.Sprintf("Node: %s;SIP: %s;SPORT: ", to.Spec.NodeName, from.Status.PodIP)
			if !strings.HasPrefix(line, head) {
				return fmt.Errorf("it does not begin with %s", head)
			}
			for _, part := range []string{fmt.Sprintf(";DIP: %s;DPORT: 5433;PROTOCOL: TCP;PolicyVerdict: DENY", to.Status.PodIP), ";Reason: default-deny", ";IsolatedBy: NetworkPolicy shop/database", ";DstPod: shop/" + to.Name} {
				if !strings.Contains(line, part) {
					return fmt.Errorf("it lacks %s", part)
				}
			}
			return nil
		})
	})
	t.Run("json", func(t *testing.T) {
		compiler := jsonschema.NewCompiler()
		compiler.AssertFormat()
		schema, err := compiler.Compile(filepath.Join(test.Repo, "docs", "flow-log.schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		setFormat(t, "json")
		t.Cleanup(func() { setFormat(t, "") })
		awaitRefusal(t, &from, &to, 5434, func(line string) error {
			object, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
			if err != nil {
				return err
			}
			if o, ok := object.(map[string]any); !ok || o["verdict"] != "DENY" || o["reason"] != "default-deny" {
				return errors.New("it does not say why")
			}
			return schema.Validate(object)
		})
	})
}

// awaitRefusal has a connection refused, and waits for a line about it in the log of the destination's node.
func awaitRefusal(t *testing.T, from, to *corev1.Pod, port uint16, check func(line string) error) {
	t.Helper()
	if r := dial(t, from, to, port); r.Outcome != reach.TimedOut {
		t.Fatalf("it is not refused: %+v", r)
	}
	eventually(t, fmt.Sprintf("a line about port %d", port), func(ctx context.Context) error {
		text, err := cluster.Output(test.OnNode(ctx, to.Spec.NodeName, "cat", flowLog))
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, fmt.Sprintf("DPORT: %d;", port)) || strings.Contains(line, fmt.Sprintf(`"port":%d`, port)) {
				if err := check(strings.TrimSuffix(line, "\n")); err != nil {
					return fmt.Errorf("%w: %s", err, line)
				}
				return nil
			}
		}
		return errors.New("there is none")
	})
}

// setFormat of the agents' log, which starts them anew; "" is the default.
func setFormat(t *testing.T, format string) {
	t.Helper()
	setting := "KIDOBAN_EVENT_LOG_FORMAT=" + format
	if format == "" {
		setting = "KIDOBAN_EVENT_LOG_FORMAT-"
	}
	ctx := context.Background() // this also runs as a cleanup
	if _, err := cluster.Output(test.Kubectl(ctx, "-n", engine.Namespace, "set", "env", "daemonset/kidoban-agent", setting)); err != nil {
		t.Error(err)
	}
	if err := engine.AwaitReady(ctx, test); err != nil {
		t.Error(err)
	}
}
