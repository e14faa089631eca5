package build

// advice is an error with the next step for whoever sees it, which the
// terminal shows as a hint.
type advice struct {
	error
	step string
}

func advise(err error, step string) error { return advice{err, step} }

// NextStep returns the hint.
func (a advice) NextStep() string { return a.step }

func (a advice) Unwrap() error { return a.error }
