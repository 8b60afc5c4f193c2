package member_test

import (
	"testing"
	"time"

	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
)

// A head that is absent for as long as a member bears is given up; one that does not answer at all, or comes back, is not.
func TestAbsentLimit(t *testing.T) {
	sec := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	absent, silent, up := member.Event(member.HeadAbsent{}), member.Event(member.Tick{}), member.Event(member.LinkUp{})
	type step struct {
		at float64 // seconds
		ev member.Event
	}
	for _, tc := range []struct {
		name  string
		limit float64 // seconds
		steps []step
		ends  bool
	}{
		{"for ever, as is usual", 0, []step{{0, absent}, {2, absent}, {4, absent}, {6, absent}}, false},
		{"for as long as is borne", 3, []step{{0, absent}, {1, absent}, {2, absent}, {3, absent}}, true},
		{"a little less", 3, []step{{0, absent}, {1, absent}, {2, absent}}, false},
		{"a network that stalls", 3, []step{{0, absent}, {5, silent}, {10, silent}, {11, absent}, {13, absent}}, false},
		{"a head that came back", 3, []step{{0, absent}, {2, absent}, {2, up}, {3, member.LinkDown{}}, {4, absent}, {6, absent}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := member.New(member.Config{Node: ids.NodeID{3}, Head: "h:1", AbsentLimit: sec(tc.limit)})
			s.Step(0, member.LinkUp{})
			s.Step(0, member.Received{Msg: &headstate.Registered{Cluster: headstate.ClusterID{1}, Owner: 3, LeaseMs: 1000, DeadMs: 10000}})
			s.Step(0, member.LinkDown{Cause: "reset"})
			var last []member.Effect
			for _, st := range tc.steps {
				last = s.Step(sec(st.at), st.ev)
			}
			if ended := s.Phase() == member.Fenced; ended != tc.ends {
				t.Fatalf("phase %s", s.Phase())
			}
			for _, e := range last {
				if r, ok := e.(member.Refused); ok && tc.ends && r.Reason == headstate.RefusedEnded {
					return
				}
			}
			if tc.ends {
				t.Errorf("effects %v", last)
			}
		})
	}
}
