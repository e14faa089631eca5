package pooltest

import "testing"

func TestMemory(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		m := new(Memory)
		return Subject{Pool: m, Dir: t.TempDir(), Reopen: func() Pool { return m }, Read: m.Read, Damage: m.Damage}
	})
}
