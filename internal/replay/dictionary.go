package replay

import (
	"encoding/json"
	"fmt"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// dictionary has the ends of a recording's flows, and the flows without times and counts, once each. Both have numbers from 0 on: records refer
// to them.
type dictionary struct {
	ends []observerapi.End
	// texts are the ends as JSON, and endNumbers their numbers.
	texts      []string
	endNumbers map[string]int

	flows       []flow
	flowNumbers map[flow]int
}

// flow is what the records of one number have in common.
type flow struct {
	Source      int                 `json:"source"`
	Destination int                 `json:"destination"`
	Protocol    string              `json:"protocol,omitempty"`
	Port        uint16              `json:"port,omitempty"`
	Verdict     observerapi.Verdict `json:"verdict,omitempty"`
	Reply       bool                `json:"reply,omitempty"`
}

func newDictionary() *dictionary {
	return &dictionary{endNumbers: map[string]int{}, flowNumbers: map[flow]int{}}
}

// addEnd returns the number of an end.
func (d *dictionary) addEnd(e *observerapi.End) (number int, isNew bool, err error) {
	text, err := json.Marshal(e)
	if err != nil {
		return 0, false, fmt.Errorf("end of a flow: %w", err)
	}
	if number, ok := d.endNumbers[string(text)]; ok {
		return number, false, nil
	}
	number = len(d.ends)
	d.ends, d.texts = append(d.ends, *e), append(d.texts, string(text))
	d.endNumbers[d.texts[number]] = number
	return number, true, nil
}

// addFlow returns the number of a flow.
func (d *dictionary) addFlow(f flow) (number int, isNew bool) {
	if number, ok := d.flowNumbers[f]; ok {
		return number, false
	}
	number = len(d.flows)
	d.flows = append(d.flows, f)
	d.flowNumbers[f] = number
	return number, true
}

// read a line that defines an end or a flow. Each must have the next number, and must be new.
func (d *dictionary) read(l *line) error {
	switch {
	case l.End != nil && l.Value != nil:
		number, isNew, err := d.addEnd(l.Value)
		if err != nil {
			return err
		}
		if !isNew || number != *l.End {
			return fmt.Errorf("end %d: the next end is to be number %d, and not equal to another", *l.End, len(d.ends))
		}
		return nil
	case l.Flow != nil:
		if l.Source < 0 || l.Source >= len(d.ends) || l.Destination < 0 || l.Destination >= len(d.ends) {
			return fmt.Errorf("flow %d: its ends are %d and %d, and there are %d ends before it", *l.Flow, l.Source, l.Destination, len(d.ends))
		}
		if number, isNew := d.addFlow(l.flow); !isNew || number != *l.Flow {
			return fmt.Errorf("flow %d: the next flow is to be number %d, and not equal to another", *l.Flow, len(d.flows))
		}
		return nil
	}
	return fmt.Errorf("not a line of a recording: it has no end, no flow and no record")
}
