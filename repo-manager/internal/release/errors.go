package release

import (
	"errors"
	"fmt"
	"syscall"
)

// fail makes an Error. Its text begins with what could not be done.
func fail(code Code, hint, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint}
}

// because wraps err, which is no person's fault, in what could not be done.
// A full disk is told apart: that is something a person can repair.
func because(err error, format string, args ...any) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	text := fmt.Sprintf(format, args...)
	if isFull(err) {
		return &Error{
			Code: NoSpace,
			Text: text + ": no space left on the disk of the data directory",
			Hint: "free space there or make it larger, then try again; nothing was changed",
			Err:  err,
		}
	}
	return fmt.Errorf("%s: %w", text, err)
}

// isFull tells whether a disk or a quota is used up.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// CodeOf returns the code of an Error inside err, or "" for an internal error.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
