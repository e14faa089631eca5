package bootcontrol

import (
	"fmt"
	"slices"
	"strconv"
)

// Disk is all a loader can see and touch.
type Disk interface {
	// Read returns the bytes of a boot-control file.
	Read(name string) ([]byte, error)
	// Overwrite replaces the bytes of a boot-control file in place, without
	// truncating it, and returns once they are on the medium.
	Overwrite(name string, block []byte) error
	// Deployments returns the numbers below deployments/, in any order.
	Deployments() ([]int, error)
	// HasInit reports whether deployment n has /usr/lib/systemd/systemd.
	HasInit(n int) bool
	// HasRelease reports whether deployment n has /usr/lib/os-release.
	HasRelease(n int) bool
}

// Decision is what boots.
type Decision struct {
	Deployment int    // number of the deployment
	Trial      bool   // boot it with aptfleet.trial=1
	Reason     string // one clause for the console
}

// String returns the decision as the loader prints it: "boot 2 trial".
func (d Decision) String() string {
	if d.Trial {
		return fmt.Sprintf("boot %d trial", d.Deployment)
	}
	return fmt.Sprintf("boot %d", d.Deployment)
}

// Decide plays the loader's rules once. A trial is counted on disk before it
// is returned. The error means that nothing on the disk boots.
func Decide(disk Disk) (Decision, error) {
	l := loader{disk: disk}
	committed := l.variables(CommittedFile)
	if committed["committed"] == "" {
		return l.fallback(committed["previous"], "no committed deployment is recorded")
	}
	if n, ok := l.startTrial(committed["committed"]); ok {
		return Decision{Deployment: n, Trial: true, Reason: "trial, tries left afterwards: " + l.left}, nil
	}
	if n, ok := l.loads(committed["committed"]); ok {
		return Decision{Deployment: n, Reason: "committed; " + l.noTrial}, nil
	}
	return l.fallback(committed["previous"], "the committed deployment "+committed["committed"]+" has no init")
}

// loader is one run of the rules.
type loader struct {
	disk    Disk
	noTrial string // why no trial was started
	left    string // tries left after this one
}

// variables returns the variables of a file, or none if it cannot be read.
func (l *loader) variables(name string) map[string]string {
	block, err := l.disk.Read(name)
	if err != nil {
		return nil
	}
	vars, err := Variables(block)
	if err != nil {
		return nil
	}
	return vars
}

// startTrial plays rules 2 and 3. It returns the trial's number if it is to be
// booted now; else noTrial says why not.
func (l *loader) startTrial(committed string) (n int, ok bool) {
	block, err := l.disk.Read(TrialFile)
	if err != nil {
		l.noTrial = "grubenv cannot be read"
		return 0, false
	}
	vars, err := Variables(block)
	if err != nil {
		l.noTrial = "grubenv is damaged"
		return 0, false
	}
	trial, tries := vars["trial"], vars["tries"]
	switch {
	case trial == "":
		l.noTrial = "no trial is wanted"
		return 0, false
	case trial == committed:
		l.noTrial = "the trial is committed"
		return 0, false
	case !triesLeft(tries):
		l.noTrial = "no tries are left for deployment " + trial
		return 0, false
	}
	l.left = string(tries[0] - 1)
	block, ok = lowered(block, l.left)
	if !ok || l.disk.Overwrite(TrialFile, block) != nil {
		l.noTrial = "the try cannot be counted"
		return 0, false
	}
	if vars, err := Variables(block); err != nil || vars["tries"] != l.left {
		l.noTrial = "the count of tries does not read back"
		return 0, false
	}
	if n, ok = l.loads(trial); !ok {
		l.noTrial = "the trial " + trial + " has no init"
		return 0, false
	}
	return n, true
}

// loads returns the number that value names if that deployment has an init.
func (l *loader) loads(value string) (int, bool) {
	n, err := strconv.Atoi(value)
	if err != nil || strconv.Itoa(n) != value || n < 0 {
		return 0, false
	}
	return n, l.disk.HasInit(n)
}

// fallback plays the end of rules 1 and 4: previous, else the newest
// deployment that looks like a system.
func (l *loader) fallback(previous, why string) (Decision, error) {
	if n, ok := l.loads(previous); ok {
		return Decision{Deployment: n, Reason: why + "; previous"}, nil
	}
	all, err := l.disk.Deployments()
	if err != nil {
		return Decision{}, fmt.Errorf("cannot boot: %s, and the deployments cannot be listed: %w", why, err)
	}
	slices.Sort(all)
	for _, n := range slices.Backward(all) {
		if l.disk.HasRelease(n) && l.disk.HasInit(n) {
			return Decision{Deployment: n, Reason: why + "; highest-numbered deployment"}, nil
		}
	}
	return Decision{}, fmt.Errorf("cannot boot: %s, and no other deployment has an init", why)
}
