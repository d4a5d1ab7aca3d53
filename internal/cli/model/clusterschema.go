package model

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/policy"
)

// shape is what one field of a ClusterNetworkPolicy may hold, as the CRD of policy.networking.k8s.io/v1alpha2 says it.
type shape struct {
	// is the JSON type: object, map (of strings), array, string or integer.
	is string
	// fields of an object, those that it must have, and whether it has exactly one.
	fields   map[string]*shape
	required []string
	one      bool
	// item of an array.
	item *shape
	// min and max: items of an array, characters of a string, or the integer itself.
	min, max int
	enum     []string
	// hints by the names and values that people write by habit: of unknown fields, and of enum's values.
	hints map[string]string
	// The ways out: wrong where the type is wrong, empty where a value is missing, both where there is more than the one field.
	wrong, empty, both string
	// check of a value whose type is right. It returns what is wrong with it.
	check func(any) string
}

const (
	hintProtocols = "write protocols: [{tcp: {destinationPort: {number: 443}}}] (protocols[].tcp.destinationPort.number; udp and sctp likewise)"
	hintPeers     = "write namespaces: {matchLabels: …}, or pods: {namespaceSelector: …, podSelector: …}"
	hintRange     = "write destinationPort: {number: 443}, or {range: {start: 1, end: 65535}} for all ports"
	hintIngress   = "ingress rules have no such peers in network-policy-api v0.3.0 (NPEP-127 proposes them): their peers are namespaces and pods"
	hintBoth      = "two items of the list mean \"or\"; pods of certain namespaces are pods: {namespaceSelector: …, podSelector: …}"
	hintSame      = "there is no equivalent yet (NPEP-122): write one policy for each value of the label"
)

func selectorField(hints map[string]string) *shape {
	return &shape{is: "object", hints: hints, wrong: "write {matchLabels: {key: value}}, or {} for all", fields: map[string]*shape{
		"matchLabels": {is: "map", wrong: "labels are strings: quote numbers and words such as true"},
		"matchExpressions": {is: "array", item: &shape{is: "object", required: []string{"key", "operator"}, fields: map[string]*shape{
			"key": {is: "string"}, "operator": {is: "string", enum: []string{"In", "NotIn", "Exists", "DoesNotExist"}},
			"values": {is: "array", item: &shape{is: "string", wrong: "values are strings: quote numbers and words such as true"}},
		}}},
	}}
}

