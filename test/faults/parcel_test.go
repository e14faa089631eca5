package faults

import (
	"fmt"
	"slices"
	"testing"
)

// TestKilledParcel kills the server at each moment of a request that brings
// many packages. They share one commit, so that all of them are there
// afterwards, or none, and nothing of them lies anywhere else.
func TestKilledParcel(t *testing.T) {
	t.Parallel()
	const each = 40
	data := newData(t)
	s := start(t, data, "")
	kills := make(map[string]int)
	phases := slices.DeleteFunc(slices.Clone(uploadPhases), func(phase string) bool { return phase == "upload:received" })
	phases = append(phases, fmt.Sprintf("upload:received:%d", each/2))
	for n, phase := range phases {
		pipeline := fmt.Sprintf("p%d", n)
		s.pipeline(pipeline)
		sent := make(map[string][]byte)
		for i := range each {
			name := fmt.Sprintf("pkg%02d", i)
			sent[name] = makeDeb(t, name, "1.0", "amd64", 3000)
		}
		parcel := func(yield func(string, []byte) bool) {
			for name, content := range sent {
				if !yield(name+".deb", content) {
					return
				}
			}
		}
		fault := phase
		if n < len(phases)-1 {
			fault = s.fault(phase, 1)
		}
		s.stop()

		s = start(t, data, fault)
		_, err := s.API.UploadAll(t.Context(), pipeline, "apps", parcel, false)
		if !s.died() {
			t.Fatalf("the server did not die at %s:\n%s", fault, s.Log())
		}
		kills[phase]++

		s = start(t, data, "")
		there := s.offered(pipeline, "dev")
		count := 0
		for name, content := range sent {
			if sum, ok := there[name+" 1.0"]; ok {
				count++
				if sum != hexSum(content) {
					t.Errorf("killed at %s: %s is published with other bytes", phase, name)
				}
			}
		}
		if count != 0 && count != each || err == nil && count == 0 {
			t.Errorf("killed at %s: %d of %d packages are published (answered: %v)", phase, count, each, err == nil)
		}
		s.mustBeClean()
		answers, err := s.API.UploadAll(t.Context(), pipeline, "apps", parcel, false)
		if err != nil || len(answers) != each {
			t.Fatalf("killed at %s: again: %d answers, %v", phase, len(answers), err)
		}
		for _, a := range answers {
			if a.Upload == nil || a.Upload.Already != (count == each) {
				t.Errorf("killed at %s: %s again: %+v", phase, a.File, a)
			}
		}
		s.mustBeClean()
		if t.Failed() {
			t.FailNow()
		}
	}
	s.stop()
	report(t, "a request of many packages", phases, kills)
}
