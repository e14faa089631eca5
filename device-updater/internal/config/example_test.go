package config_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/viper"

	"aptfleet/device-updater/internal/config"
)

// TestExamplesHaveEveryKey: the file in the document and the one in the package
// are accepted, have every key, and say what the defaults are.
func TestExamplesHaveEveryKey(t *testing.T) {
	document, err := os.ReadFile("../../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(document), "Configuration: `/etc/aptfleet/device.yaml`")
	_, block, _ = strings.Cut(block, "```yaml\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("the document has no example")
	}
	packaged, err := os.ReadFile("../../package/device.yaml")
	if err != nil {
		t.Fatal(err)
	}
	every := keys("", reflect.TypeFor[config.Config]())
	slices.Sort(every)
	for name, text := range map[string]string{"docs/architecture.md": block, "package/device.yaml": string(packaged)} {
		t.Run(name, func(t *testing.T) {
			// A key that is commented out is one of the example.
			text = regexp.MustCompile(`(?m)^#([a-z]+:)`).ReplaceAllString(text, "$1")
			c, err := load(t, text)
			if err != nil {
				t.Fatal(err)
			}
			v := viper.New()
			v.SetConfigType("yaml")
			if err := v.ReadConfig(strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
			has := v.AllKeys()
			slices.Sort(has)
			if !slices.Equal(has, every) {
				t.Errorf("it has\n%q, and there are\n%q", has, every)
			}
			// What may be left out and has a default is shown with it.
			bare, err := load(t, "server: https://fleet.example.com\n")
			if err != nil {
				t.Fatal(err)
			}
			shown, meant := reflect.ValueOf(c), reflect.ValueOf(bare)
			for i := range shown.NumField() {
				if field := meant.Field(i); !field.IsZero() && shown.Type().Field(i).Name != "Server" && !reflect.DeepEqual(shown.Field(i).Interface(), field.Interface()) {
					t.Errorf("%s is shown as %v; left out it is %v", shown.Type().Field(i).Name, shown.Field(i), field)
				}
			}
		})
	}
}

// keys are the keys of a type, those of what lies in it after a dot.
func keys(prefix string, of reflect.Type) (all []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name := prefix + f.Tag.Get("mapstructure")
		if f.Type.Kind() == reflect.Struct {
			all = append(all, keys(name+".", f.Type)...)
			continue
		}
		all = append(all, name)
	}
	return all
}
