package model

import "testing"

func TestParseName(t *testing.T) {
	for text, want := range map[string]Name{
		"web":              {"", "here", "web"},
		"shop/web":         {"", "shop", "web"},
		"deploy/web":       {"Deployment", "here", "web"},
		"Deployment/web":   {"Deployment", "here", "web"},
		"sts/shop/db":      {"StatefulSet", "shop", "db"},
		"pods/shop/db-0":   {"Pod", "shop", "db-0"},
		"rollout/shop/web": {},
		"a/b/c/d":          {},
		"shop/":            {},
		"/web":             {},
		"":                 {},
	} {
		got, err := ParseName(text, "here")
		if got != want || (err != nil) != (want == Name{}) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}
