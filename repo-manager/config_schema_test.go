package main

import (
	"reflect"
	"strings"
	"testing"
)

// TestSchemaFile: what is shown can be set again, and nothing that is not
// understood is passed over.
func TestSchemaFile(t *testing.T) {
	const text = `keys:
  a:
    type: integer
    default: 30
    min: 1
    max: 60.5
  b:
    type: enum
    description: |-
      two
      lines
    values: [eco, "yes"]
  c:
    type: boolean
    default: false
    required: true
`
	schema, err := parseSchema([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := schemaYAML(schema)
	if err != nil || string(shown) != text {
		t.Errorf("%v\n%s", err, shown)
	}
	if again, err := parseSchema(shown); err != nil || !reflect.DeepEqual(again, schema) {
		t.Errorf("%+v, %v", again, err)
	}
	if s, err := parseSchema([]byte("keys: {}\n")); err != nil || s.Keys == nil {
		t.Errorf("a schema without a key: %+v, %v", s, err)
	}
	for name, bad := range map[string]string{
		"nothing":          "",
		"no keys":          "keys:\n",
		"unknown":          "keys: {a: {type: string, defualt: x}}",
		"unknown above":    "keys: {}\nproduct: x\n",
		"twice":            "keys: {a: {type: string}, a: {type: integer}}",
		"no map":           "- a\n",
		"two documents":    "keys: {}\n---\nkeys: {}\n",
		"a bomb of labels": "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nkeys: *b\n",
		"garbage":          strings.Repeat("\x00{", 100),
	} {
		if s, err := parseSchema([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
