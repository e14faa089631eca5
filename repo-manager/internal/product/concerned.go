package product

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
)

// concern is the part of package lists that can decide whether a product can be
// installed.
type concern struct {
	wanted  []string // what is asked for, with what every system has, sorted
	stanzas []byte   // of all that can be reached from there
}

// concerned finds it. dose-debcheck takes eight seconds to read all of Debian,
// most of which no relation leads to.
func concerned(lists []string, question bom.BOM) (concern, error) {
	var stanzas []deb.Stanza
	byName := make(map[string][]int) // what a relation may mean: names and what is provided
	c := concern{wanted: slices.Clone(question.TopLevel)}
	for _, list := range lists {
		err := eachStanza(list, func(s deb.Stanza) error {
			v := s.Values("Package", "Essential", "Priority", "Provides")
			at := len(stanzas)
			stanzas = append(stanzas, s)
			byName[v[0]] = append(byName[v[0]], at)
			if v[1] == "yes" || v[2] == "required" {
				c.wanted = append(c.wanted, v[0])
			}
			groups, err := deb.ParseRelations(v[3])
			if err != nil {
				return nil // nobody can depend on what cannot be read
			}
			for _, group := range groups {
				for _, p := range group {
					byName[p.Name] = append(byName[p.Name], at)
				}
			}
			return nil
		})
		if err != nil {
			return c, fmt.Errorf("cannot read package list: %w", err)
		}
	}
	c.wanted = sorted(c.wanted)
	var reached []int
	seen := make(map[string]bool)
	taken := make([]bool, len(stanzas))
	reach := func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, at := range byName[name] {
			if !taken[at] {
				taken[at] = true
				reached = append(reached, at)
			}
		}
	}
	for _, name := range c.wanted {
		reach(name)
	}
	var out bytes.Buffer
	for i := 0; i < len(reached); i++ {
		s := stanzas[reached[i]]
		out.Write(s.Bytes())
		out.WriteByte('\n')
		for _, field := range s.Values("Pre-Depends", "Depends") {
			groups, err := deb.ParseRelations(field)
			if err != nil {
				return c, fmt.Errorf("cannot read the relations of %s: %w", s.Get("Package"), err)
			}
			for _, group := range groups {
				for _, r := range group {
					reach(r.Name)
				}
			}
		}
	}
	c.stanzas = out.Bytes()
	return c, nil
}

// eachStanza calls f for every stanza of a file.
func eachStanza(file string, f func(deb.Stanza) error) error {
	list, err := os.Open(file)
	if err != nil {
		return err
	}
	defer list.Close()
	stanzas := deb.NewStanzaReader(bufio.NewReaderSize(list, 1<<20), deb.MaxStanza)
	for {
		s, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(s)
		}
		if err != nil {
			return err
		}
	}
}
