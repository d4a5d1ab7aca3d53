package flowpush

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"

	"github.com/kidoban/kidoban/internal/flow"
)

// maxAsked is how many questions of one observer wait for an answer; it asks those beyond again.
const maxAsked = 8

// report answers a question of the observer.
func (p *Pusher) report(number uint64) *flow.PushRequest {
	r := &flow.NodeReport{Number: number}
	content, err := p.encodeReport()
	if err != nil {
		r.Problem = err.Error()
	} else {
		r.Content = content
	}
	return &flow.PushRequest{Report: r}
}

func (p *Pusher) encodeReport() ([]byte, error) {
	report, err := p.opts.Report()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if err := json.NewEncoder(w).Encode(report); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if out.Len() > maxBatch {
		return nil, fmt.Errorf("the node's report has %d bytes, which is more than the %d of a message", out.Len(), maxBatch)
	}
	return out.Bytes(), nil
}
