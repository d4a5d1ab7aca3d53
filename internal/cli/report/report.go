// Package report packs the archive for a bug report, without secrets.
package report

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/version"
)

// logLines is how much of each container's log is taken.
const logLines = 5000

// New is the command.
func New(env *command.Env) *cobra.Command {
	var file, namespace string
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Pack an archive for a bug report, without secrets",
		Long: `Pack one archive for a bug report: kidoban's own workloads, logs and events, the NetworkPolicies with their PolicyEndpoints, namespaces,
pods and Services without fields that may hold secrets, and the state that each agent has in force.

The archive has no Secrets and ConfigMaps, environment variables, commands, arguments, volumes, annotations and managedFields. It has names, labels
and addresses: read it before you share it.`,
		Example: `  kubectl kidoban report
  kubectl kidoban report --file /tmp/kidoban.tar.gz`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&file, "file", "", "Write to this file. Default: kidoban-report-TIME.tar.gz; - is stdout.")
	cmd.Flags().StringVar(&namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" {
			file = "kidoban-report-" + env.Now().UTC().Format("20060102-150405") + ".tar.gz"
		}
		c, err := env.Client()
		if err != nil {
			return err
		}
		out := env.Raw().Out
		if file != "-" {
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			out = f
		}
		missing, err := write(cmd.Context(), env, c, namespace, out)
		if err != nil {
			if file != "-" {
				_ = os.Remove(file)
			}
			return err
		}
		fmt.Fprintf(env.ErrOut, "wrote %s\n", file)
		if missing > 0 {
			fmt.Fprintf(env.ErrOut, "warning: %d parts could not be read; errors.txt in the archive has the reasons\n", missing)
		}
		return nil
	}
	return cmd
}

// archive is a tar in gzip. A part that cannot be read is an entry of errors.txt, and does not end it.
type archive struct {
	*tar.Writer
	now time.Time
	// read counts the parts of the cluster, and failed are the errors of the others.
	read   int
	failed []error
	err    error
}

// write the archive and return how many parts are missing. An archive without any part of the cluster is an error.
func write(ctx context.Context, env *command.Env, c client.Client, namespace string, out io.Writer) (missing int, err error) {
	zip := gzip.NewWriter(out)
	a := &archive{Writer: tar.NewWriter(zip), now: env.Now()}
	a.add("version.txt", []byte("kubectl-kidoban "+version.String()+"\n"))
	for name, list := range map[string]client.ObjectList{
		"namespaces": &corev1.NamespaceList{}, "pods": &corev1.PodList{}, "services": &corev1.ServiceList{}, "nodes": &corev1.NodeList{},
		"networkpolicies": &networkingv1.NetworkPolicyList{}, "policyendpoints": &v1alpha1.PolicyEndpointList{}, "policyendpointslices": &v1alpha1.PolicyEndpointSliceList{},
	} {
		a.list(ctx, c, "cluster/"+name+".yaml", list)
	}
	for name, list := range map[string]client.ObjectList{
		"events": &corev1.EventList{}, "deployments": &appsv1.DeploymentList{}, "daemonsets": &appsv1.DaemonSetList{},
	} {
		a.list(ctx, c, "kidoban/"+name+".yaml", list, client.InNamespace(namespace))
	}
	a.logs(ctx, env, c, namespace)
	a.agents(ctx, env, c, namespace)
	if len(a.failed) > 0 {
		a.add("errors.txt", []byte(errors.Join(a.failed...).Error()+"\n"))
	}
	if err := a.Close(); err != nil && a.err == nil {
		a.err = err
	}
	if err := zip.Close(); err != nil && a.err == nil {
		a.err = err
	}
	if a.err == nil && a.read == 0 {
		a.err = fmt.Errorf("nothing could be read from the cluster: %w", a.failed[0])
	}
	return len(a.failed), a.err
}

func (a *archive) fail(err error) { a.failed = append(a.failed, err) }

func (a *archive) add(name string, data []byte) {
	if a.err != nil {
		return
	}
	if a.err = a.WriteHeader(&tar.Header{Name: "kidoban-report/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: a.now}); a.err == nil {
		_, a.err = a.Write(data)
	}
}

func (a *archive) list(ctx context.Context, c client.Client, name string, list client.ObjectList, options ...client.ListOption) {
	if err := c.List(ctx, list, options...); err != nil {
		a.fail(fmt.Errorf("%s: %w", name, err))
		return
	}
	redact(list)
	text, err := yaml.Marshal(list)
	if err != nil {
		a.fail(err)
		return
	}
	a.add(name, text)
	a.read++
}

func (a *archive) logs(ctx context.Context, env *command.Env, c client.Client, namespace string) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return // list has reported it
	}
	config, err := env.Config.ToRESTConfig()
	if err != nil {
		return
	}
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return
	}
	lines := int64(logLines)
	for i := range pods.Items {
		p := &pods.Items[i]
		for _, cs := range p.Status.ContainerStatuses {
			for _, previous := range []bool{false, true} {
				if previous && cs.RestartCount == 0 {
					continue
				}
				name := fmt.Sprintf("kidoban/logs/%s-%s-%s", p.Name, cs.Name, map[bool]string{false: "now.log", true: "before.log"}[previous])
				text, err := core.Pods(namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: cs.Name, Previous: previous, TailLines: &lines}).DoRaw(ctx)
				if err != nil {
					a.fail(fmt.Errorf("%s: %w", name, err))
					continue
				}
				a.add(name, text)
			}
		}
	}
}

func (a *archive) agents(ctx context.Context, env *command.Env, c client.Client, namespace string) {
	all, err := agents.Connect(ctx, env, c, namespace)
	if err != nil {
		a.fail(err)
		return
	}
	for i := range all.Pods {
		for name, path := range map[string]string{"node": agentapi.PathNode, "pods": agentapi.PathPods, "policies": agentapi.PathPolicies} {
			var answer json.RawMessage
			if err := all.Get(ctx, &all.Pods[i], path, &answer); err != nil {
				a.fail(err)
				continue
			}
			a.add(fmt.Sprintf("nodes/%s/%s.json", all.Pods[i].Spec.NodeName, name), answer)
		}
	}
}
