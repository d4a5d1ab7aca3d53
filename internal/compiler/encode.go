package compiler

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/kidoban/kidoban/internal/policy"
)

// key stands for all of a policy's content: two with the same key mean the same and have the same name.
//
// It uses the encoder's memory again.
func (e *encoder) key(p *policy.Policy) string {
	*e = (*e)[:0]
	e.id(&p.ID)
	e.number(uint64(p.Created), uint64(p.Tier), uint64(uint32(p.Priority)))
	e.flag(p.Isolates[0], p.Isolates[1], p.Audited)
	for _, d := range policy.Directions {
		e.number(uint64(len(p.Rules[d])))
		for i := range p.Rules[d] {
			e.rule(&p.Rules[d][i])
		}
	}
	sum := sha256.Sum256(*e)
	return string(sum[:])
}

// An encoder writes values so that no others are written the same way.
type encoder []byte

func (e *encoder) number(n ...uint64) {
	for _, n := range n {
		*e = binary.AppendUvarint(*e, n)
	}
}

func (e *encoder) text(s ...string) {
	for _, s := range s {
		e.number(uint64(len(s)))
		*e = append(*e, s...)
	}
}

func (e *encoder) flag(b ...bool) {
	for _, b := range b {
		if b {
			*e = append(*e, 1)
		} else {
			*e = append(*e, 0)
		}
	}
}

func (e *encoder) id(id *policy.ID) {
	e.text(id.Kind, id.Namespace, id.Name, id.UID)
	e.number(uint64(id.Generation))
}

func (e *encoder) rule(r *policy.Rule) {
	e.text(r.Name)
	e.number(uint64(r.Action))
	e.flag(r.Everyone, r.EveryPort)
	e.number(uint64(len(r.Origin)))
	for _, o := range r.Origin {
		e.number(uint64(uint32(o)))
	}
	e.text(r.Peers.Packed())
	e.number(uint64(len(r.Ports)))
	for i := range r.Ports {
		p := &r.Ports[i]
		e.number(uint64(p.Protocol), uint64(p.First), uint64(p.Last))
		e.text(p.Name)
	}
}
