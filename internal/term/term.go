// Package term is how Aptfleet's programs talk to whoever started them.
//
// The policy, in one place:
//
//   - Results go to standard output, everything else (progress, hints,
//     errors) to standard error, so a pipe carries results only.
//   - On a terminal a table has a header, aligned columns, colour, shortened
//     ids, "3 days ago" and "1.2 MB". In a pipe the same command prints one
//     line a row, cells separated by one tab, without header or colour, with
//     whole ids, RFC 3339 times in UTC and plain numbers.
//   - With --json a command prints one JSON value and nothing else on
//     standard output; an error is {"error":{"code","text","hint"}} on
//     standard error.
//   - NO_COLOR (any value) and TERM=dumb switch colour off.
//   - Text that came from elsewhere cannot move the cursor: control characters
//     are shown escaped.
//   - The exit status says what happened; see the Exit constants.
package term

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// IO is one program's standard output and standard error, and what is known
// about them. Its methods are meant for one goroutine; Progress has its own
// lock.
type IO struct {
	Out io.Writer
	Err io.Writer

	OutTerminal bool // Out is read by a person now
	ErrTerminal bool // Err is read by a person now
	Colour      bool // escape sequences may be used on terminals
	Width       int  // columns of Out's terminal, into which tables fit their last one; 0 when unknown

	JSON bool             // --json was given
	Now  func() time.Time // for "3 days ago"
}

// System returns the IO of this process: os.Stdout and os.Stderr, with the
// environment read through getenv.
func System(getenv func(string) string) *IO {
	t := &IO{
		Out:         &keeper{w: os.Stdout},
		Err:         os.Stderr,
		OutTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		ErrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
		Colour:      getenv("NO_COLOR") == "" && getenv("TERM") != "dumb",
		Now:         time.Now,
	}
	if t.OutTerminal {
		if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
			t.Width = width
		}
	}
	return t
}

// IsTerminal tells whether a person is at the other end of a file.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// keeper remembers the first error of writing results, so that a full disk is
// not taken for success.
type keeper struct {
	w   io.Writer
	err error
}

func (k *keeper) Write(b []byte) (int, error) {
	n, err := k.w.Write(b)
	if err != nil && k.err == nil {
		k.err = err
	}
	return n, err
}

// lost returns an error if some of the results could not be written.
func (t *IO) lost() error {
	if k, ok := t.Out.(*keeper); ok && k.err != nil {
		return fmt.Errorf("cannot write the result: %w", k.err)
	}
	return nil
}

// PrintJSON writes v to standard output as indented JSON and a newline.
func (t *IO) PrintJSON(v any) error {
	enc := json.NewEncoder(t.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cannot write the result: %w", err)
	}
	return nil
}

// Say writes one line of result for people: nothing of it is meant to be
// parsed. It is silent with --json.
func (t *IO) Say(format string, args ...any) {
	if !t.JSON {
		fmt.Fprintf(t.Out, format+"\n", args...)
	}
}

// Result writes the one thing that a command made: a sentence about it on a
// terminal, in a pipe just its name, id or secret, so that
// id=$(program create …) works. With --json it is silent: PrintJSON tells.
func (t *IO) Result(bare, format string, args ...any) {
	switch {
	case t.JSON:
	case t.OutTerminal:
		fmt.Fprintf(t.Out, format+"\n", args...)
	default:
		fmt.Fprintln(t.Out, Printable(bare))
	}
}

// Note writes one line to standard error, for what is not the result. It is
// silent with --json.
func (t *IO) Note(format string, args ...any) {
	if !t.JSON {
		fmt.Fprintf(t.Err, format+"\n", args...)
	}
}

// ReadHidden asks for one line on the terminal of standard input, without
// showing what is typed.
func ReadHidden(err io.Writer, prompt string) (string, error) {
	fmt.Fprint(err, prompt)
	line, cause := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(err)
	if cause != nil {
		return "", fmt.Errorf("cannot read what is typed: %w", cause)
	}
	return string(line), nil
}
