package dataplane_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

func TestSmoke(t *testing.T) {
	r := netnstest.NewRouter(t)
	a := r.AddPod("10.9.0.1", "fd09::1")
	b := r.AddPod("10.9.0.2", "fd09::2")
	var d *dataplane.Dataplane
	r.Do(func() error {
		var err error
		d, err = dataplane.New(dataplane.Options{BPFFS: bpffs(t), Log: testr.New(t), Events: dataplane.EventsAll})
		if err != nil {
			return err
		}
		_, err = d.Sync(&compiler.Tables{
			Pods:      map[netip.Addr]compiler.Pod{b.V4: {Sets: [2]compiler.SetID{1, 0}}, b.V6: {Sets: [2]compiler.SetID{1, 0}}},
			Addresses: map[netip.Addr]compiler.ClassID{a.V4: 1},
			Rows:      map[compiler.RowKey]compiler.Row{{Set: 1, Class: 1}: {Table: 1, Default: compiler.Verdict{Action: policy.Deny}}},
			Ports:     map[compiler.PortKey]compiler.Verdict{{Table: 1, Protocol: policy.TCP, Port: 80, Bits: 16}: {Rule: 1, Tier: 1}},
		})
		if err != nil {
			return err
		}
		return d.Attach()
	})
	for _, port := range []int{80, 81} {
		for _, ip := range []netip.Addr{b.V4, b.V6} {
			var l net.Listener
			b.Do(func() error { var err error; l, err = net.Listen("tcp", fmt.Sprint(":", port)); return err })
			a.Do(func() error {
				c, err := net.DialTimeout("tcp", netip.AddrPortFrom(ip, uint16(port)).String(), time.Second)
				t.Log(ip, port, err)
				if c != nil {
					c.Close()
				}
				return nil
			})
			l.Close()
		}
	}
	c, err := d.Counters()
	t.Log(err)
	for _, c := range c.Judged {
		if c.Packets > 0 {
			t.Log(c)
		}
	}
	t.Log(d.Usage())
	dr, err := d.Sync(&compiler.Tables{})
	t.Log(dr, err)
}