var (
	namespacesField = selectorField(map[string]string{
		"namespaceSelector": "put matchLabels directly under namespaces: namespaces: {matchLabels: …}",
		"sameLabels":        hintSame, "notSameLabels": hintSame,
		"podSelector": "a peer of pods is pods: {namespaceSelector: …, podSelector: …}",
	})
	podsField = &shape{is: "object", required: []string{"podSelector"}, wrong: hintPeers,
		empty:  "for all pods write podSelector: {}",
		hints:  map[string]string{"namespaces": "write namespaceSelector", "matchLabels": "put it under podSelector: {matchLabels: …}"},
		fields: map[string]*shape{"namespaceSelector": selectorField(map[string]string{"sameLabels": hintSame, "notSameLabels": hintSame}), "podSelector": selectorField(nil)}}
	peerHints = map[string]string{
		"namespaceSelector": hintPeers, "podSelector": hintPeers,
		"ipBlock": "write networks: [10.0.0.0/8]; there is no except: put a rule for it before", "cidr": "write networks: [10.0.0.0/8]",
		"domainNames": "domain names are peers of egress rules",
	}
	ingressPeer = &shape{is: "object", one: true, both: hintBoth, empty: "the peer is empty: " + hintPeers, wrong: hintPeers,
		hints:  with(peerHints, "networks", hintIngress, "nodes", hintIngress, "domainNames", hintIngress),
		fields: map[string]*shape{"namespaces": namespacesField, "pods": podsField}}
	egressPeer = &shape{is: "object", one: true, both: hintBoth, empty: "the peer is empty: " + hintPeers + ", nodes: {}, networks: [0.0.0.0/0] or domainNames: [example.com]", wrong: hintPeers,
		hints: peerHints, fields: map[string]*shape{
			"namespaces": namespacesField, "pods": podsField, "nodes": selectorField(nil),
			"networks": {is: "array", min: 1, max: 25, wrong: "write a list of strings: networks: [10.0.0.0/8]",
				item: &shape{is: "string", max: 43, check: isNetwork, wrong: "networks are plain strings: networks: [169.254.169.254/32]"}},
			"domainNames": {is: "array", min: 1, max: 25, wrong: "write a list of strings: domainNames: [example.com]",
				item: &shape{is: "string", check: isDomainName, wrong: "names are plain strings: domainNames: [example.com]"}},
		}}
	portNumber = &shape{is: "integer", min: 1, max: 65535, wrong: "give a number from 1 to 65535; a name is destinationNamedPort: http, beside tcp and udp"}
	portField  = &shape{is: "object", one: true, both: "give a number or a range, and two items of protocols for both", empty: hintRange, wrong: "write {number: %v}",
		hints: map[string]string{"start": "write range: {start: …, end: …}", "end": "write range: {start: …, end: …}", "port": "write number"},
		fields: map[string]*shape{"number": portNumber, "range": {is: "object", required: []string{"start", "end"}, check: isRange,
			wrong: "write {start: 8000, end: 8080}", fields: map[string]*shape{"start": portNumber, "end": portNumber}}}}
	transport = &shape{is: "object", empty: hintRange, wrong: "write {destinationPort: {number: 443}}", one: true,
		hints:  map[string]string{"port": hintRange, "number": hintRange, "range": hintRange, "destinationPorts": hintRange},
		fields: map[string]*shape{"destinationPort": portField}}
	protocolField = &shape{is: "object", one: true, both: "give an item of protocols for each", empty: hintProtocols, wrong: hintProtocols,
		hints: map[string]string{
			"destinationPort": "destinationPort belongs under tcp, udp or sctp: look at the indentation",
			"portNumber":      hintProtocols, "port": hintProtocols, "protocol": hintProtocols, "portRange": hintProtocols,
			"namedPort": "write destinationNamedPort", "TCP": "write tcp", "UDP": "write udp", "SCTP": "write sctp",
			"icmp": "there is no protocol but tcp, udp and sctp: a rule without protocols is about every protocol",
		},
		fields: map[string]*shape{"tcp": transport, "udp": transport, "sctp": transport,
			"destinationNamedPort": {is: "string", wrong: "write the name of a container's port; a number is tcp: {destinationPort: {number: 443}}"}}}
	actionHints = map[string]string{"Allow": "write Accept", "allow": "write Accept", "accept": "write Accept", "deny": "write Deny", "pass": "write Pass", "Drop": "write Deny", "Reject": "write Deny"}
)

func ruleField(peers, other string, peer *shape) *shape {
	return &shape{is: "object", required: []string{"action", peers},
		hints: map[string]string{
			other: fmt.Sprintf("rules of this direction have %s, and no %s", peers, other), "ports": hintProtocols, "protocol": hintProtocols,
			"port": hintProtocols, "peers": "write " + peers,
		},
		fields: map[string]*shape{
			"name":      {is: "string", max: 100},
			"action":    {is: "string", enum: []string{"Accept", "Deny", "Pass"}, hints: actionHints},
			peers:       {is: "array", item: peer, min: 1, max: 25, wrong: "write a list of peers", empty: "a rule needs a peer: for all pods write [{namespaces: {}}]"},
			"protocols": {is: "array", item: protocolField, min: 1, max: 25, wrong: hintProtocols, empty: "leave protocols out for every protocol, or " + hintProtocols},
		}}
}

