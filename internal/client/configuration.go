package client

import (
	"context"
	"net/http"
	"net/url"

	"aptfleet/internal/protocol"
)

func configPath(pipeline string, s protocol.ConfigScope, parts ...string) string {
	return pipelinePath(pipeline, append([]string{"config", s.Kind, s.Name}, parts...)...)
}

// ConfigScopes lists the scopes of a pipeline that have values; with a name,
// all of that name.
func (c *Client) ConfigScopes(ctx context.Context, pipeline, name string) ([]protocol.ConfigScope, error) {
	query := url.Values{}
	if name != "" {
		query.Set("name", name)
	}
	return get[[]protocol.ConfigScope](ctx, c, pipelinePath(pipeline, "config"), query)
}

// Config lists what is set for a scope; with effective all that a device is
// configured with.
func (c *Client) Config(ctx context.Context, pipeline string, s protocol.ConfigScope, effective bool) ([]protocol.ConfigValue, error) {
	return get[[]protocol.ConfigValue](ctx, c, configPath(pipeline, s), effectively(effective))
}

// ConfigValue returns one key of what Config lists.
func (c *Client) ConfigValue(ctx context.Context, pipeline string, s protocol.ConfigScope, key string, effective bool) (protocol.ConfigValue, error) {
	return get[protocol.ConfigValue](ctx, c, configPath(pipeline, s, key), effectively(effective))
}

func effectively(effective bool) url.Values {
	if effective {
		return url.Values{"effective": {"1"}}
	}
	return nil
}

// SetConfig sets a key of a scope.
func (c *Client) SetConfig(ctx context.Context, pipeline string, s protocol.ConfigScope, key string, in protocol.SetConfig) (protocol.ConfigSet, error) {
	var out protocol.ConfigSet
	_, err := c.call(ctx, request{method: http.MethodPut, path: configPath(pipeline, s, key), json: in}, &out)
	return out, err
}

// UnsetConfig removes a key from a scope.
func (c *Client) UnsetConfig(ctx context.Context, pipeline string, s protocol.ConfigScope, key string, dryRun bool) (protocol.ConfigSet, error) {
	var out protocol.ConfigSet
	_, err := c.call(ctx, request{method: http.MethodDelete, path: configPath(pipeline, s, key), query: trying(dryRun)}, &out)
	return out, err
}

func trying(dryRun bool) url.Values {
	if dryRun {
		return url.Values{"dry-run": {"1"}}
	}
	return nil
}

// ConfigHistory lists the edits of a key of a scope, newest first.
func (c *Client) ConfigHistory(ctx context.Context, pipeline string, s protocol.ConfigScope, key string) ([]protocol.ConfigChange, error) {
	return get[[]protocol.ConfigChange](ctx, c, configPath(pipeline, s, key, "history"), nil)
}

// ConfigSchema returns the schema of a product; its Keys are nil if it has none.
func (c *Client) ConfigSchema(ctx context.Context, pipeline, product string) (protocol.ConfigSchema, error) {
	return get[protocol.ConfigSchema](ctx, c, pipelinePath(pipeline, "config-schemas", product), nil)
}

// SetConfigSchema gives a product another schema.
func (c *Client) SetConfigSchema(ctx context.Context, pipeline, product string, in protocol.ConfigSchema, dryRun bool) (protocol.ConfigSchemaSet, error) {
	var out protocol.ConfigSchemaSet
	_, err := c.call(ctx, request{method: http.MethodPut, path: pipelinePath(pipeline, "config-schemas", product), query: trying(dryRun), json: in}, &out)
	return out, err
}

// UnsetConfigSchema takes the schema of a product away.
func (c *Client) UnsetConfigSchema(ctx context.Context, pipeline, product string, dryRun bool) (protocol.ConfigSchemaSet, error) {
	var out protocol.ConfigSchemaSet
	_, err := c.call(ctx, request{method: http.MethodDelete, path: pipelinePath(pipeline, "config-schemas", product), query: trying(dryRun)}, &out)
	return out, err
}
