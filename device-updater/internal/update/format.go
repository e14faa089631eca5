package update

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"strings"
)

// recordFormat is the version of the records. A newer updater, from which a
// device may go back, may add fields to them; what is there keeps its meaning.
const recordFormat = 1

// withUnknown adds to raw, the JSON object of v, those fields of the file at path
// that v does not have, if a newer updater wrote it. Else raw is returned as it
// is.
func withUnknown(path string, raw []byte, v any) ([]byte, error) {
	t := reflect.TypeOf(v)
	if t.Kind() != reflect.Struct {
		return raw, nil
	}
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return raw, nil
	}
	if err != nil {
		return nil, err
	}
	var head struct{ Format int }
	if err := json.Unmarshal(old, &head); err != nil || head.Format <= recordFormat {
		return raw, nil // one that is damaged is replaced
	}
	all, ours := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := errors.Join(json.Unmarshal(old, &all), json.Unmarshal(raw, &ours)); err != nil {
		return nil, err
	}
	format := all["format"]
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		delete(all, name)
	}
	for name, value := range ours {
		all[name] = value
	}
	all["format"] = format
	return json.MarshalIndent(all, "", "  ")
}
