package command

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// Source is the flags for where a command takes a cluster from.
type Source struct {
	Files                            []string
	podCIDRs, serviceCIDRs, families []string
}

// AddSource adds the flags -f, --pod-cidr, --service-cidr and --ip-families.
func AddSource(cmd *cobra.Command) *Source {
	s := &Source{}
	Files(cmd, &s.Files)
	cmd.Flags().StringSliceVar(&s.podCIDRs, "pod-cidr", nil, "CIDR of pods' addresses; may be repeated. Pods of manifests have addresses that are not known: a verdict that an ipBlock decides depends on them.")
	cmd.Flags().StringSliceVar(&s.serviceCIDRs, "service-cidr", nil, "CIDR of Services' cluster IPs, which no pod has; may be repeated.")
	cmd.Flags().StringSliceVar(&s.families, "ip-families", nil, "Address families of pods whose addresses are not known: IPv4, IPv6 or both. Default: those that the input shows, or IPv4.")
	return s
}

// Addressing that the flags give.
func (s *Source) Addressing() (model.Addressing, error) {
	var out model.Addressing
	var err error
	if out.PodCIDRs, err = parseCIDRs("--pod-cidr", s.podCIDRs); err != nil {
		return out, err
	}
	if out.ServiceCIDRs, err = parseCIDRs("--service-cidr", s.serviceCIDRs); err != nil {
		return out, err
	}
	for _, f := range s.families {
		switch strings.ToLower(f) {
		case "ipv4":
			out.IPv4 = true
		case "ipv6":
			out.IPv6 = true
		default:
			return out, fmt.Errorf("--ip-families=%s: give IPv4, IPv6 or IPv4,IPv6", strings.Join(s.families, ","))
		}
	}
	if out.IPv4 || out.IPv6 {
		for _, p := range out.PodCIDRs {
			if p.Addr().Is4() && !out.IPv4 || p.Addr().Is6() && !out.IPv6 {
				return out, fmt.Errorf("--pod-cidr %s is not of a family of --ip-families=%s", p, strings.Join(s.families, ","))
			}
		}
	}
	return out, nil
}

func parseCIDRs(flag string, texts []string) (out []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%s %s is not a valid CIDR: give one like 10.244.0.0/16", flag, text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Unchecked reads the files or, where there are none, the live cluster, also with policies that the API server would reject. It prints the notes
// of what was read.
func (e *Env) Unchecked(ctx context.Context, s *Source, files []string) (*model.Cluster, error) {
	addressing, err := s.Addressing()
	if err != nil {
		return nil, err
	}
	m := &model.Manifests{Namespace: e.Namespace(), Addressing: addressing}
	if len(files) > 0 {
		if err := m.ReadPaths(files, e.In); err != nil {
			return nil, err
		}
	} else {
		apiserver, err := e.Client()
		if err != nil {
			return nil, err
		}
		if err := load(ctx, apiserver, m); err != nil {
			return nil, err
		}
	}
	c, err := m.Cluster()
	if err != nil {
		return nil, err
	}
	if audited := c.Audited(); len(audited) > 0 {
		c.Notes = append(slices.Clone(c.Notes), "audited, so that they decide about nothing: "+strings.Join(audited, ", "))
	}
	for _, note := range c.Notes {
		fmt.Fprintln(e.ErrOut, note)
	}
	return c, nil
}

// Cluster reads the source's files or, where it has none, the live cluster. Policies that the API server would reject are an error; those that it
// has all the same were made before it rejected them.
func (e *Env) Cluster(ctx context.Context, s *Source) (*model.Cluster, error) {
	return e.ClusterOf(ctx, s, s.Files)
}

// ClusterOf reads these files or, without any, the live cluster, as Cluster does.
func (e *Env) ClusterOf(ctx context.Context, s *Source, files []string) (*model.Cluster, error) {
	c, err := e.Unchecked(ctx, s, files)
	if err != nil {
		return nil, err
	}
	for i := range c.Policies {
		np := &c.Policies[i]
		for _, w := range model.PolicyWarnings(np) {
			c.Notes = append(slices.Clone(c.Notes), fmt.Sprintf("warning: NetworkPolicy %s/%s: %s", np.Namespace, np.Name, w))
			fmt.Fprintln(e.ErrOut, c.Notes[len(c.Notes)-1])
		}
	}
	invalid := c.InvalidPolicies()
	switch {
	case invalid == nil:
	case c.Offline:
		return nil, invalid
	default:
		fmt.Fprintln(e.ErrOut, "warning:", invalid)
		c.Notes = append(slices.Clone(c.Notes), "warning: "+invalid.Error())
	}
	return c, nil
}
