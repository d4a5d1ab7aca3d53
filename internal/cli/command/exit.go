package command

import (
	"errors"
	"fmt"
	"io"
)

// Exit codes of every command.
const (
	ExitYes   = 0 // the answer is yes, or there is nothing to report
	ExitNo    = 1 // the answer is no: denied, changed, found, not in force
	ExitError = 2 // there is no answer
)

// ErrNo is the end of a command whose answer, already printed, is no.
var ErrNo = errors.New("no")

// ErrNoAnswer is the end of a command without an answer that has printed why.
var ErrNoAnswer = errors.New("no answer")

// ExitCode of a command that ended with this error, which is printed if nothing was.
func ExitCode(err error, out io.Writer) int {
	switch {
	case err == nil:
		return ExitYes
	case errors.Is(err, ErrNo):
		return ExitNo
	case errors.Is(err, ErrNoAnswer):
		return ExitError
	}
	fmt.Fprintln(out, "error:", err)
	return ExitError
}

// Yes is nil, or ErrNo where the answer is no.
func Yes(answer bool) error {
	if answer {
		return nil
	}
	return ErrNo
}
