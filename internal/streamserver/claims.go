package streamserver

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/stream"
)

// MaxToken is the size of the largest token that is looked at. The API server's have about 1 KiB.
const MaxToken = 8 << 10

// claims are what a token says about itself. Nothing of it is verified: they only decide whether to ask the API
// server about the token.
type claims struct {
	Audiences  audiences `json:"aud"`
	Expires    float64   `json:"exp"`
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount named  `json:"serviceaccount"`
		Pod            named  `json:"pod"`
		Node           named  `json:"node"`
	} `json:"kubernetes.io"`
}

type named struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// audiences are a list, or one text.
type audiences []string

func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// parseClaims reads the claims of a token, or returns false if it is not one.
func parseClaims(token string) (c claims, ok bool) {
	parts := strings.Split(token, ".")
	if len(token) > MaxToken || len(parts) != 3 {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return claims{}, false
	}
	return c, true
}

// refusal is why a token with these claims need not be reviewed; empty if it may be an agent's.
func (c *claims) refusal(audience, namespace string, now time.Time) Refusal {
	switch {
	case !slices.Contains(c.Audiences, audience):
		return WrongAudience
	case c.Kubernetes.Namespace != namespace || c.Kubernetes.ServiceAccount.Name != stream.AgentServiceAccount:
		return WrongServiceAccount
	case c.Expires <= float64(now.Unix()):
		return Expired
	case c.Kubernetes.Node.Name == "" || c.Kubernetes.Pod.UID == "":
		return NotBound
	}
	return ""
}
