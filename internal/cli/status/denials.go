package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
)

// denials counts the connections that an agent denied lately and still remembers.
func denials(ctx context.Context, a *agents.Agents, pod *corev1.Pod) (int, error) {
	body, err := a.Open(ctx, pod, agentapi.PathEvents+"?"+agentapi.ParamSince+"="+agentapi.DeniedWithin)
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }()
	n := 0
	for lines := bufio.NewReader(body); ; {
		line, err := lines.ReadBytes('\n')
		var e agentapi.StreamedEvent
		if len(line) > 0 && json.Unmarshal(line, &e) == nil && e.Verdict == agentapi.VerdictDeny {
			n += int(max(1, e.Count))
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
