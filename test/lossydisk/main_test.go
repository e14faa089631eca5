package lossydisk

import (
	"os"
	"testing"

	"aptfleet/test/rig"
)

func TestMain(m *testing.M) {
	if code, ended := rig.Apart(); ended {
		os.Exit(code)
	}
	os.Exit(m.Run())
}
