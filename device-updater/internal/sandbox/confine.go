package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// withheld are the capabilities (capabilities(7)) that nothing in the sandbox
// has: what they allow is done to the machine, which goes on running. Containers
// lack the same, and packages can be installed in those.
var withheld = []uintptr{
	unix.CAP_SYS_ADMIN,       // mount, which would open /proc/sys and every disk again
	unix.CAP_DAC_READ_SEARCH, // open_by_handle_at: any file of the file system that the root lies on
	unix.CAP_SYS_PTRACE,      // take over the process that made the sandbox
	unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_SYS_BOOT, unix.CAP_SYS_TIME, unix.CAP_SYS_TTY_CONFIG, unix.CAP_SYSLOG,
	unix.CAP_SYS_RESOURCE, // protect oneself from the kernel when memory is short
	unix.CAP_MAC_ADMIN, unix.CAP_MAC_OVERRIDE, unix.CAP_AUDIT_CONTROL, unix.CAP_AUDIT_READ,
	unix.CAP_WAKE_ALARM, unix.CAP_BLOCK_SUSPEND, unix.CAP_PERFMON, unix.CAP_BPF, unix.CAP_CHECKPOINT_RESTORE,
}

// confine takes from what this thread starts the capabilities that are withheld,
// and the protection that the updater has where memory is short.
func confine() error {
	for _, c := range withheld {
		// An older kernel does not know the newest.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("cannot withhold capability %d: %w", c, err)
		}
	}
	const score = "/proc/self/oom_score_adj" // proc_pid_oom_score_adj(5)
	text, err := os.ReadFile(score)
	if err != nil {
		return fmt.Errorf("cannot tell what is killed first: %w", err)
	}
	if n, err := strconv.Atoi(string(bytes.TrimSpace(text))); err != nil || n >= 0 {
		return err
	}
	if err := os.WriteFile(score, []byte("0"), 0); err != nil {
		return fmt.Errorf("cannot give up protection: %w", err)
	}
	return nil
}

// oomKills is how many processes the kernel has killed for want of memory since
// it started; 0 if it does not say.
func oomKills() int64 {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if n, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			kills, err := strconv.ParseInt(string(bytes.TrimSpace(n)), 10, 64)
			if err != nil {
				return 0
			}
			return kills
		}
	}
	return 0
}
