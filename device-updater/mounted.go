package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"aptfleet/internal/term"
)

// holdMounts keeps what is mounted at the paths mounted until the files are
// closed. Where nothing is mounted there is nothing to work on: while a machine
// goes down, an empty directory would be taken for boot control, in which
// nothing is on trial.
func holdMounts(paths ...string) (held mounts, err error) {
	for _, path := range paths {
		f, err := holdMount(path)
		if err != nil {
			return nil, errors.Join(err, held.close())
		}
		held = append(held, f)
	}
	return held, nil
}

// mounts are open mount points.
type mounts []*os.File

func (m mounts) close() error {
	var failures []error
	for _, f := range m {
		failures = append(failures, f.Close())
	}
	return errors.Join(failures...)
}

// holdMount asks the kernel whether path is a mount point. One before Linux 5.8
// cannot tell, and is believed (statx(2)).
func holdMount(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", path, err)
	}
	var st unix.Statx_t
	err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, 0, &st)
	if err != nil {
		err = fmt.Errorf("cannot use %s: %w", path, err)
	} else if st.Attributes_mask&^st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		err = term.WithHint(fmt.Errorf("cannot use %s: nothing is mounted there", path), "if the machine is not going down: mount "+path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
