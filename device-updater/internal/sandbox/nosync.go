package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unsynced are the system calls that wait for the disk. dpkg makes several of
// them for each package, to survive a power cut that would leave half of it; a
// clone in which something was cut off is thrown away, and one that is whole is
// synced as a whole.
var unsynced = []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC, unix.SYS_SYNCFS, unix.SYS_SYNC_FILE_RANGE}

// machines are the architectures as a filter is told of them, by Go's names
// (AUDIT_ARCH_ in linux/audit.h).
var machines = map[string]uint32{"amd64": 0xc000003e, "arm64": 0xc00000b7}

// Where a filter finds the number of a call and the architecture that it is made
// for (struct seccomp_data in linux/seccomp.h).
const (
	callNumber  = 0
	callMachine = 4
)

// nosync makes the calls of unsynced succeed at once in what this thread starts.
// It takes the capability to do so, and must come before that is withheld. Where
// the kernel has no filters, on an architecture that is not known here, and in
// programs of another one, they go on to wait.
func nosync() error {
	machine, ok := machines[runtime.GOARCH]
	if !ok {
		return nil
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	end := func(verdict uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
	}
	unless := func(value uint32, skip int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: uint8(skip)}
	}
	program := []unix.SockFilter{load(callMachine), unless(machine, 1+2*len(unsynced)), load(callNumber)}
	for _, call := range unsynced {
		program = append(program, unless(call, 1), end(unix.SECCOMP_RET_ERRNO)) // 0: no error
	}
	program = append(program, end(unix.SECCOMP_RET_ALLOW))
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("cannot let an installation do without waiting for the disk: %w", err)
	}
	runtime.KeepAlive(program)
	return nil
}
