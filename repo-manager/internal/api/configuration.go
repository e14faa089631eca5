package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/release"
)

// maxHistory bounds how many edits of a key are answered.
const maxHistory = 200

// scopeIn is the scope of the configuration that a request names.
func scopeIn(c *gin.Context) configuration.Scope {
	return configuration.Scope{Pipeline: c.Param("p"), Kind: configuration.Kind(c.Param("kind")), Name: c.Param("of")}
}

func listConfigScopes(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	scopes, err := s.Configuration.Scopes(c.Request.Context(), c.Param("p"), c.Query("name"))
	return http.StatusOK, list(scopes, func(f configuration.Found) protocol.ConfigScope {
		return protocol.ConfigScope{Kind: string(f.Kind), Name: f.Name, Keys: f.Keys}
	}), err
}

// listConfig answers with what is set for a scope or, with effective=1, with
// all that a device is configured with.
func listConfig(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	values, err := s.configOf(c)
	return http.StatusOK, list(values, func(v protocol.ConfigValue) protocol.ConfigValue { return v }), err
}

func getConfig(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	values, err := s.configOf(c)
	if err != nil {
		return 0, nil, err
	}
	for _, v := range values {
		if v.Key == c.Param("key") {
			return http.StatusOK, v, nil
		}
	}
	return 0, nil, &release.Error{
		Code: release.NotFound, Text: fmt.Sprintf("cannot find %.80q of %s: it is not set there", c.Param("key"), scopeIn(c)),
		Hint: "repo-manager config list " + scopeIn(c).String(),
	}
}

func (s *server) configOf(c *gin.Context) ([]protocol.ConfigValue, error) {
	scope := scopeIn(c)
	effective, err := flag(c, "effective")
	switch {
	case err != nil:
		return nil, err
	case !effective:
		entries, err := s.Configuration.List(c.Request.Context(), scope)
		return list(entries, func(e configuration.Entry) protocol.ConfigValue { return *s.toConfigValue(e.Key, &e.Value) }), err
	case scope.Kind != configuration.OfDevice:
		return nil, invalid("ask for a device", "cannot tell what is effective for %s: devices of several products and stages differ", scope)
	}
	entries, err := s.Configuration.Effective(c.Request.Context(), scope.Pipeline, scope.Name)
	return list(entries, func(e configuration.Effective) protocol.ConfigValue {
		v := s.toConfigValue(e.Key, &e.Value)
		switch {
		case e.Missing:
			v.Missing, v.Unreadable = true, false
		case e.FromDefault:
			v.From = "default"
		default:
			v.From = e.Scope.String()
		}
		return *v
	}), err
}

// toConfigValue has everything of a value that people may see; of a secret it
// is when and by whom it was set.
func (s *server) toConfigValue(key string, v *configuration.Value) *protocol.ConfigValue {
	if v == nil {
		return nil
	}
	return &protocol.ConfigValue{
		Key: key, Type: string(v.Type), Value: v.Any(), By: v.By, At: v.At, Unreadable: !s.Configuration.Readable(*v),
	}
}

func (s *server) toConfigSet(done configuration.Done) protocol.ConfigSet {
	return protocol.ConfigSet{
		Scope: done.Scope.String(), Key: done.Key, Old: s.toConfigValue(done.Key, done.Old), New: s.toConfigValue(done.Key, done.New),
		Devices: done.Devices, Unchanged: done.Unchanged,
	}
}

func setConfig(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.SetConfig
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	done, err := s.Configuration.Set(c.Request.Context(), who.Actor(), scopeIn(c), configuration.Order{
		Key: c.Param("key"), Type: configuration.Type(in.Type), Value: in.Value, DryRun: in.DryRun,
	})
	return http.StatusOK, s.toConfigSet(done), err
}

