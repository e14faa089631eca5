// Command microcontroller is the sample microcontroller of the tests: it answers
// on a pseudo-terminal, whose name it links to a path, until it is killed, which
// is how its power fails.
//
//	microcontroller -flash FILE -revision B2 -tty PATH [-pace 2ms] [-busy FILE] [-deaf FILE]
package main

import (
	"flag"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"aptfleet/test/microcontroller/board"
)

func main() {
	var b board.Board
	flag.StringVar(&b.Flash, "flash", "", "file with its flash")
	flag.StringVar(&b.Revision, "revision", "", "revision of its board")
	flag.DurationVar(&b.Pace, "pace", 0, "time that a page takes")
	flag.StringVar(&b.Busy, "busy", "", "file that keeps it from being flashed")
	flag.StringVar(&b.Deaf, "deaf", "", "file that keeps it from answering")
	tty := flag.String("tty", "", "link to make to its terminal")
	flag.Parse()
	if err := run(&b, *tty); err != nil {
		fmt.Fprintln(os.Stderr, "microcontroller:", err)
		os.Exit(1)
	}
}

func run(b *board.Board, tty string) error {
	line, name, err := open()
	if err != nil {
		return fmt.Errorf("cannot make a terminal: %w", err)
	}
	// As long as somebody has the other side open, reading does not fail when
	// the processor closes it.
	other, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := raw(other); err != nil {
		return fmt.Errorf("cannot set the terminal: %w", err)
	}
	if err := os.Symlink(name, tty+".new"); err != nil {
		return err
	}
	if err := os.Rename(tty+".new", tty); err != nil {
		return err
	}
	return b.Run(line)
}

// open makes a pseudo-terminal and returns its own side and the name of the
// other (pts(4)).
func open() (*os.File, string, error) {
	line, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, "", err
	}
	if err := unix.IoctlSetPointerInt(int(line.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, "", err
	}
	n, err := unix.IoctlGetInt(int(line.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, "", err
	}
	return line, fmt.Sprintf("/dev/pts/%d", n), nil
}

// raw makes a terminal pass all bytes on as they are (cfmakeraw(3)).
func raw(tty *os.File) error {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t)
}
