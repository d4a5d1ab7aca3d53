package hubble_test

import (
	"encoding/base64"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/observer/hubble"
)

func TestTokenOfACall(t *testing.T) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, tc := range map[string]struct {
		headers []string
		want    string
	}{
		"bearer":               {[]string{"Bearer abc"}, "abc"},
		"bearer, lower case":   {[]string{"bearer abc"}, "abc"},
		"basic":                {[]string{basic("me:abc")}, "abc"},
		"basic without a name": {[]string{basic(":abc")}, "abc"},
		"colon in a password":  {[]string{basic("me:a:b")}, "a:b"},
		"none":                 {nil, ""},
		"two":                  {[]string{"Bearer abc", "Bearer def"}, ""},
		"empty bearer":         {[]string{"Bearer"}, ""},
		"empty password":       {[]string{basic("me:")}, ""},
		"no password":          {[]string{basic("me")}, ""},
		"not base64":           {[]string{"Basic !"}, ""},
		"another scheme":       {[]string{"Digest abc"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": tc.headers})
			got, err := hubble.Token(ctx)
			if got != tc.want || (err != nil) != (tc.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
			if err != nil && status.Code(err) != codes.Unauthenticated {
				t.Errorf("got %v, want Unauthenticated", err)
			}
		})
	}
}
