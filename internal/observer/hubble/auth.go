package hubble

import (
	"context"
	"encoding/base64"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Token returns the token that a call bears: "authorization: Bearer TOKEN", or the password of "authorization: Basic", which is what the
// hubble CLI can send. The user's name beside it means nothing. The error is Unauthenticated and says how to send one.
func Token(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return "", noToken("the call has no token")
	}
	scheme, value, _ := strings.Cut(values[0], " ")
	switch strings.ToLower(scheme) {
	case "bearer":
		if value == "" {
			return "", noToken("the token is empty")
		}
		return value, nil
	case "basic":
		plain, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return "", noToken("the basic authorization is not valid")
		}
		_, token, _ := strings.Cut(string(plain), ":")
		if token == "" {
			return "", noToken("the password is empty")
		}
		return token, nil
	}
	return "", noToken("the authorization is neither Bearer nor Basic")
}

func noToken(why string) error {
	return status.Error(codes.Unauthenticated, why+
		": send an observer token as the Basic password (hubble --basic-auth-username=kidoban --basic-auth-password=TOKEN) or as a Bearer token")
}