func unsetConfig(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	dryRun, err := flag(c, "dry-run")
	if err != nil {
		return 0, nil, err
	}
	done, err := s.Configuration.Unset(c.Request.Context(), who.Actor(), scopeIn(c), c.Param("key"), dryRun)
	return http.StatusOK, s.toConfigSet(done), err
}

func getConfigHistory(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	key := c.Param("key")
	edits, err := s.Configuration.History(c.Request.Context(), scopeIn(c), key, maxHistory)
	return http.StatusOK, list(edits, func(e configuration.Edit) protocol.ConfigChange {
		bare := func(v *configuration.Value) *protocol.ConfigValue {
			if v == nil {
				return nil
			}
			return &protocol.ConfigValue{Key: key, Type: string(v.Type), Value: v.Any()}
		}
		return protocol.ConfigChange{At: e.At, By: e.By, Old: bare(e.Old), New: bare(e.New)}
	}), err
}

func getConfigSchema(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	schema, err := s.Configuration.Schema(c.Request.Context(), c.Param("p"), c.Param("product"))
	return http.StatusOK, toConfigSchema(schema), err
}

// setConfigSchema replaces the schema of a product.
func setConfigSchema(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	dryRun, err := flag(c, "dry-run")
	if err != nil {
		return 0, nil, err
	}
	var in protocol.ConfigSchema
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	if in.Product != "" && in.Product != c.Param("product") {
		return 0, nil, invalid("", "cannot set the configuration schema of product %s: this one is of product %.80s", c.Param("product"), in.Product)
	}
	if in.Keys == nil {
		return 0, nil, invalid("DELETE takes the schema away", "cannot set the configuration schema of product %s: it says nothing about keys", c.Param("product"))
	}
	schema, err := fromConfigSchema(in)
	if err != nil {
		return 0, nil, err
	}
	return s.putConfigSchema(c, who, schema, dryRun)
}

// unsetConfigSchema takes the schema of a product away.
func unsetConfigSchema(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	dryRun, err := flag(c, "dry-run")
	if err != nil {
		return 0, nil, err
	}
	return s.putConfigSchema(c, who, configuration.Schema{}, dryRun)
}

func (s *server) putConfigSchema(c *gin.Context, who access.Identity, schema configuration.Schema, dryRun bool) (int, any, error) {
	schema.Pipeline, schema.Product = c.Param("p"), c.Param("product")
	n, err := s.Configuration.SetSchema(c.Request.Context(), who.Actor(), schema, dryRun)
	return http.StatusOK, protocol.ConfigSchemaSet{Product: schema.Product, Keys: len(schema.Fields), Devices: n}, err
}

func toConfigSchema(s configuration.Schema) protocol.ConfigSchema {
	out := protocol.ConfigSchema{Product: s.Product, By: s.By, At: s.At}
	if s.Fields == nil {
		return out
	}
	out.Keys = make(map[string]protocol.ConfigField, len(s.Fields))
	for key, f := range s.Fields {
		field := protocol.ConfigField{
			Type: string(f.Type), Description: f.Description, Required: f.Required, Values: f.Values, Pattern: f.Pattern, Min: f.Min, Max: f.Max,
		}
		if f.Default != "" {
			field.Default = json.RawMessage(f.Default)
		}
		out.Keys[key] = field
	}
	return out
}

func fromConfigSchema(in protocol.ConfigSchema) (configuration.Schema, error) {
	out := configuration.Schema{Fields: make(map[string]configuration.Field, len(in.Keys))}
	for key, f := range in.Keys {
		field := configuration.Field{
			Type: configuration.Type(f.Type), Description: f.Description, Required: f.Required, Values: f.Values, Pattern: f.Pattern, Min: f.Min, Max: f.Max,
		}
		if f.Default != nil {
			text, err := configuration.Read(field.Type, f.Default)
			if err != nil {
				return out, invalid("", "cannot use the schema: the default of %.80s: %v", key, err)
			}
			field.Default = text
		}
		out.Fields[key] = field
	}
	return out, nil
}