var clusterPolicySpec = &shape{is: "object", required: []string{"tier", "priority", "subject"},
	hints: map[string]string{
		"podSelector": "write subject: {pods: {namespaceSelector: …, podSelector: …}}", "namespaceSelector": "write subject: {namespaces: …}",
		"policyTypes": "leave it out: a direction without rules is left to the other policies",
	},
	fields: map[string]*shape{
		"tier":     {is: "string", enum: []string{"Admin", "Baseline"}, hints: map[string]string{"admin": "write Admin", "baseline": "write Baseline"}},
		"priority": {is: "integer", min: 0, max: 1000, wrong: "give a number from 0 to 1000; the lowest counts first"},
		"subject": {is: "object", one: true, both: "pods of certain namespaces are pods: {namespaceSelector: …, podSelector: …}", empty: "for all pods write subject: {namespaces: {}}", wrong: "write {namespaces: {}} or {pods: {podSelector: {}}}",
			hints:  peerHints,
			fields: map[string]*shape{"namespaces": namespacesField, "pods": podsField}},
		"ingress": {is: "array", max: 25, item: ruleField("from", "to", ingressPeer), wrong: "write a list of rules"},
		"egress":  {is: "array", max: 25, item: ruleField("to", "from", egressPeer), wrong: "write a list of rules"},
	}}

func isNetwork(v any) string {
	if _, err := netip.ParsePrefix(v.(string)); err == nil {
		return ""
	}
	if a, err := netip.ParseAddr(v.(string)); err == nil {
		return fmt.Sprintf("%q is not a valid CIDR: write %s", v, netip.PrefixFrom(a, a.BitLen()))
	}
	return fmt.Sprintf("%q is not a valid CIDR: write one like 10.0.0.0/8 or 2001:db8::/32", v)
}

// domainName is upstream's pattern. Its A-z admits more than letters: lint names what DNS cannot have.
var domainName = regexp.MustCompile(`^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`)

func isDomainName(v any) string {
	if domainName.MatchString(v.(string)) {
		return ""
	}
	if ascii, err := policy.CanonicalDomainName(v.(string)); err == nil && domainName.MatchString(ascii) {
		return fmt.Sprintf("%q is not in ASCII, as DNS has it: write %s", v, ascii)
	}
	return fmt.Sprintf("%q is not a valid domain name: write one like example.com, or *.example.com for the names below it", v)
}

func isRange(v any) string {
	r := v.(map[string]any)
	start, end := r["start"].(int64), r["end"].(int64)
	switch {
	case start == end:
		return fmt.Sprintf("start must be less than end: for one port write destinationPort: {number: %d}", start)
	case start > end:
		return fmt.Sprintf("start must be less than end: write {start: %d, end: %d}", end, start)
	}
	return ""
}

// fieldError is what is wrong with a field of an object.
type fieldError struct {
	path, text string
	line       int // in the file, from 1; 0 where it is not known
}

// fieldErrors are all of one object.
type fieldErrors []*fieldError

func (l fieldErrors) Error() string {
	var out []string
	for _, e := range l {
		at := ""
		if e.line > 0 {
			at = fmt.Sprintf("line %d: ", e.line)
		}
		out = append(out, at+e.path+": "+e.text)
	}
	if len(out) == 1 {
		return out[0]
	}
	return "\n  " + strings.Join(out, "\n  ")
}

// locate the errors in a document's text, which begins at a line of a file. within is the path to the object in the text.
func (l fieldErrors) locate(d *document, within string) {
	for _, e := range l {
		e.line = d.lineOf(within + e.path)
	}
}

func (f *shape) isOfType(v any) bool {
	switch v.(type) {
	case map[string]any:
		return f.is == "object" || f.is == "map"
	case []any:
		return f.is == "array"
	case string:
		return f.is == "string"
	case int64:
		return f.is == "integer"
	}
	return false
}

