package inhibit

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Logind returns the locks that systemd-inhibit(1) and its like hold against a
// shutdown. Where there is no logind there are none.
func Logind(ctx context.Context) []Lock {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "busctl", "--json=short", "call", "org.freedesktop.login1", "/org/freedesktop/login1",
		"org.freedesktop.login1.Manager", "ListInhibitors").Output()
	if err != nil {
		return nil
	}
	all, err := parseInhibitors(out)
	if err != nil {
		return nil
	}
	return all
}

// parseInhibitors reads the answer to ListInhibitors, an array of structures
// (what, who, why, mode, uid, pid): org.freedesktop.login1(5). Of all locks
// those count that block a shutdown.
func parseInhibitors(text []byte) ([]Lock, error) {
	var answer struct{ Data [][][6]any }
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("cannot read the locks of logind: %w", err)
	}
	var all []Lock
	for _, list := range answer.Data {
		for _, x := range list {
			// What is of another type than the interface says counts as nothing.
			word := func(i int) string { s, _ := x[i].(string); return s }
			pid, _ := x[5].(float64)
			if word(3) == "block" && slices.Contains(strings.Split(word(0), ":"), "shutdown") {
				all = append(all, Lock{Who: word(1), Why: word(2), PID: int(pid)})
			}
		}
	}
	return all, nil
}
