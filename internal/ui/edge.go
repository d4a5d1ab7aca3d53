package ui

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/explain"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// Edge explains each port of a connection between two nodes.
type Edge struct {
	From  string     `json:"from"`
	To    string     `json:"to"`
	Ports []EdgePort `json:"ports"`
	// Policies that are mentioned, as YAML, by ID.
	Policies map[string]string `json:"policies"`
}

// EdgePort is one port of an edge.
type EdgePort struct {
	Port     int    `json:"port"`
	Protocol string `json:"protocol"`
	// Answer is that of `kubectl kidoban explain -o json`, Sentences are for each half of its flows, and Text is what the command prints.
	Answer    *explain.Answer `json:"answer"`
	Sentences [][]string      `json:"sentences"`
	Text      string          `json:"text"`
	// Command that asks the same.
	Command string `json:"command"`
}

// mostExplained is how many ports of an edge are explained at once.
const mostExplained = 24

func (s *Server) edge(r *http.Request) (any, error) {
	snap, err := s.snapshot(r.Context())
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	from, ok := snap.byID[q.Get("from")]
	if !ok {
		return nil, notFound("%s is not in the cluster any more", q.Get("from"))
	}
	to, ok := snap.byID[q.Get("to")]
	if !ok {
		return nil, notFound("%s is not in the cluster any more", q.Get("to"))
	}
	out := &Edge{From: snap.nodes[from].id, To: snap.nodes[to].id, Policies: map[string]string{}}
	ports, err := portsAsked(q["port"])
	if err != nil {
		return nil, invalid(err)
	}
	if len(ports) == 0 {
		ports = snap.portsBetween(from, to)
	}
	if len(ports) > mostExplained {
		ports = ports[:mostExplained]
	}
	for _, p := range ports {
		target := snap.nodes[to].named() + ":" + portName(p, ports)
		if snap.nodes[to].domainName == "" && p.Number == 0 && snap.nodes[to].workload.Kind != "Address" {
			target = snap.nodes[to].named()
		}
		answer, err := explain.Ask(snap.cluster, "default", snap.nodes[from].named(), target)
		if err != nil {
			return nil, invalid(err)
		}
		port := EdgePort{
			Port: int(p.Number), Protocol: p.Protocol.String(), Answer: answer, Text: answer.Text(),
			Command: "kubectl kidoban explain " + quoted(snap.nodes[from].named()) + " " + quoted(target),
		}
		for _, f := range answer.Flows {
			var sentences []string
			for _, h := range f.Halves {
				sentences = append(sentences, h.Sentence())
				snap.mention(out.Policies, &h)
			}
			port.Sentences = append(port.Sentences, sentences)
		}
		out.Ports = append(out.Ports, port)
	}
	return out, nil
}

// portsAsked are those that a page names, as 5432, 53/UDP or other: flows may have gone to ports that no rule and no container names.
func portsAsked(texts []string) (out []model.Port, err error) {
	for _, text := range texts {
		p := model.OtherPort
		if number, protocol, _ := strings.Cut(text, "/"); number == "other" {
			p.Protocol, err = model.ParseProtocol(protocol)
		} else {
			p, err = model.ParsePort(text)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// mention the policies that a half names.
func (s *snapshot) mention(policies map[string]string, h *explain.Half) {
	rules := []*explain.Rule{h.Rule}
	for i := range h.Nearest {
		rules = append(rules, &h.Nearest[i].Rule)
	}
	for _, r := range rules {
		if r == nil {
			continue
		}
		id := policyID(r.Kind, r.Policy)
		if _, ok := policies[id]; !ok {
			policies[id] = s.yaml(id)
		}
	}
}

// portsBetween two nodes, as in the graph; without an edge there, the ports that the destination has edges with.
func (s *snapshot) portsBetween(from, to int) []model.Port {
	e := &s.graph.Edges
	port := func(k int) model.Port {
		return model.Port{Protocol: policy.Protocol(e.Protocol[k]), Number: uint16(e.Port[k])}
	}
	var others []model.Port
	for i := range e.Source {
		if e.Destination[i] != to {
			continue
		}
		var ports []model.Port
		for k := e.First[i]; k < e.First[i+1]; k++ {
			ports = append(ports, port(k))
		}
		if e.Source[i] == from {
			return ports
		}
		others = append(others, ports...)
	}
	if len(others) == 0 {
		return []model.Port{model.OtherPort}
	}
	slices.SortFunc(others, model.Port.Compare)
	return slices.Compact(others)
}

// named is the node as explain reads it.
func (n *node) named() string {
	switch w := n.workload; {
	case n.domainName != "":
		return strings.Replace(n.domainName, "*.", "www.", 1) // a name that the pattern covers
	case w.Kind == "Address":
		return addressName(w.Name)
	case strings.HasSuffix(n.id, ")"): // another kind has the same name
		return fmt.Sprintf("%s/%s/%s", strings.ToLower(w.Kind), w.Namespace, w.Name)
	}
	return n.id
}

func addressName(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}

// portName is a port as explain reads it. For one that no rule names it is the highest that none of these is.
func portName(p model.Port, named []model.Port) string {
	for n := uint16(65535); p.Number == 0; n-- {
		if !slices.Contains(named, model.Port{Protocol: p.Protocol, Number: n}) {
			p.Number = n
		}
	}
	return p.String()
}

// quoted for a shell, where it has to be.
func quoted(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@", r)
	}
	if strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 && text != "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