// read a value as the field, and return what is wrong with it.
func (f *shape) read(path string, v any) fieldErrors {
	wrong := func(format string, args ...any) fieldErrors {
		return fieldErrors{{path: path, text: fmt.Sprintf(format, args...)}}
	}
	switch {
	case v == nil && f.empty != "":
		return wrong("is null; %s", f.empty)
	case v == nil:
		return wrong("is null: give it a value, or leave it out")
	case !f.isOfType(v):
		hint := f.wrong
		if strings.Contains(hint, "%v") {
			hint = fmt.Sprintf(hint, v)
		}
		return wrong("%s", strings.TrimSuffix(fmt.Sprintf("must be of type %s, not %s: %s", strings.Replace(f.is, "map", "object", 1), typeName(v), hint), ": "))
	}
	switch v := v.(type) {
	case map[string]any:
		return f.readObject(path, v)
	case []any:
		switch {
		case len(v) < f.min:
			return wrong("is empty: %s", f.empty)
		case f.max > 0 && len(v) > f.max:
			return wrong("has %d items, and at most %d are allowed: split it", len(v), f.max)
		}
		var out fieldErrors
		for i := range v {
			out = append(out, f.item.read(fmt.Sprintf("%s[%d]", path, i), v[i])...)
		}
		return out
	case string:
		switch hint := f.hints[v]; {
		case f.enum != nil && !slices.Contains(f.enum, v) && hint != "":
			return wrong("unsupported value %q: %s (%s)", v, hint, strings.Join(f.enum, ", "))
		case f.enum != nil && !slices.Contains(f.enum, v):
			return wrong("unsupported value %q: write one of %s", v, strings.Join(f.enum, ", "))
		case f.max > 0 && len(v) > f.max:
			return wrong("has more than %d characters", f.max)
		}
	case int64:
		if int(v) < f.min || int(v) > f.max {
			return wrong("%d is not a number from %d to %d", v, f.min, f.max)
		}
	}
	if f.check != nil {
		if text := f.check(v); text != "" {
			return wrong("%s", text)
		}
	}
	return nil
}

func typeName(v any) string {
	switch v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	}
	return "number"
}

func (f *shape) readObject(path string, object map[string]any) (out fieldErrors) {
	add := func(at, format string, args ...any) {
		out = append(out, &fieldError{path: at, text: fmt.Sprintf(format, args...)})
	}
	if f.is == "map" {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			if _, ok := object[key].(string); !ok {
				add(path+"."+key, "must be of type string, not %s: %s", typeName(object[key]), f.wrong)
			}
		}
		return out
	}
	known := 0
	for _, key := range slices.Sorted(maps.Keys(object)) {
		switch next, hint := f.fields[key], f.hints[key]; {
		case next != nil:
			known++
			if object[key] == nil && (key == "ingress" || key == "egress") {
				continue // as if it were absent, and as the API server takes it
			}
			if object[key] == nil && f.one {
				add(path+"."+key, "is null: %s", f.empty)
				continue
			}
			out = append(out, next.read(path+"."+key, object[key])...)
		case hint != "":
			add(path+"."+key, "unknown field: %s", hint)
		default:
			add(path+"."+key, "unknown field: the fields here are %s", strings.Join(slices.Sorted(maps.Keys(f.fields)), ", "))
		}
	}
	for _, key := range f.required {
		if _, ok := object[key]; !ok && f.empty != "" {
			add(path+"."+key, "is required: %s", f.empty)
		} else if !ok {
			add(path+"."+key, "is required%s", strings.TrimSuffix(": "+f.fields[key].wrong, ": "))
		}
	}
	switch {
	case !f.one || len(object) > known: // what is not known is what was meant
	case known == 0:
		add(path, "has no field; %s", f.empty)
	case known > 1:
		add(path, "has %d fields, and one is allowed: %s", known, f.both)
	}
	if len(out) == 0 && f.check != nil {
		if text := f.check(object); text != "" {
			add(path, "%s", text)
		}
	}
	return out
}
