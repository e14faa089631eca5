package term

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"aptfleet/internal/protocol"
)

// The exit statuses of Aptfleet's programs. They are a contract with scripts.
const (
	ExitDone        = 0   // done, or nothing to do
	ExitFailed      = 1   // it did not work
	ExitUsage       = 2   // the command line is wrong
	ExitRefused     = 3   // a gate or a policy says no
	ExitReboot      = 4   // done, a reboot is needed (only with --reboot-exit-code)
	ExitNoAccess    = 5   // not authorised
	ExitLocked      = 11  // another change holds it
	ExitUnchanged   = 77  // nothing changed (only with --unchanged-exit-77)
	ExitInterrupted = 130 // stopped by the person who started it
)

// Exiter is an error that knows the exit status it stands for.
type Exiter interface {
	error
	ExitCode() int
}

// Hinter is an error that knows the next step.
type Hinter interface {
	error
	NextStep() string
}

// Coder is an error with a code for programs, as protocol.Error has it.
type Coder interface {
	error
	ErrorCode() string
}

// UsageError says that the command line is wrong.
type UsageError struct {
	Text string
	Hint string
}

func (e *UsageError) Error() string { return e.Text }

// ExitCode returns ExitUsage.
func (e *UsageError) ExitCode() int { return ExitUsage }

// NextStep returns the hint.
func (e *UsageError) NextStep() string { return e.Hint }

// ErrorCode returns "usage".
func (e *UsageError) ErrorCode() string { return "usage" }

// Usagef returns a UsageError without a hint.
func Usagef(format string, args ...any) error {
	return &UsageError{Text: fmt.Sprintf(format, args...)}
}

// Status is an error that only carries an exit status: what there is to say
// has been said. Fail prints nothing for it.
type Status int

func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// ExitCode returns the status.
func (s Status) ExitCode() int { return int(s) }

// WithHint returns err with a next step.
func WithHint(err error, hint string) error { return &hinted{err, hint} }

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string    { return h.err.Error() }
func (h *hinted) Unwrap() error    { return h.err }
func (h *hinted) NextStep() string { return h.hint }

// ExitCode returns the exit status that err stands for: 0 for nil, what an
// Exiter in its chain says, ExitInterrupted for a cancelled context, else
// ExitFailed.
func ExitCode(err error) int {
	var exiter Exiter
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &exiter):
		return exiter.ExitCode()
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	return ExitFailed
}

// Fail tells the person, or with --json the program, what went wrong and
// what to do next, and returns the exit status. Call it once, at the end of
// main, also with a nil error: results that could not be written are one.
func (t *IO) Fail(program string, err error) int {
	if err == nil {
		err = t.lost()
	}
	code := ExitCode(err)
	var status Status
	if err == nil || errors.As(err, &status) {
		return code
	}
	body := protocol.Error{Code: errorCode(err, code), Text: err.Error()}
	if code == ExitInterrupted {
		body.Text = strings.ReplaceAll(body.Text, context.Canceled.Error(), "interrupted")
	}
	var hinter Hinter
	if errors.As(err, &hinter) {
		body.Hint = hinter.NextStep()
	}
	if t.JSON {
		enc := json.NewEncoder(t.Err)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(protocol.ErrorBody{Error: body}); err == nil {
			return code
		}
	}
	fmt.Fprintf(t.Err, "%s %s\n", t.paint(program+":", Bad, t.ErrTerminal), Printable(body.Text))
	if body.Hint != "" {
		fmt.Fprintf(t.Err, "%s %s\n", t.paint("hint:", Faint, t.ErrTerminal), Printable(body.Hint))
	}
	return code
}

// errorCode is the word for programs: the error's own, or that of its exit
// status.
func errorCode(err error, exit int) string {
	var coder Coder
	if errors.As(err, &coder) {
		return coder.ErrorCode()
	}
	switch exit {
	case ExitUsage:
		return "usage"
	case ExitRefused:
		return "refused"
	case ExitNoAccess:
		return "no-access"
	case ExitLocked:
		return "locked"
	case ExitInterrupted:
		return "interrupted"
	}
	return "failed"
}
