package migrate

// Problem is a finding about an object of another engine: a reason not to convert it, or a remark.
type Problem struct {
	// Object is "Kind namespace/name".
	Object string `json:"object"`
	// Field is its path, as spec.ingress[0].from[0]; empty where the finding is about the entire object.
	Field   string `json:"field,omitempty"`
	Problem string `json:"problem"`
	// Fix is a possible remedy.
	Fix string `json:"fix,omitempty"`
	// HeldBackBy is the object that has a problem of its own, where this one has none.
	HeldBackBy string `json:"heldBackBy,omitempty"`
}

func (p Problem) String() string {
	out := p.Object
	if p.Field != "" {
		out += ": " + p.Field
	}
	out += ": " + p.Problem
	if p.Fix != "" {
		out += " (" + p.Fix + ")"
	}
	return out
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.String() }
