package boot

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"aptfleet/internal/deb"
)

// entryFile tells the loader how a deployment starts; grub.cfg runs it as a
// script that sets three variables.
const entryFile = "boot/aptfleet/entry.cfg"

// argumentFiles hold kernel arguments, one or more a line, '#' for comments. A
// package of the product ships them; their order is that of their names.
const argumentFiles = "usr/lib/aptfleet/kernel.d/*.conf"

// argumentPattern is what a kernel argument may hold: nothing that GRUB's
// script would read as anything else, within double quotes.
var argumentPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.,:/=+@%-]*$`)

// releasePattern is the release of a kernel in the name of its file.
var releasePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]*$`)

// ErrNoKernel says that a root has no kernel: a container, or a machine whose
// kernel comes from elsewhere.
var ErrNoKernel = errors.New("there is no kernel in /boot")

// WriteEntry writes a root's /boot/aptfleet/entry.cfg: its newest kernel, the
// initrd of that kernel, and the product's kernel arguments. It returns
// ErrNoKernel, and writes nothing, if there is no kernel; a kernel whose initrd
// or modules are missing is another error. The root is not running.
func WriteEntry(root *os.Root) error {
	fail := func(err error) error { return fmt.Errorf("cannot write /%s: %w", entryFile, err) }
	kernels, err := fs.Glob(root.FS(), "boot/vmlinuz-*")
	if err != nil {
		return fail(err)
	}
	if len(kernels) == 0 {
		return fail(ErrNoKernel)
	}
	release := func(name string) string { return strings.TrimPrefix(path.Base(name), "vmlinuz-") }
	kernel := slices.MaxFunc(kernels, func(a, b string) int { return deb.Compare(release(a), release(b)) })
	version := release(kernel)
	if !releasePattern.MatchString(version) {
		return fail(fmt.Errorf("the name of /%s is no kernel's", kernel))
	}
	initrd := "boot/initrd.img-" + version
	for _, file := range []string{kernel, initrd} {
		if info, err := root.Stat(file); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			return fail(errors.Join(fmt.Errorf("/%s is no file with something in it", file), err))
		}
	}
	if info, err := root.Stat("usr/lib/modules/" + version); err != nil || !info.IsDir() {
		return fail(errors.Join(fmt.Errorf("kernel %s has no modules", version), err))
	}
	arguments, err := kernelArguments(root)
	if err != nil {
		return fail(err)
	}
	text := fmt.Sprintf("set kernel=\"/%s\"\nset initrd=\"/%s\"\nset options=\"%s\"\n", kernel, initrd, strings.Join(arguments, " "))
	if err := root.MkdirAll(path.Dir(entryFile), 0o755); err != nil {
		return fail(err)
	}
	if err := root.WriteFile(entryFile, []byte(text), 0o644); err != nil {
		return fail(err)
	}
	return nil
}

// kernelArguments reads argumentFiles.
func kernelArguments(root *os.Root) ([]string, error) {
	names, err := fs.Glob(root.FS(), argumentFiles)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range names {
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			line, _, _ := strings.Cut(lines.Text(), "#")
			for argument := range strings.FieldsSeq(line) {
				if !argumentPattern.MatchString(argument) {
					return nil, errors.Join(fmt.Errorf("/%s: %q is not a kernel argument that the loader can be given", name, argument), f.Close())
				}
				if strings.HasPrefix(argument, "aptfleet.") || strings.HasPrefix(argument, "root=") || strings.HasPrefix(argument, "rootflags=") {
					return nil, errors.Join(fmt.Errorf("/%s: %q is for the loader to say", name, argument), f.Close())
				}
				all = append(all, argument)
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	return all, nil
}
