package blobstest

import "testing"

func TestMemory(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		m, err := NewMemory()
		if err != nil {
			t.Fatal(err)
		}
		return Subject{Store: m, Reopen: func() Store { return m }, Damage: m.Damage}
	})
}
