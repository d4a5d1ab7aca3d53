package main

import "testing"

func TestResolvers(t *testing.T) {
	for value, want := range map[string]string{
		"":                         "",
		"169.254.20.10":            "169.254.20.10",
		"10.0.0.2,fd00:ec2::253":   "10.0.0.2,fd00:ec2::253",
		"fd00::10,::ffff:10.0.0.2": "fd00::10,10.0.0.2",
	} {
		r := resolvers{}
		if err := r.Set(value); err != nil || r.String() != want {
			t.Errorf("%q: %s, %v", value, r.String(), err)
		}
	}
	for _, value := range []string{"ns.example.com", "10.0.0.0/8", "fe80::1%eth0", "0.0.0.0", "ff02::fb", "10.0.0.2:5353", "[fd00::10]:53"} {
		if (&resolvers{}).Set(value) == nil {
			t.Errorf("%q is taken", value)
		}
	}
}
