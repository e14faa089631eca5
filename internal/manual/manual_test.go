package manual_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"aptfleet/internal/manual"
)

func pages(t *testing.T) map[string]string {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", "1795000000")
	root := &cobra.Command{Use: "prog", Short: "Do things"}
	child := &cobra.Command{Use: "do THING", Short: "Do one thing", Example: "  prog do it", Run: func(*cobra.Command, []string) {}}
	child.Flags().Bool("twice", false, "do it twice")
	root.AddCommand(child, manual.Command())
	dir := filepath.Join(t.TempDir(), "man8")
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(text)
	}
	return found
}

func TestEveryCommandHasItsPage(t *testing.T) {
	first := pages(t)
	page := first["prog-do.8"]
	for _, want := range []string{".SH NAME", "prog-do", `\-\-twice`, "do it twice", "prog do it"} {
		if !strings.Contains(strings.ReplaceAll(page, "--twice", `\-\-twice`), want) {
			t.Errorf("prog-do.8 lacks %q:\n%s", want, page)
		}
	}
	if first["prog.8"] == "" {
		t.Error("there is no prog.8")
	}
	if again := pages(t); again["prog-do.8"] != page {
		t.Error("two runs write different pages")
	}
}

func TestManWantsADirectory(t *testing.T) {
	command := manual.Command()
	command.SetArgs(nil)
	command.SilenceErrors, command.SilenceUsage = true, true
	if err := command.Execute(); err == nil {
		t.Error("it ran without a directory")
	}
}
